//! ILSVRC-2012 in the layouts that are in use: training images in a folder for each class, validation images in class folders or flat
//! with a list of labels, in one folder or as Kaggle packs them. Classes are numbered in WordNet-id order, whatever the
//! order of the folders.

use std::fs;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::files::{self, is_image_name};
use crate::kind::{DatasetKeys, Key, Origin, REQUIRED, Sizing, TEST_LIMIT, TRAIN_LIMIT, VALIDATION, key};
use crate::photos::{Listing, PhotoSets, PhotoSpec, keys};
use crate::protocol::Protocol;
use crate::spec::{Limits, Normalisation};
use crate::val_labels::{self, ValLabels};
use crate::{DataError, Split};

const NAME: &str = "ImageNet";
pub(crate) const CLASSES: usize = 1000;

/// ImageNet (ILSVRC 2012): 1,281,167 training and 50,000 validation photographs of 1,000 classes, in a folder for each class.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct ImagenetSpec {
    /// The number of class folders. With fewer than 1000, flat validation images of other classes are not used. Default: 1000.
    #[serde(default = "all_classes")]
    pub classes: usize,
    /// How photographs become inputs. Required.
    pub protocol: Protocol,
    /// How selectors see the training images, always with the centre crop. The authors' samples are `caffe-squash` throughout.
    /// Default: as `protocol`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calibration_protocol: Option<Protocol>,
    /// Size in pixels that images are resized to before cropping. Default: 256.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub side: Option<usize>,
    /// Height and width of the inputs in pixels, at most `side`. Default: 224.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub crop: Option<usize>,
    /// How many damaged files are tolerated: they are left out and named. With one more the study stops. Default: 0.
    #[serde(default)]
    pub bad_files: usize,
    /// Images with more pixels count as damaged and are refused before memory is allocated. Intermediate sizes while resizing count
    /// as well. Default: 100,000,000 (10,000 × 10,000).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_pixels: Option<u64>,
    /// Use this many training images: the first of each class in turn, so that the classes are as even as they can be. At least one
    /// of each class. Default: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub train_limit: Option<usize>,
    /// Use this many test images, chosen the same way as those of `train-limit`. Default: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub test_limit: Option<usize>,
    /// Hold out this many training images, for recipes that were published with a validation split: the last of each class in turn,
    /// the same for every seed. Nothing is trained or calibrated on them. At least one of each class. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validation: Option<usize>,
}

fn all_classes() -> usize {
    CLASSES
}

impl ImagenetSpec {
    /// All 1000 classes under this protocol, every other key at its default.
    #[must_use]
    pub fn new(protocol: Protocol) -> Self {
        Self {
            classes: CLASSES,
            protocol,
            calibration_protocol: None,
            side: None,
            crop: None,
            bad_files: 0,
            max_pixels: None,
            train_limit: None,
            test_limit: None,
            validation: None,
        }
    }

    /// The keys that every set of photographs has.
    fn photo_spec(&self) -> PhotoSpec {
        PhotoSpec {
            protocol: Some(self.protocol),
            calibration_protocol: self.calibration_protocol,
            side: self.side,
            crop: self.crop,
            bad_files: self.bad_files,
            max_pixels: self.max_pixels,
            train_limit: self.train_limit,
            test_limit: self.test_limit,
            validation: self.validation,
        }
    }
}

impl DatasetKeys for ImagenetSpec {
    fn about() -> &'static str {
        "ILSVRC-2012: train/<WordNet id>/*, val/ in class folders or flat with a list of labels"
    }

    fn keys() -> &'static [Key] {
        const ALL: &[Key] = &[
            key("classes", "count", "1000", "class folders that there must be"),
            key("protocol", "text", REQUIRED, keys::PROTOCOLS),
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
        Some(Self::new(Protocol::CaffeSquash))
    }

    fn folder(&self) -> &'static str {
        "imagenet"
    }

    fn name(&self) -> &str {
        NAME
    }

    fn shape(&self) -> [usize; 3] {
        self.photo_spec().shape()
    }

    fn classes(&self) -> Option<usize> {
        Some(self.classes)
    }

    fn official_images(&self) -> Option<[usize; 2]> {
        (self.classes == CLASSES).then_some([1_281_167, 50_000])
    }

    fn normalisation(&self) -> Normalisation {
        self.protocol.normalisation()
    }

    fn limits(&self) -> Limits {
        self.photo_spec().limits()
    }

    fn sizing(&self) -> Sizing {
        Sizing::Protocols(self.photo_spec().geometries(self.protocol))
    }

    fn check(&self) -> Result<(), DataError> {
        if !(1..=CLASSES).contains(&self.classes) {
            let problem = format!("{} is outside 1..={CLASSES}", self.classes);
            return Err(DataError::Value { key: "classes", problem });
        }
        Ok(())
    }

    fn origin(&self, folder: &Path) -> Origin {
        let how = format!(
            "log in at https://www.image-net.org, download ILSVRC2012 (train, validation, development kit) and \
             unpack it into {0}/train/<WordNet id>/, {0}/val/ and {0}/ILSVRC2012_devkit_t12/",
            folder.display()
        );
        Origin::ByHand { why: "it may not be downloaded without an account", how }
    }

    fn read(&self, folder: &Path) -> Result<Split, DataError> {
        Ok(open(self, folder)?.into_split())
    }

    fn photos(&self, folder: &Path) -> Result<Option<PhotoSets>, DataError> {
        open(self, folder).map(Some)
    }
}

