//! CIFAR-10 and CIFAR-100 in their official binary format (Krizhevsky 2009): records of one or two label bytes and
//! 3,072 pixel bytes, planar RGB.

use std::path::Path;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::addresses;
use crate::archive::Archive;
use crate::dataset::image_len;
use crate::files;
use crate::kind::{DatasetKeys, Key, Origin, Sizing, TEST_LIMIT, TRAIN_LIMIT, VALIDATION};
use crate::spec::{Limits, Normalisation};
use crate::{DataError, MemoryDataset, Split};

const SHAPE: [usize; 3] = [3, 32, 32];

/// CIFAR-10 in its official binary format: 50,000 + 10,000 RGB images of 32×32 (Krizhevsky 2009).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Cifar10Spec(pub Limits);

/// CIFAR-100 in its official binary format, fine labels: 50,000 + 10,000 RGB images of 32×32.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Cifar100Spec(pub Limits);

/// Published facts about one of the two sets.
pub(crate) struct Cifar {
    name: &'static str,
    classes: usize,
    archive: Archive,
    /// Mean and standard deviation of R, G and B on the scale 0–1.
    mean: [f32; 3],
    std: [f32; 3],
    train: Part,
    test: Part,
    /// Label bytes of a record; the last one is used (CIFAR-100: coarse, then fine).
    label_bytes: usize,
}

struct Part {
    files: &'static [&'static str],
    records_per_file: usize,
}

impl Part {
    fn images(&self) -> usize {
        self.files.len() * self.records_per_file
    }
}

/// Training, then test.
const CIFAR10_FILES: &[&str] = &[
    "data_batch_1.bin",
    "data_batch_2.bin",
    "data_batch_3.bin",
    "data_batch_4.bin",
    "data_batch_5.bin",
    "test_batch.bin",
];

pub(crate) const CIFAR10: Cifar = Cifar {
    name: "CIFAR-10",
    classes: 10,
    archive: Archive {
        address: addresses::CIFAR10,
        md5: addresses::CIFAR10_MD5,
        folder: "cifar-10-batches-bin",
        files: CIFAR10_FILES,
    },
    mean: [0.4914, 0.4822, 0.4465],
    std: [0.2470, 0.2435, 0.2616],
    train: Part { files: CIFAR10_FILES.split_at(5).0, records_per_file: 10_000 },
    test: Part { files: CIFAR10_FILES.split_at(5).1, records_per_file: 10_000 },
    label_bytes: 1,
};

const CIFAR100: Cifar = Cifar {
    name: "CIFAR-100",
    classes: 100,
    archive: Archive {
        address: addresses::CIFAR100,
        md5: addresses::CIFAR100_MD5,
        folder: "cifar-100-binary",
        files: &["train.bin", "test.bin"],
    },
    mean: [0.5071, 0.4865, 0.4409],
    std: [0.2673, 0.2564, 0.2762],
    train: Part { files: &["train.bin"], records_per_file: 50_000 },
    test: Part { files: &["test.bin"], records_per_file: 10_000 },
    label_bytes: 2,
};

/// The two kinds differ only in the published facts.
macro_rules! keys_of {
    ($spec:ident: $set:ident, $about:literal) => {
        impl DatasetKeys for $spec {
            fn about() -> &'static str {
                $about
            }

            fn keys() -> &'static [Key] {
                &[TRAIN_LIMIT, TEST_LIMIT, VALIDATION]
            }

            fn by_name() -> Option<Self> {
                Some(Self::default())
            }

            fn folder(&self) -> &'static str {
                $set.archive.folder
            }

            fn name(&self) -> &str {
                $set.name
            }

            fn shape(&self) -> [usize; 3] {
                SHAPE
            }

            fn classes(&self) -> Option<usize> {
                Some($set.classes)
            }

            fn official_images(&self) -> Option<[usize; 2]> {
                Some([&$set.train, &$set.test].map(Part::images))
            }

            fn normalisation(&self) -> Normalisation {
                Normalisation::of(&$set.mean, &$set.std)
            }

            fn limits(&self) -> Limits {
                self.0
            }

            fn sizing(&self) -> Sizing {
                Sizing::Stored
            }

            fn origin(&self, _folder: &Path) -> Origin {
                Origin::Archive($set.archive)
            }

            fn read(&self, folder: &Path) -> Result<Split, DataError> {
                open(&$set, folder)
            }
        }
    };
}

keys_of!(Cifar10Spec: CIFAR10, "50,000 + 10,000 RGB 32×32 images, 10 classes, binary format; `thinet data fetch` gets it");
keys_of!(Cifar100Spec: CIFAR100, "50,000 + 10,000 RGB 32×32 images, 100 classes, binary format; `thinet data fetch` gets it");

/// Reads both sets from the folder of the archive, or from the folder that it lies in.
pub(crate) fn open(set: &Cifar, folder: &Path) -> Result<Split, DataError> {
    let folder = set.archive.place(folder);
    let train = Arc::new(read_part(set, &set.train, &folder)?);
    Ok(Split::new(train, Arc::new(read_part(set, &set.test, &folder)?)))
}

fn read_part(set: &Cifar, part: &Part, folder: &Path) -> Result<MemoryDataset, DataError> {
    let mut pixels = Vec::with_capacity(part.images() * image_len(SHAPE));
    let mut labels = Vec::with_capacity(part.images());
    for name in part.files {
        read_file(set, part.records_per_file, &folder.join(name), &mut pixels, &mut labels)?;
    }
    MemoryDataset::new(set.name, set.classes, SHAPE, pixels, labels)
}

