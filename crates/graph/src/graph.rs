//! The typed nodes of a network, its builder, the consumers of each node and the list of tensors.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::GraphError;
use crate::shape::{Shape, output_shape};

/// Position of a node in [`Graph::nodes`].
pub type NodeId = usize;

/// What a node computes. Kernels, strides and paddings are square.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Op {
    /// The image; always node 0.
    Input { channels: usize, height: usize, width: usize },
    /// Convolution; tensors `weight [out, in, k, k]` and, if `bias`, `bias [out]`.
    Conv {
        in_channels: usize,
        /// Filters.
        out_channels: usize,
        /// Kernel size.
        kernel: usize,
        stride: usize,
        /// Zero padding on each side.
        padding: usize,
        /// Whether it has a bias.
        bias: bool,
    },
    /// Batch normalisation; tensors `weight`, `bias`, `running_mean`, `running_var`, each `[channels]`.
    BatchNorm {
        channels: usize,
        /// Added to the variance.
        eps: f64,
        /// Weight of the new batch in the running statistics (torch's convention).
        momentum: f64,
    },
    /// max(x, 0).
    Relu {},
    /// Max pooling, sizes rounded down, padding never wins.
    MaxPool {
        /// Window size.
        kernel: usize,
        stride: usize,
        /// Padding on each side.
        padding: usize,
    },
    /// Average pooling without padding.
    AvgPool {
        /// Window size.
        kernel: usize,
        stride: usize,
    },
    /// C×H×W to C·H·W, channel-major.
    Flatten {},
    /// Fully connected; tensors `weight [out, in]` and `bias [out]`.
    Linear { in_features: usize, out_features: usize },
    /// Dropout while training.
    Dropout {
        /// Probability that a value is zeroed.
        p: f64,
    },
    /// Sum of two inputs of equal shape.
    Add {},
}

impl Op {
    /// The kind of node, as in a graph's JSON.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Input { .. } => "input",
            Self::Conv { .. } => "conv",
            Self::BatchNorm { .. } => "batch-norm",
            Self::Relu {} => "relu",
            Self::MaxPool { .. } => "max-pool",
            Self::AvgPool { .. } => "avg-pool",
            Self::Flatten {} => "flatten",
            Self::Linear { .. } => "linear",
            Self::Dropout { .. } => "dropout",
            Self::Add {} => "add",
        }
    }
}

/// A node: a name unique in its graph, what it computes, and the earlier nodes it reads.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Node {
    /// Unique name; tensors are called `<name>.<tensor>`.
    pub name: String,
    pub op: Op,
    /// The nodes it reads, all earlier in the list.
    pub inputs: Vec<NodeId>,
}

/// A tensor that a graph needs: its name and exact shape. All tensors are 32-bit floats.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorSpec {
    /// `<node>.<tensor>`.
    pub name: String,
    /// The node it belongs to.
    pub node: NodeId,
    pub shape: Vec<usize>,
    /// Whether training changes it by gradient (running statistics are not).
    pub trainable: bool,
}

/// A checked network: nodes in an order in which each reads only earlier ones; the last node is the output.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "RawGraph")]
pub struct Graph {
    name: String,
    nodes: Vec<Node>,
    #[serde(skip)]
    shapes: Vec<Shape>,
    #[serde(skip)]
    by_name: BTreeMap<String, NodeId>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawGraph {
    name: String,
    nodes: Vec<Node>,
}

impl TryFrom<RawGraph> for Graph {
    type Error = GraphError;

