//! What the missing stages of one kind cost, in a plan and in its JSON.

use std::collections::BTreeMap;

use serde::Serialize;
use thinet_harness::store::StageKind;
use thinet_harness::study::{Basis, KINDS_OF_WORK, KindCost};

use crate::words::{duration, stages_in_words};

/// What the missing stages of one kind cost.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct KindLine {
    kind: StageKind,
    missing: usize,
    /// Of all of them, one after the other.
    seconds: f64,
    bounded_by: &'static str,
    basis: &'static str,
    /// Seconds of each kind of work at the rates assumed of the device; they run side by side.
    assumed_seconds: BTreeMap<&'static str, f64>,
}

impl KindLine {
    pub(crate) fn new(cost: &KindCost) -> Self {
        let parts = KINDS_OF_WORK.into_iter().zip(cost.parts);
        Self {
            kind: cost.kind,
            missing: cost.missing,
            seconds: cost.seconds,
            bounded_by: KINDS_OF_WORK[cost.bound],
            basis: match cost.basis {
                Basis::Measured => "measured on stored ones",
                Basis::MeasuredOnOthers => "measured on stored stages of other kinds",
                Basis::Assumed => "assumed rates",
            },
            assumed_seconds: parts.filter(|(_, seconds)| *seconds > 0.0).collect(),
        }
    }

    /// On one line of a plan.
    pub(crate) fn print(&self) {
        let Self { kind, missing, seconds, bounded_by, basis, .. } = self;
        let stages = stages_in_words(match kind {
            StageKind::Dense => [*missing, 0, 0],
            StageKind::Evidence => [0, *missing, 0],
            StageKind::Cell => [0, 0, *missing],
        });
        let each = duration(seconds / *missing as f64);
        println!("  {stages}: about {each} each, bounded by {bounded_by} ({basis})");
    }
}
