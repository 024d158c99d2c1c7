//! Which convolutions can lose filters, and what lies between each and the one layer that reads it.

use crate::graph::{Graph, NodeId, Op};
use crate::{ChannelSet, GraphError};

/// A convolution whose filters can be removed, with everything that a cut or a calibration pass must know.
///
/// Between the convolution and its consumer lie only nodes that treat channels apart (batch norm, ReLU, pooling,
/// dropout, flatten), each read by the next alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrunableLayer {
    /// The convolution's name.
    pub name: String,
    /// The convolution: layer *i*.
    pub conv: NodeId,
    /// Its filters.
    pub channels: usize,
    /// The batch norms between it and the consumer.
    pub batch_norms: Vec<NodeId>,
    /// Where zeros are counted (APoZ): the first ReLU after the convolution, else the node that the consumer reads.
    /// Viewed as `[n, channels, -1]` its output is apart by channel, also where a flatten comes before it.
    pub activation: NodeId,
    /// The one convolution or linear layer that reads it: layer *i+1*.
    pub consumer: NodeId,
    /// The node whose output the consumer reads: after ReLU, pooling and flatten, where they are.
    pub consumer_input: NodeId,
    /// Columns of the consumer's weight per channel: 1 for a convolution, H·W for a linear layer behind a flatten.
    pub columns: usize,
}

impl PrunableLayer {
    /// Refuses a channel set made for a layer of another width.
    ///
    /// # Errors
    /// If `keep` was not chosen among exactly this layer's channels.
    pub fn check(&self, keep: &ChannelSet) -> Result<(), GraphError> {
        if keep.width() == self.channels {
            return Ok(());
        }
        Err(GraphError::KeepWidth { layer: self.name.clone(), channels: self.channels, width: keep.width() })
    }
}

/// Finds a layer by name and follows its output to the layer that reads it.
///
/// # Errors
/// If no node has this name, it is not a convolution, its output reaches an addition, is read by several nodes, or is
/// read by no layer.
pub fn prunable_layer(graph: &Graph, name: &str) -> Result<PrunableLayer, GraphError> {
    match graph.find(name) {
        Some(conv) => follow(graph, conv),
        None => Err(unknown_layer(graph, name)),
    }
}

/// All convolutions that can lose filters, in node order.
#[must_use]
pub fn prunable_layers(graph: &Graph) -> Vec<PrunableLayer> {
    (0..graph.nodes().len()).filter_map(|id| follow(graph, id).ok()).collect()
}

fn follow(graph: &Graph, conv: NodeId) -> Result<PrunableLayer, GraphError> {
    let node = |id: NodeId| &graph.nodes()[id];
    let name = &node(conv).name;
    let refuse = |reason: String| Err(GraphError::NotPrunable { layer: name.clone(), reason });
    let Op::Conv { out_channels: channels, .. } = node(conv).op else {
        return refuse(format!("it is of kind {}, not conv", node(conv).op.kind()));
    };
    let mut batch_norms = Vec::new();
    let mut first_relu = None;
    let mut columns = 1;
    let mut at = conv;
    loop {
        let readers = graph.consumers(at);
        if let Some(add) = readers.iter().find(|&&reader| node(reader).op == Op::Add {}) {
            return refuse(format!("its output reaches the addition {:?}", node(*add).name));
        }
        let next = match readers[..] {
            [] => return refuse("no layer reads its output".into()),
            [next] => next,
            _ => {
                let names: Vec<String> = readers.iter().map(|&id| format!("{:?}", node(id).name)).collect();
                return refuse(format!("its output is read by several nodes: {}", names.join(", ")));
            }
        };
        match node(next).op {
            Op::BatchNorm { .. } => batch_norms.push(next),
            Op::Relu {} => first_relu = first_relu.or(Some(next)),
            Op::Flatten {} => columns *= graph.shape(at).positions(),
            Op::MaxPool { .. } | Op::AvgPool { .. } | Op::Dropout { .. } => {}
            Op::Conv { .. } | Op::Linear { .. } => {
                return Ok(PrunableLayer {
                    name: name.clone(),
                    conv,
                    channels,
                    batch_norms,
                    activation: first_relu.unwrap_or(at),
                    consumer: next,
                    consumer_input: at,
                    columns,
                });
            }
            Op::Add {} | Op::Input { .. } => unreachable!("additions are refused above, an input reads nothing"),
        }
        at = next;
    }
}

fn unknown_layer(graph: &Graph, name: &str) -> GraphError {
    let layers = prunable_layers(graph);
    let allowed: Vec<&str> = layers.iter().map(|layer| layer.name.as_str()).collect();
    GraphError::UnknownLayer {
        layer: name.to_owned(),
        graph: graph.name().to_owned(),
        nearest: nearest(name, &allowed).map(str::to_owned),
        allowed: allowed.join(", "),
    }
}

/// The candidate that is the fewest typing errors away (the first of equals), if that is at most a third of the name.
fn nearest<'a>(name: &str, candidates: &[&'a str]) -> Option<&'a str> {
    let errors = |candidate: &&'a str| strsim::damerau_levenshtein(name, candidate);
    let best = candidates.iter().min_by_key(|candidate| errors(candidate))?;
    (errors(best) * 3 <= name.chars().count()).then_some(*best)
}
