//! `<table>.env.json`: the environment in which a table's numbers were computed. Carries its own checksum.

use thinet_files::sealed;

use crate::records::Environment;

/// Suffix of the file after a table's name and a dot, and its name in the folder of a run.
pub const ENVIRONMENT: &str = "env.json";

/// Formats an environment as the text of a file.
///
/// # Errors
/// If it cannot be written as JSON.
pub fn environment_text(environment: &Environment) -> Result<String, serde_json::Error> {
    Ok(sealed::seal(&(serde_json::to_string_pretty(environment)? + "\n")))
}
