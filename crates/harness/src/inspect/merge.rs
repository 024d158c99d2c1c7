//! Joins the results folder of another machine with this one: finished stages, whose files are checked byte for byte, and the
//! folders of runs. A stage that both have with different results is a conflict, and nothing is merged.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use serde::Serialize;
use thinet_files::{FileError, write_atomically, write_atomically_with};

use super::merge_runs::{RunMerge, join, plan_runs};
use crate::error::HarnessError;
use crate::store::{Claim, ClaimTiming, Depth, StageId, StageResult, Store, paths};

/// What becomes of a stage of the other folder.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "what", rename_all = "kebab-case")]
pub enum StageFate {
    /// It is not stored here and is copied.
    New {
        /// Size of its files and record.
        bytes: u64,
    },
    /// It is stored here, but damaged; it is set aside and replaced.
    Repair {
        /// What is wrong with the one here.
        problem: String,
        /// Size of the other's files and record.
        bytes: u64,
    },
    /// It is stored here with the same result.
    Same,
    /// It is stored here with another result.
    Conflict {
        /// What differs, such as `kept channels`.
        differs: Vec<String>,
    },
    /// It is damaged there and left out.
    Damaged {
        /// What is wrong with it.
        problem: String,
    },
}

/// A stage of the other folder.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct StageMerge {
    pub id: String,
    #[serde(flatten)]
    pub fate: StageFate,
}

/// What a merge does; made without changing anything.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Merge {
    /// The other results folder.
    pub from: PathBuf,
    /// This results folder.
    pub to: PathBuf,
    /// Every finished stage of the other folder, sorted by id.
    pub stages: Vec<StageMerge>,
    /// Every run of the other folder, sorted by name.
    pub runs: Vec<RunMerge>,
}

/// Compares two results folders; every file of the other one that would be copied is read and its checksum compared.
///
/// # Errors
/// If the other folder is not one of results or is this one, or a file cannot be read.
pub fn plan_merge(from: &Path, to: &Path) -> Result<Merge, HarnessError> {
    let refused = |problem: String| Err(HarnessError::NoSuchRun(problem));
    if !paths::store(from).is_dir() && !paths::runs(from).is_dir() {
        return refused(format!("{} is no results folder: it has no store/ and no runs/", from.display()));
    }
    if let (Ok(one), Ok(other)) = (from.canonicalize(), to.canonicalize())
        && one == other
    {
        return refused(format!("{} and {} are the same folder", from.display(), to.display()));
    }
    let (theirs, ours) = (Store::at(from), Store::at(to));
    let mut stages = Vec::new();
    for id in theirs.ids()? {
        stages.push(StageMerge { fate: fate(&theirs, &ours, &id)?, id: id.to_string() });
    }
    Ok(Merge { runs: plan_runs(from, to)?, from: from.to_owned(), to: to.to_owned(), stages })
}

fn fate(theirs: &Store, ours: &Store, id: &StageId) -> Result<StageFate, HarnessError> {
    let checked = theirs.result(id).and_then(|result| match result.as_ref().and_then(outside) {
        Some(name) => Err(HarnessError::Damaged {
            path: theirs.folder(id),
            problem: format!("{name:?} is not the name of a file in its folder"),
        }),
        None => Ok(result),
    });
    let their = match checked {
        Ok(Some(their)) => their,
        Ok(None) => return Ok(StageFate::Damaged { problem: "its record is gone".to_owned() }),
        Err(HarnessError::Damaged { problem, .. }) => return Ok(StageFate::Damaged { problem }),
        Err(error) => return Err(error),
    };
    let whole = |store: &Store| {
        let mut damage = None;
        store.intact(id, Depth::Checksums, &mut |problem| damage = Some(problem)).map(|found| (found, damage))
    };
    if let (None, Some(problem)) = whole(theirs)? {
        return Ok(StageFate::Damaged { problem });
    }
    let bytes = bytes(theirs, id, &their)?;
    Ok(match whole(ours)? {
        (None, None) => StageFate::New { bytes },
        (None, Some(problem)) => StageFate::Repair { problem, bytes },
        (Some(our), _) => match differing(&our, &their) {
            differs if differs.is_empty() => StageFate::Same,
            differs => StageFate::Conflict { differs },
        },
    })
}

/// A file of a record that is not in the stage's own folder: a record of another machine must not lead out of it.
fn outside(result: &StageResult) -> Option<&String> {
    let is_plain = |name: &&String| {
        let mut parts = Path::new(name.as_str()).components();
        matches!((parts.next(), parts.next()), (Some(Component::Normal(part)), None) if part == name.as_str())
    };
    result.files.keys().find(|name| !is_plain(name))
}

fn bytes(store: &Store, id: &StageId, result: &StageResult) -> Result<u64, HarnessError> {
    let mut bytes = 0;
    for name in result.files.keys().map(String::as_str).chain([paths::RESULT]) {
        let path = store.folder(id).join(name);
        bytes += fs::metadata(&path).map_err(HarnessError::io("read", &path))?.len();
    }
    Ok(bytes)
}

