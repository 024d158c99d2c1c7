//! What can be wrong with a dataset, its spec, a transform or a loader.

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

/// An error of the data crate; names the file, the key or the image it is about.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum DataError {
    /// A required file or folder is missing.
    #[error("{path}: not found; {hint}", path = .path.display())]
    Missing {
        /// What was looked for.
        path: PathBuf,
        /// What should be there, or how to get it.
        hint: String,
    },
    /// An error of the operating system.
    #[error("{path}: cannot {action}", path = .path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What failed ("read", "create").
        action: &'static str,
        /// The error of the system.
        source: io::Error,
    },
    /// A file of the wrong size: truncated, empty or too long.
    #[error("{path}: expected {expected} bytes, found {found}", path = .path.display())]
    Size {
        /// The file.
        path: PathBuf,
        /// The size by its format or header (decompressed).
        expected: u64,
        /// The size found (decompressed).
        found: u64,
    },
    /// A file of another format than expected.
    #[error("{path}: {problem}", path = .path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The contents are not the published ones.
    #[error("{path}: sha256 of the contents is {found}, expected {expected}", path = .path.display())]
    Checksum {
        /// The file.
        path: PathBuf,
        /// The published checksum (of the decompressed contents).
        expected: String,
        /// The checksum found.
        found: String,
    },
    /// A label that is not a class.
    #[error("{path}: record {record} has label {label}, the classes are 0..{classes}", path = .path.display())]
    Label {
        /// The file.
        path: PathBuf,
        /// The record, from 0.
        record: usize,
        /// The label found.
        label: usize,
        /// The number of classes.
        classes: usize,
    },
    /// A folder with another layout than the dataset needs.
    #[error("{path}: {problem}", path = .path.display())]
    Layout {
        /// The folder.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// An image that was read and cannot be decoded or resized, or has more pixels than `max-pixels` allows. One that cannot
    /// be read is an [`Io`](Self::Io) error.
    #[error("{path}: cannot decode the image: {problem}", path = .path.display())]
    Decode {
        /// The image file.
        path: PathBuf,
        /// The error of the decoder.
        problem: String,
    },
    /// An image that cannot be decoded, of a set that tolerates some: it is left out of its batch.
    #[error("{path}: left out, as it cannot be decoded: {problem}", path = .path.display())]
    LeftOut {
        /// The image file.
        path: PathBuf,
        /// The error of the decoder.
        problem: String,
    },
    /// More images that cannot be decoded than the spec's `bad-files` allows.
    #[error("more than {limit} file{s} cannot be decoded (key \"bad-files\"); the last one: {path}: {problem}",
        s = if *.limit == 1 { "" } else { "s" }, path = .path.display())]
    TooManyDamaged {
        /// How many are allowed.
        limit: usize,
        /// The file that is one too many.
        path: PathBuf,
        /// The error of the decoder.
        problem: String,
    },
    /// A key of a dataset spec, a transform or a loader with an invalid value.
    #[error("key {key:?}: {problem}")]
    Value {
        /// The key, as it is written in a spec.
        key: &'static str,
        /// What is wrong and what is allowed.
        problem: String,
    },
    /// An image index outside the dataset.
    #[error("image index {index} is out of range: {dataset} has {len} images")]
    Index {
        /// The dataset's name.
        dataset: String,
        /// The index asked for.
        index: usize,
        /// The number of images.
        len: usize,
    },
    /// A buffer with another size than an image.
    #[error("the buffer for an image of {dataset} must hold {expected} bytes, found {found}")]
    Buffer {
        /// The dataset's name.
        dataset: String,
        /// Bytes of an image.
        expected: usize,
        /// Bytes given.
        found: usize,
    },
    /// A panic while a batch was made.
    #[error("making batch {batch} panicked: {message}")]
    WorkerPanic {
        /// The batch, from 0.
        batch: usize,
        /// The panic's message.
        message: String,
    },
    /// A file of prepared images that must not be used, or that cannot be made.
    #[error("{path}: {problem}", path = .path.display())]
    Prepared {
        /// The file, or the folder that it should lie in.
        path: PathBuf,
        /// What is wrong, and what to do.
        problem: String,
    },
    /// A dataset that could not be fetched.
    #[error("cannot get {dataset} into {folder}: {tried}; to get it by hand: {by_hand}", folder = .folder.display())]
    Fetch {
        /// The dataset's name.
        dataset: String,
        /// Where it should go.
        folder: PathBuf,
        /// Everything that was tried, with its outcome.
        tried: String,
        /// How to get it by hand.
        by_hand: String,
    },
}

impl DataError {
    pub(crate) fn io(path: &Path, action: &'static str) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Io { path, action, source }
    }

    pub(crate) fn layout(path: &Path, problem: impl Into<String>) -> Self {
        Self::Layout { path: path.to_path_buf(), problem: problem.into() }
    }

    pub(crate) fn prepared(path: &Path, problem: impl Into<String>) -> Self {
        Self::Prepared { path: path.to_path_buf(), problem: problem.into() }
    }

    pub(crate) fn format(path: &Path, problem: impl Into<String>) -> Self {
        Self::Format { path: path.to_path_buf(), problem: problem.into() }
    }
}
