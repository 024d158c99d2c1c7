//! Files of photographs that are decoded and resized already: what they must fit, where they lie, and finding them when a
//! dataset is opened. [`prepare`](crate::prepare) makes them.
//!
//! A file holds the images of one part of a dataset under one protocol, before they are cropped. It is a cache: a dataset that
//! reads from it has the same fingerprint and the same values. Its name ends with a hash of all that decides what is in it, so a
//! file of other images has another name. One that is found and must not be used is an error that names it.

mod file;
pub(crate) mod record;

use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub(crate) use file::PreparedImages;

use crate::decode::{MAX_PIXELS, Picture};
use crate::limit::class_balanced_prefix;
use crate::photos::{PhotoSets, Photos, VERSION};
use crate::protocol::Protocol;
use crate::{DataError, DatasetSpec};

/// The folder in the dataset's own one where files are looked for.
const FOLDER: &str = "prepared";
/// Suffix of the files' names.
pub(crate) const SUFFIX: &str = ".pixels";
/// What to do about a file that is not used.
const AGAIN: &str = "run `thinet data prepare` again, or remove it to decode the images each time";

/// A part of a dataset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Part {
    Train,
    Test,
}

impl Part {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Test => "test",
        }
    }
}

/// What decides the contents of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct Header {
    /// Version of decoding and resizing.
    reader: String,
    /// The kind of dataset.
    dataset: String,
    part: Part,
    protocol: Protocol,
    side: usize,
    max_pixels: u64,
    /// The limit on the number of images, as in the spec.
    limit: Option<usize>,
    images: u64,
    /// Hash of names, sizes and labels of all files of the part, whatever the limit.
    contents: String,
    /// The dataset's folder when the file was made. It does not matter where the same images lie now.
    folder: String,
}

impl Header {
    /// The same for any folder.
    fn key(&self) -> Result<String, DataError> {
        let placeless = Self { folder: String::new(), ..self.clone() };
        let text = serde_json::to_vec(&placeless)
            .map_err(|error| DataError::prepared(Path::new(FOLDER), error.to_string()))?;
        Ok(blake3::hash(&text).to_hex()[..16].to_owned())
    }

    /// The beginning of the name, the same for other images at the same place.
    fn label(&self) -> String {
        let Self { dataset, part, protocol, side, limit, max_pixels, .. } = self;
        let mut label = format!("{dataset}-{}-{}-{side}", part.name(), protocol.name());
        if let Some(limit) = limit {
            label.push_str(&format!("-first{limit}"));
        }
        if *max_pixels != MAX_PIXELS {
            label.push_str(&format!("-max{max_pixels}"));
        }
        label
    }

    pub(crate) fn file_name(&self) -> Result<String, DataError> {
        Ok(format!("{}.{}{SUFFIX}", self.label(), self.key()?))
    }

    /// Whether a file with this header holds what one with the other does.
    pub(crate) fn is_for_the_same_images(&self, other: &Self) -> bool {
        Self { folder: other.folder.clone(), ..self.clone() } == *other
    }

    /// Why a file with this header cannot stand for one with another; `None` if it can.
    fn difference(&self, wanted: &Self) -> Option<String> {
        if self.reader != wanted.reader {
            let (old, new) = (&self.reader, &wanted.reader);
            return Some(format!("it was prepared under \"{old}\", images are read under \"{new}\" now"));
        }
        if (self.images, &self.contents) != (wanted.images, &wanted.contents) {
            return Some(format!(
                "it was prepared from other images ({} then, {} now): files in {} were added, removed, moved or changed",
                self.images, wanted.images, wanted.folder
            ));
        }
        let other = "it was prepared for another dataset or protocol than its name says";
        (!self.is_for_the_same_images(wanted)).then(|| other.to_owned())
    }
}

/// Where the prepared files of a dataset lie.
pub(crate) struct Place<'a> {
    spec: &'a DatasetSpec,
    /// The dataset's folder.
    data: &'a Path,
    pub(crate) folder: PathBuf,
    /// Whether other datasets may have their files there, too.
    is_shared: bool,
}

impl<'a> Place<'a> {
    pub(crate) fn new(spec: &'a DatasetSpec, data: &'a Path, folder: Option<&Path>) -> Self {
        let own = data.join(FOLDER);
        let folder = folder.map_or_else(|| own.clone(), Path::to_owned);
        Self { spec, data, is_shared: folder != own, folder }
    }

    /// The spec's limit on the images of a part.
    pub(crate) fn limit(&self, part: Part) -> Option<usize> {
        let limits = self.spec.limits();
        match part {
            Part::Train => limits.train_limit,
            Part::Test => limits.test_limit,
        }
    }

    /// The header of a file of these images.
    pub(crate) fn header(&self, part: Part, photos: &Photos, limit: Option<usize>) -> Header {
        let geometry = photos.geometry();
        let folder = fs::canonicalize(self.data).unwrap_or_else(|_| self.data.to_owned());
        Header {
            reader: VERSION.to_owned(),
            dataset: self.spec.kind().to_owned(),
            part,
            protocol: geometry.protocol,
            side: geometry.side,
            max_pixels: geometry.max_pixels,
            limit,
            images: limit.unwrap_or(photos.labels().len()) as u64,
            contents: photos.contents().to_owned(),
            folder: folder.to_string_lossy().into_owned(),
        }
    }

