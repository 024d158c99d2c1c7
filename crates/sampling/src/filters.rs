//! The weights of a layer's filters, as evidence for data-free selectors (Li et al. 2017).

use tch::Tensor;
use thinet_graph::Producer;
use thinet_selectors::Filters;

use crate::SamplingError;
use crate::contributions::to_host;
use crate::kind::GroupOf;

/// The filters of a convolution from its weight `[C, in, k, k]`, or of a linear layer from `[C, in]` (32-bit floats, any
/// device).
///
/// # Errors
/// If the weight has another rank or dtype; names `layer`.
pub fn filters(layer: &str, weight: &Tensor) -> Result<Filters, SamplingError> {
    let (channels, len) = match *weight.size() {
        [channels, inputs, height, width] => (channels, inputs * height * width),
        [channels, inputs] => (channels, inputs),
        ref other => {
            return Err(SamplingError::input(
                layer,
                format!("filters of shape {other:?} are not of rank 4 or 2"),
            ));
        }
    };
    let values = to_host(layer, weight)?;
    Ok(Filters { channels: channels as usize, len: len as usize, values })
}

/// The filters of all producers of a group, read by `weight_of`. Those of several producers are divided by their Frobenius norm
/// ([`Filters::balanced`]), so that no producer outweighs the others, and joined to one filter per channel.
///
/// # Errors
/// As [`filters`].
pub(crate) fn filters_of(of: GroupOf<'_>) -> Result<Filters, SamplingError> {
    let group = of.group;
    let of_producer = |producer: &Producer| {
        let found = filters(&group.name, of.weight_of(producer.node)?)?;
        // A channel can own several filters of a producer, which lie side by side.
        let block = producer.entries.first().map_or(1, |entry| entry.block);
        Ok(Filters { channels: found.channels / block, len: found.len * block, ..found })
    };
    let mut all = group.producers.iter().map(of_producer).collect::<Result<Vec<_>, SamplingError>>()?;
    match all.len() {
        1 => Ok(all.remove(0)),
        _ => Filters::balanced(&all)
            .map_err(|source| SamplingError::Evidence { layer: group.name.clone(), source }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Device, Kind};

    #[test]
    fn filters_are_the_rows_of_the_weight() {
        let weight = Tensor::arange(24, (Kind::Float, Device::Cpu)).reshape([3, 2, 2, 2]);
        let filters = filters("conv", &weight).unwrap();
        assert_eq!((filters.channels, filters.len), (3, 8));
        assert_eq!(filters.filter(1), [8.0, 9.0, 10.0, 11.0, 12.0, 13.0, 14.0, 15.0]);
    }

    #[test]
    fn a_transposed_view_is_read_in_its_own_order() {
        let weight = Tensor::arange(4, (Kind::Float, Device::Cpu)).reshape([2, 2, 1, 1]).transpose(0, 1);
        assert_eq!(filters("conv", &weight).unwrap().values, [0.0, 2.0, 1.0, 3.0]);
    }

    #[test]
    fn other_ranks_and_dtypes_are_refused_by_layer() {
        let flat = Tensor::zeros([3], (Kind::Float, Device::Cpu));
        let message = filters("conv", &flat).unwrap_err().to_string();
        assert_eq!(message, "calibration of layer \"conv\": filters of shape [3] are not of rank 4 or 2");
        let double = Tensor::zeros([3, 2, 1, 1], (Kind::Double, Device::Cpu));
        let message = filters("conv", &double).unwrap_err().to_string();
        assert_eq!(message, "calibration of layer \"conv\": expected 32-bit floats, found Double");
    }
}
