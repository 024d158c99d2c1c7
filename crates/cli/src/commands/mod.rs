//! One file for each subcommand: its `Arguments` with their help, and `run`. `cli.rs` lists them.

pub(crate) mod clean;
pub(crate) mod compare;
pub(crate) mod completions;
pub(crate) mod count;
pub(crate) mod data;
pub(crate) mod diff;
pub(crate) mod evidence;
pub(crate) mod export;
pub(crate) mod figures;
pub(crate) mod latency;
pub(crate) mod list;
pub(crate) mod man;
pub(crate) mod merge;
pub(crate) mod paper;
pub(crate) mod plan;
pub(crate) mod preflight;
pub(crate) mod report;
pub(crate) mod run;
pub(crate) mod schema;
pub(crate) mod show;
pub(crate) mod status;
pub(crate) mod submit;
pub(crate) mod table;
pub(crate) mod task;
pub(crate) mod verify;
pub(crate) mod worker;
