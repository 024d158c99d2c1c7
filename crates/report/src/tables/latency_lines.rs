//! The lines of the `latency` table: each model beside its dense net and its published times.

use thinet_metrics::Spread;
use thinet_nets::{Arch, ResNetStride, paper_models};

use super::TableError;
use super::latency_record::{LatencyRecord, ModelTimes};
use crate::published::{Figure, Latency, Published};

/// One line of the table.
pub(super) struct Line<'a> {
    /// The paper's name.
    pub(super) model: &'a str,
    pub(super) ours: Option<Times>,
    dense: Option<Times>,
    pub(super) is_dense: bool,
    pub(super) published: &'a Latency,
    published_dense: &'a Latency,
}

/// Times of a model, milliseconds for a batch.
#[derive(Clone, Copy)]
pub(super) struct Times {
    pub(super) forward: Spread,
    pub(super) both: Spread,
}

impl Times {
    fn of(times: &ModelTimes) -> Option<Self> {
        Some(Self { forward: Spread::of(&times.forward_ms)?, both: Spread::of(&times.both_ms)? })
    }

    pub(super) fn backward(&self) -> f64 {
        self.both.median - self.forward.median
    }
}

/// How many times faster than the dense net.
#[derive(Clone, Copy)]
pub(super) struct Speedup {
    pub(super) forward: f64,
    /// `None` if a backward time, a difference of medians, is not positive.
    pub(super) backward: Option<f64>,
}

impl Line<'_> {
    pub(super) fn faster(&self) -> Option<Speedup> {
        let (ours, dense) = (self.ours?, self.dense?);
        let positive = ours.backward() > 0.0 && dense.backward() > 0.0;
        Some(Speedup {
            forward: dense.forward.median / ours.forward.median,
            backward: positive.then(|| dense.backward() / ours.backward()),
        })
    }

    /// The ratios of the published forward and backward times.
    pub(super) fn published_faster(&self) -> [f64; 2] {
        let ratio = |dense: &Figure, pruned: &Figure| dense.printed.value() / pruned.printed.value();
        [
            ratio(&self.published_dense.forward_ms, &self.published.forward_ms),
            ratio(&self.published_dense.backward_ms, &self.published.backward_ms),
        ]
    }

    pub(super) fn published_faster_verified(&self) -> bool {
        is_verified(self.published) && is_verified(self.published_dense)
    }
}

pub(super) fn is_verified(published: &Latency) -> bool {
    published.forward_ms.verified && published.backward_ms.verified
}

/// The models in the order of the paper.
pub(super) fn lines<'a>(
    record: &LatencyRecord,
    published: &'a Published,
) -> Result<Vec<Line<'a>>, TableError> {
    let ours = |model: &str| record.models.iter().find(|times| times.model == model).and_then(Times::of);
    let mut lines = Vec::new();
    for model in paper_models(ResNetStride::First1x1)? {
        let dense = if model.spec.arch == Arch::Resnet50 { "resnet50" } else { "vgg16" };
        lines.push(Line {
            model: &published.compression(model.name)?.name,
            ours: ours(model.name),
            dense: ours(dense),
            is_dense: model.name == dense,
            published: published.latency(model.name)?,
            published_dense: published.latency(dense)?,
        });
    }
    Ok(lines)
}
