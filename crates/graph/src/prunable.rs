//! The convolutions that can be pruned, and the nodes between each and the one layer that reads it.

use crate::graph::{Graph, NodeId, Op};
use crate::names::nearest;
use crate::{ChannelSet, GraphError};

/// A convolution whose filters can be removed, with the nodes that a cut or a calibration pass needs.
///
/// Between the convolution and its consumer lie only nodes that treat channels apart (batch norm, ReLU, pooling,
/// dropout, flatten), each read by the next alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrunableLayer {
    pub name: String,
    /// The convolution: layer *i*.
    pub conv: NodeId,
    /// Its filters.
    pub channels: usize,
    /// The batch norms between it and the consumer.
    pub batch_norms: Vec<NodeId>,
    /// Where zeros are counted (APoZ): the first ReLU after the convolution, else the node that the consumer reads.
    /// Viewed as `[n, channels, -1]` its output is split by channel, also after a flatten.
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
            Op::Add {} | Op::Input { .. } => {
                unreachable!("additions are refused above, an input reads nothing")
            }
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
        nearest: nearest(name, allowed.iter().copied()).map(str::to_owned),
        allowed: allowed.join(", "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::GraphBuilder;

    fn conv(in_channels: usize, out_channels: usize, stride: usize) -> Op {
        Op::Conv { in_channels, out_channels, kernel: 3, stride, padding: 1, bias: false }
    }

    fn batch_norm(channels: usize) -> Op {
        Op::BatchNorm { channels, eps: 1e-5, momentum: 0.1 }
    }

    /// conv1 → relu1 → pool → relu1b → conv2 (nothing between) conv3 → bn3 → flatten → bn4 → relu4 → drop → fc.
    fn chain() -> Graph {
        let mut net = GraphBuilder::new("chain", [3, 8, 8]).unwrap();
        net.add("conv1", conv(3, 4, 1)).unwrap();
        net.add("relu1", Op::Relu {}).unwrap();
        net.add("pool", Op::MaxPool { kernel: 3, stride: 2, padding: 1 }).unwrap();
        net.add("relu1b", Op::Relu {}).unwrap();
        net.add("conv2", conv(4, 6, 2)).unwrap();
        net.add("conv3", conv(6, 5, 1)).unwrap();
        net.add("bn3", batch_norm(5)).unwrap();
        net.add("flat", Op::Flatten {}).unwrap();
        net.add("bn4", batch_norm(20)).unwrap();
        net.add("relu4", Op::Relu {}).unwrap();
        net.add("drop", Op::Dropout { p: 0.5 }).unwrap();
        net.add("fc", Op::Linear { in_features: 20, out_features: 10 }).unwrap();
        net.finish()
    }

    /// A stem, and a residual block with a projection: its first convolution alone can be cut.
    fn residual() -> Graph {
        let mut net = GraphBuilder::new("residual", [3, 8, 8]).unwrap();
        net.add("stem", conv(3, 4, 1)).unwrap();
        let trunk = net.add("stem.relu", Op::Relu {}).unwrap();
        net.add("block.conv1", conv(4, 4, 2)).unwrap();
        net.add("block.bn1", batch_norm(4)).unwrap();
        net.add("block.relu1", Op::Relu {}).unwrap();
        net.add("block.conv2", conv(4, 8, 1)).unwrap();
        let branch = net.add("block.bn2", batch_norm(8)).unwrap();
        let shortcut = net.add_from("block.projection", conv(4, 8, 2), vec![trunk]).unwrap();
        let sum = net.add_from("block.add", Op::Add {}, vec![branch, shortcut]).unwrap();
        net.add("identity.conv1", conv(8, 8, 1)).unwrap();
        net.add_from("identity.add", Op::Add {}, vec![net.last(), sum]).unwrap();
        net.add("head", conv(8, 2, 1)).unwrap();
        net.finish()
    }

    #[test]
    fn a_layer_is_followed_to_the_one_that_reads_it() {
        let net = chain();
        let id = |name: &str| net.find(name).unwrap();
        let layer = |name: &str, channels, batch_norms: &[&str], activation, consumer, input, columns| {
            PrunableLayer {
                name: name.to_owned(),
                conv: id(name),
                channels,
                batch_norms: batch_norms.iter().map(|name| id(name)).collect(),
                activation: id(activation),
                consumer: id(consumer),
                consumer_input: id(input),
                columns,
            }
        };
        let expected = [
            layer("conv1", 4, &[], "relu1", "conv2", "relu1b", 1),
            layer("conv2", 6, &[], "conv2", "conv3", "conv2", 1),
            layer("conv3", 5, &["bn3", "bn4"], "relu4", "fc", "drop", 4),
        ];
        assert_eq!(prunable_layers(&net), expected);
        for layer in expected {
            assert_eq!(prunable_layer(&net, &layer.name), Ok(layer));
        }
    }

    #[test]
    fn layers_that_cannot_be_cut_are_refused_with_the_reason() {
        let net = residual();
        for (layer, reason) in [
            ("stem", r#"its output is read by several nodes: "block.conv1", "block.projection""#),
            ("block.conv2", r#"its output reaches the addition "block.add""#),
            ("block.projection", r#"its output reaches the addition "block.add""#),
            ("identity.conv1", r#"its output reaches the addition "identity.add""#),
            ("head", "no layer reads its output"),
            ("block.relu1", "it is of kind relu, not conv"),
            ("input", "it is of kind input, not conv"),
        ] {
            let error = prunable_layer(&net, layer).unwrap_err().to_string();
            assert_eq!(error, format!("layer {layer:?} cannot be pruned: {reason}"));
        }
        let names: Vec<String> = prunable_layers(&net).into_iter().map(|layer| layer.name).collect();
        assert_eq!(names, ["block.conv1"]);
    }

    #[test]
    fn an_addition_of_a_layer_to_itself_is_an_addition() {
        let mut net = GraphBuilder::new("net", [3, 8, 8]).unwrap();
        let conv_id = net.add("conv", conv(3, 4, 1)).unwrap();
        net.add_from("double", Op::Add {}, vec![conv_id, conv_id]).unwrap();
        let error = prunable_layer(&net.finish(), "conv").unwrap_err().to_string();
        assert!(error.ends_with(r#"reaches the addition "double""#), "{error}");
    }

    #[test]
    fn an_unknown_layer_is_answered_with_the_nearest_and_all() {
        let message = |name: &str| prunable_layer(&chain(), name).unwrap_err().to_string();
        let rest = "prunable layers: conv1, conv2, conv3";
        assert_eq!(
            message("cnov2"),
            format!(r#"there is no layer "cnov2" in chain, did you mean "conv2"?; {rest}"#)
        );
        assert_eq!(message("fire9"), format!(r#"there is no layer "fire9" in chain; {rest}"#));
        assert_eq!(message(""), format!(r#"there is no layer "" in chain; {rest}"#));
    }

    #[test]
    fn average_pooling_and_a_second_flatten_lie_between_a_layer_and_its_reader() {
        let mut net = GraphBuilder::new("net", [3, 8, 8]).unwrap();
        net.add("conv", conv(3, 4, 1)).unwrap();
        net.add("pool", Op::AvgPool { kernel: 4, stride: 4 }).unwrap();
        net.add("flat", Op::Flatten {}).unwrap();
        net.add("again", Op::Flatten {}).unwrap();
        net.add("fc", Op::Linear { in_features: 16, out_features: 2 }).unwrap();
        let net = net.finish();
        let layer = prunable_layer(&net, "conv").unwrap();
        assert_eq!((layer.consumer_input, layer.activation, layer.columns), (4, 4, 4));
        assert_eq!(net.nodes()[layer.consumer].name, "fc");
        assert_eq!(layer.check(&ChannelSet::all(4).unwrap()), Ok(()));
        assert!(layer.check(&ChannelSet::all(5).unwrap()).is_err());
    }
}
