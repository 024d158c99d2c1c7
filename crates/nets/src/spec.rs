//! The specification of a network, as written in a study: architecture and options.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use thinet_graph::{Graph, channel_group, kept_channels};

use crate::resnet::ResNetStride;
use crate::{NetError, resnet, tiny, vgg};

/// The networks that can be built.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
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

    /// One line of description.
    #[must_use]
    pub fn about(self) -> &'static str {
        match self {
            Self::Vgg16 => "VGG-16 with its 4096-4096 head",
            Self::Vgg16Gap => "VGG-16 with a global average and one linear layer (the layout of ThiNet-GAP)",
            Self::Resnet50 => {
                "ResNet-50, stride in the first 1x1 (the paper's) or in the 3x3 (torchvision's)"
            }
            Self::CifarVgg16 => "VGG-16's 13 convolutions for 32×32 images, one linear layer, BN by default",
            Self::CifarResnet20 => "ResNet-20 for 32×32 images, projection shortcuts",
            Self::CifarResnet56 => "ResNet-56 for 32×32 images, projection shortcuts",
            Self::Tiny => "three convolutions and one linear layer behind a flatten, for tests",
        }
    }

    /// The `[channels, height, width]` that the network was published for.
    #[must_use]
    pub fn input(self) -> [usize; 3] {
        match self {
            Self::Vgg16 | Self::Vgg16Gap | Self::Resnet50 => [3, 224, 224],
            Self::CifarVgg16 | Self::CifarResnet20 | Self::CifarResnet56 => [3, 32, 32],
            Self::Tiny => [3, 8, 8],
        }
    }

    /// The number of classes that the network was published for.
    #[must_use]
    pub fn classes(self) -> usize {
        match self {
            Self::Vgg16 | Self::Vgg16Gap | Self::Resnet50 => 1000,
            Self::CifarVgg16 | Self::CifarResnet20 | Self::CifarResnet56 | Self::Tiny => 10,
        }
    }
}

impl fmt::Display for Arch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Arch {
    type Err = NetError;

    fn from_str(name: &str) -> Result<Self, NetError> {
        Self::ALL.into_iter().find(|arch| arch.name() == name).ok_or_else(|| NetError::UnknownName {
            what: "arch",
            name: name.to_owned(),
            allowed: Self::ALL.map(Self::name).join(", "),
        })
    }
}

/// Limits of the width multiplier and of a layer's filters: larger nets fit no machine, and their counts overflow.
const MAX_WIDTH: f64 = 64.0;
const MAX_FILTERS: usize = 65_536;

