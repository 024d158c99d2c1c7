//! Finds runs, folders with a resolved spec, by name, id, a prefix of either, path, spec file, or a table that they wrote.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use thinet_report::tables::{BESIDE, StoredTable};

use crate::error::HarnessError;
use crate::store::paths::SPEC as RESOLVED;
use crate::store::{Manifest, paths};
use crate::study::identity::spec_hash;
use crate::study::{Options, ResolvedStudy};

/// A run that is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// The results folder whose store holds its stages.
    pub results: PathBuf,
    /// Name of its folder below `runs`; for a folder that was copied elsewhere its path.
    pub name: String,
    /// Name of its study.
    pub study: String,
    /// The run's id as in tables. For runs of old versions taken from the folder's name.
    pub id: String,
    started: Option<SystemTime>,
}

impl Run {
    /// The run in a folder; `None` if it is no run.
    fn at(results: &Path, name: String) -> Option<Self> {
        let folder = paths::runs(results).join(&name);
        let resolved = folder.join(RESOLVED);
        let text = fs::read_to_string(&resolved).ok()?;
        let spec: toml::Table = text.parse().ok()?;
        let study = spec.get("name")?.as_str()?.to_owned();
        // An unreadable manifest is reported where its stages are needed.
        let listed = Manifest::read(&folder).ok().flatten().map(|manifest| manifest.run);
        let id = listed.unwrap_or_else(|| name.rsplit('-').next().unwrap_or_default().to_owned());
        let started = fs::metadata(&resolved).and_then(|file| file.modified()).ok();
        Some(Self { results: results.to_owned(), name, study, id, started })
    }

    /// Its folder.
    #[must_use]
    pub fn folder(&self) -> PathBuf {
        // An absolute path replaces the path it is joined to.
        paths::runs(&self.results).join(&self.name)
    }

    /// Whether the folder has its original name, so that it is not a copy.
    fn is_original(&self) -> bool {
        self.name == format!("{}-{}", self.study, self.id)
    }
}

/// Every run below a results folder, in the order of their starts.
///
/// # Errors
/// If the folder exists and cannot be read.
pub fn all_runs(results: &Path) -> Result<Vec<Run>, HarnessError> {
    let names = crate::store::list_runs(results)?;
    let mut runs: Vec<Run> = names.into_iter().filter_map(|name| Run::at(results, name)).collect();
    runs.sort_by(|a, b| (a.started, &a.name).cmp(&(b.started, &b.name)));
    Ok(runs)
}

/// The runs that `what` names, in the order of their starts: a folder, a spec file, a name, an id, a prefix of either, or a table.
///
/// # Errors
/// If there is none (the message lists the runs), the spec file is invalid, or a folder cannot be read.
pub fn find_runs(results: &Path, what: &str, seeds: Option<u64>) -> Result<Vec<Run>, HarnessError> {
    let path = Path::new(what);
    if path.join(RESOLVED).is_file() {
        return Ok(vec![in_folder(results, path)?]);
    }
    if path.extension().is_some_and(|extension| extension == "toml") {
        return of_spec(results, path, seeds);
    }
    let runs = all_runs(results)?;
    let those = |is: &dyn Fn(&Run) -> bool| runs.iter().filter(|run| is(run)).cloned().collect::<Vec<Run>>();
    let name = what.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
    let by_table = table_run(results, name);
    let exact = those(&|run| run.name == name || run.id == name);
    let from_table = those(&|run| by_table.as_deref() == Some(run.id.as_str()));
    let beginning =
        those(&|run| !name.is_empty() && (run.name.starts_with(name) || run.id.starts_with(name)));
    let found = [exact, from_table, beginning].into_iter().find(|found| !found.is_empty());
    found.ok_or_else(|| {
        let place = results.display();
        let problem = match by_table {
            Some(id) => {
                format!("the table {name} was written by run {id}, whose folder is not in {place}/runs")
            }
            None => {
                format!("no run in {place} is called {what:?}, has it as id or wrote a table of this name")
            }
        };
        HarnessError::NoSuchRun(format!("{problem}; stored: {}", listed(&runs)))
    })
}

