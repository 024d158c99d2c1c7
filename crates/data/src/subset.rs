//! Part of a dataset, by indices.

use std::path::Path;
use std::sync::Arc;

use thinet_seed::Seed;

use crate::{DataError, Dataset};

/// The images of another dataset at the given indices, in that order.
#[derive(Clone)]
pub struct Subset {
    whole: Arc<dyn Dataset>,
    indices: Vec<usize>,
    fingerprint: String,
}

impl Subset {
    /// The images of `whole` at `indices`, which may repeat.
    ///
    /// # Errors
    /// If an index is out of range.
    pub fn new(whole: Arc<dyn Dataset>, indices: Vec<usize>) -> Result<Self, DataError> {
        if let Some(&index) = indices.iter().find(|index| **index >= whole.len()) {
            return Err(DataError::Index { dataset: whole.name().to_owned(), index, len: whole.len() });
        }
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"thinet subset v1").update(whole.fingerprint().as_bytes());
        for index in &indices {
            hasher.update(&(*index as u64).to_le_bytes());
        }
        let fingerprint = hasher.finalize().to_hex().to_string();
        Ok(Self { whole, indices, fingerprint })
    }

    fn inner(&self, index: usize) -> Result<usize, DataError> {
        let inner = self.indices.get(index).copied();
        inner.ok_or_else(|| DataError::Index { dataset: self.name().to_owned(), index, len: self.len() })
    }
}

impl Dataset for Subset {
    fn name(&self) -> &str {
        self.whole.name()
    }

    fn classes(&self) -> usize {
        self.whole.classes()
    }

    fn len(&self) -> usize {
        self.indices.len()
    }

    fn shape(&self) -> [usize; 3] {
        self.whole.shape()
    }

    fn label(&self, index: usize) -> usize {
        self.whole.label(self.indices[index])
    }

    fn read(&self, index: usize, out: &mut [u8]) -> Result<(), DataError> {
        self.whole.read(self.inner(index)?, out)
    }

    fn has_random_crop(&self) -> bool {
        self.whole.has_random_crop()
    }

    fn read_random_crop(&self, index: usize, seed: Seed, out: &mut [u8]) -> Result<(), DataError> {
        self.whole.read_random_crop(self.inner(index)?, seed, out)
    }

    fn is_decoded_each_time(&self) -> bool {
        self.whole.is_decoded_each_time()
    }

    fn prepared_file(&self) -> Option<&Path> {
        self.whole.prepared_file()
    }

    fn left_out(&self) -> Vec<String> {
        self.whole.left_out()
    }

    fn fingerprint(&self) -> &str {
        &self.fingerprint
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MemoryDataset;

    #[test]
    fn a_subset_reads_the_images_of_the_whole_and_has_its_own_fingerprint() {
        let whole = MemoryDataset::new("w", 3, [1, 1, 2], (0..8).collect(), vec![0, 1, 2, 0]).unwrap();
        let whole: Arc<dyn Dataset> = Arc::new(whole);
        let part = Subset::new(whole.clone(), vec![3, 1]).unwrap();
        let mut out = [0; 2];
        part.read(0, &mut out).unwrap();
        assert_eq!((out, part.label(0), part.label(1), part.len()), ([6, 7], 0, 1, 2));
        assert!(matches!(part.read(2, &mut out), Err(DataError::Index { index: 2, len: 2, .. })));
        assert_ne!(part.fingerprint(), whole.fingerprint());
        assert_ne!(part.fingerprint(), Subset::new(whole.clone(), vec![1, 3]).unwrap().fingerprint());
        assert!(matches!(Subset::new(whole, vec![0, 4]), Err(DataError::Index { index: 4, len: 4, .. })));
    }

    /// Differs from the default of every method, so that each answer must come from the whole.
    struct Odd;

    impl Dataset for Odd {
        fn name(&self) -> &str {
            "odd"
        }

        fn classes(&self) -> usize {
            7
        }

        fn len(&self) -> usize {
            5
        }

        fn shape(&self) -> [usize; 3] {
            [2, 3, 4]
        }

        fn label(&self, index: usize) -> usize {
            index + 1
        }

        fn read(&self, index: usize, out: &mut [u8]) -> Result<(), DataError> {
            out[0] = index as u8;
            Ok(())
        }

        fn has_random_crop(&self) -> bool {
            true
        }

        fn read_random_crop(&self, index: usize, seed: Seed, out: &mut [u8]) -> Result<(), DataError> {
            assert_eq!(seed, Seed::root(9));
            out[0] = 100 + index as u8;
            Ok(())
        }

        fn is_decoded_each_time(&self) -> bool {
            true
        }

        fn prepared_file(&self) -> Option<&Path> {
            Some(Path::new("a.pixels"))
        }

        fn left_out(&self) -> Vec<String> {
            vec!["a.jpg: damaged".to_owned()]
        }

        fn fingerprint(&self) -> &str {
            "f"
        }
    }

    #[test]
    fn a_subset_answers_as_the_whole_does() {
        let part = Subset::new(Arc::new(Odd), vec![4, 2]).unwrap();
        assert_eq!((part.name(), part.classes(), part.shape(), part.len()), ("odd", 7, [2, 3, 4], 2));
        assert!(part.has_random_crop() && part.is_decoded_each_time() && !part.is_empty());
        assert_eq!(part.left_out(), ["a.jpg: damaged"]);
        assert_eq!(part.prepared_file(), Some(Path::new("a.pixels")));
        let mut out = [0];
        part.read(1, &mut out).unwrap();
        assert_eq!(out, [2]);
        part.read_random_crop(0, Seed::root(9), &mut out).unwrap();
        assert_eq!(out, [104]);
        let beyond = part.read_random_crop(2, Seed::root(9), &mut out);
        assert!(matches!(beyond, Err(DataError::Index { index: 2, len: 2, .. })));
        assert!(Subset::new(Arc::new(Odd), vec![]).unwrap().is_empty());
    }

    #[test]
    fn a_dataset_in_memory_has_no_crop_of_its_own_and_leaves_nothing_out() {
        let whole = MemoryDataset::new("w", 1, [1, 1, 2], vec![0; 2], vec![0]).unwrap();
        let part = Subset::new(Arc::new(whole), vec![0]).unwrap();
        assert!(!part.has_random_crop() && !part.is_decoded_each_time() && part.left_out().is_empty());
        let error = part.read_random_crop(0, Seed::root(0), &mut [0; 2]).unwrap_err().to_string();
        assert_eq!(error, "key \"random-crop\": w has no random crop of its own; use crop-padding");
    }
}
