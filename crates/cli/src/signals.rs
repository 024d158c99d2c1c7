//! Ctrl-C and SIGTERM: the first stops cleanly, the second at once.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::Context as _;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag::{register, register_conditional_shutdown};
use thinet_harness::Stop;

use crate::exit::STOPPED;

/// Set by the first SIGINT or SIGTERM; the second one ends the program.
pub(crate) fn stop_when_asked() -> anyhow::Result<Stop> {
    let stop = Stop::default();
    for signal in [SIGINT, SIGTERM] {
        // In this order: the first signal finds the flag unset and sets it.
        register_conditional_shutdown(signal, i32::from(STOPPED), stop.flag())
            .context("cannot handle signals")?;
        register(signal, stop.flag()).context("cannot handle signals")?;
    }
    Ok(stop)
}

/// For a worker, whose parent receives the same Ctrl-C.
pub(crate) fn ignore_interrupts() -> anyhow::Result<()> {
    register(SIGINT, Arc::new(AtomicBool::new(false))).context("cannot handle signals")?;
    Ok(())
}
