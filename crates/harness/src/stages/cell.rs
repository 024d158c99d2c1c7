//! One cell: calibrate, select, cut, refit and tune each layer, then the long tuning (Luo et al. 2017, section 3.3).

mod refit;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

use tch::Device;
use thinet_graph::{ChannelSet, Graph, channel_group, plan_surgery};
use thinet_models::{Net, Weights, apply_surgery, load_net, load_tensors, save_net};
use thinet_reconstruction::Reconstructor;
use thinet_report::records::{LossCurve, Metric, Phase, Row, Status, find};
use thinet_sampling::SamplingError;
use thinet_selectors::Evidence;

use self::refit::Cut;
use super::calibrate::{Sample, calibrate, estimate_batch_norm};
use super::checkpoint::Checkpoints;
use super::chooser::Chooser;
use super::context::{Context, NOT_FINITE, StageOutput, TestResult, TrainingName, training};
use super::evaluate::evaluate;
use super::preprocessing::Preprocessing;
use super::train::TrainingEnd;
use super::{dense, evidence, streams};
use crate::error::HarnessError;
use crate::events::Event;
use crate::store::StageResult;
use crate::store::paths::WEIGHTS;
use crate::study::{Cell, Recipe, Spec};

/// Checkpoints of the state after each finished layer of a cell in progress.
const LAYERS: &str = "layers";
/// Name of the long tuning among the trainings of a cell.
const LAST: &str = "last";

/// Runs the cell if it is not stored. Its dense net must be stored.
pub(crate) fn ensure(context: &Context<'_>, cell: &Cell) -> Result<StageResult, HarnessError> {
    match context.store.result(&cell.id)? {
        Some(result) => Ok(result),
        None => compute(context, cell),
    }
}

fn compute(context: &Context<'_>, cell: &Cell) -> Result<StageResult, HarnessError> {
    let started = Instant::now();
    context.reporter.event(&Event::StageStarted { id: cell.id.to_string(), label: cell.design.label() });
    let folder = context.store.begin(&cell.id)?;
    let (state, ended) = if cell.design.is_from_scratch {
        from_scratch(context, cell)?
    } else {
        let run = CellRun {
            context,
            cell,
            folder: &folder,
            chooser: Chooser::of(context, cell)?,
            reconstructor: thinet_reconstruction::find(&cell.design.method.reconstruction)?,
        };
        if cell.design.variant.spec.is_one_shot() { run.one_shot()? } else { run.layer_by_layer()? }
    };
    let status = match ended {
        Ok(()) => Status::Done,
        Err(Halt::Diverged(what)) => {
            context.note(&cell.id, format!("{}: {what}", cell.design.label()));
            Status::Diverged
        }
        Err(Halt::Failed(error)) => return Err(error),
    };

    let allocated = context.plan.allocated_net(cell)?;
    let size = allocated.map_or(cell.design.size, |net| net.size);
    // Only what the stage's id covers, as other runs share the file.
    let metadata = BTreeMap::from([
        ("stage".to_owned(), cell.id.to_string()),
        ("kept".to_owned(), to_json(&state.facts.kept)?),
        ("counts".to_owned(), to_json(&size)?),
        Preprocessing::entry(context.plan)?,
    ]);
    context.claim.check()?;
    save_net(&folder.join(WEIGHTS), &state.net, &metadata)?;
    let Facts { rows, loss_curve, kept, test_images } = state.facts;
    let top1 = |phase| find(&rows, phase, Metric::Top1);
    let summary = match top1(Phase::AfterFineTune).or_else(|| top1(Phase::AfterReconstruction)) {
        _ if status == Status::Diverged => "diverged".into(),
        Some(top1) => format!("top-1 {top1:.2} %"),
        None => "done".into(),
    };
    let (id, inputs) = (&cell.id, context.plan.cell_inputs(cell)?);
    let output = StageOutput { id, inputs, status, rows, loss_curve, kept, test_images, started, summary };
    context.finish(output, &[WEIGHTS])
}

