//! One file for each subcommand.

pub(crate) mod count;
pub(crate) mod data;
pub(crate) mod export;
pub(crate) mod latency;
pub(crate) mod list;
pub(crate) mod paper;
pub(crate) mod plan;
pub(crate) mod run;
pub(crate) mod show;
mod signals;
pub(crate) mod status;
pub(crate) mod submit;
pub(crate) mod table;

use std::path::Path;

use thinet_harness::plan::{Options, Plan};

/// Prints a value as indented JSON.
fn print_json(value: &impl serde::Serialize) -> anyhow::Result<()> {
    println!("{}", serde_json::to_string_pretty(value)?);
    Ok(())
}

/// Reads a spec and checks everything; writes nothing.
fn open_plan(spec: &Path, options: &Options) -> anyhow::Result<Plan> {
    Ok(Plan::new(spec, options)?)
}

/// Processes that fill the cores; on a GPU one, as its memory and its units are shared.
fn jobs(asked: Option<u16>, threads: usize, device: &str) -> usize {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let fill = if device.starts_with("cuda") { 1 } else { (cores / threads.max(1)).max(1) };
    asked.map_or(fill, usize::from)
}

/// Seconds for people: `40 s`, `12 min`, `3.5 h`.
fn duration(seconds: f64) -> String {
    if seconds < 90.0 {
        format!("{seconds:.0} s")
    } else if seconds < 5400.0 {
        format!("{:.0} min", seconds / 60.0)
    } else {
        format!("{:.1} h", seconds / 3600.0)
    }
}
