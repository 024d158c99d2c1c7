//! Runs single stages of a plan in this process, each under its claim, with libtorch set up as the spec says.

use std::collections::BTreeMap;
use std::path::Path;

use thinet_models::MemoryFormat;
use thinet_report::records::Environment;

use crate::error::HarnessError;
use crate::events::{Curves, Event, HParam, Reporter};
use crate::run::{RunOptions, panics};
use crate::stages::program::Programs;
use crate::stages::{
    BusyTime, Context, Feed, OWED_ON_GPU, Route, ToDevice, allocation, cell, dense, evidence,
};
use crate::store::{Activity, Claim, ClaimTiming, Holder, Store, environment_here};
use crate::study::cost::loader_threads;
use crate::study::{AllocationPlan, Cell, DensePlan, EvidencePlan, Plan};

/// The environment of this process.
pub(crate) fn environment(plan: &Plan) -> Environment {
    let checkout = plan.started_with.parent().unwrap_or(Path::new("."));
    environment_here(&plan.program, plan.device, plan.spec.compute.threads, checkout)
}

/// Runs single stages of a plan in this process.
pub struct StageRunner<'a> {
    plan: &'a Plan,
    store: Store,
    feed: Feed,
    environment: Environment,
    timing: ClaimTiming,
    programs: Programs,
}

impl<'a> StageRunner<'a> {
    /// Sets libtorch up as the spec says.
    ///
    /// # Errors
    /// If libtorch rejects a setting.
    pub fn new(plan: &'a Plan, options: &RunOptions) -> Result<Self, HarnessError> {
        let (store, feed) = (Store::at(&plan.results), feed(plan, options)?);
        let timing = ClaimTiming::expiring_after(options.claim_expiry);
        let programs = Programs::new(options.allow_commands, plan.spec.compute.threads, options.stop.clone());
        Ok(Self { plan, store, feed, environment: environment(plan), timing, programs })
    }

    /// Runs the stage with this id if it is not stored. The stages that it needs must be stored. If another process takes the stage
    /// over because this one was frozen for longer than claims last, waits for that process.
    ///
    /// # Errors
    /// If the plan has no such stage, the stage fails, or the run is asked to stop.
    pub fn run_stage(&self, id: &str, reporter: &dyn Reporter) -> Result<(), HarnessError> {
        let stage = self.find(id)?;
        loop {
            match self.compute(id, stage, reporter) {
                Err(error @ HarnessError::LostClaim { .. }) => {
                    let text = format!("{}: {error}", stage.label());
                    reporter.event(&Event::Note { id: id.to_owned(), text });
                }
                result => {
                    // An unfit dense net is stored: its record holds the problem.
                    if let Err(error) = &result
                        && !matches!(error, HarnessError::Stopped)
                        && !self.store.record_file(id).is_file()
                    {
                        self.store.note_failure(id, &stage.label(), &error.to_string());
                    }
                    return result;
                }
            }
        }
    }

    /// As [`StageRunner::run_stage`], but a panic is an error, and stored as the stage's failure.
    ///
    /// # Errors
    /// As [`StageRunner::run_stage`].
    pub fn run_stage_caught(&self, id: &str, reporter: &dyn Reporter) -> Result<(), HarnessError> {
        let result = panics::caught(|| self.run_stage(id, reporter));
        if let Err(error @ HarnessError::Panicked { .. }) = &result {
            let label = self.find(id).map_or_else(|_| id.to_owned(), |stage| stage.label());
            self.store.note_failure(id, &label, &error.to_string());
        }
        result
    }

    /// The plan's stage with this id. A stage of another plan is an error before a file is touched.
    fn find(&self, id: &str) -> Result<Stage<'a>, HarnessError> {
        let plan = self.plan;
        let dense = plan.dense.iter().find(|stage| stage.id.as_str() == id).map(Stage::Dense);
        let evidence = || {
            let mut all = plan.dense.iter().flat_map(|dense| dense.evidence.iter().map(move |e| (dense, e)));
            all.find(|(_, stage)| stage.id.as_str() == id).map(|(dense, stage)| Stage::Evidence(dense, stage))
        };
        let cell = || plan.cells.iter().find(|stage| stage.id.as_str() == id).map(Stage::Cell);
        let allocation = || {
            let stage = plan.allocations.iter().find(|stage| stage.id.as_str() == id);
            stage.map(|stage| Stage::Allocation(stage))
        };
        dense.or_else(evidence).or_else(allocation).or_else(cell).ok_or_else(|| {
            let problem = "the plan has no such stage; spec, data or options differ from the parent's".into();
            HarnessError::Worker { stage: id.to_owned(), problem }
        })
    }

    fn compute(&self, id: &str, stage: Stage<'_>, reporter: &dyn Reporter) -> Result<(), HarnessError> {
        let plan = self.plan;
        let waiting = |holder: &Holder| {
            let text = format!("{id}: {holder} works on it; waiting");
            reporter.event(&Event::Note { id: id.to_owned(), text });
        };
        let claim = Claim::take(&self.store.claim_file(id), &self.feed.stop, self.timing, &waiting)?;
        self.store.forget_failure(id);
        self.feed.busy.take();
        self.feed.waited.take();
        let reporter = ClaimProgress { claim: &claim, inner: reporter };
        let reporter = Curves::new(&plan.run_folder(), stage.hparams(plan), &reporter);
        let (store, feed, environment, timing) = (&self.store, &self.feed, &self.environment, self.timing);
        let (reporter, programs) = (&reporter, &self.programs);
        let context = Context { plan, store, feed, reporter, environment, programs, claim: &claim, timing };
        let computed = match stage {
            Stage::Dense(stage) => dense::ensure(&context, stage),
            Stage::Evidence(dense, stage) => evidence::ensure(&context, dense, stage),
            Stage::Allocation(stage) => allocation::ensure(&context, stage),
            Stage::Cell(stage) => cell::ensure(&context, stage).map(drop),
        };
        match computed {
            Ok(()) | Err(HarnessError::Stopped) => {}
            // If the claim was lost, the new holder can have removed files in use: the lost claim is the cause.
            Err(error) => return Err(claim.check().err().unwrap_or(error)),
        }
        note_left_out(plan, id, reporter);
        computed
    }
}

