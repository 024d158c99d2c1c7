//! The part of `thinet plan --why`: why each missing stage would run.

use thinet_harness::inspect::{Reason, Why};
use thinet_report::records::Difference;

/// Inputs of a stage that are printed one by one.
const INPUTS_SHOWN: usize = 8;
/// Characters of a value that are printed.
const CHARACTERS_SHOWN: usize = 60;

/// Prints the reasons; stages with the same one share it.
pub(super) fn print(reasons: &[Why]) {
    if reasons.is_empty() {
        println!("nothing would run: every stage is stored");
        return;
    }
    let mut groups: Vec<(Vec<String>, Vec<&str>)> = Vec::new();
    for Why { label, reason, .. } in reasons {
        let lines = lines(reason);
        match groups.iter_mut().find(|(known, _)| *known == lines) {
            Some((_, labels)) => labels.push(label),
            None => groups.push((lines, vec![label])),
        }
    }
    println!("why stages would run, each compared with the nearest stored one:");
    for (lines, labels) in groups {
        println!("  {}", named(&labels));
        lines.iter().for_each(|line| println!("    {line}"));
    }
}

fn lines(reason: &Reason) -> Vec<String> {
    match reason {
        Reason::New => vec!["new: nothing of this method, keep rate and seed is stored".to_owned()],
        Reason::Differs { inputs, .. } => {
            let mut lines: Vec<String> = inputs.iter().take(INPUTS_SHOWN).map(line).collect();
            if inputs.len() > INPUTS_SHOWN {
                lines.push(format!("and {} more inputs, see --json", inputs.len() - INPUTS_SHOWN));
            }
            lines
        }
        Reason::OtherVersion { .. } => {
            vec!["a stored one has the same inputs, but had another meaning when it was stored".to_owned()]
        }
        Reason::Damaged { problem } => vec![format!("stored, but damaged: {problem}")],
        Reason::Failed { error } => vec![format!("failed last time: {error}")],
        Reason::Begun => vec!["begun, not finished: it goes on from its checkpoint".to_owned()],
    }
}

fn line(Difference { key, first, second }: &Difference) -> String {
    let value = |value: &Option<String>| match value {
        None => "none".to_owned(),
        Some(value) if value.chars().count() > CHARACTERS_SHOWN => {
            value.chars().take(CHARACTERS_SHOWN).chain(['…']).collect()
        }
        Some(value) => value.clone(),
    };
    format!("{key}: {} -> {}", value(first), value(second))
}

/// `dense net, seed 0`, or `dense net, seed 0 … thinet r=0.5 seed 0 (12 stages)`.
fn named(labels: &[&str]) -> String {
    match labels {
        [first, .., last] if labels.len() > 4 => format!("{first} … {last} ({} stages)", labels.len()),
        _ => labels.join("; "),
    }
}
