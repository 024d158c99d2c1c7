//! Applies a surgery plan to weights, and the rescaling of what the next layer reads (Luo et al. 2017, eq. 7).

use tch::{Kind, Tensor};
use thinet_graph::{Graph, Op, PrunableLayer, Surgery};

use crate::error::Context;
use crate::{ModelError, Weights};

/// The weights after a cut: copies that share no storage with the old ones, which stay as they are.
///
/// # Errors
/// If a tensor that the plan names is missing, or the result does not fit the plan's graph.
pub fn apply_surgery(weights: &Weights, surgery: &Surgery) -> Result<Weights, ModelError> {
    let mut cut = weights.deep_copy()?;
    for step in &surgery.cuts {
        let tensor = weights.get(&step.tensor)?;
        let context = || format!("cut of tensor {:?}", step.tensor);
        let indices: Vec<i64> = step.indices.iter().map(|&i| i as i64).collect();
        let indices =
            Tensor::f_from_slice(&indices).and_then(|i| i.f_to_device(tensor.device())).context(context)?;
        let kept = tensor.f_detach().and_then(|t| t.f_index_select(step.axis as i64, &indices));
        cut.insert(step.tensor.clone(), kept.context(context)?);
    }
    cut.check(&surgery.graph)?;
    Ok(cut)
}

/// Multiplies what the consumer of `layer` reads: input channel *j* of every filter by `scale[j]`; behind a flatten the
/// block of columns of channel *j*. `layer` is of `graph`, the net as it is now.
///
/// # Errors
/// If there is not one scale for each channel, or the consumer's weight is missing.
pub fn scale_consumer_inputs(
    weights: &mut Weights,
    graph: &Graph,
    layer: &PrunableLayer,
    scale: &[f64],
) -> Result<(), ModelError> {
    let consumer = &graph.nodes()[layer.consumer];
    if scale.len() != layer.channels {
        let (expected, found) = (layer.channels, scale.len());
        return Err(ModelError::ScaleCount { layer: consumer.name.clone(), expected, found });
    }
    let name = format!("{}.weight", consumer.name);
    let weight = weights.get(&name)?;
    let shape: &[i64] = match consumer.op {
        Op::Linear { .. } => &[1, -1],
        _ => &[1, -1, 1, 1],
    };
    let scaled = || {
        // The product is taken in float64 and rounded once.
        let scale =
            Tensor::f_from_slice(scale)?.f_repeat_interleave_self_int(layer.columns as i64, 0, None)?;
        let scale = scale.f_to_device(weight.device())?.f_view(shape)?;
        weight.f_detach()?.f_to_kind(Kind::Double)?.f_mul(&scale)?.f_to_kind(Kind::Float)
    };
    let scaled = scaled().context(|| format!("scaling of tensor {name:?}"))?;
    weights.insert(name, scaled);
    Ok(())
}
