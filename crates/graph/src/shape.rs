//! Shapes of activations: each kind of node's output shape from its input shapes, and limits of sizes.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::GraphError;
use crate::graph::{Node, Op};

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

/// Output shape of a node for one image; the one place where shapes and sizes are checked.
pub(crate) fn output_shape(node: &Node, inputs: &[Shape]) -> Result<Shape, GraphError> {
    check_window(node)?;
    let shape = infer(node, inputs)?;
    check_size(node, shape)?;
    Ok(shape)
}

/// Size along one axis after a window slides over it; `None` if the window does not fit.
fn window_out(size: usize, kernel: usize, stride: usize, padding: usize) -> Option<usize> {
    if kernel == 0 {
        return None;
    }
    let padded = padding.checked_mul(2)?.checked_add(size)?;
    padded.checked_sub(kernel).map(|room| room / stride + 1)
}

/// Refuses windows that do not move or that would lie in the padding alone.
fn check_window(node: &Node) -> Result<(), GraphError> {
    let bad = |problem: &str| Err(GraphError::BadSize { node: node.name.clone(), problem: problem.into() });
    match node.op {
        Op::Conv { stride: 0, .. } | Op::MaxPool { stride: 0, .. } | Op::AvgPool { stride: 0, .. } => {
            bad("has a stride of 0")
        }
        Op::MaxPool { kernel, padding, .. } if padding > kernel / 2 => {
            bad("pads by more than half its window")
        }
        _ => Ok(()),
    }
}

/// Limit of values, weights or multiply-adds of one node; keeps later arithmetic on sizes from overflowing.
const MOST: u128 = 1 << 44;

/// Refuses a node without output values or beyond the limit, before its sizes are multiplied.
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

