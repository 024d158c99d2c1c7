//! The hidden `thinet worker`: a process of `thinet run`.

use std::io::BufReader;

use clap::Args;
use thinet_harness::Stop;
use thinet_harness::run::{RunOptions, StageRunner, WorkerMessage, listen, serve};

use crate::bars::JsonLines;
use crate::options::StudyStages;
use crate::signals;

/// Run the stages named on standard input and print events; started by `thinet run`
#[derive(Debug, Args)]
#[command(hide = true)]
pub(crate) struct Arguments {
    #[command(flatten)]
    of: StudyStages,
    /// Processes of the run on this machine, which share its cores
    #[arg(long, value_name = "N", default_value_t = 1)]
    processes: usize,
}

/// Runs the stages that are named on standard input.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let Arguments { of: StudyStages { study, pace }, processes } = arguments;
    thinet_harness::run::keep_panics();
    // Ctrl-C reaches all processes of a terminal; the parent decides what follows.
    signals::ignore_interrupts()?;
    let stop = Stop::default();
    // The parent holds the other end: when it is gone, for whatever reason, this worker exits.
    // At once: libtorch's own clean-up could wait for the thread that computes.
    let exit = || signal_hook::low_level::exit(1);
    let asked = listen(BufReader::new(std::io::stdin()), stop.clone(), exit);
    let plan = study.plan()?;
    let options = RunOptions { processes: *processes, ..pace.options(stop) };
    let lines = JsonLines::new();
    serve(&StageRunner::new(&plan, &options)?, asked, &lines, &|message: WorkerMessage| lines.send(&message));
    Ok(())
}
