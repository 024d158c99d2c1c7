//! One cell: calibrate, select, cut, refit and tune each layer, then the long tuning (Luo et al. 2017, section 3.3).

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

use thinet_graph::{ChannelSet, plan_surgery, prunable_layer};
use thinet_models::{Net, Weights, apply_surgery, load_net, save_net, scale_consumer_inputs};
use thinet_reconstruction::{Reconstructor, reconstruction_error};
use thinet_seed::Seed;
use thinet_selectors::{Evidence, Selector};

use super::calibrate::calibrate;
use super::{Context, Made, Tested, WEIGHTS, dense, evidence, find};
use crate::checkpoint::Checkpoints;
use crate::error::HarnessError;
use crate::plan::Cell;
use crate::preprocessing::Preprocessing;
use crate::progress::Event;
use crate::records::{Metric, Row, Stage, Status};
use crate::spec::Recipe;
use crate::store::StageResult;
use crate::train::Trained;

/// Checkpoints of the state after each finished layer of a cell in progress.
const LAYERS: &str = "layers";
/// Name of the long tuning among the trainings of a cell.
const LAST: &str = "last";

/// Makes the cell if it is not stored. Its dense net must be.
pub(crate) fn ensure(context: &Context<'_>, cell: &Cell) -> Result<StageResult, HarnessError> {
    match context.store.result(&cell.id)? {
        Some(result) => Ok(result),
        None => make(context, cell),
    }
}

fn make(context: &Context<'_>, cell: &Cell) -> Result<StageResult, HarnessError> {
    let started = Instant::now();
    context.reporter.event(&Event::StageStarted { id: cell.id.to_string(), label: cell.outline.label() });
    let folder = context.store.begin(&cell.id)?;
    let (state, status) = if cell.outline.is_from_scratch {
        from_scratch(context, cell)?
    } else {
        let job = Job {
            context,
            cell,
            folder: &folder,
            selector: thinet_selectors::find(&cell.outline.method.selector)?,
            reconstructor: thinet_reconstruction::find(&cell.outline.method.reconstruction)?,
            seed: Seed::root(cell.outline.seed),
        };
        if context.plan.spec.is_one_shot() { job.one_shot()? } else { job.layer_by_layer()? }
    };

    let metadata = BTreeMap::from([
        ("stage".to_owned(), cell.id.to_string()),
        ("run".to_owned(), context.plan.run.clone()),
        ("kept".to_owned(), to_json(&state.kept)?),
        ("counts".to_owned(), to_json(&cell.outline.size)?),
        Preprocessing::entry(context.plan)?,
    ]);
    context.claim.check()?;
    save_net(&folder.join(WEIGHTS), &state.net, &metadata)?;
    let top1 = |stage| find(&state.rows, stage, Metric::Top1);
    let summary = match top1(Stage::AfterFineTune).or_else(|| top1(Stage::AfterReconstruction)) {
        _ if status == Status::Diverged => "diverged".into(),
        Some(top1) => format!("top-1 {top1:.2} %"),
        None => "done".into(),
    };
    let (id, inputs) = (&cell.id, cell.inputs.clone());
    let State { rows, kept, test_images, .. } = state;
    let made = Made { id, inputs, status, rows, kept, test_images, started, summary };
    context.finish(made, &[WEIGHTS])
}

/// The control: a net of the cell's widths from a random start.
fn from_scratch(context: &Context<'_>, cell: &Cell) -> Result<(State, Status), HarnessError> {
    let plan = context.plan;
    let Some(recipe) = &plan.spec.from_scratch else {
        unreachable!("the plan has this cell because the spec has the recipe")
    };
    let seed = Seed::root(cell.outline.seed).child("from-scratch");
    let weights = Weights::init(&cell.outline.graph, seed.child("init"), plan.device)?;
    let net = Net { graph: cell.outline.graph.clone(), weights: weights.to_format(context.feed.format)? };
    let mut state = State::of(net);
    match context.train(&cell.id, &mut state.net, recipe, seed.child("train"), ("train", "scratch"))? {
        Trained::Diverged { step } => {
            context.note(&cell.id, format!("{}: training diverged at step {step}", cell.outline.label()));
            return Ok((state, Status::Diverged));
        }
        Trained::Done { loss } => {
            let (stage, metric) = (Stage::AfterFineTune, Metric::TrainLoss);
            state.rows.push(Row { layer: String::new(), stage, metric, value: loss });
        }
    }
    state.add(context.evaluate(&cell.id, &state.net, Stage::AfterFineTune)?);
    Ok((state, Status::Done))
}

