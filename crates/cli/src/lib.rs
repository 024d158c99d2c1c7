//! The command line of `thinet`: arguments in, text and exit code out. Everything else is in the libraries.
//!
//! A program with selectors of its own is one call: [`main`] with these selectors.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "the only crate that prints")]

// First, for its macros.
#[macro_use]
mod output;

mod bars;
mod cli;
mod commands;
mod exit;
mod group_lines;
mod kind_line;
mod options;
mod permission;
mod signals;
mod words;

use std::process::ExitCode;

use clap::Parser as _;
pub use thinet_seed as seed;
pub use thinet_selectors as selectors;
use thinet_selectors::Selector;

/// Runs the command line of this process with further selectors beside those of the workspace. Returns the exit code.
#[must_use]
pub fn main(others: &'static [&'static dyn Selector]) -> ExitCode {
    if let Err(error) = selectors::register(others) {
        return exit::report(&error.into());
    }
    let arguments = match cli::Cli::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return exit::usage(&error),
    };
    match arguments.command.run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => exit::report(&error),
    }
}
