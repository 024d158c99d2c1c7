//! Names of these nets' tensors in other libraries, and the two shapes in which they store a linear layer.

use std::collections::BTreeMap;

use thinet_graph::{Graph, Op};

use crate::Layout;

/// timm's linear layers of VGG, in order; the first two are convolutions there.
const TIMM_LINEAR: [&str; 3] = ["pre_logits.fc1", "pre_logits.fc2", "head.fc"];

/// The name of each layer in another layout: `features.0` for `conv1_1`. Layers with the same name are not listed:
/// ResNets have torchvision's names throughout.
pub(crate) fn layers(graph: &Graph, layout: Layout) -> BTreeMap<String, String> {
    let mut names = BTreeMap::new();
    if layout == Layout::Own || !is_vgg(graph) {
        return names;
    }
    // torchvision and timm number every node of the features, and torchvision every node of the classifier.
    let (mut feature, mut in_classifier, mut linear) = (0, 0, 0);
    for node in graph.nodes() {
        match node.op {
            Op::Conv { .. } | Op::BatchNorm { .. } => {
                names.insert(node.name.clone(), format!("features.{feature}"));
                feature += 1;
            }
            Op::MaxPool { .. } => feature += 1,
            Op::Relu {} | Op::Dropout { .. } if linear > 0 => in_classifier += 1,
            Op::Relu {} => feature += 1,
            Op::Linear { .. } => {
                let name = match layout {
                    Layout::Timm => TIMM_LINEAR.get(linear).map(|name| (*name).to_owned()),
                    _ => Some(format!("classifier.{in_classifier}")),
                };
                names.extend(name.map(|name| (node.name.clone(), name)));
                in_classifier += 1;
                linear += 1;
            }
            _ => {}
        }
    }
    names
}

/// Whether the graph is a VGG: a chain that starts with `conv1_1`.
pub(crate) fn is_vgg(graph: &Graph) -> bool {
    graph.find("conv1_1").is_some()
}

/// Whether the graph is a ResNet-50 and where it strides: `Some(true)` in the first 1×1 convolution.
pub(crate) fn strides_first(graph: &Graph) -> Option<bool> {
    let stride = |name: &str| match graph.nodes()[graph.find(name)?].op {
        Op::Conv { stride, kernel, .. } => Some((stride, kernel)),
        _ => None,
    };
    // Bottlenecks alone have a third convolution.
    graph.find("layer2.0.conv3")?;
    Some(stride("layer2.0.conv1")?.0 == 2)
}

/// The shape `[out, channels, k, k]` in which timm stores the linear layer of this name; `None` if it stores it as ours.
pub(crate) fn timm_shape(graph: &Graph, layer: &str) -> Option<[usize; 4]> {
    if !is_vgg(graph) {
        return None;
    }
    let linears = graph.nodes().iter().filter(|node| matches!(node.op, Op::Linear { .. }));
    let position = linears.map(|node| node.name.as_str()).position(|name| name == layer)?;
    let Op::Linear { in_features, out_features } = graph.nodes()[graph.find(layer)?].op else { return None };
    match position {
        0 => {
            let last = graph.nodes().iter().rev().find_map(|node| match node.op {
                Op::Conv { out_channels, .. } => Some(out_channels),
                _ => None,
            })?;
            let places = in_features / last;
            let side = places.isqrt();
            (side * side == places).then_some([out_features, last, side, side])
        }
        1 => Some([out_features, in_features, 1, 1]),
        _ => None,
    }
}
