//! What is measured of a network's answers: top-1, top-5 and loss, the statistics over several runs, and time.
//!
//! The size of a network is counted where the network is described: `thinet_graph::count`.

mod error;
mod evaluation;
mod latency;
mod stats;

pub use error::MetricsError;
pub use evaluation::{Evaluation, Evaluator};
pub use latency::{Spread, timed};
pub use stats::{kendall_tau_b, mean, sample_std};
