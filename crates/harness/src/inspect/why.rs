//! Why stages of a plan would run: new, or which input differs from the nearest stored stage, named by the spec's key.

use std::collections::BTreeMap;
use std::fs;

use serde::Serialize;
use serde_json::Value;
use thinet_report::records::{Difference, differences, leaves};

use super::why_keys::{Inputs, described};
use crate::error::HarnessError;
use crate::store::{Depth, StageId, StageInputs, Store, paths};
use crate::study::{Plan, manifest};

/// Why a stage would run.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Why {
    /// Its id in the store.
    pub id: String,
    /// For messages, such as `thinet r=0.5 seed 0`.
    pub label: String,
    #[serde(flatten)]
    pub reason: Reason,
}

/// The reason why a stage would run.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "why", rename_all = "kebab-case")]
pub enum Reason {
    /// No stored stage is of the same method, keep rate and seed.
    New,
    /// The nearest stored stage of the same method, keep rate and seed has other inputs.
    Differs {
        /// The id of that stage.
        nearest: String,
        /// The inputs by the keys of a spec: stored, and asked now.
        inputs: Vec<Difference>,
    },
    /// A stored stage has the same inputs, but its kind had another meaning when it was stored, which this program does not take for
    /// the same.
    OtherVersion {
        /// The id of that stage.
        nearest: String,
    },
    /// It is stored, but damaged.
    Damaged {
        /// What is wrong with it.
        problem: String,
    },
    /// It failed last time.
    Failed {
        /// Its error.
        error: String,
    },
    /// It was begun and not finished; it goes on from its checkpoints.
    Begun,
}

/// Why each missing stage of a plan would run, in the order in which they run.
///
/// # Errors
/// If the store cannot be read. A damaged stage of another study counts as not stored.
pub fn why(plan: &Plan) -> Result<Vec<Why>, HarnessError> {
    let store = Store::at(&plan.results);
    let asked = asked(plan)?;
    let mut stored: Option<StoredInputs> = None;
    let mut reasons = Vec::new();
    for stage in manifest(plan).stages {
        let Some(id) = StageId::parse(&stage.id) else { unreachable!("a plan's ids are plain") };
        let reason = match store.brief(&id, Depth::Sizes) {
            Ok(Some(_)) => continue,
            Err(HarnessError::Damaged { problem, .. }) => Reason::Damaged { problem },
            Err(error) => return Err(error),
            Ok(None) => match (store.failure(&stage.id), is_begun(&store, &id)) {
                (Some(error), _) => Reason::Failed { error },
                (None, true) => Reason::Begun,
                (None, false) => {
                    // Every record is read, so only if one is needed.
                    if stored.is_none() {
                        stored = Some(StoredInputs::read(&store)?);
                    }
                    let dense = |id: &str| asked.get(id);
                    stored.as_ref().map_or(Reason::New, |stored| stored.reason(&id, &asked[&stage.id], dense))
                }
            },
        };
        reasons.push(Why { id: stage.id, label: stage.label, reason });
    }
    Ok(reasons)
}

/// The inputs of every stage of the plan by its id.
fn asked(plan: &Plan) -> Result<BTreeMap<String, Value>, HarnessError> {
    let mut asked = BTreeMap::new();
    for dense in &plan.dense {
        asked.insert(dense.id.to_string(), dense.inputs.clone());
        asked.extend(dense.evidence.iter().map(|stage| (stage.id.to_string(), stage.inputs.clone())));
    }
    asked.extend(plan.allocations.iter().map(|stage| (stage.id.to_string(), stage.inputs.clone())));
    for cell in &plan.cells {
        asked.insert(cell.id.to_string(), plan.cell_inputs(cell)?);
    }
    Ok(asked)
}

/// Whether a stage's folder holds work in progress.
fn is_begun(store: &Store, id: &StageId) -> bool {
    let entries = fs::read_dir(store.folder(id)).into_iter().flatten().filter_map(Result::ok);
    entries.map(|entry| entry.file_name()).any(|name| {
        let name = name.to_string_lossy();
        !name.starts_with('.') && name != paths::FAILURE
    })
}

/// The inputs of all stored stages.
struct StoredInputs {
    /// By id.
    stages: BTreeMap<String, Value>,
    /// Ids by kind, method, keep rate and seed.
    by_place: BTreeMap<String, Vec<String>>,
}

impl StoredInputs {
    fn read(store: &Store) -> Result<Self, HarnessError> {
        let mut stages = BTreeMap::new();
        for id in store.ids()? {
            match store.inputs(&id) {
                Ok(Some(StageInputs { inputs, .. })) => drop(stages.insert(id.to_string(), inputs)),
                Ok(None) | Err(HarnessError::Damaged { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        let mut by_place: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (id, inputs) in &stages {
            by_place.entry(place(id, inputs, |id| stages.get(id))).or_default().push(id.clone());
        }
        Ok(Self { stages, by_place })
    }

    /// Compares a stage with those of its place; `dense` gives the inputs of the plan's stages.
    fn reason<'a>(&self, id: &StageId, asked: &Value, dense: impl Fn(&str) -> Option<&'a Value>) -> Reason {
        let same_place = self.by_place.get(&place(id.as_str(), asked, &dense)).into_iter().flatten();
        let wanted = whole(asked, &dense);
        let differing = same_place.filter_map(|other| {
            let found = whole(self.stages.get(other)?, |id| self.stages.get(id));
            Some((differences(&leaves(&found), &leaves(&wanted)).len(), other, found))
        });
        // The first of several that are equally near, so that the answer does not change from call to call.
        let Some((count, nearest, found)) = differing.min_by_key(|(count, id, _)| (*count, (*id).clone()))
        else {
            return Reason::New;
        };
        let nearest = nearest.clone();
        match count {
            0 => Reason::OtherVersion { nearest },
            _ => Reason::Differs {
                nearest,
                inputs: described(id.kind(), Inputs { old: &found, new: &wanted }),
            },
        }
    }
}

/// What makes a stage another one of its study and not a changed one: kind, method, keep rate and seed.
fn place<'a>(id: &str, inputs: &Value, dense: impl Fn(&str) -> Option<&'a Value>) -> String {
    let kind = id.rsplit_once('-').map_or(id, |(kind, _)| kind);
    let seed = match inputs["dense"].as_str() {
        Some(id) => dense(id).map_or(Value::Null, |dense| dense["seed"].clone()),
        None => inputs["seed"].clone(),
    };
    // The control of a keep rate is known by its widths alone, which its graph holds, or the allocation that fixes them.
    let widths = if kind == "scratch" { leaves(&inputs["graph"]) } else { BTreeMap::new() };
    let allocation = inputs["allocation"].as_str().and_then(&dense).unwrap_or(&Value::Null);
    let parts = [&inputs["selector"], &inputs["reconstruction"], &inputs["keep-rate"], &seed];
    let of_widths =
        [&allocation["selector"], &allocation["keep-rate"]].map(|part| (!part.is_null()).then_some(part));
    format!("{kind} {parts:?} {widths:?} {of_widths:?}")
}

/// The inputs of a stage with those of its dense net and of its allocation in place of their ids, if they are known.
fn whole<'a>(inputs: &Value, dense: impl Fn(&str) -> Option<&'a Value>) -> Value {
    let mut whole = inputs.clone();
    for stage in ["dense", "allocation"] {
        if let Some(of_stage) = inputs[stage].as_str().and_then(&dense) {
            whole[stage] = of_stage.clone();
        }
    }
    whole
}
