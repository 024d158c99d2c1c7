//! What can be wrong with a refit, or with the name of one.

use thiserror::Error;

/// An error of a reconstructor; names it. The caller adds the layer.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum RefitError {
    /// No reconstructor has this name.
    #[error("there is no reconstruction {name:?}{hint}; reconstructions: {allowed}")]
    Unknown {
        name: String,
        /// Empty, or ", did you mean …?".
        hint: String,
        /// The registered names, comma separated.
        allowed: String,
    },
    /// The moments that the reconstructor needs were not gathered.
    #[error("reconstruction {reconstructor:?} needs contribution moments, which were not gathered")]
    MissingMoments { reconstructor: &'static str },
    /// The reconstructor refits from other products.
    #[error("reconstruction {reconstructor:?} is not computed from {input}")]
    OtherInput { reconstructor: &'static str, input: &'static str },
    /// The products of patches, the weights and the kept channels are not of one layer.
    #[error("reconstruction {reconstructor:?} got {found}, expected {expected}")]
    PatchMismatch { reconstructor: &'static str, expected: String, found: String },
    /// The moments are of another layer than the kept channels.
    #[error("reconstruction {reconstructor:?} got moments of {found} channels for a layer of {expected}")]
    ChannelMismatch { reconstructor: &'static str, expected: usize, found: usize },
    /// The moments are no Gram matrix: they stay indefinite under the largest ridge.
    #[error("reconstruction {reconstructor:?} got moments that are not positive semidefinite")]
    Indefinite { reconstructor: &'static str },
}
