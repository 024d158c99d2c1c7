//! Whole files and their checksums: atomic writes, content hashes, and texts that carry their own checksum. Knows nothing of what
//! the files hold or where they lie.

pub mod sealed;
mod whole;

use std::path::PathBuf;

use thiserror::Error;

pub use whole::{hash_file, temporary, write_atomically};

/// A file that cannot be read or written.
#[derive(Debug, Error)]
#[error("cannot {action} {}: {source}", path.display())]
pub struct FileError {
    /// The operation, such as `write`.
    pub action: &'static str,
    /// The file.
    pub path: PathBuf,
    /// The cause.
    pub source: std::io::Error,
}