    fn try_from(raw: RawGraph) -> Result<Self, GraphError> {
        Self::new(raw.name, raw.nodes)
    }
}

impl Graph {
    /// Checks names, order and shapes.
    ///
    /// # Errors
    /// If the first node is not the only input, a name repeats, a node reads a later node, shapes do not fit, or a size
    /// is zero or exceeds the limit of one node.
    pub fn new(name: impl Into<String>, nodes: Vec<Node>) -> Result<Self, GraphError> {
        let mut graph =
            Self { name: name.into(), nodes: Vec::new(), shapes: Vec::new(), by_name: BTreeMap::new() };
        for node in nodes {
            graph.push(node)?;
        }
        if graph.nodes.is_empty() {
            return Err(GraphError::BadInputs { node: graph.name, problem: "has no nodes".into() });
        }
        Ok(graph)
    }

    fn push(&mut self, node: Node) -> Result<NodeId, GraphError> {
        let id = self.nodes.len();
        let bad = |problem: String| GraphError::BadInputs { node: node.name.clone(), problem };
        if matches!(node.op, Op::Input { .. }) != (id == 0) {
            return Err(bad("must be the input if and only if it is the first node".into()));
        }
        let arity = match node.op {
            Op::Input { .. } => 0,
            Op::Add {} => 2,
            _ => 1,
        };
        if node.inputs.len() != arity {
            return Err(bad(format!("reads {} nodes instead of {arity}", node.inputs.len())));
        }
        if let Some(later) = node.inputs.iter().find(|&&i| i >= id) {
            return Err(bad(format!("reads node {later}, which does not come before it")));
        }
        if self.by_name.contains_key(&node.name) {
            return Err(GraphError::DuplicateName(node.name));
        }
        let inputs: Vec<Shape> = node.inputs.iter().map(|&i| self.shapes[i]).collect();
        let shape = output_shape(&node, &inputs)?;
        self.by_name.insert(node.name.clone(), id);
        self.nodes.push(node);
        self.shapes.push(shape);
        Ok(id)
    }

    /// The network's name, such as `vgg16`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// All nodes, in execution order.
    #[must_use]
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The node with this name.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<NodeId> {
        self.by_name.get(name).copied()
    }

    /// The output shape of a node, for one image.
    #[must_use]
    pub fn shape(&self, id: NodeId) -> Shape {
        self.shapes[id]
    }

    /// The input shape (channels, height, width).
    #[must_use]
    pub fn input_shape(&self) -> [usize; 3] {
        match self.nodes[0].op {
            Op::Input { channels, height, width } => [channels, height, width],
            _ => unreachable!("checked by Graph::new: node 0 is the input"),
        }
    }

    /// Number of classes: width of the output.
    #[must_use]
    pub fn classes(&self) -> usize {
        self.shapes[self.shapes.len() - 1].channels()
    }

    /// The nodes that read this node, ascending.
    #[must_use]
    pub fn consumers(&self, id: NodeId) -> Vec<NodeId> {
        (id + 1..self.nodes.len()).filter(|&n| self.nodes[n].inputs.contains(&id)).collect()
    }

    /// Every tensor of the network in node order; the order of weight files and of float sums over tensors.
    #[must_use]
    pub fn tensors(&self) -> Vec<TensorSpec> {
        let mut all = Vec::new();
        for (node, n) in self.nodes.iter().enumerate() {
            let mut push = |tensor: &str, shape: Vec<usize>, trainable| {
                all.push(TensorSpec { name: format!("{}.{tensor}", n.name), node, shape, trainable });
            };
            match n.op {
                Op::Conv { in_channels, out_channels, kernel, bias, .. } => {
                    push("weight", vec![out_channels, in_channels, kernel, kernel], true);
                    if bias {
                        push("bias", vec![out_channels], true);
                    }
                }
                Op::BatchNorm { channels, .. } => {
                    push("weight", vec![channels], true);
                    push("bias", vec![channels], true);
                    push("running_mean", vec![channels], false);
                    push("running_var", vec![channels], false);
                }
                Op::Linear { in_features, out_features } => {
                    push("weight", vec![out_features, in_features], true);
                    push("bias", vec![out_features], true);
                }
                _ => {}
            }
        }
        all
    }
}

/// Builds a [`Graph`] node by node; a node reads the one before it by default.
#[derive(Debug)]
pub struct GraphBuilder {
    graph: Graph,
}

impl GraphBuilder {
    /// Starts a network with an input of `[channels, height, width]`.
    ///
    /// # Errors
    /// If a size is zero or exceeds the limit of one node.
    pub fn new(name: &str, input: [usize; 3]) -> Result<Self, GraphError> {
        let [channels, height, width] = input;
        let node =
            Node { name: "input".into(), op: Op::Input { channels, height, width }, inputs: Vec::new() };
        Ok(Self { graph: Graph::new(name, vec![node])? })
    }

