//! Photographs in files, resized and cropped by a protocol when they are read; damaged files are counted and named.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use thinet_seed::Seed;

use crate::dataset::check_read;
use crate::decode::{MAX_PIXELS, Picture};
use crate::files::image_size;
use crate::kind::{Key, key};
use crate::prepared::PreparedImages;
use crate::protocol::{Geometry, Protocol};
use crate::spec::Limits;
use crate::{DataError, Dataset, Split};

/// The keys of a set of photographs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct PhotoSpec {
    /// How photographs become inputs. Default: as for the published numbers of the set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<Protocol>,
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

impl PhotoSpec {
    /// The protocol, and how selectors see the images; `usual` is the set's own protocol.
    pub(crate) fn geometries(&self, usual: Protocol) -> [Geometry; 2] {
        let (side, crop) = (self.side.unwrap_or(256), self.crop.unwrap_or(224));
        let protocol = self.protocol.unwrap_or(usual);
        let calibration = self.calibration_protocol.unwrap_or(protocol);
        let max_pixels = self.max_pixels.unwrap_or(MAX_PIXELS);
        [protocol, calibration].map(|protocol| Geometry { protocol, side, crop, max_pixels })
    }

    pub(crate) fn limits(&self) -> Limits {
        Limits { train_limit: self.train_limit, test_limit: self.test_limit, validation: self.validation }
    }

    /// Channels, height and width of the inputs.
    pub(crate) fn shape(&self) -> [usize; 3] {
        let crop = self.crop.unwrap_or(224);
        [3, crop, crop]
    }
}

/// The keys of photographs, for lists.
pub(crate) mod keys {
    use super::{Key, key};

    pub(crate) const PROTOCOLS: &str =
        "how photographs become inputs: caffe-squash, caffe-short or torchvision";
    pub(crate) const CALIBRATION_PROTOCOL: Key = key(
        "calibration-protocol",
        "text",
        "as protocol",
        "how selectors see training images, with the centre crop",
    );
    pub(crate) const SIDE: Key =
        key("side", "count", "256", "what images are resized to before they are cut");
    pub(crate) const CROP: Key = key("crop", "count", "224", "height and width of the inputs");
    pub(crate) const BAD_FILES: Key =
        key("bad-files", "count", "0", "so many files may turn out damaged; they are left out and named");
    pub(crate) const MAX_PIXELS: Key =
        key("max-pixels", "count", "100000000", "refuse an image file with more pixels than this");
}

/// Version of how files are decoded, resized and cropped. It is part of the fingerprint and so of ids: raise it when the
/// values that are read change, and say so in the CHANGELOG.
pub(crate) const VERSION: &str = "thinet photos v1";

/// The photographs of a dataset: for training, as selectors see those, and for testing.
pub(crate) struct PhotoSets {
    pub(crate) train: Photos,
    pub(crate) calibration: Photos,
    pub(crate) test: Photos,
}

impl PhotoSets {
    /// The training and test images that are listed; `usual` is the set's own protocol.
    pub(crate) fn new(
        name: &str,
        folder: &Path,
        [train, test]: [Listing; 2],
        spec: &PhotoSpec,
        usual: Protocol,
    ) -> Result<Self, DataError> {
        let [geometry, calibration] = spec.geometries(usual);
        let train = Photos::new(name, folder, train, geometry, spec.bad_files)?;
        let test = Photos::new(name, folder, test, geometry, spec.bad_files)?;
        Ok(Self { calibration: train.under(calibration), train, test })
    }

    pub(crate) fn into_split(self) -> Split {
        let Self { train, calibration, test } = self;
        Split { train: Arc::new(train), calibration: Arc::new(calibration), test: Arc::new(test) }
    }
}

/// Labelled photographs, decoded when they are read, or read from a prepared file.
#[derive(Clone)]
pub(crate) struct Photos {
    name: String,
    classes: usize,
    files: Arc<Vec<PathBuf>>,
    labels: Arc<Vec<usize>>,
    geometry: Geometry,
    damaged: Arc<DamagedFiles>,
    prepared: Option<Arc<PreparedImages>>,
    fingerprint: String,
}

/// Files that could not be decoded, and how many are tolerated.
struct DamagedFiles {
    limit: usize,
    seen: Mutex<BTreeMap<PathBuf, String>>,
}