/// Why a cell ends before its last step.
enum Halt {
    /// A loss, a weight or a test is NaN or infinite; the message names it.
    Diverged(String),
    /// An error.
    Failed(HarnessError),
}

impl<E: Into<HarnessError>> From<E> for Halt {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

/// The control: a net of the cell's widths from a random start.
fn from_scratch(context: &Context<'_>, cell: &Cell) -> Result<(State, Result<(), Halt>), HarnessError> {
    let plan = context.plan;
    let Some(recipe) = &cell.design.variant.spec.from_scratch else {
        unreachable!("the plan has this cell because the spec has the recipe")
    };
    let seed = streams::from_scratch(cell.design.seed);
    let start = streams::starting_weights(seed);
    let graph = match &cell.allocation {
        None => Graph::clone(&cell.design.graph),
        Some(stage) => plan.allocated_net(cell)?.ok_or_else(|| plan.not_run(&stage.label))?.graph,
    };
    let weights = Weights::init_as(&graph, recipe.init, start, plan.device.into())?;
    let net = Net { graph, weights: weights.to_format(context.feed.format)? };
    let mut state = State::of(net);
    let name = TrainingName { step: "train", kind: "scratch", start: &BTreeMap::new() };
    let trained = context.train(&cell.id, &mut state.net, recipe, streams::training(seed), &name)?;
    state.facts.loss_curve = trained.curve;
    let ended = match trained.end {
        TrainingEnd::Diverged { step } => Err(Halt::Diverged(format!("training diverged at step {step}"))),
        TrainingEnd::Done { loss } => {
            let (phase, metric) = (Phase::AfterFineTune, Metric::TrainLoss);
            state.facts.rows.push(Row { layer: String::new(), phase, metric, value: loss });
            state.add(context.evaluate(&cell.id, &state.net, Phase::AfterFineTune)?)
        }
    };
    Ok((state, ended))
}

/// State of a cell in progress.
struct State {
    net: Net,
    facts: Facts,
}

/// Measurements and selections of a cell in progress.
#[derive(Default)]
struct Facts {
    rows: Vec<Row>,
    /// Loss of the last tuning or of the control's training. Not in checkpoints, as no other training follows.
    loss_curve: Option<LossCurve>,
    /// Kept channels of each layer that is cut.
    kept: BTreeMap<String, ChannelSet>,
    /// The smallest number of images of a test.
    test_images: Option<u64>,
}

impl State {
    /// The state before the first cut.
    fn of(net: Net) -> Self {
        Self { net, facts: Facts::default() }
    }

    /// Adds the rows of a test. A net with NaN or infinite outputs has diverged, and its test is dropped.
    fn add(&mut self, tested: TestResult) -> Result<(), Halt> {
        if !tested.is_finite() {
            return Err(Halt::Diverged(format!("{}: {NOT_FINITE}", tested.name)));
        }
        self.facts.rows.extend(tested.rows);
        let fewest = self.facts.test_images.map_or(tested.images, |fewest| fewest.min(tested.images));
        self.facts.test_images = Some(fewest);
        Ok(())
    }
}

// Keys of a checkpoint's metadata.
const ROWS: &str = "rows";
const KEPT: &str = "kept";
const TEST_IMAGES: &str = "test-images";

impl Facts {
    /// The metadata of a checkpoint.
    fn metadata(&self) -> Result<BTreeMap<String, String>, HarnessError> {
        Ok(BTreeMap::from([
            (ROWS.to_owned(), to_json(&self.rows)?),
            (KEPT.to_owned(), to_json(&self.kept)?),
            (TEST_IMAGES.to_owned(), to_json(&self.test_images)?),
        ]))
    }

