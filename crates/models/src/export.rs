//! Weight files for other programs, under the names of torchvision or timm.

use std::path::Path;

use tch::{Kind, Tensor};
use thinet_graph::Op;

use crate::error::Context;
use crate::file::{GRAPH, LAYOUT, Metadata, bad_file};
use crate::weights::layer_of;
use crate::{Layout, ModelError, Net, names, save_tensors};

/// The metadata entry with the layers' names in the file.
const NAMES: &str = "names";

/// Writes a net as safetensors under the names of a layout; PyTorch loads it with `load_file` into an ordinary module
/// of those widths. The metadata holds the graph, and under `names` as JSON which layer of the graph has which name in
/// the file where they differ: `scripts/load_exported.py` builds the module from the two. Convolutions in front of a
/// batch normalisation, which have no bias here, get one of zeros where the other library's VGG has one; the counters
/// `num_batches_tracked`, which no computation uses, are left out.
///
/// # Errors
/// If the weights do not fit the graph, the layout has another stride convention than the net, or the file cannot be
/// written.
pub fn export_weights(path: &Path, net: &Net, layout: Layout, metadata: &Metadata) -> Result<(), ModelError> {
    net.weights.check(&net.graph)?;
    match (names::strides_first(&net.graph), layout) {
        (Some(true), Layout::Torchvision | Layout::Timm) => {
            let problem = "the net strides in the first 1x1 convolution, torchvision's and timm's in the 3x3: they would \
                           load it and be wrong; use the layout caffe or own";
            return Err(bad_file(path, problem));
        }
        (Some(false), Layout::Caffe) => {
            return Err(bad_file(path, "the net strides in the 3x3 convolution, Caffe's in the first 1x1"));
        }
        _ => {}
    }
    let theirs = names::layers(&net.graph, layout);
    let mut tensors: Vec<(String, Tensor)> = Vec::new();
    for (name, tensor) in net.weights.iter() {
        let (layer, part) = (layer_of(name), name.rsplit_once('.').map_or(name, |(_, part)| part));
        let named = theirs.get(layer).map_or_else(|| name.to_owned(), |other| format!("{other}.{part}"));
        let shape = if layout == Layout::Timm && part == "weight" {
            names::timm_shape(&net.graph, layer)
        } else {
            None
        };
        let tensor = match shape {
            Some(shape) => {
                tensor.f_reshape(shape.map(|n| n as i64)).context(|| format!("tensor {name:?}"))?
            }
            None => tensor.shallow_clone(),
        };
        tensors.push((named, tensor));
    }
    for node in net.graph.nodes() {
        if let (Op::Conv { bias: false, out_channels, .. }, Some(other)) = (&node.op, theirs.get(&node.name))
        {
            let device = net.weights.get(&format!("{}.weight", node.name))?.device();
            let zeros = Tensor::f_zeros([*out_channels as i64], (Kind::Float, device))
                .context(|| format!("bias of {:?}", node.name))?;
            tensors.push((format!("{other}.bias"), zeros));
        }
    }
    let graph = serde_json::to_string(&net.graph).map_err(|e| bad_file(path, e.to_string()))?;
    let mut metadata = metadata.clone();
    metadata.insert(GRAPH.to_owned(), graph);
    metadata.insert("format".to_owned(), "pt".to_owned());
    metadata.insert(LAYOUT.to_owned(), layout.name().to_owned());
    metadata
        .insert(NAMES.to_owned(), serde_json::to_string(&theirs).map_err(|e| bad_file(path, e.to_string()))?);
    save_tensors(path, &tensors, &metadata)
}

impl Layout {
    /// The name used in specs and on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Own => "own",
            Self::Torchvision => "torchvision",
            Self::Timm => "timm",
            Self::Caffe => "caffe",
        }
    }
}
