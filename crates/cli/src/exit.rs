//! Exit codes: the one place where an error becomes a number and a line on standard error.

use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use thinet_harness::HarnessError;
use thinet_harness::study::spec_files;
use thinet_report::tables::one_line;

/// The spec or the arguments are wrong; nothing was started.
const BAD_SPEC: u8 = 2;
/// The data is missing or unusable.
const NO_DATA: u8 = 3;
/// The same study is running already.
const BUSY: u8 = 4;
/// Stopped on request; the code that shells report for an interrupted program.
pub(crate) const STOPPED: u8 = 130;
/// The run failed.
const FAILED: u8 = 1;

/// An argument that clap cannot check.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct BadArgument(pub(crate) String);

/// Data that exists but cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct BadData(pub(crate) String);

/// The error and its causes in one line.
pub(crate) fn line(error: &anyhow::Error) -> String {
    let mut line = String::new();
    for cause in error.chain() {
        let text = cause.to_string();
        // Transparent and #[source] errors repeat their cause's text.
        if line.contains(&text) {
            continue;
        }
        if !line.is_empty() {
            line.push_str(": ");
        }
        line.push_str(&text);
    }
    one_line(&line)
}

/// Prints what clap found in the arguments: help, the version, or an error. Where a spec is missing, lists those there are.
pub(crate) fn usage(error: &clap::Error) -> ExitCode {
    // Ignored as by clap itself: there is no reader.
    let _ = error.print();
    if !error.use_stderr() {
        return ExitCode::SUCCESS;
    }
    let is_spec_missing = error.kind() == ErrorKind::MissingRequiredArgument
        && matches!(error.get(ContextKind::InvalidArg), Some(ContextValue::Strings(missing)) if missing.iter().any(|name| name == "<SPEC>"));
    let specs = if is_spec_missing { spec_files(None) } else { Vec::new() };
    if !specs.is_empty() {
        eprintln!("\nspecs here:");
        specs.iter().for_each(|spec| eprintln!("  {}", spec.display()));
    }
    ExitCode::from(BAD_SPEC)
}

/// Prints the error and its causes in one line and returns the exit code.
pub(crate) fn report(error: &anyhow::Error) -> ExitCode {
    eprintln!("error: {}", line(error));
    ExitCode::from(code(error))
}

fn code(error: &anyhow::Error) -> u8 {
    if error.is::<BadArgument>() {
        return BAD_SPEC;
    }
    if error.is::<BadData>() {
        return NO_DATA;
    }
    match error.downcast_ref::<HarnessError>() {
        Some(error) if error.is_bad_spec() => BAD_SPEC,
        Some(HarnessError::Data(_) | HarnessError::NoData { .. }) => NO_DATA,
        Some(HarnessError::Busy { .. }) => BUSY,
        Some(HarnessError::Stopped) => STOPPED,
        _ => FAILED,
    }
}