/// A network before its input and classes are known.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct NetSpec {
    /// The architecture. Required; `thinet list models` lists them.
    pub arch: Arch,
    /// Multiplies the width of every convolution and hidden linear layer: floor(C·width). Above 0, at most 64. Default: 1.
    #[serde(default = "one")]
    pub width: f64,
    /// Filters of single layers by name, each 1 to 65,536; `width` does not apply to them. Default: none.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub widths: BTreeMap<String, usize>,
    /// Batch normalisation after every convolution. Default: off in `vgg16` and `vgg16-gap`, on elsewhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch_norm: Option<bool>,
    /// Where `resnet50` strides; for other networks it is refused. Default: 1x1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stride: Option<ResNetStride>,
    /// Dropout of `vgg16`'s hidden linear layers, in [0, 1); for other networks it is refused. Default: 0.5.
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
    pub fn build(&self, input: [usize; 3], classes: usize) -> Result<Graph, NetError> {
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
    /// If the spec does not build, a layer is unknown or cannot be pruned, a layer is a group whose width no spec can set (a
    /// residual stage), or the rate is outside (0, 1] or leaves a layer with no channel.
    pub fn at_keep_rate(
        &self,
        input: [usize; 3],
        classes: usize,
        layers: &[impl AsRef<str>],
        rate: f64,
    ) -> Result<Self, NetError> {
        let graph = self.build(input, classes)?;
        let mut pruned = self.clone();
        for layer in layers.iter().map(AsRef::as_ref) {
            let channels = channel_group(&graph, layer)?.channels;
            pruned.widths.insert(layer.to_owned(), kept_channels(layer, channels, rate)?);
        }
        pruned.build(input, classes)?;
        Ok(pruned)
    }

    /// Whether the network normalises batches.
    pub(crate) fn has_batch_norm(&self) -> bool {
        self.batch_norm.unwrap_or(!matches!(self.arch, Arch::Vgg16 | Arch::Vgg16Gap))
    }

    fn check_choices(&self) -> Result<(), NetError> {
        let bad = |key, problem: &str| {
            Err(NetError::BadSpec { arch: self.arch.to_string(), key, problem: problem.to_owned() })
        };
        if !(self.width > 0.0 && self.width <= MAX_WIDTH) {
            return bad(
                "width",
                &format!("is {:?}, it must be more than 0 and at most {MAX_WIDTH}", self.width),
            );
        }
        if let Some((layer, filters)) = self.widths.iter().find(|(_, filters)| **filters > MAX_FILTERS) {
            return bad(
                "widths",
                &format!("asks for {filters} filters in {layer}, at most {MAX_FILTERS} are allowed"),
            );
        }
        if self.stride.is_some() && self.arch != Arch::Resnet50 {
            return bad("stride", "cannot be chosen; only resnet50 has two layouts");
        }
        let residual = matches!(self.arch, Arch::Resnet50 | Arch::CifarResnet20 | Arch::CifarResnet56);
        if self.batch_norm == Some(false) && residual {
            return bad("batch-norm", "cannot be false; a residual network does not train without it");
        }
        match self.dropout {
            Some(_) if self.arch != Arch::Vgg16 => {
                bad("dropout", "cannot be chosen; only vgg16 has hidden linear layers")
            }
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
    pub(crate) fn settable(&mut self, layer: &str, published: usize) -> Result<usize, NetError> {
        self.settable.push(layer.to_owned());
        match self.spec.widths.get(layer) {
            Some(0) => Err(NetError::NoChannels { layer: layer.to_owned(), channels: published, width: 0.0 }),
            Some(&width) => Ok(width),
            None => self.scaled(layer, published),
        }
    }

    /// Width of a layer that feeds an addition, itself or through the chain it heads: the multiplier applies, a name
    /// does not.
    pub(crate) fn fixed(&mut self, layer: &str, published: usize) -> Result<usize, NetError> {
        self.fixed.push(layer.to_owned());
        self.scaled(layer, published)
    }

    fn scaled(&self, layer: &str, published: usize) -> Result<usize, NetError> {
        let width = self.spec.width;
        // The guard that `kept_channels` has: 0.7·10 = 6.999… must not lose a channel.
        match (published as f64 * width + 1e-9).floor() as usize {
            0 => Err(NetError::NoChannels { layer: layer.to_owned(), channels: published, width }),
            scaled => Ok(scaled),
        }
    }

    fn check_names(&self) -> Result<(), NetError> {
        let Some(layer) = self.spec.widths.keys().find(|layer| !self.settable.contains(layer)) else {
            return Ok(());
        };
        let problem =
            if self.fixed.contains(layer) { "which feeds an addition" } else { "which it does not have" };
        Err(NetError::BadWidth {
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
    use thinet_graph::{Op, Shape, count, prunable_layers};

    fn filters(graph: &Graph, layer: &str) -> usize {
        match graph.nodes()[graph.find(layer).unwrap()].op {
            Op::Conv { out_channels, .. } => out_channels,
            ref other => panic!("{layer} is {other:?}"),
        }
    }

    fn message(spec: &NetSpec) -> String {
        spec.build(spec.arch.input(), spec.arch.classes()).unwrap_err().to_string()
    }

    #[test]
    fn names_are_those_that_serde_uses() {
        for arch in Arch::ALL {
            assert_eq!(serde_json::to_value(arch).unwrap(), arch.name());
            assert_eq!(arch.name().parse::<Arch>().unwrap(), arch);
        }
        let error = "resnet18".parse::<Arch>().unwrap_err().to_string();
        assert!(error.contains("\"resnet18\"") && error.contains("cifar-resnet20"), "{error}");
    }

    #[test]
    fn a_spec_needs_only_its_arch_and_refuses_strange_keys() {
        let spec: NetSpec = serde_json::from_str(r#"{"arch": "resnet50", "stride": "3x3"}"#).unwrap();
        assert_eq!(spec, NetSpec { stride: Some(ResNetStride::Middle3x3), ..NetSpec::new(Arch::Resnet50) });
        let error =
            serde_json::from_str::<NetSpec>(r#"{"arch": "tiny", "witdh": 2}"#).unwrap_err().to_string();
        assert!(error.contains("witdh"), "{error}");
    }

    #[test]
    fn every_arch_builds_for_grey_images_of_32_pixels() {
        for arch in Arch::ALL {
            let graph = NetSpec { width: 0.125, ..NetSpec::new(arch) }.build([1, 32, 32], 7).unwrap();
            assert_eq!(graph.name(), arch.name());
            assert_eq!(graph.input_shape(), [1, 32, 32]);
            assert_eq!(graph.classes(), 7);
        }
    }

    #[test]
    fn vgg16_gap_averages_what_conv5_3_leaves() {
        let spec = NetSpec::new(Arch::Vgg16Gap);
        for (size, left) in [(224, 14), (32, 2)] {
            let graph = spec.build([3, size, size], 10).unwrap();
            let map = graph.shape(graph.find("relu5_3").unwrap());
            assert_eq!(map, Shape::Map { c: 512, h: left, w: left });
            assert_eq!(graph.shape(graph.find("pool5").unwrap()), Shape::Map { c: 512, h: 1, w: 1 });
        }
        let error = spec.build([3, 64, 32], 10).unwrap_err().to_string();
        assert!(error.contains("pool5") && error.contains("square"), "{error}");
    }

    #[test]
    fn width_multiplies_convolutions_and_hidden_layers_rounding_down() {
        let spec = NetSpec { width: 0.3, ..NetSpec::new(Arch::Vgg16) };
        let graph = spec.build([3, 32, 32], 10).unwrap();
        assert_eq!(filters(&graph, "conv1_1"), 19);
        assert_eq!(filters(&graph, "conv5_3"), 153);
        assert_eq!(graph.shape(graph.find("fc7").unwrap()), Shape::Flat(1228));
        // 10·0.7 is 6.999… in binary.
        let spec = NetSpec { width: 1.4, ..NetSpec::new(Arch::Tiny) };
        assert_eq!(filters(&spec.build([3, 8, 8], 2).unwrap(), "conv1"), 11);
    }

    #[test]
    fn a_width_that_leaves_nothing_is_refused_by_layer() {
        let spec = NetSpec { width: 0.01, ..NetSpec::new(Arch::CifarVgg16) };
        assert!(message(&spec).contains("layer \"conv1_1\""), "{}", message(&spec));
        for width in [0.0, -1.0, f64::NAN, f64::INFINITY, 1e300, 64.5] {
            let spec = NetSpec { width, ..NetSpec::new(Arch::Tiny) };
            assert!(message(&spec).starts_with("width of tiny is"), "{}", message(&spec));
        }
    }

    #[test]
    fn more_filters_than_a_machine_can_hold_are_refused_by_layer() {
        let widths = BTreeMap::from([("conv1".to_owned(), 1 << 62)]);
        let message = message(&NetSpec { widths, ..NetSpec::new(Arch::Tiny) });
        assert!(
            message.starts_with("widths of tiny asks for 4611686018427387904 filters in conv1"),
            "{message}"
        );
    }

    #[test]
    fn explicit_widths_override_the_multiplier() {
        let widths = BTreeMap::from([("layer1.0.conv2".to_owned(), 5)]);
        let spec = NetSpec { width: 0.5, widths, ..NetSpec::new(Arch::Resnet50) };
        let graph = spec.build([3, 64, 64], 10).unwrap();
        assert_eq!(filters(&graph, "layer1.0.conv2"), 5);
        assert_eq!(filters(&graph, "layer1.0.conv1"), 32);
    }

    #[test]
    fn widths_of_unknown_added_or_empty_layers_are_refused() {
        let with = |arch, layer: &str, width| {
            message(&NetSpec { widths: BTreeMap::from([(layer.to_owned(), width)]), ..NetSpec::new(arch) })
        };
        let unknown = with(Arch::Vgg16Gap, "conv6_1", 8);
        assert!(unknown.contains("\"conv6_1\", which it does not have"), "{unknown}");
        assert!(unknown.contains("conv5_3"), "{unknown}");
        for (arch, layer) in [
            (Arch::Resnet50, "layer1.0.conv3"),
            (Arch::Resnet50, "conv1"),
            (Arch::CifarResnet20, "layer2.0.downsample.0"),
            (Arch::CifarResnet56, "layer3.8.conv2"),
        ] {
            let added = with(arch, layer, 8);
            assert!(added.contains(&format!("{layer:?}, which feeds an addition")), "{added}");
        }
        assert!(with(Arch::Tiny, "conv2", 0).contains("layer \"conv2\""));
    }

    #[test]
    fn choices_of_other_architectures_are_refused() {
        let base = NetSpec::new;
        let specs = [
            (NetSpec { stride: Some(ResNetStride::First1x1), ..base(Arch::Vgg16) }, "stride of vgg16"),
            (NetSpec { dropout: Some(0.1), ..base(Arch::Resnet50) }, "dropout of resnet50"),
            (NetSpec { dropout: Some(1.0), ..base(Arch::Vgg16) }, "dropout of vgg16 is 1"),
            (
                NetSpec { batch_norm: Some(false), ..base(Arch::CifarResnet20) },
                "batch-norm of cifar-resnet20",
            ),
        ];
        for (spec, start) in specs {
            assert!(message(&spec).starts_with(start), "{}", message(&spec));
        }
    }

    #[test]
    fn settable_widths_are_exactly_those_of_prunable_layers_and_hidden_layers() {
        for arch in Arch::ALL {
            let spec = NetSpec::new(arch);
            let graph = spec.build(arch.input(), arch.classes()).unwrap();
            for layer in prunable_layers(&graph) {
                let one_less = BTreeMap::from([(layer.name.clone(), layer.channels - 1)]);
                let spec = NetSpec { widths: one_less, ..spec.clone() };
                let narrower = spec.build(arch.input(), arch.classes()).unwrap();
                assert_eq!(filters(&narrower, &layer.name), layer.channels - 1);
            }
        }
    }

    #[test]
    fn a_keep_rate_sets_the_widths_that_pruning_leaves() {
        let spec = NetSpec::new(Arch::Resnet50);
        let layers = crate::resnet50_pruned_layers();
        assert_eq!(layers.len(), 32);
        let pruned = spec.at_keep_rate([3, 224, 224], 1000, &layers, 0.7).unwrap();
        assert_eq!(pruned.widths["layer1.0.conv1"], 44);
        assert_eq!(pruned.widths["layer4.2.conv2"], 358);
        let error = spec.at_keep_rate([3, 224, 224], 1000, &["layer1.0.conv3"], 0.5).unwrap_err().to_string();
        assert!(error.contains("layer1.0.conv3"), "{error}");
        let error =
            spec.at_keep_rate([3, 224, 224], 1000, &["layer1.0.conv1"], 0.01).unwrap_err().to_string();
        assert!(error.contains("layer1.0.conv1") && error.contains("leaves no channel"), "{error}");
        let error = spec.at_keep_rate([3, 224, 224], 1000, &["layer1.0.add"], 0.5).unwrap_err().to_string();
        assert!(error.contains("\"layer1.0.add\", which it does not have"), "{error}");
    }

    #[test]
    fn resnet_strides_move_cost_but_no_parameter() {
        let counts = [ResNetStride::First1x1, ResNetStride::Middle3x3].map(|stride| {
            let spec = NetSpec { stride: Some(stride), ..NetSpec::new(Arch::Resnet50) };
            count(&spec.build([3, 224, 224], 1000).unwrap(), thinet_graph::Convention::AllParameters)
        });
        assert_eq!(counts[0].params, counts[1].params);
        assert_eq!(counts[1].macs, 4_089_184_256);
        assert!(counts[0].macs < counts[1].macs);
    }
}
