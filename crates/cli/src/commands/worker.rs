//! The hidden `thinet worker`: a process of `thinet run`.

use std::io::BufReader;

use clap::Args;
use thinet_harness::Stop;
use thinet_harness::run::{StageRunner, WorkerMessage, listen, serve};

use crate::bars::JsonLines;
use crate::options::{Pace, Study};
use crate::signals;

/// Make the stages named on standard input and print what happens; started by `thinet run`
#[derive(Debug, Args)]
#[command(hide = true)]
pub(crate) struct Arguments {
    #[command(flatten)]
    study: Study,
    #[command(flatten)]
    pace: Pace,
}

/// Makes the stages that it is told on standard input.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let Arguments { study, pace } = arguments;
    thinet_harness::run::keep_panics();
    // Ctrl-C reaches all processes of a terminal; what it means here, the parent decides.
    signals::ignore_interrupts()?;
    let stop = Stop::default();
    // The parent holds the other end: when it is gone, by whatever means, so is this worker.
    // At once: libtorch's own clean-up could wait for the thread that computes.
    let exit = || signal_hook::low_level::exit(1);
    let asked = listen(BufReader::new(std::io::stdin()), stop.clone(), exit);
    let plan = study.plan()?;
    let options = pace.options(stop);
    let lines = JsonLines::new();
    serve(&StageRunner::new(&plan, &options)?, asked, &lines, &|said: WorkerMessage| lines.say(&said));
    Ok(())
}
