//! The kinds of evidence that are read from the net: filter weights and batch-norm scales.

use thinet_graph::{ChannelGroup, NodeId, Producer};
use thinet_selectors::{BatchNormScales, Evidence, EvidenceKind, Needs};

use crate::SamplingError;
use crate::filters::filters_of;
use crate::kind::GroupOf;
use crate::scales::batch_norm_scales;

/// Refuses needs that no net of this graph can meet for the group.
///
/// # Errors
/// If batch-norm scales are needed of a group with a producer that no batch norm follows; names the producer.
pub fn check_needs(needs: Needs, group: &ChannelGroup) -> Result<(), SamplingError> {
    if needs.contains(EvidenceKind::BatchNormScales) { batch_norms_of(group).map(|_| ()) } else { Ok(()) }
}

/// The needed evidence of a group that is read from the net, without the kinds gathered in a calibration pass.
///
/// # Errors
/// If a weight is missing, of another shape or dtype, or batch-norm scales are needed where there are none.
pub fn read_from_net(of: GroupOf<'_>, needs: Needs) -> Result<Evidence, SamplingError> {
    let group = of.group;
    let mut evidence = Evidence::none(&group.name, group.channels);
    if needs.contains(EvidenceKind::Filters) {
        evidence.filters = Some(filters_of(of)?);
    }
    if needs.contains(EvidenceKind::BatchNormScales) {
        let scales_of = |node: NodeId| batch_norm_scales(group, of.weight_of(node)?);
        let mut scales = batch_norms_of(group)?.into_iter().map(scales_of).collect::<Result<Vec<_>, _>>()?;
        evidence.batch_norm_scales = Some(match scales.len() {
            1 => scales.remove(0),
            _ => BatchNormScales::balanced(&scales)
                .map_err(|source| SamplingError::Evidence { layer: group.name.clone(), source })?,
        });
    }
    Ok(evidence)
}

/// The batch norm behind each producer of a group.
fn batch_norms_of(group: &ChannelGroup) -> Result<Vec<NodeId>, SamplingError> {
    let of_producer = |producer: &Producer| {
        let named = producer.entries.first().map(|entry| entry.tensor.trim_end_matches(".weight"));
        let layer = named.unwrap_or(&group.name).to_owned();
        producer.batch_norm.ok_or(SamplingError::NoBatchNorm { layer })
    };
    group.producers.iter().map(of_producer).collect()
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
        let producers = vec![Producer { batch_norm: Some(2), ..layer.producers[0].clone() }];
        let with_one = ChannelGroup { producers, ..layer };
        assert!(check_needs(Needs::BATCH_NORM_SCALES, &with_one).is_ok());
    }
}
