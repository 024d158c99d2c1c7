//! Helpers for nets: a calibration pass over a batch, plain SGD, the difference of two tensors.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use tch::Tensor;
use thinet_graph::{Graph, NodeId};
use thinet_models::{Mode, SgdOptions, Weights, forward_taps};
use thinet_sampling::EvidenceCollector;

/// Passes a batch to the collector as the images `indices`; also calls `seen` with every observed node.
///
/// # Errors
/// The first error of the forward pass or of the collector.
pub fn observe_batch(
    collector: &mut EvidenceCollector,
    graph: &Graph,
    weights: &Weights,
    images: &Tensor,
    indices: &[usize],
    seen: &mut dyn FnMut(NodeId),
) -> Result<()> {
    let taps: BTreeSet<NodeId> = collector.taps();
    let mut failure = None;
    let _guard = tch::no_grad_guard();
    forward_taps(graph, weights, images, Mode::Eval, &taps, &mut |node, output| {
        seen(node);
        if failure.is_none() {
            failure = collector.observe(node, output, indices).err();
        }
    })?;
    failure.map_or(Ok(()), |error| Err(error.into()))
}

/// SGD with the same momentum 0.9 and weight decay 5e-4 for every tensor, as in the paper's recipes.
#[must_use]
pub fn plain_sgd() -> SgdOptions {
    SgdOptions {
        momentum: 0.9,
        nesterov: false,
        weight_decay: 5e-4,
        bias_lr: 1.0,
        bias_decay: 1.0,
        layer_lr: BTreeMap::new(),
        layer_decay: BTreeMap::new(),
    }
}

/// The largest difference of two tensors, relative to the largest value of the second.
#[must_use]
pub fn relative_difference(a: &Tensor, b: &Tensor) -> f64 {
    let largest = |tensor: &Tensor| tensor.abs().max().double_value(&[]);
    largest(&(a - b)) / largest(b).max(f64::MIN_POSITIVE)
}
