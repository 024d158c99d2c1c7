//! The harness: spec → plan → stages → records → tables. The only crate that reads specs, knows result paths and uses Polars.

mod check;
mod checkpoint;
mod claim;
mod environment;
mod error;
mod estimate;
mod latency;
mod outline;
pub mod plan;
pub mod progress;
pub mod published;
pub mod records;
mod run;
mod schedule;
pub mod spec;
mod stage_list;
mod stages;
mod stop;
pub mod store;
mod study;
pub mod tables;
mod tensorboard;
mod train;
mod workers;

pub use claim::{Doing, Holder, host_name};
pub use environment::{Environment, cpu_model};
pub use error::{HarnessError, SpecError};
pub use estimate::{Estimate, estimate, estimate_outline};
pub use latency::{LatencyError, LatencyOptions, LatencyStep, check_latency_models, latency};
pub use outline::{FROM_SCRATCH, Outline, OutlineCell};
pub use run::{Logged, Outcome, RunOptions, Runner, run, study_tables};
pub use stage_list::{ListedStage, StageKind, StageList};
pub use stop::Stop;
pub use study::{list_runs, not_run, study};
pub use workers::{RUN, STOP, Said, WorkerCommand, serve};
