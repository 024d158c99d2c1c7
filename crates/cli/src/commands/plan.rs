//! `thinet plan`: shows cells, what is done, tuning, FLOPs, time and disk. Writes nothing, and needs neither data nor device.

mod print;
mod targets;
mod why;

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use serde::Serialize;
use thinet_graph::Graph;
use thinet_harness::HarnessError;
use thinet_harness::inspect::{self, Why};
use thinet_harness::store::Store;
use thinet_harness::study::{
    AllocatedNet, Cell, CellDesign, Estimate, Plan, Recipe, ResolvedStudy, Spec, Variant, VariantSpec,
    estimate, estimate_without_data,
};
use thinet_models::{Device, Schedule};

use self::targets::TargetLine;
use crate::group_lines::{GroupLine, larger_groups};
use crate::kind_line::KindLine;
use crate::options::{Study, jobs};
use crate::output::print_json;
use crate::permission::described;

/// Show what a study would run, what is stored already and what it costs; writes nothing
#[derive(Debug, Args)]
#[command(after_help = "\
With --why each missing stage is compared with the nearest stored one of the same method, keep rate
and seed: what differs is named by the key of the spec, with the stored and the new value. A stage
with none is new; one can also be damaged, have failed or be half done.

Examples:
  thinet plan experiments/smoke.toml
  thinet plan experiments/fashion-mnist-selectors.toml --why")]
