//! The store of finished stages: one folder per stage id, complete if and only if its `result.json` is there.
//!
//! A stage's id is a hash of everything that can change its output: what it is, a version of its meaning, its part of
//! the spec, and the id of the stage it starts from. A stage whose output exists is not run again, so restarting is
//! resuming. Files are written under a temporary name, synced and renamed; `result.json` comes last.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use thinet_graph::ChannelSet;

use crate::claim::host_name;
use crate::environment::Environment;
use crate::error::HarnessError;
use crate::records::{Row, Status};

/// Raised when the meaning of stored stages changes, so that old ones are not taken for new ones.
const STORE_VERSION: u32 = 1;

/// Name of the record that makes a stage complete.
pub(crate) const RESULT: &str = "result.json";
/// Name of the note on why a stage failed.
const FAILURE: &str = "failure.json";

/// Identity of a stage: kind and hash.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct StageId(String);

impl StageId {
    /// Hashes a stage's kind, version and everything that can change its output.
    ///
    /// # Errors
    /// If `inputs` cannot be written as JSON.
    pub fn of(kind: &str, version: u32, inputs: &serde_json::Value) -> Self {
        // serde_json's maps are sorted, so the text is canonical.
        let text =
            serde_json::json!({ "store": STORE_VERSION, "kind": kind, "version": version, "inputs": inputs })
                .to_string();
        let hash = blake3::hash(text.as_bytes()).to_hex();
        Self(format!("{kind}-{}", &hash[..16]))
    }

    /// The id as text, such as `dense-0123456789abcdef`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for StageId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// The record of a finished stage.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StageResult {
    /// blake3 of this record's text with nothing in the place of the checksum. Records of old versions have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checksum: Option<String>,
    /// The stage's id, so that a copied folder is recognised.
    pub id: String,
    /// What went into the id, for people.
    pub inputs: serde_json::Value,
    /// How it ended.
    pub status: Status,
    /// What was measured.
    pub rows: Vec<Row>,
    /// Kept channels per pruned layer.
    pub kept: BTreeMap<String, ChannelSet>,
    /// On how many test images the accuracies were measured, those left out as damaged not counted; the fewest if its tests
    /// differ. None without a test, and in records of old versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub test_images: Option<u64>,
    /// blake3 of each file of the stage.
    pub files: BTreeMap<String, String>,
    /// Wall time of the stage in seconds since it was last started; feeds time estimates, never a table.
    pub seconds: f64,
    /// Of these, seconds in libtorch and waiting for images.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub busy_seconds: Option<f64>,
    /// Where it was made. Records of old versions do not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub environment: Option<Environment>,
}

/// The folder that holds all stages.
#[derive(Clone, Debug)]
pub struct Store {
    root: PathBuf,
}

impl Store {
    /// The store below a results folder. Touches nothing.
    #[must_use]
    pub fn at(results: &Path) -> Self {
        Self { root: results.join("store") }
    }

    /// Folder of a stage, whether it exists or not.
    #[must_use]
    pub fn folder(&self, id: &StageId) -> PathBuf {
        self.root.join(id.as_str())
    }

    /// The record of a stage by its id as text, whether it exists or not.
    pub(crate) fn record_file(&self, id: &str) -> PathBuf {
        self.root.join(id).join(RESULT)
    }

    /// The claim file of a stage: outside its folder, so that a finished stage holds nothing else.
    pub(crate) fn claim_file(&self, id: &str) -> PathBuf {
        self.root.join("claims").join(id)
    }

    /// Keeps why a stage failed, until it is stored. What cannot be written was told already.
    pub(crate) fn note_failure(&self, id: &str, error: &str) {
        let folder = self.root.join(id);
        let failure = serde_json::json!({ "error": error, "host": host_name() }).to_string();
        if fs::create_dir_all(&folder).is_ok() {
            let _ = write_atomically(&folder.join(FAILURE), failure.as_bytes());
        }
    }

    /// Why a stage failed the last time, if it did.
    #[must_use]
    pub fn failure(&self, id: &str) -> Option<String> {
        let text = fs::read_to_string(self.root.join(id).join(FAILURE)).ok()?;
        let failure: serde_json::Value = serde_json::from_str(&text).ok()?;
        Some(failure.get("error")?.as_str()?.to_owned())
    }

    /// Forgets a failure: the stage is tried again.
    pub(crate) fn forget_failure(&self, id: &str) {
        // If it stays, a finished stage counts as finished all the same.
        let _ = fs::remove_file(self.root.join(id).join(FAILURE));
    }

    /// Whether a stage is complete. Reads no more than one directory entry.
    #[must_use]
    pub fn is_done(&self, id: &StageId) -> bool {
        self.folder(id).join(RESULT).is_file()
    }

