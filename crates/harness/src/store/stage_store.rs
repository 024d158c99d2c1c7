//! The store of finished stages: one folder per stage id, complete if and only if its `result.json` is there.
//!
//! A stage's id is a hash of everything that can change its output: its kind, a version of its meaning, its part of the spec, and the
//! id of the stage it starts from. A stage whose output exists is not run again, so a restart resumes. Files are written under a
//! temporary name, synced and renamed; `result.json` comes last.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use thinet_files::{hash_file, read_if_exists, sealed, write_atomically};

use super::environment::host_name;
use super::paths::{self, CLAIMS, DAMAGED, FAILURE, RESULT};
use super::stage_id::StageId;
use super::stage_record::{Brief, Record, StageInputs, StageResult};
use crate::error::HarnessError;

/// How thoroughly a finished stage is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Depth {
    /// The record's checksum, and existence and sizes of the files.
    Sizes,
    /// In addition the checksums of the files: every byte is read.
    Checksums,
}

/// The folder that holds all stages.
#[derive(Clone, Debug)]
pub struct Store {
    root: PathBuf,
}

impl Store {
    /// The store below a results folder. Does not touch the file system.
    #[must_use]
    pub fn at(results: &Path) -> Self {
        Self { root: paths::store(results) }
    }

    /// The folder of a stage; it need not exist.
    #[must_use]
    pub fn folder(&self, id: &StageId) -> PathBuf {
        self.root.join(id.as_str())
    }

    /// The record file of a stage by its id as text; it need not exist.
    pub(crate) fn record_file(&self, id: &str) -> PathBuf {
        self.root.join(id).join(RESULT)
    }

    /// The claim file of a stage: outside its folder, so that a finished stage holds nothing else.
    pub(crate) fn claim_file(&self, id: &str) -> PathBuf {
        self.root.join(CLAIMS).join(id)
    }

    /// Stores why a stage failed. Write errors are ignored here: the failure is already reported.
    pub(crate) fn note_failure(&self, id: &str, label: &str, error: &str) {
        let folder = self.root.join(id);
        let failure = serde_json::json!({ "stage": label, "error": error, "host": host_name() });
        let failure = sealed::seal(&failure.to_string());
        // A process can die after it has stored the stage.
        if !self.record_file(id).exists() && fs::create_dir_all(&folder).is_ok() {
            let _ = write_atomically(&folder.join(FAILURE), failure.as_bytes());
        }
    }

    /// Why a stage failed last, if it did.
    #[must_use]
    pub fn failure(&self, id: &str) -> Option<String> {
        let text = fs::read_to_string(self.root.join(id).join(FAILURE)).ok()?;
        sealed::check(&text).ok()?;
        let failure: serde_json::Value = serde_json::from_str(&text).ok()?;
        Some(failure.get("error")?.as_str()?.to_owned())
    }

    /// Removes the stored failure of a stage.
    pub(crate) fn forget_failure(&self, id: &str) {
        // A finished stage counts as finished even if the file stays.
        let _ = fs::remove_file(self.root.join(id).join(FAILURE));
    }

    /// The ids of all finished stages, sorted; damaged ones are among them.
    ///
    /// # Errors
    /// If the folder exists and cannot be read.
    pub(crate) fn ids(&self) -> Result<Vec<StageId>, HarnessError> {
        if !self.root.is_dir() {
            return Ok(Vec::new());
        }
        let mut ids = Vec::new();
        for entry in fs::read_dir(&self.root).map_err(HarnessError::io("read", &self.root))? {
            let name = entry.map_err(HarnessError::io("read", &self.root))?.file_name();
            let id = name.to_str().and_then(StageId::parse);
            // The folders of claims and of damaged stages hold no record.
            ids.extend(id.filter(|id| self.is_done(id)));
        }
        ids.sort();
        Ok(ids)
    }

    /// The inputs in the record of a finished stage, without a check of its files; `None` if there is none.
    ///
    /// # Errors
    /// If the record is damaged or cannot be read.
    pub(crate) fn inputs(&self, id: &StageId) -> Result<Option<StageInputs>, HarnessError> {
        self.record(id)
    }

