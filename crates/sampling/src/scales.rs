//! The scales of the batch norm behind a layer, as evidence for data-free selectors (Liu et al. 2017, arXiv 1708.06519).

use tch::Tensor;
use thinet_graph::ChannelGroup;
use thinet_selectors::BatchNormScales;

use crate::SamplingError;
use crate::contributions::to_host;

/// |γ| of the batch norm behind a producer of `group` from its weight `[C]` (32-bit floats, any device).
///
/// # Errors
/// If the weight has another shape or dtype; names the layer.
pub(crate) fn batch_norm_scales(
    group: &ChannelGroup,
    weight: &Tensor,
) -> Result<BatchNormScales, SamplingError> {
    if weight.size() != [group.channels as i64] {
        let problem = format!("the batch norm's weight is {:?}, not {:?}", weight.size(), [group.channels]);
        return Err(SamplingError::input(&group.name, problem));
    }
    let scales = to_host(&group.name, weight)?.into_iter().map(f32::abs).collect();
    Ok(BatchNormScales { scales })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_nets::conv_net;
    use tch::Kind;

    #[test]
    fn scales_are_magnitudes_and_other_shapes_and_dtypes_are_refused_by_layer() {
        let (_, layer) = conv_net(3, 4, 3, 1, 1, 8, None);
        let gamma = Tensor::from_slice(&[0.5_f32, -2.0, 0.0]);
        assert_eq!(batch_norm_scales(&layer, &gamma).unwrap().scales, [0.5, 2.0, 0.0]);
        let refuse = |weight: &Tensor| batch_norm_scales(&layer, weight).unwrap_err().to_string();
        let message = refuse(&gamma.narrow(0, 0, 2));
        assert_eq!(message, "calibration of layer \"a\": the batch norm's weight is [2], not [3]");
        let message = refuse(&gamma.to_kind(Kind::Double));
        assert_eq!(message, "calibration of layer \"a\": expected 32-bit floats, found Double");
    }
}
