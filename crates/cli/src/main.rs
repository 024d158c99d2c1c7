//! The `thinet` binary: arguments in, text and exit code out. Everything else is in the libraries.

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

fn main() -> ExitCode {
    let arguments = match cli::Cli::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return exit::usage(&error),
    };
    match arguments.command.run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => exit::report(&error),
    }
}
