//! Which network: the names of the builders and the choices each of them takes, as written in a study.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thinet_graph::{Graph, Op, kept_channels, prunable_layer};

use crate::resnet::ResNetStride;
use crate::{ModelError, resnet, tiny, vgg};

/// The networks that can be built.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Arch {
    /// VGG-16 with its 4096-4096 head (Simonyan & Zisserman 2015).
    Vgg16,
    /// VGG-16 with an average over conv5_3's map and one linear layer (ThiNet-GAP; Luo et al. 2017, section 4).
    Vgg16Gap,
    /// ResNet-50 (He et al. 2016).
    Resnet50,
    /// VGG-16's convolutions for 32×32 images, with batch normalisation by default, and one linear layer.
    CifarVgg16,
    /// ResNet-20 for 32×32 images (He et al. 2016, section 4.2), projection shortcuts.
    CifarResnet20,
    /// ResNet-56 for 32×32 images, projection shortcuts.
    CifarResnet56,
    /// Three convolutions and one linear layer behind a flatten: for tests.
    Tiny,
}

impl Arch {
    /// Every architecture.
    pub const ALL: [Self; 7] = [
        Self::Vgg16,
        Self::Vgg16Gap,
        Self::Resnet50,
        Self::CifarVgg16,
        Self::CifarResnet20,
        Self::CifarResnet56,
        Self::Tiny,
    ];

    /// The name used in specs, files and on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Vgg16 => "vgg16",
            Self::Vgg16Gap => "vgg16-gap",
            Self::Resnet50 => "resnet50",
            Self::CifarVgg16 => "cifar-vgg16",
            Self::CifarResnet20 => "cifar-resnet20",
            Self::CifarResnet56 => "cifar-resnet56",
            Self::Tiny => "tiny",
        }
    }
}

impl fmt::Display for Arch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Arch {
    type Err = ModelError;

    fn from_str(name: &str) -> Result<Self, ModelError> {
        Self::ALL.into_iter().find(|arch| arch.name() == name).ok_or_else(|| ModelError::UnknownName {
            what: "arch",
            name: name.to_owned(),
            allowed: Self::ALL.map(Self::name).join(", "),
        })
    }
}

/// A network before its input and classes are known.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct NetSpec {
    /// Which builder.
    pub arch: Arch,
    /// Multiplies the width of every convolution and hidden linear layer: floor(C·width).
    #[serde(default = "one")]
    pub width: f64,
    /// Filters of single layers by name; these are taken as they are, `width` does not apply.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub widths: BTreeMap<String, usize>,
    /// Batch normalisation after every convolution; off in `vgg16` and `vgg16-gap`, on elsewhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch_norm: Option<bool>,
    /// Where `resnet50` strides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stride: Option<ResNetStride>,
    /// Dropout of `vgg16`'s hidden linear layers; 0.5 by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dropout: Option<f64>,
}

fn one() -> f64 {
    1.0
}

impl NetSpec {
    /// The architecture as published.
    #[must_use]
    pub fn new(arch: Arch) -> Self {
        Self { arch, width: 1.0, widths: BTreeMap::new(), batch_norm: None, stride: None, dropout: None }
    }

    /// The network for images of `input` = `[channels, height, width]`.
    ///
    /// # Errors
    /// If a choice does not apply to the architecture, a layer would have no channel, `widths` names a layer whose
    /// width cannot be set, or the image is too small for the pools.
    pub fn build(&self, input: [usize; 3], classes: usize) -> Result<Graph, ModelError> {
        self.check_choices()?;
        let mut widths = Widths { spec: self, settable: Vec::new(), fixed: Vec::new() };
        let graph = match self.arch {
            Arch::Vgg16 => vgg::vgg16(&mut widths, input, classes),
            Arch::Vgg16Gap => vgg::vgg16_gap(&mut widths, input, classes),
            Arch::CifarVgg16 => vgg::cifar_vgg16(&mut widths, input, classes),
            Arch::Resnet50 => resnet::resnet50(&mut widths, input, classes),
            Arch::CifarResnet20 => resnet::cifar_resnet(&mut widths, 3, input, classes),
            Arch::CifarResnet56 => resnet::cifar_resnet(&mut widths, 9, input, classes),
            Arch::Tiny => tiny::tiny(&mut widths, input, classes),
        }?;
        widths.check_names()?;
        Ok(graph)
    }