    /// The images with the prepared files that there are for them.
    pub(crate) fn attached(&self, sets: PhotoSets) -> Result<PhotoSets, DataError> {
        let PhotoSets { train, calibration, test } = sets;
        let train = self.attach(Part::Train, train)?;
        let same = |one: &Photos, other: &Photos| {
            let [a, b] = [one.geometry(), other.geometry()];
            (a.protocol, a.side, a.max_pixels) == (b.protocol, b.side, b.max_pixels)
        };
        let calibration = match train.prepared() {
            Some(prepared) if same(&train, &calibration) => calibration.reading(Arc::clone(prepared)),
            _ => self.attach(Part::Train, calibration)?,
        };
        Ok(PhotoSets { train, calibration, test: self.attach(Part::Test, test)? })
    }

    fn attach(&self, part: Part, photos: Photos) -> Result<Photos, DataError> {
        if !photos.geometry().protocol.is_resize_fixed() {
            return Ok(photos);
        }
        // A file of all images serves every limit.
        let mut limits = vec![self.limit(part), None];
        limits.dedup();
        let wanted: Vec<Header> = limits.into_iter().map(|limit| self.header(part, &photos, limit)).collect();
        for header in &wanted {
            let path = self.folder.join(header.file_name()?);
            if !path.exists() {
                continue;
            }
            // A limit that cannot be met is an error of its own.
            let Ok(images) = limited(&photos, header.limit) else { continue };
            let prepared = PreparedImages::open(&path, header, images)?;
            check_decoding(&prepared, &photos)?;
            return Ok(photos.reading(Arc::new(prepared)));
        }
        for header in &wanted {
            if let Some((path, problem)) = self.stale(header, SUFFIX)?.into_iter().next() {
                return Err(DataError::prepared(&path, format!("{problem}; {AGAIN}")));
            }
        }
        Ok(photos)
    }

    /// Files with this end of their names that were made from this folder, for the same use, and hold other images than those
    /// there now; and why.
    pub(crate) fn stale(&self, wanted: &Header, suffix: &str) -> Result<Vec<(PathBuf, String)>, DataError> {
        let start = format!("{}.", wanted.label());
        let name_now = wanted.file_name()?;
        let mut found = Vec::new();
        for name in self.names()? {
            // The key between the two has no dot.
            let key = name.strip_prefix(&start).and_then(|rest| rest.strip_suffix(suffix));
            if key.is_none_or(|key| key.contains('.')) || name.starts_with(&name_now) {
                continue;
            }
            let path = self.folder.join(name);
            let file = File::open(&path).map_err(DataError::io(&path, "open"))?;
            match record::read_header(&file, &path)? {
                Ok((header, _)) if self.is_shared && header.folder != wanted.folder => {}
                Ok((header, _)) => {
                    let problem = header.difference(wanted);
                    found.push((
                        path,
                        problem.unwrap_or_else(|| "it has another name than it was given".to_owned()),
                    ));
                }
                // It may belong to another dataset.
                Err(_) if self.is_shared => {}
                Err(bad) => found.push((path, bad.problem().to_owned())),
            }
        }
        Ok(found)
    }

    /// The names in the folder, sorted; none if there is no folder.
    fn names(&self) -> Result<Vec<String>, DataError> {
        let entries = match fs::read_dir(&self.folder) {
            Ok(entries) => entries.collect::<std::io::Result<Vec<_>>>(),
            Err(error) if [ErrorKind::NotFound, ErrorKind::NotADirectory].contains(&error.kind()) => {
                return Ok(Vec::new());
            }
            Err(error) => Err(error),
        };
        let entries = entries.map_err(DataError::io(&self.folder, "list"))?;
        let mut names: Vec<String> =
            entries.into_iter().filter_map(|entry| entry.file_name().into_string().ok()).collect();
        names.sort_unstable();
        Ok(names)
    }
}

/// The indices of a part's images under a limit; `None`: all of them.
pub(crate) fn limited(photos: &Photos, limit: Option<usize>) -> Result<Option<Vec<usize>>, String> {
    let classes = crate::Dataset::classes(photos);
    limit.map(|limit| class_balanced_prefix(photos.labels(), classes, limit)).transpose()
}

/// Decodes the first, middle and last image again and compares: the decoder of another processor or version may differ.
pub(crate) fn check_decoding(prepared: &PreparedImages, photos: &Photos) -> Result<(), DataError> {
    let last = prepared.len().saturating_sub(1);
    let mut numbers = vec![0, last / 2, last];
    numbers.dedup();
    for number in numbers {
        if number >= prepared.len() || prepared.is_damaged(number) {
            continue;
        }
        let path = photos.path(prepared.index(number));
        let geometry = photos.geometry();
        let decoded = match Picture::decode(path, 3, geometry.max_pixels) {
            Ok(picture) => geometry.resized(picture).ok(),
            Err(DataError::Decode { .. }) => None,
            Err(error) => return Err(error),
        };
        let is_same = prepared.with_pixels(number, |[height, width], pixels| {
            decoded.is_some_and(|picture| {
                let mut planar = vec![0; picture.pixels.len()];
                picture.write_planar([0, 0], [picture.height, picture.width], &mut planar);
                ([picture.height, picture.width], &*planar) == ([height, width], pixels)
            })
        })?;
        if !is_same {
            let problem = format!(
                "decoding {} gives other pixels than those in it (the image was changed, or another version or processor \
                 decoded it); {AGAIN}",
                path.display()
            );
            return Err(DataError::prepared(prepared.path(), problem));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
