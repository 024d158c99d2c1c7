//! `thinet status`: shows which stages are stored, running, queued or failed; needs neither data nor device.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::Args;
use thinet_harness::HarnessError;
use thinet_harness::inspect::find_runs;
use thinet_harness::inspect::status::{RunStatus, StageState, Tally};
use thinet_harness::run::slurm::{QueueEntry, queue};
use thinet_harness::store::{StageKind, list_runs, paths};
use thinet_report::tables::one_line;

use crate::exit::BadArgument;
use crate::output::print_json;
use crate::words::{duration, stages_in_words, tally_in_words};

/// Show which stages of a study are stored, running, queued or failed, or a line for each run
#[derive(Debug, Args)]
#[command(after_help = "\
Needs neither the data nor the device, and runs on any machine that sees the results folder.
Records are compared with their checksums and files with their sizes; --check reads every file.

Examples:
  thinet status
  thinet status experiments/fashion-mnist-selectors.toml")]
pub(crate) struct Arguments {
    /// A study's TOML file, or a run: its name or id or the beginning of one, its folder or a table of it
    /// [default: all runs]
    #[arg(value_name = "SPEC|RUN")]
    what: Option<String>,
    /// Number of root seeds, as passed to `run` if it differs from the spec's
    #[arg(long, value_name = "N")]
    seeds: Option<u64>,
    /// Results folder
    #[arg(long, value_name = "DIR", default_value = "results")]
    results: PathBuf,
    /// Also compare every stored file of the run with its checksum
    #[arg(long)]
    check: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// How many failed and running stages are printed one by one.
const SHOWN: usize = 20;

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let results = &arguments.results;
    let look: Look = if arguments.check { RunStatus::checked } else { RunStatus::of };
    let Some(what) = &arguments.what else { return all(results, look, arguments.json) };
    let runs = find_runs(results, what, arguments.seeds)?;
    let Some((run, others)) = runs.split_last() else { return Ok(()) };
    let (results, name) = (&run.results, &run.name);
    let Some(status) = look(results, name)? else {
        return Err(BadArgument(format!(
            "{name} is of an older version and has no list of stages; thinet run writes one"
        ))
        .into());
    };
    // A run that was never submitted needs no Slurm; without the queue, what is stored is still reported.
    let (queued, problem) = match queue(&paths::runs(results).join(name)) {
        Ok(queued) => (queued, None),
        Err(error) => (BTreeMap::new(), Some(error.to_string())),
    };
    if arguments.json {
        return print_json(&serde_json::json!({
            "run": status, "tally": status.tally(None), "slurm": queued, "slurm-problem": problem,
        }));
    }
    print(&status, &queued);
    if let Some(problem) = problem {
        eprintln!("cannot read Slurm's queue: {problem}");
    }
    // Stages lie beside the runs in a results folder: a run that was copied alone has none.
    if status.tally(None).missing == status.stages.len() && name.contains('/') {
        eprintln!(
            "none of its stages is in {}/store; --results names the results folder that the run was copied from",
            results.display()
        );
    }
    if !others.is_empty() {
        let others: Vec<&str> = others.iter().map(|run| run.name.as_str()).collect();
        eprintln!("other runs of this spec: {}", others.join(", "));
    }
    Ok(())
}

type Look = fn(&Path, &str) -> Result<Option<RunStatus>, HarnessError>;

/// Prints a line for each run.
fn all(results: &Path, look: Look, json: bool) -> anyhow::Result<()> {
    let mut known = Vec::new();
    for name in list_runs(results)? {
        // A run that cannot be read does not hide the others.
        let tally = look(results, &name).map(|status| status.map(|status| status.tally(None)));
        known.push((name, tally));
    }
    if json {
        let one = |(name, tally): &(String, Result<Option<Tally>, HarnessError>)| {
            let problem = tally.as_ref().err().map(ToString::to_string);
            let tally = tally.as_ref().ok().copied().flatten();
            serde_json::json!({ "run": name, "tally": tally, "problem": problem })
        };
        return print_json(&known.iter().map(one).collect::<Vec<_>>());
    }
    if known.is_empty() {
        eprintln!("nothing is stored in {}", results.display());
    }
    let width = known.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    for (name, tally) in known {
        let tally = match tally {
            Ok(tally) => tally.map_or_else(|| "of an older version".to_owned(), tally_in_words),
            Err(error) => error.to_string(),
        };
        println!("{name:<width$}  {tally}");
    }
    Ok(())
}

fn print(status: &RunStatus, queued: &BTreeMap<String, QueueEntry>) {
    println!("{}: {}", status.name, tally_in_words(status.tally(None)));
    let count = |kind| status.stages.iter().filter(|stage| stage.stage.kind == kind).count();
    let kinds = [StageKind::Dense, StageKind::Evidence, StageKind::Cell].map(count);
    println!("stages: {}", stages_in_words(kinds));
    println!("cells: {} of {}", status.tally(Some(StageKind::Cell)).done, kinds[2]);
    if let Some(parent) = &status.parent {
        println!("thinet run: {parent}");
    }
    if !queued.is_empty() {
        let mut states: BTreeMap<String, usize> = BTreeMap::new();
        for queued in queued.values() {
            let reason =
                if queued.state == "PENDING" { format!(" ({})", queued.reason) } else { String::new() };
            *states.entry(format!("{}{reason}", queued.state.to_lowercase())).or_default() += 1;
        }
        let states: Vec<String> = states.iter().map(|(state, n)| format!("{n} {state}")).collect();
        println!("Slurm: {}", states.join(", "));
    }
    let mut shown = 0;
    for stage in &status.stages {
        let line = match &stage.state {
            StageState::Running { holder } => {
                let doing = &holder.doing;
                let loss = doing.loss.map(|loss| format!(", loss {loss:.3}")).unwrap_or_default();
                format!(
                    "running  {}: {} {}/{}{loss} ({holder})",
                    stage.stage.label, doing.step, doing.done, doing.total
                )
            }
            StageState::Failed { error } => format!("failed   {}: {error}", stage.stage.label),
            StageState::Diverged { .. } => format!("diverged {}", stage.stage.label),
            StageState::Damaged { problem } => format!("damaged  {}: {problem}", stage.stage.label),
            StageState::Done { .. } | StageState::Missing => continue,
        };
        shown += 1;
        if shown <= SHOWN {
            println!("{}", one_line(&line));
        }
    }
    if shown > SHOWN {
        println!("and {} more, see --json", shown - SHOWN);
    }
    let is_worked_on = status.parent.is_some() || status.tally(None).running > 0;
    match status.seconds_left {
        Some(0.0) => {}
        Some(left) if is_worked_on => println!("left: about {}", duration(left)),
        Some(left) => println!("left: about {} one after the other; nothing is running", duration(left)),
        None => println!("left: unknown"),
    }
}
