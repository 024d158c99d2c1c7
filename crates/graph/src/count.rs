//! Parameter, multiply-add and FLOP counts of a graph under named conventions (Luo et al. 2017, section 4).

use std::fmt;
use std::iter::Sum;
use std::ops::Add;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::graph::{Graph, Node, Op, Shape};
use crate::{GraphError, NodeId};

/// What is counted as a parameter and as a FLOP. Multiply-adds are the same under all conventions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Convention {
    /// The authors' counter: weights without biases, 2·C values per batch norm; FLOPs are 2 × multiply-adds plus
    /// 4·C per batch norm.
    Paper,
    /// Every value that is trained: weights, biases, 2·C per batch norm; FLOPs are 2 × multiply-adds.
    AllParameters,
}

impl Convention {
    /// All conventions.
    pub const ALL: [Self; 2] = [Self::Paper, Self::AllParameters];

    const fn name(self) -> &'static str {
        match self {
            Self::Paper => "paper",
            Self::AllParameters => "all-parameters",
        }
    }
}

impl fmt::Display for Convention {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Convention {
    type Err = GraphError;

    fn from_str(name: &str) -> Result<Self, GraphError> {
        Self::ALL
            .into_iter()
            .find(|convention| convention.name() == name)
            .ok_or_else(|| GraphError::UnknownConvention(name.to_owned()))
    }
}

/// Size and cost of a network or a layer, for one image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Parameters.
    pub params: u64,
    /// Multiply-adds of convolutions and linear layers.
    pub macs: u64,
    /// Floating-point operations.
    pub flops: u64,
}

impl Counts {
    /// Size of the parameters as 32-bit floats, in MiB (2²⁰ bytes).
    #[must_use]
    pub fn mib(&self) -> f64 {
        4.0 * self.params as f64 / f64::from(1 << 20)
    }
}

impl Add for Counts {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            params: self.params + other.params,
            macs: self.macs + other.macs,
            flops: self.flops + other.flops,
        }
    }
}

impl Sum for Counts {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), Add::add)
    }
}

/// The counts of one node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LayerCount {
    /// The node's name.
    pub name: String,
    /// The kind of node, such as `conv`.
    pub kind: &'static str,
    /// Its output shape.
    pub output: Shape,
    /// Its counts.
    pub counts: Counts,
}

/// The counts of a whole network, for one image.
#[must_use]
pub fn count(graph: &Graph, convention: Convention) -> Counts {
    (0..graph.nodes().len()).map(|id| count_node(graph, id, convention)).sum()
}

/// The counts of every node that has parameters or multiply-adds, in node order; they sum to [`count`].
#[must_use]
pub fn count_layers(graph: &Graph, convention: Convention) -> Vec<LayerCount> {
    let layer = |(id, node): (NodeId, &Node)| LayerCount {
        name: node.name.clone(),
        kind: node.op.kind(),
        output: graph.shape(id),
        counts: count_node(graph, id, convention),
    };
    graph.nodes().iter().enumerate().map(layer).filter(|layer| layer.counts != Counts::default()).collect()
}

fn count_node(graph: &Graph, id: NodeId, convention: Convention) -> Counts {
    let [mut weights, mut biases, mut batch_norm, mut macs] = [0; 4];
    match graph.nodes()[id].op {
        Op::Conv { in_channels, out_channels, kernel, bias, .. } => {
            weights = (out_channels * in_channels * kernel * kernel) as u64;
            biases = if bias { out_channels as u64 } else { 0 };
            macs = weights * graph.shape(id).positions() as u64;
        }
        Op::Linear { in_features, out_features } => {
            weights = (out_features * in_features) as u64;
            biases = out_features as u64;
            macs = weights;
        }
        Op::BatchNorm { channels, .. } => batch_norm = channels as u64,
        _ => {}
    }
    match convention {
        Convention::Paper => {
            Counts { params: weights + 2 * batch_norm, macs, flops: 2 * macs + 4 * batch_norm }
        }
        Convention::AllParameters => {
            Counts { params: weights + biases + 2 * batch_norm, macs, flops: 2 * macs }
        }
    }
}
