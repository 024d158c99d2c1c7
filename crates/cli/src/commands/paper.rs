//! `thinet paper`: runs the studies at the paper's scale whose data is given, and writes the tables that compare all of
//! them with the published numbers.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use thinet_data::DatasetSpec;
use thinet_harness::HarnessError;
use thinet_harness::run::check_tables;
use thinet_harness::store::{machine, paths};
use thinet_harness::study::{ResolvedStudy, Spec, not_run};
use thinet_models::Device;
use thinet_report::html;
use thinet_report::records::StudyRecord;
use thinet_report::tables::{self, Closing, ClosingStudy, PaperStudy};

use super::run::execute;
use crate::exit::BadArgument;
use crate::options::{Place, Study, Workers};
use crate::output::report_written;

/// Run the studies at the paper's scale whose data is given; compare all of them with the paper's numbers
#[derive(Debug, Args)]
#[command(after_help = "\
Without --imagenet, --cub and --cifar10 nothing runs: the tables say \"not run\" beside the published numbers.
The last lines list every table, the figure, the report and what was not run; to draw figures
and report in between, `--closing never`, then `--closing only`, as `make reproduce-table` does.

Example:
  thinet paper experiments/imagenet/*.toml experiments/cub200/*.toml \\
      --imagenet /data/ILSVRC2012 --device cuda:0")]
pub(crate) struct Arguments {
    /// The studies, such as experiments/imagenet/*.toml
    #[arg(required = true, value_name = "SPEC")]
    specs: Vec<PathBuf>,
    /// A finished study for the closing lines; they begin with the result of the first one
    #[arg(long, value_name = "SPEC")]
    study: Vec<PathBuf>,
    /// The closing lines: after the work, never, or nothing but them
    #[arg(long, value_name = "WHEN", value_enum, default_value_t = Lines::Last)]
    closing: Lines,
    /// Folder of ILSVRC-2012 (see `thinet data check imagenet`)
    #[arg(long, value_name = "DIR")]
    imagenet: Option<PathBuf>,
    /// Folder of CUB-200-2011
    #[arg(long, value_name = "DIR")]
    cub: Option<PathBuf>,
    /// Folder of CIFAR-10 in its binary format (see `thinet data fetch cifar10`)
    #[arg(long, value_name = "DIR")]
    cifar10: Option<PathBuf>,
    /// Folder of files made by `thinet data prepare` [default: prepared/ in the folder of the dataset]
    #[arg(long, value_name = "DIR")]
    prepared: Option<PathBuf>,
    /// Device: cpu, cuda or cuda:N
    #[arg(long, value_name = "DEVICE", default_value = "cpu")]
    device: Device,
    /// Results folder
    #[arg(long, value_name = "DIR", default_value = "results")]
    results: PathBuf,
    #[command(flatten)]
    workers: Workers,
}

/// What is wrong with a study of other data.
const ONLY_THESE: &str = "only imagenet, cub200 and cifar10 studies can be named here";

/// When the closing lines are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Lines {
    // After the studies were run and the tables written.
    Last,
    Never,
    // Alone: nothing is run, no table is written.
    Only,
}

/// A study with its results, if there are any.
struct StudyResult {
    resolved: ResolvedStudy,
    study: StudyRecord,
    is_run: bool,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let mut known = Vec::new();
    let mut failures = Vec::new();
    // By name without extension, so that twins come after their originals: a shell sorts `x-twins.toml` before `x.toml`.
    let mut specs = arguments.specs.clone();
    specs.sort_by_key(|spec| spec.with_extension(""));
    check_owners(&specs, &arguments.results)?;
    for spec in &specs {
        let study = study_of(arguments, spec)?;
        let options = study.options();
        let resolved = ResolvedStudy::without_data(spec, &options)?
            .ok_or_else(|| BadArgument(format!("{}: {ONLY_THESE}", spec.display())))?;
        let data = study.place.data.as_ref().filter(|_| arguments.closing != Lines::Only);
        let outcome = data.map(|_| execute(&study, &arguments.workers));
        let (study, is_run) = match outcome {
            Some(Ok(mut outcome)) => {
                if let Some(failure) = outcome.failure.take() {
                    eprintln!("failed: {}: {failure}", spec.display());
                    failures.push(failure.into());
                }
                (outcome.study, true)
            }
            Some(Err(error)) => {
                let line = crate::exit::line(&error);
                eprintln!("failed: {}: {line}", spec.display());
                failures.push(error);
                (not_run(&resolved), false)
            }
            None => (not_run(&resolved), false),
        };
        known.push(StudyResult { resolved, study, is_run });
    }
    let names = match arguments.closing {
        Lines::Only => table_names(&known),
        Lines::Last | Lines::Never => write_tables(&known, &arguments.results)?,
    };
    if arguments.closing != Lines::Never {
        close(&known, &names, arguments)?;
    }
    match failures.into_iter().next() {
        Some(first) => Err(first.context("some studies failed, the others are stored; the first failure")),
        None => Ok(()),
    }
}

/// The study with its data folder, if that was given.
fn study_of(arguments: &Arguments, spec: &Path) -> anyhow::Result<Study> {
    let read = Spec::read(spec).map_err(HarnessError::from)?;
    let data = match read.dataset {
        DatasetSpec::Imagenet(_) => arguments.imagenet.clone(),
        DatasetSpec::Cub200(_) => arguments.cub.clone(),
        DatasetSpec::Cifar10(_) => arguments.cifar10.clone(),
        _ => return Err(BadArgument(format!("{}: {ONLY_THESE}", spec.display())).into()),
    };
    let Arguments { device, prepared, results, .. } = arguments;
    let place = Place { device: *device, data, prepared: prepared.clone(), results: results.clone() };
    Ok(Study { spec: spec.to_owned(), seeds: None, place })
}

/// Writes each paper table from its studies, and the tables of studies that belong to none.
///
/// Prints the tables that were measured now and a line for each of the others. Returns the names of all.
fn write_tables<'a>(known: &'a [StudyResult], results: &Path) -> anyhow::Result<Vec<&'a str>> {
    let folder = paths::tables(results);
    for name in paper_tables(known) {
        let studies: Vec<PaperStudy<'_>> = known
            .iter()
            .filter(|k| k.resolved.spec.paper_table.as_deref() == Some(name))
            .map(|k| k.resolved.paper_study(&k.study, k.is_run))
            .collect();
        let run = tables::paper_run(&studies);
        if run == tables::NOT_RUN && !is_free(&folder, name)? {
            note_measured(&folder, name);
            continue;
        }
        let table = tables::paper(name, &studies)?;
        if run != tables::NOT_RUN {
            println!("{}", table.markdown());
        }
        report_written(&tables::write(&folder, &table, &run)?);
    }
    for StudyResult { study, is_run, .. } in known.iter().filter(|k| k.resolved.spec.paper_table.is_none()) {
        if !is_run && !is_free(&folder, &study.table)? {
            note_measured(&folder, &study.table);
            continue;
        }
        let own = tables::selectors(study)?;
        if let Some(summary) = own.get(1).filter(|_| *is_run) {
            // Its run has written its tables.
            println!("{}", summary.markdown());
            continue;
        }
        for table in &own {
            report_written(&tables::write(&folder, table, tables::NOT_RUN)?);
        }
    }
    Ok(table_names(known))
}

/// Names of the paper tables that the studies belong to.
fn paper_tables(known: &[StudyResult]) -> Vec<&str> {
    let mut names: Vec<&str> = Vec::new();
    for name in known.iter().filter_map(|k| k.resolved.spec.paper_table.as_deref()) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

/// Names of all tables of the studies.
fn table_names(known: &[StudyResult]) -> Vec<&str> {
    let own = known.iter().filter(|k| k.resolved.spec.paper_table.is_none()).map(|k| k.study.table.as_str());
    paper_tables(known).into_iter().chain(own).collect()
}

/// Refuses, before any work, to overwrite tables that hold only other studies.
fn check_owners(specs: &[PathBuf], results: &Path) -> anyhow::Result<()> {
    let read: Result<Vec<Spec>, _> = specs.iter().map(|path| Spec::read(path)).collect();
    let read = read.map_err(HarnessError::from)?;
    for (path, spec) in specs.iter().zip(&read) {
        let Some(name) = spec.paper_table.as_deref() else {
            check_tables(spec, path, results)?;
            continue;
        };
        let owners = tables::owners(&paths::tables(results), name).map_err(HarnessError::from)?;
        let own: Vec<&str> = read
            .iter()
            .filter(|other| other.paper_table.as_deref() == Some(name))
            .map(|other| other.name.as_str())
            .collect();
        if owners.is_empty() || owners.iter().any(|owner| own.contains(&owner.as_str())) {
            continue;
        }
        let problem = format!(
            "{}: table {name} holds {}, not {}; give these another table with the key `paper-table`, or move its files \
             away",
            path.display(),
            owners.into_iter().collect::<Vec<_>>().join(", "),
            own.join(", ")
        );
        return Err(BadArgument(problem).into());
    }
    Ok(())
}

/// Whether no table of this name holds measurements.
fn is_free(folder: &Path, name: &str) -> anyhow::Result<bool> {
    let path = folder.join(format!("{name}.csv"));
    if !path.exists() {
        return Ok(true);
    }
    let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(text.lines().nth(1).is_none_or(|line| line.starts_with(tables::NOT_RUN)))
}

/// Reports a table that an earlier run measured; without the data it cannot be computed again.
fn note_measured(folder: &Path, name: &str) {
    eprintln!("stored:  {} (measured earlier)", folder.join(format!("{name}.md")).display());
}

/// Prints the closing lines: the study's result, where every table is, what was not run.
fn close(known: &[StudyResult], names: &[&str], arguments: &Arguments) -> anyhow::Result<()> {
    let studies: Result<Vec<Spec>, _> = arguments.study.iter().map(|path| Spec::read(path)).collect();
    let studies = studies.map_err(HarnessError::from)?;
    let studies: Vec<ClosingStudy<'_>> =
        studies.iter().map(|spec| ClosingStudy { name: &spec.name, table: spec.table_name() }).collect();
    let with_table = |k: &'_ StudyResult| {
        let spec = &k.resolved.spec;
        (spec.name.clone(), spec.paper_table.clone().unwrap_or_else(|| k.study.table.clone()))
    };
    let not_run: Vec<(String, String)> = known.iter().filter(|k| !k.is_run).map(with_table).collect();
    let not_run: Vec<(&str, &str)> =
        not_run.iter().map(|(name, table)| (name.as_str(), table.as_str())).collect();
    let closing = Closing {
        folder: &paths::tables(&arguments.results),
        figures: &paths::figures(&arguments.results),
        report: &paths::report(&arguments.results).join(html::PAGE),
        studies: &studies,
        tables: names,
        not_run: &not_run,
        command: &command(known, arguments),
        machine: &machine,
    };
    println!("{}", tables::closing(&closing)?.trim_end());
    Ok(())
}

/// The command that would run what is missing.
fn command(known: &[StudyResult], arguments: &Arguments) -> String {
    let is_missing =
        |is_of: fn(&DatasetSpec) -> bool| known.iter().any(|k| !k.is_run && is_of(&k.resolved.spec.dataset));
    let mut hints = Vec::new();
    if arguments.imagenet.is_none() && is_missing(|data| matches!(data, DatasetSpec::Imagenet(_))) {
        hints.push("IMAGENET=/path/to/ILSVRC2012");
    }
    if arguments.cub.is_none() && is_missing(|data| matches!(data, DatasetSpec::Cub200(_))) {
        hints.push("CUB=/path/to/CUB_200_2011");
    }
    if arguments.cifar10.is_none() && is_missing(|data| matches!(data, DatasetSpec::Cifar10(_))) {
        hints.push("CIFAR10=/path/to/cifar-10-batches-bin");
    }
    if hints.is_empty() {
        return "make reproduce-table".to_owned();
    }
    format!("make reproduce-table {} DEVICE=cuda:0", hints.join(" "))
}