/// The single run that `what` names, see [`find_runs`].
///
/// # Errors
/// As for [`find_runs`], and if there are several.
pub fn find_run(results: &Path, what: &str) -> Result<Run, HarnessError> {
    let found = find_runs(results, what, None)?;
    if let [one] = &found[..] {
        return Ok(one.clone());
    }
    // A copy beside its original is the same run.
    let originals: Vec<&Run> = found.iter().filter(|run| run.is_original()).collect();
    if let [one] = originals[..]
        && found.iter().all(|run| run.id == one.id)
    {
        return Ok(one.clone());
    }
    Err(HarnessError::NoSuchRun(format!("several runs are {what:?}: {}", listed(&found))))
}

fn listed(runs: &[Run]) -> String {
    if runs.is_empty() {
        return "none".to_owned();
    }
    runs.iter().map(|run| run.name.as_str()).collect::<Vec<_>>().join(", ")
}

/// The run in a folder. One below a `runs` folder belongs to that results folder; a copy elsewhere belongs to `results`.
fn in_folder(results: &Path, folder: &Path) -> Result<Run, HarnessError> {
    let folder = folder.canonicalize().map_err(HarnessError::io("open", folder))?;
    let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let runs = folder.parent().filter(|parent| parent.file_name().is_some_and(|name| name == "runs"));
    let run = match runs.and_then(Path::parent) {
        Some(own) if results.canonicalize().is_ok_and(|results| results == own) => Run::at(results, name),
        Some(own) => Run::at(own, name),
        None => Run::at(results, folder.display().to_string()),
    };
    run.ok_or_else(|| {
        let problem = format!("{RESOLVED}: is no resolved spec with a name");
        HarnessError::NoSuchRun(format!("{}: {problem}", folder.display()))
    })
}

/// Runs of a spec's study. Those of exactly this spec with these seeds come last, as callers take the last one.
fn of_spec(results: &Path, path: &Path, seeds: Option<u64>) -> Result<Vec<Run>, HarnessError> {
    let options = Options { seeds, results: results.to_owned(), ..Options::default() };
    let (spec, _) = ResolvedStudy::read(path, &options)?;
    let hash = spec_hash(&spec)?;
    let runs = all_runs(results)?;
    let is_exact = |run: &Run| {
        Manifest::read(&run.folder()).ok().flatten().is_some_and(|manifest| manifest.asked == hash)
    };
    let of_study = runs.iter().filter(|run| run.study == spec.name);
    let (mut found, exact): (Vec<Run>, Vec<Run>) = of_study.cloned().partition(|run| !is_exact(run));
    if exact.is_empty() && (found.is_empty() || seeds.is_some()) {
        let (file, path, place) = (path, path.display(), results.display());
        let seeds = seeds.map(|seeds| format!(" --seeds {seeds}")).unwrap_or_default();
        let command = options.run_command(file);
        let others = if found.is_empty() { &runs } else { &found };
        return Err(HarnessError::NoSuchRun(format!(
            "no run of {path}{seeds} was started in {place}; start it: {command}; stored: {}",
            listed(others)
        )));
    }
    found.extend(exact);
    Ok(found)
}

/// The table of cells that a file or a derived table belongs to: `smoke` for `results/tables/smoke-summary.md`.
#[must_use]
pub fn table_of_file(file: &str) -> &str {
    let name = file.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
    // Names of tables contain no dot.
    let name = name.split('.').next().unwrap_or_default();
    BESIDE.iter().find_map(|suffix| name.strip_suffix(suffix)).unwrap_or(name)
}

/// The run that wrote a table, from the table's first column.
fn table_run(results: &Path, name: &str) -> Option<String> {
    let path = paths::tables(results).join(format!("{}.csv", table_of_file(name)));
    StoredTable::parse(fs::read(path).ok()?).ok()?.run().map(str::to_owned)
}