/// The images of one split, in their final order.
pub(crate) struct Listing {
    pub(crate) files: Vec<PathBuf>,
    pub(crate) labels: Vec<usize>,
    pub(crate) classes: usize,
}

impl Photos {
    /// File names in the fingerprint are relative to `folder`, so that it stays the same when a set is moved.
    pub(crate) fn new(
        name: &str,
        folder: &Path,
        listing: Listing,
        geometry: Geometry,
        limit: usize,
    ) -> Result<Self, DataError> {
        let Listing { files, labels, classes } = listing;
        let mut hasher = blake3::Hasher::new();
        hasher.update(VERSION.as_bytes());
        for (path, label) in files.iter().zip(&labels) {
            let size = image_size(path)?;
            let relative = path.strip_prefix(folder).unwrap_or(path).as_os_str().as_encoded_bytes();
            for number in [relative.len() as u64, *label as u64, size] {
                hasher.update(&number.to_le_bytes());
            }
            hasher.update(relative);
        }
        let contents = hasher.finalize().to_hex().to_string();
        let photos = Self {
            name: name.to_owned(),
            classes,
            files: Arc::new(files),
            labels: Arc::new(labels),
            geometry,
            damaged: Arc::new(DamagedFiles { limit, seen: Mutex::default() }),
            prepared: None,
            fingerprint: String::new(),
        };
        Ok(photos.with_fingerprint(&contents, geometry))
    }

    /// The same files under another protocol; files that cannot be decoded are counted together.
    pub(crate) fn under(&self, geometry: Geometry) -> Self {
        let contents = self.contents().to_owned();
        Self { prepared: None, ..self.clone() }.with_fingerprint(&contents, geometry)
    }

    /// The same images, read from a prepared file.
    pub(crate) fn reading(self, prepared: Arc<PreparedImages>) -> Self {
        Self { prepared: Some(prepared), ..self }
    }

    /// The part of the fingerprint that identifies files and labels, whatever the protocol.
    pub(crate) fn contents(&self) -> &str {
        self.fingerprint.split_once(':').map_or("", |(contents, _)| contents)
    }

    pub(crate) fn geometry(&self) -> Geometry {
        self.geometry
    }

    pub(crate) fn labels(&self) -> &[usize] {
        &self.labels
    }

    pub(crate) fn path(&self, index: usize) -> &Path {
        &self.files[index]
    }

    pub(crate) fn prepared(&self) -> Option<&Arc<PreparedImages>> {
        self.prepared.as_ref()
    }

    /// The image decoded and resized, before any crop, or why it is left out.
    pub(crate) fn resized(&self, index: usize) -> Result<Picture, DataError> {
        let picture = self.decoded(index)?;
        self.judged(index, self.geometry.resized(picture))
    }

    fn with_fingerprint(mut self, contents: &str, geometry: Geometry) -> Self {
        let Geometry { protocol, side, crop, max_pixels } = geometry;
        self.geometry = geometry;
        self.fingerprint = format!("{contents}:{}-{side}-{crop}", protocol.name());
        // The limit decides which images are left out. The key was added later, so it is not part of ids at its default.
        if max_pixels != MAX_PIXELS {
            self.fingerprint.push_str(&format!("-{max_pixels}"));
        }
        self
    }

    /// The image as it is read from its file, or why it is left out.
    fn decoded(&self, index: usize) -> Result<Picture, DataError> {
        Picture::decode(&self.files[index], 3, self.geometry.max_pixels)
            .map_err(|error| self.damaged.judge(error))
    }

    fn judged<T>(&self, index: usize, done: Result<T, String>) -> Result<T, DataError> {
        let path = &self.files[index];
        done.map_err(|problem| self.damaged.judge(DataError::Decode { path: path.clone(), problem }))
    }

    /// Writes the crop at `place`, which follows from height and width, from the prepared file. False if there is none, or
    /// if it marks the image as one that could not be decoded.
    fn cut_prepared(
        &self,
        index: usize,
        place: impl FnOnce([usize; 2]) -> [usize; 2],
        out: &mut [u8],
    ) -> Result<bool, DataError> {
        match &self.prepared {
            Some(prepared) => prepared.cut(index, place, self.geometry.crop, out),
            None => Ok(false),
        }
    }
}

