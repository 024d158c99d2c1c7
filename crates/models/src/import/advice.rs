//! Suggests the key of a spec that makes a file fit.

use std::collections::BTreeMap;

use thinet_graph::{Graph, Op};

use super::prefix::FileTensor;
use crate::weights::{TensorKind, layer_of};
use crate::{Layout, ModelError, names};

/// For a tensor of another element type or shape.
pub(super) fn for_mismatch(
    graph: &Graph,
    tensor: &str,
    expected: &TensorKind,
    found: &TensorKind,
) -> Option<String> {
    if expected.shape == found.shape {
        let known = ["f32", "f16", "bf16", "f64"].contains(&found.dtype.as_str());
        return known.then(|| format!("dense.import.dtype = {:?} takes weights of this type", found.dtype));
    }
    let layer = layer_of(tensor);
    let last = graph.nodes().iter().rev().find(|node| matches!(node.op, Op::Linear { .. }))?;
    let ([classes, expected @ ..], [other, found @ ..]) = (&expected.shape[..], &found.shape[..]) else {
        return None;
    };
    let is_classes = last.name == layer && *classes == graph.classes() && expected == found;
    is_classes.then(|| {
        format!(
            "the file is for {other} classes, the net for {classes}: dense.import.fresh = [{layer:?}] starts this layer at \
             random, [dense.train] trains it"
        )
    })
}

/// For an unknown name: the prefix under which the file has most of the net's names.
pub(super) fn for_prefix(
    graph: &Graph,
    names: &[FileTensor],
    removed_prefix: Option<&str>,
) -> Option<String> {
    let tensors = graph.tensors();
    let mut found: BTreeMap<&str, usize> = BTreeMap::new();
    for layout in [Layout::Own, Layout::Torchvision, Layout::Timm] {
        let theirs = names::layers(graph, layout);
        let mut here: BTreeMap<&str, usize> = BTreeMap::new();
        for tensor in &tensors {
            let (layer, part) = tensor.name.rsplit_once('.')?;
            let name = format!(".{}.{part}", theirs.get(layer).map_or(layer, String::as_str));
            for other in names.iter().filter_map(|other| other.name.strip_suffix(name.as_str())) {
                *here.entry(other).or_default() += 1;
            }
        }
        for (prefix, count) in here {
            let most = found.entry(prefix).or_default();
            *most = count.max(*most);
        }
    }
    let (prefix, count) = found.into_iter().max_by_key(|&(_, count)| count)?;
    let whole = format!("{}{prefix}.", removed_prefix.unwrap_or_default());
    (2 * count >= tensors.len())
        .then(|| format!("dense.import.prefix = {whole:?} takes the names that begin so"))
}

/// The error, with the advice if there is one.
pub(super) fn with(error: ModelError, advice: Option<String>) -> ModelError {
    match advice {
        Some(advice) => ModelError::WithAdvice { source: Box::new(error), advice },
        None => error,
    }
}