/// Names of the tables of cells that a run wrote, or of all runs.
///
/// # Errors
/// If the folder exists and cannot be read.
pub fn tables_of(results: &Path, run: Option<&str>) -> Result<Vec<String>, HarnessError> {
    let folder = paths::tables(results);
    let mut names = Vec::new();
    for entry in folder
        .is_dir()
        .then(|| fs::read_dir(&folder))
        .transpose()
        .map_err(HarnessError::io("read", &folder))?
        .into_iter()
        .flatten()
    {
        let path = entry.map_err(HarnessError::io("read", &folder))?.path();
        let name = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_suffix(".csv"));
        // Files that belong to a table, such as its times, have a dot in their names.
        let Some(name) = name.filter(|name| !name.contains('.')) else { continue };
        if table_of_file(name) != name {
            continue;
        }
        let writer = table_run(results, name);
        if writer.is_some() && (run.is_none() || writer.as_deref() == run) {
            names.push(name.to_owned());
        }
    }
    names.sort();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A results folder with runs of these names, started in this order.
    fn results(runs: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (i, (name, study)) in runs.iter().enumerate() {
            add(folder.path(), name, study);
            let file = folder.path().join("runs").join(name).join(RESOLVED);
            let started = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000 + i as u64);
            fs::File::options().append(true).open(file).unwrap().set_modified(started).unwrap();
        }
        folder
    }

    fn add(results: &Path, name: &str, study: &str) {
        let folder = results.join("runs").join(name);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join(RESOLVED), format!("name = {study:?}\n")).unwrap();
    }

    const A: &str = "birds-0123456789ab";
    const B: &str = "birds-two-ba9876543210";
    const C: &str = "birds-cdef01234567";

    #[test]
    fn a_run_is_found_by_name_id_prefix_folder_and_table() {
        let folder = results(&[(A, "birds"), (B, "birds-two"), (C, "birds")]);
        let place = folder.path();
        fs::create_dir_all(place.join("tables")).unwrap();
        fs::write(place.join("tables/selected.csv"), "run,cell\n0123456789ab,cell-1\n").unwrap();
        let path = place.join("runs").join(A).display().to_string();
        for what in [A, "0123456789ab", "0123", "birds-0", "selected", "selected.csv", &path] {
            assert_eq!(find_run(place, what).unwrap().name, A, "{what}");
        }
        assert_eq!(find_run(place, "birds-two").unwrap().name, B);
        let several = find_run(place, "birds").unwrap_err().to_string();
        assert!(several.contains(A) && several.contains(B) && several.contains(C), "{several}");
        assert_eq!(find_runs(place, "birds", None).unwrap().last().unwrap().name, C, "the last one to start");
        let none = find_run(place, "fish").unwrap_err().to_string();
        assert!(none.contains("\"fish\"") && none.contains(A) && none.contains(B), "{none}");
        assert_eq!(tables_of(place, Some("0123456789ab")).unwrap(), ["selected"]);
    }

    #[test]
    fn a_table_whose_run_is_gone_says_so() {
        let folder = results(&[(A, "birds")]);
        fs::create_dir_all(folder.path().join("tables")).unwrap();
        fs::write(folder.path().join("tables/old.csv"), "run,cell\nffffffffffff,cell-1\n").unwrap();
        let error = find_run(folder.path(), "old").unwrap_err().to_string();
        assert!(error.contains("written by run ffffffffffff, whose folder is not in"), "{error}");
    }

    #[test]
    fn copies_belong_to_where_their_stages_are() {
        let folder = results(&[(A, "birds")]);
        let other = results(&[(A, "birds")]);
        let elsewhere = tempfile::tempdir().unwrap();
        let copy = elsewhere.path().join("copy");
        fs::create_dir(&copy).unwrap();
        fs::copy(folder.path().join("runs").join(A).join(RESOLVED), copy.join(RESOLVED)).unwrap();

        let found =
            find_run(folder.path(), &other.path().join("runs").join(A).display().to_string()).unwrap();
        assert_eq!(found.results, other.path().canonicalize().unwrap(), "a copied results folder is its own");
        let found = find_run(folder.path(), &copy.display().to_string()).unwrap();
        assert_eq!(found.results, folder.path());
        assert_eq!(found.folder(), copy.canonicalize().unwrap());

        // A copy beside the original is the same run.
        add(folder.path(), "backup-0123456789ab", "birds");
        assert_eq!(find_run(folder.path(), "0123456789ab").unwrap().name, A);
    }

    #[test]
    fn files_and_derived_tables_belong_to_the_table_of_cells() {
        for file in [
            "smoke",
            "smoke.csv",
            "results/tables/smoke.md",
            "smoke-tau",
            "smoke-summary.md",
            "smoke.env.json",
        ] {
            assert_eq!(table_of_file(file), "smoke", "{file}");
        }
        assert_eq!(table_of_file("selectors-fashion-mnist.md"), "selectors-fashion-mnist");
    }
}
