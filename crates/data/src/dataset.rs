//! The [`Dataset`] trait, a set held in memory, and the pair of a training and a test set.

use std::path::Path;
use std::sync::Arc;

use thinet_seed::Seed;

use crate::DataError;

/// Version of how a set in memory is read. It is part of the fingerprint and so of ids: raise it when the values that are
/// read change, and say so in the CHANGELOG.
pub(crate) const VERSION: &str = "thinet dataset v1";

/// Labelled images of one shape, read by index.
pub trait Dataset: Send + Sync {
    /// The name for tables, e.g. "Fashion-MNIST".
    fn name(&self) -> &str;
    /// The number of classes; labels are `0..classes`.
    fn classes(&self) -> usize;
    /// The number of images.
    fn len(&self) -> usize;
    /// Whether the set is empty.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Channels, height and width of every image.
    fn shape(&self) -> [usize; 3];
    /// The label of image `index`. Panics when `index` is not below [`len`](Self::len), as indexing does.
    fn label(&self, index: usize) -> usize;
    /// Writes image `index` to `out`: c·h·w bytes, planar (CHW), one byte a value.
    ///
    /// # Errors
    /// If the index is out of range, `out` has another size, or the image cannot be read or decoded.
    fn read(&self, index: usize, out: &mut [u8]) -> Result<(), DataError>;
    /// Whether the dataset has its own random crop: photographs are cropped before they get their final size.
    fn has_random_crop(&self) -> bool {
        false
    }
    /// Writes a random crop of image `index`, drawn from `seed` alone, to `out`, as [`read`](Self::read) does.
    ///
    /// # Errors
    /// As [`read`](Self::read), or when the dataset has no random crop.
    fn read_random_crop(&self, index: usize, seed: Seed, out: &mut [u8]) -> Result<(), DataError> {
        let _ = (index, seed, out);
        Err(no_random_crop(self.name()))
    }
    /// Whether reading an image decodes a file each time, so that keeping the result saves work.
    fn is_decoded_each_time(&self) -> bool {
        false
    }
    /// The file that images are read from because `thinet data prepare` decoded them; `None` if there is no such file.
    fn prepared_file(&self) -> Option<&Path> {
        None
    }
    /// Files that could not be decoded so far, and why.
    fn left_out(&self) -> Vec<String> {
        Vec::new()
    }
    /// Identifies the contents (of files: names, sizes and how they are decoded).
    fn fingerprint(&self) -> &str;
}

/// The error of a dataset that is asked for a random crop and has none.
pub(crate) fn no_random_crop(dataset: &str) -> DataError {
    let problem = format!("{dataset} has no random crop of its own; use crop-padding");
    DataError::Value { key: "random-crop", problem }
}

/// A training and a test set with the same classes and shape.
#[derive(Clone)]
pub struct Split {
    /// The training images.
    pub train: Arc<dyn Dataset>,
    /// The training images as a selector sees them, which may be prepared in another way.
    pub calibration: Arc<dyn Dataset>,
    /// The test images.
    pub test: Arc<dyn Dataset>,
}

impl Split {
    /// The files of prepared images that are read, each once.
    #[must_use]
    pub fn prepared_files(&self) -> Vec<&Path> {
        let mut files: Vec<&Path> = Vec::new();
        for file in
            [&self.train, &self.calibration, &self.test].into_iter().filter_map(|set| set.prepared_file())
        {
            if !files.contains(&file) {
                files.push(file);
            }
        }
        files
    }

    /// A split whose selectors see the training images as they are.
    pub(crate) fn new(train: Arc<dyn Dataset>, test: Arc<dyn Dataset>) -> Self {
        Self { calibration: Arc::clone(&train), train, test }
    }
}

/// Bytes of one image.
pub(crate) fn image_len([channels, height, width]: [usize; 3]) -> usize {
    channels * height * width
}

/// Checks that an index and a buffer fit the dataset.
pub(crate) fn check_read(dataset: &dyn Dataset, index: usize, out: &[u8]) -> Result<(), DataError> {
    if index >= dataset.len() {
        return Err(DataError::Index { dataset: dataset.name().to_owned(), index, len: dataset.len() });
    }
    let expected = image_len(dataset.shape());
    if out.len() != expected {
        return Err(DataError::Buffer { dataset: dataset.name().to_owned(), expected, found: out.len() });
    }
    Ok(())
}

/// A dataset whose images are bytes in memory.
#[derive(Clone, Debug)]
pub struct MemoryDataset {
    name: String,
    classes: usize,
    shape: [usize; 3],
    pixels: Vec<u8>,
    labels: Vec<usize>,
    fingerprint: String,
}

