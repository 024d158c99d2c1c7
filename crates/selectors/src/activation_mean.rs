//! Mean activation: the mean of each channel's map after its activation (Molchanov et al. 2017, arXiv 1611.06440, section 2.2).

use thinet_seed::Seed;

use crate::{Evidence, Needs, Selection, Selector, SelectorError};

/// Removes the channels with the smallest mean activation first. A score is the mean over all positions of all calibration images,
/// taken where APoZ counts zeros: after the first ReLU, before pooling. Signs stay: behind a layer without ReLU a score can be
/// negative.
///
/// The paper divides scores by their l2 norm over a layer before layers compete with each other. That changes no order within a
/// layer, so it belongs to a ranking over all layers and not to this selector.
///
/// Among equals the lowest index is removed first.
pub(crate) struct ActivationMean;

impl Selector for ActivationMean {
    fn name(&self) -> &'static str {
        "activation-mean"
    }

    fn about(&self) -> &'static str {
        "removes channels with the smallest mean after the activation (Molchanov et al. 2017)"
    }

    fn needs(&self) -> Needs {
        Needs::ACTIVATIONS
    }

    fn select(&self, evidence: &Evidence, keep: usize, _seed: Seed) -> Result<Selection, SelectorError> {
        let scores = evidence.activations_for(self.name())?.mean.clone();
        Selection::least_first(self.name(), evidence, keep, scores)
    }

    fn importance(&self) -> Option<fn(f64) -> f64> {
        Some(|score| score)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ActivationStats;

    #[test]
    fn the_smallest_mean_goes_first_and_neither_size_nor_maximum_matters() {
        // Maps of two positions: (2, 0), (-3, 1), (0.25, 0.25), (0, 0), (1, 1).
        let activations = Some(ActivationStats {
            mean: vec![1.0, -1.0, 0.25, 0.0, 1.0],
            mean_abs: vec![1.0, 2.0, 0.25, 0.0, 1.0],
            max: vec![2.0, 1.0, 0.25, 0.0, 1.0],
            total: 2,
        });
        let evidence = Evidence { activations, ..Evidence::none("conv1", 5) };
        let selection = ActivationMean.select(&evidence, 1, Seed::root(0)).unwrap();
        assert_eq!(selection.removed, [1, 3, 2, 0]);
        assert_eq!(selection.kept.kept(), [4]);
        assert_eq!(selection.scores, [1.0, -1.0, 0.25, 0.0, 1.0]);
    }

    #[test]
    fn a_negative_zero_is_a_zero() {
        let values = vec![0.0, -0.0, 0.0];
        let activations =
            Some(ActivationStats { mean: values.clone(), mean_abs: values.clone(), max: values, total: 1 });
        let evidence = Evidence { activations, ..Evidence::none("conv1", 3) };
        assert_eq!(ActivationMean.select(&evidence, 1, Seed::root(0)).unwrap().removed, [0, 1]);
    }
}
