//! Fashion-MNIST (Xiao, Rasul and Vollgraf 2017): four idx files, checked against the published contents.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::idx::IdxFile;
use crate::kind::{DatasetKeys, Key, Origin, Sizing, TEST_LIMIT, TRAIN_LIMIT, VALIDATION};
use crate::spec::{Limits, Normalisation};
use crate::{DataError, MemoryDataset, Split};

mod fetch;

const NAME: &str = "Fashion-MNIST";
const CLASSES: usize = 10;

/// Fashion-MNIST: 60,000 + 10,000 grey images of 28×28, 10 classes (Xiao et al. 2017).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct FashionMnistSpec(pub Limits);

impl DatasetKeys for FashionMnistSpec {
    fn about() -> &'static str {
        "60,000 + 10,000 grey 28×28 images, 10 classes; `thinet data fetch` gets it"
    }

    fn keys() -> &'static [Key] {
        &[TRAIN_LIMIT, TEST_LIMIT, VALIDATION]
    }

    fn by_name() -> Option<Self> {
        Some(Self::default())
    }

    fn folder(&self) -> &'static str {
        "fashion-mnist"
    }

    fn name(&self) -> &str {
        NAME
    }

    fn shape(&self) -> [usize; 3] {
        [1, 28, 28]
    }

    fn classes(&self) -> Option<usize> {
        Some(CLASSES)
    }

    fn official_images(&self) -> Option<[usize; 2]> {
        Some([60_000, 10_000])
    }

    fn normalisation(&self) -> Normalisation {
        Normalisation::of(&[0.2860], &[0.3530])
    }

    fn limits(&self) -> Limits {
        self.0
    }

    fn sizing(&self) -> Sizing {
        Sizing::Stored
    }

    fn origin(&self, _folder: &Path) -> Origin {
        Origin::Fetched(fetch::fetch)
    }

    fn read(&self, folder: &Path) -> Result<Split, DataError> {
        open(folder)
    }
}

/// Where Debian's package `dataset-fashion-mnist` puts the files.
const INSTALLED: &str = "/usr/share/datasets/fashion-mnist";

