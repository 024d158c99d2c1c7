//! Errors of drawing images and gathering evidence.

use tch::TchError;
use thinet_selectors::{EvidenceError, EvidenceKind};
use thiserror::Error;

/// An error of the sampling crate; names the class or the layer it is about.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SamplingError {
    /// A calibration pass over no images, or over no positions.
    #[error("{0} must be at least 1")]
    Nothing(&'static str),
    /// A class has fewer images than are to be drawn from it.
    #[error("class {class} has {found} images, {wanted} are to be drawn from it")]
    TooFewImages { class: usize, found: usize, wanted: usize },
    /// A label that is no class.
    #[error("image {image} has label {label}, there are {classes} classes")]
    Label {
        /// The image's index in the data set.
        image: usize,
        label: usize,
        classes: usize,
    },
    /// A tensor that the layer needs is missing, or a tensor given for it has another shape or dtype.
    #[error("calibration of layer {layer:?}: {problem}")]
    Input { layer: String, problem: String },
    /// Batch-norm scales are needed of a layer that has none.
    #[error("layer {layer:?} has no batch-norm scales: no batch norm lies between it and the next layer")]
    NoBatchNorm { layer: String },
    /// The gathered evidence cannot be used: a net whose values are not finite, or nothing to sum.
    #[error("calibration of layer {layer:?}: {source}")]
    Evidence { layer: String, source: EvidenceError },
    /// libtorch refused an operation.
    #[error("calibration of layer {layer:?}: {source}")]
    Torch { layer: String, source: TchError },
}

impl SamplingError {
    pub(crate) fn input(layer: &str, problem: impl Into<String>) -> Self {
        Self::Input { layer: layer.to_owned(), problem: problem.into() }
    }

    pub(crate) fn evidence(layer: &str, kind: EvidenceKind, problem: impl Into<String>) -> Self {
        let source = EvidenceError { kind: kind.name(), problem: problem.into() };
        Self::Evidence { layer: layer.to_owned(), source }
    }
}

/// Adds the layer's name to libtorch's errors.
pub(crate) trait OfLayer<T> {
    fn of_layer(self, layer: &str) -> Result<T, SamplingError>;
}

impl<T> OfLayer<T> for Result<T, TchError> {
    fn of_layer(self, layer: &str) -> Result<T, SamplingError> {
        self.map_err(|source| SamplingError::Torch { layer: layer.to_owned(), source })
    }
}
