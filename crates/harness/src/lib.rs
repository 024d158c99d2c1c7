//! The harness: spec → plan → stages → records → tables. The only crate that reads specs, knows result paths and uses Polars.

mod check;
mod environment;
mod error;
mod estimate;
mod latency;
mod lock;
mod outline;
pub mod plan;
pub mod progress;
pub mod published;
pub mod records;
mod run;
pub mod spec;
mod stages;
pub mod store;
mod study;
pub mod tables;
mod train;
mod workers;

pub use environment::{Environment, cpu_model};
pub use error::{HarnessError, SpecError};
pub use estimate::{Estimate, estimate, estimate_outline};
pub use latency::{LatencyError, LatencyOptions, LatencyStep, check_latency_models, latency};
pub use outline::{FROM_SCRATCH, Outline, OutlineCell};
pub use run::{Outcome, RunOptions, run, run_stage, study_tables};
pub use study::{list_runs, not_run, study};
pub use workers::WorkerCommand;