    /// Whether a stage is complete. Reads no more than one directory entry.
    #[must_use]
    pub fn is_done(&self, id: &StageId) -> bool {
        self.folder(id).join(RESULT).is_file()
    }

    /// Whether a stage is stored, with a valid record and files of the recorded sizes.
    #[must_use]
    pub fn is_whole(&self, id: &StageId) -> bool {
        matches!(self.brief(id, Depth::Sizes), Ok(Some(_)))
    }

    /// The record of a finished stage, `None` if there is none.
    ///
    /// # Errors
    /// If the record is damaged or belongs to another stage.
    pub fn result(&self, id: &StageId) -> Result<Option<StageResult>, HarnessError> {
        self.record(id)
    }

    /// Reads a stage's record and compares its checksum.
    fn record<T: Record>(&self, id: &StageId) -> Result<Option<T>, HarnessError> {
        let path = self.folder(id).join(RESULT);
        let bytes = match read_if_exists(&path) {
            Ok(Some(bytes)) => bytes,
            Ok(None) => return Ok(None),
            // Part of the path is a file: a run reports that when it creates its folders.
            Err(error) if error.source.kind() == ErrorKind::NotADirectory => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let damaged = |problem: String| HarnessError::Damaged { path: self.folder(id), problem };
        let text = String::from_utf8(bytes).map_err(|e| damaged(format!("{RESULT}: {e}")))?;
        sealed::check(&text).map_err(|problem| damaged(format!("{RESULT} {problem}")))?;
        let record: T = serde_json::from_str(&text).map_err(|e| damaged(format!("{RESULT}: {e}")))?;
        if record.id() != id.as_str() {
            return Err(damaged(format!("{RESULT} belongs to {}", record.id())));
        }
        Ok(Some(record))
    }

    /// The record of a finished stage after a check of its files. A damaged stage counts as absent, and the problem is passed to
    /// `damaged`.
    ///
    /// # Errors
    /// If the record or a file cannot be read for another reason.
    pub(crate) fn intact(
        &self,
        id: &StageId,
        depth: Depth,
        damaged: &mut dyn FnMut(String),
    ) -> Result<Option<StageResult>, HarnessError> {
        let checked = self.result(id).and_then(|result| {
            if let Some(result) = &result {
                self.check_files(id, &result.files, &result.sizes, depth)?;
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

    /// The excerpt of a record for surveys, after the same checks as [`Store::intact`].
    ///
    /// # Errors
    /// If the stage is damaged or cannot be read.
    pub(crate) fn brief(&self, id: &StageId, depth: Depth) -> Result<Option<Brief>, HarnessError> {
        let brief: Option<Brief> = self.record(id)?;
        if let Some(brief) = &brief {
            self.check_files(id, &brief.files, &brief.sizes, depth)?;
        }
        Ok(brief)
    }

    /// Compares the sizes of files, and their checksums. Old records lack sizes; none of their files is empty.
    fn check_files(
        &self,
        id: &StageId,
        files: &BTreeMap<String, String>,
        sizes: &BTreeMap<String, u64>,
        depth: Depth,
    ) -> Result<(), HarnessError> {
        let damaged = |problem: String| Err(HarnessError::Damaged { path: self.folder(id), problem });
        for (name, checksum) in files {
            let path = self.folder(id).join(name);
            let found = match fs::metadata(&path) {
                Ok(metadata) if metadata.is_file() => metadata.len(),
                Ok(_) => return damaged(format!("{name} is no file")),
                Err(e) if e.kind() == ErrorKind::NotFound => return damaged(format!("{name} is missing")),
                Err(e) => return Err(HarnessError::io("read", path)(e)),
            };
            match sizes.get(name) {
                Some(size) if *size != found => {
                    return damaged(format!("{name} has {found} bytes, not {size}"));
                }
                None if found == 0 => return damaged(format!("{name} is empty")),
                _ => {}
            }
            if depth == Depth::Checksums
                && *checksum != hash_file(&path).map_err(HarnessError::io("read", &path))?
            {
                return damaged(format!("{name} has changed"));
            }
        }
        Ok(())
    }

    /// Moves a damaged stage to the folder of damaged stages for inspection; returns its new path.
    ///
    /// # Errors
    /// If it cannot be renamed.
    pub(crate) fn set_aside(&self, id: &StageId) -> Result<PathBuf, HarnessError> {
        let aside = self.root.join(DAMAGED);
        fs::create_dir_all(&aside).map_err(HarnessError::io("create", &aside))?;
        let free = (1..).map(|n| aside.join(format!("{id}.{n}"))).find(|path| !path.exists());
        let target = free.unwrap_or_else(|| unreachable!("a folder holds finitely many folders"));
        let folder = self.folder(id);
        fs::rename(&folder, &target).map_err(HarnessError::io("rename", folder))?;
        Ok(target)
    }

    /// The path of a file of a finished stage, after a comparison of its checksum.
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
        StageId::parse(id).map_or(Ok(None), |id| self.result(&id))
    }

    /// The weight file of a finished stage by its id as text, checksum compared; `None` if there is no such stage.
    ///
    /// # Errors
    /// If its record is damaged or the file has changed.
    pub fn find_weights(&self, id: &str) -> Result<Option<PathBuf>, HarnessError> {
        let Some(id) = StageId::parse(id) else { return Ok(None) };
        let Some(result) = self.result(&id)? else { return Ok(None) };
        self.checked_file(&id, &result, paths::WEIGHTS).map(Some)
    }

    /// Creates a stage's folder for work in progress.
    ///
    /// # Errors
    /// If it cannot be created.
    pub fn begin(&self, id: &StageId) -> Result<PathBuf, HarnessError> {
        let folder = self.folder(id);
        fs::create_dir_all(&folder).map_err(HarnessError::io("create", &folder))?;
        Ok(folder)
    }

    /// Completes a stage: hashes `files`, writes the record, then removes everything else from the folder.
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
            let hash = hash_file(&path).map_err(HarnessError::io("read", &path))?;
            let size = fs::metadata(&path).map_err(HarnessError::io("read", &path))?.len();
            result.files.insert((*name).to_owned(), hash);
            result.sizes.insert((*name).to_owned(), size);
        }
        result.checksum = None;
        let text = sealed::seal(&serde_json::to_string_pretty(&result).map_err(HarnessError::Json)?);
        write_atomically(&folder.join(RESULT), text.as_bytes())?;
        for path in leftovers(&folder, &result).unwrap_or_default() {
            let _ = fs::remove_file(path);
        }
        Ok(result)
    }

    /// Removes what a process left that was killed between the record and the removal of the rest: checkpoints, unfinished files, a failure. The stage is complete even if files
    /// stay; `thinet clean` finds them, and files that others have put there.
    pub(crate) fn remove_leftovers(&self, id: &StageId, result: &StageResult) {
        for path in leftovers(&self.folder(id), result).unwrap_or_default() {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let is_checkpoint = ["train-", "layers-"].iter().any(|kind| name.starts_with(kind));
            if is_checkpoint || name.starts_with('.') || name == FAILURE {
                let _ = fs::remove_file(&path);
            }
        }
    }
}

/// Files in a finished stage's folder that do not belong to it, sorted: checkpoints, temporary files, a stored failure.
///
/// # Errors
/// If the folder cannot be read.
pub(crate) fn leftovers(folder: &Path, result: &StageResult) -> std::io::Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let is_part =
            entry.file_name().to_str().is_some_and(|name| name == RESULT || result.files.contains_key(name));
        if !is_part {
            paths.push(entry.path());
        }
    }
    paths.sort();
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use super::*;
    use thinet_report::records::Status;

