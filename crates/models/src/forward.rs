//! Runs a graph with libtorch, node by node, and drops activations after their last use.

use std::collections::BTreeSet;

use tch::{Kind, Tensor};
use thinet_graph::{Graph, NodeId, Op};

use crate::error::Context;
use crate::weights::TensorKind;
use crate::{ModelError, Weights};

/// Whether batch normalisation uses and updates batch statistics, and dropout drops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Batch statistics, which also update the running ones in place; dropout from libtorch's generator.
    Train,
    /// Running statistics, no dropout.
    Eval,
    /// Batch statistics, no dropout; the running statistics become the mean over all images so far, of which `seen` came in
    /// earlier batches. See [`BatchNormEstimate`](crate::BatchNormEstimate).
    Estimate {
        /// Images of earlier batches.
        seen: usize,
    },
}

/// Logits `[n, classes]` of `images` `[n, c, h, w]` (32-bit floats on the weights' device).
///
/// # Errors
/// If the images do not fit the graph's input, a tensor is missing or does not fit, or libtorch fails.
pub fn forward(graph: &Graph, weights: &Weights, images: &Tensor, mode: Mode) -> Result<Tensor, ModelError> {
    let logits = graph.nodes().len() - 1;
    let mut output = Tensor::new();
    Run::new(graph, weights, mode, &BTreeSet::from([logits]))
        .run(images, &mut |_, tensor| output = tensor.shallow_clone())?;
    Ok(output)
}

/// Calls `observe` with the outputs of the nodes `taps`, in order, and computes nothing that they do not need.
///
/// Observed tensors may be kept: no later node writes into them. Outputs that are not tapped are overwritten where
/// possible, so that observing adds no memory traffic.
///
/// # Errors
/// As [`forward`], or if there is no such node.
pub fn forward_taps(
    graph: &Graph,
    weights: &Weights,
    images: &Tensor,
    mode: Mode,
    taps: &BTreeSet<NodeId>,
    observe: &mut dyn FnMut(NodeId, &Tensor),
) -> Result<(), ModelError> {
    let Some(&last) = taps.last() else { return Ok(()) };
    if last >= graph.nodes().len() {
        return Err(ModelError::UnknownName {
            what: "node",
            name: last.to_string(),
            allowed: format!("0 to {} in {}", graph.nodes().len() - 1, graph.name()),
        });
    }
    Run::new(graph, weights, mode, taps).run(images, observe)
}

/// One execution of a graph.
struct Run<'a> {
    graph: &'a Graph,
    weights: &'a Weights,
    mode: Mode,
    taps: &'a BTreeSet<NodeId>,
    /// How many inputs of needed nodes read this node; `None` for a node that no tap needs.
    readers: Vec<Option<usize>>,
}

impl<'a> Run<'a> {
    fn new(graph: &'a Graph, weights: &'a Weights, mode: Mode, taps: &'a BTreeSet<NodeId>) -> Self {
        let mut readers = vec![None; taps.last().map_or(0, |last| last + 1)];
        for id in (0..readers.len()).rev() {
            if taps.contains(&id) {
                readers[id].get_or_insert(0);
            }
            if readers[id].is_some() {
                for &input in &graph.nodes()[id].inputs {
                    *readers[input].get_or_insert(0) += 1;
                }
            }
        }
        Self { graph, weights, mode, taps, readers }
    }

    fn run(&self, images: &Tensor, observe: &mut dyn FnMut(NodeId, &Tensor)) -> Result<(), ModelError> {
        check_images(self.graph, images)?;
        let mut unread = self.readers.clone();
        let mut live: Vec<Option<Tensor>> = self.readers.iter().map(|_| None).collect();
        for id in (0..self.readers.len()).filter(|&id| self.readers[id].is_some()) {
            let inputs = self.take_inputs(id, &mut live, &mut unread);
            let output = self.compute(id, &inputs, images)?;
            if self.taps.contains(&id) {
                observe(id, &output);
            }
            if unread[id] > Some(0) {
                live[id] = Some(output);
            }
        }
        Ok(())
    }

