//! Inputs of stage ids: everything that can change the output of a stage, and nothing else. A key that was added later is omitted at
//! its default, so that stored results keep their ids.

use serde_json::{Value, json};
use thinet_data::{ChannelOrder, Normalisation, Split};
use thinet_models::{Device, ImportRules};
use thinet_sampling::GatheredKind;

use super::allocation::Scorer;
use super::resolved::{CellDesign, ResolvedStudy};
use super::selector_command::SelectorCommand;
use super::selector_spec::SelectorSpec;
use super::spec::Spec;
use super::variants::Variant;
use crate::error::HarnessError;
use crate::store::StageId;

/// Version of the dense stage; raised when its meaning changes.
const DENSE_VERSION: u32 = 1;
/// Version of the cell stage; raised when its meaning changes.
const CELL_VERSION: u32 = 1;
/// Version of the allocation stage; raised when its meaning changes.
const ALLOCATION_VERSION: u32 = 1;
/// Version of the control from a random start; raised when its meaning changes.
const SCRATCH_VERSION: u32 = 1;

/// Version of what a GPU computes; raised when its meaning changes. 2: one kernel updates all tensors, and passes without gradients
/// have other batches than on a CPU. Version 1 is not in ids.
pub(crate) const GPU_VERSION: u32 = 2;

/// Hash of a spec with the command line's overrides, independent of the data.
///
/// # Errors
/// If the spec cannot be written as TOML.
pub(crate) fn spec_hash(spec: &Spec) -> Result<String, HarnessError> {
    Ok(blake3::hash(spec.to_toml()?.as_bytes()).to_hex()[..16].to_owned())
}

/// The id of a dense stage.
pub(crate) fn dense(inputs: &Value) -> StageId {
    StageId::of("dense", DENSE_VERSION, inputs)
}

/// The id of a stage of one-shot evidence.
pub(crate) fn evidence(kind: &dyn GatheredKind, inputs: &Value) -> StageId {
    StageId::of(kind.stage(), kind.version(), inputs)
}

/// The id of a global allocation.
pub(crate) fn allocation(inputs: &Value) -> StageId {
    StageId::of("allocation", ALLOCATION_VERSION, inputs)
}

/// The id of a cell.
pub(crate) fn cell(inputs: &Value) -> StageId {
    StageId::of("cell", CELL_VERSION, inputs)
}

/// The id of the control from a random start.
pub(crate) fn from_scratch(inputs: &Value) -> StageId {
    StageId::of("scratch", SCRATCH_VERSION, inputs)
}

/// The id of a run. Its tables depend on these stages alone.
pub(crate) fn run<'a>(stages: impl Iterator<Item = &'a StageId>) -> String {
    let mut hasher = blake3::Hasher::new();
    for id in stages {
        hasher.update(id.as_str().as_bytes()).update(b"\n");
    }
    hasher.finalize().to_hex()[..12].to_owned()
}

