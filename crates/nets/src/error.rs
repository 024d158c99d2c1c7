//! What can be wrong with the description of a network.

use thinet_graph::GraphError;
use thiserror::Error;

/// An error of the nets crate; names the layer or the key it is about.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum NetError {
    /// The graph itself is wrong.
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// No architecture or stride has this name.
    #[error("unknown {what} {name:?}; allowed: {allowed}")]
    UnknownName {
        /// `arch` or `stride`.
        what: &'static str,
        name: String,
        /// The names that exist, comma separated.
        allowed: String,
    },
    /// A key of a network spec that its architecture cannot honour.
    #[error("{key} of {arch} {problem}")]
    BadSpec { arch: String, key: &'static str, problem: String },
    /// A width of a layer that does not exist, or whose width an addition fixes.
    #[error("widths of {arch} name {layer:?}, {problem}; layers whose width can be set: {allowed}")]
    BadWidth { arch: String, layer: String, problem: String, allowed: String },
    /// A layer that would have no filter.
    #[error("width {width} leaves no channel of the {channels} in layer {layer:?} (floor(C·width) = 0)")]
    NoChannels {
        layer: String,
        /// Its channels at width 1.
        channels: usize,
        /// The multiplier; 0 if the layer's own width was set to 0.
        width: f64,
    },
}
