//! Groups of channels as `count --groups` and `plan` show them.

use serde::Serialize;
use thinet_graph::{ChannelGroup, Graph, NodeId, channel_groups, prunable_layers};

/// A group of channels.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct GroupLine {
    pub(crate) name: String,
    pub(crate) channels: usize,
    /// The layers that compute the channels.
    pub(crate) producers: Vec<String>,
    /// The layers that read them.
    pub(crate) readers: Vec<String>,
    /// Whether `layers = "all"` prunes it: a convolution that one layer alone reads.
    pub(crate) in_all: bool,
}

/// All groups of a network that can be pruned.
pub(crate) fn group_lines(graph: &Graph) -> Vec<GroupLine> {
    let all = prunable_layers(graph);
    let name = |node: NodeId| graph.nodes()[node].name.clone();
    let line = |group: ChannelGroup| GroupLine {
        producers: group.producers.iter().map(|producer| name(producer.node)).collect(),
        readers: group.readers.iter().map(|reader| name(reader.node)).collect(),
        in_all: all.contains(&group),
        channels: group.channels,
        name: group.name,
    };
    channel_groups(graph).into_iter().map(line).collect()
}

/// The groups among `layers` that are more than a convolution that one layer reads, in the order of the network.
pub(crate) fn larger_groups(graph: &Graph, layers: &[&String]) -> Vec<GroupLine> {
    let mut lines = group_lines(graph);
    lines.retain(|line| !line.in_all && layers.contains(&&line.name));
    lines
}
