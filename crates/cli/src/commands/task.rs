//! The hidden `thinet task`: what a Slurm task runs.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context as _;
use clap::Args;
use signal_hook::consts::SIGUSR1;
use signal_hook::flag::register;
use thinet_harness::HarnessError;
use thinet_harness::events::EventLog;
use thinet_harness::run::StageRunner;
use thinet_harness::store::paths;

use crate::bars::Progress;
use crate::options::StudyStages;
use crate::signals;

/// Run the named stages of a study; started by Slurm
#[derive(Debug, Args)]
#[command(hide = true)]
pub(crate) struct Arguments {
    #[command(flatten)]
    of: StudyStages,
    /// The stages' ids
    #[arg(required = true)]
    ids: Vec<String>,
}

/// Runs stages of a study one after the other. SIGTERM, as at pre-emption, saves the state and ends; SIGUSR1, sent
/// before the time limit, does the same and asks Slurm to queue the task again.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let Arguments { of: StudyStages { study, pace }, ids } = arguments;
    thinet_harness::run::keep_panics();
    let stop = signals::stop_when_asked()?;
    let queue_again = Arc::new(AtomicBool::new(false));
    register(SIGUSR1, queue_again.clone()).context("cannot handle signals")?;
    register(SIGUSR1, stop.flag()).context("cannot handle signals")?;
    let plan = study.plan()?;
    let runner = StageRunner::new(&plan, &pace.options(stop))?;
    let progress = Progress::new(ids.len());
    let log = EventLog::open(&plan.run_folder().join(paths::LOG), &progress)?;
    let result = ids.iter().try_for_each(|id| runner.run_stage_caught(id, &log));
    progress.close();
    if matches!(result, Err(HarnessError::Stopped)) && queue_again.load(Ordering::SeqCst) {
        queue_task_again();
    }
    Ok(result?)
}

/// Says so first: Slurm ends this process, and may end `scontrol`, as soon as the job is queued again.
fn queue_task_again() {
    let Ok(job) = std::env::var("SLURM_JOB_ID") else { return };
    eprintln!("time is nearly over: job {job} is to be queued again");
    match std::process::Command::new("scontrol").args(["requeue", &job]).status() {
        Ok(status) if status.code().is_none_or(|code| code == 0) => {}
        _ => eprintln!("the job could not be queued again; thinet submit sends what is missing"),
    }
}
