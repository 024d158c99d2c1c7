//! `thinet clean`: what a results folder could do without; asks before it removes anything.

use std::collections::BTreeMap;
use std::io::{BufRead as _, IsTerminal as _};
use std::path::{Path, PathBuf};

use clap::Args;
use thinet_harness::inspect::{find_garbage, find_run};

use crate::exit::BadArgument;
use crate::output::print_json;
use crate::words::size;

/// Remove what the results folder can do without; lists it and asks first
#[derive(Debug, Args)]
#[command(after_help = "\
Without options: stages that no run lists, damaged stages that were set aside, leftovers of processes
that were killed. Tables are never touched.

Examples:
  thinet clean
  thinet clean --run smoke --yes")]
pub(crate) struct Arguments {
    /// Remove this run, too, with the stages that only it lists (name, id or the beginning of one)
    #[arg(long = "run", value_name = "RUN")]
    runs: Vec<String>,
    /// Remove calibration images, too; they are made again when needed
    #[arg(long)]
    crops: bool,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    /// Only list
    #[arg(long, conflicts_with = "yes")]
    dry_run: bool,
    /// Folder of all results
    #[arg(long, value_name = "DIR", default_value = "results")]
    results: PathBuf,
    /// Print JSON, remove nothing
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
            "stages that no run lists stay: older runs do not tell theirs ({}); `thinet run` notes them, `--run` removes them",
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

/// The run of this results folder that `what` names; nothing is removed from another one.
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
            "nobody can be asked here; --yes removes it, --dry-run only lists it".to_owned(),
        )
        .into());
    }
    eprintln!("remove all of this, {}? [y/N]", size(bytes));
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
