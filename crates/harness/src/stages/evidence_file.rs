//! Evidence of any kind as a safetensors file for other programs: the tensors of stored evidence, and those read from the net.

use std::collections::BTreeMap;
use std::path::Path;

use tch::Tensor;
use thinet_models::save_tensors;
use thinet_sampling::gathered;
use thinet_selectors::{Evidence, Needs};

use crate::error::HarnessError;

/// Filter weights `[C, n]`, 32-bit floats.
const FILTERS: &str = "filters";
/// Batch-norm scales `[C]`, 32-bit floats.
const BATCH_NORM_SCALES: &str = "batch-norm-scales";

/// Writes tensors of evidence. The write is atomic.
///
/// # Errors
/// If the file cannot be written.
pub(crate) fn save(
    path: &Path,
    tensors: &[(String, Tensor)],
    metadata: &BTreeMap<String, String>,
) -> Result<(), HarnessError> {
    Ok(save_tensors(path, tensors, metadata)?)
}

/// The gathered kinds among `needs`, and all evidence that was read from the net, as tensors named `<layer>.<tensor>`.
///
/// # Errors
/// If libtorch fails.
pub(crate) fn tensors(evidence: &[Evidence], needs: Needs) -> Result<Vec<(String, Tensor)>, HarnessError> {
    let mut tensors = gathered_tensors(evidence, needs)?;
    for layer in evidence {
        let name = |tensor: &str| format!("{}.{tensor}", layer.layer);
        if let Some(filters) = &layer.filters {
            let shape = [filters.channels as i64, filters.len as i64];
            tensors.push((name(FILTERS), Tensor::f_from_slice(&filters.values)?.f_view(shape)?));
        }
        if let Some(scales) = &layer.batch_norm_scales {
            tensors.push((name(BATCH_NORM_SCALES), Tensor::f_from_slice(&scales.scales)?));
        }
    }
    Ok(tensors)
}

/// The gathered kinds among `needs` as named tensors.
pub(crate) fn gathered_tensors(
    evidence: &[Evidence],
    needs: Needs,
) -> Result<Vec<(String, Tensor)>, HarnessError> {
    let mut tensors = Vec::new();
    for layer in evidence {
        for kind in gathered(needs) {
            let of_kind = kind.to_tensors(layer)?.into_iter();
            tensors.extend(of_kind.map(|(name, tensor)| (format!("{}.{name}", layer.layer), tensor)));
        }
    }
    Ok(tensors)
}
