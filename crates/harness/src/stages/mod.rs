//! The stages of a study: the dense net, the one-shot evidence, and a cell (Luo et al. 2017, section 3.3); beside them the
//! calibration images that are kept.

pub(crate) mod calibrate;
pub(crate) mod cell;
pub(crate) mod crops;
pub(crate) mod dense;
pub(crate) mod evidence;

use std::sync::Arc;

use thinet_data::Dataset;
use thinet_models::Net;

use crate::error::HarnessError;
use crate::plan::Plan;
use crate::progress::{Event, Reporter};
use crate::records::{Metric, Row, Stage};
use crate::store::{StageId, Store};
use crate::train::{Feed, evaluate};

/// The file of a stage's net.
pub(crate) const WEIGHTS: &str = "weights.safetensors";
/// The state of a training in progress.
pub(crate) const TRAIN_CHECKPOINT: &str = "train-checkpoint.safetensors";

/// What every stage works with.
pub(crate) struct Context<'a> {
    pub(crate) plan: &'a Plan,
    pub(crate) store: &'a Store,
    pub(crate) feed: &'a Feed,
    pub(crate) reporter: &'a dyn Reporter,
}

impl Context<'_> {
    pub(crate) fn progress(&self, id: &StageId, step: &str, done: u64, total: u64, loss: Option<f64>) {
        let (id, step) = (id.to_string(), step.to_owned());
        self.reporter.event(&Event::Progress { id, step, done, total, loss });
    }

    pub(crate) fn note(&self, id: &StageId, text: String) {
        self.reporter.event(&Event::Note { id: id.to_string(), text });
    }

    /// Top-1, top-5 and loss on the test images as rows of the whole net.
    pub(crate) fn evaluate(&self, id: &StageId, net: &Net, stage: Stage) -> Result<Vec<Row>, HarnessError> {
        let test: &Arc<dyn Dataset> = &self.plan.data.test;
        let step = format!("test {}", stage.name());
        let result =
            evaluate(net, test, self.feed, &|done, total| self.progress(id, &step, done, total, None))?;
        let row = |metric, value| Row { layer: String::new(), stage, metric, value };
        Ok(vec![
            row(Metric::Top1, result.top1),
            row(Metric::Top5, result.top5),
            row(Metric::Loss, result.loss),
        ])
    }
}

/// A row's value among rows of the whole net.
pub(crate) fn find(rows: &[Row], stage: Stage, metric: Metric) -> Option<f64> {
    rows.iter()
        .find(|row| row.layer.is_empty() && row.stage == stage && row.metric == metric)
        .map(|row| row.value)
}