    fn sample(id: &StageId) -> StageResult {
        StageResult {
            checksum: None,
            id: id.to_string(),
            inputs: serde_json::json!({ "rate": 0.5 }),
            status: Status::Done,
            rows: Vec::new(),
            kept: BTreeMap::new(),
            loss_curve: None,
            test_images: None,
            files: BTreeMap::new(),
            sizes: BTreeMap::new(),
            seconds: 1.5,
            busy_seconds: None,
            waited_seconds: None,
            environment: None,
        }
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
        let read = store.result(&id).unwrap().unwrap();
        assert!(read.checksum.is_some());
        assert_eq!(StageResult { checksum: None, ..read }, result);
        assert!(!folder.join("checkpoint").exists(), "work in progress is removed");
        assert!(store.checked_file(&id, &result, "weights").is_ok());

        fs::write(folder.join("weights"), b"abd").unwrap();
        let error = store.checked_file(&id, &result, "weights").unwrap_err().to_string();
        assert!(error.contains("weights has changed"), "{error}");

        // One digit of a value, in a record that is still valid JSON.
        let text = fs::read_to_string(folder.join(RESULT)).unwrap();
        assert!(text.contains("\"seconds\": 1.5"), "{text}");
        fs::write(folder.join(RESULT), text.replace("1.5", "1.6")).unwrap();
        let error = store.result(&id).unwrap_err().to_string();
        assert!(error.contains("result.json has changed"), "{error}");
        assert!(error.contains(id.as_str()), "{error}");

        for damage in [&b"{"[..], b"", b"\xff\xfe"] {
            fs::write(folder.join(RESULT), damage).unwrap();
            assert!(store.result(&id).unwrap_err().to_string().contains("is damaged"));
            assert_eq!(store.intact(&id, Depth::Sizes, &mut |_| ()).unwrap(), None);
        }
    }