    /// Reads a checkpoint's metadata; `None` if it holds no selection, as checkpoints of trainings of old versions.
    fn read(path: &Path, metadata: &BTreeMap<String, String>) -> Result<Option<Self>, HarnessError> {
        let damaged =
            |e: serde_json::Error| HarnessError::Damaged { path: path.to_owned(), problem: e.to_string() };
        let (Some(rows), Some(kept)) = (metadata.get(ROWS), metadata.get(KEPT)) else { return Ok(None) };
        let test_images = metadata.get(TEST_IMAGES).map_or("null", String::as_str);
        Ok(Some(Self {
            rows: serde_json::from_str(rows).map_err(damaged)?,
            loss_curve: None,
            kept: serde_json::from_str(kept).map_err(damaged)?,
            test_images: serde_json::from_str(test_images).map_err(damaged)?,
        }))
    }
}

struct CellRun<'a> {
    context: &'a Context<'a>,
    cell: &'a Cell,
    folder: &'a Path,
    chooser: Chooser<'a>,
    reconstructor: &'static dyn Reconstructor,
}

impl CellRun<'_> {
    /// The spec of the cell's variant.
    fn spec(&self) -> &Spec {
        &self.cell.design.variant.spec
    }

    /// The root seed.
    fn root(&self) -> u64 {
        self.cell.design.seed
    }

    /// The sample of all layers in one-shot mode.
    fn sample(&self) -> Sample {
        let size = self.spec().calibration;
        Sample { size, seed: streams::calibration(self.root(), size.draw) }
    }

    /// The sample of a layer in layer-by-layer mode.
    fn sample_of(&self, layer: &str) -> Sample {
        let size = self.spec().calibration;
        Sample { size, seed: streams::layer_calibration(self.root(), size.draw, layer) }
    }

    /// The paper's procedure: each layer is calibrated on the net as pruned and tuned so far.
    fn layer_by_layer(&self) -> Result<(State, Result<(), Halt>), HarnessError> {
        let mut state = self.resume()?;
        let mut prune_all = || {
            for (i, (name, keep)) in self.cell.design.keep.iter().enumerate().skip(state.facts.kept.len()) {
                let is_last = i + 1 == self.cell.design.keep.len();
                self.prune_layer(&mut state, name, *keep, is_last)?;
            }
            Ok(())
        };
        let ended = prune_all();
        Ok((state, ended))
    }

    fn prune_layer(&self, state: &mut State, name: &str, keep: usize, is_last: bool) -> Result<(), Halt> {
        let prune = &self.spec().prune;
        let kind = if is_last { LAST } else { name };
        if !self.resume_tuning(state, &[name], kind)? {
            let evidence = self.calibrate(state, name)?;
            let kept = self.select(&evidence, keep)?;
            let sample = self.sample_of(name);
            let layer = Cut { name, kept: &kept, evidence: &evidence };
            let refit = self.refit(&state.net, &[layer], sample)?;
            self.cut(state, name, &kept)?;
            if is_last {
                state.add(self.context.evaluate(&self.cell.id, &state.net, Phase::AfterCut)?)?;
            }
            self.apply(state, &[layer], refit)?;
            if is_last {
                self.evaluate_reconstruction(state)?;
                self.evaluate_batch_norm(state, self.sample_of(name))?;
            }
            state.facts.kept.insert(name.to_owned(), kept);
        }
        self.tune(state, name, prune.recipe_after(name, is_last), is_last)?;
        if !is_last {
            self.checkpoint(state)?;
            self.checkpoints(training(kind)).clear()?;
        }
        Ok(())
    }

    /// Gathers the evidence of a layer of the net as pruned and tuned so far.
    fn calibrate(&self, state: &State, name: &str) -> Result<Evidence, Halt> {
        let group = channel_group(&state.net.graph, name)?;
        let step = format!("{name}: calibrate");
        let evidence = calibrate(
            self.context,
            &state.net,
            vec![group],
            self.chooser.needs(self.context, self.cell)?,
            self.sample_of(name),
            &|done, total| self.context.progress(&self.cell.id, &step, done, total),
        );
        match evidence {
            Ok(mut evidence) => Ok(evidence.remove(0)),
            // Finite weights can be so large that activations are infinite.
            Err(error @ HarnessError::Sampling(SamplingError::Evidence { .. })) => {
                let test = &self.context.plan.data.test;
                let test_result = evaluate(&state.net, test, self.context.feed, &|_, _| ())?;
                match test_result.loss.is_finite() {
                    true => Err(error.into()),
                    false => Err(Halt::Diverged(format!("{step}: {NOT_FINITE}"))),
                }
            }
            Err(error) => Err(error.into()),
        }
    }

    /// All layers are selected from one calibration of the dense net, then cut, then refitted.
    fn one_shot(&self) -> Result<(State, Result<(), Halt>), HarnessError> {
        let parent = &self.context.plan.dense[self.cell.dense];
        let mut state = State::of(dense::load(self.context, parent)?);
        let ended = self.prune_at_once(&mut state);
        Ok((state, ended))
    }

    fn prune_at_once(&self, state: &mut State) -> Result<(), Halt> {
        let layers: Vec<&str> = self.cell.design.keep.iter().map(|(name, _)| name.as_str()).collect();
        if !self.resume_tuning(state, &layers, LAST)? {
            let parent = &self.context.plan.dense[self.cell.dense];
            let all = evidence::load(
                self.context,
                parent,
                &state.net,
                &self.cell.design.variant,
                self.chooser.needs(self.context, self.cell)?,
            )?;
            for (evidence, (name, keep)) in all.iter().zip(self.cell.design.keep.iter()) {
                let kept = self.select(evidence, *keep)?;
                state.facts.kept.insert(name.clone(), kept);
            }
            let kept = state.facts.kept.clone();
            let layers = all.iter().zip(self.cell.design.keep.iter());
            let cuts: Vec<Cut<'_>> =
                layers.map(|(evidence, (name, _))| Cut { name, kept: &kept[name], evidence }).collect();
            let refit = self.refit(&state.net, &cuts, self.sample())?;
            for layer in &cuts {
                self.cut(state, layer.name, layer.kept)?;
            }
            state.add(self.context.evaluate(&self.cell.id, &state.net, Phase::AfterCut)?)?;
            self.apply(state, &cuts, refit)?;
            self.evaluate_reconstruction(state)?;
            self.evaluate_batch_norm(state, self.sample())?;
        }
        let recipe = self.spec().prune.after_last.as_ref();
        self.tune(state, "all layers", recipe, true)
    }

    /// Restores the selection that a tuning in progress started from, so that its weights are never combined with another one. False if
    /// there is no such tuning: then `layers` must be selected.
    fn resume_tuning(&self, state: &mut State, layers: &[&str], kind: &str) -> Result<bool, HarnessError> {
        let checkpoints = self.checkpoints(training(kind));
        let label = self.cell.design.label();
        let note = |text: String| self.context.note(&self.cell.id, format!("{label}: {text}"));
        let mut damaged = |name| note(format!("checkpoint {name} is damaged"));
        let Some(path) = checkpoints.latest(&mut damaged)? else { return Ok(false) };
        let (_, metadata) = load_tensors(&path, Device::Cpu)?;
        let fits = |start: &Facts| {
            let is_new = |layer: &String| layers.contains(&layer.as_str());
            let mut before = start.kept.clone();
            before.retain(|layer, _| !is_new(layer));
            before == state.facts.kept && layers.iter().all(|layer| start.kept.contains_key(*layer))
        };
        let Some(start) = Facts::read(&path, &metadata)?.filter(fits) else {
            note(format!(
                "the tuning of {kind} in progress does not name its selection; the layer is selected again"
            ));
            checkpoints.clear()?;
            return Ok(false);
        };
        for layer in layers {
            self.cut(state, layer, &start.kept[*layer])?;
        }
        state.facts = start;
        Ok(true)
    }

    fn select(&self, evidence: &Evidence, keep: usize) -> Result<ChannelSet, HarnessError> {
        self.chooser.select(self.context, self.cell, self.folder, evidence, keep)
    }

    fn checkpoints(&self, kind: impl Into<String>) -> Checkpoints<'_> {
        Checkpoints::new(self.folder, kind).under(self.context.claim)
    }

    fn cut(&self, state: &mut State, layer: &str, kept: &ChannelSet) -> Result<(), HarnessError> {
        let surgery = plan_surgery(&state.net.graph, layer, kept)?;
        let weights = apply_surgery(&state.net.weights, &surgery)?.to_format(self.context.feed.format)?;
        state.net = Net { graph: surgery.graph, weights };
        Ok(())
    }

    /// Tests the refitted net with batch-norm statistics of the calibration images of `sample`, if the spec asks for it.
    fn evaluate_batch_norm(&self, state: &mut State, sample: Sample) -> Result<(), Halt> {
        if !self.spec().prune.estimate_batch_norm {
            return Ok(());
        }
        let progress = |done, total| self.context.progress(&self.cell.id, "estimate batch norm", done, total);
        let net = estimate_batch_norm(self.context, &state.net, sample, &progress)?;
        state.add(self.context.evaluate(&self.cell.id, &net, Phase::AfterBatchNormEstimate)?)
    }

    /// Fine-tunes, if there is a recipe, and tests the net after the last tuning.
    fn tune(
        &self,
        state: &mut State,
        layer: &str,
        recipe: Option<&Recipe>,
        is_last: bool,
    ) -> Result<(), Halt> {
        let Some(recipe) = recipe else { return Ok(()) };
        let (context, id) = (self.context, &self.cell.id);
        let step = if is_last { "fine-tune".to_owned() } else { format!("{layer}: tune") };
        let kind = if is_last { LAST } else { layer };
        let seed = streams::tuning(self.root(), kind);
        let name = TrainingName { step: &step, kind, start: &state.facts.metadata()? };
        let trained = context.train(id, &mut state.net, recipe, seed, &name)?;
        if is_last {
            state.facts.loss_curve = trained.curve;
        }
        match trained.end {
            TrainingEnd::Diverged { step } => {
                return Err(Halt::Diverged(format!("training diverged at step {step} after {layer}")));
            }
            TrainingEnd::Done { loss } => {
                let layer = if is_last { String::new() } else { layer.to_owned() };
                let (phase, metric) = (Phase::AfterFineTune, Metric::TrainLoss);
                state.facts.rows.push(Row { layer, phase, metric, value: loss });
            }
        }
        if is_last {
            state.add(context.evaluate(id, &state.net, Phase::AfterFineTune)?)?;
        }
        Ok(())
    }

    /// Saves the whole state as one file, so that either the old or the new state exists.
    fn checkpoint(&self, state: &State) -> Result<(), HarnessError> {
        let metadata = state.facts.metadata()?;
        self.checkpoints(LAYERS)
            .save(state.facts.kept.len() as u64, |path| Ok(save_net(path, &state.net, &metadata)?))
    }

    /// The state after the last finished layer.
    fn resume(&self) -> Result<State, HarnessError> {
        let note = |name| {
            let label = self.cell.design.label();
            self.context.note(&self.cell.id, format!("{label}: checkpoint {name} is damaged"));
        };
        let Some(path) = self.checkpoints(LAYERS).latest(&mut { note })? else {
            return Ok(State::of(dense::load(self.context, &self.context.plan.dense[self.cell.dense])?));
        };
        let (mut net, metadata) = load_net(&path, self.context.plan.device.into())?;
        net.weights = net.weights.to_format(self.context.feed.format)?;
        let facts = Facts::read(&path, &metadata)?;
        let unknown = || HarnessError::Damaged { path: path.clone(), problem: "it names no channels".into() };
        Ok(State { net, facts: facts.ok_or_else(unknown)? })
    }
}

fn to_json(value: &impl serde::Serialize) -> Result<String, HarnessError> {
    serde_json::to_string(value).map_err(HarnessError::Json)
}
