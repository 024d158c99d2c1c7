//! Finds files that can be removed from a results folder: stages that no run lists, damaged ones that were set aside, calibration
//! images, leftovers of killed processes, and whole runs.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::verify::SCRATCH;
use crate::error::HarnessError;
use crate::run::preflight;
use crate::store::{GUARD, Manifest, Store, holder, leftovers, list_runs, paths};

/// A file or folder that can be removed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Garbage {
    pub path: PathBuf,
    /// Its size on disk.
    pub bytes: u64,
    /// Why it can be removed.
    pub why: &'static str,
}

/// The result of [`find_garbage`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Cleaning {
    pub garbage: Vec<Garbage>,
    /// Runs of old versions, which have no manifest: while there are any, stages that no run lists stay.
    pub unlisted: Vec<String>,
}

/// Finds files that can be removed; removes nothing. Includes `runs` with the stages that only they list, and calibration images if
/// `crops` is set.
///
/// # Errors
/// If the folder cannot be read, or a process works in it.
pub fn find_garbage(results: &Path, runs: &[String], crops: bool) -> Result<Cleaning, HarnessError> {
    let (mut listed, mut unlisted, mut cleaning) = (BTreeSet::new(), Vec::new(), Cleaning::default());
    for name in list_runs(results)? {
        let folder = paths::runs(results).join(&name);
        if let Some(holder) = holder(&folder.join(paths::CLAIM)) {
            return Err(HarnessError::Busy { path: folder, holder: holder.to_string() });
        }
        if runs.contains(&name) {
            cleaning.add(&folder, "a run that you named")?;
            continue;
        }
        match Manifest::read(&folder)? {
            Some(manifest) => listed.extend(manifest.stages.into_iter().map(|stage| stage.id)),
            None => unlisted.push(name),
        }
    }
    let store = paths::store(results);
    for path in entries(&store.join(paths::CLAIMS))? {
        match holder(&path) {
            Some(holder) if path.extension().is_none() => {
                return Err(HarnessError::Busy { path: store, holder: holder.to_string() });
            }
            _ if path.ends_with(GUARD) => {}
            _ => cleaning.add(&path, "a claim whose holder has ended")?,
        }
    }
    for path in entries(&store)? {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        match name.as_str() {
            paths::CLAIMS => {}
            paths::DAMAGED => cleaning.add(&path, "damaged stages that were set aside")?,
            // Version 0.1 locked stages by files.
            "locks" => cleaning.add(&path, "locks of an old version")?,
            _ if path.is_file() => cleaning.add_temporary(&path)?,
            _ if unlisted.is_empty() && !listed.contains(&name) => {
                cleaning.add(&path, "a stage that no run lists")?;
            }
            _ => cleaning.add_leftovers(results, &path, &name)?,
        }
    }
    for name in list_runs(results)?.iter().filter(|name| !runs.contains(name)) {
        cleaning.add_temporary(&paths::runs(results).join(name))?;
    }
    cleaning.add_temporary(&paths::tables(results))?;
    cleaning.add_verifications(results)?;
    match crops {
        true => cleaning.add(&paths::crops(results), "calibration images, decoded again when needed")?,
        false => cleaning.add_temporary(&paths::crops(results))?,
    }
    cleaning.unlisted = unlisted;
    Ok(cleaning)
}

impl Cleaning {
    /// Total size, bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.garbage.iter().map(|garbage| garbage.bytes).sum()
    }

    /// Removes all of them.
    ///
    /// # Errors
    /// If a file cannot be removed; those before it are removed.
    pub fn remove(&self) -> Result<(), HarnessError> {
        for Garbage { path, .. } in &self.garbage {
            let removed = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
            removed.map_err(HarnessError::io("remove", path))?;
        }
        Ok(())
    }

    fn add(&mut self, path: &Path, why: &'static str) -> Result<(), HarnessError> {
        if path.exists() {
            self.garbage.push(Garbage { path: path.to_owned(), bytes: size(path)?, why });
        }
        Ok(())
    }

    /// Adds temporary files of unfinished writes at a path and below it.
    fn add_temporary(&mut self, path: &Path) -> Result<(), HarnessError> {
        for entry in entries(path)? {
            self.add_temporary(&entry)?;
        }
        match is_temporary(path) {
            true => self.add(path, "an unfinished file"),
            false => Ok(()),
        }
    }

    /// Adds all files that do not belong to a finished stage; only temporary files of an unfinished one, as its checkpoints are needed.
    fn add_leftovers(&mut self, results: &Path, folder: &Path, id: &str) -> Result<(), HarnessError> {
        let Ok(Some(result)) = Store::at(results).find(id) else { return self.add_temporary(folder) };
        for path in leftovers(folder, &result).map_err(HarnessError::io("read", folder))? {
            let why = match is_temporary(&path) {
                true => "an unfinished file",
                false => "left over from a finished stage",
            };
            self.add(&path, why)?;
        }
        Ok(())
    }

    /// Adds the scratch folders of killed verifications.
    fn add_verifications(&mut self, results: &Path) -> Result<(), HarnessError> {
        for path in entries(results)? {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let is_scratch = [SCRATCH, preflight::SCRATCH].iter().any(|start| name.starts_with(start));
            let is_in_use = entries(&path.join("store/claims"))?.iter().any(|claim| holder(claim).is_some());
            if is_scratch && path.is_dir() && !is_in_use {
                self.add(&path, "the scratch folder of a verification or pre-flight that was killed")?;
            }
        }
        Ok(())
    }
}

/// Whether a path is a temporary file of an unfinished write; `.partial` is the extension of old versions.
fn is_temporary(path: &Path) -> bool {
    let is_hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
    let is_unfinished =
        path.extension().is_some_and(|extension| extension == "tmp" || extension == "partial");
    is_hidden && is_unfinished && path.is_file()
}

/// Paths in a folder, sorted; empty if it does not exist.
fn entries(folder: &Path) -> Result<Vec<PathBuf>, HarnessError> {
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder).map_err(HarnessError::io("read", folder))? {
        paths.push(entry.map_err(HarnessError::io("read", folder))?.path());
    }
    paths.sort();
    Ok(paths)
}

fn size(path: &Path) -> Result<u64, HarnessError> {
    let metadata = fs::symlink_metadata(path).map_err(HarnessError::io("read", path))?;
    if !metadata.is_dir() {
        return Ok(metadata.len());
    }
    entries(path)?.iter().map(|entry| size(entry)).sum()
}
