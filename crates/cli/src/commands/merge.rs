//! `thinet merge`: joins the results folder of another machine with this one.

use std::path::PathBuf;

use clap::Args;
use thinet_harness::inspect::{Merge, RunFate, RunMerge, StageFate, StageMerge, plan_merge};

use crate::output::print_json;
use crate::words::size;

/// Join the results folder of another machine with this one: stages, and the folders of runs
#[derive(Debug, Args)]
#[command(after_help = "\
Every file of a stage is compared with its checksum before and while it is copied. A stage that is
damaged there is named and left out (exit code 1, the others are copied); one that is damaged here
is set aside and replaced. A stage that both have with different results, as two kinds of
processors can compute it, is a conflict: all are named, and nothing is merged. A merge that was
interrupted goes on with the same command.

Of a run that both have, curves and log lines are joined. Tables are not copied: `thinet table SPEC`
writes them from what is stored.

Examples:
  thinet merge /mnt/other/results --dry-run
  rsync -a gpu-box:thinet/results/ /tmp/theirs && thinet merge /tmp/theirs")]
pub(crate) struct Arguments {
    /// The results folder to take stages and runs from; nothing is changed in it
    #[arg(value_name = "OTHER")]
    from: PathBuf,
    /// Check everything and say what would be done; change nothing
    #[arg(long)]
    dry_run: bool,
    /// Results folder
    #[arg(long, value_name = "DIR", default_value = "results")]
    results: PathBuf,
    /// Print what is done for each stage and run as JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let Arguments { from, dry_run, results, json } = arguments;
    let merge = plan_merge(from, results)?;
    if *json {
        print_json(&merge)?;
    } else {
        list(&merge);
    }
    if *dry_run {
        eprintln!("{}; nothing was changed", summary(&merge, ["to copy", "to copy", "to join"]));
        if let Some((first, _)) = merge.conflicts().next() {
            anyhow::bail!("{} conflicts, the first: {first}", merge.conflicts().count());
        }
    } else {
        let to_copy = merge.stages.iter().filter(|stage| bytes(stage).is_some()).count();
        let mut done = 0;
        merge.apply(&mut |stage| {
            done += 1;
            eprintln!("copied {done}/{to_copy}: {} ({})", stage.id, size(bytes(stage).unwrap_or(0)));
        })?;
        eprintln!("{}", summary(&merge, ["copied", "copied", "joined"]));
    }
    let damaged = left_out(&merge);
    if damaged.is_empty() {
        return Ok(());
    }
    anyhow::bail!("left out, as damaged in {}: {}", from.display(), damaged.join(", "))
}

/// Lists what needs a look: conflicts, and what is damaged on either side.
fn list(merge: &Merge) {
    for StageMerge { id, fate } in &merge.stages {
        match fate {
            StageFate::New { .. } | StageFate::Same => {}
            StageFate::Repair { problem, .. } => println!("replaced  {id}: damaged here ({problem})"),
            StageFate::Conflict { differs } => println!("conflict  {id}: {} differ", differs.join(", ")),
            StageFate::Damaged { problem } => println!("damaged   {id}: {problem}"),
        }
    }
    for RunMerge { name, fate } in &merge.runs {
        if let RunFate::Damaged { problem } = fate {
            println!("damaged   {name}: {problem}");
        }
    }
}

/// `3 stages copied (1.2 MiB), 2 stored already, 1 run copied, 1 joined`.
fn summary(merge: &Merge, [stages, runs, joined]: [&str; 3]) -> String {
    let to_copy: Vec<u64> = merge.stages.iter().filter_map(bytes).collect();
    let same = merge.stages.iter().filter(|stage| stage.fate == StageFate::Same).count();
    let of = |fate: &RunFate| merge.runs.iter().filter(|run| run.fate == *fate).count();
    let plural = |count: usize| if count == 1 { "" } else { "s" };
    let (count, new) = (to_copy.len(), of(&RunFate::New));
    format!(
        "{count} stage{} {stages} ({}), {same} stored already, {new} run{} {runs}, {} {joined}",
        plural(count),
        size(to_copy.iter().sum()),
        plural(new),
        of(&RunFate::Join)
    )
}

fn bytes(stage: &StageMerge) -> Option<u64> {
    match stage.fate {
        StageFate::New { bytes } | StageFate::Repair { bytes, .. } => Some(bytes),
        _ => None,
    }
}

/// The stages and runs that are damaged in the other folder.
fn left_out(merge: &Merge) -> Vec<&str> {
    let stages = merge.stages.iter().filter(|stage| matches!(stage.fate, StageFate::Damaged { .. }));
    let runs = merge.runs.iter().filter(|run| matches!(run.fate, RunFate::Damaged { .. }));
    stages.map(|stage| stage.id.as_str()).chain(runs.map(|run| run.name.as_str())).collect()
}
