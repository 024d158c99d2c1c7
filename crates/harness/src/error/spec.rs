//! Errors of a spec: unreadable, not TOML, or with an invalid value.

use std::path::{Path, PathBuf};

use thiserror::Error;

/// A spec that cannot be read or is invalid. Found before any work.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SpecError {
    /// The file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Unreadable { path: PathBuf, source: std::io::Error },
    /// The file does not exist.
    #[error("{}", no_such_spec(path, known, hint.as_deref()))]
    NotThere {
        path: PathBuf,
        /// The spec files that exist.
        known: Vec<String>,
        /// The one that was probably meant.
        hint: Option<String>,
    },
    /// Not TOML, or not a spec.
    #[error("{}{}: {message}{}", path.display(), at(*line), hint_text(hint.as_deref()))]
    Syntax {
        path: PathBuf,
        /// Counted from 1.
        line: Option<usize>,
        message: String,
        /// The key or value that was probably meant.
        hint: Option<String>,
    },
    /// A key with an invalid value.
    #[error("{}: {key}: {problem}", path.display())]
    Value {
        path: PathBuf,
        /// The key, dotted.
        key: String,
        /// What is wrong and what is allowed.
        problem: String,
    },
    /// The spec with its defaults cannot be written.
    #[error("the spec cannot be written as TOML: {0}")]
    Unwritable(String),
}

fn no_such_spec(path: &Path, known: &[String], hint: Option<&str>) -> String {
    let what = match path.is_dir() {
        true => format!("{} is a folder, not a spec", path.display()),
        false => format!("no such spec: {}", path.display()),
    };
    let known = if known.is_empty() {
        "there is none in experiments/ either".to_owned()
    } else {
        format!("there are {}", known.join(", "))
    };
    format!("{what}; {known}{}", hint_text(hint))
}

fn at(line: Option<usize>) -> String {
    line.map(|line| format!(":{line}")).unwrap_or_default()
}

fn hint_text(hint: Option<&str>) -> String {
    hint.map(|hint| format!(" — did you mean `{hint}`?")).unwrap_or_default()
}
