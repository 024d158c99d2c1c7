//! Who is informed while work is done: the events, the log and the event files for TensorBoard. Who shows events to people is the
//! caller's choice.

mod event;
mod log;
mod tensorboard;

pub use event::{Event, Reporter, Silent};
pub use log::Logged;
pub(crate) use tensorboard::TensorBoard;