    #[test]
    fn sizes_are_always_compared_and_checksums_when_asked() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::at(dir.path());
        let id = StageId::of("cell", 1, &serde_json::json!(1));
        let weights = store.begin(&id).unwrap().join("weights");
        write_atomically(&weights, b"abc").unwrap();
        store.finish(&id, sample(&id), &["weights"]).unwrap();
        let problem = |depth| {
            let mut problem = None;
            let found = store.intact(&id, depth, &mut |text| problem = Some(text)).unwrap();
            assert_eq!(found.is_none(), problem.is_some());
            problem
        };
        assert_eq!((problem(Depth::Sizes), problem(Depth::Checksums)), (None, None));
        fs::write(&weights, b"abd").unwrap();
        assert_eq!(problem(Depth::Sizes), None);
        assert_eq!(problem(Depth::Checksums).as_deref(), Some("weights has changed"));
        fs::write(&weights, b"").unwrap();
        assert_eq!(problem(Depth::Sizes).as_deref(), Some("weights has 0 bytes, not 3"));
        fs::remove_file(&weights).unwrap();
        assert_eq!(problem(Depth::Sizes).as_deref(), Some("weights is missing"));

        // A record of an old version, without sizes.
        let files = BTreeMap::from([("weights".to_owned(), "0".repeat(64))]);
        let old = serde_json::to_string(&StageResult { files, ..sample(&id) }).unwrap();
        fs::write(store.folder(&id).join(RESULT), old).unwrap();
        assert_eq!(problem(Depth::Sizes).as_deref(), Some("weights is missing"));
        fs::write(&weights, b"").unwrap();
        assert_eq!(problem(Depth::Sizes).as_deref(), Some("weights is empty"));
        fs::write(&weights, b"x").unwrap();
        assert_eq!(problem(Depth::Sizes), None);
    }

    #[test]
    fn leftovers_of_a_finished_stage_are_found() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::at(dir.path());
        let id = StageId::of("cell", 1, &serde_json::json!(1));
        let folder = store.begin(&id).unwrap();
        write_atomically(&folder.join("weights"), b"abc").unwrap();
        store.note_failure(id.as_str(), "a cell", "no luck");
        assert_eq!(store.failure(id.as_str()).as_deref(), Some("no luck"));
        let result = store.finish(&id, sample(&id), &["weights"]).unwrap();
        assert_eq!(leftovers(&folder, &result).unwrap(), Vec::<PathBuf>::new());
        store.note_failure(id.as_str(), "a cell", "too late");
        assert_eq!(store.failure(id.as_str()), None, "a finished stage has not failed");
        fs::write(folder.join("train-last-1.safetensors"), "x").unwrap();
        assert_eq!(leftovers(&folder, &result).unwrap(), [folder.join("train-last-1.safetensors")]);
        fs::write(folder.join("notes.txt"), "a user's").unwrap();
        store.remove_leftovers(&id, &result);
        assert_eq!(leftovers(&folder, &result).unwrap(), [folder.join("notes.txt")]);
    }
}
