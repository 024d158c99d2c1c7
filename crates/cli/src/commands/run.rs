//! `thinet run`: what is missing of an experiment, then its tables. And the hidden worker that runs one stage.

use std::ffi::OsString;
use std::io::BufReader;
use std::time::Duration;

use anyhow::Context as _;
use thinet_harness::run::{Outcome, RunOptions, StageRunner, WorkerCommand, WorkerMessage, listen, serve};
use thinet_harness::study::{Estimate, estimate};
use thinet_harness::{HarnessError, Stop};
use thinet_models::Device;

use super::{duration, jobs, open_plan, signals, stages_in_words};
use crate::args::{Pace, Study, Workers};
use crate::bars::{JsonLines, Progress};
use crate::exit::BadArgument;

pub(crate) fn run(study: &Study, workers: &Workers, json: bool) -> anyhow::Result<()> {
    let outcome = execute(study, workers)?;
    if json {
        super::print_json(&outcome.study)?;
        return verdict(outcome);
    }
    show(&outcome);
    verdict(outcome)
}

/// Prints the tables and where they were written.
pub(super) fn show(outcome: &Outcome) {
    for table in &outcome.tables {
        println!("{}", table.markdown());
    }
    for written in &outcome.written {
        super::table::report_written(written);
    }
}

/// Cells that failed decide the exit code, after the tables of the others.
pub(super) fn verdict(outcome: Outcome) -> anyhow::Result<()> {
    outcome.failure.map_or(Ok(()), |failure| Err(failure.into()))
}

/// Runs what is missing of an experiment, with progress on standard error.
pub(super) fn execute(study: &Study, workers: &Workers) -> anyhow::Result<Outcome> {
    // First of all, so that it is heard while data and weights are looked over.
    let stop = signals::stop_when_asked()?;
    let devices = devices(workers, study.place.device)?;
    let study = &Study { place: study.place.on(devices[0]), ..study.clone() };
    let plan = open_plan(&study.spec, &study.place.options(study.seeds))?;
    let jobs = match devices.len() {
        1 => jobs(workers.jobs, plan.spec.compute.threads, devices[0]),
        several => workers.jobs.map_or(several, usize::from),
    };
    let cost = estimate(&plan, jobs)?;
    announce(&plan.spec.name, &cost, jobs);
    let progress = Progress::of_run(cost.stages - cost.done, cost.seconds);
    let options = RunOptions {
        workers: (0..jobs)
            .map(|slot| worker_command(study, devices[slot % devices.len()], &workers.pace))
            .collect::<anyhow::Result<_>>()?,
        check: workers.check,
        ..workers.pace.options(stop)
    };
    let outcome = thinet_harness::run::run(&plan, &options, &progress);
    progress.close();
    Ok(outcome?)
}

fn announce(name: &str, cost: &Estimate, jobs: usize) {
    if cost.done < cost.stages {
        let (stages, done, left) = (cost.stages, cost.done, duration(cost.seconds));
        let kinds = stages_in_words(cost.kinds);
        let plural = if jobs == 1 { "" } else { "s" };
        eprintln!(
            "{name}: {stages} stages, {done} stored, about {left} of work with {jobs} job{plural} ({kinds})"
        );
    }
}

/// The devices that workers are spread over; all of one kind, as the kind is part of what results are stored under.
fn devices(workers: &Workers, device: Device) -> anyhow::Result<Vec<Device>> {
    let devices = if workers.devices.is_empty() { vec![device] } else { workers.devices.clone() };
    let first = devices[0];
    if let Some(other) = devices.iter().find(|other| other.is_gpu() != first.is_gpu()) {
        let problem =
            format!("--devices {first},{other}: results of a CPU and of a GPU are never mixed in a study");
        return Err(BadArgument(problem).into());
    }
    for device in &devices {
        device.check_available().map_err(HarnessError::Device)?;
    }
    Ok(devices)
}

/// This program with the same experiment and options, on a device.
fn worker_command(study: &Study, device: Device, pace: &Pace) -> anyhow::Result<WorkerCommand> {
    let program = std::env::current_exe().context("cannot find this program's own file")?;
    let mut arguments: Vec<OsString> = vec!["worker".into()];
    arguments.extend(["--device".into(), device.to_string().into()]);
    arguments.extend(stage_arguments(study, pace));
    Ok(WorkerCommand { program, arguments })
}

/// What a process needs to be told to make the same stages.
pub(super) fn stage_arguments(study: &Study, pace: &Pace) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = Vec::new();
    let mut option = |name: &str, value: OsString| arguments.extend([name.into(), value]);
    option("--results", study.place.results.clone().into());
    if let Some(data) = &study.place.data {
        option("--data", data.clone().into());
    }
    if let Some(seeds) = study.seeds {
        option("--seeds", seeds.to_string().into());
    }
    let paces = [("--checkpoint-every", pace.checkpoint_every), ("--claim-expiry", pace.claim_expiry)];
    for (name, seconds) in paces {
        if let Some(seconds) = seconds {
            option(name, seconds.to_string().into());
        }
    }
    arguments.extend(["--".into(), study.spec.clone().into()]);
    arguments
}

/// Makes the stages that it is told on standard input.
pub(crate) fn worker(study: &Study, pace: &Pace) -> anyhow::Result<()> {
    thinet_harness::run::keep_panics();
    // Ctrl-C reaches all processes of a terminal; what it means here, the parent decides.
    signals::ignore_interrupts()?;
    let stop = Stop::default();
    // The parent holds the other end: when it is gone, by whatever means, so is this worker.
    // At once: libtorch's own clean-up could wait for the thread that computes.
    let exit = || signal_hook::low_level::exit(1);
    let asked = listen(BufReader::new(std::io::stdin()), stop.clone(), exit);
    let plan = open_plan(&study.spec, &study.place.options(study.seeds))?;
    let options = pace.options(stop);
    let lines = JsonLines::new();
    serve(&StageRunner::new(&plan, &options)?, asked, &lines, &|said: WorkerMessage| lines.say(&said));
    Ok(())
}

impl Pace {
    /// How single stages are made in this process.
    pub(super) fn options(&self, stop: Stop) -> RunOptions {
        let usual = RunOptions::default();
        let seconds = |asked: Option<f64>, usual| asked.map_or(usual, Duration::from_secs_f64);
        RunOptions {
            checkpoint_every: seconds(self.checkpoint_every, usual.checkpoint_every),
            claim_expiry: seconds(self.claim_expiry, usual.claim_expiry),
            stop,
            ..usual
        }
    }
}
