//! Inspecting results: runs, their state, differences between them, verification, and cleaning up.

mod clean;
mod diff;
mod runs;
pub mod status;
mod tensors;
mod verify;

pub use clean::{Cleaning, Garbage, find_garbage};
pub use diff::{RunDifference, StageDifference, diff};
pub use runs::{Run, all_runs, find_run, find_runs, table_of_file, tables_of};
pub use verify::{CellVerification, Promise, Verification, VerifyOptions, verify};
