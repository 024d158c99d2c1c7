//! What can be wrong with evidence, with a request to a selector, or with a selector's own answer.

use thiserror::Error;

/// Evidence that no selector can use. It carries no layer name; the caller adds it (see
/// [`SelectorError::BadEvidence`]).
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{kind} {problem}")]
pub struct EvidenceError {
    /// The kind of evidence, as in "contribution moments".
    pub kind: &'static str,
    pub problem: String,
}

/// An error of a selector; names the selector and the layer.
#[derive(Clone, Debug, Error, PartialEq)]
#[non_exhaustive]
pub enum SelectorError {
    /// No selector has this name.
    #[error("there is no selector {name:?}{hint}; selectors: {allowed}")]
    Unknown {
        name: String,
        /// Empty, or ", did you mean …?".
        hint: String,
        /// The registered names, comma separated.
        allowed: String,
    },
    /// A selector of another package has the name of a registered one.
    #[error("there is a selector {0:?} already; give yours another name")]
    Taken(&'static str),
    /// Selectors of another package were registered before.
    #[error("selectors of another package are registered already: register all of them in one call")]
    Added,
    /// The selector reads a kind of evidence that is missing: either not named in its needs, or not gathered by the caller.
    #[error(
        "selector {selector:?} reads {missing} of layer {layer:?}, which it was not handed: a selector gets the kinds of \
         evidence that its `needs` name"
    )]
    MissingEvidence { selector: &'static str, layer: String, missing: &'static str },
    /// The evidence holds values that cannot be ranked, or does not fit the layer.
    #[error("selector {selector:?} cannot rank layer {layer:?}: {source}")]
    BadEvidence { selector: &'static str, layer: String, source: EvidenceError },
    /// A number of channels to keep that is zero or larger than the layer's.
    #[error("selector {selector:?} cannot keep {keep} of the {channels} channels of layer {layer:?}")]
    Keep { selector: &'static str, layer: String, keep: usize, channels: usize },
    /// A selector that removes channels in an order was asked for scores that compare layers.
    #[error(
        "selector {selector:?} gives an order of the channels of a layer and no scores that could be compared between layers; \
         selectors with scores: {allowed}"
    )]
    NoImportance {
        selector: &'static str,
        /// The names of those with scores, comma separated.
        allowed: String,
    },
    /// A selector returned an invalid order or invalid scores: a bug in the selector.
    #[error("selector {selector:?} gave no valid order of layer {layer:?}: {problem}")]
    BadOrder { selector: &'static str, layer: String, problem: String },
}
