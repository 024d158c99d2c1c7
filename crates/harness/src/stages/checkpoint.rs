//! Checkpoints of a stage in progress. A file's name holds its progress and checksum, so that a damaged one is detected and an older
//! one can be used instead.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use thinet_files::{hash_file, temporary};

use crate::error::HarnessError;
use crate::store::Claim;

/// Digits of the checksum in a name.
const HASH: usize = 16;
const EXTENSION: &str = "safetensors";

/// The checkpoints of one kind in a stage's folder.
#[derive(Clone, Debug)]
pub(crate) struct Checkpoints<'a> {
    folder: &'a Path,
    kind: String,
    /// Checked before the folder changes; `None` if only the caller uses the folder.
    claim: Option<&'a Claim>,
}

impl<'a> Checkpoints<'a> {
    /// `kind` names the contents, such as `layers` or `train-conv1_1`.
    pub(crate) fn new(folder: &'a Path, kind: impl Into<String>) -> Self {
        Self { folder, kind: kind.into(), claim: None }
    }

    /// For a folder under a claim: once the claim is lost, the folder is left alone.
    pub(crate) fn under(self, claim: &'a Claim) -> Self {
        Self { claim: Some(claim), ..self }
    }

    fn check(&self) -> Result<(), HarnessError> {
        self.claim.map_or(Ok(()), Claim::check)
    }

    /// Saves a checkpoint at `progress` and removes older ones; `write` writes the file under a unique temporary name.
    pub(crate) fn save(
        &self,
        progress: u64,
        write: impl FnOnce(&Path) -> Result<(), HarnessError>,
    ) -> Result<(), HarnessError> {
        self.check()?;
        let unnamed = temporary(self.folder)
            .map_err(HarnessError::io("write a checkpoint in", self.folder))?
            .into_temp_path();
        write(&unnamed)?;
        let hash = hash_file(&unnamed).map_err(HarnessError::io("read", &*unnamed))?;
        let name = format!("{}-{progress:012}-{}.{EXTENSION}", self.kind, &hash[..HASH]);
        let path = self.folder.join(name);
        self.check()?;
        unnamed.persist(&path).map_err(|e| HarnessError::io("write", &path)(e.error))?;
        let sync = || fs::File::open(self.folder)?.sync_all();
        sync().map_err(HarnessError::io("sync", self.folder))?;
        for (_, _, old) in self.all()?.into_iter().filter(|(_, _, old)| *old != path) {
            fs::remove_file(&old).map_err(HarnessError::io("remove", old))?;
        }
        Ok(())
    }

    /// The latest intact checkpoint. Damaged ones are removed, and their names passed to `damaged`.
    pub(crate) fn latest(&self, damaged: &mut dyn FnMut(String)) -> Result<Option<PathBuf>, HarnessError> {
        let mut all = self.all()?;
        all.sort();
        for (_, hash, path) in all.into_iter().rev() {
            let found = hash_file(&path).map_err(HarnessError::io("read", &path))?;
            if found.starts_with(&hash) {
                return Ok(Some(path));
            }
            self.check()?;
            damaged(path.file_name().unwrap_or_default().to_string_lossy().into_owned());
            fs::remove_file(&path).map_err(HarnessError::io("remove", path))?;
        }
        Ok(None)
    }

    /// Removes all checkpoints of this kind.
    pub(crate) fn clear(&self) -> Result<(), HarnessError> {
        self.check()?;
        for (_, _, path) in self.all()? {
            fs::remove_file(&path).map_err(HarnessError::io("remove", path))?;
        }
        Ok(())
    }

    /// Progress, checksum and path of each checkpoint of this kind.
    fn all(&self) -> Result<Vec<(u64, String, PathBuf)>, HarnessError> {
        let mut found = Vec::new();
        let entries = match fs::read_dir(self.folder) {
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(found),
            entries => entries.map_err(HarnessError::io("read", self.folder))?,
        };
        for entry in entries {
            let path = entry.map_err(HarnessError::io("read", self.folder))?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let parts = name
                .strip_prefix(&self.kind)
                .and_then(|rest| rest.strip_prefix('-'))
                .and_then(|rest| rest.strip_suffix(EXTENSION)?.strip_suffix('.')?.split_once('-'));
            if let Some((progress, hash)) = parts
                && let Ok(progress) = progress.parse()
                && hash.len() == HASH
            {
                let hash = hash.to_owned();
                found.push((progress, hash, path));
            }
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn save(checkpoints: &Checkpoints<'_>, progress: u64, text: &str) {
        checkpoints
            .save(progress, |path| fs::write(path, text).map_err(HarnessError::io("write", path)))
            .unwrap();
    }

    #[test]
    fn the_latest_intact_one_is_found_and_kinds_do_not_mix() {
        let dir = tempfile::tempdir().unwrap();
        let (train, other) =
            (Checkpoints::new(dir.path(), "train"), Checkpoints::new(dir.path(), "train-conv1"));
        assert_eq!(train.latest(&mut |_| ()).unwrap(), None);
        save(&train, 9, "nine");
        let nine = train.latest(&mut |_| ()).unwrap().unwrap();
        save(&other, 50, "fifty");
        let kept = dir.path().join("nine");
        fs::copy(&nine, &kept).unwrap();
        save(&train, 10, "ten");
        assert!(!nine.exists(), "older ones are removed");
        let ten = train.latest(&mut |_| ()).unwrap().unwrap();
        assert_eq!(fs::read_to_string(&ten).unwrap(), "ten");

        // The older one still exists when the newer one turns out to be damaged.
        fs::rename(&kept, &nine).unwrap();
        fs::write(&ten, "tan").unwrap();
        let mut damaged = Vec::new();
        assert_eq!(train.latest(&mut |name| damaged.push(name)).unwrap(), Some(nine));
        assert_eq!(damaged.len(), 1);
        assert!(damaged[0].starts_with("train-000000000010-"));
        train.clear().unwrap();
        assert_eq!(train.latest(&mut |_| ()).unwrap(), None);
        assert!(other.latest(&mut |_| ()).unwrap().is_some());
    }
}
