//! `thinet run`: runs a study's missing stages, then prints its tables.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::Args;
use thinet_harness::run::{Outcome, RunOptions, WorkerCommand};
use thinet_harness::study::{Estimate, estimate};
use thinet_harness::{HarnessError, Stop};
use thinet_models::Device;

use crate::bars::Progress;
use crate::exit::BadArgument;
use crate::options::{Pace, Preflight, Study, Workers, jobs, program_file};
use crate::output::{print_json, print_tables};
use crate::permission::may_run_commands;
use crate::signals;
use crate::words::{bf16_is_slow, duration, stages_in_words};

/// Run a study's missing stages, then write and print its tables
#[derive(Debug, Args)]
#[command(after_help = "\
A run can be stopped at any time, by any means; the same command continues it. Ctrl-C saves the
state of each training and exits; a second Ctrl-C exits at once. Results do not depend on --jobs.

SPEC can also be the folder of a stored run, wherever it lies: its resolved spec is run again, with
the same ids. Files that it names are looked for beside the spec it was started with, then in it.

Examples:
  thinet run experiments/fashion-mnist-selectors.toml
  thinet run experiments/cub200/selectors.toml --data ~/CUB_200_2011 --devices cuda:0,cuda:1
  thinet run experiments/cifar10-selectors.toml --data ~/cifar-10-batches-bin --seeds 5")]
pub(crate) struct Arguments {
    #[command(flatten)]
    study: Study,
    #[command(flatten)]
    workers: Workers,
    /// Print the records as JSON instead of tables
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let outcome = execute(&arguments.study, &arguments.workers)?;
    if arguments.json {
        print_json(&outcome.study)?;
        return verdict(outcome);
    }
    print_tables(&outcome);
    verdict(outcome)
}

/// Returns the error of cells that failed, once the tables of the others are printed.
fn verdict(outcome: Outcome) -> anyhow::Result<()> {
    outcome.failure.map_or(Ok(()), |failure| Err(failure.into()))
}

/// Runs a study's missing stages, with progress on standard error.
pub(super) fn execute(study: &Study, workers: &Workers) -> anyhow::Result<Outcome> {
    // Before anything else, so that signals are handled while data and weights are checked.
    let stop = signals::stop_when_asked()?;
    let devices = devices(workers, study.place.device)?;
    let study = study.on(devices[0]);
    let plan = study.plan()?;
    let allow_commands = may_run_commands(&plan, workers.pace.allow_commands)?;
    let pace = Pace { allow_commands, ..workers.pace.clone() };
    let jobs = jobs_on(workers, &devices, plan.spec.compute.threads);
    let cost = estimate(&plan, jobs)?;
    announce(&plan.spec.name, &cost, jobs, &plan.data.prepared_files());
    if is_first_tried(workers.preflight, &cost) {
        try_first(&study, &pace, &plan.spec.name, &stop)?;
    }
    let progress = Progress::of_run(cost.stages - cost.done, cost.seconds);
    let options = RunOptions {
        workers: worker_commands(&program_file()?, &study, &devices, jobs, &pace),
        check: workers.check,
        fail_fast: workers.fail_fast,
        ..pace.options(stop)
    };
    let outcome = thinet_harness::run::run(&plan, &options, &progress);
    progress.close();
    Ok(outcome?)
}

/// Seconds of work from which on the first steps are tried before it: they take about a minute themselves.
const WORTH_A_TRY: f64 = 600.0;

fn is_first_tried(when: Preflight, cost: &Estimate) -> bool {
    match when {
        Preflight::Always => cost.done < cost.stages,
        Preflight::Never => false,
        Preflight::Auto => cost.done < cost.stages && cost.seconds > WORTH_A_TRY,
    }
}

