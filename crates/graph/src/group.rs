//! Channel groups: the axes of tensors that hold the same channels and can only lose them together.
//!
//! A convolution read by one layer is a group of two (Luo et al. 2017, section 3.1). An addition couples everything that
//! is added, so that a residual stage is one group with several producers and readers.

use crate::graph::{Graph, NodeId, Op};
use crate::names::nearest;
use crate::{ChannelSet, GraphError};

/// An axis of a tensor along which a group's channels lie: channel *j* owns the `block` indices from
/// `offset + j·block`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The node that the tensor belongs to.
    pub node: NodeId,
    /// Name of the tensor, as in [`Graph::tensors`].
    pub tensor: String,
    pub axis: usize,
    /// Index of channel 0; 0 in every network of today, as no operator lays the channels of several inputs behind each
    /// other.
    pub offset: usize,
    /// Indices of each channel: 1, or H·W behind a flatten.
    pub block: usize,
}

impl Entry {
    /// The indices of `channels` along the axis, in order.
    #[must_use]
    pub fn indices(&self, channels: &[usize]) -> Vec<usize> {
        let first = |channel: usize| self.offset + channel * self.block;
        channels.iter().flat_map(|&channel| first(channel)..first(channel) + self.block).collect()
    }
}

/// A convolution or linear layer whose filters compute a group's channels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Producer {
    pub node: NodeId,
    /// Its weight and, if it has one, its bias, along axis 0.
    pub entries: Vec<Entry>,
    /// The first batch norm behind it, before its output is added or read by several nodes.
    pub batch_norm: Option<NodeId>,
}

/// A convolution or linear layer that reads a group's channels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reader {
    pub node: NodeId,
    /// Its weight along axis 1.
    pub entry: Entry,
    /// The node whose output it reads: after ReLU, pooling and flatten, where they are.
    pub input: NodeId,
    /// Where its input's zeros are counted (APoZ): the first ReLU since a producer or an addition, else `input`. Viewed
    /// as `[n, channels, -1]` its output is split by channel, also after a flatten.
    pub activation: NodeId,
}

/// Channels that several tensors share: removing one means removing it from every entry.
///
/// Between producers and readers lie only nodes that treat channels apart, so that a removed channel affects the readers
/// alone: cutting it equals setting the readers' weights for it to zero.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChannelGroup {
    /// The producer's name; of a group with additions that of the first addition.
    pub name: String,
    pub channels: usize,
    /// What computes the channels, in node order; one without additions.
    pub producers: Vec<Producer>,
    /// The tensors of all batch norms between producers and readers.
    pub batch_norms: Vec<Entry>,
    /// What reads the channels, in node order.
    pub readers: Vec<Reader>,
}

impl ChannelGroup {
    /// Every axis that loses indices in a cut: of producers, batch norms and readers.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        let producers = self.producers.iter().flat_map(|producer| &producer.entries);
        producers.chain(&self.batch_norms).chain(self.readers.iter().map(|reader| &reader.entry))
    }

    /// Refuses a channel set made for a group of another width.
    ///
    /// # Errors
    /// If `keep` was not chosen among exactly this group's channels.
    pub fn check(&self, keep: &ChannelSet) -> Result<(), GraphError> {
        if keep.width() == self.channels {
            return Ok(());
        }
        Err(GraphError::KeepWidth { layer: self.name.clone(), channels: self.channels, width: keep.width() })
    }
}

/// Finds a group by its name.
///
/// # Errors
/// If no node has this name, or the node's channels cannot be removed: they are the image's or the network's outputs, or
/// no layer reads them. A node that belongs to a group of another name is refused with that name.
pub fn channel_group(graph: &Graph, name: &str) -> Result<ChannelGroup, GraphError> {
    let Some(node) = graph.find(name) else { return Err(unknown_group(graph, name)) };
    let couplings = Couplings::of(graph);
    let refuse = |reason| Err(GraphError::NotPrunable { layer: name.to_owned(), reason });
    let members = couplings.members_with(node);
    let group = match couplings.group(&members) {
        Ok(group) => group,
        Err(reason) => return refuse(reason),
    };
    if group.name == name {
        return Ok(group);
    }
    let kind = graph.nodes()[node].op.kind();
    refuse(match couplings.first_addition(&members) {
        Some(_) => {
            format!("its channels are added to others; {:?} names the group of all of them", group.name)
        }
        None => format!("it is of kind {kind}; {:?} names the group of its channels", group.name),
    })
}

