//! `thinet clean`: removes what a results folder no longer needs, after asking.

use std::collections::BTreeMap;
use std::io::{BufRead as _, IsTerminal as _};
use std::path::{Path, PathBuf};

use clap::Args;
use thinet_harness::inspect::{find_garbage, find_run};

use crate::exit::BadArgument;
use crate::output::print_json;
use crate::words::size;

/// Remove what the results folder no longer needs; lists it and asks first
#[derive(Debug, Args)]
#[command(after_help = "\
Without options: stages that no run lists, damaged stages that were set aside, leftovers of killed
processes. Tables are never removed.

Examples:
  thinet clean
  thinet clean --run smoke --yes")]
pub(crate) struct Arguments {
    /// Also remove this run (name, id or the beginning of one) and the stages that only it lists
    #[arg(long = "run", value_name = "RUN")]
    runs: Vec<String>,
    /// Also remove calibration images; they are prepared again when needed
    #[arg(long)]
    crops: bool,
    /// Do not ask first
    #[arg(long)]
    yes: bool,
    /// List only, remove nothing
    #[arg(long, conflicts_with = "yes")]
    dry_run: bool,
    /// Results folder
    #[arg(long, value_name = "DIR", default_value = "results")]
    results: PathBuf,
    /// Print the list as JSON, remove nothing
    #[arg(long, conflicts_with = "yes")]
    json: bool,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let results = &arguments.results;
    let runs: Vec<String> =
        arguments.runs.iter().map(|run| own_run(results, run)).collect::<anyhow::Result<_>>()?;
    let cleaning = find_garbage(results, &runs, arguments.crops)?;
    if arguments.json {
        return print_json(&cleaning);
    }
    for garbage in &cleaning.garbage {
        println!("{:>10}  {}: {}", size(garbage.bytes), garbage.path.display(), garbage.why);
    }
    let mut by_kind: BTreeMap<&str, (usize, u64)> = BTreeMap::new();
    for garbage in &cleaning.garbage {
        let (count, bytes) = by_kind.entry(garbage.why).or_default();
        *count += 1;
        *bytes += garbage.bytes;
    }
    for (why, (count, bytes)) in by_kind {
        eprintln!("{:>10}  {count} × {why}", size(bytes));
    }
    if !cleaning.unlisted.is_empty() {
        eprintln!(
            "stages that no run lists stay: runs of older versions have no list of stages ({}); `thinet run` writes it, `--run` removes the run",
            cleaning.unlisted.join(", ")
        );
    }
    if cleaning.garbage.is_empty() {
        eprintln!("nothing to remove in {}", results.display());
        return Ok(());
    }
    if arguments.dry_run || !is_agreed(arguments.yes, cleaning.bytes())? {
        eprintln!("nothing was removed");
        return Ok(());
    }
    cleaning.remove()?;
    eprintln!("removed {}", size(cleaning.bytes()));
    Ok(())
}

/// The run of this results folder that `what` names; a run of another folder is refused.
fn own_run(results: &Path, what: &str) -> anyhow::Result<String> {
    let run = find_run(results, what)?;
    if run.results != results || Path::new(&run.name).is_absolute() {
        let problem =
            format!("{what} is not a run in {}; name its own folder by --results", results.display());
        return Err(BadArgument(problem).into());
    }
    Ok(run.name)
}

fn is_agreed(yes: bool, bytes: u64) -> anyhow::Result<bool> {
    if yes {
        return Ok(true);
    }
    if !std::io::stdin().is_terminal() {
        return Err(BadArgument(
            "cannot ask without a terminal; --yes removes it, --dry-run only lists it".to_owned(),
        )
        .into());
    }
    eprintln!("remove all of this, {}? [y/N]", size(bytes));
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
