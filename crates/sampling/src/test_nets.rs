//! Two-layer networks and seeded tensors for the tests of this crate.

use rand::RngExt;
use tch::Tensor;
use thinet_graph::{ChannelGroup, Graph, GraphBuilder, Op, channel_group};
use thinet_seed::Seed;

/// Uniform in [-1, 1), the same for the same stream.
pub(crate) fn random(shape: &[i64], stream: u64) -> Tensor {
    let mut rng = Seed::root(0).index(stream).rng();
    let values: Vec<f32> = (0..shape.iter().product::<i64>()).map(|_| rng.random_range(-1.0..1.0)).collect();
    Tensor::from_slice(&values).reshape(shape)
}

pub(crate) fn host(tensor: &Tensor) -> Vec<f32> {
    Vec::try_from(tensor.flatten(0, -1)).unwrap()
}

/// Image of 2 channels → conv "a" → ReLU → (max pool) → conv "b" with bias.
pub(crate) fn conv_net(
    channels: usize,
    filters: usize,
    kernel: usize,
    stride: usize,
    padding: usize,
    size: usize,
    pool: Option<usize>,
) -> (Graph, ChannelGroup) {
    let mut net = start(channels, size);
    if let Some(kernel) = pool {
        net.add("pool", Op::MaxPool { kernel, stride: kernel, padding: 0 }).unwrap();
    }
    let b = Op::Conv { in_channels: channels, out_channels: filters, kernel, stride, padding, bias: true };
    net.add("b", b).unwrap();
    finish(net)
}

/// Image of 2 channels → conv "a" → ReLU → flatten → linear "b".
pub(crate) fn linear_net(channels: usize, features: usize, size: usize) -> (Graph, ChannelGroup) {
    let mut net = start(channels, size);
    net.add("flatten", Op::Flatten {}).unwrap();
    net.add("b", Op::Linear { in_features: channels * size * size, out_features: features }).unwrap();
    finish(net)
}

fn start(channels: usize, size: usize) -> GraphBuilder {
    let mut net = GraphBuilder::new("test", [2, size, size]).unwrap();
    let a = Op::Conv { in_channels: 2, out_channels: channels, kernel: 1, stride: 1, padding: 0, bias: true };
    net.add("a", a).unwrap();
    net.add("relu", Op::Relu {}).unwrap();
    net
}

fn finish(net: GraphBuilder) -> (Graph, ChannelGroup) {
    let graph = net.finish();
    let layer = channel_group(&graph, "a").unwrap();
    (graph, layer)
}
