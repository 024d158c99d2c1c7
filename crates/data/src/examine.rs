//! What `thinet data check` finds out beyond opening a dataset: files that cannot be decoded, unusual counts.

use std::path::Path;
use std::thread;

use thinet_seed::Seed;

use crate::dataset::image_len;
use crate::draw::shuffled;
use crate::{DataError, Dataset, DatasetSpec, Split, open};

/// What a look at a dataset has shown.
pub struct Examination {
    /// The dataset.
    pub split: Split,
    /// Images that were decoded, of all there are.
    pub decoded: usize,
    /// Files that cannot be decoded, and why; each would stop a study or count against `bad-files`.
    pub damaged: Vec<String>,
    /// What is allowed and unusual, such as another number of images than the official one.
    pub unusual: Vec<String>,
}

/// Opens a dataset as a study would, then decodes `most` of its images (drawn once and for all; `None`: all of them)
/// on all cores.
///
/// # Errors
/// As [`open`]; damaged images are no error but listed.
pub fn examine(spec: &DatasetSpec, folder: &Path, most: Option<usize>) -> Result<Examination, DataError> {
    let split = open(spec, folder)?;
    let mut unusual = Vec::new();
    if let Some(official) = spec.images() {
        for (set, name, official) in
            [(&split.train, "training", official[0]), (&split.test, "test", official[1])]
        {
            if set.len() != official {
                unusual.push(format!("{} {name} images, officially {official}", set.len()));
            }
        }
    }
    let (mut decoded, mut damaged) = (0, Vec::new());
    for set in [&split.train, &split.test] {
        if set.is_decoded_each_time() {
            let mut order = shuffled(set.len(), Seed::root(0).child("examine"));
            order.truncate(most.map_or(usize::MAX, |most| most.div_ceil(2)));
            decoded += order.len();
            damaged.extend(undecodable(&**set, &order)?);
        }
    }
    Ok(Examination { split, decoded, damaged, unusual })
}

/// The errors of the images that cannot be decoded, in the set's order.
fn undecodable(set: &dyn Dataset, order: &[usize]) -> Result<Vec<String>, DataError> {
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let parts: Vec<Result<Vec<(usize, String)>, DataError>> = thread::scope(|scope| {
        let read = |part: &[usize]| {
            let mut out = vec![0; image_len(set.shape())];
            let mut found = Vec::new();
            for &index in part {
                match set.read(index, &mut out) {
                    Ok(()) => {}
                    Err(
                        DataError::Decode { path, problem }
                        | DataError::LeftOut { path, problem }
                        | DataError::TooManyDamaged { path, problem, .. },
                    ) => {
                        found.push((index, format!("{}: {problem}", path.display())));
                    }
                    Err(error) => return Err(error),
                }
            }
            Ok(found)
        };
        let chunks = order.chunks(order.len().div_ceil(threads).max(1));
        let handles: Vec<_> = chunks.map(|chunk| scope.spawn(move || read(chunk))).collect();
        handles
            .into_iter()
            .map(|handle| handle.join().unwrap_or_else(|p| std::panic::resume_unwind(p)))
            .collect()
    });
    let mut found: Vec<(usize, String)> = Vec::new();
    for part in parts {
        found.extend(part?);
    }
    found.sort_unstable();
    Ok(found.into_iter().map(|(_, text)| text).collect())
}
