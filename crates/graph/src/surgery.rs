//! Surgery plans: which indices of which tensors stay when a layer loses filters (Luo et al. 2017, section 3.1).
//!
//! Only layer *i*'s filters and what belongs to them, and layer *i+1*'s input channels, change shape.

use crate::graph::{Graph, Op};
use crate::prunable::{PrunableLayer, prunable_layer};
use crate::{ChannelSet, GraphError};

/// One tensor that gets smaller: `tensor = tensor.index_select(axis, indices)`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    /// Name of the tensor, as in [`Graph::tensors`].
    pub tensor: String,
    /// The axis that is indexed.
    pub axis: usize,
    /// Indices that stay along this axis, strictly ascending.
    pub indices: Vec<usize>,
}

/// The effect of removing filters on a network. A tensor without a cut is unchanged.
#[derive(Clone, Debug, PartialEq)]
pub struct Surgery {
    /// The same network with the narrower widths.
    pub graph: Graph,
    /// The cuts, in the order of [`Graph::tensors`]; at most one per tensor.
    pub cuts: Vec<Cut>,
}

/// Plans the removal of all filters of `layer` that are not in `keep`; touches no tensor.
///
/// # Errors
/// If the layer cannot be pruned (see [`prunable_layer`]) or `keep` was made for another width.
pub fn plan_surgery(graph: &Graph, layer: &str, keep: &ChannelSet) -> Result<Surgery, GraphError> {
    let layer = prunable_layer(graph, layer)?;
    layer.check(keep)?;
    Ok(Surgery { graph: narrowed(graph, &layer, keep.len())?, cuts: cuts(graph, &layer, keep) })
}

/// Every tensor of the convolution and of the batch norms behind it along axis 0, the consumer's weight along axis 1.
fn cuts(graph: &Graph, layer: &PrunableLayer, keep: &ChannelSet) -> Vec<Cut> {
    let cut_axis = |node, rank| {
        if node == layer.conv || layer.batch_norms.contains(&node) {
            Some(0)
        } else {
            // The consumer's bias (rank 1) belongs to its outputs.
            (node == layer.consumer && rank > 1).then_some(1)
        }
    };
    let cut = |(tensor, axis, size): (String, usize, usize)| {
        // Behind a flatten each channel owns a block of consecutive entries.
        let block = size / layer.channels;
        let indices =
            keep.kept().iter().flat_map(|&channel| channel * block..(channel + 1) * block).collect();
        Cut { tensor, axis, indices }
    };
    let touched = graph.tensors().into_iter().filter_map(|tensor| {
        let axis = cut_axis(tensor.node, tensor.shape.len())?;
        Some((tensor.name, axis, tensor.shape[axis]))
    });
    touched.map(cut).collect()
}

/// The graph with `kept` filters in the layer.
fn narrowed(graph: &Graph, layer: &PrunableLayer, kept: usize) -> Result<Graph, GraphError> {
    let narrow = |width: &mut usize| *width = *width / layer.channels * kept;
    let mut nodes = graph.nodes().to_vec();
    for (id, node) in nodes.iter_mut().enumerate() {
        match &mut node.op {
            Op::Conv { out_channels, .. } if id == layer.conv => narrow(out_channels),
            Op::Conv { in_channels, .. } if id == layer.consumer => narrow(in_channels),
            Op::Linear { in_features, .. } if id == layer.consumer => narrow(in_features),
            Op::BatchNorm { channels, .. } if layer.batch_norms.contains(&id) => narrow(channels),
            _ => {}
        }
    }
    Graph::new(graph.name(), nodes)
}

#[cfg(test)]
mod plain_forward;
#[cfg(test)]
mod tests;
