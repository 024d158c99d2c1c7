//! What can be wrong with the logits and labels that are evaluated.

use thiserror::Error;

/// An error of the metrics crate.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum MetricsError {
    /// Logits and labels that do not belong together.
    #[error(
        "logits of shape {logits:?} do not fit labels of shape {labels:?}; expected [n, classes] and [n]"
    )]
    Shape {
        /// Shape of the logits.
        logits: Vec<i64>,
        /// Shape of the labels.
        labels: Vec<i64>,
    },
    /// Labels that are not 64-bit integers.
    #[error("labels are of kind {0:?}, not Int64")]
    LabelKind(tch::Kind),
    /// A label that is no class.
    #[error("image {image} has label {label}, the network has {classes} classes")]
    Label {
        /// Position of the image among those evaluated, from 0.
        image: u64,
        /// Its label.
        label: i64,
        /// Number of classes.
        classes: usize,
    },
    /// An evaluation that saw no image.
    #[error("no image was evaluated")]
    NoImages,
    /// An error of libtorch.
    #[error("logits cannot be read")]
    Torch(#[from] tch::TchError),
}
