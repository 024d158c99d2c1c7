//! What can be wrong with evidence, with a request to a selector, or with a selector's own answer.

use thiserror::Error;

/// Evidence that no selector can judge. Knows no layer: whoever gathered it adds the name (as
/// [`SelectorError::BadEvidence`] does).
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{kind} {problem}")]
pub struct EvidenceError {
    /// The kind of evidence, as in "contribution moments".
    pub kind: &'static str,
    /// What is wrong with it.
    pub problem: String,
}

/// An error of a selector; names the selector and the layer.
#[derive(Clone, Debug, Error, PartialEq)]
#[non_exhaustive]
pub enum SelectorError {
    /// No selector has this name.
    #[error("there is no selector {name:?}{hint}; selectors: {allowed}")]
    Unknown {
        /// The name asked for.
        name: String,
        /// Empty, or ", did you mean …?".
        hint: String,
        /// The registered names, comma separated.
        allowed: String,
    },
    /// The selector reads a kind of evidence that it was not handed: one that it does not name in its needs, or one that
    /// the caller did not gather.
    #[error(
        "selector {selector:?} reads {missing} of layer {layer:?}, which it was not handed: a selector gets the kinds of \
         evidence that its `needs` name"
    )]
    MissingEvidence {
        /// The selector.
        selector: &'static str,
        /// The layer.
        layer: String,
        /// The kind of evidence.
        missing: &'static str,
    },
    /// The evidence holds values that cannot be ranked, or does not fit the layer.
    #[error("selector {selector:?} cannot rank layer {layer:?}: {source}")]
    BadEvidence {
        /// The selector.
        selector: &'static str,
        /// The layer.
        layer: String,
        /// What is wrong.
        source: EvidenceError,
    },
    /// More channels to keep than there are, or none.
    #[error("selector {selector:?} cannot keep {keep} of the {channels} channels of layer {layer:?}")]
    Keep {
        /// The selector.
        selector: &'static str,
        /// The layer.
        layer: String,
        /// Channels asked for.
        keep: usize,
        /// Channels there are.
        channels: usize,
    },
    /// A selector gave an order that is none: a fault in the selector.
    #[error("selector {selector:?} gave no valid order of layer {layer:?}: {problem}")]
    BadOrder {
        /// The selector.
        selector: &'static str,
        /// The layer.
        layer: String,
        /// What is wrong.
        problem: String,
    },
}
