//! Pins the answer of every registered reconstructor to fixed moments in `answers.txt`, by name and version: stored
//! results are looked up by both, so a changed answer needs a new version.

use thinet_graph::ChannelSet;
use thinet_selectors::Moments;
use thinet_selectors::pinned::{Answer, problems};

use crate::{Patches, Reconstructor, RefitInput, all};

/// For each reconstructor its name and version, and the scales of a few sets of kept channels.
const PINNED: &str = include_str!("answers.txt");

const CHANNELS: usize = 6;
/// Two filters that read them.
const WEIGHTS: [f64; 2 * CHANNELS] = [0.5, -1.0, 0.25, 2.0, 0.75, -0.5, 1.0, 0.0, -0.5, 0.5, 1.5, 0.25];

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

fn answer(reconstructor: &dyn Reconstructor) -> Answer {
    let mut lines = Vec::new();
    for (repeats, kept) in [(false, vec![0, 2, 3]), (false, vec![4]), (true, vec![0, 1, 5])] {
        let kept = ChannelSet::new(CHANNELS, kept).unwrap();
        let moments = fixed_moments(repeats);
        let (what, values) = match reconstructor.reads() {
            RefitInput::Patches => {
                let patches = Patches { moments: &moments, taps: 1, weights: &WEIGHTS };
                ("weights", reconstructor.refit_kernels(&patches, &kept).unwrap().weights)
            }
            _ => ("scales", reconstructor.refit(Some(&moments), &kept).unwrap()),
        };
        let case = if repeats { "with a repeated channel" } else { "of independent channels" };
        lines.push(format!("  kept {:?} {case} {what} {values:?}", kept.kept()));
    }
    Answer { name: reconstructor.name(), version: reconstructor.version(), lines }
}

#[test]
fn an_answer_changes_only_with_its_version() {
    let answers: Vec<Answer> = all().iter().map(|reconstructor| answer(*reconstructor)).collect();
    let problems = problems("reconstruction", "crates/reconstruction/src/answers.txt", PINNED, &answers);
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}
