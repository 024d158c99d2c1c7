//! The list of a run's stages beside its spec, so that what is stored of it can be told without its data.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Deserializer, Serialize};

use crate::error::HarnessError;
use crate::plan::Plan;
use crate::sealed;
use crate::store::write_atomically;

/// Name of the file in a run's folder.
const FILE: &str = "stages.json";

/// What a stage is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StageKind {
    /// A dense net.
    Dense,
    /// One kind of the one-shot evidence of a dense net.
    Evidence,
    /// A method at a keep rate with a seed.
    Cell,
}

/// One stage of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct ListedStage {
    /// Its id in the store.
    pub id: String,
    /// What it is, for people.
    pub label: String,
    /// What it is.
    pub kind: StageKind,
    /// Ids of the stages that must be stored before.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "one_or_several")]
    pub needs: Vec<String>,
    /// Multiply-adds it takes, estimated.
    pub macs: f64,
}

/// The stages of a run in the order in which they are made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct StageList {
    /// The spec file as it was given.
    pub spec: PathBuf,
    /// Hash of the spec with the command line's changes, before anything is filled in.
    pub asked: String,
    /// The run's id.
    pub run: String,
    /// Whether it is planned for a GPU.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_gpu: bool,
    /// The stages.
    pub stages: Vec<ListedStage>,
}

impl StageList {
    /// The stages of a plan, each once.
    #[must_use]
    pub fn of(plan: &Plan) -> Self {
        let mut stages = Vec::new();
        let work = crate::estimate::work(plan);
        for dense in &plan.dense {
            let (id, kind) = (dense.id.to_string(), StageKind::Dense);
            stages.push(ListedStage {
                id,
                label: dense.label(),
                kind,
                needs: Vec::new(),
                macs: work.dense_macs(),
            });
        }
        for (dense, stage) in
            plan.dense.iter().flat_map(|dense| dense.evidence.iter().map(move |e| (dense, e)))
        {
            let (id, label, kind) = (stage.id.to_string(), stage.label.clone(), StageKind::Evidence);
            stages.push(ListedStage { id, label, kind, needs: vec![dense.id.to_string()], macs: 0.0 });
        }
        for cell in &plan.cells {
            let mut needs = Vec::new();
            if !cell.outline.is_from_scratch {
                needs.push(plan.dense[cell.dense].id.to_string());
                needs.extend(plan.evidence_of(cell).map(|stage| stage.id.to_string()));
            }
            let (id, kind) = (cell.id.to_string(), StageKind::Cell);
            let (label, macs) = (cell.outline.label(), work.cell_macs(&cell.outline));
            stages.push(ListedStage { id, label, kind, needs, macs });
        }
        // Two methods that differ in their label alone are one stage, whose rows both get.
        let mut listed = BTreeSet::new();
        stages.retain(|stage| listed.insert(stage.id.clone()));
        let is_gpu = plan.device.is_cuda();
        Self { spec: plan.path.clone(), asked: plan.asked.clone(), run: plan.run.clone(), is_gpu, stages }
    }

    /// Writes the list to a run's folder.
    pub(crate) fn write(&self, folder: &Path) -> Result<(), HarnessError> {
        let text = sealed::seal(&serde_json::to_string(self).map_err(HarnessError::Json)?);
        write_atomically(&folder.join(FILE), text.as_bytes())
    }

    /// Reads the list of a run; `None` if there is none, as in runs of old versions.
    ///
    /// # Errors
    /// If it cannot be read or has changed since it was written.
    pub fn read(folder: &Path) -> Result<Option<Self>, HarnessError> {
        let path = folder.join(FILE);
        let bytes = match fs::read(&path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            bytes => bytes.map_err(HarnessError::io("read", &path))?,
        };
        let damaged = |problem: String| HarnessError::DamagedFile { path: path.clone(), problem };
        let text = String::from_utf8(bytes).map_err(|e| damaged(e.to_string()))?;
        sealed::check(&text).map_err(damaged)?;
        serde_json::from_str(&text).map(Some).map_err(|e| damaged(format!("cannot be read: {e}")))
    }
}

/// Lists of old versions name one stage, not several.
fn one_or_several<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Needs {
        One(String),
        Several(Vec<String>),
    }
    Ok(match Needs::deserialize(deserializer)? {
        Needs::One(id) => vec![id],
        Needs::Several(ids) => ids,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_old_versions_are_read() {
        let read = |needs: &str| {
            let text = format!(r#"{{"id":"cell-1","label":"x","kind":"cell",{needs}"macs":1.0}}"#);
            serde_json::from_str::<ListedStage>(&text).unwrap().needs
        };
        assert_eq!(read(""), [""; 0]);
        assert_eq!(read(r#""needs":"dense-1","#), ["dense-1"]);
        assert_eq!(read(r#""needs":["dense-1","zeros-1"],"#), ["dense-1", "zeros-1"]);
    }
}
