//! Events of a run. The harness reports them to a [`Reporter`] of the caller.

use serde::{Deserialize, Serialize};
use thinet_report::records::Row;

/// An event of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Event {
    /// A run starts with its missing stages.
    RunStarted {
        /// Missing stages: dense nets, shared calibrations and cells.
        stages: usize,
    },
    /// A stage starts.
    StageStarted { id: String, label: String },
    /// A step of a stage advances: training, calibration or evaluation.
    Progress {
        id: String,
        /// The step, such as `train` or `conv2_1: tune`.
        step: String,
        /// Finished units: batches or images.
        done: u64,
        /// All units.
        total: u64,
        /// Running training loss, if the step has one.
        loss: Option<f64>,
        /// Learning rate, if the step has one.
        lr: Option<f64>,
    },
    /// Values of a stage were measured.
    Measured { id: String, rows: Vec<Row> },
    /// A message for the log.
    Note { id: String, text: String },
    /// A stage failed.
    StageFailed { id: String, label: String, error: String },
    /// A stage is complete and stored.
    StageFinished {
        id: String,
        /// Its result in a few words, such as `top-1 91.20 %`.
        summary: String,
        /// Wall time in seconds.
        seconds: f64,
    },
}

/// Receives events from any thread.
pub trait Reporter: Sync {
    /// Called for each event.
    fn event(&self, event: &Event);
}

/// Ignores all events.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Reporter for Silent {
    fn event(&self, _: &Event) {}
}
