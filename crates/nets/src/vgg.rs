//! VGG-16, its global-average variant and its form for 32×32 images (Luo et al. 2017, section 4.2).

use thinet_graph::{Graph, GraphBuilder, GraphError, Op};

use crate::NetError;
use crate::parts::{Conv, batch_norm, global_average, linear, tip};
use crate::spec::Widths;

/// Convolutions and their filters, stage by stage; a 2×2 max pool ends each stage.
const STAGES: [(usize, usize); 5] = [(2, 64), (2, 128), (3, 256), (3, 512), (3, 512)];
const HIDDEN: usize = 4096;
const DROPOUT: f64 = 0.5;

/// The ten convolutions that the paper prunes: conv1_1 to conv4_3, where 90 % of the FLOPs are.
#[must_use]
pub fn vgg16_pruned_layers() -> Vec<String> {
    conv_names().into_iter().take(10).collect()
}

/// conv1_1 … conv5_3.
fn conv_names() -> Vec<String> {
    let stages = STAGES.iter().zip(1..);
    stages.flat_map(|(&(convs, _), stage)| (1..=convs).map(move |i| format!("conv{stage}_{i}"))).collect()
}

/// Thirteen convolutions, five pools, fc6 and fc7 with dropout, fc8.
pub(crate) fn vgg16(widths: &mut Widths, input: [usize; 3], classes: usize) -> Result<Graph, NetError> {
    let mut net = GraphBuilder::new("vgg16", input)?;
    features(&mut net, widths, Pool5::Max)?;
    let p = widths.spec.dropout.unwrap_or(DROPOUT);
    for i in [6, 7] {
        let name = format!("fc{i}");
        let hidden = widths.settable(&name, HIDDEN)?;
        linear(&mut net, &name, hidden)?;
        net.add(format!("relu{i}"), Op::Relu {})?;
        net.add(format!("drop{i}"), Op::Dropout { p })?;
    }
    linear(&mut net, "fc8", classes)?;
    Ok(net.finish())
}

/// Pool5 becomes an average over conv5_3's whole map (14×14 for 224×224 images); one linear layer follows.
pub(crate) fn vgg16_gap(widths: &mut Widths, input: [usize; 3], classes: usize) -> Result<Graph, NetError> {
    let mut net = GraphBuilder::new("vgg16-gap", input)?;
    features(&mut net, widths, Pool5::GlobalAverage)?;
    linear(&mut net, "fc", classes)?;
    Ok(net.finish())
}

/// All five max pools, an average over what they leave (1×1 for 32×32 images), one linear layer.
pub(crate) fn cifar_vgg16(widths: &mut Widths, input: [usize; 3], classes: usize) -> Result<Graph, NetError> {
    let mut net = GraphBuilder::new("cifar-vgg16", input)?;
    features(&mut net, widths, Pool5::Max)?;
    global_average(&mut net, "avgpool")?;
    linear(&mut net, "fc", classes)?;
    Ok(net.finish())
}

/// What ends the fifth stage.
#[derive(Clone, Copy, PartialEq)]
enum Pool5 {
    Max,
    GlobalAverage,
}

fn features(net: &mut GraphBuilder, widths: &mut Widths, pool5: Pool5) -> Result<(), NetError> {
    let normalise = widths.spec.has_batch_norm();
    for (&(convs, published), stage) in STAGES.iter().zip(1..) {
        for i in 1..=convs {
            let name = format!("conv{stage}_{i}");
            let filters = widths.settable(&name, published)?;
            let from = tip(net);
            // A bias before a batch normalisation would be subtracted again.
            Conv { filters, kernel: 3, stride: 1 }.add(net, &name, from, !normalise)?;
            if normalise {
                batch_norm(net, &format!("bn{stage}_{i}"))?;
            }
            net.add(format!("relu{stage}_{i}"), Op::Relu {})?;
        }
        let pool = format!("pool{stage}");
        if stage == STAGES.len() && pool5 == Pool5::GlobalAverage {
            global_average(net, &pool)?;
        } else {
            max_pool(net, &pool)?;
        }
    }
    Ok(())
}

fn max_pool(net: &mut GraphBuilder, name: &str) -> Result<(), GraphError> {
    net.add(name, Op::MaxPool { kernel: 2, stride: 2, padding: 0 }).map(drop)
}
