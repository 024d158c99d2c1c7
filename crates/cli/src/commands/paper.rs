//! `thinet paper`: the experiments at the paper's scale whose data is there, and the tables that set all of them beside the
//! published numbers.

use std::path::Path;

use anyhow::Context as _;
use thinet_data::DatasetSpec;
use thinet_harness::records::StudyRecord;
use thinet_harness::tables::{self, PaperStudy};
use thinet_harness::{HarnessError, Outline, not_run};

use super::run::execute;
use super::table::report_written;
use crate::args::{Paper, Place, Study};
use crate::exit::BadArgument;

/// An experiment with what is known of it.
struct Known {
    outline: Outline,
    study: StudyRecord,
    is_run: bool,
}

pub(crate) fn paper(arguments: &Paper) -> anyhow::Result<()> {
    let mut known = Vec::new();
    let mut failures = Vec::new();
    // By name, so that twins follow what they are twins of: a shell sorts `x-twins.toml` before `x.toml`.
    let mut specs = arguments.specs.clone();
    specs.sort_by_key(|spec| spec.with_extension(""));
    for spec in &specs {
        let study = study_of(arguments, spec)?;
        let options = study.place.options(None);
        let outline = Outline::without_data(spec, &options)?.ok_or_else(|| {
            BadArgument(format!("{}: only imagenet and cub200 experiments can be named here", spec.display()))
        })?;
        let outcome = study.place.data.as_ref().map(|_| execute(&study, &arguments.workers));
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
                (not_run(&outline), false)
            }
            None => (not_run(&outline), false),
        };
        known.push(Known { outline, study, is_run });
    }
    write_tables(&known, &arguments.results)?;
    left_out(&known, arguments);
    match failures.into_iter().next() {
        Some(first) => {
            Err(first.context("some experiments failed, the others are stored; the first failure"))
        }
        None => Ok(()),
    }
}

/// The experiment with its data folder, if that was given.
fn study_of(arguments: &Paper, spec: &Path) -> anyhow::Result<Study> {
    let read = thinet_harness::spec::Spec::read(spec).map_err(HarnessError::from)?;
    let data = match read.dataset {
        DatasetSpec::Imagenet(_) => arguments.imagenet.clone(),
        DatasetSpec::Cub200(_) => arguments.cub.clone(),
        _ => {
            let problem = "only imagenet and cub200 experiments can be named here";
            return Err(BadArgument(format!("{}: {problem}", spec.display())).into());
        }
    };
    let place = Place { device: arguments.device.clone(), data, results: arguments.results.clone() };
    Ok(Study { spec: spec.to_owned(), seeds: None, place })
}

/// Each paper table from its experiments; an experiment without one has its own tables.
fn write_tables(known: &[Known], results: &Path) -> anyhow::Result<()> {
    let folder = results.join("tables");
    let mut names: Vec<&str> = Vec::new();
    for name in known.iter().filter_map(|k| k.outline.spec.paper_table.as_deref()) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    for name in names {
        let studies: Vec<PaperStudy<'_>> = known
            .iter()
            .filter(|k| k.outline.spec.paper_table.as_deref() == Some(name))
            .map(|k| PaperStudy { outline: &k.outline, study: &k.study, is_run: k.is_run })
            .collect();
        let run = tables::paper_run(&studies);
        if run == tables::NOT_RUN && !is_free(&folder, name)? {
            show_measured(&folder, name)?;
            continue;
        }
        let table = tables::paper(name, &studies)?;
        println!("{}", table.markdown());
        report_written(&tables::write(&folder, &table, &run)?);
    }
    for Known { study, is_run, .. } in known.iter().filter(|k| k.outline.spec.paper_table.is_none()) {
        if !is_run && !is_free(&folder, &study.table)? {
            show_measured(&folder, &format!("{}-summary", study.table))?;
            continue;
        }
        let made = tables::selectors(study)?;
        // Hundreds of rows that say "not run" help nobody on a terminal; the means are enough.
        if let Some(summary) = made.get(usize::from(!is_run)) {
            println!("{}", summary.markdown());
        }
        // What was run has written its tables itself.
        for table in made.iter().filter(|_| !is_run) {
            report_written(&tables::write(&folder, table, tables::NOT_RUN)?);
        }
    }
    Ok(())
}

/// Whether no table of this name holds anything measured.
fn is_free(folder: &Path, name: &str) -> anyhow::Result<bool> {
    let path = folder.join(format!("{name}.csv"));
    if !path.exists() {
        return Ok(true);
    }
    let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(text.lines().nth(1).is_none_or(|line| line.starts_with(tables::NOT_RUN)))
}

/// Prints a table that an earlier run measured; without the data it cannot be made again.
fn show_measured(folder: &Path, name: &str) -> anyhow::Result<()> {
    let path = folder.join(format!("{name}.md"));
    let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    println!("{text}");
    eprintln!("stored:  {} (measured earlier)", path.display());
    Ok(())
}

fn left_out(known: &[Known], arguments: &Paper) {
    let missing: Vec<&str> =
        known.iter().filter(|k| !k.is_run).map(|k| k.outline.spec.name.as_str()).collect();
    if missing.is_empty() {
        return;
    }
    let mut hints = Vec::new();
    if arguments.imagenet.is_none() {
        hints.push("IMAGENET=/path/to/ILSVRC2012");
    }
    if arguments.cub.is_none() {
        hints.push("CUB=/path/to/CUB_200_2011");
    }
    eprintln!("not run: {}", missing.join(", "));
    if !hints.is_empty() {
        eprintln!("to run them: make reproduce-table {} DEVICE=cuda:0", hints.join(" "));
    }
}
