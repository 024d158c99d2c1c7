//! The folder of a stored run as a spec: its resolved spec is run again, wherever the folder lies. Paths in it are relative to the spec
//! file that the run was started with; where that is gone, to the folder itself.

use std::path::{Path, PathBuf};

use super::spec::Spec;
use super::spec_text;
use crate::error::{HarnessError, SpecError};
use crate::store::{Manifest, paths, run_folder};

/// Whether a path is the folder of a stored run.
pub(super) fn is_run(path: &Path) -> bool {
    path.is_dir() && path.join(paths::SPEC).is_file()
}

/// The resolved spec of a run.
pub(super) fn read(folder: &Path) -> Result<Spec, SpecError> {
    let path = folder.join(paths::SPEC);
    let text = run_folder::run_spec(folder).map_err(|error| match error {
        HarnessError::Io { source, .. } => SpecError::Unreadable { path: path.clone(), source },
        HarnessError::DamagedFile { problem, .. } => {
            SpecError::Syntax { path: path.clone(), line: None, message: problem, hint: None }
        }
        other => SpecError::Syntax { path: path.clone(), line: None, message: other.to_string(), hint: None },
    })?;
    spec_text::parse(&text, &path)
}

/// The manifest of a run, if the path is the folder of one; `None` as well if it is damaged, as all that it says can be found anew.
pub(super) fn manifest(path: &Path) -> Option<Manifest> {
    if !is_run(path) {
        return None;
    }
    Manifest::read(path).ok().flatten()
}

/// The folders in which a relative path of a spec can lie: that of the spec file. For a run the folder of the spec that it was started
/// with, then its own.
pub(super) fn folders(path: &Path) -> Vec<PathBuf> {
    let parent = |path: &Path| path.parent().unwrap_or(Path::new(".")).to_owned();
    if !is_run(path) {
        return vec![parent(path)];
    }
    let started = manifest(path).map(|manifest| parent(&manifest.spec));
    started.into_iter().chain([path.to_owned()]).collect()
}