    /// The inputs of a node; an activation that no later node reads is dropped.
    fn take_inputs(
        &self,
        id: NodeId,
        live: &mut [Option<Tensor>],
        unread: &mut [Option<usize>],
    ) -> Vec<Tensor> {
        let mut inputs = Vec::with_capacity(2);
        for &input in &self.graph.nodes()[id].inputs {
            inputs.extend(live[input].as_ref().map(Tensor::shallow_clone));
            unread[input] = unread[input].map(|n| n - 1);
            if unread[input] == Some(0) {
                live[input] = None;
            }
        }
        inputs
    }

    fn compute(&self, id: NodeId, inputs: &[Tensor], images: &Tensor) -> Result<Tensor, ModelError> {
        let node = &self.graph.nodes()[id];
        let parameter = |name: &str| self.weights.get(&format!("{}.{name}", node.name));
        let in_place = node.inputs.first().is_some_and(|&input| self.may_overwrite(input));
        let training = self.mode == Mode::Train;
        let uses_batch_statistics = self.mode != Mode::Eval;
        let square = |n: usize| [n as i64, n as i64];
        // The input node alone reads nothing; Graph::new has checked the number of inputs of the others.
        let x = inputs.first().unwrap_or(images);
        let output = match node.op {
            Op::Input { .. } => Ok(images.shallow_clone()),
            Op::Conv { stride, padding, bias, .. } => {
                let bias = if bias { Some(parameter("bias")?) } else { None };
                x.f_conv2d(parameter("weight")?, bias, square(stride), square(padding), [1, 1], 1)
            }
            Op::BatchNorm { eps, momentum, .. } => {
                if uses_batch_statistics && x.numel() as i64 == x.size().get(1).copied().unwrap_or(0) {
                    return Err(ModelError::BatchTooSmall { layer: node.name.clone() });
                }
                let (scale, shift) = (parameter("weight")?, parameter("bias")?);
                let (mean, var) = (parameter("running_mean")?, parameter("running_var")?);
                let momentum = match self.mode {
                    Mode::Estimate { seen } => {
                        let images = x.size()[0] as f64;
                        images / (seen as f64 + images)
                    }
                    Mode::Train | Mode::Eval => momentum,
                };
                let (mean, var) = (Some(mean), Some(var));
                x.f_batch_norm(
                    Some(scale),
                    Some(shift),
                    mean,
                    var,
                    uses_batch_statistics,
                    momentum,
                    eps,
                    true,
                )
            }
            Op::Relu {} if in_place => x.shallow_clone().f_relu_(),
            Op::Relu {} => x.f_relu(),
            Op::MaxPool { kernel, stride, padding } => {
                x.f_max_pool2d(square(kernel), square(stride), square(padding), [1, 1], false)
            }
            Op::AvgPool { kernel, stride } => {
                x.f_avg_pool2d(square(kernel), square(stride), [0, 0], false, true, None::<i64>)
            }
            Op::Flatten {} => x.f_flatten(1, -1),
            Op::Linear { .. } => x.f_linear(parameter("weight")?, Some(parameter("bias")?)),
            Op::Dropout { p } => x.f_dropout(p, training),
            Op::Add {} if in_place => x.shallow_clone().f_add_(&inputs[1]),
            Op::Add {} => x.f_add(&inputs[1]),
        };
        output.context(|| format!("layer {:?}", node.name))
    }

    /// Whether the only reader of a node's output may overwrite it: nothing else holds it, and the node's own gradient does
    /// not need it.
    fn may_overwrite(&self, id: NodeId) -> bool {
        let op = &self.graph.nodes()[id].op;
        self.readers[id] == Some(1)
            && !self.taps.contains(&id)
            && matches!(op, Op::Conv { .. } | Op::BatchNorm { .. } | Op::Linear { .. } | Op::Add {})
    }
}

fn check_images(graph: &Graph, images: &Tensor) -> Result<(), ModelError> {
    let [c, h, w] = graph.input_shape();
    let expected = [c, h, w].map(|n| n as i64);
    let size = images.size();
    if images.kind() == Kind::Float && size.len() == 4 && size[0] > 0 && size[1..] == expected {
        return Ok(());
    }
    Err(ModelError::Images {
        graph: graph.name().to_owned(),
        expected: format!("f32 [n, {c}, {h}, {w}] with n of 1 or more"),
        found: TensorKind::of(images).to_string(),
    })
}
