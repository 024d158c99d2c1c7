//! Pieces that the builders share: convolution with what follows it, and the classifier behind a global average.

use thinet_graph::{GraphBuilder, GraphError, NodeId, Op, Shape};

/// Batch normalisation as torchvision sets it.
const BN_EPS: f64 = 1e-5;
const BN_MOMENTUM: f64 = 0.1;

/// A square convolution without its input width, which is that of the node it reads.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Conv {
    pub(crate) filters: usize,
    pub(crate) kernel: usize,
    pub(crate) stride: usize,
}

impl Conv {
    /// Adds the convolution, padded so that stride 1 keeps the size.
    pub(crate) fn add(
        self,
        net: &mut GraphBuilder,
        name: &str,
        from: (NodeId, usize),
        bias: bool,
    ) -> Result<NodeId, GraphError> {
        let Self { filters, kernel, stride } = self;
        let (input, in_channels) = from;
        let op = Op::Conv { in_channels, out_channels: filters, kernel, stride, padding: kernel / 2, bias };
        net.add_from(name, op, vec![input])
    }
}

/// The last node and its channels.
pub(crate) fn tip(net: &GraphBuilder) -> (NodeId, usize) {
    (net.last(), net.shape().channels())
}

/// Adds a batch normalisation of the last node.
pub(crate) fn batch_norm(net: &mut GraphBuilder, name: &str) -> Result<NodeId, GraphError> {
    let channels = net.shape().channels();
    net.add(name, Op::BatchNorm { channels, eps: BN_EPS, momentum: BN_MOMENTUM })
}

/// Adds an average over the whole remaining map, which must be square.
pub(crate) fn global_average(net: &mut GraphBuilder, name: &str) -> Result<NodeId, GraphError> {
    match net.shape() {
        Shape::Map { h, w, .. } if h == w => net.add(name, Op::AvgPool { kernel: h, stride: h }),
        found => Err(GraphError::ShapeMismatch {
            node: name.to_owned(),
            expected: "a square map".into(),
            found: found.to_string(),
        }),
    }
}

/// Adds a flatten if the last node is a map, then a linear layer.
pub(crate) fn linear(net: &mut GraphBuilder, name: &str, out_features: usize) -> Result<NodeId, GraphError> {
    if let Shape::Map { .. } = net.shape() {
        net.add("flatten", Op::Flatten {})?;
    }
    let in_features = net.shape().channels();
    net.add(name, Op::Linear { in_features, out_features })
}
