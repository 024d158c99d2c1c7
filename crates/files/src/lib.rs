//! Whole files and their checksums: atomic writes, content hashes, and texts that carry their own checksum. Independent of what
//! the files hold and where they lie.

pub mod sealed;
mod whole;

use std::path::PathBuf;

use thiserror::Error;

pub use whole::{
    hash_file, read_if_exists, read_text_if_exists, remove_abandoned, temporary, write_atomically,
    write_atomically_with,
};

/// A file or folder that cannot be read or written.
#[derive(Debug, Error)]
#[error("cannot {action} {}: {source}", path.display())]
pub struct FileError {
    /// The operation, such as `write`.
    pub action: &'static str,
    pub path: PathBuf,
    pub source: std::io::Error,
}

impl FileError {
    /// Adds operation and path to the error of the operating system, for [`Result::map_err`].
    pub fn at(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self { action, path, source }
    }
}
