//! Spec to plan: every default filled in, every value checked, every stage with its id, before any work is done.

use std::path::{Path, PathBuf};

use serde_json::json;
use tch::Device;
use thinet_data::{ChannelOrder, DataError, DatasetSpec, Normalisation, Split, Transform};
use thinet_graph::Graph;
use thinet_models::{ImportRules, check_import, parse_device};
use thinet_sampling::GatheredKind;
use thinet_selectors::{EvidenceKind, Needs};

use crate::check;
use crate::environment::Program;
use crate::error::HarnessError;
use crate::outline::{Outline, OutlineCell};
use crate::records::Size;
use crate::spec::Spec;
use crate::store::StageId;

/// Version of what a dense stage does; raised when its meaning changes.
const DENSE_VERSION: u32 = 1;
/// Version of what a cell does; raised when its meaning changes.
const CELL_VERSION: u32 = 1;
/// Version of what the control from a random start does; raised when its meaning changes.
const SCRATCH_VERSION: u32 = 1;

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
    /// Whether the work is done on other machines, so that the device need not be here.
    pub is_elsewhere: bool,
    /// What the program that asks was built from; kept beside results, never part of an id.
    pub program: Program,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            seeds: None,
            device: "cpu".into(),
            data: None,
            results: "results".into(),
            is_elsewhere: false,
            program: Program::default(),
        }
    }
}

