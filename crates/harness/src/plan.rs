//! Spec to plan: every default filled in, every value checked, every stage with its id, before any work is done.

use std::path::{Path, PathBuf};

use serde_json::json;
use tch::Device;
use thinet_data::{DatasetSpec, Split, StandardSpec, Transform};
use thinet_graph::{
    ChannelSet, Convention, Graph, count, kept_channels, plan_surgery, prunable_layer, prunable_layers,
};
use thinet_models::{load_weights, parse_device};

use crate::check;
use crate::error::HarnessError;
use crate::records::Size;
use crate::spec::{MethodSpec, Spec};
use crate::store::StageId;

/// Version of what a dense stage does; raised when its meaning changes.
const DENSE_VERSION: u32 = 1;
/// Version of what a cell does; raised when its meaning changes.
const CELL_VERSION: u32 = 1;
/// Version of what the one-shot calibration stores; raised when its meaning changes.
const EVIDENCE_VERSION: u32 = 1;

/// What the command line may change in a spec, and where things are.
#[derive(Clone, Debug)]
pub struct Options {
    /// Overrides `seeds`.
    pub seeds: Option<u64>,
    /// Device to compute on: `cpu`, `cuda` or `cuda:N`.
    pub device: String,
    /// Folder of the dataset. Default: `data/<kind>`.
    pub data: Option<PathBuf>,
    /// Folder of all results.
    pub results: PathBuf,
}

impl Default for Options {
    fn default() -> Self {
        Self { seeds: None, device: "cpu".into(), data: None, results: "results".into() }
    }
}

impl Options {
    /// Where a dataset is looked for.
    #[must_use]
    pub fn data_folder(&self, dataset: &DatasetSpec) -> PathBuf {
        self.data.clone().unwrap_or_else(|| Path::new("data").join(dataset_folder(dataset)))
    }
}

/// The folder below `data/` where a dataset is looked for.
fn dataset_folder(spec: &DatasetSpec) -> &'static str {
    match spec {
        DatasetSpec::FashionMnist(_) => "fashion-mnist",
        DatasetSpec::Cifar10(_) => "cifar-10-batches-bin",
        DatasetSpec::Cifar100(_) => "cifar-100-binary",
        DatasetSpec::ImageFolder(_) => "images",
    }
}

/// The datasets that are given by their name: the value of `dataset.kind`.
#[must_use]
pub fn dataset_named(kind: &str) -> Option<DatasetSpec> {
    match kind {
        "fashion-mnist" => Some(DatasetSpec::FashionMnist(StandardSpec::default())),
        "cifar10" => Some(DatasetSpec::Cifar10(StandardSpec::default())),
        "cifar100" => Some(DatasetSpec::Cifar100(StandardSpec::default())),
        _ => None,
    }
}

/// The dense net of one seed.
#[derive(Clone, Debug)]
pub struct DensePlan {
    /// Stage id.
    pub id: StageId,
    /// Root seed.
    pub seed: u64,
    /// Everything that went into the id.
    pub inputs: serde_json::Value,
    /// The stage that holds the one-shot evidence of this dense net (one-shot mode only).
    pub evidence: StageId,
}

/// One cell: a method at a keep rate with a seed.
#[derive(Clone, Debug)]
pub struct Cell {
    /// Stage id.
    pub id: StageId,
    /// Position of its dense net in [`Plan::dense`].
    pub dense: usize,
    /// The method.
    pub method: MethodSpec,
    /// Fraction of channels kept.
    pub keep_rate: f64,
    /// Root seed.
    pub seed: u64,
    /// Channels kept per pruned layer, in pruning order.
    pub keep: Vec<(String, usize)>,
    /// Size of the pruned net.
    pub size: Size,
    /// Everything that went into the id.
    pub inputs: serde_json::Value,
}

impl Cell {
    /// For progress and logs, such as `thinet r=0.5 seed 0`.
    #[must_use]
    pub fn label(&self) -> String {
        format!("{} r={} seed {}", self.method.label(), self.keep_rate, self.seed)
    }
}

