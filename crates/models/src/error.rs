//! What can be wrong with a network's tensors, its files or the device it should run on.

use std::io;
use std::path::PathBuf;

use tch::TchError;
use thinet_graph::GraphError;
use thinet_metrics::MetricsError;
use thiserror::Error;

/// An error of the models crate; names the layer, tensor, key or file it is about.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ModelError {
    /// The graph itself is wrong.
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// No builder has this name.
    #[error("unknown {what} {name:?}; allowed: {allowed}")]
    UnknownName {
        /// What kind of name was looked up, such as `arch`.
        what: &'static str,
        /// The name asked for.
        name: String,
        /// The names that exist, comma separated.
        allowed: String,
    },
    /// A tensor that the graph needs is not there.
    #[error("layer {layer:?}: tensor {tensor:?} is missing, expected {expected}")]
    MissingTensor {
        /// The layer.
        layer: String,
        /// The tensor.
        tensor: String,
        /// Element type and shape.
        expected: String,
    },
    /// A tensor has another shape or element type.
    #[error("layer {layer:?}: tensor {tensor:?} should be {expected}, found {found}")]
    TensorMismatch {
        /// The layer.
        layer: String,
        /// The tensor.
        tensor: String,
        /// Element type and shape that the graph needs.
        expected: String,
        /// Element type and shape found.
        found: String,
    },
    /// An error, and the key of a spec that helps.
    #[error("{source}; {advice}")]
    WithAdvice {
        /// What is wrong.
        source: Box<ModelError>,
        /// What helps.
        advice: String,
    },
    /// A tensor that the graph has no use for.
    #[error("tensor {tensor:?} ({found}) belongs to no layer of {graph}")]
    UnexpectedTensor {
        /// The tensor.
        tensor: String,
        /// Element type and shape found.
        found: String,
        /// The graph's name.
        graph: String,
    },
    /// Images of another shape or element type than the network's input.
    #[error("{graph} expects images {expected}, found {found}")]
    Images {
        /// The graph's name.
        graph: String,
        /// What the input node is made for.
        expected: String,
        /// What came.
        found: String,
    },
    /// A batch that cannot be normalised: one value a channel has no variance.
    #[error("layer {layer:?} cannot be trained on one value a channel; use a batch of two images or more")]
    BatchTooSmall {
        /// The batch normalisation.
        layer: String,
    },
    /// Scales that do not fit a layer.
    #[error("layer {layer:?} reads {expected} channels, {found} scales were given")]
    ScaleCount {
        /// The layer that would be scaled.
        layer: String,
        /// Its input channels.
        expected: usize,
        /// How many scales came.
        found: usize,
    },
    /// Logits and labels that do not belong together.
    #[error(
        "logits of shape {logits:?} do not fit labels of shape {labels:?}; expected [n, classes] and [n]"
    )]
    LogitsShape {
        /// Shape of the logits.
        logits: Vec<i64>,
        /// Shape of the labels.
        labels: Vec<i64>,
    },
    /// Labels that are not 64-bit integers.
    #[error("labels are of kind {0:?}, not Int64")]
    LabelKind(tch::Kind),
    /// Predictions cannot be evaluated.
    #[error(transparent)]
    Metrics(#[from] MetricsError),
    /// A device name that means nothing, or a device that is not there.
    #[error("device {device:?} {problem}")]
    Device {
        /// The name asked for.
        device: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A training setting outside its range.
    #[error("{key} {problem}")]
    BadSetting {
        /// The key.
        key: &'static str,
        /// What is wrong with its value.
        problem: String,
    },
    /// Reading or writing failed.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// `read`, `write` and so on.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file that is not what it should be.
    #[error("{}: {problem}", path.display())]
    BadFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// A file whose tensors do not fit.
    #[error("{}: {source}", path.display())]
    FileContents {
        /// The file.
        path: PathBuf,
        /// What does not fit.
        source: Box<ModelError>,
    },
    /// Libtorch refused an operation.
    #[error("{context}: {message}")]
    Torch {
        /// What was being done, naming the layer where there is one.
        context: String,
        /// First line of libtorch's message.
        message: String,
    },
}

/// Adds what was being done to an error of libtorch.
pub(crate) trait Context<T> {
    /// Maps the error; `context` names the layer or tensor.
    fn context(self, context: impl FnOnce() -> String) -> Result<T, ModelError>;
}

impl<T> Context<T> for Result<T, TchError> {
    fn context(self, context: impl FnOnce() -> String) -> Result<T, ModelError> {
        self.map_err(|error| {
            // Libtorch appends its own C++ backtrace after the first line.
            let message = match &error {
                TchError::Torch(message) => message.lines().next().unwrap_or_default().to_owned(),
                other => other.to_string(),
            };
            ModelError::Torch { context: context(), message }
        })
    }
}
