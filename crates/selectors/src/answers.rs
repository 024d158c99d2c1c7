//! Pins the answer of every registered selector to fixed evidence in `answers.txt`, by name and version: stored results
//! are looked up by both, so a changed answer needs a new version.

use thinet_seed::Seed;

use crate::pinned::{Answer, problems};
use crate::{
    ActivationStats, BatchNormScales, Evidence, Filters, GradientProducts, Moments, Selector, ZeroCounts,
    all, select,
};

/// For each selector its name and version, the channels that it removes until 1 stays and until 5 stay, and its scores.
const PINNED: &str = include_str!("answers.txt");

const CHANNELS: usize = 9;

/// Evidence of every kind in plain arithmetic, independent of other crates.
fn fixed_evidence() -> Evidence {
    // Multiples of 1/1000 in -0.5..0.5 (7919 is a generator modulo 1009).
    let value = |at: usize| ((at * at + 3 * at + 7) * 7919 % 1009) as f64 / 1000.0 - 0.5;
    let filters: Vec<f32> = (0..CHANNELS * 12).map(|at| value(at) as f32).collect();
    let x: Vec<f64> = (0..CHANNELS * 40).map(|at| value(at + 500) + 0.2).collect();
    let mean: Vec<f64> = (0..CHANNELS).map(|at| value(at + 200)).collect();
    Evidence {
        filters: Some(Filters { channels: CHANNELS, len: 12, values: filters }),
        batch_norm_scales: Some(BatchNormScales {
            scales: (0..CHANNELS).map(|at| value(at + 100).abs() as f32).collect(),
        }),
        zeros: Some(ZeroCounts { zeros: vec![700, 20, 333, 334, 999, 1000, 0, 20, 512], total: 1000 }),
        gradients: Some(GradientProducts {
            taylor: mean.clone(),
            taylor_abs: mean.iter().map(|mean| mean * mean + mean.abs()).collect(),
            images: 7,
        }),
        activations: Some(ActivationStats {
            mean_abs: mean.iter().map(|mean| mean.abs() + 0.1).collect(),
            max: mean.iter().map(|mean| mean + 1.0).collect(),
            mean,
            total: 1000,
        }),
        moments: Some(Moments::from_rows(CHANNELS, &x).unwrap()),
        ..Evidence::none("conv2_1", CHANNELS)
    }
}

fn answer(selector: &dyn Selector) -> Answer {
    let evidence = fixed_evidence();
    let mut lines = Vec::new();
    for keep in [1, 5] {
        let selection = select(selector, &evidence, keep, Seed::root(3)).unwrap();
        lines.push(format!("  keep {keep} removes {:?}", selection.removed));
        lines.push(format!("  keep {keep} scores {:?}", selection.scores));
    }
    Answer { name: selector.name(), version: selector.version(), lines }
}

#[test]
fn an_answer_changes_only_with_its_version() {
    let answers: Vec<Answer> = all().iter().map(|selector| answer(*selector)).collect();
    let problems = problems("selector", "crates/selectors/src/answers.txt", PINNED, &answers);
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}
