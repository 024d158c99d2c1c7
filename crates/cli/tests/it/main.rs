//! The command line as a user meets it: help, tables that need no data, exit codes, one-line errors.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on may panic")]

mod allocation;
mod bad_days;
mod data;
mod errors;
mod export;
mod first_steps;
mod fixture;
mod flops;
mod for_shells;
mod groups;
mod help;
mod latency;
mod merge;
mod paper;
#[path = "../../../harness/tests/it/photographs.rs"]
mod photographs;
mod plan_why;
mod prepared;
mod programs;
mod provenance;
mod report;
mod runs;
mod stored_run;
mod study;
mod submit;
mod upkeep;
