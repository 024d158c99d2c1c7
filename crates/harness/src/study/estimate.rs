//! Estimates of a study's cost: work and time by kind of stage and of work, by the times of stored stages or assumed rates, and disk
//! space.

use std::collections::BTreeMap;

use thinet_models::Precision;
use thinet_report::records::Mode;
use thinet_selectors::Needs;

use super::cost::{Rates, StageWork, bound, elapsed};
use super::durations::{Basis, Duration, ratio_of_all, ratio_of_kind};
use super::plan::Plan;
use super::plan_manifest::manifest;
use super::resolved::ResolvedStudy;
use super::spec::Spec;
use super::work::Work;
use crate::error::HarnessError;
use crate::store::{Depth, StageId, StageKind, Store, has_bf16_kernels};

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
    /// Whether some times were measured on stored stages of this plan.
    pub is_measured: bool,
    /// Multiply-adds per second and job that come out, over all missing stages; over all stages once none is missing.
    pub rate: f64,
    /// The missing dense nets, calibrations and cells.
    pub by_kind: [KindCost; 3],
    /// Bytes on disk at the end: nets, calibration images, and the checkpoints of running jobs.
    pub disk: f64,
    /// Whether trainings compute in bfloat16 on a processor for which libtorch has no kernels of that kind, which takes about
    /// [`BF16_WITHOUT_KERNELS`](super::BF16_WITHOUT_KERNELS) times as long as f32.
    pub is_bf16_slow: bool,
}

/// The cost of the missing stages of one kind.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct KindCost {
    pub kind: StageKind,
    /// How many are missing.
    pub missing: usize,
    /// Seconds of all of them, one after the other.
    pub seconds: f64,
    /// Seconds of each of [`KINDS_OF_WORK`](super::KINDS_OF_WORK) at the rates assumed of the device. What is read, copied and computed
    /// runs side by side.
    pub parts: [f64; 7],
    /// The place in [`KINDS_OF_WORK`](super::KINDS_OF_WORK) of what bounds the time, at these rates.
    pub bound: usize,
    pub basis: Basis,
}

const KINDS: [StageKind; 3] = [StageKind::Dense, StageKind::Evidence, StageKind::Cell];

/// A stage, and how long it took if it is stored.
struct Item {
    kind: StageKind,
    work: StageWork,
    took: Option<f64>,
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
    let mut items = Vec::with_capacity(stages.len());
    let mut costs = work_of(plan, &work);
    for stage in &stages {
        let Some(id) = StageId::parse(&stage.id) else { unreachable!("a plan's ids are plain") };
        let stored = match store.brief(&id, Depth::Sizes) {
            // A damaged stage is run again.
            Err(HarnessError::Damaged { .. }) => None,
            other => other?,
        };
        let Some(work) = costs.remove(&stage.id) else { unreachable!("a manifest lists a plan's stages") };
        items.push(Item { kind: stage.kind, work, took: stored.map(|result| result.seconds) });
    }
    let is_slow = is_bf16_slow(&plan.spec, plan.device.is_gpu());
    let rates = rates(&plan.spec, plan.device.is_gpu(), cores(), jobs);
    let disk = work.disk(plan.cells.iter().map(|cell| cell.design.size), plan.dense.len(), jobs);
    Ok(Estimate { is_bf16_slow: is_slow, ..summed(&items, &rates, jobs, disk) })
}

/// Seconds of the work of a stage by the rates assumed of the plan's device, for the only process on this machine.
pub(crate) fn assumed_seconds(plan: &Plan) -> impl Fn(&StageWork) -> f64 {
    let rates = rates(&plan.spec, plan.device.is_gpu(), cores(), 1);
    move |work| elapsed(&rates.seconds(work))
}

/// The work of each stage of a plan by its id.
fn work_of(plan: &Plan, work: &Work<'_>) -> BTreeMap<String, StageWork> {
    let dense = plan.dense.iter().map(|stage| (stage.id.to_string(), work.dense()));
    let evidence = plan.dense.iter().flat_map(|dense| &dense.evidence);
    let evidence = evidence
        .map(|stage| (stage.id.to_string(), work.evidence(&stage.variant.spec, Needs::only(stage.kind))));
    // Ranking channels takes no time beside passes over images.
    let allocations = plan.allocations.iter().map(|stage| (stage.id.to_string(), StageWork::default()));
    let cells = plan.cells.iter().map(|cell| (cell.id.to_string(), work.cell(&cell.design)));
    dense.chain(evidence).chain(allocations).chain(cells).collect()
}

/// Estimates the cost of a study whose data is absent; `images` are the numbers of training and test images.
#[must_use]
pub fn estimate_without_data(
    resolved: &ResolvedStudy,
    images: [usize; 2],
    is_gpu: bool,
    jobs: usize,
) -> Estimate {
    without_data_on(resolved, images, is_gpu, jobs, cores())
}

