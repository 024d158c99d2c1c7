//! The kinds of evidence that are read from the net: filter weights and batch-norm scales.

use thinet_graph::{NodeId, PrunableLayer};
use thinet_selectors::{Evidence, EvidenceKind, Needs};

use crate::kind::LayerOf;
use crate::scales::batch_norm_scales;
use crate::{SamplingError, filters};

/// Refuses needs that no net of this graph can meet for the layer.
///
/// # Errors
/// If batch-norm scales are needed of a layer that no batch norm follows; names the layer.
pub fn check_needs(needs: Needs, layer: &PrunableLayer) -> Result<(), SamplingError> {
    if needs.contains(EvidenceKind::BatchNormScales) { batch_norm_of(layer).map(|_| ()) } else { Ok(()) }
}

/// The needed evidence of a layer that is read from the net, without the kinds gathered in a calibration pass.
///
/// # Errors
/// If a weight is missing, of another shape or dtype, or batch-norm scales are needed where there are none.
pub fn read_from_net(of: LayerOf<'_>, needs: Needs) -> Result<Evidence, SamplingError> {
    let layer = of.layer;
    let mut evidence = Evidence::none(&layer.name, layer.channels);
    if needs.contains(EvidenceKind::Filters) {
        evidence.filters = Some(filters(&layer.name, of.weight_of(layer.conv)?)?);
    }
    if needs.contains(EvidenceKind::BatchNormScales) {
        let weight = of.weight_of(batch_norm_of(layer)?)?;
        evidence.batch_norm_scales = Some(batch_norm_scales(layer, weight)?);
    }
    Ok(evidence)
}

/// The first batch norm between a layer and the one that reads it.
fn batch_norm_of(layer: &PrunableLayer) -> Result<NodeId, SamplingError> {
    let first = layer.batch_norms.first().copied();
    first.ok_or_else(|| SamplingError::NoBatchNorm { layer: layer.name.clone() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_nets::conv_net;

    #[test]
    fn scales_of_a_layer_without_batch_norm_are_refused_before_a_weight_is_looked_for() {
        let (_, layer) = conv_net(3, 4, 3, 1, 1, 8, None);
        let message = check_needs(Needs::BATCH_NORM_SCALES, &layer).unwrap_err().to_string();
        assert_eq!(
            message,
            "layer \"a\" has no batch-norm scales: no batch norm lies between it and the next layer"
        );
        assert!(check_needs(Needs::FILTERS | Needs::ACTIVATIONS, &layer).is_ok());
        let with_one = PrunableLayer { batch_norms: vec![2], ..layer };
        assert!(check_needs(Needs::BATCH_NORM_SCALES, &with_one).is_ok());
    }
}
