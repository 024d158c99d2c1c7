//! Nets without branches, for comparing gradients.
//!
//! A rectifier or a maximum pool that switches by a rounding moves the gradients of all layers before it by up to a hundredth, however
//! exactly they are computed. Without them the gradient is a smooth function of images and weights, and two devices agree to their
//! roundings in every layer.

use anyhow::Result;
use thinet_graph::{Graph, Node, NodeId, Op};

/// The net with the mean in place of each maximum, and without rectifiers. It has the same tensors; a padded pool becomes one whose window
/// is its stride.
pub(crate) fn smooth(graph: &Graph) -> Result<Graph> {
    let mut nodes: Vec<Node> = Vec::new();
    // The new place of each node; of a rectifier, that of its input.
    let mut places: Vec<NodeId> = Vec::new();
    for node in graph.nodes() {
        let inputs: Vec<NodeId> = node.inputs.iter().map(|input| places[*input]).collect();
        let op = match node.op {
            Op::Relu {} => {
                places.push(inputs[0]);
                continue;
            }
            Op::MaxPool { padding: 0, kernel, stride } => Op::AvgPool { kernel, stride },
            Op::MaxPool { stride, .. } => Op::AvgPool { kernel: stride, stride },
            ref op => op.clone(),
        };
        places.push(nodes.len());
        nodes.push(Node { name: node.name.clone(), op, inputs });
    }
    Ok(Graph::new(graph.name(), nodes)?)
}

#[cfg(test)]
mod tests {
    use tch::Device;
    use thinet_bench::relative_difference;
    use thinet_models::{Mode, Precision, loss_and_gradients};
    use thinet_nets::{ResNetStride, paper_models};

    use super::*;
    use crate::input::{images, labels, net, noisy, weights};

    #[test]
    fn the_papers_nets_keep_their_tensors_and_classes() {
        for model in paper_models(ResNetStride::First1x1).unwrap() {
            let graph = model.build().unwrap();
            let smooth = smooth(&graph).unwrap();
            let named = |graph: &Graph| -> Vec<_> {
                graph.tensors().into_iter().map(|tensor| (tensor.name, tensor.shape)).collect()
            };
            assert_eq!(named(&smooth), named(&graph), "{}", model.name);
            assert_eq!(smooth.classes(), graph.classes(), "{}", model.name);
            assert!(smooth.nodes().iter().all(|node| !matches!(node.op, Op::Relu {} | Op::MaxPool { .. })));
        }
    }

    /// They move by 4.5e-6 at most; with the net's rectifiers and maxima by 1.3e-3.
    #[test]
    fn gradients_of_all_layers_move_by_roundings_alone() {
        let name = "cifar-vgg16";
        let graph = smooth(&net(name).unwrap()).unwrap();
        let (weights, images, labels) = (weights(&graph).unwrap(), images(name, 2), labels(name, 2));
        let names: Vec<String> =
            graph.tensors().into_iter().filter(|t| t.trainable).map(|t| t.name).collect();
        let gradients = |images: &tch::Tensor| {
            let images = images.to_device(Device::Cpu);
            let all = names.iter().map(String::as_str);
            loss_and_gradients(&graph, &weights, all, &images, &labels, Mode::Eval, Precision::F32).unwrap().1
        };
        let first = gradients(&images);
        for (other, format) in noisy(&images) {
            for (name, (a, b)) in
                names.iter().zip(gradients(&format.apply(&other).unwrap()).iter().zip(&first))
            {
                let difference = relative_difference(a, b);
                assert!(difference < 2e-5, "{name}: {difference:e}");
            }
        }
    }
}