    /// The same network with floor(C·rate) filters in each of `layers`: the widths that pruning them at this keep
    /// rate leaves (Luo et al. 2017, section 3.2.3).
    ///
    /// # Errors
    /// If the spec does not build, a layer is unknown or cannot be pruned, or the rate is outside (0, 1] or leaves a
    /// layer with no channel.
    pub fn at_keep_rate(
        &self,
        input: [usize; 3],
        classes: usize,
        layers: &[impl AsRef<str>],
        rate: f64,
    ) -> Result<Self, ModelError> {
        let graph = self.build(input, classes)?;
        let mut pruned = self.clone();
        for layer in layers.iter().map(AsRef::as_ref) {
            let channels = prunable_layer(&graph, layer)?.channels;
            pruned.widths.insert(layer.to_owned(), kept_channels(layer, channels, rate)?);
        }
        Ok(pruned)
    }

    /// Whether the network normalises batches.
    pub(crate) fn has_batch_norm(&self) -> bool {
        self.batch_norm.unwrap_or(!matches!(self.arch, Arch::Vgg16 | Arch::Vgg16Gap))
    }

    fn check_choices(&self) -> Result<(), ModelError> {
        let bad = |key, problem: &str| {
            Err(ModelError::BadSpec { arch: self.arch.to_string(), key, problem: problem.to_owned() })
        };
        if !(self.width.is_finite() && self.width > 0.0) {
            return bad("width", &format!("is {}, it must be more than 0", self.width));
        }
        if self.stride.is_some() && self.arch != Arch::Resnet50 {
            return bad("stride", "cannot be chosen, only resnet50 has two layouts");
        }
        let residual = matches!(self.arch, Arch::Resnet50 | Arch::CifarResnet20 | Arch::CifarResnet56);
        if self.batch_norm == Some(false) && residual {
            return bad("batch-norm", "cannot be false, a residual network does not train without it");
        }
        match self.dropout {
            Some(_) if self.arch != Arch::Vgg16 => bad("dropout", "cannot be chosen, only vgg16 has hidden linear layers"),
            Some(p) if !(0.0..1.0).contains(&p) => bad("dropout", &format!("is {p}, it must be in [0, 1)")),
            _ => Ok(()),
        }
    }
}

/// Decides the width of each layer while a builder runs, and remembers which names a spec may use.
#[derive(Debug)]
pub(crate) struct Widths<'a> {
    pub(crate) spec: &'a NetSpec,
    settable: Vec<String>,
    fixed: Vec<String>,
}

impl Widths<'_> {
    /// Width of a layer that a spec may set by name; `published` is its width in the paper.
    pub(crate) fn settable(&mut self, layer: &str, published: usize) -> Result<usize, ModelError> {
        self.settable.push(layer.to_owned());
        match self.spec.widths.get(layer) {
            Some(0) => Err(ModelError::NoChannels { layer: layer.to_owned(), channels: published, width: 0.0 }),
            Some(&width) => Ok(width),
            None => self.scaled(layer, published),
        }
    }

    /// Width of a layer whose output is added to another: the multiplier applies, a name does not.
    pub(crate) fn fixed(&mut self, layer: &str, published: usize) -> Result<usize, ModelError> {
        self.fixed.push(layer.to_owned());
        self.scaled(layer, published)
    }

    fn scaled(&self, layer: &str, published: usize) -> Result<usize, ModelError> {
        let width = self.spec.width;
        // The guard that `kept_channels` has: 0.7·10 = 6.999… must not lose a channel.
        match (published as f64 * width + 1e-9).floor() as usize {
            0 => Err(ModelError::NoChannels { layer: layer.to_owned(), channels: published, width }),
            scaled => Ok(scaled),
        }
    }

    fn check_names(&self) -> Result<(), ModelError> {
        let Some(layer) = self.spec.widths.keys().find(|layer| !self.settable.contains(layer)) else {
            return Ok(());
        };
        let problem = if self.fixed.contains(layer) {
            "whose output is added to another layer's"
        } else {
            "which it does not have"
        };
        Err(ModelError::BadWidth {
            arch: self.spec.arch.to_string(),
            layer: layer.clone(),
            problem: problem.into(),
            allowed: self.settable.join(", "),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filters(graph: &Graph, layer: &str) -> usize {
        match graph.nodes()[graph.find(layer).unwrap()].op {
            Op::Conv { out_channels, .. } => out_channels,
            ref other => panic!("{layer} is {other:?}"),
        }
    }
}