/// Lists the files and labels of both splits; nothing is decoded.
fn open(spec: &ImagenetSpec, folder: &Path) -> Result<PhotoSets, DataError> {
    let Layout { images, label_folders } = layout(folder)?;
    let folder = &*images;
    let train_folder = folder.join("train");
    let classes = train_classes(&train_folder, spec.classes)?;
    let train = class_folders(&train_folder, &classes)?;
    let test = validation(spec, folder, &label_folders, &classes)?;
    PhotoSets::new(NAME, folder, [train, test], &spec.photo_spec(), spec.protocol)
}

/// Where Kaggle's archive has the images, below its own folder and below its folder `ILSVRC`.
const KAGGLE_IMAGES: [&str; 2] = ["ILSVRC/Data/CLS-LOC", "Data/CLS-LOC"];

/// Folders of images and of lists.
struct Layout {
    /// The folder with `train` and `val`.
    images: PathBuf,
    /// Folders below which the list of labels may lie.
    label_folders: Vec<PathBuf>,
}

/// Finds the images in the folder itself, or where Kaggle's archive has them; its list lies beside the folder `ILSVRC`.
fn layout(folder: &Path) -> Result<Layout, DataError> {
    let mut images = folder.to_owned();
    if !files::is_folder(&folder.join("train"))? {
        for place in KAGGLE_IMAGES.map(|place| folder.join(place)) {
            if files::is_folder(&place.join("train"))? {
                images = place;
                break;
            }
        }
    }
    let mut label_folders = vec![images.clone()];
    if images != folder {
        label_folders.push(folder.to_owned());
    }
    let full = fs::canonicalize(&images).unwrap_or_else(|_| images.clone());
    if full.ends_with(KAGGLE_IMAGES[0]) {
        label_folders.extend(full.ancestors().skip(2).take(2).map(Path::to_owned));
    }
    Ok(Layout { images, label_folders })
}

/// The names in a folder, sorted, without litter.
fn entries(folder: &Path) -> Result<Vec<String>, DataError> {
    let hint = "ImageNet's folder holds train/<WordNet id>/ and val/, the latter in the same class folders or flat \
                (Kaggle's archive: in ILSVRC/Data/CLS-LOC)";
    let text = |name: std::ffi::OsString| {
        name.into_string().map_err(|name| {
            let problem = "has a name that is not UTF-8, which no file of ImageNet has; rename it";
            DataError::layout(&folder.join(name), problem)
        })
    };
    files::names(folder, hint)?.into_iter().map(text).collect()
}

/// The training classes: WordNet ids, in order. Errors explain the usual wrong layouts.
fn train_classes(folder: &Path, expected: usize) -> Result<Vec<String>, DataError> {
    let names = entries(folder)?;
    let wrong = |problem: &str| Err(DataError::layout(folder, problem));
    match names.iter().find(|name| !is_wordnet_id(name)) {
        None if names.is_empty() => return wrong("is empty, expected a folder for each class"),
        None => {}
        Some(name) if name.ends_with(".tar") => {
            return wrong(
                "holds archives: unpack each into a folder of its own (n01440764.tar into n01440764/)",
            );
        }
        Some(name) if is_image_name(Path::new(name)) => {
            return wrong(
                "is flat: images must lie in a folder for each class (n01440764/n01440764_10026.JPEG)",
            );
        }
        Some(name) if name.bytes().all(|byte| byte.is_ascii_digit()) => {
            return wrong(
                "has numbered folders: which numbering is unknown, and pretrained weights need the order of the \
                 WordNet ids; give the folders their original names (n01440764 …)",
            );
        }
        Some(name) => {
            return wrong(&format!("holds {name:?}, which is not a WordNet id (n and eight digits)"));
        }
    }
    if names.len() != expected {
        let hint = if expected == CLASSES { "; for a part of ImageNet set the key `classes`" } else { "" };
        return wrong(&format!("has {} class folders, expected {expected}{hint}", names.len()));
    }
    Ok(names)
}

/// Whether a text is n and eight digits.
pub(crate) fn is_wordnet_id(name: &str) -> bool {
    name.len() == 9 && name.starts_with('n') && name[1..].bytes().all(|byte| byte.is_ascii_digit())
}

