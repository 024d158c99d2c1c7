//! What `thinet data check` checks beyond opening a dataset: files that cannot be decoded, classes without images, unusual
//! numbers of images.

use std::path::Path;
use std::thread;

use thinet_seed::Seed;

use crate::dataset::image_len;
use crate::draw::shuffled;
use crate::open::limited;
use crate::{DataError, Dataset, DatasetSpec, Split};

/// The result of [`examine`].
pub struct Examination {
    /// The dataset.
    pub split: Split,
    /// Images that were decoded, of all there are.
    pub decoded: usize,
    /// Files that cannot be decoded and what else lies among the images of a folder, and why; each would stop a study or count against `bad-files`.
    pub damaged: Vec<String>,
    /// What makes a study pointless, such as images of one class only.
    pub problems: Vec<String>,
    /// What is allowed but unusual, such as another number of images than the official one.
    pub unusual: Vec<String>,
}

/// Opens a dataset as a study would, then decodes `most` of its images (a fixed random sample; `None`: all of them)
/// on all cores. An image folder that a study would hold in memory is always decoded completely, as the study does.
///
/// # Errors
/// As [`open`](crate::open), and if a file cannot be read. Damaged images are listed and are not an error.
pub fn examine(spec: &DatasetSpec, folder: &Path, most: Option<usize>) -> Result<Examination, DataError> {
    spec.check()?;
    // Decoding into memory would stop at the first damaged image.
    let (split, mut damaged) = spec.keys().read_what_is_usable(folder)?;
    let split = limited(split, spec)?;
    let most = if spec.keys().is_held_in_memory(&split) { None } else { most };
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
    let problems = problems(&split);
    let mut decoded = 0;
    for set in [&split.train, &split.test] {
        if set.is_decoded_each_time() {
            let mut order = shuffled(set.len(), Seed::root(0).child("examine"));
            order.truncate(most.map_or(usize::MAX, |most| most.div_ceil(2)));
            decoded += order.len();
            damaged.extend(undecodable(&**set, &order)?);
        }
    }
    Ok(Examination { split, decoded, damaged, problems, unusual })
}

/// What makes a study on these images pointless.
#[must_use]
pub fn problems(split: &Split) -> Vec<String> {
    let parts = [(&split.train, "training"), (&split.test, "test")];
    parts.into_iter().filter_map(|(set, name)| empty_classes(&**set, name)).collect()
}

/// Classes without images, if there are any; with a single class any net is always right.
fn empty_classes(set: &dyn Dataset, name: &str) -> Option<String> {
    let mut counts = vec![0_usize; set.classes()];
    for image in 0..set.len() {
        counts[set.label(image)] += 1;
    }
    let empty: Vec<String> =
        (0..counts.len()).filter(|class| counts[*class] == 0).map(|class| class.to_string()).collect();
    match counts.len() - empty.len() {
        0 => Some(format!("there is no {name} image")),
        1 => Some(format!("all {} {name} images are of one class", set.len())),
        _ if empty.is_empty() => None,
        _ => Some(format!(
            "no {name} image of {} of {} classes: {}",
            empty.len(),
            counts.len(),
            empty.join(", ")
        )),
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MemoryDataset;

    #[test]
    fn classes_without_images_are_counted_and_listed() {
        let says = |labels: &[usize], classes: usize| {
            let set = MemoryDataset::new("set", classes, [1, 1, 1], vec![0; labels.len()], labels.to_vec());
            empty_classes(&set.unwrap(), "test")
        };
        assert_eq!(says(&[0, 2, 1], 3), None);
        assert_eq!(says(&[4, 1, 1], 5).unwrap(), "no test image of 3 of 5 classes: 0, 2, 3");
        assert_eq!(says(&[1, 1], 3).unwrap(), "all 2 test images are of one class");
        assert_eq!(says(&[], 3).unwrap(), "there is no test image");
    }
}