/// A checked experiment: nothing in it can be wrong any more except what happens while running.
pub struct Plan {
    /// The spec with overrides applied and defaults filled in.
    pub spec: Spec,
    /// The spec file.
    pub path: PathBuf,
    /// Hash over all stages: the run's id.
    pub run: String,
    /// Table name without extension.
    pub table: String,
    /// Results folder.
    pub results: PathBuf,
    /// Device to compute on.
    pub device: Device,
    /// The images.
    pub data: Split,
    /// Pixels to inputs, without augmentation.
    pub transform: Transform,
    /// The dense net.
    pub graph: Graph,
    /// Its size.
    pub size: Size,
    /// Layers to prune, in order.
    pub layers: Vec<String>,
    /// One per seed.
    pub dense: Vec<DensePlan>,
    /// In order method, keep rate, seed.
    pub cells: Vec<Cell>,
}

impl Plan {
    /// Reads a spec file, opens its data and checks everything. Writes nothing.
    ///
    /// # Errors
    /// If the spec is wrong (file, key and allowed values are named), the data cannot be had or the device is missing.
    pub fn new(path: &Path, options: &Options) -> Result<Self, HarnessError> {
        let mut spec = Spec::read(path)?;
        if let Some(seeds) = options.seeds {
            spec.seeds = seeds;
        }
        // What needs no data is checked first, so that a typing error does not cost a download.
        check::values(&spec, path)?;
        let device = parse_device(&options.device).map_err(HarnessError::Device)?;
        let data = thinet_data::open(&spec.dataset, &options.data_folder(&spec.dataset))?;
        let transform = check::transform(&spec, path, data.train.shape())?;
        check::against_data(&spec, path, &data)?;

        let graph = check::build(&spec, path, &transform, &data)?;
        let size = size_of(&graph);
        let layers = layers(&spec, path, &graph)?;
        spec.prune.layers.clone_from(&layers);
        let context = Context { spec: &spec, path, graph: &graph, layers: &layers };
        let weights = dense_weights(&spec, path, &graph)?;
        let dense = (0..spec.seeds)
            .map(|seed| dense_plan(&context, seed, &data, &transform, device, weights.as_ref()))
            .collect::<Vec<_>>();
        let cells = cells(&context, &dense)?;
        let run = run_id(&dense, &cells);
        Ok(Self {
            table: spec.table_name(data.train.name()),
            path: path.to_owned(),
            run,
            results: options.results.clone(),
            device,
            data,
            transform,
            size,
            layers,
            dense,
            cells,
            graph,
            spec,
        })
    }

    /// The run's folder.
    #[must_use]
    pub fn run_folder(&self) -> PathBuf {
        self.results.join("runs").join(format!("{}-{}", self.spec.name, self.run))
    }

    /// The path of the dense net's weight file, if it is loaded rather than trained.
    #[must_use]
    pub fn dense_weights(&self) -> Option<PathBuf> {
        self.spec.dense.weights.as_deref().map(|weights| beside(&self.path, weights))
    }

    /// How tables call the net.
    #[must_use]
    pub fn net_label(&self) -> String {
        let [c, h, w] = self.graph.input_shape();
        format!("{} ×{}, input {c}×{h}×{w}", self.graph.name(), self.spec.net.width)
    }
}

/// Size of a net under both conventions.
#[must_use]
pub fn size_of(graph: &Graph) -> Size {
    Size { paper: count(graph, Convention::Paper), all_parameters: count(graph, Convention::AllParameters) }
}

struct Context<'a> {
    spec: &'a Spec,
    path: &'a Path,
    graph: &'a Graph,
    layers: &'a [String],
}

/// A path written in a spec is relative to the spec's folder.
fn beside(spec: &Path, file: &Path) -> PathBuf {
    spec.parent().unwrap_or(Path::new(".")).join(file)
}

/// The layers to prune: as listed and checked, or every prunable one.
fn layers(spec: &Spec, path: &Path, graph: &Graph) -> Result<Vec<String>, HarnessError> {
    if spec.prune.layers.is_empty() {
        return Ok(prunable_layers(graph).into_iter().map(|layer| layer.name).collect());
    }
    for layer in &spec.prune.layers {
        prunable_layer(graph, layer).map_err(|e| check::value(path, "prune.layers", &e))?;
    }
    Ok(spec.prune.layers.clone())
}

