//! Applies a surgery plan to weights, the rescaling of what the next layer reads (Luo et al. 2017, eq. 7), and other weights for it.

use tch::{Kind, TchError, Tensor};
use thinet_graph::{ChannelGroup, ChannelSet, Entry, Reader, Surgery};

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

/// The weights of a reader, filter by filter: `[D, C·taps]`, the taps of a channel side by side.
///
/// # Errors
/// If its weight is missing or has no filters.
pub fn read_weights(weights: &Weights, reader: &Reader) -> Result<Vec<f64>, ModelError> {
    let tensor = &reader.entry.tensor;
    let weight = weights.get(tensor)?;
    let values = || -> Result<Vec<f64>, TchError> {
        Vec::<f64>::try_from(weight.f_detach()?.f_to_kind(Kind::Double)?.f_contiguous()?.f_view(-1_i64)?)
    };
    values().context(|| format!("reading of tensor {tensor:?}"))
}

/// Gives a reader other weights for the `kept` channels: `values: [D, |S|·taps]`, rounded once. `kept` is of the net as it is now; the
/// weights of the other channels stay.
///
/// # Errors
/// If the number of values does not fit, or the reader's weight is missing or of another net.
pub fn set_read_weights(
    weights: &mut Weights,
    reader: &Reader,
    kept: &ChannelSet,
    values: &[f64],
) -> Result<(), ModelError> {
    let tensor = &reader.entry.tensor;
    let old = weights.get(tensor)?;
    let (shape, device) = (old.size(), old.device());
    let mut all = read_weights(weights, reader)?;
    let filters = usize::try_from(shape.first().copied().unwrap_or(0)).unwrap_or(0).max(1);
    let (length, part) = (all.len() / filters, values.len() / filters);
    let taps = length / kept.width();
    if taps * kept.width() != length || part != kept.len() * taps || part * filters != values.len() {
        return Err(ModelError::ReadWeights {
            tensor: tensor.clone(),
            expected: filters * kept.len() * taps,
            found: values.len(),
        });
    }
    for (filter, values) in all.chunks_exact_mut(length).zip(values.chunks_exact(part)) {
        for (&channel, values) in kept.kept().iter().zip(values.chunks_exact(taps)) {
            filter[channel * taps..][..taps].copy_from_slice(values);
        }
    }
    let changed = Tensor::f_from_slice(&all)
        .and_then(|all| all.f_view(shape.as_slice())?.f_to_kind(Kind::Float)?.f_to_device(device))
        .context(|| format!("new weights of tensor {tensor:?}"))?;
    weights.insert(tensor.clone(), changed);
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
