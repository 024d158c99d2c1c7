//! A folder of PNG and JPEG images, one folder for each class: `train/<class>/*` and `test/<class>/*` or `val/<class>/*`.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::dataset::{check_read, image_len};
use crate::decode::{MAX_PIXELS, Picture};
use crate::files::{self, image_size};
use crate::kind::{DatasetKeys, Key, Origin, REQUIRED, Sizing, TEST_LIMIT, TRAIN_LIMIT, VALIDATION, key};
use crate::photos::keys;
use crate::protocol::{Protocol, check_max_pixels};
use crate::spec::{Limits, Normalisation, Resize};
use crate::{DataError, Dataset, Split};

/// Splits of at most this size together are held in memory unless the spec says otherwise.
const CACHE_BYTES: u64 = 2 << 30;

/// Version of how files are decoded and resized. It is part of the fingerprint and so of ids: raise it when the values that
/// are read change, and say so in the CHANGELOG. Version 2 resizes rows first and rounds between the two passes, as Pillow
/// does.
pub(crate) const VERSION: &str = "thinet image folder v2";

/// The keys of an image folder: `train/<class>/*` and `test/<class>/*` (or `val/<class>/*`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct ImageFolderSpec {
    /// The name for tables, such as "CIFAR-10 (JPEG copy)". Required.
    pub name: String,
    /// Height and width in pixels: images of another size are resized to `size`×`size`, whatever their aspect ratio. Required; 1 to
    /// 4096.
    pub size: usize,
    /// 3 for RGB, 1 for grey. Default: 3.
    #[serde(default = "three")]
    pub channels: usize,
    /// The filter for images of another size. Default: bicubic.
    #[serde(default)]
    pub resize: Resize,
    /// The folder with the test images. Default: `test`, or `val` where that does not exist.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub test_folder: Option<String>,
    /// Whether decoded images are held in memory. Default: if both splits together take at most 2 GiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache: Option<bool>,
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

fn three() -> usize {
    3
}

/// The weights of R, G and B in grey (ITU-R BT.709), as the decoder uses them.
const LUMA: [f32; 3] = [0.2126, 0.7152, 0.0722];

