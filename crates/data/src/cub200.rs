//! CUB-200-2011 from its own index files: `images.txt`, `image_class_labels.txt`, `train_test_split.txt` and, if
//! present, `classes.txt` (Wah et al. 2011). They must agree line by line.

use std::collections::BTreeMap;
use std::path::Path;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::addresses;
use crate::archive::Archive;
use crate::files;
use crate::index_file::{IndexFile, number};
use crate::kind::{DatasetKeys, Key, Origin, Sizing, TEST_LIMIT, TRAIN_LIMIT, VALIDATION, key};
use crate::photos::{Listing, PhotoSets, PhotoSpec, keys};
use crate::protocol::Protocol;
use crate::spec::{Limits, Normalisation};
use crate::{DataError, Split};

const NAME: &str = "CUB-200-2011";
const CLASSES: usize = 200;
const ARCHIVE: Archive = Archive {
    address: addresses::CUB200,
    md5: addresses::CUB200_MD5,
    folder: "CUB_200_2011",
    files: &[IMAGES, LABELS, SPLIT],
};
/// The protocol of the authors' CUB-200 runs (`fine-tune-avg-vgg16`).
const PROTOCOL: Protocol = Protocol::CaffeSquash;
/// Their mean for this set, subtracted from B, G and R.
const MEAN: [f32; 3] = [110.0, 127.0, 123.0];

/// CUB-200-2011: 5,994 + 5,794 photographs of 200 birds, by its own index files (Wah et al. 2011).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Cub200Spec(pub PhotoSpec);

impl DatasetKeys for Cub200Spec {
    fn about() -> &'static str {
        "5,994 + 5,794 photographs of 200 birds, with the index files; `thinet data fetch` gets it"
    }

    fn keys() -> &'static [Key] {
        const ALL: &[Key] = &[
            key("protocol", "text", "caffe-squash", keys::PROTOCOLS),
            keys::CALIBRATION_PROTOCOL,
            keys::SIDE,
            keys::CROP,
            keys::BAD_FILES,
            keys::MAX_PIXELS,
            TRAIN_LIMIT,
            TEST_LIMIT,
            VALIDATION,
        ];
        ALL
    }

    fn by_name() -> Option<Self> {
        Some(Self::default())
    }

    fn folder(&self) -> &'static str {
        ARCHIVE.folder
    }

    fn name(&self) -> &str {
        NAME
    }

    fn shape(&self) -> [usize; 3] {
        self.0.shape()
    }

    fn classes(&self) -> Option<usize> {
        Some(CLASSES)
    }

    fn official_images(&self) -> Option<[usize; 2]> {
        Some([5_994, 5_794])
    }

    /// The protocol's; Caffe's protocols with the mean of the authors' CUB-200 runs.
    fn normalisation(&self) -> Normalisation {
        match self.0.protocol.unwrap_or(PROTOCOL) {
            Protocol::CaffeSquash | Protocol::CaffeShort => Protocol::caffe_normalisation(MEAN),
            Protocol::Torchvision => Protocol::Torchvision.normalisation(),
        }
    }

    fn limits(&self) -> Limits {
        self.0.limits()
    }

    fn sizing(&self) -> Sizing {
        Sizing::Protocols(self.0.geometries(PROTOCOL))
    }

    fn origin(&self, _folder: &Path) -> Origin {
        Origin::Archive(ARCHIVE)
    }

    fn read(&self, folder: &Path) -> Result<Split, DataError> {
        Ok(open(&self.0, folder)?.into_split())
    }

    fn photos(&self, folder: &Path) -> Result<Option<PhotoSets>, DataError> {
        open(&self.0, folder).map(Some)
    }
}

const IMAGES: &str = "images.txt";
const LABELS: &str = "image_class_labels.txt";
const SPLIT: &str = "train_test_split.txt";
const CLASS_NAMES: &str = "classes.txt";

/// Reads the index files in the folder of the archive, or in the folder that it lies in, and finds every image; nothing is
/// decoded.
fn open(spec: &PhotoSpec, folder: &Path) -> Result<PhotoSets, DataError> {
    let place = ARCHIVE.place(folder);
    let folder = if files::is_folder(&place)? { &place } else { folder };
    let names = Index::read(folder, IMAGES)?;
    let classes = Index::read(folder, LABELS)?;
    let split = Index::read(folder, SPLIT)?;
    for index in [&classes, &split] {
        index.check_length(&names)?;
    }
    let mut folders = Folders::read(folder)?;
    let empty = || Listing { files: Vec::new(), labels: Vec::new(), classes: CLASSES };
    let (mut train, mut test) = (empty(), empty());
    let mut lines_of = BTreeMap::new();
    for (line, name) in names.values.iter().enumerate() {
        let class_folder = class_folder(name)
            .ok_or_else(|| names.bad(line, format!("{name:?} is not `<folder of the class>/<file>`")))?;
        if let Some(first) = lines_of.insert(name, line) {
            return Err(names.bad(line, format!("{name} is image {} already", first + 1)));
        }
        let class = classes.number(line, 1..=CLASSES)?;
        folders.check(class, class_folder).map_err(|problem| classes.bad(line, problem))?;
        let part = if split.number(line, 0..=1)? == 1 { &mut train } else { &mut test };
        part.files.push(folder.join("images").join(name));
        part.labels.push(class - 1);
    }
    for (part, name) in [(&train, "training"), (&test, "test")] {
        if let Some(class) = (0..CLASSES).find(|class| !part.labels.contains(class)) {
            let problem = format!("class {} has no {name} image", class + 1);
            return Err(DataError::format(&folder.join(SPLIT), problem));
        }
    }
    PhotoSets::new(NAME, folder, [train, test], spec, PROTOCOL)
}

