//! Progress of a run: events, the log, and curves for TensorBoard and as CSV.

mod curves;
mod event;
mod log;
mod metrics_file;
mod tensorboard;

pub(crate) use curves::Curves;

pub use event::{Event, Reporter, Silent};
pub use log::EventLog;
pub(crate) use tensorboard::HParam;
