//! The files of a run's folder that are read back: the spec with every default filled in, and where the run was made. Both carry
//! a checksum.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use crate::environment::Environment;
use crate::error::HarnessError;
use crate::files::write_atomically;
use crate::sealed;

/// The spec with every default filled in.
pub(crate) const SPEC: &str = "resolved.toml";
/// Where the run was made.
pub(crate) const ENVIRONMENT: &str = "env.json";

/// Writes the filled-in spec.
pub(crate) fn write_spec(folder: &Path, toml: &str) -> Result<(), HarnessError> {
    write_atomically(&folder.join(SPEC), sealed::seal_lines(toml).as_bytes())
}

/// The filled-in spec of a run, TOML.
///
/// # Errors
/// If it cannot be read or has changed since it was written.
pub fn run_spec(folder: &Path) -> Result<String, HarnessError> {
    let path = folder.join(SPEC);
    let text = fs::read_to_string(&path).map_err(HarnessError::io("read", &path))?;
    let opened = sealed::open_lines(&text).map(str::to_owned);
    opened.map_err(|problem| HarnessError::DamagedFile { path, problem })
}

/// An environment as the text of a file.
pub(crate) fn environment_text(environment: &Environment) -> Result<String, HarnessError> {
    let text = serde_json::to_string_pretty(environment).map_err(HarnessError::Json)? + "\n";
    Ok(sealed::seal(&text))
}

/// Writes where a run was made.
pub(crate) fn write_environment(folder: &Path, environment: &Environment) -> Result<(), HarnessError> {
    write_atomically(&folder.join(ENVIRONMENT), environment_text(environment)?.as_bytes())
}

/// Where a run was made, JSON; `None` until the run has ended once.
///
/// # Errors
/// If it cannot be read or has changed since it was written.
pub fn run_environment(folder: &Path) -> Result<Option<String>, HarnessError> {
    let path = folder.join(ENVIRONMENT);
    let text = match fs::read_to_string(&path) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        text => text.map_err(HarnessError::io("read", &path))?,
    };
    sealed::open(&text).map(Some).map_err(|problem| HarnessError::DamagedFile { path, problem })
}
