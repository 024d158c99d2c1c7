//! Opening the dataset of a spec: reading it, holding images out, its limits on the number of images, and decoding it into memory.

use std::path::Path;
use std::sync::Arc;
use std::thread;

use crate::dataset::image_len;
use crate::limit::{class_balanced_prefix, without_suffix};
use crate::prepared::Place;
use crate::{DataError, Dataset, DatasetSpec, MemoryDataset, Split, Subset};

/// Opens the dataset in `folder`: everything is read and checked (image folder: listed, and decoded when cached).
///
/// # Errors
/// Names the file or key: a missing, empty, truncated or altered file, a label out of range, an image that cannot be
/// decoded, a limit larger than the set or without one image of each class.
pub fn open(spec: &DatasetSpec, folder: &Path) -> Result<Split, DataError> {
    open_with(spec, folder, None)
}

/// As [`open`]. Photographs are read from files that [`prepare`](crate::prepare) made, where there are any in the folder
/// `prepared`, by default `prepared` in the dataset's folder; the values that are read are the same to the bit.
///
/// # Errors
/// As [`open`], and if a prepared file is damaged, or was made from other images or by another version.
pub fn open_with(spec: &DatasetSpec, folder: &Path, prepared: Option<&Path>) -> Result<Split, DataError> {
    spec.check()?;
    let split = match spec.keys().photos(folder)? {
        Some(sets) => Place::new(spec, folder, prepared).attached(sets)?.into_split(),
        None => spec.keys().read(folder)?,
    };
    let split = limited(split, spec)?;
    // Limits come first: only what is used is decoded.
    if spec.keys().is_held_in_memory(&split) { in_memory(&split) } else { Ok(split) }
}

/// The images that a spec's held-out images and limits leave.
pub(crate) fn limited(split: Split, spec: &DatasetSpec) -> Result<Split, DataError> {
    let limits = spec.limits();
    let train = |dataset| {
        let rest = chosen(dataset, "validation", limits.validation, without_suffix)?;
        chosen(rest, "train-limit", limits.train_limit, class_balanced_prefix)
    };
    Ok(Split {
        train: train(split.train)?,
        calibration: train(split.calibration)?,
        test: chosen(split.test, "test-limit", limits.test_limit, class_balanced_prefix)?,
    })
}

/// Indices from labels, the number of classes and the value of a key, or what is wrong with the value.
type Choice = fn(&[usize], usize, usize) -> Result<Vec<usize>, String>;

/// The images that `choice` takes; all of them if the key is absent.
fn chosen(
    dataset: Arc<dyn Dataset>,
    key: &'static str,
    count: Option<usize>,
    choice: Choice,
) -> Result<Arc<dyn Dataset>, DataError> {
    let Some(count) = count else { return Ok(dataset) };
    let labels: Vec<usize> = (0..dataset.len()).map(|index| dataset.label(index)).collect();
    let indices = choice(&labels, dataset.classes(), count)
        .map_err(|problem| DataError::Value { key, problem: format!("{problem} ({})", dataset.name()) })?;
    Ok(Arc::new(Subset::new(dataset, indices)?))
}

/// The same split with its images decoded and in memory.
fn in_memory(split: &Split) -> Result<Split, DataError> {
    let decoded = |dataset: &dyn Dataset| -> Result<Arc<dyn Dataset>, DataError> {
        Ok(Arc::new(MemoryDataset::copy_of(dataset, read_all(dataset)?)))
    };
    Ok(Split::new(decoded(&*split.train)?, decoded(&*split.test)?))
}

/// All images one after the other, read by as many threads as there are cores; of several errors, the first image's.
fn read_all(dataset: &dyn Dataset) -> Result<Vec<u8>, DataError> {
    let len = image_len(dataset.shape());
    let bytes = dataset.len() * len;
    let mut pixels = Vec::new();
    pixels.try_reserve_exact(bytes).map_err(|error| DataError::Value {
        key: "cache",
        problem: format!("the {} images of {} do not fit in memory: {error}", dataset.len(), dataset.name()),
    })?;
    pixels.resize(bytes, 0);
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let each = dataset.len().div_ceil(threads).max(1);
    let outcomes: Vec<Result<(), DataError>> = thread::scope(|scope| {
        let read_part = |(part, chunk): (usize, &'_ mut [u8])| {
            let mut images = chunk.chunks_exact_mut(len).enumerate();
            images.try_for_each(|(i, out)| dataset.read(part * each + i, out))
        };
        let parts = pixels.chunks_mut(each * len).enumerate();
        let handles: Vec<_> = parts.map(|part| scope.spawn(move || read_part(part))).collect();
        handles
            .into_iter()
            .map(|handle| handle.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    });
    outcomes.into_iter().collect::<Result<(), DataError>>()?;
    Ok(pixels)
}