/// Fingerprint of the dense net's weight file, if there is one. That it fits the net is found out here, before any work.
fn dense_weights(spec: &Spec, path: &Path, graph: &Graph) -> Result<Option<String>, HarnessError> {
    let Some(weights) = &spec.dense.weights else { return Ok(None) };
    let file = beside(path, weights);
    load_weights(&file, graph, Device::Cpu).map_err(|e| check::value(path, "dense.weights", &e))?;
    let hash = crate::store::hash_file(&file)
        .map_err(|e| check::value(path, "dense.weights", &format!("cannot read {}: {e}", file.display())))?;
    Ok(Some(hash))
}

fn dense_plan(
    context: &Context<'_>,
    seed: u64,
    data: &Split,
    transform: &Transform,
    device: Device,
    weights: Option<&String>,
) -> DensePlan {
    let spec = context.spec;
    let inputs = json!({
        "graph": context.graph,
        "train-data": data.train.fingerprint(),
        "test-data": data.test.fingerprint(),
        "input": { "shape": context.graph.input_shape(), "mean": transform.mean, "std": transform.std },
        "compute": spec.compute,
        "device": device_kind(device),
        "libtorch": thinet_models::LIBTORCH_VERSION,
        "train": spec.dense.train,
        "weights": weights,
        "seed": seed,
    });
    let id = StageId::of("dense", DENSE_VERSION, &inputs);
    let evidence_inputs =
        json!({ "dense": id.as_str(), "layers": context.layers, "calibration": spec.calibration });
    let evidence = StageId::of("evidence", EVIDENCE_VERSION, &evidence_inputs);
    DensePlan { id, seed, inputs, evidence }
}

/// A device's kind can change a result's bits, its index cannot.
fn device_kind(device: Device) -> &'static str {
    match device {
        Device::Cuda(_) => "cuda",
        _ => "cpu",
    }
}

fn cells(context: &Context<'_>, dense: &[DensePlan]) -> Result<Vec<Cell>, HarnessError> {
    let spec = context.spec;
    let mut cells = Vec::new();
    for method in &spec.methods {
        for &keep_rate in &spec.prune.keep_rates {
            let (keep, size) = widths(context, keep_rate)?;
            for (position, parent) in dense.iter().enumerate() {
                let inputs = json!({
                    "dense": parent.id.as_str(),
                    "selector": method.selector,
                    "reconstruction": method.reconstruction,
                    "keep-rate": keep_rate,
                    "layers": context.layers,
                    "mode": spec.prune.mode,
                    "after-layer": spec.prune.after_layer,
                    "after-last": spec.prune.after_last,
                    "calibration": spec.calibration,
                });
                cells.push(Cell {
                    id: StageId::of("cell", CELL_VERSION, &inputs),
                    dense: position,
                    method: method.clone(),
                    keep_rate,
                    seed: parent.seed,
                    keep: keep.clone(),
                    size,
                    inputs,
                });
            }
        }
    }
    Ok(cells)
}

/// Kept channels of each layer at a keep rate, and the size of the net that has them.
fn widths(context: &Context<'_>, keep_rate: f64) -> Result<(Vec<(String, usize)>, Size), HarnessError> {
    let wrong = |e: &dyn std::fmt::Display| check::value(context.path, "prune.keep-rates", e);
    let mut graph = context.graph.clone();
    let mut keep = Vec::new();
    for layer in context.layers {
        let channels = prunable_layer(&graph, layer).map_err(|e| wrong(&e))?.channels;
        let kept = kept_channels(layer, channels, keep_rate).map_err(|e| wrong(&e))?;
        let first = ChannelSet::new(channels, (0..kept).collect()).map_err(|e| wrong(&e))?;
        graph = plan_surgery(&graph, layer, &first).map_err(|e| wrong(&e))?.graph;
        keep.push((layer.clone(), kept));
    }
    Ok((keep, size_of(&graph)))
}

/// The run's id: the table it makes is a function of these stages and of nothing else.
fn run_id(dense: &[DensePlan], cells: &[Cell]) -> String {
    let mut hasher = blake3::Hasher::new();
    for id in dense.iter().map(|d| &d.id).chain(cells.iter().map(|c| &c.id)) {
        hasher.update(id.as_str().as_bytes()).update(b"\n");
    }
    hasher.finalize().to_hex()[..12].to_owned()
}
