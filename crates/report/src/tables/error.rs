//! Errors of building, writing and reading tables.

use std::path::PathBuf;

use thiserror::Error;

use crate::published::PublishedError;
use crate::records::{Metric, Phase};

/// An error of the tables; names the cell, the model or the file.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TableError {
    /// The published numbers are inconsistent.
    #[error(transparent)]
    Published(#[from] PublishedError),
    /// A paper model cannot be built.
    #[error(transparent)]
    Net(#[from] thinet_nets::NetError),
    /// A cell has no dense net of its seed.
    #[error("cell {cell}: the study has no dense net with seed {seed}")]
    NoDense {
        /// The cell's id.
        cell: String,
        seed: u64,
    },
    /// A value was recorded twice.
    #[error("{id}: {} {} is recorded twice", phase.name(), metric.name())]
    Repeated {
        /// Id of the cell or dense net.
        id: String,
        phase: Phase,
        metric: Metric,
    },
    /// Polars cannot build or write the columns.
    #[error("table: {0}")]
    Polars(#[from] polars::error::PolarsError),
    /// A column's type has no JSON form.
    #[error("table: a column of type {0} has no form in JSON")]
    NotJson(String),
    /// A file of a table cannot be written as JSON.
    #[error("cannot be written as JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// A file or folder cannot be read, created, renamed or written.
    #[error(transparent)]
    File(#[from] thinet_files::FileError),
    /// A file of a table has changed since it was written.
    #[error("{} {problem}; the command that wrote the table writes it again", path.display())]
    Damaged { path: PathBuf, problem: String },
}