/// State of a cell in progress.
struct State {
    net: Net,
    rows: Vec<Row>,
    kept: BTreeMap<String, ChannelSet>,
    /// The fewest images of a test.
    test_images: Option<u64>,
}

impl State {
    /// Before anything is cut.
    fn of(net: Net) -> Self {
        Self { net, rows: Vec::new(), kept: BTreeMap::new(), test_images: None }
    }

    fn add(&mut self, tested: Tested) {
        self.rows.extend(tested.rows);
        self.test_images = Some(self.test_images.map_or(tested.images, |fewest| fewest.min(tested.images)));
    }
}

struct Job<'a> {
    context: &'a Context<'a>,
    cell: &'a Cell,
    folder: &'a Path,
    selector: &'static dyn Selector,
    reconstructor: &'static dyn Reconstructor,
    seed: Seed,
}

impl Job<'_> {
    /// The paper's procedure: each layer is calibrated on the net as pruned and tuned so far.
    fn layer_by_layer(&self) -> Result<(State, Status), HarnessError> {
        let prune = &self.context.plan.spec.prune;
        let mut state = self.resume()?;
        for (i, (name, keep)) in self.cell.outline.keep.iter().enumerate().skip(state.kept.len()) {
            let is_last = i + 1 == self.cell.outline.keep.len();
            let layer = prunable_layer(&state.net.graph, name)?;
            let step = format!("{name}: calibrate");
            let mut evidence = calibrate(
                self.context,
                &state.net,
                vec![layer],
                self.seed.child("calibration").child(name),
                &|done, total| self.context.progress(&self.cell.id, &step, done, total),
            )?;
            let evidence = evidence.remove(0);
            let kept = self.select(&evidence, *keep)?;
            self.cut(&mut state, name, &kept)?;
            if is_last {
                state.add(self.context.evaluate(&self.cell.id, &state.net, Stage::AfterCut)?);
            }
            let scale = self.refit(&mut state, &evidence, &kept)?;
            self.rescale(&mut state, name, &scale)?;
            if is_last {
                self.evaluate_reconstruction(&mut state)?;
            }
            state.kept.insert(name.clone(), kept);
            if !self.tune(&mut state, name, prune.recipe_after(name, is_last), is_last)? {
                return Ok((state, Status::Diverged));
            }
            if !is_last {
                self.checkpoint(&state)?;
                self.checkpoints(format!("train-{name}")).clear()?;
            }
        }
        Ok((state, Status::Done))
    }

    /// All layers are selected from one calibration of the dense net, then cut, then refitted.
    fn one_shot(&self) -> Result<(State, Status), HarnessError> {
        let parent = &self.context.plan.dense[self.cell.dense];
        let net = dense::load(self.context, parent)?;
        let all = evidence::load(self.context, parent, &net)?;
        let mut state = State::of(net);
        for (evidence, (name, keep)) in all.iter().zip(&self.cell.outline.keep) {
            let kept = self.select(evidence, *keep)?;
            self.cut(&mut state, name, &kept)?;
            state.kept.insert(name.clone(), kept);
        }
        state.add(self.context.evaluate(&self.cell.id, &state.net, Stage::AfterCut)?);
        for (evidence, (name, _)) in all.iter().zip(&self.cell.outline.keep) {
            let kept = state.kept[name].clone();
            let scale = self.refit(&mut state, evidence, &kept)?;
            self.rescale(&mut state, name, &scale)?;
        }
        self.evaluate_reconstruction(&mut state)?;
        let recipe = self.context.plan.spec.prune.after_last.as_ref();
        let is_done = self.tune(&mut state, "all layers", recipe, true)?;
        Ok((state, if is_done { Status::Done } else { Status::Diverged }))
    }

    fn select(&self, evidence: &Evidence, keep: usize) -> Result<ChannelSet, HarnessError> {
        let seed = self.seed.child("select").child(&evidence.layer);
        Ok(self.selector.select(evidence, keep, seed)?.kept)
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

    /// The scale of each kept channel; notes the reconstruction error without and with it.
    fn refit(
        &self,
        state: &mut State,
        evidence: &Evidence,
        kept: &ChannelSet,
    ) -> Result<Vec<f64>, HarnessError> {
        let scale = self.reconstructor.refit(evidence.moments.as_ref(), kept)?;
        if let Some(moments) = &evidence.moments {
            let error = reconstruction_error(moments, kept, &scale);
            for (stage, value) in [(Stage::AfterCut, error.before), (Stage::AfterReconstruction, error.after)]
            {
                let layer = evidence.layer.clone();
                state.rows.push(Row { layer, stage, metric: Metric::ReconstructionError, value });
            }
            self.context.measured(&self.cell.id, &state.rows[state.rows.len() - 2..]);
        }
        Ok(scale)
    }

    fn rescale(&self, state: &mut State, layer: &str, scale: &[f64]) -> Result<(), HarnessError> {
        if scale.iter().all(|&w| w == 1.0) {
            return Ok(());
        }
        let layer = prunable_layer(&state.net.graph, layer)?;
        scale_consumer_inputs(&mut state.net.weights, &state.net.graph, &layer, scale)?;
        state.net.weights = state.net.weights.to_format(self.context.feed.format)?;
        Ok(())
    }

    /// Tests the refitted net; without a reconstruction it is the net after the cut.
    fn evaluate_reconstruction(&self, state: &mut State) -> Result<(), HarnessError> {
        if self.reconstructor.needs_moments() {
            state.add(self.context.evaluate(&self.cell.id, &state.net, Stage::AfterReconstruction)?);
        } else {
            let of_cut = state.rows.iter().filter(|row| row.layer.is_empty() && row.stage == Stage::AfterCut);
            let rows: Vec<Row> =
                of_cut.map(|row| Row { stage: Stage::AfterReconstruction, ..row.clone() }).collect();
            state.rows.extend(rows);
        }
        Ok(())
    }

    /// Fine-tunes, if there is a recipe; false if the loss diverged.
    fn tune(
        &self,
        state: &mut State,
        layer: &str,
        recipe: Option<&Recipe>,
        is_last: bool,
    ) -> Result<bool, HarnessError> {
        let Some(recipe) = recipe else { return Ok(true) };
        let (context, id) = (self.context, &self.cell.id);
        let step = if is_last { "fine-tune".to_owned() } else { format!("{layer}: tune") };
        let name = if is_last { LAST } else { layer };
        let seed = self.seed.child("tune").child(name);
        match context.train(id, &mut state.net, recipe, seed, (&step, name))? {
            Trained::Diverged { step } => {
                context.note(
                    id,
                    format!("{}: training diverged at step {step} after {layer}", self.cell.outline.label()),
                );
                return Ok(false);
            }
            Trained::Done { loss } => {
                let layer = if is_last { String::new() } else { layer.to_owned() };
                let (stage, metric) = (Stage::AfterFineTune, Metric::TrainLoss);
                state.rows.push(Row { layer, stage, metric, value: loss });
            }
        }
        if is_last {
            state.add(context.evaluate(id, &state.net, Stage::AfterFineTune)?);
        }
        Ok(true)
    }

    /// One file, renamed into place, holds the whole state: it is either the old or the new one.
    fn checkpoint(&self, state: &State) -> Result<(), HarnessError> {
        let metadata = BTreeMap::from([
            ("rows".to_owned(), to_json(&state.rows)?),
            ("kept".to_owned(), to_json(&state.kept)?),
        ]);
        self.checkpoints(LAYERS)
            .save(state.kept.len() as u64, |path| Ok(save_net(path, &state.net, &metadata)?))
    }

    fn resume(&self) -> Result<State, HarnessError> {
        let note = |name| {
            let label = self.cell.outline.label();
            self.context.note(&self.cell.id, format!("{label}: checkpoint {name} is damaged"));
        };
        let Some(path) = self.checkpoints(LAYERS).latest(&mut { note })? else {
            let net = dense::load(self.context, &self.context.plan.dense[self.cell.dense])?;
            return Ok(State::of(net));
        };
        let (mut net, metadata) = load_net(&path, self.context.plan.device)?;
        net.weights = net.weights.to_format(self.context.feed.format)?;
        let field = |name: &str| metadata.get(name).map(String::as_str).unwrap_or_default();
        let damaged =
            |e: serde_json::Error| HarnessError::Damaged { path: path.clone(), problem: e.to_string() };
        Ok(State {
            net,
            rows: serde_json::from_str(field("rows")).map_err(damaged)?,
            kept: serde_json::from_str(field("kept")).map_err(damaged)?,
            // Only the last layer is tested, and there is no checkpoint after it.
            test_images: None,
        })
    }
}

fn to_json(value: &impl serde::Serialize) -> Result<String, HarnessError> {
    serde_json::to_string(value).map_err(HarnessError::Json)
}
