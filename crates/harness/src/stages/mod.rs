//! Computing stages: the dense net, the one-shot evidence and a cell (Luo et al. 2017, section 3.3), the parts they share, and timings
//! of the paper's models.

pub(crate) mod allocation;
pub(crate) mod calibrate;
pub(crate) mod cell;
mod checkpoint;
mod chooser;
mod context;
pub(crate) mod crops;
pub(crate) mod dense;
mod evaluate;
pub(crate) mod evidence;
pub(crate) mod evidence_file;
mod feed;
mod latency;
mod loss_windows;
mod preprocessing;
pub(crate) mod program;
mod streams;
mod to_device;
mod train;

pub(crate) use context::Context;
pub(crate) use feed::{BusyTime, Feed, Route};
pub use latency::{LatencyError, LatencyOptions, LatencyStep, check_latency_models, latency};
pub use preprocessing::{PREPROCESSING, Preprocessing};
pub use to_device::{SmallPass, ToDevice};
pub(crate) use train::OWED_ON_GPU;