fn without_data_on(
    resolved: &ResolvedStudy,
    images: [usize; 2],
    is_gpu: bool,
    jobs: usize,
    cores: usize,
) -> Estimate {
    let work = Work::without_data(resolved, images);
    let seeds = resolved.spec.seeds as usize;
    // Variants with the same sample of the same layers share their calibrations.
    let mut calibrations: Vec<&Spec> = Vec::new();
    for spec in resolved.variants.iter().map(|variant| &variant.spec) {
        let is_same = |known: &&Spec| {
            (&known.prune.layers, &known.calibration) == (&spec.prune.layers, &spec.calibration)
        };
        if spec.prune.mode == Mode::OneShot && !calibrations.iter().any(is_same) {
            calibrations.push(spec);
        }
    }
    let item = |kind, work| Item { kind, work, took: None };
    let mut items = Vec::new();
    for _ in 0..seeds {
        items.push(item(StageKind::Dense, work.dense()));
        items.extend(
            calibrations.iter().map(|spec| item(StageKind::Evidence, work.evidence(spec, Needs::MOMENTS))),
        );
    }
    items.extend(resolved.cells.iter().map(|cell| item(StageKind::Cell, work.cell(cell))));
    let is_slow = is_bf16_slow(&resolved.spec, is_gpu);
    let rates = rates(&resolved.spec, is_gpu, cores, jobs);
    let disk = work.disk(resolved.cells.iter().map(|cell| cell.size), seeds, jobs);
    Estimate { is_bf16_slow: is_slow, ..summed(&items, &rates, jobs, disk) }
}

/// Whether a spec trains in bfloat16 on this machine's processor and there are no kernels for it.
fn is_bf16_slow(spec: &Spec, is_gpu: bool) -> bool {
    spec.compute.precision == Precision::Bf16 && !is_gpu && !has_bf16_kernels()
}