/// What differs between two results of a stage. Times and environments may, and old records have no loss curve.
fn differing(ours: &StageResult, theirs: &StageResult) -> Vec<String> {
    let mut differs = Vec::new();
    let parts = [
        ("inputs", ours.inputs == theirs.inputs),
        ("status", ours.status == theirs.status),
        ("measured values", ours.rows == theirs.rows),
        ("kept channels", ours.kept == theirs.kept),
        ("test images", ours.test_images == theirs.test_images),
    ];
    differs.extend(parts.into_iter().filter(|(_, is_same)| !is_same).map(|(part, _)| part.to_owned()));
    let names = ours.files.keys().chain(theirs.files.keys());
    let mut files: Vec<&String> =
        names.filter(|name| ours.files.get(*name) != theirs.files.get(*name)).collect();
    files.sort();
    files.dedup();
    differs.extend(files.into_iter().cloned());
    differs
}

impl Merge {
    /// The stages with another result here.
    pub fn conflicts(&self) -> impl Iterator<Item = (&str, &[String])> {
        self.stages.iter().filter_map(|stage| match &stage.fate {
            StageFate::Conflict { differs } => Some((stage.id.as_str(), &differs[..])),
            _ => None,
        })
    }

    /// Copies what is to be copied. Each stage is whole or absent at any moment, and a merge that was interrupted goes on where it
    /// stopped. `copied` is called with each copied stage.
    ///
    /// # Errors
    /// If there is a conflict (nothing is copied), a process works on a stage or run here, a file has changed since it was checked, or
    /// a file cannot be written.
    pub fn apply(&self, copied: &mut dyn FnMut(&StageMerge)) -> Result<(), HarnessError> {
        let conflicts: Vec<&str> = self.conflicts().map(|(id, _)| id).collect();
        if !conflicts.is_empty() {
            return Err(HarnessError::Conflict { stages: conflicts.join(", ") });
        }
        let (theirs, ours) = (Store::at(&self.from), Store::at(&self.to));
        for stage in &self.stages {
            if matches!(stage.fate, StageFate::New { .. } | StageFate::Repair { .. }) {
                copy(&theirs, &ours, stage)?;
                copied(stage);
            }
        }
        join(&self.from, &self.to, &self.runs)
    }
}

/// The time after which claims of other machines expire; as for runs.
pub(super) const CLAIM_EXPIRY: Duration = Duration::from_secs(90);

/// Copies a stage under its claim: its files, then the record, byte for byte.
fn copy(theirs: &Store, ours: &Store, stage: &StageMerge) -> Result<(), HarnessError> {
    let Some(id) = StageId::parse(&stage.id) else { unreachable!("ids of a store are plain") };
    let timing = ClaimTiming::expiring_after(CLAIM_EXPIRY);
    let claim = Claim::try_take(&ours.claim_file(id.as_str()), &ours.folder(&id), timing)?;
    if matches!(stage.fate, StageFate::Repair { .. }) && ours.folder(&id).exists() {
        ours.set_aside(&id)?;
    }
    let (from, folder) = (theirs.folder(&id), ours.begin(&id)?);
    let record = from.join(paths::RESULT);
    let text = fs::read(&record).map_err(HarnessError::io("read", &record))?;
    let changed = |name: &str| HarnessError::Damaged {
        path: from.clone(),
        problem: format!("{name} has changed since it was checked"),
    };
    let result = theirs.result(&id)?.ok_or_else(|| changed(paths::RESULT))?;
    for (name, checksum) in &result.files {
        let path = folder.join(name);
        // Left by a merge that was interrupted.
        if thinet_files::hash_file(&path).is_ok_and(|found| found == *checksum) {
            continue;
        }
        copy_checked(&from.join(name), &path, checksum, || changed(name))?;
    }
    claim.check()?;
    write_atomically(&folder.join(paths::RESULT), &text)?;
    ours.remove_leftovers(&id, &result);
    Ok(())
}

/// Copies a file atomically if its bytes have this checksum.
fn copy_checked(
    from: &Path,
    to: &Path,
    checksum: &str,
    changed: impl FnOnce() -> HarnessError,
) -> Result<(), HarnessError> {
    let mut source = File::open(from).map_err(HarnessError::io("open", from))?;
    write_atomically_with(to, |file| {
        let (mut hasher, mut buffer) = (blake3::Hasher::new(), vec![0; 1 << 20]);
        loop {
            let count = source.read(&mut buffer).map_err(HarnessError::io("read", from))?;
            if count == 0 {
                break;
            }
            hasher.update(&buffer[..count]);
            file.write_all(&buffer[..count]).map_err(FileError::at("write", to))?;
        }
        if hasher.finalize().to_hex().as_str() == checksum { Ok(()) } else { Err(changed()) }
    })
}
