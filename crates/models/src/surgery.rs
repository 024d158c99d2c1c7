//! Applies a surgery plan to weights, and the rescaling of what the next layer reads (Luo et al. 2017, eq. 7).

use tch::{Kind, TchError, Tensor};
use thinet_graph::{ChannelGroup, Entry, Surgery};

use crate::error::Context;
use crate::{ModelError, Weights};

/// The weights after a cut: copies that share no storage with the old ones, which stay as they are.
///
/// # Errors
/// If a tensor that the plan names is missing, or the result does not fit the plan's graph.
pub fn apply_surgery(weights: &Weights, surgery: &Surgery) -> Result<Weights, ModelError> {
    let mut cut = weights.deep_copy()?;
    for step in &surgery.cuts {
        // A tensor can be cut along two axes, one after the other.
        let tensor = cut.get(&step.tensor)?;
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

/// Multiplies what the readers of `group` read: each reader's weights for channel *j* by `scale[j]`; behind a flatten those
/// are the block of columns of channel *j*. `group` is of the net as it is now.
///
/// # Errors
/// If there is not one scale for each channel, or a reader's weight is missing or of another net.
pub fn scale_readers(weights: &mut Weights, group: &ChannelGroup, scale: &[f64]) -> Result<(), ModelError> {
    if scale.len() != group.channels {
        let (expected, found) = (group.channels, scale.len());
        return Err(ModelError::ScaleCount { layer: group.name.clone(), expected, found });
    }
    for entry in group.readers.iter().map(|reader| &reader.entry) {
        let scaled = scaled(weights.get(&entry.tensor)?, entry, scale);
        let scaled = scaled.context(|| format!("scaling of tensor {:?}", entry.tensor))?;
        weights.insert(entry.tensor.clone(), scaled);
    }
    Ok(())
}

/// `weight` with the indices of channel *j* along the entry's axis multiplied by `scale[j]`; the products are taken in float64
/// and rounded once.
fn scaled(weight: &Tensor, entry: &Entry, scale: &[f64]) -> Result<Tensor, TchError> {
    let along = weight.size().get(entry.axis).map_or(0, |&size| size as usize);
    let mut factors = vec![1.0; along];
    for (channel, &scale) in scale.iter().enumerate() {
        for index in entry.indices(&[channel]) {
            // More factors than a weight of another net has indices make the product fail.
            factors.resize(factors.len().max(index + 1), 1.0);
            factors[index] = scale;
        }
    }
    let shape: Vec<i64> = (0..weight.dim()).map(|axis| if axis == entry.axis { -1 } else { 1 }).collect();
    let factors = Tensor::f_from_slice(&factors)?.f_to_device(weight.device())?.f_view(shape.as_slice())?;
    weight.f_detach()?.f_to_kind(Kind::Double)?.f_mul(&factors)?.f_to_kind(Kind::Float)
}