    /// The record of a finished stage, `None` if there is none.
    ///
    /// # Errors
    /// If the record is damaged or belongs to another stage.
    pub fn result(&self, id: &StageId) -> Result<Option<StageResult>, HarnessError> {
        let path = self.folder(id).join(RESULT);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            // The second: something in the path is a file; a run says so when it makes its folders.
            Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return Ok(None),
            Err(e) => return Err(HarnessError::io("read", path)(e)),
        };
        let damaged = |problem: String| HarnessError::Damaged { path: self.folder(id), problem };
        let text = String::from_utf8(bytes).map_err(|e| damaged(format!("{RESULT}: {e}")))?;
        let result: StageResult =
            serde_json::from_str(&text).map_err(|e| damaged(format!("{RESULT}: {e}")))?;
        if result.id != id.as_str() {
            return Err(damaged(format!("{RESULT} belongs to {}", result.id)));
        }
        if let Some(checksum) = &result.checksum
            && *checksum != checksum_of(&text, checksum)
        {
            return Err(damaged(format!("{RESULT} has changed")));
        }
        Ok(Some(result))
    }

    /// The record of a finished stage as [`Store::result`]; a damaged one counts as none, and `damaged` says why.
    ///
    /// # Errors
    /// If the record cannot be read for another reason.
    pub(crate) fn intact(
        &self,
        id: &StageId,
        with_files: bool,
        damaged: &mut dyn FnMut(String),
    ) -> Result<Option<StageResult>, HarnessError> {
        let checked = self.result(id).and_then(|result| {
            if let Some(result) = &result
                && with_files
            {
                for name in result.files.keys() {
                    self.checked_file(id, result, name)?;
                }
            }
            Ok(result)
        });
        match checked {
            Err(HarnessError::Damaged { problem, .. }) => {
                damaged(problem);
                Ok(None)
            }
            other => other,
        }
    }

    /// Moves a damaged stage out of the way, where a person can look at it; returns its new folder.
    ///
    /// # Errors
    /// If it cannot be renamed.
    pub(crate) fn set_aside(&self, id: &StageId) -> Result<PathBuf, HarnessError> {
        let aside = self.root.join("damaged");
        fs::create_dir_all(&aside).map_err(HarnessError::io("create", &aside))?;
        let free = (1..).map(|n| aside.join(format!("{id}.{n}"))).find(|path| !path.exists());
        let target = free.unwrap_or_else(|| unreachable!("a folder holds finitely many folders"));
        let folder = self.folder(id);
        fs::rename(&folder, &target).map_err(HarnessError::io("rename", folder))?;
        Ok(target)
    }

    /// Path of a file of a finished stage, after its checksum is compared.
    ///
    /// # Errors
    /// If the file is not recorded, missing or changed.
    pub fn checked_file(
        &self,
        id: &StageId,
        result: &StageResult,
        name: &str,
    ) -> Result<PathBuf, HarnessError> {
        let path = self.folder(id).join(name);
        let damaged = |problem: String| HarnessError::Damaged { path: self.folder(id), problem };
        let expected = result.files.get(name).ok_or_else(|| damaged(format!("no {name} is recorded")))?;
        let found = hash_file(&path).map_err(|e| damaged(format!("{name}: {e}")))?;
        if *expected == found { Ok(path) } else { Err(damaged(format!("{name} has changed"))) }
    }

    /// The record of a finished stage by its id as text, `None` if there is none.
    ///
    /// # Errors
    /// If the record is damaged or belongs to another stage.
    pub fn find(&self, id: &str) -> Result<Option<StageResult>, HarnessError> {
        let is_plain = id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        if is_plain { self.result(&StageId(id.to_owned())) } else { Ok(None) }
    }

    /// The weight file of a finished stage by its id as text, checksum compared; `None` if there is no such stage.
    ///
    /// # Errors
    /// If its record is damaged or the file has changed.
    pub fn find_weights(&self, id: &str) -> Result<Option<PathBuf>, HarnessError> {
        let Some(result) = self.find(id)? else { return Ok(None) };
        let id = StageId(id.to_owned());
        self.checked_file(&id, &result, crate::stages::WEIGHTS).map(Some)
    }

    /// Makes a stage's folder for work in progress.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn begin(&self, id: &StageId) -> Result<PathBuf, HarnessError> {
        let folder = self.folder(id);
        fs::create_dir_all(&folder).map_err(HarnessError::io("create", &folder))?;
        Ok(folder)
    }

    /// Marks a stage complete: hashes `files`, writes the record, then removes what else lies in the folder.
    ///
    /// # Errors
    /// If a file cannot be read or the record cannot be written.
    pub fn finish(
        &self,
        id: &StageId,
        mut result: StageResult,
        files: &[&str],
    ) -> Result<StageResult, HarnessError> {
        let folder = self.folder(id);
        for name in files {
            let path = folder.join(name);
            let hash = hash_file(&path).map_err(HarnessError::io("read", path))?;
            result.files.insert((*name).to_owned(), hash);
        }
        result.checksum = Some(String::new());
        let text = serde_json::to_string_pretty(&result).map_err(HarnessError::Json)?;
        let checksum = checksum_of(&text, "");
        let text = text.replacen(&checksum_line(""), &checksum_line(&checksum), 1);
        result.checksum = Some(checksum);
        write_atomically(&folder.join(RESULT), text.as_bytes())?;
        for entry in fs::read_dir(&folder).map_err(HarnessError::io("read", &folder))? {
            let path = entry.map_err(HarnessError::io("read", &folder))?.path();
            let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
            if name != RESULT && !files.contains(&name) {
                fs::remove_file(&path).map_err(HarnessError::io("remove", &path))?;
            }
        }
        Ok(result)
    }
}