fn read_file(
    set: &Cifar,
    records: usize,
    path: &Path,
    pixels: &mut Vec<u8>,
    labels: &mut Vec<usize>,
) -> Result<(), DataError> {
    let record_len = set.label_bytes + image_len(SHAPE);
    let hint = format!("{} consists of {} ({})", set.name, set.archive.files.join(", "), set.archive.address);
    let bytes = files::read_exactly(path, records * record_len, &hint)?;
    for (record, bytes) in bytes.chunks_exact(record_len).enumerate() {
        let (head, image) = bytes.split_at(set.label_bytes);
        let label = usize::from(head[set.label_bytes - 1]);
        if label >= set.classes {
            return Err(DataError::Label { path: path.to_owned(), record, label, classes: set.classes });
        }
        labels.push(label);
        pixels.extend_from_slice(image);
    }
    Ok(())
}

#[cfg(test)]
pub(crate) mod tests {
    use std::fs;

    use super::*;

    /// All files of a set.
    pub(crate) fn files(set: &Cifar) -> impl Iterator<Item = &'static str> {
        set.train.files.iter().chain(set.test.files).copied()
    }

    /// The same layout with `records` records in each file.
    pub(crate) fn small(set: Cifar, records: usize) -> Cifar {
        let part = |part: Part| Part { records_per_file: records, ..part };
        Cifar { train: part(set.train), test: part(set.test), ..set }
    }

    /// Two records in each file; pixel values and labels increase from file to file.
    fn write(set: &Cifar, folder: &Path) {
        fs::create_dir_all(folder).unwrap();
        for (number, name) in files(set).enumerate() {
            let record = |i: usize| {
                let mut record = vec![(2 * number + i) as u8; set.label_bytes + 3072];
                record[0] = if set.label_bytes == 1 { record[0] % 10 } else { 19 };
                record
            };
            fs::write(folder.join(name), [record(0), record(1)].concat()).unwrap();
        }
    }

    fn says(set: &Cifar, folder: &Path) -> String {
        let error = open(set, folder).err().unwrap().to_string();
        error.replace(&folder.display().to_string(), "DIR")
    }

    #[test]
    fn both_sets_are_read_from_their_folder_and_from_its_parent() {
        for (set, label, test_label) in [(small(CIFAR10, 2), 9, 0), (small(CIFAR100, 2), 1, 2)] {
            let parent = tempfile::tempdir().unwrap();
            let folder = parent.path().join(set.archive.folder);
            write(&set, &folder);
            for folder in [parent.path(), &folder] {
                let Split { train, test, .. } = open(&set, folder).unwrap();
                let last = train.len() - 1;
                assert_eq!((train.len(), test.len()), (2 * set.train.files.len(), 2));
                assert_eq!((train.label(last), test.label(0)), (label, test_label));
                let mut out = [0; 3072];
                train.read(last, &mut out).unwrap();
                assert_eq!(out, [last as u8; 3072]);
            }
        }
    }

    #[test]
    fn every_damage_names_the_file_and_what_was_expected() {
        let set = small(CIFAR10, 2);
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let nothing = says(&set, folder.path());
        assert!(nothing.starts_with("DIR/cifar-10-batches-bin/data_batch_1.bin: not found; "), "{nothing}");

        write(&set, folder.path());
        fs::write(path("data_batch_3.bin"), vec![0; 6145]).unwrap();
        assert_eq!(says(&set, folder.path()), "DIR/data_batch_3.bin: expected 6146 bytes, found 6145");
        fs::write(path("data_batch_3.bin"), []).unwrap();
        assert_eq!(says(&set, folder.path()), "DIR/data_batch_3.bin: expected 6146 bytes, found 0");
        fs::remove_file(path("data_batch_3.bin")).unwrap();
        assert!(says(&set, folder.path()).starts_with("DIR/data_batch_3.bin: not found; "));

        write(&set, folder.path());
        let mut bytes = fs::read(path("test_batch.bin")).unwrap();
        bytes[3073] = 10;
        fs::write(path("test_batch.bin"), bytes).unwrap();
        assert_eq!(
            says(&set, folder.path()),
            "DIR/test_batch.bin: record 1 has label 10, the classes are 0..10"
        );
    }

    #[test]
    fn one_class_only_is_found_by_a_check() {
        let set = small(CIFAR10, 2);
        let folder = tempfile::tempdir().unwrap();
        for name in files(&set) {
            fs::write(folder.path().join(name), [vec![7; 3073], vec![7; 3073]].concat()).unwrap();
        }
        let split = open(&set, folder.path()).unwrap();
        assert_eq!(
            crate::examine::problems(&split),
            ["all 10 training images are of one class", "all 2 test images are of one class"]
        );
        write(&set, folder.path());
        let problems = crate::examine::problems(&open(&set, folder.path()).unwrap());
        assert_eq!(problems, ["no test image of 8 of 10 classes: 2, 3, 4, 5, 6, 7, 8, 9"]);
    }

    #[test]
    fn the_published_sizes_are_asked_for() {
        for (set, name, size) in
            [(CIFAR10, "data_batch_1.bin", 30_730_000), (CIFAR100, "train.bin", 153_700_000)]
        {
            let folder = tempfile::tempdir().unwrap();
            fs::write(folder.path().join(name), [0; 3]).unwrap();
            assert_eq!(says(&set, folder.path()), format!("DIR/{name}: expected {size} bytes, found 3"));
        }
    }
}