/// All groups that can lose channels, in the order of the nodes that name them.
#[must_use]
pub fn channel_groups(graph: &Graph) -> Vec<ChannelGroup> {
    let couplings = Couplings::of(graph);
    let mut groups: Vec<ChannelGroup> =
        couplings.all_members().iter().filter_map(|members| couplings.group(members).ok()).collect();
    groups.sort_by_key(|group| graph.find(&group.name));
    groups
}

/// The groups of one convolution and one reader in a chain in which each node is read by the next alone, in node order:
/// what is pruned where no layers are named.
#[must_use]
pub fn prunable_layers(graph: &Graph) -> Vec<ChannelGroup> {
    let couplings = Couplings::of(graph);
    let is_chain = |group: &ChannelGroup| {
        let [Producer { node, .. }] = group.producers[..] else { return false };
        let members = couplings.members_with(node);
        matches!(graph.nodes()[node].op, Op::Conv { .. })
            && couplings.first_addition(&members).is_none()
            && members.iter().all(|&member| graph.consumers(member).len() == 1)
    };
    channel_groups(graph).into_iter().filter(is_chain).collect()
}

/// What a node does with channels. A tensor is given by its name and the axis of its channels.
struct Flow {
    /// Whether channel *j* of the output is made of channel *j* of each input, so that output and inputs are coupled;
    /// behind a flatten, of the block of channel *j*.
    couples: bool,
    /// Tensors that hold something for each channel of the output.
    of_output: &'static [(&'static str, usize)],
    /// Tensors that hold weights for each channel of the input.
    of_input: &'static [(&'static str, usize)],
}

/// The one place that says how each kind of node treats channels.
fn flow(op: &Op) -> Flow {
    match op {
        Op::Input { .. } => Flow { couples: false, of_output: &[], of_input: &[] },
        Op::Conv { bias: false, .. } => {
            Flow { couples: false, of_output: &[("weight", 0)], of_input: &[("weight", 1)] }
        }
        Op::Conv { bias: true, .. } | Op::Linear { .. } => {
            Flow { couples: false, of_output: &[("weight", 0), ("bias", 0)], of_input: &[("weight", 1)] }
        }
        Op::BatchNorm { .. } => Flow {
            couples: true,
            of_output: &[("weight", 0), ("bias", 0), ("running_mean", 0), ("running_var", 0)],
            of_input: &[],
        },
        Op::Relu {}
        | Op::MaxPool { .. }
        | Op::AvgPool { .. }
        | Op::Flatten {}
        | Op::Dropout { .. }
        | Op::Add {} => Flow { couples: true, of_output: &[], of_input: &[] },
    }
}

/// The nodes whose outputs hold the same channels, by union-find.
struct Couplings<'a> {
    graph: &'a Graph,
    /// For each node the first node that is coupled with its output.
    first: Vec<NodeId>,
}

impl<'a> Couplings<'a> {
    fn of(graph: &'a Graph) -> Self {
        let mut parent: Vec<NodeId> = (0..graph.nodes().len()).collect();
        let root = |parent: &[NodeId], mut node: NodeId| {
            while parent[node] != node {
                node = parent[node];
            }
            node
        };
        for (id, node) in graph.nodes().iter().enumerate() {
            for &input in node.inputs.iter().filter(|_| flow(&node.op).couples) {
                let (one, other) = (root(&parent, id), root(&parent, input));
                // The smaller one stays a root, so that roots are the first nodes of their sets.
                parent[one.max(other)] = one.min(other);
            }
        }
        Self { graph, first: (0..parent.len()).map(|node| root(&parent, node)).collect() }
    }

    /// The nodes coupled with `node`, ascending.
    fn members_with(&self, node: NodeId) -> Vec<NodeId> {
        (0..self.first.len()).filter(|&other| self.first[other] == self.first[node]).collect()
    }

    /// All sets of coupled nodes.
    fn all_members(&self) -> Vec<Vec<NodeId>> {
        let roots = (0..self.first.len()).filter(|&node| self.first[node] == node);
        roots.map(|root| self.members_with(root)).collect()
    }

    fn op(&self, node: NodeId) -> &Op {
        &self.graph.nodes()[node].op
    }