/// Takes the first step of each kind of missing stage in a process of its own. Its error is printed as it was.
fn try_first(study: &Study, pace: &Pace, name: &str, stop: &Stop) -> anyhow::Result<()> {
    let started = Instant::now();
    let mut command = Command::new(program_file()?);
    command.args(study.command_line("preflight", pace));
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().context("cannot start the pre-flight")?;
    while child.try_wait()?.is_none() {
        if stop.is_set() {
            // Asks it to stop.
            drop(child.stdin.take());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    let output = child.wait_with_output()?;
    if stop.is_set() {
        return Err(HarnessError::Stopped.into());
    }
    let (printed, errors) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if output.status.success() {
        let seconds = duration(started.elapsed().as_secs_f64());
        eprintln!("{name}: pre-flight: a first step of {} stages works ({seconds})", printed.trim());
        return Ok(());
    }
    let line = errors.lines().rev().find_map(|line| line.strip_prefix("error: "));
    let problem = line.map_or_else(|| format!("pre-flight: {}", output.status), str::to_owned);
    anyhow::bail!("{problem}")
}

fn announce(name: &str, cost: &Estimate, jobs: usize, prepared: &[&Path]) {
    if cost.done < cost.stages {
        let (stages, done, left) = (cost.stages, cost.done, duration(cost.seconds));
        let kinds = stages_in_words(cost.kinds);
        let plural = if jobs == 1 { "" } else { "s" };
        eprintln!(
            "{name}: {stages} stages, {done} stored, about {left} of work with {jobs} job{plural} ({kinds})"
        );
        for file in prepared {
            eprintln!("{name}: images are read from {}", file.display());
        }
        if cost.is_bf16_slow {
            eprintln!("{name}: note: {}", bf16_is_slow());
        }
    }
}

/// The number of processes: as asked, else one for each of several devices, or as many as suit the only one.
fn jobs_on(workers: &Workers, devices: &[Device], threads: usize) -> usize {
    match devices {
        [only] => jobs(workers.jobs, threads, *only),
        several => workers.jobs.map_or(several.len(), usize::from),
    }
}

/// The devices that workers are spread over; all of one kind, because the kind is part of a result's id.
fn devices(workers: &Workers, device: Device) -> anyhow::Result<Vec<Device>> {
    let devices = if workers.devices.is_empty() { vec![device] } else { workers.devices.clone() };
    let first = devices[0];
    if let Some(other) = devices.iter().find(|other| other.is_gpu() != first.is_gpu()) {
        let problem = format!("--devices {first},{other}: a study cannot mix results of a CPU and of a GPU");
        return Err(BadArgument(problem).into());
    }
    for device in &devices {
        device.check_available().map_err(HarnessError::Device)?;
    }
    Ok(devices)
}

/// How to start each of `jobs` workers for the same study, in turn on the devices: more jobs than devices share them.
fn worker_commands(
    program: &Path,
    study: &Study,
    devices: &[Device],
    jobs: usize,
    pace: &Pace,
) -> Vec<WorkerCommand> {
    let command = |slot: usize| {
        let mut arguments = study.on(devices[slot % devices.len()]).command_line("worker", pace);
        // Behind the command's name, as the spec comes last.
        arguments.splice(1..1, ["--processes".into(), jobs.to_string().into()]);
        WorkerCommand { program: program.to_owned(), arguments }
    };
    (0..jobs).map(command).collect()
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    /// A command line, parsed as the program does.
    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        run: Arguments,
    }

    /// The devices of the workers of a command line, and the number of processes that each is given.
    fn workers(line: &[&str]) -> Vec<(String, String)> {
        let words = ["run"].iter().chain(line).chain(&["x.toml"]);
        let Arguments { study, workers, .. } = Line::parse_from(words).run;
        let devices =
            if workers.devices.is_empty() { vec![study.place.device] } else { workers.devices.clone() };
        let jobs = jobs_on(&workers, &devices, 1);
        let commands = worker_commands(Path::new("thinet"), &study, &devices, jobs, &workers.pace);
        let value = |command: &WorkerCommand, name: &str| {
            let at = command.arguments.iter().position(|word| word == name).unwrap();
            command.arguments[at + 1].to_string_lossy().into_owned()
        };
        assert!(commands.iter().all(|command| command.arguments[0] == "worker"));
        assert!(commands.iter().all(|command| command.arguments.last().unwrap() == "x.toml"));
        commands.iter().map(|command| (value(command, "--device"), value(command, "--processes"))).collect()
    }

    #[test]
    fn jobs_share_the_devices_and_the_cores() {
        let on = |devices: &[&str]| {
            let processes = devices.len().to_string();
            devices.iter().map(|device| ((*device).to_owned(), processes.clone())).collect::<Vec<_>>()
        };
        assert_eq!(workers(&["--devices", "cuda:0", "--jobs", "8"]), on(&["cuda:0"; 8]));
        assert_eq!(workers(&["--device", "cuda:3", "--jobs", "2"]), on(&["cuda:3"; 2]));
        assert_eq!(workers(&["--devices", "cuda:0"]), on(&["cuda:0"]));
        assert_eq!(workers(&["--devices", "cuda:0,cuda:1"]), on(&["cuda:0", "cuda:1"]));
        let shared = ["--devices", "cuda:0,cuda:1", "--jobs", "5"];
        assert_eq!(workers(&shared), on(&["cuda:0", "cuda:1", "cuda:0", "cuda:1", "cuda:0"]));
    }
}
