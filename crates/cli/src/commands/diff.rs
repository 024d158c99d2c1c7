//! `thinet diff`: shows what differs between two runs.

use std::path::PathBuf;

use clap::Args;
use thinet_harness::inspect::{RunDifference, StageDifference, diff, find_run};
use thinet_report::records::Difference;

use crate::output::print_json;

/// Show what differs between two runs: spec, environment, kept channels, metrics
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  thinet diff selectors-0123 selectors-4567
  thinet diff smoke smoke --second-results /mnt/copy/results --exact")]
pub(crate) struct Arguments {
    /// A run: its name or id or the beginning of one, its folder, its spec or a table of it
    first: String,
    /// Another run
    second: String,
    /// Results folder
    #[arg(long, value_name = "DIR", default_value = "results")]
    results: PathBuf,
    /// Results folder of the second run, if it is another one
    #[arg(long, value_name = "DIR")]
    second_results: Option<PathBuf>,
    /// Also compare the stored tensors bit by bit, and fail if a stage differs or is stored for one run only
    #[arg(long)]
    exact: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// How many tensors of a stage are printed one by one.
const TENSORS_SHOWN: usize = 10;

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let results = &arguments.results;
    let other_results = arguments.second_results.as_ref().unwrap_or(results);
    let (first, second) = (find_run(results, &arguments.first)?, find_run(other_results, &arguments.second)?);
    let found = diff(&first, &second, arguments.exact)?;
    let is_same = found.has_same_stages();
    if arguments.json {
        print_json(&found)?;
    } else {
        show(&first.name, &second.name, found);
    }
    if arguments.exact && !is_same {
        anyhow::bail!("the stages of {} and {} differ", first.name, second.name);
    }
    Ok(())
}

fn show(first: &str, second: &str, found: RunDifference) {
    let RunDifference { spec, environment, inputs, only_first, only_second, stages, same } = found;
    println!("- {first}\n+ {second}");
    for (heading, differences) in [("Spec", &spec), ("Environment", &environment), ("Inputs", &inputs)] {
        if !differences.is_empty() {
            println!("\n## {heading}\n");
            print(differences);
        }
    }
    for (sign, only) in [('-', &only_first), ('+', &only_second)] {
        if !only.is_empty() {
            println!("\n## Stages stored for {} only\n", if sign == '-' { first } else { second });
            only.iter().for_each(|label| println!("{sign} {label}"));
        }
    }
    for StageDifference { label, metrics, kept, tensors } in &stages {
        println!("\n## {label}\n");
        print(metrics);
        for (layer, [both, one, other]) in kept {
            println!(
                "  kept in {layer}: {both} in both, {one} in the first only, {other} in the second only"
            );
        }
        for tensor in tensors.iter().take(TENSORS_SHOWN) {
            println!("  other bits in {tensor}");
        }
        if tensors.len() > TENSORS_SHOWN {
            println!("  and {} more tensors, see --json", tensors.len() - TENSORS_SHOWN);
        }
    }
    println!("\n{same} stages have the same outcome in both, {} differ", stages.len());
}

fn print(differences: &[Difference]) {
    for Difference { key, first, second } in differences {
        let value = |value: &Option<String>| value.clone().unwrap_or_else(|| "none".to_owned());
        println!("  {key}: {} -> {}", value(first), value(second));
    }
}