/// The published files: training images and labels, test images and labels.
fn files() -> [IdxFile; 4] {
    let file = |stem, header: &[u32], sha256: &str| IdxFile {
        stem,
        header: header.to_vec(),
        sha256: sha256.to_owned(),
    };
    [
        file(
            "train-images-idx3-ubyte",
            &[0x803, 60_000, 28, 28],
            "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        ),
        file(
            "train-labels-idx1-ubyte",
            &[0x801, 60_000],
            "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
        ),
        file(
            "t10k-images-idx3-ubyte",
            &[0x803, 10_000, 28, 28],
            "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        ),
        file(
            "t10k-labels-idx1-ubyte",
            &[0x801, 10_000],
            "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
        ),
    ]
}

/// Reads the files in `folder`, or those of the installed package if the folder has none of them. Checksums ensure that
/// both are the same.
fn open(folder: &Path) -> Result<Split, DataError> {
    let files = files();
    read(&located(folder, Path::new(INSTALLED), &files), &files)
}

fn located(folder: &Path, installed: &Path, files: &[IdxFile]) -> PathBuf {
    let here = files.iter().any(|file| file.find(folder).is_some());
    if here || !installed.is_dir() { folder.to_owned() } else { installed.to_owned() }
}

fn read(
    folder: &Path,
    [train_images, train_labels, test_images, test_labels]: &[IdxFile; 4],
) -> Result<Split, DataError> {
    let train = Arc::new(read_set(folder, train_images, train_labels)?);
    Ok(Split::new(train, Arc::new(read_set(folder, test_images, test_labels)?)))
}

fn read_set(folder: &Path, images: &IdxFile, labels: &IdxFile) -> Result<MemoryDataset, DataError> {
    let (images_path, labels_path) = (found(folder, images)?, found(folder, labels)?);
    let shape = [1, images.header[2] as usize, images.header[3] as usize];
    let pixels = images.read(&images_path)?;
    let labels: Vec<usize> = labels.read(&labels_path)?.into_iter().map(usize::from).collect();
    if let Some((record, &label)) = labels.iter().enumerate().find(|(_, label)| **label >= CLASSES) {
        return Err(DataError::Label { path: labels_path, record, label, classes: CLASSES });
    }
    MemoryDataset::new(NAME, CLASSES, shape, pixels, labels)
}

fn found(folder: &Path, file: &IdxFile) -> Result<PathBuf, DataError> {
    file.find(folder).ok_or_else(|| {
        let (path, hint) = if folder.is_dir() {
            (folder.join(file.gz_name()), "a folder with Fashion-MNIST holds four idx files, gzipped or not")
        } else {
            (folder.to_owned(), "this folder should hold the four idx files of Fashion-MNIST")
        };
        DataError::Missing { path, hint: format!("{hint} ({}, …)", file.gz_name()) }
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use std::fs;

    use super::*;
    use crate::idx::tests::{example, gzipped};

    /// Four small files of the same layout: 4 training and 2 test images of 2×3.
    pub(crate) fn examples(labels: [u8; 4]) -> ([IdxFile; 4], [Vec<u8>; 4]) {
        let pixels: Vec<u8> = (0..24).collect();
        let made = [
            example("train-images-idx3-ubyte", &[0x803, 4, 2, 3], &pixels),
            example("train-labels-idx1-ubyte", &[0x801, 4], &labels),
            example("t10k-images-idx3-ubyte", &[0x803, 2, 2, 3], &pixels[12..]),
            example("t10k-labels-idx1-ubyte", &[0x801, 2], &labels[2..]),
        ];
        let contents = made.each_ref().map(|(_, contents)| contents.clone());
        (made.map(|(file, _)| file), contents)
    }

    pub(crate) fn assert_reads(folder: &Path, files: &[IdxFile; 4]) {
        assert_eq!(read(folder, files).unwrap().train.len(), 4);
    }

    /// The same files, read.
    pub(crate) fn example_split(labels: [u8; 4]) -> Split {
        let (folder, files) = written(labels);
        read(folder.path(), &files).unwrap()
    }

    fn written(labels: [u8; 4]) -> (tempfile::TempDir, [IdxFile; 4]) {
        let (files, contents) = examples(labels);
        let folder = tempfile::tempdir().unwrap();
        for (file, contents) in files.iter().zip(&contents) {
            fs::write(folder.path().join(file.gz_name()), gzipped(contents)).unwrap();
        }
        (folder, files)
    }

    #[test]
    fn images_and_labels_are_read() {
        let (folder, files) = written([9, 0, 1, 2]);
        let split = read(folder.path(), &files).unwrap();
        let mut out = [0; 6];
        split.train.read(1, &mut out).unwrap();
        assert_eq!(out, [6, 7, 8, 9, 10, 11]);
        split.test.read(0, &mut out).unwrap();
        assert_eq!(out, [12, 13, 14, 15, 16, 17]);
        assert_eq!((split.train.len(), split.train.label(0), split.train.shape()), (4, 9, [1, 2, 3]));
        assert_eq!((split.test.len(), split.test.label(1)), (2, 2));
    }

    #[test]
    fn a_wrong_label_and_missing_files_are_errors() {
        let (folder, files) = written([0, 10, 1, 2]);
        let says = |error: DataError| error.to_string().replace(&folder.path().display().to_string(), "DIR");
        let label = read(folder.path(), &files).err().unwrap();
        assert_eq!(
            says(label),
            "DIR/train-labels-idx1-ubyte.gz: record 1 has label 10, the classes are 0..10"
        );
        fs::remove_file(folder.path().join("train-labels-idx1-ubyte.gz")).unwrap();
        let missing = says(read(folder.path(), &files).err().unwrap());
        assert!(missing.starts_with("DIR/train-labels-idx1-ubyte.gz: not found; "), "{missing}");
        let nowhere = says(read(&folder.path().join("no"), &files).err().unwrap());
        assert!(nowhere.starts_with("DIR/no: not found; "), "{nowhere}");
    }

    #[test]
    fn a_folder_with_any_of_the_files_comes_before_the_installed_package() {
        let (folder, files) = written([0, 1, 2, 3]);
        let (installed, _) = written([0, 1, 2, 3]);
        let empty = tempfile::tempdir().unwrap();
        assert_eq!(located(folder.path(), installed.path(), &files), folder.path());
        assert_eq!(located(empty.path(), installed.path(), &files), installed.path());
        assert_eq!(located(empty.path(), &empty.path().join("no"), &files), empty.path());
        fs::remove_file(folder.path().join("t10k-images-idx3-ubyte.gz")).unwrap();
        assert_eq!(located(folder.path(), installed.path(), &files), folder.path());
    }

    #[test]
    fn a_small_file_under_the_right_name_is_not_fashion_mnist() {
        let (folder, _) = written([0, 1, 2, 3]);
        let error = open(folder.path()).err().unwrap().to_string();
        assert!(error.ends_with("train-images-idx3-ubyte.gz: expected 47040016 bytes, found 40"), "{error}");
    }
}