    /// Adds a node that reads the last one; returns its id.
    ///
    /// # Errors
    /// If the name is taken or the shape does not fit.
    pub fn add(&mut self, name: impl Into<String>, op: Op) -> Result<NodeId, GraphError> {
        let last = self.last();
        self.add_from(name, op, vec![last])
    }

    /// Adds a node that reads the given ones; returns its id.
    ///
    /// # Errors
    /// If the name is taken, an input does not exist or the shape does not fit.
    pub fn add_from(
        &mut self,
        name: impl Into<String>,
        op: Op,
        inputs: Vec<NodeId>,
    ) -> Result<NodeId, GraphError> {
        self.graph.push(Node { name: name.into(), op, inputs })
    }

    /// Id of the last node.
    #[must_use]
    pub fn last(&self) -> NodeId {
        self.graph.nodes.len() - 1
    }

    /// Output shape of the last node.
    #[must_use]
    pub fn shape(&self) -> Shape {
        self.graph.shape(self.last())
    }

    #[must_use]
    pub fn finish(self) -> Graph {
        self.graph
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conv(in_channels: usize, out_channels: usize, kernel: usize, stride: usize, padding: usize) -> Op {
        Op::Conv { in_channels, out_channels, kernel, stride, padding, bias: true }
    }

    /// conv (strided, padded) → bn → relu → pool → flatten → linear on 3×9×7 images.
    fn small() -> Graph {
        let mut net = GraphBuilder::new("small", [3, 9, 7]).unwrap();
        net.add("conv", conv(3, 4, 3, 2, 1)).unwrap();
        net.add("bn", Op::BatchNorm { channels: 4, eps: 1e-5, momentum: 0.1 }).unwrap();
        net.add("relu", Op::Relu {}).unwrap();
        net.add("pool", Op::MaxPool { kernel: 2, stride: 2, padding: 0 }).unwrap();
        net.add("flat", Op::Flatten {}).unwrap();
        net.add("drop", Op::Dropout { p: 0.5 }).unwrap();
        net.add("fc", Op::Linear { in_features: 16, out_features: 10 }).unwrap();
        net.finish()
    }

    #[test]
    fn shapes_follow_from_the_nodes() {
        let net = small();
        let shapes: Vec<String> = (0..net.nodes().len()).map(|id| net.shape(id).to_string()).collect();
        assert_eq!(shapes, ["3×9×7", "4×5×4", "4×5×4", "4×5×4", "4×2×2", "16", "16", "10"]);
        assert_eq!(net.input_shape(), [3, 9, 7]);
        assert_eq!(net.classes(), 10);
        assert_eq!(net.find("relu"), Some(3));
        assert_eq!(net.find("nothing"), None);
    }

    #[test]
    fn tensors_are_listed_in_node_order() {
        let net = small();
        let listed: Vec<(String, Vec<usize>, bool)> =
            net.tensors().into_iter().map(|t| (t.name, t.shape, t.trainable)).collect();
        let expected = [
            ("conv.weight", vec![4, 3, 3, 3], true),
            ("conv.bias", vec![4], true),
            ("bn.weight", vec![4], true),
            ("bn.bias", vec![4], true),
            ("bn.running_mean", vec![4], false),
            ("bn.running_var", vec![4], false),
            ("fc.weight", vec![10, 16], true),
            ("fc.bias", vec![10], true),
        ];
        assert_eq!(listed, expected.map(|(name, shape, trainable)| (name.to_owned(), shape, trainable)));
    }

    #[test]
    fn consumers_are_all_readers_each_once() {
        let mut net = GraphBuilder::new("net", [3, 8, 8]).unwrap();
        net.add("relu", Op::Relu {}).unwrap();
        net.add_from("double", Op::Add {}, vec![1, 1]).unwrap();
        net.add_from("sum", Op::Add {}, vec![1, 2]).unwrap();
        let net = net.finish();
        assert_eq!(net.consumers(0), [1]);
        assert_eq!(net.consumers(1), [2, 3]);
        assert!(net.consumers(3).is_empty());
    }

    #[test]
    fn a_graph_survives_json() {
        let net = small();
        let json = serde_json::to_string(&net).unwrap();
        let back: Graph = serde_json::from_str(&json).unwrap();
        assert_eq!(back, net);
        assert_eq!(back.find("fc"), net.find("fc"));
        let elsewhere = [Op::AvgPool { kernel: 2, stride: 2 }, Op::Add {}];
        for op in net.nodes().iter().map(|node| &node.op).chain(&elsewhere) {
            assert_eq!(serde_json::to_value(op).unwrap()["kind"], op.kind());
        }
    }

    #[test]
    fn json_that_is_no_graph_is_refused() {
        let input = r#"{"name":"input","op":{"kind":"input","channels":3,"height":8,"width":8},"inputs":[]}"#;
        let graph =
            |nodes: &str| serde_json::from_str::<Graph>(&format!(r#"{{"name":"net","nodes":[{nodes}]}}"#));
        assert!(graph(input).is_ok());
        for (nodes, problem) in [
            (String::new(), "has no nodes"),
            (format!("{input},{input}"), "must be the input"),
            (r#"{"name":"r","op":{"kind":"relu"},"inputs":[]}"#.into(), "must be the input"),
            (
                format!(r#"{input},{{"name":"r","op":{{"kind":"relu"}},"inputs":[1]}}"#),
                "does not come before",
            ),
            (
                format!(r#"{input},{{"name":"r","op":{{"kind":"relu"}},"inputs":[0,0]}}"#),
                "reads 2 nodes instead of 1",
            ),
            (
                format!(r#"{input},{{"name":"a","op":{{"kind":"add"}},"inputs":[0]}}"#),
                "reads 1 nodes instead of 2",
            ),
            (input.replace("[]", "[0]"), "reads 1 nodes instead of 0"),
            (
                format!(r#"{input},{{"name":"input","op":{{"kind":"relu"}},"inputs":[0]}}"#),
                "two nodes are called",
            ),
            (
                format!(r#"{input},{{"name":"r","op":{{"kind":"relu","p":1}},"inputs":[0]}}"#),
                "unknown field `p`",
            ),
            (
                format!(r#"{input},{{"name":"r","op":{{"kind":"rleu"}},"inputs":[0]}}"#),
                "unknown variant `rleu`",
            ),
        ] {
            let error = graph(&nodes).unwrap_err().to_string();
            assert!(error.contains(problem), "{error:?} does not say {problem:?}");
        }
    }

    #[test]
    fn a_refused_node_leaves_the_builder_as_it_was() {
        let mut net = GraphBuilder::new("net", [3, 8, 8]).unwrap();
        net.add("relu", Op::Relu {}).unwrap();
        net.add("relu", Op::Flatten {}).unwrap_err();
        net.add("bad", conv(4, 8, 3, 1, 1)).unwrap_err();
        assert_eq!((net.last(), net.shape()), (1, Shape::Map { c: 3, h: 8, w: 8 }));
        let net = net.finish();
        assert_eq!((net.find("relu"), net.find("bad")), (Some(1), None));
    }
}