/// One stage of a plan.
#[derive(Clone, Copy)]
enum Stage<'a> {
    Dense(&'a DensePlan),
    Evidence(&'a DensePlan, &'a EvidencePlan),
    Allocation(&'a AllocationPlan),
    Cell(&'a Cell),
}

impl Stage<'_> {
    /// For messages.
    fn label(&self) -> String {
        match self {
            Self::Dense(dense) => dense.label(),
            Self::Evidence(_, evidence) => evidence.label.clone(),
            Self::Allocation(stage) => stage.label.clone(),
            Self::Cell(cell) => cell.design.label(),
        }
    }

    /// What TensorBoard filters and compares stages by.
    fn hparams(&self, plan: &Plan) -> BTreeMap<&'static str, HParam> {
        let text = |text: &str| HParam::Text(text.to_owned());
        let (method, seed) = match self {
            Self::Dense(dense) => ("dense".to_owned(), dense.seed),
            Self::Evidence(dense, evidence) => {
                (format!("calibration ({})", evidence.kind.name()), dense.seed)
            }
            Self::Allocation(stage) => {
                (format!("allocation ({})", stage.scorer.selector.short_name()), stage.design.seed)
            }
            Self::Cell(cell) => (cell.design.method.label(), cell.design.seed),
        };
        let mut hparams = BTreeMap::from([
            ("study", text(&plan.spec.name)),
            ("net", text(&plan.net_label())),
            ("dataset", text(plan.data.train.name())),
            ("method", HParam::Text(method)),
            ("seed", HParam::Number(seed as f64)),
        ]);
        if let Self::Cell(cell) = self {
            hparams.insert("keep-rate", HParam::Number(cell.design.keep_rate));
            if !cell.design.is_from_scratch {
                hparams.insert("selector", text(&cell.design.method.selector.name()));
                hparams.insert("reconstruction", text(&cell.design.method.reconstruction));
            }
            hparams.extend(cell.design.variant.name.as_ref().map(|name| ("variant", text(name))));
        }
        hparams
    }
}

/// Forwards events and shows progress in the claim for other processes.
struct ClaimProgress<'a> {
    claim: &'a Claim,
    inner: &'a dyn Reporter,
}

impl Reporter for ClaimProgress<'_> {
    fn event(&self, event: &Event) {
        if let Event::Progress { step, done, total, loss, .. } = event {
            self.claim.show(Activity { step: step.clone(), done: *done, total: *total, loss: *loss });
        }
        self.inner.event(event);
    }
}

/// Sets libtorch up and returns how images reach the net.
fn feed(plan: &Plan, options: &RunOptions) -> Result<Feed, HarnessError> {
    let compute = &plan.spec.compute;
    thinet_models::set_compute_threads(compute.threads)?;
    // TF32 is off except during training, which enables it itself.
    thinet_models::set_tf32(false)?;
    thinet_models::set_deterministic(compute.deterministic, plan.device)?;
    let format = match compute.channels_last {
        true => MemoryFormat::ChannelsLast,
        false => MemoryFormat::Contiguous,
    };
    let (transform, data) = (plan.transform.clone(), &plan.data);
    let (route, owed_losses) = match plan.device.is_gpu() {
        true => {
            plan.device.check_usable().map_err(HarnessError::Device)?;
            let sets = [&data.train, &data.calibration, &data.test];
            (Route::Bytes(ToDevice::new(plan.device, &transform.normalisation, &sets)?), OWED_ON_GPU)
        }
        false => (Route::Values, 1),
    };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let is_read = data.train.is_decoded_each_time() || data.train.prepared_file().is_some();
    Ok(Feed {
        device: plan.device,
        route,
        owed_losses,
        format,
        precision: compute.precision,
        tf32: compute.tf32,
        transform,
        loader_threads: loader_threads(cores, options.processes, plan.device.is_gpu() && is_read),
        checkpoint_every: options.checkpoint_every,
        stop: options.stop.clone(),
        busy: BusyTime::default(),
        waited: BusyTime::default(),
    })
}

/// Reports the files that were left out as damaged.
fn note_left_out(plan: &Plan, id: &str, reporter: &dyn Reporter) {
    let mut files = plan.data.train.left_out();
    for set in [&plan.data.calibration, &plan.data.test] {
        files.extend(set.left_out());
    }
    files.sort();
    files.dedup();
    for file in files {
        reporter.event(&Event::Note { id: id.to_owned(), text: format!("left out as damaged: {file}") });
    }
}