impl DamagedFiles {
    /// Counts a file that was read and cannot be decoded; it is left out as long as there are not too many of them. Any
    /// other error is returned unchanged.
    fn judge(&self, error: DataError) -> DataError {
        let DataError::Decode { path, problem } = error else { return error };
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.insert(path.clone(), problem.clone());
        if seen.len() <= self.limit {
            return DataError::LeftOut { path, problem };
        }
        if self.limit == 0 {
            return DataError::Decode { path, problem };
        }
        DataError::TooManyDamaged { limit: self.limit, path, problem }
    }
}

impl Dataset for Photos {
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
        [3, self.geometry.crop, self.geometry.crop]
    }

    fn label(&self, index: usize) -> usize {
        self.labels[index]
    }

    fn read(&self, index: usize, out: &mut [u8]) -> Result<(), DataError> {
        check_read(self, index, out)?;
        if self.cut_prepared(index, |size| self.geometry.centre_place(size), out)? {
            return Ok(());
        }
        let picture = self.decoded(index)?;
        self.judged(index, self.geometry.centre(picture, out))
    }

    fn has_random_crop(&self) -> bool {
        true
    }

    fn read_random_crop(&self, index: usize, seed: Seed, out: &mut [u8]) -> Result<(), DataError> {
        check_read(self, index, out)?;
        if self.cut_prepared(index, |size| self.geometry.random_place(size, seed), out)? {
            return Ok(());
        }
        let picture = self.decoded(index)?;
        self.judged(index, self.geometry.random(picture, seed, out))
    }

    fn is_decoded_each_time(&self) -> bool {
        self.prepared.is_none()
    }

    fn prepared_file(&self) -> Option<&Path> {
        self.prepared.as_deref().map(PreparedImages::path)
    }

    fn left_out(&self) -> Vec<String> {
        let seen = self.damaged.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.iter().map(|(path, problem)| format!("{}: {problem}", path.display())).collect()
    }

    fn fingerprint(&self) -> &str {
        &self.fingerprint
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use image::{Rgb, RgbImage};

    use super::*;
    use crate::Protocol;

    const GEOMETRY: Geometry =
        Geometry { protocol: Protocol::CaffeShort, side: 4, crop: 3, max_pixels: MAX_PIXELS };

    /// Three images, the second damaged.
    fn photos(folder: &Path, limit: usize) -> Photos {
        let mut files = Vec::new();
        for (i, name) in ["a.png", "b.png", "c.png"].into_iter().enumerate() {
            let path = folder.join(name);
            RgbImage::from_fn(5, 4, |x, y| Rgb([(x + y) as u8, i as u8, 9])).save(&path).unwrap();
            files.push(path);
        }
        fs::write(&files[1], "no image").unwrap();
        let listing = Listing { files, labels: vec![0, 1, 1], classes: 2 };
        Photos::new("Photos", folder, listing, GEOMETRY, limit).unwrap()
    }

    #[test]
    fn images_are_read_by_their_protocol() {
        let folder = tempfile::tempdir().unwrap();
        let photos = photos(folder.path(), 0);
        let mut out = [0; 27];
        photos.read(2, &mut out).unwrap();
        // The resized image is 4×5; the crop starts at (0, 1).
        assert_eq!(out[..9], [1, 2, 3, 2, 3, 4, 3, 4, 5]);
        assert_eq!((out[9], out[18], photos.label(2), photos.shape()), (2, 9, 1, [3, 3, 3]));
        let mut random = [0; 27];
        photos.read_random_crop(2, Seed::root(3), &mut random).unwrap();
        assert_eq!(random[18..], [9; 9]);
        assert!(photos.has_random_crop() && photos.is_decoded_each_time());
    }

    #[test]
    fn damaged_files_are_left_out_and_named_up_to_the_limit() {
        let folder = tempfile::tempdir().unwrap();
        let mut out = [0; 27];
        let strict = photos(folder.path(), 0);
        let error = strict.read(1, &mut out).unwrap_err();
        assert!(matches!(&error, DataError::Decode { path, .. } if path.ends_with("b.png")), "{error}");

        let one = photos(folder.path(), 1);
        for _ in 0..2 {
            let error = one.read(1, &mut out).unwrap_err();
            assert!(matches!(&error, DataError::LeftOut { path, .. } if path.ends_with("b.png")), "{error}");
        }
        assert_eq!(one.left_out().len(), 1);
        assert!(one.left_out()[0].contains("b.png: "));
        fs::write(folder.path().join("c.png"), "no image either").unwrap();
        let error = one.under(GEOMETRY).read(2, &mut out).unwrap_err().to_string();
        assert!(error.contains("more than 1 file cannot be decoded") && error.contains("c.png"), "{error}");
    }

    #[test]
    fn a_file_that_cannot_be_read_is_never_left_out() {
        let folder = tempfile::tempdir().unwrap();
        let photos = photos(folder.path(), 5);
        let path = folder.path().join("c.png");
        fs::remove_file(&path).unwrap();
        let mut out = [0; 27];
        for _ in 0..2 {
            let errors = [photos.read(2, &mut out), photos.read_random_crop(2, Seed::root(1), &mut out)]
                .map(Result::unwrap_err);
            for error in errors {
                assert!(matches!(&error, DataError::Io { path: named, .. } if *named == path), "{error}");
            }
            // A folder in its place the second time.
            let _ = fs::create_dir(&path);
        }
        assert_eq!(photos.left_out(), Vec::<String>::new());
        let listing = Listing { files: vec![path.clone()], labels: vec![0], classes: 1 };
        let error = Photos::new("Photos", folder.path(), listing, GEOMETRY, 5).err().unwrap();
        assert!(matches!(&error, DataError::Layout { path: named, .. } if *named == path), "{error}");
    }

    #[test]
    fn an_image_above_the_limit_counts_as_one_that_cannot_be_decoded() {
        let folder = tempfile::tempdir().unwrap();
        let mut out = [0; 27];
        let small = photos(folder.path(), 2).under(Geometry { max_pixels: 19, ..GEOMETRY });
        let error = small.read(2, &mut out).unwrap_err();
        assert!(
            matches!(&error, DataError::LeftOut { problem, .. } if problem.contains("max-pixels")),
            "{error}"
        );
        let exact = small.under(Geometry { max_pixels: 20, ..GEOMETRY });
        exact.read(2, &mut out).unwrap();
        let usual = small.under(GEOMETRY);
        assert_ne!(exact.fingerprint(), small.fingerprint());
        assert_eq!(usual.fingerprint(), photos(folder.path(), 2).fingerprint());
        assert!(usual.fingerprint().ends_with(":caffe-short-4-3"), "{}", usual.fingerprint());
    }

    #[test]
    fn an_image_that_grows_beyond_the_limit_when_it_is_resized_counts_as_one_that_cannot_be_decoded() {
        let folder = tempfile::tempdir().unwrap();
        let photos = photos(folder.path(), 2).under(Geometry { max_pixels: 100, ..GEOMETRY });
        // With its shorter side at 4 it is 4×40.
        RgbImage::new(10, 1).save(folder.path().join("c.png")).unwrap();
        let mut out = [0; 27];
        let errors = [photos.read(2, &mut out), photos.read_random_crop(2, Seed::root(1), &mut out)];
        for error in errors.map(Result::unwrap_err) {
            let DataError::LeftOut { path, problem } = &error else { panic!("{error}") };
            assert!(path.ends_with("c.png") && problem.contains("4×40"), "{error}");
        }
        assert_eq!(photos.left_out().len(), 1);
    }

    #[test]
    fn the_fingerprint_follows_files_labels_and_protocol_but_not_the_place() {
        let folder = tempfile::tempdir().unwrap();
        let base = photos(folder.path(), 0);
        let elsewhere = tempfile::tempdir().unwrap();
        assert_eq!(base.fingerprint(), photos(elsewhere.path(), 5).fingerprint());
        let other = base.under(Geometry { protocol: Protocol::Torchvision, ..GEOMETRY });
        assert_ne!(base.fingerprint(), other.fingerprint());
        assert_eq!(base.fingerprint(), other.under(GEOMETRY).fingerprint());
        fs::write(folder.path().join("c.png"), "another size").unwrap();
        let files = (*base.files).clone();
        let listing = Listing { files, labels: vec![0, 1, 1], classes: 2 };
        let changed = Photos::new("Photos", folder.path(), listing, GEOMETRY, 0).unwrap();
        assert_ne!(base.fingerprint(), changed.fingerprint());
    }
}
