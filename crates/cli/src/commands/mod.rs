//! One file for each subcommand.

pub(crate) mod clean;
pub(crate) mod count;
pub(crate) mod data;
pub(crate) mod diff;
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
pub(crate) mod verify;

use std::path::Path;

use thinet_harness::plan::{Options, Plan};

use crate::exit::BadArgument;

/// Prints a value as indented JSON.
fn print_json(value: &impl serde::Serialize) -> anyhow::Result<()> {
    println!("{}", serde_json::to_string_pretty(value)?);
    Ok(())
}

/// Reads a spec and checks everything; writes nothing.
fn open_plan(spec: &Path, options: &Options) -> anyhow::Result<Plan> {
    Ok(Plan::new(spec, options)?)
}

/// The same for work that other machines do or have done: the device need not be here.
fn plan_elsewhere(spec: &Path, options: &Options) -> anyhow::Result<Plan> {
    open_plan(spec, &Options { is_elsewhere: true, ..options.clone() })
}

/// Processes that fill the cores; on a GPU one, as its memory and its units are shared.
fn jobs(asked: Option<u16>, threads: usize, device: &str) -> usize {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let fill = if device.starts_with("cuda") { 1 } else { (cores / threads.max(1)).max(1) };
    asked.map_or(fill, usize::from)
}

/// The one run whose name starts with `what`.
fn find_run(what: &str, results: &Path) -> anyhow::Result<String> {
    let names = thinet_harness::list_runs(results)?;
    let found: Vec<&String> = names.iter().filter(|name| name.starts_with(what)).collect();
    match found[..] {
        [one] => Ok(one.clone()),
        [] => {
            let stored = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
            let place = results.display();
            Err(BadArgument(format!("no run in {place} starts with {what:?}; stored: {stored}")).into())
        }
        _ => Err(BadArgument(format!("several runs start with {what:?}: {found:?}")).into()),
    }
}

/// Bytes for people: `340 B`, `12.3 MiB`.
fn size(bytes: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < units.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes} B") } else { format!("{value:.1} {}", units[unit]) }
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