impl MemoryDataset {
    /// A set of `labels.len()` images; `pixels: [n, c, h, w]`, row-major.
    ///
    /// # Errors
    /// If the length of `pixels` does not fit the labels and the shape, or a label is not below `classes`.
    pub fn new(
        name: impl Into<String>,
        classes: usize,
        shape: [usize; 3],
        pixels: Vec<u8>,
        labels: Vec<usize>,
    ) -> Result<Self, DataError> {
        let expected = labels.len() * image_len(shape);
        if pixels.len() != expected {
            let problem =
                format!("{} images of {shape:?} are {expected} bytes, found {}", labels.len(), pixels.len());
            return Err(DataError::Value { key: "pixels", problem });
        }
        if let Some((record, label)) = labels.iter().enumerate().find(|(_, label)| **label >= classes) {
            let problem = format!("image {record} has label {label}, the classes are 0..{classes}");
            return Err(DataError::Value { key: "labels", problem });
        }
        let fingerprint = contents_fingerprint(classes, shape, &pixels, &labels);
        Ok(Self { name: name.into(), classes, shape, pixels, labels, fingerprint })
    }

    /// A copy in memory with the same fingerprint; `pixels` are its images in order.
    pub(crate) fn copy_of(dataset: &dyn Dataset, pixels: Vec<u8>) -> Self {
        Self {
            name: dataset.name().to_owned(),
            classes: dataset.classes(),
            shape: dataset.shape(),
            pixels,
            labels: (0..dataset.len()).map(|index| dataset.label(index)).collect(),
            fingerprint: dataset.fingerprint().to_owned(),
        }
    }
}

fn contents_fingerprint(classes: usize, shape: [usize; 3], pixels: &[u8], labels: &[usize]) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(VERSION.as_bytes());
    for number in [classes, shape[0], shape[1], shape[2]].iter().chain(labels) {
        hasher.update(&(*number as u64).to_le_bytes());
    }
    hasher.update(pixels).finalize().to_hex().to_string()
}

impl Dataset for MemoryDataset {
    fn name(&self) -> &str {
        &self.name
    }

    fn classes(&self) -> usize {
        self.classes
    }

    fn len(&self) -> usize {
        self.labels.len()
    }

    fn shape(&self) -> [usize; 3] {
        self.shape
    }

    fn label(&self, index: usize) -> usize {
        self.labels[index]
    }

    fn read(&self, index: usize, out: &mut [u8]) -> Result<(), DataError> {
        check_read(self, index, out)?;
        out.copy_from_slice(&self.pixels[index * out.len()..][..out.len()]);
        Ok(())
    }

    fn fingerprint(&self) -> &str {
        &self.fingerprint
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn small() -> MemoryDataset {
        MemoryDataset::new("small", 3, [1, 2, 2], (0..12).collect(), vec![2, 0, 1]).unwrap()
    }

    #[test]
    fn images_come_back_by_index() {
        let set = small();
        let mut out = [0; 4];
        set.read(1, &mut out).unwrap();
        assert_eq!(out, [4, 5, 6, 7]);
        assert_eq!((set.len(), set.label(0), set.is_empty()), (3, 2, false));
    }

    #[test]
    fn wrong_indices_buffers_labels_and_sizes_are_errors() {
        let set = small();
        assert!(matches!(set.read(3, &mut [0; 4]), Err(DataError::Index { index: 3, len: 3, .. })));
        assert!(matches!(set.read(0, &mut [0; 5]), Err(DataError::Buffer { expected: 4, found: 5, .. })));
        let pixels = MemoryDataset::new("x", 2, [1, 1, 2], vec![0; 3], vec![0, 1]).unwrap_err();
        assert_eq!(pixels.to_string(), "key \"pixels\": 2 images of [1, 1, 2] are 4 bytes, found 3");
        let label = MemoryDataset::new("x", 2, [1, 1, 1], vec![0; 2], vec![0, 2]).unwrap_err();
        assert_eq!(label.to_string(), "key \"labels\": image 1 has label 2, the classes are 0..2");
    }

    #[test]
    fn the_fingerprint_follows_pixels_labels_shape_and_classes_but_not_the_name() {
        let make = |name: &str, classes, shape, pixel, label| {
            let set = MemoryDataset::new(name, classes, shape, vec![pixel, 0, 0, 0], vec![label]).unwrap();
            set.fingerprint().to_owned()
        };
        let base = make("a", 2, [1, 2, 2], 0, 0);
        assert_eq!(base, make("b", 2, [1, 2, 2], 0, 0));
        for other in [
            make("a", 3, [1, 2, 2], 0, 0),
            make("a", 2, [1, 1, 4], 0, 0),
            make("a", 2, [1, 2, 2], 1, 0),
            make("a", 2, [1, 2, 2], 0, 1),
        ] {
            assert_ne!(base, other);
        }
    }
}
