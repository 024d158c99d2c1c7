//! The hidden `thinet preflight`: what `thinet run` runs first, in a process of its own, whose memory is free afterwards.

use std::io;

use clap::Args;
use thinet_harness::events::Silent;
use thinet_harness::run::preflight;

use crate::options::StudyStages;
use crate::signals;

/// Take one step of each kind of missing stage of a study; started by `thinet run`
#[derive(Debug, Args)]
#[command(hide = true)]
pub(crate) struct Arguments {
    #[command(flatten)]
    of: StudyStages,
}

/// Prints the number of stages that took a step.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    thinet_harness::run::keep_panics();
    let stop = signals::stop_when_asked()?;
    // The parent holds the other end: when it stops or is gone, this process stops and removes its scratch folder.
    let asked = stop.clone();
    std::thread::spawn(move || {
        let _ = io::copy(&mut io::stdin(), &mut io::sink());
        asked.set();
    });
    let plan = arguments.of.study.plan()?;
    println!("{}", preflight(&plan, &arguments.of.pace.options(stop), &Silent)?);
    Ok(())
}