/// The first line of a record.
fn checksum_line(checksum: &str) -> String {
    format!("\"checksum\": \"{checksum}\"")
}

/// Checksum of a record's text in which `checksum` stands: of all the rest of it.
fn checksum_of(text: &str, checksum: &str) -> String {
    let rest = text.replacen(&checksum_line(checksum), &checksum_line(""), 1);
    blake3::hash(rest.as_bytes()).to_hex().to_string()
}

/// Hex blake3 of a file.
pub(crate) fn hash_file(path: &Path) -> std::io::Result<String> {
    let mut hasher = blake3::Hasher::new();
    std::io::copy(&mut fs::File::open(path)?, &mut hasher)?;
    Ok(hasher.finalize().to_hex().to_string())
}

/// Writes a file so that it is either wholly there or not at all: temporary name, sync, rename, sync of the folder.
///
/// # Errors
/// If the file cannot be written.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> Result<(), HarnessError> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let write = || -> std::io::Result<()> {
        let mut file = tempfile::Builder::new().prefix(".").suffix(".tmp").tempfile_in(folder)?;
        file.write_all(bytes)?;
        file.as_file().sync_all()?;
        // A temporary file is private; results are for everyone who may read the folder.
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            file.as_file().set_permissions(fs::Permissions::from_mode(0o644))?;
        }
        file.persist(path).map_err(|e| e.error)?;
        fs::File::open(folder)?.sync_all()
    };
    write().map_err(HarnessError::io("write", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(id: &StageId) -> StageResult {
        StageResult {
            checksum: None,
            id: id.to_string(),
            inputs: serde_json::json!({ "rate": 0.5 }),
            status: Status::Done,
            rows: Vec::new(),
            kept: BTreeMap::new(),
            test_images: None,
            files: BTreeMap::new(),
            seconds: 1.5,
            busy_seconds: None,
            environment: None,
        }
    }

    #[test]
    fn ids_are_pinned_and_depend_on_kind_version_and_inputs() {
        let inputs = serde_json::json!({ "b": 1, "a": 0.1 });
        let id = StageId::of("cell", 1, &inputs);
        assert_eq!(id.as_str(), "cell-c70229c64f630368");
        assert_eq!(id, StageId::of("cell", 1, &serde_json::json!({ "a": 0.1, "b": 1 })));
        assert_ne!(id, StageId::of("dense", 1, &inputs));
        assert_ne!(id, StageId::of("cell", 2, &inputs));
        assert_ne!(id, StageId::of("cell", 1, &serde_json::json!({ "a": 0.2, "b": 1 })));
    }

    #[test]
    fn a_stage_is_complete_only_with_its_record_and_damage_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::at(dir.path());
        let id = StageId::of("cell", 1, &serde_json::json!(1));
        assert!(!store.is_done(&id));
        assert_eq!(store.result(&id).unwrap(), None);

        let folder = store.begin(&id).unwrap();
        write_atomically(&folder.join("weights"), b"abc").unwrap();
        write_atomically(&folder.join("checkpoint"), b"scratch").unwrap();
        assert!(!store.is_done(&id));
        let result = store.finish(&id, sample(&id), &["weights"]).unwrap();
        assert!(store.is_done(&id));
        assert_eq!(store.result(&id).unwrap(), Some(result.clone()));
        assert!(!folder.join("checkpoint").exists(), "work in progress is removed");
        assert!(store.checked_file(&id, &result, "weights").is_ok());

        fs::write(folder.join("weights"), b"abd").unwrap();
        let error = store.checked_file(&id, &result, "weights").unwrap_err().to_string();
        assert!(error.contains("weights has changed"), "{error}");

        // One digit of what was measured, in a record that can be read all the same.
        let text = fs::read_to_string(folder.join(RESULT)).unwrap();
        assert!(text.contains("\"seconds\": 1.5"), "{text}");
        fs::write(folder.join(RESULT), text.replace("1.5", "1.6")).unwrap();
        let error = store.result(&id).unwrap_err().to_string();
        assert!(error.contains("result.json has changed"), "{error}");

        for damage in [&b"{"[..], b"", b"\xff\xfe"] {
            fs::write(folder.join(RESULT), damage).unwrap();
            assert!(store.result(&id).unwrap_err().to_string().contains("is damaged"));
            assert_eq!(store.intact(&id, true, &mut |_| ()).unwrap(), None);
        }
    }
}
