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

use thinet_harness::study::{Options, Plan};
use thinet_models::Device;

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
fn jobs(asked: Option<u16>, threads: usize, device: Device) -> usize {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let fill = if device.is_gpu() { 1 } else { (cores / threads.max(1)).max(1) };
    asked.map_or(fill, usize::from)
}

/// How many stages of each kind, such as `3 dense nets, 3 calibrations and 75 cells`.
fn stages_in_words([dense, calibrations, cells]: [usize; 3]) -> String {
    let kinds = [(dense, "dense net"), (calibrations, "calibration"), (cells, "cell")];
    let words: Vec<String> = kinds
        .into_iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, word)| format!("{count} {word}{}", if count == 1 { "" } else { "s" }))
        .collect();
    match &words[..] {
        [all @ .., last] if !all.is_empty() => format!("{} and {last}", all.join(", ")),
        words => words.concat(),
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
pub(crate) fn duration(seconds: f64) -> String {
    if seconds < 90.0 {
        format!("{seconds:.0} s")
    } else if seconds < 5400.0 {
        format!("{:.0} min", seconds / 60.0)
    } else {
        format!("{:.1} h", seconds / 3600.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_are_counted_by_name() {
        assert_eq!(stages_in_words([3, 3, 75]), "3 dense nets, 3 calibrations and 75 cells");
        assert_eq!(stages_in_words([1, 0, 2]), "1 dense net and 2 cells");
        assert_eq!(stages_in_words([0, 0, 1]), "1 cell");
    }
}
