//! Pins the answer of every registered reconstructor to fixed moments in `answers.txt`, by name and version: stored
//! results are looked up by both, so a changed answer needs a new version.

use std::collections::BTreeSet;

use thinet_graph::ChannelSet;
use thinet_selectors::Moments;

use crate::{Reconstructor, all};

/// For each reconstructor its name and version, and the scales of a few sets of kept channels.
const PINNED: &str = include_str!("answers.txt");

const CHANNELS: usize = 6;

/// Moments of rows in plain arithmetic, independent of other crates. Channel 5 repeats channel 0 in the
/// second case, so that a ridge is needed.
fn fixed_moments(repeats: bool) -> Moments {
    let value = |at: usize| ((at * at + 3 * at + 7) * 7919 % 1009) as f64 / 1000.0 - 0.3;
    let mut x: Vec<f64> = (0..CHANNELS * 20).map(value).collect();
    for row in x.chunks_exact_mut(CHANNELS).filter(|_| repeats) {
        row[5] = row[0];
    }
    Moments::from_rows(CHANNELS, &x).unwrap()
}

/// Name and version: the head of an entry.
fn head(reconstructor: &dyn Reconstructor) -> String {
    format!("{} version {}", reconstructor.name(), reconstructor.version())
}

fn entry(reconstructor: &dyn Reconstructor) -> String {
    let mut lines = vec![head(reconstructor)];
    for (repeats, kept) in [(false, vec![0, 2, 3]), (false, vec![4]), (true, vec![0, 1, 5])] {
        let kept = ChannelSet::new(CHANNELS, kept).unwrap();
        let scale = reconstructor.refit(Some(&fixed_moments(repeats)), &kept).unwrap();
        let case = if repeats { "with a repeated channel" } else { "of independent channels" };
        lines.push(format!("  kept {:?} {case} scales {scale:?}", kept.kept()));
    }
    lines.join("\n")
}

/// The pinned entries: the text between one head and the next.
fn pinned() -> Vec<&'static str> {
    PINNED.trim().split("\n\n").collect()
}

#[test]
fn an_answer_changes_only_with_its_version() {
    let mut problems = Vec::new();
    for reconstructor in all() {
        let (head, answer) = (head(*reconstructor), entry(*reconstructor));
        match pinned().iter().find(|entry| entry.lines().next() == Some(head.as_str())) {
            Some(pinned) if *pinned == answer => {}
            Some(pinned) => problems.push(format!(
                "reconstruction {:?} answers otherwise than before under version {}. If that is a fault, mend it. If it is \
                 meant, raise its `version`, so that results stored before are not taken for new ones, and replace its \
                 entry in crates/reconstruction/src/answers.txt.\n\nPinned:\n{pinned}\n\nNow:\n{answer}\n",
                reconstructor.name(),
                reconstructor.version(),
            )),
            None => problems.push(format!(
                "no answer of {head} is pinned. Add this entry to crates/reconstruction/src/answers.txt, after an empty \
                 line (in place of the entry of an older version):\n\n{answer}\n"
            )),
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

#[test]
fn no_answer_is_pinned_of_what_is_not_registered() {
    let heads: BTreeSet<String> = all().iter().map(|reconstructor| head(*reconstructor)).collect();
    for entry in pinned() {
        let first = entry.lines().next().unwrap_or_default();
        assert!(
            heads.contains(first),
            "answers.txt pins {first:?}, which is not registered: remove the entry"
        );
    }
}

#[test]
fn versions_start_at_one() {
    assert!(all().iter().all(|reconstructor| reconstructor.version() >= 1));
}
