//! Errors of drawing figures.

use std::path::PathBuf;

use thiserror::Error;

use crate::published::PublishedError;
use crate::tables::TableError;

/// An error of the figures; names the file, the column or the row.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum FigureError {
    /// A table cannot be read.
    #[error(transparent)]
    Table(#[from] TableError),
    /// The published numbers are inconsistent.
    #[error(transparent)]
    Published(#[from] PublishedError),
    /// A file or folder cannot be read or written.
    #[error(transparent)]
    File(#[from] thinet_files::FileError),
    /// A file is no table at all.
    #[error("{} is no table: {problem}", path.display())]
    NoTable { path: PathBuf, problem: String },
    /// A table of another version.
    #[error(
        "{} has no column {column:?}: it was written by another version of the program; the command that wrote it writes it again",
        path.display()
    )]
    NoColumn { path: PathBuf, column: String },
    /// A field that must hold a number or a truth value holds something else.
    #[error("{}, row {row}: {column} is {text:?}, not a {kind}", path.display())]
    BadField {
        path: PathBuf,
        /// Counted from 1 without the heading.
        row: usize,
        column: String,
        text: String,
        kind: &'static str,
    },
    /// Rows that must not be in one figure.
    #[error("{} holds rows of more than one {column} ({first} and {second}); a figure shows one", path.display())]
    Mixed { path: PathBuf, column: String, first: String, second: String },
    /// Two tables of one study were written by different runs.
    #[error(
        "{} is of run {found}, and {} of run {expected}; the command that wrote them writes both again",
        path.display(), main.display()
    )]
    OtherRun { path: PathBuf, found: String, main: PathBuf, expected: String },
    /// The kept channels cannot be read.
    #[error("{} cannot be read: {problem}", path.display())]
    BadKept { path: PathBuf, problem: String },
    /// The spec beside a table cannot be read.
    #[error("{} cannot be read: {problem}", path.display())]
    BadSpec { path: PathBuf, problem: String },
    /// A table that was asked for by name does not exist.
    #[error("there is no table {name:?} in {}; figures can be drawn of: {known}", folder.display())]
    UnknownTable { name: String, folder: PathBuf, known: String },
}
