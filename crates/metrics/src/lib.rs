//! Measures of a network's predictions (top-1, top-5 and loss), statistics over several runs, and the spread of timings.
//! All of it works on plain numbers.
//!
//! The size of a network is counted where the network is described: `thinet_graph::count`.

mod error;
mod evaluation;
mod paired;
mod spread;
mod stats;

pub use error::MetricsError;
pub use evaluation::{Evaluation, Evaluator};
pub use paired::{PairedDifference, holm, seeds_to_show};
pub use spread::Spread;
pub use stats::{kendall_tau_b, mean, pooled_std, sample_std};
