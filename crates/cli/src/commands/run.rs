//! `thinet run`: what is missing of an experiment, then its tables. And the hidden worker that runs one stage.

use std::ffi::OsString;
use std::io::Read as _;

use anyhow::Context as _;
use thinet_harness::{Outcome, RunOptions, WorkerCommand, estimate, run_stage};

use super::{duration, jobs, open_plan};
use crate::args::Study;
use crate::bars::{JsonLines, Progress};

pub(crate) fn run(study: &Study, asked: Option<u16>, json: bool) -> anyhow::Result<()> {
    let outcome = execute(study, asked)?;
    if json {
        super::print_json(&outcome.study)?;
        return verdict(outcome);
    }
    for table in &outcome.tables {
        println!("{}", table.markdown());
    }
    for written in &outcome.written {
        super::table::report_written(written);
    }
    verdict(outcome)
}

/// Cells that failed decide the exit code, after the tables of the others.
pub(super) fn verdict(outcome: Outcome) -> anyhow::Result<()> {
    outcome.failure.map_or(Ok(()), |failure| Err(failure.into()))
}

/// Runs what is missing of an experiment, with progress on standard error.
pub(super) fn execute(study: &Study, asked: Option<u16>) -> anyhow::Result<Outcome> {
    let plan = open_plan(&study.spec, &study.place.options(study.seeds))?;
    let jobs = jobs(asked, plan.spec.compute.threads, &study.place.device);
    let cost = estimate(&plan, jobs)?;
    if cost.done < cost.stages {
        let left = duration(cost.seconds);
        eprintln!(
            "{}: {} stages, {} stored, about {left} of work with {jobs} job{}",
            plan.spec.name,
            cost.stages,
            cost.done,
            if jobs == 1 { "" } else { "s" }
        );
    }
    let progress = Progress::new(cost.stages - cost.done);
    let options = RunOptions { jobs, worker: Some(worker_command(study)?) };
    let outcome = thinet_harness::run(&plan, &options, &progress);
    progress.close();
    Ok(outcome?)
}

/// This program with the same experiment and options.
fn worker_command(study: &Study) -> anyhow::Result<WorkerCommand> {
    let program = std::env::current_exe().context("cannot find this program's own file")?;
    let mut arguments: Vec<OsString> = vec!["worker".into()];
    let mut option = |name: &str, value: OsString| arguments.extend([name.into(), value]);
    option("--device", study.place.device.clone().into());
    option("--results", study.place.results.clone().into());
    if let Some(data) = &study.place.data {
        option("--data", data.clone().into());
    }
    if let Some(seeds) = study.seeds {
        option("--seeds", seeds.to_string().into());
    }
    arguments.extend(["--".into(), study.spec.clone().into()]);
    Ok(WorkerCommand { program, arguments })
}

pub(crate) fn worker(study: &Study, id: &str) -> anyhow::Result<()> {
    // The parent holds the other end: when it is gone, by whatever means, so is this worker.
    std::thread::spawn(|| {
        let mut rest = Vec::new();
        let _ = std::io::stdin().read_to_end(&mut rest);
        #[expect(clippy::exit, reason = "nothing half-written counts, and nobody waits for this process")]
        std::process::exit(1);
    });
    let plan = open_plan(&study.spec, &study.place.options(study.seeds))?;
    Ok(run_stage(&plan, id, &JsonLines::new())?)
}
