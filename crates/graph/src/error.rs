//! What can be wrong with a graph, a layer name or a keep rate.

use thiserror::Error;

use crate::names::did_you_mean;

/// An error of the graph crate; names the layer it is about.
#[derive(Clone, Debug, Error, PartialEq)]
#[non_exhaustive]
pub enum GraphError {
    /// Two nodes share a name.
    #[error("two nodes are called {0:?}")]
    DuplicateName(String),
    /// A node reads a node that does not come before it, or has the wrong number of inputs.
    #[error("node {node:?} {problem}")]
    BadInputs { node: String, problem: String },
    /// A node's input has another shape than the node expects.
    #[error("node {node:?} expects {expected}, its input is {found}")]
    ShapeMismatch { node: String, expected: String, found: String },
    /// A node with no output values, too large a size, or an invalid window.
    #[error("node {node:?} {problem}")]
    BadSize { node: String, problem: String },
    /// No node has this name.
    #[error("there is no layer {layer:?} in {graph}{}; prunable layers: {allowed}", did_you_mean(nearest.as_deref()))]
    UnknownLayer {
        layer: String,
        graph: String,
        /// The prunable layer with the nearest name, if one is near.
        nearest: Option<String>,
        /// The prunable layers, comma separated.
        allowed: String,
    },
    /// The layer cannot be pruned.
    #[error("layer {layer:?} cannot be pruned: {reason}")]
    NotPrunable { layer: String, reason: String },
    /// A keep rate outside (0, 1].
    #[error("keep rate {0} is outside (0, 1]")]
    KeepRate(f64),
    /// A keep rate that leaves a layer with no channel.
    #[error("keep rate {rate} leaves no channel of the {channels} in layer {layer:?} (floor(C·r) = 0)")]
    NothingKept { layer: String, channels: usize, rate: f64 },
    /// A target of FLOPs outside (0, 1).
    #[error("{0} of the dense net's FLOPs is outside (0, 1)")]
    FlopsTarget(f64),
    /// Every pruned group has a keep rate of its own, so none is left to choose.
    #[error("every pruned layer has a keep rate of its own, so no uniform rate is left to choose")]
    NoUniformRate,
    /// No uniform keep rate that leaves a channel in every group meets a target of FLOPs.
    #[error(
        "{target} of the dense net's FLOPs cannot be reached: the least is {} (rounded up), at keep rate {rate}, which leaves one \
         channel in the narrowest layer",
        rounded_up(*least)
    )]
    FlopsUnreachable {
        target: f64,
        /// FLOPs at the smallest rate, over those of the dense net.
        least: f64,
        /// The smallest rate that leaves a channel in every group.
        rate: f64,
    },
    /// Kept channels chosen among another number of channels than the layer has.
    #[error("layer {layer:?} has {channels} channels, the kept channels were chosen among {width}")]
    KeepWidth {
        layer: String,
        channels: usize,
        /// The width of the kept set.
        width: usize,
    },
    /// No counting convention has this name.
    #[error("there is no counting convention {0:?}; allowed: paper, all-parameters")]
    UnknownConvention(String),
    /// A channel set that is empty, unsorted, repeated or out of range.
    #[error("kept channels {problem}")]
    ChannelSet { problem: String },
}

/// To four decimals, so that the number that is read can be asked for.
fn rounded_up(fraction: f64) -> f64 {
    (fraction * 1e4).ceil() / 1e4
}
