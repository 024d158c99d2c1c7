//! What can be wrong with the logits and labels that are evaluated.

use thiserror::Error;

/// An error of the metrics crate.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum MetricsError {
    /// Slices of logits and labels whose lengths do not match.
    #[error(
        "{logits} logits do not fit {labels} labels of {classes} classes; expected one logit for each label and class"
    )]
    Shape { logits: usize, labels: usize, classes: usize },
    /// A label that is no class.
    #[error("image {image} has label {label}, the network has {classes} classes")]
    Label {
        /// Position of the image among those evaluated, from 0.
        image: u64,
        label: i64,
        classes: usize,
    },
    /// An evaluation that saw no image.
    #[error("no image was evaluated")]
    NoImages,
}
