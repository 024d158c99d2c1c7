//! The `thinet` binary: arguments in, text and exit code out. Everything else is in the libraries.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "the only crate that prints")]

// First, for its macros.
#[macro_use]
mod output;

mod args;
mod bars;
mod commands;
mod exit;

use std::process::ExitCode;

use args::{Cli, Command};
use clap::Parser as _;

fn main() -> ExitCode {
    let arguments = match Cli::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return exit::usage(&error),
    };
    let result = match arguments.command {
        Command::Run { study, workers, json } => commands::run::run(&study, &workers, json),
        Command::Plan { study, jobs, json } => commands::plan::plan(&study, jobs, json),
        Command::Table { names, seeds, place, json } => commands::table::table(&names, seeds, &place, json),
        Command::Count(count) => commands::count::count(&count),
        Command::Latency(latency) => commands::latency::latency(&latency),
        Command::Data(data) => commands::data::data(&data),
        Command::List { what, results, json } => commands::list::list(what, &results, json),
        Command::Paper(paper) => commands::paper::paper(&paper),
        Command::Export(export) => commands::export::export(&export),
        Command::Diff(arguments) => commands::diff::diff(&arguments),
        Command::Verify(verify) => commands::verify::verify(&verify),
        Command::Clean(clean) => commands::clean::clean(&clean),
        Command::Show { what, results, json } => commands::show::show(&what, &results, json),
        Command::Status(status) => commands::status::status(&status),
        Command::Submit(submit) => commands::submit::submit(&submit),
        Command::Task { study, pace, ids } => commands::submit::task(&study, &ids, &pace),
        Command::Worker { study, pace } => commands::run::worker(&study, &pace),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => exit::report(&error),
    }
}
