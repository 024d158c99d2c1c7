//! Estimates of a study's cost: multiply-adds, time by the rate of stored stages or an assumed one, and disk space.

use thinet_report::records::Mode;

use super::plan::Plan;
use super::plan_manifest::manifest;
use super::resolved::ResolvedStudy;
use super::spec::Spec;
use super::work::Work;
use crate::error::HarnessError;
use crate::store::{Depth, StageId, StageKind, Store};

/// The cost of the missing stages of a plan.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    /// All stages.
    pub stages: usize,
    /// Of these, dense nets, calibrations and cells.
    pub kinds: [usize; 3],
    /// Stages that are stored.
    pub done: usize,
    /// Multiply-adds of the missing stages.
    pub macs: f64,
    /// Seconds of compute, divided by the number of jobs.
    pub seconds: f64,
    /// Whether the rate was measured on stored stages of this plan.
    pub is_measured: bool,
    /// Multiply-adds per second and job that the time is based on.
    pub rate: f64,
    /// Bytes on disk at the end: nets, calibration images, and the checkpoints of running jobs.
    pub disk: f64,
}

/// Estimates the missing work of a plan.
///
/// # Errors
/// If a stored record is damaged.
pub fn estimate(plan: &Plan, jobs: usize) -> Result<Estimate, HarnessError> {
    let store = Store::at(&plan.results);
    let work = Work::of_plan(plan);
    // The same stages that `status` counts.
    let stages = manifest(plan).stages;
    let mut done = 0;
    let (mut missing, mut known, mut seconds) = (0.0, 0.0, 0.0);
    for stage in &stages {
        let Some(id) = StageId::parse(&stage.id) else { unreachable!("a plan's ids are plain") };
        let stored = match store.brief(&id, Depth::Sizes) {
            // A damaged stage is run again.
            Err(HarnessError::Damaged { .. }) => None,
            other => other?,
        };
        match stored {
            Some(result) => {
                done += 1;
                known += stage.macs;
                // The multiply-adds of calibrations are unknown, so their time is left out of the rate.
                seconds += if stage.macs > 0.0 { result.seconds } else { 0.0 };
            }
            None => missing += stage.macs,
        }
    }
    let count = |kind| stages.iter().filter(|stage| stage.kind == kind).count();
    let kinds = [StageKind::Dense, StageKind::Evidence, StageKind::Cell].map(count);
    let is_measured = seconds > 0.0;
    let rate = if is_measured { known / seconds } else { work.assumed_rate(plan.device.is_gpu()) };
    let disk = work.disk(plan.cells.iter().map(|cell| cell.design.size), plan.dense.len(), jobs);
    let seconds = missing / rate / jobs.max(1) as f64;
    Ok(Estimate { stages: stages.len(), kinds, done, macs: missing, seconds, is_measured, rate, disk })
}

/// Estimates the cost of a study whose data is absent; `images` are the numbers of training and test images.
#[must_use]
pub fn estimate_without_data(
    resolved: &ResolvedStudy,
    images: [usize; 2],
    is_gpu: bool,
    jobs: usize,
) -> Estimate {
    let work = Work::without_data(resolved, images);
    let seeds = resolved.spec.seeds as usize;
    let cells = resolved.cells.iter().map(|cell| work.cell_macs(cell));
    let macs = work.dense_macs() * seeds as f64 + cells.sum::<f64>();
    let rate = work.assumed_rate(is_gpu);
    // Variants with the same sample of the same layers share their calibrations.
    let mut calibrations = Vec::new();
    for Spec { prune, calibration, .. } in resolved.variants.iter().map(|variant| &variant.spec) {
        if prune.mode == Mode::OneShot && !calibrations.contains(&(&prune.layers, calibration)) {
            calibrations.push((&prune.layers, calibration));
        }
    }
    let kinds = [seeds, seeds * calibrations.len(), resolved.cells.len()];
    Estimate {
        stages: kinds.iter().sum(),
        kinds,
        done: 0,
        macs,
        seconds: macs / rate / jobs.max(1) as f64,
        is_measured: false,
        rate,
        disk: work.disk(resolved.cells.iter().map(|cell| cell.size), seeds, jobs),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::study::work::tests::{layer_by_layer, one_shot};

    #[test]
    fn an_estimate_without_data_counts_every_stage_and_shares_the_time_among_jobs() {
        for (study, calibrations) in [(layer_by_layer(), 0), (one_shot(), 2)] {
            let found = estimate_without_data(&study, [100, 20], false, 3);
            assert_eq!((found.kinds, found.stages, found.done), ([2, calibrations, 4], 6 + calibrations, 0));
            let work = Work::without_data(&study, [100, 20]);
            let [thinet, scratch] = [0, 2].map(|cell| work.cell_macs(&study.cells[cell]));
            let macs = 2.0 * (work.dense_macs() + thinet + scratch);
            assert!((found.macs / macs - 1.0).abs() < 1e-9);
            assert_eq!((found.rate, found.is_measured), (6.0e10, false));
            assert!((found.seconds / (macs / 6.0e10 / 3.0) - 1.0).abs() < 1e-9);
            assert_eq!(found.disk, work.disk(study.cells.iter().map(|cell| cell.size), 2, 3));
            // No job counts as one.
            let [none, one] = [0, 1].map(|jobs| estimate_without_data(&study, [100, 20], true, jobs).seconds);
            assert!(none == one && (one / (macs / 3.0e13) - 1.0).abs() < 1e-9);
        }
    }
}
