//! Running a plan: its pre-flight, queue, worker processes, and batch jobs.

mod compare;
mod export_evidence;
mod options;
mod panics;
pub(crate) mod preflight;
mod protocol;
mod queue;
mod run_plan;
pub mod slurm;
mod stage_runner;
mod workers;

pub use compare::{compared, comparison_spec, typed_selector};
pub use export_evidence::export_evidence;
pub use options::RunOptions;
pub use panics::keep_panics;
pub use preflight::preflight;
pub use protocol::{WorkerMessage, listen, serve};
pub use run_plan::{Outcome, check_tables, run, unwritten_tables, write_tables};
pub use stage_runner::StageRunner;
pub(crate) use stage_runner::environment;
pub use workers::WorkerCommand;