/// The rates assumed of a device of this machine, for one of `jobs` processes.
fn rates(spec: &Spec, is_gpu: bool, cores: usize, jobs: usize) -> Rates {
    let rates = Rates::assumed(spec, is_gpu, cores, jobs);
    if is_bf16_slow(spec, is_gpu) { rates.with_slow_bf16() } else { rates }
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn summed(items: &[Item], rates: &Rates, jobs: usize, disk: f64) -> Estimate {
    let assumed = |item: &Item| elapsed(&rates.seconds(&item.work));
    let stored = items
        .iter()
        .filter_map(|item| item.took.map(|took| Duration { kind: item.kind, expected: assumed(item), took }));
    let stored: Vec<Duration> = stored.collect();
    let of_all = ratio_of_all(&stored);
    let by_kind = KINDS.map(|kind| {
        let (ratio, basis) = ratio_of_kind(&stored, kind);
        let (mut missing, mut seconds, mut parts) = (0, 0.0, [0.0; 7]);
        for item in items.iter().filter(|item| item.kind == kind && item.took.is_none()) {
            missing += 1;
            seconds += assumed(item) * ratio;
            for (sum, part) in parts.iter_mut().zip(rates.seconds(&item.work)) {
                *sum += part;
            }
        }
        KindCost { kind, missing, seconds, parts, bound: bound(&parts), basis }
    });
    let missing = || items.iter().filter(|item| item.took.is_none());
    // The sum of no numbers is -0.
    let macs = missing().map(|item| item.work.macs()).sum::<f64>() + 0.0;
    let seconds = by_kind.iter().map(|cost| cost.seconds).sum::<f64>();
    let rate = match macs > 0.0 {
        true => macs / seconds,
        false => {
            let all: f64 = items.iter().map(|item| item.work.macs()).sum();
            all / (items.iter().map(assumed).sum::<f64>() * of_all.unwrap_or(1.0))
        }
    };
    Estimate {
        stages: items.len(),
        kinds: KINDS.map(|kind| items.iter().filter(|item| item.kind == kind).count()),
        done: items.iter().filter(|item| item.took.is_some()).count(),
        macs,
        seconds: seconds / jobs.max(1) as f64,
        is_measured: of_all.is_some(),
        rate,
        by_kind,
        disk,
        is_bf16_slow: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::study::KINDS_OF_WORK;
    use crate::study::work::tests::{layer_by_layer, one_shot, resolved};

    #[test]
    fn an_estimate_without_data_counts_every_stage_and_shares_the_time_among_jobs() {
        for (study, calibrations) in [(layer_by_layer(), 0), (one_shot(), 2)] {
            let found = estimate_without_data(&study, [100, 20], false, 3);
            assert_eq!((found.kinds, found.stages, found.done), ([2, calibrations, 4], 6 + calibrations, 0));
            let work = Work::without_data(&study, [100, 20]);
            let [thinet, scratch] = [0, 2].map(|cell| work.cell(&study.cells[cell]).macs());
            let mut macs = 2.0 * (work.dense().macs() + thinet + scratch);
            macs += calibrations as f64 * work.evidence(&study.spec, Needs::MOMENTS).macs();
            assert!((found.macs / macs - 1.0).abs() < 1e-9);
            assert!(
                !found.is_measured && found.rate < 6.0e10,
                "layers between the convolutions take time, too"
            );
            assert!((found.seconds * found.rate * 3.0 / macs - 1.0).abs() < 1e-9);
            assert_eq!(found.disk, work.disk(study.cells.iter().map(|cell| cell.size), 2, 3));
            let [dense, evidence, cells] = found.by_kind;
            assert_eq!((dense.missing, evidence.missing, cells.missing), (2, calibrations, 4));
            assert!([dense, evidence, cells].iter().all(|cost| cost.basis == Basis::Assumed));
            let all = dense.seconds + evidence.seconds + cells.seconds;
            assert!((found.seconds * 3.0 / all - 1.0).abs() < 1e-9);
            // No job counts as one.
            let [none, one] = [0, 1].map(|jobs| estimate_without_data(&study, [100, 20], true, jobs).seconds);
            assert_eq!(none, one);
        }
    }

    /// A study of photographs that trains in bfloat16.
    const PHOTOGRAPHS: &str = r#"
name = "x"
dataset = { kind = "cub200" }
net = { arch = "resnet50" }
compute = { precision = "bf16" }
prune = { mode = "one-shot", keep-rates = [0.5] }
calibration = { images-per-class = 1, positions-per-image = 1 }
dense = { train = { epochs = 1, batch = 64, lr = 0.1 } }
methods = [{ selector = "thinet" }]
"#;

    #[test]
    fn bfloat16_is_slow_on_a_processor_without_kernels_for_it_and_on_no_gpu() {
        let of = |precision: &str| resolved(&PHOTOGRAPHS.replace("bf16", precision));
        let found = |study: &ResolvedStudy, is_gpu| estimate_without_data(study, [100, 20], is_gpu, 1);
        let [full, half] = [of("f32"), of("bf16")];
        assert_eq!(found(&half, false).is_bf16_slow, !has_bf16_kernels());
        assert!(!found(&half, true).is_bf16_slow && !found(&full, false).is_bf16_slow);
        let [full, half] = [&full, &half].map(|study| found(study, false).seconds);
        assert_eq!(half > 2.0 * full, !has_bf16_kernels(), "{half} s and {full} s");
    }

    #[test]
    fn what_bounds_a_gpu_is_the_decoding_of_photographs_or_its_kernels_for_small_images() {
        let bounds = |study: &ResolvedStudy, cores| {
            let found = without_data_on(study, [10_000, 2_000], true, 1, cores);
            KINDS_OF_WORK[found.by_kind[0].bound]
        };
        let photographs = resolved(PHOTOGRAPHS);
        assert_eq!(
            (bounds(&photographs, 4), bounds(&photographs, 400)),
            ("decoding photographs", "other layers")
        );
        assert_eq!(bounds(&layer_by_layer(), 4), "starting kernels");
    }

    #[test]
    fn the_time_of_a_kind_follows_stored_stages_of_that_kind_else_those_of_others() {
        let study = one_shot();
        let work = Work::without_data(&study, [100, 20]);
        let rates = Rates::assumed(&study.spec, false, 1, 1);
        let item = |kind, work, took| Item { kind, work, took };
        let cell = work.cell(&study.cells[0]);
        let assumed = |work: &StageWork| elapsed(&rates.seconds(work));
        let items = |dense: Option<f64>, evidence: Option<f64>| {
            vec![
                item(StageKind::Dense, work.dense(), dense.map(|times| times * assumed(&work.dense()))),
                item(StageKind::Dense, work.dense(), None),
                item(StageKind::Evidence, work.evidence(&study.spec, Needs::MOMENTS), evidence),
                item(StageKind::Cell, cell, None),
            ]
        };
        let times = |dense, evidence| {
            let found = summed(&items(dense, evidence), &rates, 1, 0.0);
            let [dense, _, cells] = found.by_kind;
            let factors = [dense.seconds / assumed(&work.dense()), cells.seconds / assumed(&cell)];
            (factors.map(|factor| (factor * 1e6).round() / 1e6), [dense.basis, cells.basis])
        };
        assert_eq!(times(Some(3.0), None), ([3.0, 3.0], [Basis::Measured, Basis::MeasuredOnOthers]));
        // Two dense nets are assumed, none is stored.
        let unknown = summed(&items(None, None), &rates, 1, 0.0);
        assert!(unknown.by_kind.iter().all(|cost| cost.basis == Basis::Assumed) && !unknown.is_measured);
        let slow = times(Some(3.0), Some(1e6));
        assert_eq!(
            (slow.0[0], slow.1[0]),
            (3.0, Basis::Measured),
            "a slow calibration leaves dense nets alone"
        );
    }
}
