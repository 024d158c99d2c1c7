//! Differences between two runs: spec, environment, kept channels, metrics.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use thinet_graph::ChannelSet;
use thinet_report::records::{Difference, Row, differences, leaves};

use crate::error::HarnessError;
use crate::inspect::Run;
use crate::inspect::tensors::differing_tensors;
use crate::store::run_folder::{run_environment, run_spec};
use crate::store::{Manifest, StageResult, Store};

/// A stage of both runs with different outcomes.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct StageDifference {
    /// The stage, such as `thinet r=0.5 seed 0`.
    pub label: String,
    /// Status, measured values and number of test images.
    pub metrics: Vec<Difference>,
    /// For each layer with different channels: the numbers kept in both, in the first only, in the second only.
    pub kept: Vec<(String, [usize; 3])>,
    /// Tensors of its files that differ in a bit, such as `weights.safetensors: conv1.weight`; empty unless requested.
    pub tensors: Vec<String>,
}

/// The differences between two runs.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct RunDifference {
    /// Keys of the specs, every default filled in.
    pub spec: Vec<Difference>,
    pub environment: Vec<Difference>,
    /// Inputs of the dense nets besides the spec, such as the fingerprint of the images.
    pub inputs: Vec<Difference>,
    /// Stages that only the first run lists or has stored.
    pub only_first: Vec<String>,
    /// Stages that only the second run lists or has stored.
    pub only_second: Vec<String>,
    /// Stages of both with different outcomes.
    pub stages: Vec<StageDifference>,
    /// Number of stages of both with the same outcome.
    pub same: usize,
}

impl RunDifference {
    /// Whether every stage is stored for both runs with the same outcome.
    #[must_use]
    pub fn has_same_stages(&self) -> bool {
        self.only_first.is_empty() && self.only_second.is_empty() && self.stages.is_empty()
    }
}

/// Compares two runs; with `tensors`, their stored tensors as well, bit by bit. A damaged stage counts as not stored.
///
/// # Errors
/// If another file of either cannot be read.
pub fn diff(first: &Run, second: &Run, tensors: bool) -> Result<RunDifference, HarnessError> {
    let (first, second) = (Facts::read(first)?, Facts::read(second)?);
    let mut stages = Vec::new();
    let mut same = 0;
    for (label, one) in &first.stages {
        let Some(other) = second.stages.get(label) else { continue };
        let metrics = differences(&metrics(one), &metrics(other));
        let kept = kept(&one.kept, &other.kept);
        let tensors =
            if tensors { differing_files(&first.store, one, &second.store, other)? } else { Vec::new() };
        if metrics.is_empty() && kept.is_empty() && tensors.is_empty() {
            same += 1;
        } else {
            stages.push(StageDifference { label: label.clone(), metrics, kept, tensors });
        }
    }
    let only = |these: &Facts, those: &Facts| {
        these.stages.keys().filter(|label| !those.stages.contains_key(*label)).cloned().collect()
    };
    Ok(RunDifference {
        spec: differences(&first.spec, &second.spec),
        environment: differences(&first.environment, &second.environment),
        inputs: differences(&first.inputs, &second.inputs),
        only_first: only(&first, &second),
        only_second: only(&second, &first),
        stages,
        same,
    })
}

/// The tensors that differ in the files of two stages.
fn differing_files(
    store: &Store,
    one: &StageResult,
    other_store: &Store,
    other: &StageResult,
) -> Result<Vec<String>, HarnessError> {
    let mut differing = Vec::new();
    let names: BTreeSet<&String> = one.files.keys().chain(other.files.keys()).collect();
    for name in names {
        let file = |store: &Store, result: &StageResult| store.record_file(&result.id).with_file_name(name);
        if !(one.files.contains_key(name) && other.files.contains_key(name)) {
            differing.push(format!("{name}: stored of one only"));
            continue;
        }
        // Compares the files themselves, not the checksums in their records.
        let tensors = differing_tensors(&file(store, one), &file(other_store, other))?;
        differing.extend(tensors.into_iter().map(|tensor| format!("{name}: {tensor}")));
    }
    Ok(differing)
}

/// The data of a run that is compared.
struct Facts {
    store: Store,
    spec: BTreeMap<String, String>,
    environment: BTreeMap<String, String>,
    inputs: BTreeMap<String, String>,
    /// Stored stages by label.
    stages: BTreeMap<String, StageResult>,
}

impl Facts {
    fn read(run: &Run) -> Result<Self, HarnessError> {
        let folder = run.folder();
        let damaged = |e: String| HarnessError::Damaged { path: folder.clone(), problem: e };
        let spec: toml::Value =
            toml::from_str(&run_spec(&folder)?).map_err(|e| damaged(format!("resolved.toml: {e}")))?;
        let spec = serde_json::to_value(spec).map_err(HarnessError::Json)?;
        // A run that never ended has none.
        let environment = match run_environment(&folder)? {
            Some(text) => serde_json::from_str(&text).map_err(|e| damaged(format!("env.json: {e}")))?,
            None => serde_json::Value::Null,
        };
        let store = Store::at(&run.results);
        let (mut stages, mut inputs) = (BTreeMap::new(), BTreeMap::new());
        for stage in Manifest::read(&folder)?.into_iter().flat_map(|manifest| manifest.stages) {
            let stored = match store.find(&stage.id) {
                Err(HarnessError::Damaged { .. }) => None,
                stored => stored?,
            };
            if let Some(result) = stored {
                if stage.needs.is_empty() {
                    let mut of_stage = result.inputs.clone();
                    // The spec describes the net more briefly.
                    of_stage.as_object_mut().map(|inputs| inputs.remove("graph"));
                    inputs.extend(leaves(&serde_json::json!({ &stage.label: of_stage })));
                }
                stages.insert(stage.label, result);
            }
        }
        Ok(Self { store, spec: leaves(&spec), environment: leaves(&environment), inputs, stages })
    }
}

fn metrics(result: &StageResult) -> BTreeMap<String, String> {
    let name = |row: &Row| {
        let layer = if row.layer.is_empty() { String::new() } else { format!("{} ", row.layer) };
        format!("{layer}{} {}", row.metric.name(), row.phase.name())
    };
    let mut metrics: BTreeMap<String, String> =
        result.rows.iter().map(|row| (name(row), row.value.to_string())).collect();
    metrics.extend(result.test_images.map(|images| ("test images".to_owned(), images.to_string())));
    metrics.insert("status".into(), format!("{:?}", result.status).to_lowercase());
    metrics
}

fn kept(
    first: &BTreeMap<String, ChannelSet>,
    second: &BTreeMap<String, ChannelSet>,
) -> Vec<(String, [usize; 3])> {
    let mut out = Vec::new();
    for (layer, one) in first {
        let Some(other) = second.get(layer) else { continue };
        let (one, other): (BTreeSet<usize>, BTreeSet<usize>) =
            (one.kept().iter().copied().collect(), other.kept().iter().copied().collect());
        if one != other {
            let both = one.intersection(&other).count();
            out.push((layer.clone(), [both, one.len() - both, other.len() - both]));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kept_channels_are_counted_by_where_they_are_kept() {
        let set = |kept: &[usize]| {
            BTreeMap::from([("conv1".to_owned(), ChannelSet::new(8, kept.to_vec()).unwrap())])
        };
        assert_eq!(kept(&set(&[0, 1, 2]), &set(&[1, 2, 7])), [("conv1".to_owned(), [2, 1, 1])]);
        assert_eq!(kept(&set(&[0, 1]), &set(&[0, 1])), []);
    }
}
