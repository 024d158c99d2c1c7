//! The list of a run's stages beside its spec, so that what is stored of it can be told without its data.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

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
    /// The one-shot evidence of a dense net.
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
    /// Id of the stage that must be stored before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub needs: Option<String>,
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
            stages.push(ListedStage { id, label: dense.label(), kind, needs: None, macs: work.dense_macs() });
        }
        for dense in plan.dense.iter().filter(|_| plan.spec.is_one_shot()) {
            let (id, label, kind) = (dense.evidence.to_string(), dense.evidence_label(), StageKind::Evidence);
            stages.push(ListedStage { id, label, kind, needs: Some(dense.id.to_string()), macs: 0.0 });
        }
        for cell in &plan.cells {
            let dense = &plan.dense[cell.dense];
            let needs = match (cell.outline.is_from_scratch, plan.spec.is_one_shot()) {
                (true, _) => None,
                (false, true) => Some(dense.evidence.to_string()),
                (false, false) => Some(dense.id.to_string()),
            };
            let (id, kind) = (cell.id.to_string(), StageKind::Cell);
            let (label, macs) = (cell.outline.label(), work.cell_macs(&cell.outline));
            stages.push(ListedStage { id, label, kind, needs, macs });
        }
        // Two methods that differ in their label alone are one stage, whose rows both get.
        let mut listed = BTreeSet::new();
        stages.retain(|stage| listed.insert(stage.id.clone()));
        Self { spec: plan.path.clone(), asked: plan.asked.clone(), run: plan.run.clone(), stages }
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
