//! Published accuracies and times of the eight models (Luo et al. 2017, tables 1 and 3, and the journal version).

use serde::Deserialize;

use super::Figure;

/// How the weights behind a row of accuracies were obtained.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Method {
    /// The dense net.
    Original,
    /// Pruned and fine-tuned.
    Thinet,
    /// The pruned net's widths, trained from random weights.
    Scratch,
}

/// The publication of a row of accuracies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Paper {
    /// ICCV 2017, tables 1 and 3.
    Iccv,
    /// The journal version, TPAMI 2019.
    Tpami,
    /// README of the authors' code.
    Readme,
}

/// How a test image is resized before its centre crop of 224×224.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum Protocol {
    /// To 256×256; the aspect is lost.
    #[serde(rename = "256x256")]
    Square256,
    /// Shorter side to 256; the aspect is kept.
    #[serde(rename = "shorter side 256")]
    ShorterSide256,
    /// Not stated in any source.
    #[serde(rename = "not stated")]
    NotStated,
}

impl Protocol {
    /// The protocol in words.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Square256 => "256x256",
            Self::ShorterSide256 => "shorter side 256",
            Self::NotStated => "not stated",
        }
    }
}

/// Identifies the row of a dense net.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OriginalRow {
    /// The dense net, `vgg16` or `resnet50`.
    pub model: String,
    pub paper: Paper,
}

/// Published accuracy of a model on ImageNet, per cent, one centre crop.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Accuracy {
    /// Our name of the model, as in [`thinet_nets::paper_models`].
    pub model: String,
    pub method: Method,
    pub paper: Paper,
    /// How test images were resized.
    pub protocol: Protocol,
    /// Whether `protocol` is inferred rather than stated in a source.
    #[serde(default)]
    pub protocol_inferred: bool,
    /// Top-1 accuracy, per cent.
    pub top1: Figure,
    /// Top-5 accuracy, per cent.
    pub top5: Figure,
    /// The original row of the same protocol, from which the drop is computed; `None` for the original itself, and where no row of
    /// that protocol is published.
    pub baseline: Option<OriginalRow>,
    /// The original row of the same table, if it has another protocol.
    pub printed_baseline: Option<OriginalRow>,
}

impl Accuracy {
    /// The protocol in words, labelled if it is inferred: `256x256 (inferred)`.
    #[must_use]
    pub fn protocol_text(&self) -> String {
        let label = if self.protocol_inferred { " (inferred)" } else { "" };
        format!("{}{label}", self.protocol.name())
    }

    pub(super) fn is_verified(&self) -> bool {
        self.top1.verified && self.top5.verified
    }

    pub(super) fn describe(&self) -> String {
        describe(&self.model, self.method, self.paper)
    }
}

pub(super) fn describe(model: &str, method: Method, paper: Paper) -> String {
    format!("{model:?} ({method:?}, {paper:?})").to_lowercase()
}

/// Accuracy of the original less that of a row, points.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AccuracyDrop {
    /// Of top-1.
    pub top1: f64,
    /// Of top-5.
    pub top5: f64,
    /// Whether all four numbers were checked in their sources.
    pub verified: bool,
}

/// Published times of a model for a batch of 32 images on one M40 (ICCV tables 1 and 3, "f./b.").
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Latency {
    /// Our name of the model, as in [`thinet_nets::paper_models`].
    pub model: String,
    /// Forward pass, milliseconds.
    pub forward_ms: Figure,
    /// Backward pass, milliseconds.
    pub backward_ms: Figure,
}
