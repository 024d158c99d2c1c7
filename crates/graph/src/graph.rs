//! The typed nodes of a network, its builder, and what follows from them alone: shapes and the list of tensors.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::GraphError;

/// Position of a node in [`Graph::nodes`].
pub type NodeId = usize;

/// Shape of one image's activation, without the batch axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Shape {
    /// Channels × height × width.
    Map {
        /// Channels.
        c: usize,
        /// Height in pixels.
        h: usize,
        /// Width in pixels.
        w: usize,
    },
    /// A flat vector of features.
    Flat(usize),
}

impl Shape {
    /// Channels of a map, features of a flat vector.
    #[must_use]
    pub fn channels(&self) -> usize {
        match *self {
            Self::Map { c, .. } | Self::Flat(c) => c,
        }
    }

    /// Positions per channel: H·W of a map, 1 of a flat vector.
    #[must_use]
    pub fn positions(&self) -> usize {
        match *self {
            Self::Map { h, w, .. } => h * w,
            Self::Flat(_) => 1,
        }
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Map { c, h, w } => write!(f, "{c}×{h}×{w}"),
            Self::Flat(n) => write!(f, "{n}"),
        }
    }
}

/// What a node computes. Kernels, strides and paddings are square.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Op {
    /// The image; always node 0.
    Input {
        /// Channels.
        channels: usize,
        /// Height.
        height: usize,
        /// Width.
        width: usize,
    },
    /// Convolution; tensors `weight [out, in, k, k]` and, if `bias`, `bias [out]`.
    Conv {
        /// Input channels.
        in_channels: usize,
        /// Filters.
        out_channels: usize,
        /// Kernel size.
        kernel: usize,
        /// Stride.
        stride: usize,
        /// Zero padding on each side.
        padding: usize,
        /// Whether it has a bias.
        bias: bool,
    },
    /// Batch normalisation; tensors `weight`, `bias`, `running_mean`, `running_var`, each `[channels]`.
    BatchNorm {
        /// Channels.
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
        /// Stride.
        stride: usize,
        /// Padding on each side.
        padding: usize,
    },
    /// Average pooling without padding.
    AvgPool {
        /// Window size.
        kernel: usize,
        /// Stride.
        stride: usize,
    },
    /// C×H×W to C·H·W, channel-major.
    Flatten {},
    /// Fully connected; tensors `weight [out, in]` and `bias [out]`.
    Linear {
        /// Input features.
        in_features: usize,
        /// Output features.
        out_features: usize,
    },
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
    /// What it computes.
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
    /// Shape.
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
    /// If the first node is not the only input, a name repeats, a node reads a later node, or shapes do not fit.
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
        check_size(&node, shape)?;
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

/// Size along one axis after a window slides over it; `None` if the window does not fit.
fn window_out(size: usize, kernel: usize, stride: usize, padding: usize) -> Option<usize> {
    if stride == 0 || kernel == 0 {
        return None;
    }
    let padded = padding.checked_mul(2)?.checked_add(size)?;
    padded.checked_sub(kernel).map(|room| room / stride + 1)
}

/// Most values, weights or multiply-adds of one node; keeps all later arithmetic on sizes from overflowing.
const MOST: u128 = 1 << 44;

/// Refuses a node without output values and one that no machine could run, before anything multiplies its sizes.
fn check_size(node: &Node, shape: Shape) -> Result<(), GraphError> {
    let bad = |problem: &str| GraphError::BadSize { node: node.name.clone(), problem: problem.into() };
    let map = match shape {
        Shape::Map { c, h, w } => [c, h, w],
        Shape::Flat(n) => [n, 1, 1],
    };
    if map.contains(&0) {
        return Err(bad("has no output values"));
    }
    let inputs = match node.op {
        Op::Conv { in_channels, kernel, .. } => [in_channels, kernel, kernel],
        Op::Linear { in_features, .. } => [in_features, 1, 1],
        _ => [1, 1, 1],
    };
    let work = map.iter().chain(&inputs).try_fold(1_u128, |product, &size| product.checked_mul(size as u128));
    match work {
        Some(work) if work <= MOST => Ok(()),
        _ => Err(bad("is too large (more than 2^44 values or multiply-adds)")),
    }
}

fn output_shape(node: &Node, inputs: &[Shape]) -> Result<Shape, GraphError> {
    let mismatch = |expected: String, found: &Shape| {
        Err(GraphError::ShapeMismatch { node: node.name.clone(), expected, found: found.to_string() })
    };
    let (stride, pool_window) = match node.op {
        Op::Conv { stride, .. } => (stride, None),
        Op::MaxPool { stride, kernel, padding } => (stride, Some((kernel, padding))),
        Op::AvgPool { stride, kernel } => (stride, Some((kernel, 0))),
        _ => (1, None),
    };
    let bad_size = |problem: &str| Err(GraphError::BadSize { node: node.name.clone(), problem: problem.into() });
    if stride == 0 {
        return bad_size("has a stride of 0");
    }
    if pool_window.is_some_and(|(kernel, padding)| padding > kernel / 2) {
        return bad_size("pads by more than half its window");
    }
    let slide = |c: usize, kernel: usize, stride: usize, padding: usize| match inputs[0] {
        Shape::Map { h, w, .. } => {
            match (window_out(h, kernel, stride, padding), window_out(w, kernel, stride, padding)) {
                (Some(h), Some(w)) => Ok(Shape::Map { c, h, w }),
                _ => mismatch(format!("a map in which a window of {kernel} fits"), &inputs[0]),
            }
        }
        Shape::Flat(_) => mismatch("a map".into(), &inputs[0]),
    };
    match (&node.op, inputs.first()) {
        (&Op::Input { channels, height, width }, _) => Ok(Shape::Map { c: channels, h: height, w: width }),
        (&Op::Conv { in_channels, out_channels, kernel, stride, padding, .. }, Some(Shape::Map { c, .. }))
            if *c == in_channels =>
        {
            slide(out_channels, kernel, stride, padding)
        }
        (&Op::Conv { in_channels, .. }, Some(found)) => {
            mismatch(format!("a map of {in_channels} channels"), found)
        }
        (&Op::MaxPool { kernel, stride, padding }, Some(s)) => slide(s.channels(), kernel, stride, padding),
        (&Op::AvgPool { kernel, stride }, Some(s)) => slide(s.channels(), kernel, stride, 0),
        (&Op::BatchNorm { channels, .. }, Some(s)) if s.channels() != channels => {
            mismatch(format!("{channels} channels"), s)
        }
        (&Op::Linear { in_features, out_features }, Some(s)) => match s {
            Shape::Flat(n) if *n == in_features => Ok(Shape::Flat(out_features)),
            found => mismatch(format!("a flat vector of {in_features}"), found),
        },
        (Op::Flatten {}, Some(Shape::Map { c, h, w })) => Ok(Shape::Flat(c * h * w)),
        (Op::Add {}, Some(a)) if inputs[1] != *a => mismatch(format!("two inputs of shape {a}"), &inputs[1]),
        (_, Some(s)) => Ok(*s),
        (_, None) => unreachable!("arity is checked before"),
    }
}

/// Builds a [`Graph`] node by node; a node reads the one before it unless told otherwise.
#[derive(Debug)]
pub struct GraphBuilder {
    graph: Graph,
}

impl GraphBuilder {
    /// Starts a network with an input of `[channels, height, width]`.
    ///
    /// # Errors
    /// Never for a fresh builder; the signature keeps the one way nodes are added.
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

    /// The finished network.
    #[must_use]
    pub fn finish(self) -> Graph {
        self.graph
    }
}