/// Everything that can change a dense net. `weights` is the fingerprint of its weight file.
pub(crate) fn dense_inputs(
    resolved: &ResolvedStudy,
    seed: u64,
    data: &Split,
    device: Device,
    weights: Option<&String>,
) -> Value {
    let spec = &resolved.spec;
    let mut inputs = json!({
        "graph": resolved.graph,
        "train-data": data.train.fingerprint(),
        "test-data": data.test.fingerprint(),
        "input": input_of(resolved),
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
    if device.is_gpu() {
        inputs["gpu-version"] = json!(GPU_VERSION);
    }
    inputs
}

/// The parts of a dense net that enter the ids of the stages that need it.
#[derive(Clone, Copy)]
pub(crate) struct DenseFacts<'a> {
    pub(crate) id: &'a StageId,
    /// Everything that went into the id.
    pub(crate) inputs: &'a Value,
    /// Fingerprint of the training images as selectors see them.
    pub(crate) calibration_data: &'a str,
}

/// Everything that can change one kind of a dense net's evidence. Does not depend on the methods that are compared.
pub(crate) fn evidence_inputs(variant: &Variant, dense: DenseFacts<'_>) -> Value {
    let mut inputs = json!({
        "dense": dense.id.as_str(),
        "layers": variant.spec.prune.layers,
        "calibration": variant.spec.calibration,
    });
    if dense.inputs["train-data"] != dense.calibration_data {
        inputs["data"] = json!(dense.calibration_data);
    }
    inputs
}

/// Everything that can change the widths of cells with a global allocation. `evidence` are the stages that its selector reads.
pub(crate) fn allocation_inputs(
    cell: &CellDesign,
    scorer: &Scorer,
    parent: DenseFacts<'_>,
    evidence: &[&StageId],
) -> Result<Value, HarnessError> {
    let prune = &cell.variant.spec.prune;
    let mut inputs = json!({
        "dense": parent.id.as_str(),
        "evidence": evidence.iter().map(|id| id.as_str()).collect::<Vec<_>>(),
        "layers": prune.layers,
        "selector": selector_of(&scorer.selector, scorer.command.as_deref()),
        "normalisation": prune.normalisation.unwrap_or_default(),
        "floor": thinet_selectors::FLOOR,
    });
    match cell.flops_target {
        Some(target) => inputs["flops"] = json!(target),
        None => inputs["keep-rate"] = json!(cell.keep_rate),
    }
    add_versions(&mut inputs, selector_version(&scorer.selector)?, 1);
    Ok(inputs)
}

/// Everything that can change a cell's result. `allocation` is the stage that fixes its widths, if there is one.
pub(crate) fn cell_inputs(
    cell: &CellDesign,
    parent: DenseFacts<'_>,
    allocation: Option<&StageId>,
) -> Result<Value, HarnessError> {
    let mut inputs = own_inputs(cell, parent)?;
    if let Some(id) = allocation {
        inputs["allocation"] = json!(id.as_str());
    }
    Ok(inputs)
}

fn own_inputs(cell: &CellDesign, parent: DenseFacts<'_>) -> Result<Value, HarnessError> {
    let spec = &cell.variant.spec;
    let prune = &spec.prune;
    if cell.is_from_scratch {
        // The control does not depend on the dense net; it shares data, input and environment with it.
        let mut inputs = parent.inputs.clone();
        if cell.scorer.is_none() {
            inputs["graph"] = json!(*cell.graph);
        }
        inputs["train"] = json!(spec.from_scratch);
        inputs["weights"] = json!(null);
        inputs["import"] = json!(null);
        return Ok(inputs);
    }
    let mut inputs = json!({
        "dense": parent.id.as_str(),
        "selector": selector_of(&cell.method.selector, cell.command.as_deref()),
        "reconstruction": cell.method.reconstruction,
        "keep-rate": cell.keep_rate,
        "layers": prune.layers,
        "mode": prune.mode,
        "after-layer": prune.after_layer,
        "after-last": prune.after_last,
        "calibration": spec.calibration,
    });
    if !prune.layer_rates.is_empty() {
        inputs["layer-rates"] = json!(prune.layer_rates);
    }
    if prune.estimate_batch_norm {
        inputs["estimate-batch-norm"] = json!(true);
    }
    if !prune.exceptions.is_empty() {
        inputs["exceptions"] = json!(prune.exceptions);
    }
    if parent.inputs["train-data"] != parent.calibration_data {
        inputs["calibration-data"] = json!(parent.calibration_data);
    }
    let selector = selector_version(&cell.method.selector)?;
    let reconstruction = thinet_reconstruction::find(&cell.method.reconstruction)?.version();
    add_versions(&mut inputs, selector, reconstruction);
    Ok(inputs)
}

/// A selector's name, or its program with the contents of its files.
fn selector_of(selector: &SelectorSpec, command: Option<&SelectorCommand>) -> Value {
    command.map_or_else(|| json!(selector), SelectorCommand::identity)
}

fn selector_version(selector: &SelectorSpec) -> Result<u32, HarnessError> {
    match selector {
        SelectorSpec::Registered(name) => Ok(thinet_selectors::find(name)?.version()),
        // The contents of its files are its version.
        SelectorSpec::Command(_) => Ok(1),
    }
}

/// Version 1 is omitted, so that results stored before versions existed keep their ids.
fn add_versions(inputs: &mut Value, selector: u32, reconstruction: u32) {
    for (key, version) in [("selector-version", selector), ("reconstruction-version", reconstruction)] {
        if version != 1 {
            inputs[key] = json!(version);
        }
    }
}

/// How bytes become inputs. Keys that were added later are omitted at their old meaning, so that ids stay the same.
fn input_of(resolved: &ResolvedStudy) -> Value {
    let Normalisation { mean, std, order, range } = &resolved.transform.normalisation;
    let mut input = json!({ "shape": resolved.graph.input_shape(), "mean": mean, "std": std });
    if (*order, *range) != (ChannelOrder::Rgb, 1.0) {
        input["order"] = json!(order);
        input["range"] = json!(range);
    }
    input
}

/// The kind of a device: it can change the bits of a result, the index cannot.
fn device_kind(device: Device) -> &'static str {
    match device {
        Device::Cuda(_) => "cuda",
        Device::Cpu => "cpu",
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::study::spec::MINIMAL;

    #[test]
    fn a_spec_is_known_by_what_is_asked_and_not_by_how_it_is_written() {
        let hash = |text: &str| spec_hash(&Spec::parse(text, Path::new("x.toml")).unwrap()).unwrap();
        let asked = hash(MINIMAL);
        assert_eq!((asked.len(), asked.bytes().all(|b| b.is_ascii_hexdigit())), (16, true));
        // A comment, and defaults written out.
        let written_out =
            MINIMAL.replace("prune.keep", "# all\nseeds = 1\nprune.layers = \"all\"\nprune.keep");
        assert_ne!(written_out, MINIMAL);
        assert_eq!(hash(&written_out), asked);
        for (from, to) in [("lr = 0.1", "lr = 0.2"), ("[0.5]", "[0.5, 0.6]"), ("\"x\"", "\"y\"")] {
            assert_ne!(hash(&MINIMAL.replace(from, to)), asked, "{to}");
        }
    }

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
