//! Getting a dataset's files.
use std::path::Path;
use crate::{DataError, DatasetSpec};

/// Gets the files of a dataset into `folder`, telling `report` what it does.
///
/// # Errors
/// Says what was tried and how to get it by hand.
pub fn fetch(spec: &DatasetSpec, folder: &Path, report: &mut dyn FnMut(&str)) -> Result<(), DataError> {
    let _ = (spec, folder, report);
    todo!()
}