impl DatasetKeys for ImageFolderSpec {
    fn about() -> &'static str {
        "train/<class>/* and test/<class>/* (or val/) of PNG or JPEG images"
    }

    fn keys() -> &'static [Key] {
        const ALL: &[Key] = &[
            key("name", "text", REQUIRED, "the name for tables"),
            key("size", "count", REQUIRED, "height and width; images of another size are resized"),
            key("channels", "count", "3", "3 for RGB, 1 for grey"),
            key("resize", "text", "bicubic", "the filter where a size differs: bicubic or bilinear"),
            key("test-folder", "text", "test, else val", "the folder with the test images"),
            key("cache", "true/false", "up to 2 GiB", "whether decoded images are held in memory"),
            keys::MAX_PIXELS,
            TRAIN_LIMIT,
            TEST_LIMIT,
            VALIDATION,
        ];
        ALL
    }

    fn by_name() -> Option<Self> {
        None
    }

    fn folder(&self) -> &'static str {
        "images"
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn shape(&self) -> [usize; 3] {
        [self.channels, self.size, self.size]
    }

    fn classes(&self) -> Option<usize> {
        None
    }

    fn official_images(&self) -> Option<[usize; 2]> {
        None
    }

    /// ImageNet's, converted to grey for one channel.
    fn normalisation(&self) -> Normalisation {
        let mut found = Protocol::Torchvision.normalisation();
        if self.channels == 1 {
            let grey = |rgb: &[f32]| LUMA[0] * rgb[0] + LUMA[1] * rgb[1] + LUMA[2] * rgb[2];
            (found.mean, found.std) = (vec![grey(&found.mean)], vec![grey(&found.std)]);
        }
        found
    }

    fn limits(&self) -> Limits {
        Limits { train_limit: self.train_limit, test_limit: self.test_limit, validation: self.validation }
    }

    fn sizing(&self) -> Sizing {
        Sizing::Square { size: self.size, filter: self.resize }
    }

    fn check(&self) -> Result<(), DataError> {
        let wrong = |key, problem: String| Err(DataError::Value { key, problem });
        if self.name.trim().is_empty() {
            return wrong("name", "must not be empty".to_owned());
        }
        if self.name.contains(|c: char| c.is_control() || ['\u{2028}', '\u{2029}'].contains(&c)) {
            let problem = format!("{:?} holds a line end, a tab or another control character", self.name);
            return wrong("name", problem);
        }
        if !(1..=4096).contains(&self.size) {
            return wrong("size", format!("{} is outside 1..=4096", self.size));
        }
        check_max_pixels(self.max_pixels.unwrap_or(MAX_PIXELS))?;
        if ![1, 3].contains(&self.channels) {
            return wrong("channels", format!("{} is neither 3 (RGB) nor 1 (grey)", self.channels));
        }
        if let Some(folder) = &self.test_folder
            && (folder.is_empty()
                || folder.starts_with('.')
                || folder.contains(['/', '\\'])
                || folder == "train")
        {
            return wrong("test-folder", format!("{folder:?} is not the name of a folder beside train"));
        }
        Ok(())
    }

    fn origin(&self, folder: &Path) -> Origin {
        let how = format!("put the images into {0}/train/<class>/ and {0}/test/<class>/", folder.display());
        Origin::Own { how }
    }

    fn read(&self, folder: &Path) -> Result<Split, DataError> {
        open(self, folder, &mut Err)
    }

    /// Leaves out what lies in a class and is no image file, and a class of nothing else.
    fn read_what_is_usable(&self, folder: &Path) -> Result<(Split, Vec<String>), DataError> {
        let mut faults = Vec::new();
        let mut note = |error| match error {
            DataError::Layout { .. } => {
                faults.push(error.to_string());
                Ok(())
            }
            other => Err(other),
        };
        let split = open(self, folder, &mut note)?;
        Ok((split, faults))
    }

    fn is_held_in_memory(&self, split: &Split) -> bool {
        let bytes = |dataset: &dyn Dataset| dataset.len() as u64 * image_len(dataset.shape()) as u64;
        self.cache.unwrap_or(bytes(&*split.train) + bytes(&*split.test) <= CACHE_BYTES)
    }
}

/// The images of one split, decoded when they are read.
struct ImageFolder {
    name: String,
    classes: usize,
    files: Vec<PathBuf>,
    labels: Vec<usize>,
    channels: usize,
    size: usize,
    resize: Resize,
    max_pixels: u64,
    fingerprint: String,
}

/// Decides about an entry of a class folder that is no image file: an error stops, `Ok` leaves it out.
type Judge<'a> = &'a mut dyn FnMut(DataError) -> Result<(), DataError>;

/// Lists both splits; classes are numbered by folder name, images sorted by class and file name.
fn open(spec: &ImageFolderSpec, folder: &Path, judge: Judge<'_>) -> Result<Split, DataError> {
    let train_folder = folder.join("train");
    let test_folder = folder.join(test_folder(spec, folder)?);
    let train_classes = class_folders(&train_folder)?;
    let test_classes = class_folders(&test_folder)?;
    let lacking =
        |these: &[OsString], those: &[OsString]| these.iter().find(|name| !those.contains(name)).cloned();
    for (lacks, class) in [
        (&test_folder, lacking(&train_classes, &test_classes)),
        (&train_folder, lacking(&test_classes, &train_classes)),
    ] {
        if let Some(class) = class {
            let problem = format!(
                "has no class {}, but the other split has; both need the same classes",
                class.display()
            );
            return Err(DataError::layout(lacks, problem));
        }
    }
    let train = list(spec, &train_folder, &train_classes, judge)?;
    Ok(Split::new(Arc::new(train), Arc::new(list(spec, &test_folder, &test_classes, judge)?)))
}

