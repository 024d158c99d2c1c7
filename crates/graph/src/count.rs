//! Parameter, multiply-add and FLOP counts of a graph under named conventions (Luo et al. 2017, section 4).

use std::fmt;
use std::iter::Sum;
use std::ops::Add;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::graph::{Graph, Node, Op};
use crate::shape::Shape;
use crate::{GraphError, NodeId};

/// Which values count as parameters and which operations as FLOPs. Multiply-adds are the same under all conventions.
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
    pub name: String,
    /// The kind of node, such as `conv`.
    pub kind: &'static str,
    pub output: Shape,
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::GraphBuilder;

    /// conv without bias (strided) → bn → relu → conv with bias → pool → flatten → linear, on 3×8×8 images.
    fn net() -> Graph {
        let mut net = GraphBuilder::new("net", [3, 8, 8]).unwrap();
        let conv = |in_channels, out_channels, kernel, stride, padding, bias| Op::Conv {
            in_channels,
            out_channels,
            kernel,
            stride,
            padding,
            bias,
        };
        net.add("conv1", conv(3, 4, 3, 2, 1, false)).unwrap();
        net.add("bn1", Op::BatchNorm { channels: 4, eps: 1e-5, momentum: 0.1 }).unwrap();
        net.add("relu1", Op::Relu {}).unwrap();
        net.add("conv2", conv(4, 5, 1, 1, 0, true)).unwrap();
        net.add("pool", Op::MaxPool { kernel: 2, stride: 2, padding: 0 }).unwrap();
        net.add("flat", Op::Flatten {}).unwrap();
        net.add("fc", Op::Linear { in_features: 20, out_features: 10 }).unwrap();
        net.finish()
    }

    // Weights: conv1 4·3·9 = 108, conv2 5·4 = 20, fc 10·20 = 200. Multiply-adds: 108·16, 20·16, 200.
    const MACS: u64 = 1728 + 320 + 200;

    #[test]
    fn the_papers_convention_leaves_biases_out_and_counts_batch_norms() {
        let expected = Counts { params: 108 + 8 + 20 + 200, macs: MACS, flops: 2 * MACS + 16 };
        assert_eq!(count(&net(), Convention::Paper), expected);
    }

    #[test]
    fn all_parameters_are_those_that_gradients_change() {
        let expected = Counts { params: 108 + 8 + (20 + 5) + (200 + 10), macs: MACS, flops: 2 * MACS };
        let counts = count(&net(), Convention::AllParameters);
        assert_eq!(counts, expected);
        let trained = net().tensors().into_iter().filter(|t| t.trainable);
        assert_eq!(counts.params, trained.map(|t| t.shape.iter().product::<usize>() as u64).sum::<u64>());
    }

    #[test]
    fn layers_that_cost_something_are_listed_and_sum_to_the_whole() {
        for convention in Convention::ALL {
            let layers = count_layers(&net(), convention);
            let names: Vec<_> =
                layers.iter().map(|l| (l.name.as_str(), l.kind, l.output.to_string())).collect();
            let expected = [
                ("conv1", "conv", "4×4×4"),
                ("bn1", "batch-norm", "4×4×4"),
                ("conv2", "conv", "5×4×4"),
                ("fc", "linear", "10"),
            ];
            assert_eq!(names, expected.map(|(name, kind, output)| (name, kind, output.to_owned())));
            let sum: Counts = layers.iter().map(|layer| layer.counts).sum();
            assert_eq!(sum, count(&net(), convention));
        }
    }

    #[test]
    fn a_mebibyte_holds_2_to_the_18_floats() {
        assert_eq!(Counts { params: 3 << 17, ..Counts::default() }.mib(), 1.5);
    }

    #[test]
    fn conventions_are_read_as_they_are_written() {
        for convention in Convention::ALL {
            assert_eq!(convention.to_string().parse(), Ok(convention));
            assert_eq!(serde_json::to_value(convention).unwrap(), convention.to_string());
        }
        let error = "torch".parse::<Convention>().unwrap_err().to_string();
        let all = Convention::ALL.map(|convention| convention.to_string()).join(", ");
        assert_eq!(error, format!(r#"there is no counting convention "torch"; allowed: {all}"#));
    }
}