/// The first part of `001.Black_footed_Albatross/Black_Footed_Albatross_0046_18.jpg`.
fn class_folder(name: &str) -> Option<&str> {
    let (folder, file) = name.split_once('/')?;
    let is_plain = |part: &str| !["", ".", ".."].contains(&part) && !part.contains(['/', '\\']);
    (is_plain(folder) && is_plain(file)).then_some(folder)
}

/// Lines of `<number> <value>`, numbered 1, 2, 3 and so on: the values.
struct Index {
    file: IndexFile,
    values: Vec<String>,
}

impl Index {
    fn read(folder: &Path, name: &'static str) -> Result<Self, DataError> {
        let hint = "CUB-200-2011's folder holds images/, images.txt, image_class_labels.txt and train_test_split.txt \
                    (the folder CUB_200_2011 of the archive)";
        let file = IndexFile::read(&folder.join(name), hint)?;
        let mut values = Vec::new();
        for entry in file.lines() {
            let (line, text) = entry?;
            let (id, value) = text
                .split_once(char::is_whitespace)
                .ok_or_else(|| file.bad(line, "is not `<number> <value>`"))?;
            let id = number(id).ok_or_else(|| file.bad(line, "does not start with a number"))?;
            if id != line + 1 {
                let problem = format!("has the number {id}, expected {}: numbers count up from 1", line + 1);
                return Err(file.bad(line, problem));
            }
            values.push(value.trim().to_owned());
        }
        Ok(Self { file, values })
    }

    /// Refuses an index of another length than `images`.
    fn check_length(&self, images: &Self) -> Result<(), DataError> {
        let (found, expected) = (self.values.len(), images.values.len());
        if found == expected {
            return Ok(());
        }
        let problem = format!("there are {found} lines, {IMAGES} has {expected} images");
        Err(self.bad(found.min(expected), problem))
    }

    /// The value of a line as a number in a range.
    fn number(&self, line: usize, allowed: std::ops::RangeInclusive<usize>) -> Result<usize, DataError> {
        let text = &self.values[line];
        number(text).filter(|value| allowed.contains(value)).ok_or_else(|| {
            self.bad(line, format!("{text:?} is outside {}..={}", allowed.start(), allowed.end()))
        })
    }

    fn bad(&self, line: usize, problem: impl std::fmt::Display) -> DataError {
        self.file.bad(line, problem)
    }
}

/// Which class's images lie in which folder: each class has one of its own, `<class as three digits>.<name>`.
struct Folders {
    of_class: BTreeMap<usize, String>,
    class_of: BTreeMap<String, usize>,
}

impl Folders {
    /// Reads `classes.txt`, if it is there.
    fn read(folder: &Path) -> Result<Self, DataError> {
        let mut folders = Self { of_class: BTreeMap::new(), class_of: BTreeMap::new() };
        if !files::is_file(&folder.join(CLASS_NAMES))? {
            return Ok(folders);
        }
        let index = Index::read(folder, CLASS_NAMES)?;
        if index.values.len() != CLASSES {
            let problem =
                format!("there are {} lines, CUB-200-2011 has {CLASSES} classes", index.values.len());
            return Err(index.bad(index.values.len().min(CLASSES), problem));
        }
        for (line, name) in index.values.iter().enumerate() {
            folders.check(line + 1, name).map_err(|problem| index.bad(line, problem))?;
        }
        Ok(folders)
    }

    /// Records that images of `class` lie in `folder`, or says what contradicts it.
    fn check(&mut self, class: usize, folder: &str) -> Result<(), String> {
        let numbered = folder.split_once('.').and_then(|(head, _)| number(head));
        if let Some(other) = numbered.filter(|number| *number != class) {
            return Err(format!("gives class {class}, but the folder {folder} is numbered {other}"));
        }
        let known = self.of_class.entry(class).or_insert_with(|| folder.to_owned());
        if known != folder {
            return Err(format!("gives class {class} to {folder}, but the folder of that class is {known}"));
        }
        let known = *self.class_of.entry(folder.to_owned()).or_insert(class);
        if known != class {
            return Err(format!("gives class {class} to {folder}, the folder of class {known}"));
        }
        Ok(())
    }
}
