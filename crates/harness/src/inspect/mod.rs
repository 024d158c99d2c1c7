//! Inspecting results: runs, their state, differences between them, verification, merging, and cleaning up.

mod clean;
mod diff;
mod merge;
mod merge_runs;
mod runs;
pub mod status;
mod tensors;
mod verify;
mod why;
mod why_keys;

pub use clean::{Cleaning, Garbage, find_garbage};
pub use diff::{RunDifference, StageDifference, diff};
pub use merge::{Merge, StageFate, StageMerge, plan_merge};
pub use merge_runs::{RunFate, RunMerge};
pub use runs::{Run, all_runs, find_run, find_runs, table_of_file, tables_of};
pub use verify::{CellVerification, Promise, Verification, VerifyOptions, verify};
pub use why::{Reason, Why, why};
