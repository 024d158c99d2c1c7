//! Progress of a run: events, the log, and event files for TensorBoard.

mod event;
mod log;
mod tensorboard;

pub use event::{Event, Reporter, Silent};
pub use log::EventLog;
pub(crate) use tensorboard::TensorBoard;
