//! The folders of runs in a merge. A run that is not here is copied; of one that both have, the curves and the lines of its logs that
//! are not here are added. Claims and batch jobs of the other machine stay there.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use serde::Serialize;
use thinet_files::{read_if_exists, write_atomically};
use thinet_report::tables::ENVIRONMENT;

use super::merge::CLAIM_EXPIRY;
use crate::error::HarnessError;
use crate::store::run_folder::{run_environment, run_spec};
use crate::store::{Claim, ClaimTiming, Manifest, list_runs, paths};

/// What becomes of a run of the other folder.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "what", rename_all = "kebab-case")]
pub enum RunFate {
    /// It is not here and is copied.
    New,
    /// It is here; curves and lines of its logs that are not here are added.
    Join,
    /// A file of it has changed since it was written; it is left out.
    Damaged {
        /// Which file.
        problem: String,
    },
}

/// A run of the other folder.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct RunMerge {
    /// The name of its folder.
    pub name: String,
    #[serde(flatten)]
    pub fate: RunFate,
}

/// Files of a run that its end writes as a whole.
const WHOLE: [&str; 4] = [paths::MANIFEST, ENVIRONMENT, paths::ROWS, paths::SPEC];
/// Files of a run to which its processes append lines.
const LINES: [&str; 2] = [paths::LOG, paths::METRICS];

/// What becomes of each run.
pub(super) fn plan_runs(from: &Path, to: &Path) -> Result<Vec<RunMerge>, HarnessError> {
    let here = list_runs(to)?;
    let mut runs = Vec::new();
    for name in list_runs(from)? {
        let folder = paths::runs(from).join(&name);
        let read =
            run_spec(&folder).and_then(|_| Manifest::read(&folder)).and_then(|_| run_environment(&folder));
        let fate = match read {
            Err(HarnessError::DamagedFile { path, problem }) => {
                let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                RunFate::Damaged { problem: format!("{file} {problem}") }
            }
            Err(error) => return Err(error),
            Ok(_) if here.contains(&name) => RunFate::Join,
            Ok(_) => RunFate::New,
        };
        runs.push(RunMerge { name, fate });
    }
    Ok(runs)
}

/// Copies and joins the runs.
pub(super) fn join(from: &Path, to: &Path, runs: &[RunMerge]) -> Result<(), HarnessError> {
    for RunMerge { name, fate } in runs {
        let (theirs, ours) = (paths::runs(from).join(name), paths::runs(to).join(name));
        if matches!(fate, RunFate::Damaged { .. }) {
            continue;
        }
        fs::create_dir_all(&ours).map_err(HarnessError::io("create", &ours))?;
        let timing = ClaimTiming::expiring_after(CLAIM_EXPIRY);
        let _claim = Claim::try_take(&ours.join(paths::CLAIM), &ours, timing)?;
        add_curves(&theirs.join(paths::TENSORBOARD), &ours.join(paths::TENSORBOARD))?;
        for name in LINES {
            add_lines(&theirs.join(name), &ours.join(name))?;
        }
        // The spec last: it makes a folder a run, so that an interrupted copy is copied again.
        for name in WHOLE {
            let path = ours.join(name);
            if let Some(bytes) = read_if_exists(&theirs.join(name))?.filter(|_| !path.exists()) {
                write_atomically(&path, &bytes)?;
            }
        }
    }
    Ok(())
}

/// Copies the event files that are not here. Their names are unique.
fn add_curves(from: &Path, to: &Path) -> Result<(), HarnessError> {
    for stage in entries(from)? {
        for file in entries(&stage)? {
            let (Some(stage), Some(name)) = (stage.file_name(), file.file_name()) else { continue };
            let target = to.join(stage).join(name);
            // A link could lead to any file of the other machine.
            let is_file = fs::symlink_metadata(&file).is_ok_and(|metadata| metadata.is_file());
            if !is_file || target.exists() {
                continue;
            }
            let folder = to.join(stage);
            fs::create_dir_all(&folder).map_err(HarnessError::io("create", &folder))?;
            write_atomically(&target, &fs::read(&file).map_err(HarnessError::io("read", &file))?)?;
        }
    }
    Ok(())
}

/// Appends the lines that are not here, in one write.
fn add_lines(from: &Path, to: &Path) -> Result<(), HarnessError> {
    let text = |path: &Path| -> Result<String, HarnessError> {
        let bytes = read_if_exists(path)?.unwrap_or_default();
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    let (theirs, ours) = (text(from)?, text(to)?);
    let known: BTreeSet<&str> = ours.lines().collect();
    let mut added: String = if ours.is_empty() || ours.ends_with('\n') { String::new() } else { "\n".into() };
    for line in theirs.lines().filter(|line| !known.contains(line)) {
        added.push_str(line);
        added.push('\n');
    }
    if added.trim().is_empty() {
        return Ok(());
    }
    let mut file =
        File::options().create(true).append(true).open(to).map_err(HarnessError::io("open", to))?;
    file.write_all(added.as_bytes()).map_err(HarnessError::io("write", to))
}

/// The entries of a folder, sorted; none if it does not exist or is no folder.
fn entries(folder: &Path) -> Result<Vec<PathBuf>, HarnessError> {
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let read = || fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>();
    let mut paths = read().map_err(HarnessError::io("read", folder))?;
    paths.sort();
    Ok(paths)
}
