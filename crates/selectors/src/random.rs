//! Random selection: the baseline that uses no evidence.

use rand::seq::SliceRandom;
use thinet_seed::Seed;

use crate::{Evidence, Needs, Selection, Selector, SelectorError};

/// Removes channels in the order of a seeded shuffle. A score is the channel's place in that order: 0 is removed first. Normalised places of
/// two layers are spread alike, so that a global allocation takes about the same share of each.
pub(crate) struct Random;

impl Selector for Random {
    fn name(&self) -> &'static str {
        "random"
    }

    fn about(&self) -> &'static str {
        "removes uniformly drawn channels; looks at nothing"
    }

    fn needs(&self) -> Needs {
        Needs::NONE
    }

    fn select(&self, evidence: &Evidence, keep: usize, seed: Seed) -> Result<Selection, SelectorError> {
        let mut order: Vec<usize> = (0..evidence.channels).collect();
        order.shuffle(&mut seed.rng());
        let mut scores = vec![0.0; evidence.channels];
        for (place, &channel) in order.iter().enumerate() {
            scores[channel] = place as f64;
        }
        Selection::from_order(self.name(), evidence, keep, order, scores)
    }

    fn importance(&self) -> Option<fn(f64) -> f64> {
        Some(|score| score)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn removed(seed: Seed) -> Vec<usize> {
        Random.select(&Evidence::none("conv1", 64), 32, seed).unwrap().removed
    }

    #[test]
    fn an_order_is_pinned_so_that_stored_results_keep_their_meaning() {
        assert_eq!(
            removed(Seed::root(1).child("select"))[..12],
            [14, 60, 36, 56, 26, 29, 6, 49, 31, 19, 11, 35]
        );
    }

    #[test]
    fn other_seeds_remove_other_channels() {
        assert_ne!(removed(Seed::root(0)), removed(Seed::root(1)));
    }

    #[test]
    fn every_channel_is_removed_about_as_often() {
        let mut times = [0; 64];
        for seed in 0..400 {
            for channel in removed(Seed::root(seed)) {
                times[channel] += 1;
            }
        }
        // Binomial(400, ½) has a standard deviation of 10; the seeds are fixed, so this cannot flicker.
        assert!(times.iter().all(|times| (150..=250).contains(times)), "{times:?}");
    }
}