fn test_folder<'a>(spec: &'a ImageFolderSpec, folder: &Path) -> Result<&'a str, DataError> {
    if let Some(name) = &spec.test_folder {
        return Ok(name);
    }
    match [files::is_folder(&folder.join("test"))?, files::is_folder(&folder.join("val"))?] {
        [true, true] => Err(DataError::layout(
            folder,
            "has both test and val; the key test-folder must say which one to use",
        )),
        [false, true] => Ok("val"),
        _ => Ok("test"),
    }
}

/// The names in a folder, sorted, without litter.
fn names(folder: &Path) -> Result<Vec<OsString>, DataError> {
    files::names(folder, "an image folder holds train/<class>/ and test/<class>/ (or val/<class>/)")
}

fn class_folders(folder: &Path) -> Result<Vec<OsString>, DataError> {
    let names = names(folder)?;
    if names.is_empty() {
        return Err(DataError::layout(folder, "is empty, expected a folder for each class"));
    }
    for path in names.iter().map(|name| folder.join(name)) {
        if !files::is_folder(&path)? {
            return Err(DataError::layout(&path, "is not a folder, expected a folder for each class"));
        }
    }
    Ok(names)
}

fn list(
    spec: &ImageFolderSpec,
    folder: &Path,
    classes: &[OsString],
    judge: Judge<'_>,
) -> Result<ImageFolder, DataError> {
    let mut hasher = blake3::Hasher::new();
    let filter: &[u8] = match spec.resize {
        Resize::Bicubic => b"bicubic",
        Resize::Bilinear => b"bilinear",
    };
    hasher.update(VERSION.as_bytes()).update(filter);
    for number in [spec.channels, spec.size] {
        hasher.update(&(number as u64).to_le_bytes());
    }
    let (mut files, mut labels) = (Vec::new(), Vec::new());
    for (label, class) in classes.iter().enumerate() {
        let class_folder = folder.join(class);
        let images = names(&class_folder)?;
        if images.is_empty() {
            judge(DataError::layout(&class_folder, "has no image"))?;
        }
        for image in images {
            let path = class_folder.join(&image);
            let size = match image_size(&path) {
                Ok(size) => size,
                Err(error) => {
                    judge(error)?;
                    continue;
                }
            };
            for name in [class, &image] {
                let name = name.as_encoded_bytes();
                hasher.update(&(name.len() as u64).to_le_bytes()).update(name);
            }
            hasher.update(&size.to_le_bytes());
            files.push(path);
            labels.push(label);
        }
    }
    let fingerprint = hasher.finalize().to_hex().to_string();
    let ImageFolderSpec { name, channels, size, resize, max_pixels, .. } = spec.clone();
    let (classes, max_pixels) = (classes.len(), max_pixels.unwrap_or(MAX_PIXELS));
    Ok(ImageFolder { name, classes, files, labels, channels, size, resize, max_pixels, fingerprint })
}

impl Dataset for ImageFolder {
    fn name(&self) -> &str {
        &self.name
    }

    fn classes(&self) -> usize {
        self.classes
    }

    fn len(&self) -> usize {
        self.files.len()
    }

    fn shape(&self) -> [usize; 3] {
        [self.channels, self.size, self.size]
    }

    fn label(&self, index: usize) -> usize {
        self.labels[index]
    }

    fn read(&self, index: usize, out: &mut [u8]) -> Result<(), DataError> {
        check_read(self, index, out)?;
        let path = &self.files[index];
        let size = [self.size; 2];
        let picture = Picture::decode(path, self.channels, self.max_pixels)?;
        let picture = picture.resized(size, self.resize, self.max_pixels);
        let picture = picture.map_err(|problem| DataError::Decode { path: path.clone(), problem })?;
        picture.write_planar([0, 0], size, out);
        Ok(())
    }

    fn is_decoded_each_time(&self) -> bool {
        true
    }

    fn fingerprint(&self) -> &str {
        &self.fingerprint
    }
}

#[cfg(test)]
mod tests;