pub(crate) struct Arguments {
    #[command(flatten)]
    study: Study,
    /// Number of processes to assume for the time estimate [default: cores / compute.threads]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    jobs: Option<u16>,
    /// Also say why each missing stage would run: new, or which input differs from the nearest stored one
    #[arg(long)]
    why: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Report {
    study: String,
    /// The run's id; without the data there is none.
    run: Option<String>,
    dataset: String,
    /// Why nothing can run yet.
    missing: Option<String>,
    train_images: Option<usize>,
    test_images: Option<usize>,
    /// Files of prepared images that are read instead of decoding.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    prepared: Vec<String>,
    net: String,
    /// The file that the dense net starts from.
    weights: Option<PathBuf>,
    mode: String,
    layers: Vec<String>,
    /// What the pruned groups consist of that are more than a convolution that one layer reads.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    groups: Vec<GroupLine>,
    tuning: Vec<TuningLine>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    variants: Vec<VariantLine>,
    /// Programs that select channels; they run with `--allow-commands` only.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    programs: Vec<String>,
    /// Keep rates that meet the targets of FLOPs.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    targets: Vec<TargetLine>,
    dense: Vec<DenseLine>,
    cells: Vec<CellLine>,
    cost: Option<Cost>,
    /// Why each missing stage would run, if asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<Vec<Why>>,
}

/// How the net is tuned after a layer.
#[derive(PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
struct TuningLine {
    /// The layers that this tuning follows.
    after: Vec<String>,
    /// Passes over the training images, each time.
    epochs: Option<f64>,
    recipe: String,
}

/// A variant of the study.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct VariantLine {
    name: String,
    /// The keys that it overrides.
    overrides: String,
    mode: String,
    layers: Vec<String>,
    tuning: Vec<TuningLine>,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct DenseLine {
    id: Option<String>,
    seed: u64,
    is_done: bool,
    parameters: u64,
    flops: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct CellLine {
    id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    variant: Option<String>,
    method: String,
    keep_rate: f64,
    seed: u64,
    is_done: bool,
    /// `None` while a global allocation has not fixed the widths.
    parameters: Option<u64>,
    flops: Option<u64>,
    widths: Option<Vec<usize>>,
}

impl CellLine {
    /// `allocated` is the net of a stored global allocation.
    fn new(cell: &CellDesign, id: Option<String>, is_done: bool, allocated: Option<AllocatedNet>) -> Self {
        let planned = cell.scorer.is_none().then(|| (cell.size, cell.keep.to_vec()));
        let net = allocated.map(|net| (net.size, net.keep)).or(planned);
        Self {
            id,
            variant: cell.variant.name.clone(),
            method: cell.method.label(),
            keep_rate: cell.keep_rate,
            seed: cell.seed,
            is_done,
            parameters: net.as_ref().map(|(size, _)| size.paper.params),
            flops: net.as_ref().map(|(size, _)| size.paper.flops),
            widths: net.map(|(_, keep)| keep.into_iter().map(|(_, kept)| kept).collect()),
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Cost {
    stages: usize,
    /// Dense nets among the stages.
    dense_nets: usize,
    calibrations: usize,
    cells: usize,
    done: usize,
    multiply_adds: f64,
    seconds: f64,
    device: String,
    jobs: usize,
    is_measured: bool,
    /// Multiply-adds per second and job that the estimate assumes.
    rate: f64,
    disk_bytes: f64,
    /// Time of the missing stages by kind.
    work: Vec<KindLine>,
    /// Whether trainings compute in bfloat16 on a processor without kernels for it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    is_bf16_slow: bool,
}

impl Cost {
    fn new(estimate: Estimate, device: Device, jobs: usize) -> Self {
        let Estimate { stages, kinds, done, macs, seconds, is_measured, rate, by_kind, disk, is_bf16_slow } =
            estimate;
        let [dense_nets, calibrations, cells] = kinds;
        let (device, multiply_adds, disk_bytes) = (device.to_string(), macs, disk);
        Self {
            stages,
            dense_nets,
            calibrations,
            cells,
            done,
            multiply_adds,
            seconds,
            device,
            jobs,
            is_measured,
            rate,
            disk_bytes,
            work: by_kind.iter().filter(|cost| cost.missing > 0).map(KindLine::new).collect(),
            is_bf16_slow,
        }
    }
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let Arguments { study, jobs: asked, why, json } = arguments;
    let device = study.place.device;
    let report = match study.plan() {
        Ok(plan) => {
            let why = why.then(|| inspect::why(&plan)).transpose()?;
            Report { why, ..planned(&plan, device, *asked)? }
        }
        // Without data there are no ids to look for.
        Err(error @ (HarnessError::NoData { .. } | HarnessError::Device(_))) if !why => {
            match ResolvedStudy::without_data(&study.spec, &study.options())? {
                Some(resolved) => without_data(&resolved, &error, device, *asked),
                None => return Err(error.into()),
            }
        }
        Err(error) => return Err(error.into()),
    };
    if *json { print_json(&report) } else { print::print(&report) }
}

fn planned(plan: &Plan, device: Device, asked: Option<u16>) -> anyhow::Result<Report> {
    let jobs = jobs(asked, plan.spec.compute.threads, device);
    let store = Store::at(&plan.results);
    let images = plan.data.train.len();
    Ok(Report {
        study: plan.spec.name.clone(),
        run: Some(plan.run.clone()),
        dataset: plan.data.train.name().to_owned(),
        missing: None,
        train_images: Some(images),
        test_images: Some(plan.data.test.len()),
        prepared: plan.data.prepared_files().iter().map(|file| file.display().to_string()).collect(),
        net: plan.net_label(),
        weights: plan.dense_weights(),
        mode: plan.spec.prune.mode.to_string(),
        layers: plan.spec.prune.layers.clone(),
        groups: groups(&plan.graph, &plan.variants),
        tuning: tuning(&plan.spec, Some(images)),
        variants: variants(&plan.spec, &plan.variants, Some(images)),
        programs: programs(plan.cells.iter().map(|cell| &cell.design)),
        targets: targets::lines(plan.cells.iter().map(|cell| &cell.design), plan.size),
        dense: plan
            .dense
            .iter()
            .map(|stage| DenseLine {
                id: Some(stage.id.to_string()),
                seed: stage.seed,
                is_done: store.is_whole(&stage.id),
                parameters: plan.size.paper.params,
                flops: plan.size.paper.flops,
            })
            .collect(),
        cells: plan.cells.iter().map(|cell| cell_line(plan, &store, cell)).collect(),
        cost: Some(Cost::new(estimate(plan, jobs)?, device, jobs)),
        why: None,
    })
}

fn cell_line(plan: &Plan, store: &Store, cell: &Cell) -> CellLine {
    // A damaged allocation is run again.
    let allocated = plan.allocated_net(cell).ok().flatten();
    CellLine::new(&cell.design, Some(cell.id.to_string()), store.is_whole(&cell.id), allocated)
}

/// The same for a study whose data or device is missing, with the dataset's official counts.
fn without_data(
    resolved: &ResolvedStudy,
    missing: &HarnessError,
    device: Device,
    asked: Option<u16>,
) -> Report {
    let spec = &resolved.spec;
    let jobs = jobs(asked, spec.compute.threads, device);
    let images = spec.dataset.images();
    let is_gpu = device.is_gpu();
    Report {
        study: spec.name.clone(),
        run: None,
        dataset: spec.dataset.name().to_owned(),
        missing: Some(missing.to_string()),
        train_images: images.map(|[train, _]| train),
        test_images: images.map(|[_, test]| test),
        prepared: Vec::new(),
        net: resolved.net_label(),
        weights: resolved.dense_weights(),
        mode: spec.prune.mode.to_string(),
        layers: spec.prune.layers.clone(),
        groups: groups(&resolved.graph, &resolved.variants),
        tuning: tuning(spec, images.map(|[train, _]| train)),
        variants: variants(spec, &resolved.variants, images.map(|[train, _]| train)),
        programs: programs(&resolved.cells),
        targets: targets::lines(&resolved.cells, resolved.size),
        dense: (0..spec.seeds)
            .map(|seed| DenseLine {
                id: None,
                seed,
                is_done: false,
                parameters: resolved.size.paper.params,
                flops: resolved.size.paper.flops,
            })
            .collect(),
        cells: resolved.cells.iter().map(|cell| CellLine::new(cell, None, false, None)).collect(),
        cost: images
            .map(|images| Cost::new(estimate_without_data(resolved, images, is_gpu, jobs), device, jobs)),
        why: None,
    }
}

/// The variants of a study; empty without any.
fn variants(spec: &Spec, variants: &[Arc<Variant>], images: Option<usize>) -> Vec<VariantLine> {
    let line = |(written, variant): (&VariantSpec, &Arc<Variant>)| VariantLine {
        name: written.name.clone(),
        overrides: written.words(),
        mode: variant.spec.prune.mode.to_string(),
        layers: variant.spec.prune.layers.clone(),
        tuning: tuning(&variant.spec, images),
    };
    spec.variants.iter().zip(variants).map(line).collect()
}

/// The programs of methods, each once: `mine: python3 mine.py (in /home/me; reads mine.py)`.
fn programs<'a>(cells: impl IntoIterator<Item = &'a CellDesign>) -> Vec<String> {
    let mut lines = Vec::new();
    for cell in cells {
        let Some(command) = &cell.command else { continue };
        let line = format!("{}: {}", cell.method.label(), described(command));
        if !lines.contains(&line) {
            lines.push(line);
        }
    }
    lines
}

/// What the groups consist of that any variant prunes.
fn groups(graph: &Graph, variants: &[Arc<Variant>]) -> Vec<GroupLine> {
    let layers: Vec<&String> = variants.iter().flat_map(|variant| &variant.spec.prune.layers).collect();
    larger_groups(graph, &layers)
}

/// The tuning after each layer; layers with the same recipe share a line.
fn tuning(spec: &Spec, images: Option<usize>) -> Vec<TuningLine> {
    let layers = &spec.prune.layers;
    let mut lines: Vec<(Option<&Recipe>, Vec<String>)> = Vec::new();
    for (i, layer) in layers.iter().enumerate() {
        let is_last = i + 1 == layers.len();
        let recipe =
            if spec.is_one_shot() && !is_last { None } else { spec.prune.recipe_after(layer, is_last) };
        match lines.iter_mut().find(|(known, _)| *known == recipe) {
            Some((_, after)) => after.push(layer.clone()),
            None => lines.push((recipe, vec![layer.clone()])),
        }
    }
    let line = |(recipe, after): (Option<&Recipe>, Vec<String>)| TuningLine {
        after,
        epochs: Some(recipe.map_or(Some(0.0), |recipe| epochs(recipe, images))).flatten(),
        recipe: recipe.map_or_else(|| "none".to_owned(), describe),
    };
    lines.into_iter().map(line).collect()
}

/// Passes over the training images; for a recipe in steps, `None` if the number of images is unknown.
fn epochs(recipe: &Recipe, images: Option<usize>) -> Option<f64> {
    match recipe.epochs {
        Some(epochs) => Some(epochs as f64),
        None => images.map(|images| recipe.total_steps(images) as f64 * recipe.batch as f64 / images as f64),
    }
}

/// `batch 128, lr 0.001, × 0.1 at 1/3 and 2/3`.
fn describe(recipe: &Recipe) -> String {
    let length = match (recipe.epochs, recipe.steps) {
        (Some(1), _) => "1 epoch".to_owned(),
        (Some(epochs), _) => format!("{epochs} epochs"),
        (None, steps) => format!("{} steps", steps.unwrap_or(0)),
    };
    let schedule = match &recipe.schedule {
        Schedule::Constant {} => String::new(),
        Schedule::Cosine {} => ", cosine to 0".to_owned(),
        Schedule::Exponential { gamma, from_epoch } => {
            format!(", × {gamma} each epoch from epoch {from_epoch}")
        }
        Schedule::Step { at, gamma } => {
            let at: Vec<String> = at.iter().map(|f| format!("{:.0} %", 100.0 * f)).collect();
            format!(", × {gamma} at {}", at.join(" and "))
        }
    };
    format!("{length} of batch {}, lr {}{schedule}", recipe.batch, recipe.lr)
}