    fn first_addition(&self, members: &[NodeId]) -> Option<NodeId> {
        members.iter().copied().find(|&node| matches!(self.op(node), Op::Add {}))
    }

    /// The group of a set of coupled nodes, or why its channels cannot be removed.
    fn group(&self, members: &[NodeId]) -> Result<ChannelGroup, String> {
        let last = self.graph.nodes().len() - 1;
        if members.contains(&0) {
            return Err("its channels are those of the image".into());
        }
        if members.contains(&last) {
            return Err("its channels are the outputs of the network".into());
        }
        // Where maps of several sizes are flattened and added, a channel is the smallest part that all of them share.
        let widths = members.iter().map(|&node| self.graph.shape(node).channels());
        let channels = widths.fold(0, greatest_common_divisor);
        let readers = self.readers(members, channels);
        if readers.is_empty() {
            return Err("no layer reads its output".into());
        }
        let of_output = |node: NodeId| {
            let tensors = flow(self.op(node)).of_output;
            self.entries(node, tensors, self.graph.shape(node).channels(), channels)
        };
        let (sources, passing): (Vec<NodeId>, Vec<NodeId>) =
            members.iter().partition(|&&node| !flow(self.op(node)).couples);
        let producers: Vec<Producer> = sources
            .into_iter()
            .map(|node| Producer { node, entries: of_output(node), batch_norm: self.batch_norm_behind(node) })
            .collect();
        let named = self.first_addition(members).unwrap_or(members[0]);
        Ok(ChannelGroup {
            name: self.graph.nodes()[named].name.clone(),
            channels,
            producers,
            batch_norms: passing.into_iter().flat_map(of_output).collect(),
            readers,
        })
    }

    /// The nodes that hold weights for the channels of the members' outputs.
    fn readers(&self, members: &[NodeId], channels: usize) -> Vec<Reader> {
        let mut readers = Vec::new();
        for (node, of_node) in self.graph.nodes().iter().enumerate() {
            for &input in of_node.inputs.iter().filter(|input| members.contains(input)) {
                let tensors = flow(&of_node.op).of_input;
                let entries = self.entries(node, tensors, self.graph.shape(input).channels(), channels);
                let activation = self.activation_before(input);
                readers.extend(entries.into_iter().map(|entry| Reader { node, entry, input, activation }));
            }
        }
        readers
    }

    /// The axes of a node's tensors of which `width` indices belong to `channels` channels.
    fn entries(&self, node: NodeId, tensors: &[(&str, usize)], width: usize, channels: usize) -> Vec<Entry> {
        let of_node = &self.graph.nodes()[node].name;
        let entry = |&(tensor, axis): &(&str, usize)| Entry {
            node,
            tensor: format!("{of_node}.{tensor}"),
            axis,
            offset: 0,
            block: width / channels,
        };
        tensors.iter().map(entry).collect()
    }

    /// The first batch norm that alone reads `producer`, directly or through other nodes of one input.
    fn batch_norm_behind(&self, producer: NodeId) -> Option<NodeId> {
        let mut at = producer;
        loop {
            let [next] = self.graph.consumers(at)[..] else { return None };
            match self.op(next) {
                Op::BatchNorm { .. } => return Some(next),
                Op::Add {} => return None,
                op if flow(op).couples => at = next,
                _ => return None,
            }
        }
    }

    /// The first ReLU on the way from the last producer or addition to `input`; `input` if there is none.
    fn activation_before(&self, input: NodeId) -> NodeId {
        let (mut at, mut activation) = (input, input);
        while flow(self.op(at)).couples && !matches!(self.op(at), Op::Add {}) {
            if matches!(self.op(at), Op::Relu {}) {
                activation = at;
            }
            at = self.graph.nodes()[at].inputs[0];
        }
        activation
    }
}

fn greatest_common_divisor(a: usize, b: usize) -> usize {
    if b == 0 { a } else { greatest_common_divisor(b, a % b) }
}

fn unknown_group(graph: &Graph, name: &str) -> GraphError {
    let groups = channel_groups(graph);
    let allowed: Vec<&str> = groups.iter().map(|group| group.name.as_str()).collect();
    GraphError::UnknownLayer {
        layer: name.to_owned(),
        graph: graph.name().to_owned(),
        nearest: nearest(name, allowed.iter().copied()).map(str::to_owned),
        allowed: allowed.join(", "),
    }
}

#[cfg(test)]
mod tests;
