//! ResNet-50 under torchvision's tensor names, and the ResNets for 32×32 images (He et al. 2016).

use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use thinet_graph::{Graph, GraphBuilder, NodeId, Op};

use crate::NetError;
use crate::parts::{Conv, batch_norm, global_average, linear, tip};
use crate::spec::Widths;

/// Blocks and inner filters of ResNet-50's four stages; a block's output is four times as wide.
const BOTTLENECKS: [(usize, usize); 4] = [(3, 64), (4, 128), (6, 256), (3, 512)];
const EXPANSION: usize = 4;
/// Filters of the three stages of a ResNet for 32×32 images.
const BASIC_STAGES: [usize; 3] = [16, 32, 64];

/// Which convolution of a down-sampling bottleneck has stride 2.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ResNetStride {
    /// The first 1×1: the original Caffe network, which the paper prunes and counts.
    #[default]
    #[serde(rename = "1x1")]
    First1x1,
    /// The 3×3: torchvision's network.
    #[serde(rename = "3x3")]
    Middle3x3,
}

impl FromStr for ResNetStride {
    type Err = NetError;

    fn from_str(name: &str) -> Result<Self, NetError> {
        match name {
            "1x1" => Ok(Self::First1x1),
            "3x3" => Ok(Self::Middle3x3),
            _ => Err(NetError::UnknownName {
                what: "stride",
                name: name.to_owned(),
                allowed: "1x1, 3x3".into(),
            }),
        }
    }
}

/// The first two convolutions of all 16 blocks: what the paper prunes (Luo et al. 2017, section 4.3).
#[must_use]
pub fn resnet50_pruned_layers() -> Vec<String> {
    let stages = BOTTLENECKS.iter().zip(1..);
    let blocks = stages.flat_map(|(&(blocks, _), stage)| (0..blocks).map(move |b| (stage, b)));
    blocks.flat_map(|(stage, b)| [1, 2].map(|conv| format!("layer{stage}.{b}.conv{conv}"))).collect()
}

/// Stem, 16 bottlenecks, global average, one linear layer.
pub(crate) fn resnet50(widths: &mut Widths, input: [usize; 3], classes: usize) -> Result<Graph, NetError> {
    let mut net = GraphBuilder::new("resnet50", input)?;
    let filters = widths.fixed("conv1", 64)?;
    let from = tip(&net);
    Conv { filters, kernel: 7, stride: 2 }.add(&mut net, "conv1", from, false)?;
    batch_norm(&mut net, "bn1")?;
    net.add("relu", Op::Relu {})?;
    net.add("maxpool", Op::MaxPool { kernel: 3, stride: 2, padding: 1 })?;
    for (&(blocks, inner), stage) in BOTTLENECKS.iter().zip(1..) {
        for b in 0..blocks {
            let stride = if stage > 1 && b == 0 { 2 } else { 1 };
            bottleneck(&mut net, widths, &format!("layer{stage}.{b}"), inner, stride, b == 0)?;
        }
    }
    global_average(&mut net, "avgpool")?;
    linear(&mut net, "fc", classes)?;
    Ok(net.finish())
}

/// 1×1, 3×3, 1×1, added to the block's input; the `first` block of a stage projects its input.
fn bottleneck(
    net: &mut GraphBuilder,
    widths: &mut Widths,
    block: &str,
    inner: usize,
    stride: usize,
    first: bool,
) -> Result<(), NetError> {
    let input = tip(net);
    let (stride1, stride2) = match widths.spec.stride.unwrap_or_default() {
        ResNetStride::First1x1 => (stride, 1),
        ResNetStride::Middle3x3 => (1, stride),
    };
    for (i, kernel, stride) in [(1, 1, stride1), (2, 3, stride2)] {
        let filters = widths.settable(&format!("{block}.conv{i}"), inner)?;
        conv_bn(net, block, i, Conv { filters, kernel, stride })?;
        net.add(format!("{block}.relu{i}"), Op::Relu {})?;
    }
    let filters = widths.fixed(&format!("{block}.conv3"), EXPANSION * inner)?;
    let branch = conv_bn(net, block, 3, Conv { filters, kernel: 1, stride: 1 })?;
    let projection = first.then_some((Conv { filters, kernel: 1, stride }, EXPANSION * inner));
    join(net, widths, block, input, branch, projection)?;
    net.add(format!("{block}.relu3"), Op::Relu {})?;
    Ok(())
}

/// 6·`blocks` + 2 layers in three stages. A stage that narrows the map has a 1×1 projection with batch
/// normalisation as its shortcut (He et al.'s option B): their option A pads channels with zeros, which no node does.
pub(crate) fn cifar_resnet(
    widths: &mut Widths,
    blocks: usize,
    input: [usize; 3],
    classes: usize,
) -> Result<Graph, NetError> {
    let mut net = GraphBuilder::new(widths.spec.arch.name(), input)?;
    let filters = widths.fixed("conv1", BASIC_STAGES[0])?;
    let from = tip(&net);
    Conv { filters, kernel: 3, stride: 1 }.add(&mut net, "conv1", from, false)?;
    batch_norm(&mut net, "bn1")?;
    net.add("relu", Op::Relu {})?;
    for (&published, stage) in BASIC_STAGES.iter().zip(1..) {
        for b in 0..blocks {
            let stride = if stage > 1 && b == 0 { 2 } else { 1 };
            basic_block(&mut net, widths, &format!("layer{stage}.{b}"), published, stride)?;
        }
    }
    global_average(&mut net, "avgpool")?;
    linear(&mut net, "fc", classes)?;
    Ok(net.finish())
}

/// 3×3, 3×3, added to the block's input, which is projected where the block strides.
fn basic_block(
    net: &mut GraphBuilder,
    widths: &mut Widths,
    block: &str,
    published: usize,
    stride: usize,
) -> Result<(), NetError> {
    let input = tip(net);
    let inner = widths.settable(&format!("{block}.conv1"), published)?;
    conv_bn(net, block, 1, Conv { filters: inner, kernel: 3, stride })?;
    net.add(format!("{block}.relu1"), Op::Relu {})?;
    let filters = widths.fixed(&format!("{block}.conv2"), published)?;
    let branch = conv_bn(net, block, 2, Conv { filters, kernel: 3, stride: 1 })?;
    let projection = (stride > 1).then_some((Conv { filters, kernel: 1, stride }, published));
    join(net, widths, block, input, branch, projection)?;
    net.add(format!("{block}.relu2"), Op::Relu {})?;
    Ok(())
}

/// Adds `<block>.conv<i>` and `<block>.bn<i>` to the last node.
fn conv_bn(net: &mut GraphBuilder, block: &str, i: usize, conv: Conv) -> Result<NodeId, NetError> {
    let from = tip(net);
    conv.add(net, &format!("{block}.conv{i}"), from, false)?;
    Ok(batch_norm(net, &format!("{block}.bn{i}"))?)
}

/// Adds the branch to the block's input, or to its 1×1 projection with batch normalisation.
fn join(
    net: &mut GraphBuilder,
    widths: &mut Widths,
    block: &str,
    input: (NodeId, usize),
    branch: NodeId,
    projection: Option<(Conv, usize)>,
) -> Result<(), NetError> {
    let shortcut = match projection {
        Some((conv, published)) => {
            let name = format!("{block}.downsample.0");
            widths.fixed(&name, published)?;
            conv.add(net, &name, input, false)?;
            batch_norm(net, &format!("{block}.downsample.1"))?
        }
        None => input.0,
    };
    net.add_from(format!("{block}.add"), Op::Add {}, vec![branch, shortcut])?;
    Ok(())
}
