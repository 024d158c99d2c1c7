//! The command line as a user meets it: help, tables that need no data, exit codes, errors of one line.

mod errors;
mod fixture;
mod help;
mod study;
