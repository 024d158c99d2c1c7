//! APoZ: the average percentage of zeros after the activation (Hu et al. 2016, arXiv 1607.03250).

use std::cmp::Reverse;

use thinet_seed::Seed;

use crate::{Evidence, Needs, Selection, Selector, SelectorError};

/// Removes the channels that are zero most often first. A score is the channel's fraction of zeros over images and
/// positions.
///
/// Counts are compared, not fractions, so ties are exact; among equals the lowest index is removed first.
pub(crate) struct Apoz;

impl Selector for Apoz {
    fn name(&self) -> &'static str {
        "apoz"
    }

    fn about(&self) -> &'static str {
        "removes channels with the largest fraction of zeros after the activation (Hu et al. 2016)"
    }

    fn needs(&self) -> Needs {
        Needs::ZEROS
    }

    fn select(&self, evidence: &Evidence, keep: usize, _seed: Seed) -> Result<Selection, SelectorError> {
        let counts = evidence.zeros_for(self.name())?;
        let mut order: Vec<usize> = (0..evidence.channels).collect();
        order.sort_by_key(|&channel| Reverse(counts.zeros[channel]));
        let scores = counts.zeros.iter().map(|&zeros| zeros as f64 / counts.total as f64).collect();
        Selection::from_order(self.name(), evidence, keep, order, scores)
    }

    fn importance(&self) -> Option<fn(f64) -> f64> {
        Some(|zeros| 1.0 - zeros)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ZeroCounts;

    fn evidence(zeros: Vec<u64>, total: u64) -> Evidence {
        let channels = zeros.len();
        let zeros = Some(ZeroCounts { zeros, total });
        Evidence { zeros, ..Evidence::none("conv1", channels) }
    }

    #[test]
    fn the_channel_that_is_zero_most_often_is_removed_first() {
        let selection = Apoz.select(&evidence(vec![2, 8, 0, 8, 4], 8), 2, Seed::root(0)).unwrap();
        assert_eq!(selection.removed, [1, 3, 4]);
        assert_eq!(selection.kept.kept(), [0, 2]);
        assert_eq!(selection.scores, [0.25, 1.0, 0.0, 1.0, 0.5]);
    }

    #[test]
    fn counts_that_floats_cannot_distinguish_are_ranked() {
        let large = 1 << 60;
        let selection = Apoz.select(&evidence(vec![large, large + 1], large + 2), 1, Seed::root(0)).unwrap();
        assert_eq!(selection.removed, [1]);
    }

    #[test]
    fn impossible_counts_are_refused() {
        let error =
            |zeros, total| Apoz.select(&evidence(zeros, total), 1, Seed::root(0)).unwrap_err().to_string();
        assert_eq!(
            error(vec![1, 9], 8),
            "selector \"apoz\" cannot rank layer \"conv1\": zero counts name 9 zeros among the 8 values of channel 1"
        );
        assert_eq!(
            error(vec![0, 0], 0),
            "selector \"apoz\" cannot rank layer \"conv1\": zero counts saw no values"
        );
    }
}
