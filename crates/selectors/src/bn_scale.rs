//! Batch-norm scales: the |γ| behind each channel (network slimming: Liu et al. 2017, arXiv 1708.06519).

use thinet_seed::Seed;

use crate::{Evidence, Needs, Selection, Selector, SelectorError};

/// Removes the channels that batch normalisation scales least first. A score is |γ|; that of a group with several producers is
/// the sum of theirs, each divided by its layer's mean ([`BatchNormScales::balanced`](crate::BatchNormScales::balanced)).
///
/// This is the paper's criterion alone, within each layer: its training with a penalty on |γ| is a recipe's business, and its
/// threshold over all layers an allocation's. A layer without batch norm behind it is refused when the spec is read.
///
/// Among equals the lowest index is removed first.
pub(crate) struct BnScale;

impl Selector for BnScale {
    fn name(&self) -> &'static str {
        "bn-scale"
    }

    fn about(&self) -> &'static str {
        "removes channels with the smallest batch-norm scale (Liu et al. 2017); needs batch norm behind each layer"
    }

    fn needs(&self) -> Needs {
        Needs::BATCH_NORM_SCALES
    }

    fn select(&self, evidence: &Evidence, keep: usize, _seed: Seed) -> Result<Selection, SelectorError> {
        let scales = &evidence.batch_norm_scales_for(self.name())?.scales;
        let scores = scales.iter().copied().map(f64::from).collect();
        Selection::least_first(self.name(), evidence, keep, scores)
    }

    fn importance(&self) -> Option<fn(f64) -> f64> {
        Some(|score| score)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::BatchNormScales;

    fn select(scales: BatchNormScales, keep: usize) -> Selection {
        let channels = scales.scales.len();
        let evidence = Evidence { batch_norm_scales: Some(scales), ..Evidence::none("conv1", channels) };
        BnScale.select(&evidence, keep, Seed::root(0)).unwrap()
    }

    fn scales(scales: &[f32]) -> BatchNormScales {
        BatchNormScales { scales: scales.to_vec() }
    }

    #[test]
    fn the_smallest_scale_goes_first() {
        let selection = select(scales(&[0.5, 0.25, 2.0, 0.0, 0.25]), 2);
        assert_eq!(selection.removed, [3, 1, 4]);
        assert_eq!(selection.kept.kept(), [0, 2]);
        assert_eq!(selection.scores, [0.5, 0.25, 2.0, 0.0, 0.25]);
    }

    #[test]
    fn scales_of_several_producers_count_in_multiples_of_their_mean() {
        // Means 2 and 20. By plain sums the second channel would go first.
        let joined = BatchNormScales::balanced(&[scales(&[1.0, 3.0, 2.0]), scales(&[32.0, 12.0, 16.0])]);
        let selection = select(joined.unwrap(), 1);
        let expected = [0.5 + 1.6, 1.5 + 0.6, 1.0 + 0.8].map(|score: f64| f64::from(score as f32));
        assert_eq!(selection.scores, expected);
        assert_eq!(selection.removed[0], 2);
    }
}
