//! What can be wrong with a network's tensors, its files or the device it should run on.

use std::io;
use std::path::PathBuf;

use tch::TchError;
use thinet_files::FileError;
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
    /// A name or index that does not exist.
    #[error("unknown {what} {name:?}; allowed: {allowed}")]
    UnknownName {
        /// The kind of name, such as `node`.
        what: &'static str,
        name: String,
        /// The names that exist, comma separated.
        allowed: String,
    },
    /// A tensor that the graph needs is not there.
    #[error("layer {layer:?}: tensor {tensor:?} is missing, expected {expected}")]
    MissingTensor {
        layer: String,
        tensor: String,
        /// Element type and shape.
        expected: String,
    },
    /// A tensor has another shape or element type.
    #[error("layer {layer:?}: tensor {tensor:?} should be {expected}, found {found}")]
    TensorMismatch {
        layer: String,
        tensor: String,
        /// Element type and shape that the graph needs.
        expected: String,
        /// Element type and shape found.
        found: String,
    },
    /// An error with the key of a spec that solves it.
    #[error("{source}; {advice}")]
    WithAdvice { source: Box<ModelError>, advice: String },
    /// A tensor that the graph has no use for.
    #[error("tensor {tensor:?} ({found}) belongs to no layer of {graph}")]
    UnexpectedTensor {
        tensor: String,
        /// Element type and shape found.
        found: String,
        graph: String,
    },
    /// Images of another shape or element type than the network's input.
    #[error("{graph} expects images {expected}, found {found}")]
    Images {
        graph: String,
        /// Shape and type of the input node.
        expected: String,
        found: String,
    },
    /// A batch that cannot be normalised: one value a channel has no variance.
    #[error("layer {layer:?} cannot be trained on one value a channel; use a batch of two images or more")]
    BatchTooSmall { layer: String },
    /// Scales that do not fit a layer.
    #[error("layer {layer:?} has {expected} channels, {found} scales were given")]
    ScaleCount {
        /// The group whose readers would be scaled.
        layer: String,
        expected: usize,
        found: usize,
    },
    /// Not as many weights as the filters of a layer have for the kept channels.
    #[error("tensor {tensor:?}: {found} new weights, expected {expected}")]
    ReadWeights { tensor: String, expected: usize, found: usize },
    /// Logits and labels whose shapes do not match.
    #[error(
        "logits of shape {logits:?} do not fit labels of shape {labels:?}; expected [n, classes] and [n]"
    )]
    LogitsShape { logits: Vec<i64>, labels: Vec<i64> },
    /// Labels that are not 64-bit integers.
    #[error("labels are of kind {0:?}, not Int64")]
    LabelKind(tch::Kind),
    /// Predictions cannot be evaluated.
    #[error(transparent)]
    Metrics(#[from] MetricsError),
    /// An unknown device name, or a device that is not available.
    #[error("device {device:?} {problem}")]
    Device { device: String, problem: String },
    /// A training setting outside its range.
    #[error("{key} {problem}")]
    BadSetting { key: &'static str, problem: String },
    /// A file cannot be read or written.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// `read`, `write` and so on.
        action: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    /// A file in the wrong format.
    #[error("{}: {problem}", path.display())]
    BadFile { path: PathBuf, problem: String },
    /// A file whose tensors do not fit.
    #[error("{}: {source}", path.display())]
    FileContents { path: PathBuf, source: Box<ModelError> },
    /// Libtorch refused an operation.
    #[error("{context}: {message}")]
    Torch {
        /// The operation, with the layer where there is one.
        context: String,
        /// First line of libtorch's message.
        message: String,
    },
}

impl From<FileError> for ModelError {
    fn from(FileError { action, path, source }: FileError) -> Self {
        Self::Io { action, path, source }
    }
}

/// Adds context to an error of libtorch.
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
