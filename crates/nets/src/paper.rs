//! The eight networks whose sizes the paper prints (Luo et al. 2017, tables 1 and 3), as specs.

use std::collections::BTreeMap;

use thinet_graph::Graph;

use crate::{Arch, NetError, NetSpec, ResNetStride, resnet50_pruned_layers, vgg16_pruned_layers};

const IMAGENET: [usize; 3] = [3, 224, 224];
const IMAGENET_CLASSES: usize = 1000;

/// Filters of ThiNet-Tiny, conv1_1 to conv5_3 (the authors' released prototxt).
const TINY: [(&str, usize); 13] = [
    ("conv1_1", 16),
    ("conv1_2", 16),
    ("conv2_1", 32),
    ("conv2_2", 32),
    ("conv3_1", 64),
    ("conv3_2", 64),
    ("conv3_3", 64),
    ("conv4_1", 128),
    ("conv4_2", 128),
    ("conv4_3", 128),
    ("conv5_1", 128),
    ("conv5_2", 128),
    ("conv5_3", 256),
];

/// A network of the paper.
#[derive(Clone, Debug)]
pub struct PaperModel {
    /// Its name in a table and on the command line, such as `thinet-gap`.
    pub name: &'static str,
    pub spec: NetSpec,
}

impl PaperModel {
    /// The network for 224×224 colour images and 1000 classes.
    ///
    /// # Errors
    /// If the spec does not build.
    pub fn build(&self) -> Result<Graph, NetError> {
        self.spec.build(IMAGENET, IMAGENET_CLASSES)
    }
}

/// The eight networks in the order of the paper's tables. `stride` places the stride of the ResNets: the paper counts
/// [`ResNetStride::First1x1`].
///
/// # Errors
/// If a spec does not build.
pub fn paper_models(stride: ResNetStride) -> Result<Vec<PaperModel>, NetError> {
    let vgg16 = NetSpec::new(Arch::Vgg16);
    let gap = NetSpec::new(Arch::Vgg16Gap);
    let tiny = NetSpec {
        widths: TINY.iter().map(|&(layer, width)| (layer.to_owned(), width)).collect::<BTreeMap<_, _>>(),
        ..gap
    };
    let resnet = NetSpec { stride: Some(stride), ..NetSpec::new(Arch::Resnet50) };
    let pruned =
        |spec: &NetSpec, layers: &[String], rate| spec.at_keep_rate(IMAGENET, IMAGENET_CLASSES, layers, rate);
    let (vgg_layers, resnet_layers) = (vgg16_pruned_layers(), resnet50_pruned_layers());
    let conv = pruned(&vgg16, &vgg_layers, 0.5)?;
    let thinet_gap = pruned(&gap, &vgg_layers, 0.5)?;
    let [at_70, at_50, at_30] = [0.7, 0.5, 0.3].map(|rate| pruned(&resnet, &resnet_layers, rate));
    Ok(vec![
        PaperModel { name: "vgg16", spec: vgg16 },
        PaperModel { name: "thinet-conv", spec: conv },
        PaperModel { name: "thinet-gap", spec: thinet_gap },
        PaperModel { name: "thinet-tiny", spec: tiny },
        PaperModel { name: "resnet50", spec: resnet },
        PaperModel { name: "thinet-70", spec: at_70? },
        PaperModel { name: "thinet-50", spec: at_50? },
        PaperModel { name: "thinet-30", spec: at_30? },
    ])
}