/// The images of a folder, sorted by name.
fn images(folder: &Path) -> Result<Vec<PathBuf>, DataError> {
    let files: Vec<PathBuf> = entries(folder)?.into_iter().map(|name| folder.join(name)).collect();
    match files.iter().find(|file| !is_image_name(file)) {
        Some(file) => Err(DataError::layout(file, "is not a .png, .jpg or .jpeg file")),
        None if files.is_empty() => Err(DataError::layout(folder, "has no image")),
        None => Ok(files),
    }
}

/// Images in a folder for each of `classes`. A training image with another class in its name is an error.
fn class_folders(folder: &Path, classes: &[String]) -> Result<Listing, DataError> {
    let (mut files, mut labels) = (Vec::new(), Vec::new());
    for (label, class) in classes.iter().enumerate() {
        for file in images(&folder.join(class))? {
            if let Some(named) = class_in_name(&file)
                && named != class
            {
                let problem = format!("lies in the folder of class {class}, its name says {named}");
                return Err(DataError::layout(&file, problem));
            }
            files.push(file);
            labels.push(label);
        }
    }
    Ok(Listing { files, labels, classes: classes.len() })
}

/// The class of `n01440764_10026.JPEG`.
fn class_in_name(file: &Path) -> Option<&str> {
    let (class, _) = file.file_name()?.to_str()?.split_once('_')?;
    is_wordnet_id(class).then_some(class)
}

fn validation(
    spec: &ImagenetSpec,
    folder: &Path,
    label_folders: &[PathBuf],
    classes: &[String],
) -> Result<Listing, DataError> {
    let val = folder.join("val");
    let names = entries(&val)?;
    let numbered = names.iter().any(|name| name.bytes().all(|byte| byte.is_ascii_digit()));
    if numbered {
        return Err(DataError::layout(
            &val,
            "has numbered folders; give them their original names (n01440764 …)",
        ));
    }
    let mut is_sorted_into_classes = false;
    for name in names.iter().filter(|name| is_wordnet_id(name)) {
        is_sorted_into_classes |= files::is_folder(&val.join(name))?;
    }
    let labels = ValLabels::find(label_folders, classes)?;
    if is_sorted_into_classes {
        if let Some(class) = classes.iter().find(|class| names.binary_search(class).is_err()) {
            return Err(DataError::layout(&val, format!("has no class {class}, but train has")));
        }
        if let Some(class) = names.iter().find(|name| is_wordnet_id(name) && !classes.contains(name)) {
            return Err(DataError::layout(&val, format!("has the class {class}, but train has not")));
        }
        let listing = class_folders(&val, classes)?;
        return match labels {
            Some(list) => agrees(listing, classes, &list),
            None => Ok(listing),
        };
    }
    let Some(list) = labels else {
        return Err(DataError::Missing {
            path: folder.join("ILSVRC2012_devkit_t12/data"),
            hint: val_labels::hint(),
        });
    };
    let images: Vec<PathBuf> =
        names.iter().map(|name| val.join(name)).filter(|file| is_image_name(file)).collect();
    let wnids = list.of_all(&images, spec.classes < CLASSES)?;
    flat(&images, &wnids, spec, classes, &list, &val)
}

/// Flat images with their classes.
fn flat(
    images: &[PathBuf],
    wnids: &[&str],
    spec: &ImagenetSpec,
    classes: &[String],
    list: &ValLabels,
    val: &Path,
) -> Result<Listing, DataError> {
    let (mut files, mut labels) = (Vec::new(), Vec::new());
    let mut has_image = vec![false; classes.len()];
    for (file, wnid) in images.iter().zip(wnids) {
        match classes.binary_search_by(|class| class.as_str().cmp(wnid)) {
            Ok(label) => {
                has_image[label] = true;
                files.push(file.clone());
                labels.push(label);
            }
            // Part of ImageNet: the list and the images are those of all classes.
            Err(_) if spec.classes < CLASSES => {}
            Err(_) => {
                let problem =
                    format!("is of class {wnid} by {}, but train has no such class", list.path.display());
                return Err(DataError::layout(file, problem));
            }
        }
    }
    if let Some(label) = has_image.iter().position(|has| !has) {
        return Err(DataError::layout(val, format!("has no image of class {}", classes[label])));
    }
    Ok(Listing { files, labels, classes: classes.len() })
}

/// Checks that class folders agree with the list beside them, which finds images that were sorted by a wrong list.
fn agrees(listing: Listing, classes: &[String], list: &ValLabels) -> Result<Listing, DataError> {
    let wnids: Vec<Option<&str>> = listing.files.iter().map(|file| list.of(file)).collect();
    // The list is about other images.
    if wnids.iter().all(Option::is_none) {
        return Ok(listing);
    }
    for ((file, label), wnid) in listing.files.iter().zip(&listing.labels).zip(wnids) {
        let wnid = wnid.ok_or_else(|| list.without_label(file))?;
        if wnid != classes[*label] {
            let problem = format!(
                "lies in the folder of class {}, {} says {wnid}",
                classes[*label],
                list.path.display()
            );
            return Err(DataError::layout(file, problem));
        }
    }
    Ok(listing)
}
