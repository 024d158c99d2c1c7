//! The files of a run's folder that are read back: the spec with every default filled in, and the environment. Both carry a
//! checksum.

use std::fs;
use std::path::Path;

use thinet_files::{read_text_if_exists, sealed, write_atomically};
use thinet_report::records::Environment;
use thinet_report::tables::{ENVIRONMENT, environment_text};

use super::paths;
use crate::error::HarnessError;

/// Writes the spec with every default filled in.
pub(crate) fn write_spec(folder: &Path, toml: &str) -> Result<(), HarnessError> {
    Ok(write_atomically(&folder.join(paths::SPEC), sealed::seal_lines(toml).as_bytes())?)
}

/// The spec of a run with every default filled in, TOML.
///
/// # Errors
/// If it cannot be read or has changed since it was written.
pub fn run_spec(folder: &Path) -> Result<String, HarnessError> {
    let path = folder.join(paths::SPEC);
    let text = fs::read_to_string(&path).map_err(HarnessError::io("read", &path))?;
    let opened = sealed::open_lines(&text).map(str::to_owned);
    opened.map_err(|problem| HarnessError::DamagedFile { path, problem })
}

/// Writes the environment of a run.
pub(crate) fn write_environment(folder: &Path, environment: &Environment) -> Result<(), HarnessError> {
    let text = environment_text(environment).map_err(HarnessError::Json)?;
    Ok(write_atomically(&folder.join(ENVIRONMENT), text.as_bytes())?)
}

/// The environment of a run, JSON; `None` until the run has ended once.
///
/// # Errors
/// If it cannot be read or has changed since it was written.
pub fn run_environment(folder: &Path) -> Result<Option<String>, HarnessError> {
    let path = folder.join(ENVIRONMENT);
    let Some(text) = read_text_if_exists(&path)? else { return Ok(None) };
    sealed::open(&text).map(Some).map_err(|problem| HarnessError::DamagedFile { path, problem })
}

/// Names of the run folders below a results folder, sorted.
///
/// # Errors
/// If the folder exists and cannot be read.
pub fn list_runs(results: &Path) -> Result<Vec<String>, HarnessError> {
    let folder = paths::runs(results);
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let mut names = Vec::new();
    for entry in fs::read_dir(&folder).map_err(HarnessError::io("read", &folder))? {
        let path = entry.map_err(HarnessError::io("read", &folder))?.path();
        if path.join(paths::SPEC).is_file() {
            names.extend(path.file_name().map(|name| name.to_string_lossy().into_owned()));
        }
    }
    names.sort();
    Ok(names)
}
