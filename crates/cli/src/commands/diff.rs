//! `thinet diff`: what differs between two runs.

use std::path::Path;

use thinet_harness::{Difference, RunDifference, StageDifference, diff as diff_runs};

use super::{find_run, print_json};

pub(crate) fn diff(first: &str, second: &str, results: &Path, json: bool) -> anyhow::Result<()> {
    let (first, second) = (find_run(first, results)?, find_run(second, results)?);
    let found = diff_runs(results, &first, &second)?;
    if json {
        return print_json(&found);
    }
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
            println!("\n## Stages stored of {} only\n", if sign == '-' { &first } else { &second });
            only.iter().for_each(|label| println!("{sign} {label}"));
        }
    }
    for StageDifference { label, metrics, kept } in &stages {
        println!("\n## {label}\n");
        print(metrics);
        for (layer, [both, one, other]) in kept {
            println!(
                "  kept in {layer}: {both} in both, {one} in the first only, {other} in the second only"
            );
        }
    }
    println!("\n{same} stages of both have the same outcome, {} another one", stages.len());
    Ok(())
}

fn print(differences: &[Difference]) {
    for Difference { key, first, second } in differences {
        let value = |value: &Option<String>| value.clone().unwrap_or_else(|| "none".to_owned());
        println!("  {key}: {} -> {}", value(first), value(second));
    }
}
