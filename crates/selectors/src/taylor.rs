//! Taylor: how much the loss changes, to first order, without a channel (Molchanov et al. 2017, arXiv 1611.06440, eq. 8).

use thinet_seed::Seed;

use crate::{Evidence, Needs, Selection, Selector, SelectorError};

/// Removes the channels on which the loss depends least first. A score is Θ_TE of the paper: for each image the activation is multiplied
/// by the gradient of that image's loss, the products are averaged over the positions of the map, then the absolute value is taken, and
/// these are averaged over the images: mean over images of |mean over positions of a·∂L/∂a|. The absolute value stands between the two
/// means, so positions cancel each other and images do not.
///
/// The paper divides scores by their l2 norm over a layer before layers compete with each other. That changes no order within a
/// layer, so it belongs to a ranking over all layers and not to this selector.
///
/// Among equals the lowest index is removed first.
pub(crate) struct Taylor;

impl Selector for Taylor {
    fn name(&self) -> &'static str {
        "taylor"
    }

    fn about(&self) -> &'static str {
        "removes channels without which the loss changes least, to first order (Molchanov et al. 2017, eq. 8)"
    }

    fn needs(&self) -> Needs {
        Needs::GRADIENTS
    }

    fn select(&self, evidence: &Evidence, keep: usize, _seed: Seed) -> Result<Selection, SelectorError> {
        let scores = evidence.gradients_for(self.name())?.taylor_abs.clone();
        Selection::least_first(self.name(), evidence, keep, scores)
    }

    fn importance(&self) -> Option<fn(f64) -> f64> {
        Some(|score| score)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::GradientProducts;

    #[test]
    fn images_that_pull_in_opposite_directions_do_not_cancel() {
        // Products of two images: (1, -1), (0.5, 0.25), (-0.25, -0.25), (0, 0). The first channel's mean is zero.
        let gradients = GradientProducts {
            taylor: vec![0.0, 0.375, -0.25, 0.0],
            taylor_abs: vec![1.0, 0.375, 0.25, 0.0],
            images: 2,
        };
        let evidence = Evidence { gradients: Some(gradients), ..Evidence::none("conv1", 4) };
        let selection = Taylor.select(&evidence, 1, Seed::root(0)).unwrap();
        assert_eq!(selection.removed, [3, 2, 1]);
        assert_eq!(selection.scores, [1.0, 0.375, 0.25, 0.0]);
    }
}
