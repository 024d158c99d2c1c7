//! The context of a running stage, and the steps that stages share: training, testing, storing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use thinet_data::Dataset;
use thinet_graph::ChannelSet;
use thinet_models::{Net, Weights};
use thinet_report::records::{Environment, LossCurve, Metric, Phase, Row, Status};
use thinet_seed::Seed;

use super::checkpoint::Checkpoints;
use super::evaluate::evaluate;
use super::feed::Feed;
use super::program::Programs;
use super::train::{Advance, Session, TrainingEnd, TrainingResult, train};
use crate::error::HarnessError;
use crate::events::{Event, Reporter};
use crate::store::{Claim, ClaimTiming, StageId, StageResult, Store};
use crate::study::{Plan, Recipe};

/// Message for a loss, a weight or a test that is NaN or infinite.
pub(crate) const NOT_FINITE: &str = "not finite; the net counts as diverged";

/// The context of a running stage.
pub(crate) struct Context<'a> {
    pub(crate) plan: &'a Plan,
    pub(crate) store: &'a Store,
    pub(crate) feed: &'a Feed,
    pub(crate) reporter: &'a dyn Reporter,
    pub(crate) environment: &'a Environment,
    /// The programs that select.
    pub(crate) programs: &'a Programs,
    /// The claim under which the stage runs.
    pub(crate) claim: &'a Claim,
    /// Timing of further claims that the stage takes.
    pub(crate) timing: ClaimTiming,
}

impl Context<'_> {
    pub(crate) fn progress(&self, id: &StageId, step: &str, done: u64, total: u64) {
        let (id, step) = (id.to_string(), step.to_owned());
        self.reporter.event(&Event::Progress { id, step, done, total, loss: None, lr: None });
    }

    pub(crate) fn measured(&self, id: &StageId, rows: &[Row]) {
        self.reporter.event(&Event::Measured { id: id.to_string(), rows: rows.to_vec() });
    }

    /// Trains a net of the stage in place. Weights that are not finite afterwards count as diverged.
    pub(crate) fn train(
        &self,
        id: &StageId,
        net: &mut Net,
        recipe: &Recipe,
        seed: Seed,
        name: &TrainingName<'_>,
    ) -> Result<TrainingResult, HarnessError> {
        let folder = self.store.folder(id);
        let TrainingName { step, kind, start } = *name;
        let session = Session {
            feed: self.feed,
            recipe,
            seed,
            checkpoints: Checkpoints::new(&folder, training(kind)).under(self.claim),
            start,
            progress: &|Advance { done, total, loss, lr }| {
                let (id, step, loss, lr) = (id.to_string(), step.to_owned(), Some(loss), Some(lr));
                self.reporter.event(&Event::Progress { id, step, done, total, loss, lr });
            },
            note: &|text| self.note(id, text),
        };
        let mut trained = train(net, &self.plan.data.train, &session)?;
        if matches!(trained.end, TrainingEnd::Done { .. }) && !is_finite(&net.weights)? {
            trained.end = TrainingEnd::Diverged { step: recipe.total_steps(self.plan.data.train.len()) };
        }
        Ok(trained)
    }

    /// Stores the stage's result and reports it, unless another process has taken the stage over.
    pub(crate) fn finish(
        &self,
        output: StageOutput<'_>,
        files: &[&str],
    ) -> Result<StageResult, HarnessError> {
        let summary = output.summary.clone();
        let result = self.keep(output, files)?;
        self.finished(&result, summary);
        Ok(result)
    }

    /// As [`Context::finish`], without reporting it.
    pub(crate) fn keep(&self, output: StageOutput<'_>, files: &[&str]) -> Result<StageResult, HarnessError> {
        let StageOutput { id, inputs, status, rows, loss_curve, kept, test_images, started, summary: _ } =
            output;
        self.claim.check()?;
        let seconds = started.elapsed().as_secs_f64();
        let result = StageResult {
            checksum: None,
            id: id.to_string(),
            inputs,
            status,
            rows,
            loss_curve,
            kept,
            test_images,
            files: BTreeMap::new(),
            sizes: BTreeMap::new(),
            seconds,
            busy_seconds: Some(self.feed.busy.take()),
            waited_seconds: Some(self.feed.waited.take()),
            environment: Some(self.environment.clone()),
        };
        self.store.finish(id, result, files)
    }

    /// Reports that a stage is complete and stored.
    pub(crate) fn finished(&self, result: &StageResult, summary: String) {
        self.reporter.event(&Event::StageFinished {
            id: result.id.clone(),
            summary,
            seconds: result.seconds,
        });
    }

    pub(crate) fn note(&self, id: &StageId, text: String) {
        self.reporter.event(&Event::Note { id: id.to_string(), text });
    }

    /// Tests a net of the stage on the test images.
    pub(crate) fn evaluate(&self, id: &StageId, net: &Net, phase: Phase) -> Result<TestResult, HarnessError> {
        let test: &Arc<dyn Dataset> = &self.plan.data.test;
        let step = format!("test {}", phase.name());
        let result = evaluate(net, test, self.feed, &|done, total| self.progress(id, &step, done, total))?;
        let row = |metric, value| Row { layer: String::new(), phase, metric, value };
        let rows = vec![
            row(Metric::Top1, result.top1),
            row(Metric::Top5, result.top5),
            row(Metric::Loss, result.loss),
        ];
        self.measured(id, &rows);
        Ok(TestResult { name: step, rows, images: result.images })
    }
}

/// The names of a training of a stage.
pub(crate) struct TrainingName<'a> {
    /// For messages, such as `conv1: tune`.
    pub(crate) step: &'a str,
    /// In the names of its checkpoints, such as `conv1`.
    pub(crate) kind: &'a str,
    /// Additional metadata of its checkpoints: how its net was cut.
    pub(crate) start: &'a BTreeMap<String, String>,
}

/// The kind of checkpoints of a training of a stage.
pub(crate) fn training(kind: &str) -> String {
    format!("train-{kind}")
}

/// Whether no weight and no running statistic is NaN or infinite.
pub(crate) fn is_finite(weights: &Weights) -> Result<bool, HarnessError> {
    for (_, tensor) in weights.iter() {
        if tensor.f_isfinite()?.f_all()?.f_int64_value(&[])? == 0 {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The result of a test.
pub(crate) struct TestResult {
    /// For messages, such as `test dense`.
    pub(crate) name: String,
    /// Top-1, top-5 and loss as rows of the whole net.
    pub(crate) rows: Vec<Row>,
    /// Number of test images.
    pub(crate) images: u64,
}

impl TestResult {
    /// Whether all outputs of the net are finite: if one is not, neither is the loss.
    pub(crate) fn is_finite(&self) -> bool {
        self.rows.iter().all(|row| row.value.is_finite())
    }
}

/// The output of a stage that is not yet stored.
pub(crate) struct StageOutput<'a> {
    pub(crate) id: &'a StageId,
    pub(crate) inputs: serde_json::Value,
    pub(crate) status: Status,
    pub(crate) rows: Vec<Row>,
    pub(crate) loss_curve: Option<LossCurve>,
    pub(crate) kept: BTreeMap<String, ChannelSet>,
    pub(crate) test_images: Option<u64>,
    pub(crate) started: Instant,
    /// Its result in a few words, such as `top-1 91.20 %`.
    pub(crate) summary: String,
}
