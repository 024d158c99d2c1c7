//! The manifest of a run: its stages, stored in the run's folder, so that its state can be reported without its data.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Deserializer, Serialize};
use thinet_files::{read_if_exists, sealed, write_atomically};

use super::paths;
use crate::error::HarnessError;

/// The kind of a stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StageKind {
    /// A dense net.
    Dense,
    /// What cells read of a dense net: one kind of one-shot evidence, or widths that follow from it.
    Evidence,
    /// A method at a keep rate with a seed.
    Cell,
}

/// One stage of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct ManifestEntry {
    /// Its id in the store.
    pub id: String,
    /// For messages, such as `thinet r=0.5 seed 0`.
    pub label: String,
    pub kind: StageKind,
    /// Ids of the stages that it depends on.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "one_or_several")]
    pub needs: Vec<String>,
    /// Estimated multiply-adds.
    pub macs: f64,
    /// Seconds that one process on the planning machine needs at the rates assumed of its device. Manifests of old versions lack it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected_seconds: Option<f64>,
}

/// The stages of a run in the order in which they run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Manifest {
    /// Path of the spec file as given on the command line.
    pub spec: PathBuf,
    /// Hash of the spec with the command line's overrides, defaults left out.
    pub asked: String,
    pub run: String,
    pub stages: Vec<ManifestEntry>,
}

impl Manifest {
    /// Writes the manifest to a run's folder.
    pub(crate) fn write(&self, folder: &Path) -> Result<(), HarnessError> {
        let text = sealed::seal(&serde_json::to_string(self).map_err(HarnessError::Json)?);
        Ok(write_atomically(&folder.join(paths::MANIFEST), text.as_bytes())?)
    }

    /// Reads the manifest of a run; `None` if it does not exist, as in runs of old versions.
    ///
    /// # Errors
    /// If it cannot be read or has changed since it was written.
    pub fn read(folder: &Path) -> Result<Option<Self>, HarnessError> {
        let path = folder.join(paths::MANIFEST);
        let Some(bytes) = read_if_exists(&path)? else { return Ok(None) };
        let damaged = |problem: String| HarnessError::DamagedFile { path: path.clone(), problem };
        let text = String::from_utf8(bytes).map_err(|e| damaged(e.to_string()))?;
        sealed::check(&text).map_err(damaged)?;
        serde_json::from_str(&text).map(Some).map_err(|e| damaged(format!("cannot be read: {e}")))
    }
}

/// Manifests of old versions name one needed stage, not several.
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
    fn manifests_of_old_versions_are_read() {
        let read = |needs: &str| {
            let text = format!(r#"{{"id":"cell-1","label":"x","kind":"cell",{needs}"macs":1.0}}"#);
            let entry: ManifestEntry = serde_json::from_str(&text).unwrap();
            assert_eq!(entry.expected_seconds, None);
            entry.needs
        };
        assert_eq!(read(""), [""; 0]);
        assert_eq!(read(r#""needs":"dense-1","#), ["dense-1"]);
        assert_eq!(read(r#""needs":["dense-1","zeros-1"],"#), ["dense-1", "zeros-1"]);
    }
}
