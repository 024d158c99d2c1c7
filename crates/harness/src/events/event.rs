//! What a run tells while it works. The harness reports events; who shows them, and how, is the caller's matter.

use serde::{Deserialize, Serialize};
use thinet_report::records::Row;

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Event {
    /// A run starts to make what is missing.
    RunStarted {
        /// Stages that it makes: dense nets, shared calibrations and cells.
        stages: usize,
    },
    /// A stage starts: the dense net or a cell.
    StageStarted {
        /// The stage's id.
        id: String,
        /// What it is, for people.
        label: String,
    },
    /// A step of a stage advances: training, calibration or evaluation.
    Progress {
        /// The stage's id.
        id: String,
        /// The step, such as `train` or `conv2_1: tune`.
        step: String,
        /// Units done.
        done: u64,
        /// Units in all.
        total: u64,
        /// Running training loss, if the step has one.
        loss: Option<f64>,
        /// Learning rate, likewise.
        lr: Option<f64>,
    },
    /// Values of a stage are known.
    Measured {
        /// The stage's id.
        id: String,
        /// The values.
        rows: Vec<Row>,
    },
    /// Something worth a line in the log.
    Note {
        /// The stage's id.
        id: String,
        /// The line.
        text: String,
    },
    /// A stage failed.
    StageFailed {
        /// The stage's id.
        id: String,
        /// What it is, for people.
        label: String,
        /// Why.
        error: String,
    },
    /// A stage is complete and stored.
    StageFinished {
        /// The stage's id.
        id: String,
        /// Its result in a few words.
        summary: String,
        /// Wall time in seconds.
        seconds: f64,
    },
}

/// Receives events, from any thread.
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