fn infer(node: &Node, inputs: &[Shape]) -> Result<Shape, GraphError> {
    let mismatch = |expected: String, found: &Shape| {
        Err(GraphError::ShapeMismatch { node: node.name.clone(), expected, found: found.to_string() })
    };
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
        (
            &Op::Conv { in_channels, out_channels, kernel, stride, padding, .. },
            Some(Shape::Map { c, .. }),
        ) if *c == in_channels => slide(out_channels, kernel, stride, padding),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{GraphBuilder, NodeId};

    fn conv(in_channels: usize, out_channels: usize, kernel: usize, stride: usize, padding: usize) -> Op {
        Op::Conv { in_channels, out_channels, kernel, stride, padding, bias: true }
    }

    fn add_to_input(op: Op) -> Result<NodeId, GraphError> {
        GraphBuilder::new("net", [3, 8, 8]).unwrap().add("node", op)
    }

    #[test]
    fn windows_slide_as_in_torch() {
        for (size, kernel, stride, padding, expected) in [
            (224, 7, 2, 3, Some(112)), // ResNet's first convolution
            (112, 3, 2, 1, Some(56)),  // and its max pool
            (7, 7, 7, 0, Some(1)),
            (5, 2, 2, 0, Some(2)),
            (2, 3, 1, 0, None),
            (2, 0, 1, 0, None),
            (2, 1, 1, usize::MAX, None),
        ] {
            assert_eq!(
                window_out(size, kernel, stride, padding),
                expected,
                "{size} {kernel} {stride} {padding}"
            );
        }
    }

    #[test]
    fn inputs_of_another_shape_are_refused() {
        for (op, problem) in [
            (conv(4, 8, 3, 1, 1), r#"node "node" expects a map of 4 channels, its input is 3×8×8"#),
            (
                conv(3, 8, 11, 1, 1),
                r#"node "node" expects a map in which a window of 11 fits, its input is 3×8×8"#,
            ),
            (
                Op::BatchNorm { channels: 4, eps: 1e-5, momentum: 0.1 },
                r#"node "node" expects 4 channels, its input is 3×8×8"#,
            ),
            (
                Op::Linear { in_features: 192, out_features: 2 },
                r#"node "node" expects a flat vector of 192, its input is 3×8×8"#,
            ),
        ] {
            assert_eq!(add_to_input(op).unwrap_err().to_string(), problem);
        }
        let mut net = GraphBuilder::new("net", [3, 8, 8]).unwrap();
        net.add("conv", conv(3, 3, 3, 2, 1)).unwrap();
        let error = net.add_from("add", Op::Add {}, vec![0, 1]).unwrap_err().to_string();
        assert_eq!(error, r#"node "add" expects two inputs of shape 3×8×8, its input is 3×4×4"#);
        net.add("flat", Op::Flatten {}).unwrap();
        let error = net.add("pool", Op::AvgPool { kernel: 2, stride: 2 }).unwrap_err().to_string();
        assert_eq!(error, r#"node "pool" expects a map, its input is 48"#);
    }

    #[test]
    fn impossible_sizes_are_refused_without_overflow() {
        for (op, problem) in [
            (conv(3, 0, 3, 1, 1), "has no output values"),
            (conv(3, 8, 3, 0, 1), "has a stride of 0"),
            (conv(3, usize::MAX, 3, 1, 1), "is too large"),
            (conv(3, 8, 1, 1, usize::MAX / 2), "window of 1 fits"),
            (conv(3, 8, 1, 1, usize::MAX / 8), "is too large"),
            (Op::MaxPool { kernel: 2, stride: 2, padding: 2 }, "pads by more than half its window"),
        ] {
            let error = add_to_input(op).unwrap_err().to_string();
            assert!(error.contains(problem), "{error:?} does not say {problem:?}");
        }
        assert!(GraphBuilder::new("net", [3, 0, 8]).is_err());
        assert!(GraphBuilder::new("net", [3, usize::MAX, usize::MAX]).is_err());
    }

    #[test]
    fn every_kind_of_window_has_a_stride_and_pads_by_half_of_itself_at_most() {
        for op in [
            conv(3, 8, 3, 0, 1),
            Op::MaxPool { kernel: 2, stride: 0, padding: 0 },
            Op::AvgPool { kernel: 2, stride: 0 },
        ] {
            assert_eq!(add_to_input(op).unwrap_err().to_string(), r#"node "node" has a stride of 0"#);
        }
        for (kernel, padding, fits) in [(1, 0, true), (2, 1, true), (3, 1, true), (3, 2, false), (4, 2, true)]
        {
            let pool = add_to_input(Op::MaxPool { kernel, stride: 1, padding });
            assert_eq!(pool.is_ok(), fits, "{kernel} {padding}");
        }
    }

    #[test]
    fn values_weights_and_multiply_adds_of_a_node_are_at_most_2_to_the_44() {
        let refused = |outcome: Result<NodeId, GraphError>| match outcome {
            Ok(_) => false,
            Err(error) => {
                let text = error.to_string();
                assert!(text.ends_with("is too large (more than 2^44 values or multiply-adds)"), "{text}");
                true
            }
        };
        let net = |input| GraphBuilder::new("net", input).unwrap();

        // Values of the node itself: channels, height and width count.
        assert!(GraphBuilder::new("net", [1 << 44, 1, 1]).is_ok());
        for input in [[(1 << 44) + 1, 1, 1], [1, (1 << 44) + 1, 1], [1, 1, (1 << 44) + 1], [1 << 43, 2, 2]] {
            assert!(refused(GraphBuilder::new("net", input).map(|net| net.last())), "{input:?}");
        }
        // A convolution with a small output can be expensive: each output value costs in·k².
        let mut wide = net([1 << 20, 4, 4]);
        assert!(refused(wide.add("conv", conv(1 << 20, (1 << 24) + 1, 1, 4, 0))));
        assert!(wide.add("conv", conv(1 << 20, 1 << 24, 1, 4, 0)).is_ok());
        let mut wide = net([1 << 20, 4, 4]);
        assert!(refused(wide.add("conv", conv(1 << 20, (1 << 20) + 1, 4, 4, 0))));
        assert!(wide.add("conv", conv(1 << 20, 1 << 20, 4, 4, 0)).is_ok());
        // And a linear layer's costs as many as it has inputs.
        let mut flat = net([1 << 22, 1, 1]);
        flat.add("flat", Op::Flatten {}).unwrap();
        let linear = |out_features| Op::Linear { in_features: 1 << 22, out_features };
        assert!(refused(flat.add("fc", linear((1 << 22) + 1))));
        assert!(flat.add("fc", linear(1 << 22)).is_ok());
        // A node without weights costs its output and nothing else.
        assert!(net([1 << 44, 1, 1]).add("relu", Op::Relu {}).is_ok());
    }

    #[test]
    fn flat_vectors_pass_what_needs_no_map_and_keep_their_size() {
        let mut net = GraphBuilder::new("net", [3, 2, 4]).unwrap();
        net.add("flat", Op::Flatten {}).unwrap();
        for (name, op) in [
            ("again", Op::Flatten {}),
            ("relu", Op::Relu {}),
            ("drop", Op::Dropout { p: 0.5 }),
            ("bn", Op::BatchNorm { channels: 24, eps: 1e-5, momentum: 0.1 }),
        ] {
            net.add(name, op).unwrap();
            assert_eq!(net.shape(), Shape::Flat(24), "{name}");
        }
        assert_eq!((net.shape().channels(), net.shape().positions()), (24, 1));
        for (op, problem) in [
            (conv(24, 8, 1, 1, 0), "expects a map of 24 channels, its input is 24"),
            (Op::MaxPool { kernel: 1, stride: 1, padding: 0 }, "expects a map, its input is 24"),
            (Op::Linear { in_features: 23, out_features: 2 }, "expects a flat vector of 23, its input is 24"),
            (
                Op::BatchNorm { channels: 23, eps: 1e-5, momentum: 0.1 },
                "expects 23 channels, its input is 24",
            ),
        ] {
            assert_eq!(net.add("bad", op).unwrap_err().to_string(), format!(r#"node "bad" {problem}"#));
        }
    }

    #[test]
    fn pools_keep_channels_and_slide_along_each_axis() {
        let mut net = GraphBuilder::new("net", [5, 9, 6]).unwrap();
        net.add("max", Op::MaxPool { kernel: 3, stride: 2, padding: 1 }).unwrap();
        assert_eq!(net.shape(), Shape::Map { c: 5, h: 5, w: 3 });
        net.add("avg", Op::AvgPool { kernel: 2, stride: 1 }).unwrap();
        assert_eq!(net.shape(), Shape::Map { c: 5, h: 4, w: 2 });
        assert_eq!((net.shape().channels(), net.shape().positions()), (5, 8));
    }
}
