//! Gradients of the loss by activations: a pass forward and back in inference mode.

use std::collections::BTreeSet;

use tch::{Reduction, Tensor, with_grad};
use thinet_graph::{Graph, NodeId};

use crate::error::Context;
use crate::{Mode, ModelError, Weights, forward_taps};

/// Bytes of activations that a part of a batch may hold for its backward pass: 9 images of VGG-16 at 224×224, a batch of small nets.
const ACTIVATION_BYTES: usize = 1 << 30;
/// Bytes of a 32-bit float.
const BYTES: usize = 4;

/// Outputs of a node for a part of a batch, and the gradients of the loss by them.
#[derive(Debug)]
pub struct OutputGradient {
    pub node: NodeId,
    /// The position in the batch of the part's first image.
    pub first: usize,
    /// `[n, C, h, w]`, or `[n, features]` after a flatten; tracks no gradients.
    pub output: Tensor,
    /// The gradient of each image's own loss, of the output's shape.
    pub gradient: Tensor,
}

/// Calls `observe` with the outputs of the nodes `taps` and the gradients of the cross-entropy of each image by them; node by node, for one
/// part of the batch after the other.
///
/// Batch norm uses its running statistics and dropout drops nothing ([`Mode::Eval`]), so that the loss of an image does not depend on the
/// others of its batch, and a gradient of the sum of the losses is that of each image's own. All is computed in 32-bit floats.
/// A part has so many images that their activations fit into a gibibyte, which depends on the graph alone. Weights are
/// neither changed nor tracked.
///
/// # Errors
/// As [`forward_taps`], or if `labels` `[n]` (64-bit integers on the device of the images) do not fit.
pub fn output_gradients(
    graph: &Graph,
    weights: &Weights,
    images: &Tensor,
    labels: &Tensor,
    taps: &BTreeSet<NodeId>,
    observe: &mut dyn FnMut(OutputGradient),
) -> Result<(), ModelError> {
    let context = || "parts of a batch".to_owned();
    let images = images.f_split(images_at_a_time(graph) as i64, 0).context(context)?;
    let labels = labels.f_split(images_at_a_time(graph) as i64, 0).context(context)?;
    let mut first = 0;
    for (images, labels) in images.iter().zip(&labels) {
        for (node, output, gradient) in of_part(graph, weights, images, labels, taps)? {
            observe(OutputGradient { node, first, output, gradient });
        }
        first += images.size()[0] as usize;
    }
    Ok(())
}

/// Images whose activations are held at a time, at least 1.
fn images_at_a_time(graph: &Graph) -> usize {
    let values = |node: NodeId| graph.shape(node).channels() * graph.shape(node).positions();
    let of_image: usize = (0..graph.nodes().len()).map(values).sum();
    (ACTIVATION_BYTES / (BYTES * of_image).max(1)).max(1)
}

/// The outputs of `taps`, in order, and the gradients of the sum of the images' losses by them.
fn of_part(
    graph: &Graph,
    weights: &Weights,
    images: &Tensor,
    labels: &Tensor,
    taps: &BTreeSet<NodeId>,
) -> Result<Vec<(NodeId, Tensor, Tensor)>, ModelError> {
    let last = graph.nodes().len() - 1;
    let mut observed = taps.clone();
    observed.insert(last);
    let (mut nodes, mut outputs, mut logits) = (Vec::new(), Vec::new(), Tensor::new());
    let gradients = with_grad(|| {
        let mut failure = Ok(());
        forward_taps(graph, weights, images, Mode::Eval, &observed, &mut |node, output| {
            if taps.contains(&node) {
                // No weight is tracked: what libtorch records begins at the first tap.
                if failure.is_ok() && !output.requires_grad() {
                    failure = output.f_set_requires_grad(true).map(drop);
                }
                nodes.push(node);
                outputs.push(output.shallow_clone());
            }
            if node == last {
                logits = output.shallow_clone();
            }
        })?;
        failure.context(|| "gradient tracking".to_owned())?;
        let loss = logits
            .f_cross_entropy_loss::<Tensor>(labels, None, Reduction::Sum, -100, 0.0)
            .context(|| "cross-entropy".to_owned())?;
        Tensor::f_run_backward(&[&loss], &outputs, false, false)
            .context(|| "gradients of the loss by activations".to_owned())
    })?;
    let detached = |((node, output), gradient): ((NodeId, Tensor), Tensor)| {
        let output = output.f_detach().context(|| "activations".to_owned())?;
        Ok((node, output, gradient))
    };
    nodes.into_iter().zip(outputs).zip(gradients).map(detached).collect()
}

#[cfg(test)]
mod tests {
    use thinet_nets::{Arch, NetSpec};

    use super::*;

    #[test]
    fn photographs_go_a_few_at_a_time_and_small_images_in_whole_batches() {
        let parts = |arch, width, side| {
            let spec = NetSpec { width, ..NetSpec::new(arch) };
            images_at_a_time(&spec.build([3, side, side], 10).unwrap())
        };
        assert_eq!(parts(Arch::Vgg16, 1.0, 224), 9);
        assert!(parts(Arch::CifarVgg16, 1.0, 32) >= 250);
        // One image that is too large by itself still goes alone.
        assert_eq!(parts(Arch::Vgg16Gap, 1.0, 4096), 1);
    }
}
