//! Surgery plans: which indices of which tensors stay when a channel group loses channels (Luo et al. 2017, section 3.1).
//!
//! Only the producers' filters and what belongs to them, and the readers' input channels, change shape.

use std::collections::BTreeMap;

use crate::graph::{Graph, Op};
use crate::group::{ChannelGroup, Entry, channel_group};
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

/// The effect of removing channels on a network. A tensor without a cut is unchanged.
#[derive(Clone, Debug, PartialEq)]
pub struct Surgery {
    /// The same network with the narrower widths.
    pub graph: Graph,
    /// The cuts, in the order of [`Graph::tensors`]; at most one per axis of a tensor. A layer that reads and produces the same
    /// group is cut along both axes.
    pub cuts: Vec<Cut>,
}

/// Plans the removal of all channels of the group `name` that are not in `keep`; touches no tensor.
///
/// # Errors
/// If the group cannot be pruned (see [`channel_group`]) or `keep` was made for another width.
pub fn plan_surgery(graph: &Graph, name: &str, keep: &ChannelSet) -> Result<Surgery, GraphError> {
    let group = channel_group(graph, name)?;
    group.check(keep)?;
    Ok(Surgery { graph: narrowed(graph, &group, keep.len())?, cuts: cuts(graph, &group, keep) })
}

/// The graph with `kept` channels in the group `name`: the widths that a cut leaves, whichever channels it keeps.
///
/// # Errors
/// As [`plan_surgery`], and if `kept` is 0 or more than the group has.
pub fn with_channels(graph: &Graph, name: &str, kept: usize) -> Result<Graph, GraphError> {
    let group = channel_group(graph, name)?;
    let first = ChannelSet::new(group.channels, (0..kept).collect())?;
    narrowed(graph, &group, first.len())
}

/// A cut for every entry of the group.
fn cuts(graph: &Graph, group: &ChannelGroup, keep: &ChannelSet) -> Vec<Cut> {
    let place: BTreeMap<String, usize> = graph.tensors().into_iter().map(|t| t.name).zip(0..).collect();
    let mut entries: Vec<&Entry> = group.entries().collect();
    entries.sort_by_key(|entry| (place.get(&entry.tensor), entry.axis));
    let cut = |entry: &Entry| Cut {
        tensor: entry.tensor.clone(),
        axis: entry.axis,
        indices: entry.indices(keep.kept()),
    };
    entries.into_iter().map(cut).collect()
}

/// The graph with `kept` channels in the group.
fn narrowed(graph: &Graph, group: &ChannelGroup, kept: usize) -> Result<Graph, GraphError> {
    let mut nodes = graph.nodes().to_vec();
    // Every node with tensors has a weight, whose axes are its widths.
    for entry in group.entries().filter(|entry| entry.tensor.ends_with(".weight")) {
        let width = match (&mut nodes[entry.node].op, entry.axis) {
            (Op::Conv { out_channels: width, .. }, 0)
            | (Op::Conv { in_channels: width, .. }, 1)
            | (Op::Linear { out_features: width, .. }, 0)
            | (Op::Linear { in_features: width, .. }, 1)
            | (Op::BatchNorm { channels: width, .. }, 0) => width,
            _ => continue,
        };
        *width -= entry.block * (group.channels - kept);
    }
    Graph::new(graph.name(), nodes)
}

#[cfg(test)]
mod plain_forward;
#[cfg(test)]
mod tests;