impl Options {
    /// Where a dataset is looked for.
    #[must_use]
    pub fn data_folder(&self, dataset: &DatasetSpec) -> PathBuf {
        self.data.clone().unwrap_or_else(|| Path::new("data").join(dataset.folder()))
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
    /// The stages that hold the one-shot evidence of this dense net; none in another mode.
    pub evidence: Vec<EvidencePlan>,
    /// Fingerprint of the training images as selectors see them.
    pub calibration_data: String,
}

impl DensePlan {
    /// For progress and logs.
    #[must_use]
    pub fn label(&self) -> String {
        format!("dense net, seed {}", self.seed)
    }
}

/// One kind of the one-shot evidence of a dense net, about all pruned layers.
#[derive(Clone, Debug)]
pub struct EvidencePlan {
    /// Stage id.
    pub id: StageId,
    /// The kind.
    pub kind: EvidenceKind,
    /// For progress and logs.
    pub label: String,
    /// Everything that went into the id.
    pub inputs: serde_json::Value,
}

/// One cell: a method at a keep rate with a seed.
#[derive(Clone, Debug)]
pub struct Cell {
    /// Stage id.
    pub id: StageId,
    /// Position of its dense net in [`Plan::dense`].
    pub dense: usize,
    /// Method, keep rate, seed and widths.
    pub outline: OutlineCell,
    /// The kinds of evidence that are gathered for it: what its selector needs, and the moments.
    pub needs: Needs,
}

/// A checked experiment: nothing in it can be wrong any more except what happens while running.
pub struct Plan {
    /// The spec with overrides applied and defaults filled in.
    pub spec: Spec,
    /// The spec file.
    pub path: PathBuf,
    /// Hash of the spec with overrides applied, before anything is filled in.
    pub asked: String,
    /// Hash over all stages: the run's id.
    pub run: String,
    /// Table name without extension.
    pub table: String,
    /// Results folder.
    pub results: PathBuf,
    /// Device to compute on.
    pub device: Device,
    /// What the program was built from.
    pub program: Program,
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
        let spec = Outline::read(path, options)?;
        let asked = asked(&spec)?;
        let device = match options.is_elsewhere && options.device.starts_with("cuda") {
            true => Device::Cuda(0),
            false => parse_device(&options.device).map_err(HarnessError::Device)?,
        };
        let data = open(&spec.dataset, options)?;
        check::against_data(&spec, path, &data)?;
        let outline = Outline::new(spec, path, data.train.classes())?;
        let weights = weights_hash(&outline)?;
        let dense: Vec<DensePlan> = (0..outline.spec.seeds)
            .map(|seed| dense_plan(&outline, seed, &data, device, weights.as_ref()))
            .collect::<Result<_, _>>()?;
        let cells: Vec<Cell> = outline
            .cells
            .iter()
            .map(|cell| planned(&outline, cell.clone(), &dense[cell.seed as usize]))
            .collect::<Result<_, _>>()?;
        let run = run_id(&dense, &cells);
        let Outline { spec, path, table, transform, graph, size, layers, .. } = outline;
        Ok(Self {
            table,
            path,
            asked,
            run,
            results: options.results.clone(),
            device,
            program: options.program.clone(),
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

    /// Everything that goes into a cell's id. Made when it is asked for: of tens of thousands of cells it would fill the memory.
    ///
    /// # Errors
    /// If its method is not registered, which a plan excludes.
    pub fn cell_inputs(&self, cell: &Cell) -> Result<serde_json::Value, HarnessError> {
        cell_inputs(&self.spec, &self.layers, &cell.outline, &self.dense[cell.dense])
    }

    /// The run's folder.
    #[must_use]
    pub fn run_folder(&self) -> PathBuf {
        self.results.join("runs").join(format!("{}-{}", self.spec.name, self.run))
    }

    /// The path of the dense net's weight file, if it starts from one.
    #[must_use]
    pub fn dense_weights(&self) -> Option<PathBuf> {
        crate::outline::dense_weights(&self.spec, &self.path)
    }

    /// The stages of one-shot evidence that a cell reads.
    pub fn evidence_of(&self, cell: &Cell) -> impl Iterator<Item = &EvidencePlan> {
        let needs = cell.needs;
        self.dense[cell.dense].evidence.iter().filter(move |stage| needs.contains(stage.kind))
    }

    /// How tables call the net.
    #[must_use]
    pub fn net_label(&self) -> String {
        crate::outline::net_label(&self.spec, &self.graph)
    }
}

/// Opens the data; the error for missing data says how to get it.
fn open(dataset: &DatasetSpec, options: &Options) -> Result<Split, HarnessError> {
    let folder = options.data_folder(dataset);
    let given = options.data.as_ref().map(|data| format!(" --data {}", data.display())).unwrap_or_default();
    let fetch = format!("thinet data fetch {}{given}", dataset.kind());
    let advice = if dataset.is_fetched() {
        format!("to get it: {fetch}")
    } else if dataset.is_own() {
        format!("{} is looked at; --data DIR names another folder", folder.display())
    } else {
        format!("`{fetch}` says how to get it; if it is elsewhere, --data DIR names the folder")
    };
    thinet_data::open(dataset, &folder).map_err(|source| match source {
        DataError::Missing { .. } => HarnessError::NoData { source, advice },
        other => other.into(),
    })
}

/// Identifies what a spec file and the command line ask, without the data.
///
/// # Errors
/// If the spec cannot be written as TOML.
pub fn asked(spec: &Spec) -> Result<String, HarnessError> {
    Ok(blake3::hash(spec.to_toml()?.as_bytes()).to_hex()[..16].to_owned())
}

/// Fingerprint of the dense net's weight file, if there is one. That it fits the net is found out here, before any work.
fn weights_hash(outline: &Outline) -> Result<Option<String>, HarnessError> {
    let Outline { spec, path, graph, .. } = outline;
    let Some(file) = outline.dense_weights() else { return Ok(None) };
    check_import(&file, graph, &spec.dense.import).map_err(|e| check::value(path, "dense.weights", &e))?;
    let hash = crate::store::hash_file(&file)
        .map_err(|e| check::value(path, "dense.weights", &format!("cannot read {}: {e}", file.display())))?;
    Ok(Some(hash))
}

fn dense_plan(
    outline: &Outline,
    seed: u64,
    data: &Split,
    device: Device,
    weights: Option<&String>,
) -> Result<DensePlan, HarnessError> {
    let spec = &outline.spec;
    let mut inputs = json!({
        "graph": outline.graph,
        "train-data": data.train.fingerprint(),
        "test-data": data.test.fingerprint(),
        "input": input_of(outline),
        "compute": spec.compute,
        "device": device_kind(device),
        "libtorch": thinet_models::LIBTORCH_VERSION,
        "train": spec.dense.train,
        "weights": weights,
        "seed": seed,
    });
    if spec.dense.import != ImportRules::default() {
        inputs["import"] = json!(spec.dense.import);
    }
    let id = StageId::of("dense", DENSE_VERSION, &inputs);
    let calibration_data = data.calibration.fingerprint().to_owned();
    let mut plan = DensePlan { id, seed, inputs, evidence: Vec::new(), calibration_data };
    if spec.is_one_shot() {
        let mut needs = Needs::NONE;
        for method in &spec.methods {
            needs = needs | needs_of(&method.selector)?;
        }
        plan.evidence =
            thinet_sampling::gathered(needs).map(|kind| evidence_plan(outline, &plan, kind)).collect();
    }
    Ok(plan)
}

/// The kinds of evidence that are gathered for a selector: what it needs, and always the moments, from which the
/// reconstruction error is reported and the next layer refitted.
fn needs_of(selector: &str) -> Result<Needs, HarnessError> {
    Ok(thinet_selectors::find(selector)?.needs() | Needs::MOMENTS)
}

/// One kind of a dense net's evidence. Its id does not depend on the methods that are compared.
fn evidence_plan(outline: &Outline, dense: &DensePlan, kind: &dyn GatheredKind) -> EvidencePlan {
    let mut inputs = json!({
        "dense": dense.id.as_str(),
        "layers": outline.layers,
        "calibration": outline.spec.calibration,
    });
    if dense.inputs["train-data"] != dense.calibration_data.as_str() {
        inputs["data"] = json!(dense.calibration_data);
    }
    let label = format!("calibration ({}), seed {}", kind.kind().name(), dense.seed);
    let id = StageId::of(kind.stage(), kind.version(), &inputs);
    EvidencePlan { id, kind: kind.kind(), label, inputs }
}

/// How bytes become inputs. Keys that came later are left out at their old meaning, so that ids stay.
fn input_of(outline: &Outline) -> serde_json::Value {
    let Normalisation { mean, std, order, range } = &outline.transform.normalisation;
    let mut input = json!({ "shape": outline.graph.input_shape(), "mean": mean, "std": std });
    if (*order, *range) != (ChannelOrder::Rgb, 1.0) {
        input["order"] = json!(order);
        input["range"] = json!(range);
    }
    input
}

/// A device's kind can change a result's bits, its index cannot.
fn device_kind(device: Device) -> &'static str {
    match device {
        Device::Cuda(_) => "cuda",
        _ => "cpu",
    }
}

/// A cell with its id.
fn planned(outline: &Outline, cell: OutlineCell, parent: &DensePlan) -> Result<Cell, HarnessError> {
    let inputs = cell_inputs(&outline.spec, &outline.layers, &cell, parent)?;
    let (id, needs) = match cell.is_from_scratch {
        true => (StageId::of("scratch", SCRATCH_VERSION, &inputs), Needs::NONE),
        false => (StageId::of("cell", CELL_VERSION, &inputs), needs_of(&cell.method.selector)?),
    };
    Ok(Cell { id, dense: parent.seed as usize, outline: cell, needs })
}

/// Everything that can change a cell's result.
fn cell_inputs(
    spec: &Spec,
    layers: &[String],
    cell: &OutlineCell,
    parent: &DensePlan,
) -> Result<serde_json::Value, HarnessError> {
    let prune = &spec.prune;
    if cell.is_from_scratch {
        // The control knows nothing of the dense net: what it shares with it is data, input and environment.
        let mut inputs = parent.inputs.clone();
        inputs["graph"] = json!(*cell.graph);
        inputs["train"] = json!(spec.from_scratch);
        inputs["weights"] = json!(null);
        inputs["import"] = json!(null);
        return Ok(inputs);
    }
    let mut inputs = json!({
        "dense": parent.id.as_str(),
        "selector": cell.method.selector,
        "reconstruction": cell.method.reconstruction,
        "keep-rate": cell.keep_rate,
        "layers": layers,
        "mode": prune.mode,
        "after-layer": prune.after_layer,
        "after-last": prune.after_last,
        "calibration": spec.calibration,
    });
    if !prune.layer_rates.is_empty() {
        inputs["layer-rates"] = json!(prune.layer_rates);
    }
    if !prune.exceptions.is_empty() {
        inputs["exceptions"] = json!(prune.exceptions);
    }
    if parent.inputs["train-data"] != parent.calibration_data.as_str() {
        inputs["calibration-data"] = json!(parent.calibration_data);
    }
    add_versions(
        &mut inputs,
        thinet_selectors::find(&cell.method.selector)?.version(),
        thinet_reconstruction::find(&cell.method.reconstruction)?.version(),
    );
    Ok(inputs)
}

/// Version 1 is left out of ids, so that results that were stored before there were versions keep theirs.
fn add_versions(inputs: &mut serde_json::Value, selector: u32, reconstruction: u32) {
    for (key, version) in [("selector-version", selector), ("reconstruction-version", reconstruction)] {
        if version != 1 {
            inputs[key] = json!(version);
        }
    }
}

/// The run's id: the table it makes is a function of these stages and of nothing else.
fn run_id(dense: &[DensePlan], cells: &[Cell]) -> String {
    let mut hasher = blake3::Hasher::new();
    for id in dense.iter().map(|d| &d.id).chain(cells.iter().map(|c| &c.id)) {
        hasher.update(id.as_str().as_bytes()).update(b"\n");
    }
    hasher.finalize().to_hex()[..12].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_raised_version_changes_an_id_and_version_one_does_not() {
        let inputs = || json!({ "selector": "thinet", "reconstruction": "none" });
        let with = |selector, reconstruction| {
            let mut inputs = inputs();
            add_versions(&mut inputs, selector, reconstruction);
            StageId::of("cell", CELL_VERSION, &inputs)
        };
        assert_eq!(with(1, 1), StageId::of("cell", CELL_VERSION, &inputs()));
        let ids = [with(1, 1), with(2, 1), with(1, 2), with(2, 2), with(3, 1)];
        for (place, id) in ids.iter().enumerate() {
            assert!(!ids[..place].contains(id), "{place}");
        }
    }
}
