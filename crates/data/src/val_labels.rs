//! The lists of the classes of flat ImageNet validation images.
//!
//! Three are in use: the official ground truth, whose numbers follow the development kit's own order and need its
//! `meta.mat`; Kaggle's `LOC_val_solution.csv` with WordNet ids; Caffe's `val.txt`, numbers in WordNet-id order.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::DataError;
use crate::files;
use crate::imagenet::{CLASSES, is_wordnet_id};
use crate::index_file::{IndexFile, number};
use crate::mat5::{Value, struct_fields};

const GROUND_TRUTH: &str = "ILSVRC2012_validation_ground_truth.txt";
const META: &str = "meta.mat";
const KAGGLE: &str = "LOC_val_solution.csv";
const KAGGLE_HEADING: &str = "ImageId,PredictionString";
const CAFFE: &str = "val.txt";

/// Number of images in the whole validation set, and in each class.
const OFFICIAL: usize = 50_000;
const OFFICIAL_EACH: usize = OFFICIAL / CLASSES;

/// Where the lists are looked for, below the dataset's folder.
const PLACES: [&str; 5] = ["", "val", "devkit/data", "ILSVRC2012_devkit_t12/data", "data"];

/// A list that was read.
pub(crate) struct ValLabels {
    /// Its file.
    pub(crate) path: PathBuf,
    /// WordNet ids in the list's order.
    wnids: Vec<String>,
    /// Places in `wnids` by file name without extension; `None`: image 1, 2, 3 and so on.
    by_name: Option<BTreeMap<String, usize>>,
}

/// What to do if there is no list.
pub(crate) fn hint() -> String {
    format!(
        "flat validation images need their labels: {GROUND_TRUTH} with {META} beside it (development kit), {KAGGLE} \
         (Kaggle) or {CAFFE} (Caffe), in the dataset's folder or in its ILSVRC2012_devkit_t12/data"
    )
}

impl ValLabels {
    /// The first list that is found below one of `folders`; `classes` are the WordNet ids in order.
    pub(crate) fn find(folders: &[PathBuf], classes: &[String]) -> Result<Option<Self>, DataError> {
        for place in folders.iter().flat_map(|folder| PLACES.map(|place| folder.join(place))) {
            let [truth, kaggle_list, caffe_list] = [GROUND_TRUTH, KAGGLE, CAFFE].map(|name| place.join(name));
            let list = if files::is_file(&truth)? {
                official(&truth, &place.join(META))?
            } else if files::is_file(&kaggle_list)? {
                kaggle(&kaggle_list)?
            } else if files::is_file(&caffe_list)? {
                caffe(&caffe_list, classes)?
            } else {
                continue;
            };
            list.check_official_counts()?;
            return Ok(Some(list));
        }
        Ok(None)
    }

    /// The WordNet id of an image; `None` if it is not in the list.
    pub(crate) fn of(&self, image: &Path) -> Option<&str> {
        self.place_of(image).map(|place| self.wnids[place].as_str())
    }

    /// The WordNet id of each image of a folder. The list must have a label for each image and an image for each label;
    /// for a part of the classes, it may be that of all 50,000 images as well.
    pub(crate) fn of_all(&self, images: &[PathBuf], is_part: bool) -> Result<Vec<&str>, DataError> {
        let mut image_of: Vec<Option<&Path>> = vec![None; self.wnids.len()];
        let mut labels = Vec::with_capacity(images.len());
        for image in images {
            let place = self.place_of(image).ok_or_else(|| self.without_label(image))?;
            if let Some(other) = image_of[place].replace(image) {
                let problem = format!("has the label of {} in {}", other.display(), self.path.display());
                return Err(DataError::layout(image, problem));
            }
            labels.push(self.wnids[place].as_str());
        }
        if images.len() == self.wnids.len() || (is_part && self.wnids.len() == OFFICIAL) {
            return Ok(labels);
        }
        let lacking = image_of.iter().position(Option::is_none).unwrap_or_default();
        let problem = format!(
            "has {} labels for {} images; the first without an image is {}",
            self.wnids.len(),
            images.len(),
            self.name_of(lacking)
        );
        Err(DataError::format(&self.path, problem))
    }

    /// The error of an image that is not in the list.
    pub(crate) fn without_label(&self, image: &Path) -> DataError {
        DataError::layout(image, format!("has no label in {}", self.path.display()))
    }

    fn place_of(&self, image: &Path) -> Option<usize> {
        let stem = image.file_stem()?.to_str()?;
        match &self.by_name {
            Some(places) => places.get(stem).copied(),
            None => number(stem.strip_prefix("ILSVRC2012_val_")?)?.checked_sub(1),
        }
        .filter(|place| *place < self.wnids.len())
    }

    fn name_of(&self, place: usize) -> String {
        let name = self.by_name.iter().flatten().find(|(_, found)| **found == place);
        name.map_or_else(|| format!("image {}", place + 1), |(name, _)| name.clone())
    }

    /// Checks that a list of all images has the same number of each class. If not, a label is wrong, for example
    /// truncated.
    fn check_official_counts(&self) -> Result<(), DataError> {
        if self.wnids.len() != OFFICIAL {
            return Ok(());
        }
        let mut counts = BTreeMap::new();
        for wnid in &self.wnids {
            *counts.entry(wnid).or_insert(0) += 1;
        }
        match counts.into_iter().find(|(_, count)| *count != OFFICIAL_EACH) {
            None => Ok(()),
            Some((wnid, count)) => {
                let problem =
                    format!("has {count} labels of class {wnid}, the official lists have {OFFICIAL_EACH}");
                Err(DataError::format(&self.path, problem))
            }
        }
    }
}

/// Labels by image name, in the order of their lines.
struct LabelsByName<'a> {
    file: &'a IndexFile,
    wnids: Vec<String>,
    by_name: BTreeMap<String, usize>,
}

impl<'a> LabelsByName<'a> {
    fn new(file: &'a IndexFile) -> Self {
        Self { file, wnids: Vec::new(), by_name: BTreeMap::new() }
    }

    /// Adds a line. A second label for an image is an error, even if it is the same.
    fn add(&mut self, line: usize, image: &str, wnid: &str) -> Result<(), DataError> {
        let stem = Path::new(image).file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        if stem.is_empty() {
            return Err(self.file.bad(line, "names no image"));
        }
        if let Some(place) = self.by_name.insert(stem.to_owned(), self.wnids.len()) {
            let problem = format!("{stem} has a label already ({})", self.wnids[place]);
            return Err(self.file.bad(line, problem));
        }
        self.wnids.push(wnid.to_owned());
        Ok(())
    }

    fn done(self, path: &Path) -> ValLabels {
        ValLabels { path: path.to_owned(), wnids: self.wnids, by_name: Some(self.by_name) }
    }
}

/// One line for each image with the class number of the development kit.
fn official(truth: &Path, meta: &Path) -> Result<ValLabels, DataError> {
    let names = development_kit(meta)?;
    let file = IndexFile::read(truth, "")?;
    let mut wnids = Vec::new();
    for entry in file.lines() {
        let (line, text) = entry?;
        let id = number(text).ok_or_else(|| file.bad(line, format!("{text:?} is not a number")))?;
        let wnid = names.get(&id).ok_or_else(|| file.bad(line, format!("{META} has no class {id}")))?;
        wnids.push(wnid.clone());
    }
    Ok(ValLabels { path: truth.to_owned(), wnids, by_name: None })
}

/// The WordNet ids of the classes by the development kit's numbers.
fn development_kit(meta: &Path) -> Result<BTreeMap<usize, String>, DataError> {
    if !files::is_file(meta)? {
        let hint = format!(
            "the numbers in {GROUND_TRUTH} are the development kit's, not the order of the WordNet ids; without its \
             {META} every label would be wrong"
        );
        return Err(DataError::Missing { path: meta.to_owned(), hint });
    }
    let wrong = |problem: String| DataError::format(meta, problem);
    let bytes = fs::read(meta).map_err(DataError::io(meta, "read"))?;
    let mut names = BTreeMap::new();
    let mut ids = BTreeMap::new();
    for field in struct_fields(&bytes, ["ILSVRC2012_ID", "WNID"]).map_err(wrong)? {
        let [Value::Number(id), Value::Text(wnid)] = field else {
            return Err(wrong("has a class without number or WordNet id".to_owned()));
        };
        let is_number = id >= 1.0 && id.fract() == 0.0;
        if !is_number || !is_wordnet_id(&wnid) {
            return Err(wrong(format!("has a class {id} with the WordNet id {wnid:?}")));
        }
        // The kit also numbers superclasses: animals, vehicles and so on.
        let id = id as usize;
        if id > CLASSES {
            continue;
        }
        if let Some(other) = names.insert(id, wnid.clone()) {
            return Err(wrong(format!("has two classes {id}: {other} and {wnid}")));
        }
        if let Some(other) = ids.insert(wnid.clone(), id) {
            return Err(wrong(format!("has {wnid} twice: as class {other} and as class {id}")));
        }
    }
    Ok(names)
}

/// `ImageId,PredictionString`, then `ILSVRC2012_val_00000001,n01751748 111 108 407 370`: class and box of each object, all of
/// one class.
fn kaggle(path: &Path) -> Result<ValLabels, DataError> {
    let file = IndexFile::read(path, "")?;
    let mut labels = LabelsByName::new(&file);
    for entry in file.lines() {
        let (line, text) = entry?;
        if line == 0 {
            if text != KAGGLE_HEADING {
                return Err(file.bad(line, format!("is not the heading {KAGGLE_HEADING:?}")));
            }
            continue;
        }
        let (image, objects) =
            text.split_once(',').ok_or_else(|| file.bad(line, "is not `image,class x y x y …`"))?;
        let wnid = class_of_objects(objects).map_err(|problem| file.bad(line, problem))?;
        labels.add(line, image, wnid)?;
    }
    Ok(labels.done(path))
}

/// The class of `n01751748 111 108 407 370 n01751748 …`.
fn class_of_objects(objects: &str) -> Result<&str, String> {
    let words: Vec<&str> = objects.split_whitespace().collect();
    let first = *words.first().ok_or("has no class")?;
    for object in words.chunks(5) {
        let [wnid, sides @ ..] = object else { continue };
        if !is_wordnet_id(wnid) {
            return Err(format!("{wnid:?} is not a WordNet id (n and eight digits)"));
        }
        if sides.len() != 4 || sides.iter().any(|side| side.parse::<f64>().is_err()) {
            return Err(format!("{wnid} has no box of four numbers"));
        }
        if *wnid != first {
            return Err(format!("has two classes, {first} and {wnid}"));
        }
    }
    Ok(first)
}

/// `ILSVRC2012_val_00000001.JPEG 65`, classes numbered from 0 in WordNet-id order.
fn caffe(path: &Path, classes: &[String]) -> Result<ValLabels, DataError> {
    let file = IndexFile::read(path, "")?;
    let mut labels = LabelsByName::new(&file);
    for entry in file.lines() {
        let (line, text) = entry?;
        let words: Vec<&str> = text.split_whitespace().collect();
        let [image, label] = words[..] else { return Err(file.bad(line, "is not `image label`")) };
        let label = number(label).ok_or_else(|| file.bad(line, "is not `image label`"))?;
        let wnid = classes.get(label).ok_or_else(|| {
            let problem = format!("label {label} is outside 0..{} (numbered from 0?)", classes.len());
            file.bad(line, problem)
        })?;
        labels.add(line, image, wnid)?;
    }
    Ok(labels.done(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An element of a MATLAB file: tag, data, padding.
    fn element(kind: u32, data: &[u8]) -> Vec<u8> {
        let mut bytes = [kind.to_le_bytes(), (data.len() as u32).to_le_bytes()].concat();
        bytes.extend(data);
        bytes.resize(bytes.len().next_multiple_of(8), 0);
        bytes
    }

    /// An array: its class, size and contents.
    fn array(class: u8, sides: [u32; 2], contents: &[u8]) -> Vec<u8> {
        let sides = sides.map(u32::to_le_bytes).concat();
        element(
            14,
            &[
                element(6, &[class, 0, 0, 0, 0, 0, 0, 0]),
                element(5, &sides),
                element(1, &[]),
                contents.to_vec(),
            ]
            .concat(),
        )
    }

    /// A `meta.mat` with these numbers and WordNet ids.
    fn meta(classes: &[(f64, &str)]) -> Vec<u8> {
        let mut names = [0; 32];
        names[..13].copy_from_slice(b"ILSVRC2012_ID");
        names[16..20].copy_from_slice(b"WNID");
        let mut contents = [element(5, &16_u32.to_le_bytes()), element(1, &names)].concat();
        for (id, wnid) in classes {
            contents.extend(array(6, [1, 1], &element(9, &id.to_le_bytes())));
            contents.extend(array(4, [1, wnid.len() as u32], &element(16, wnid.as_bytes())));
        }
        let mut file = vec![0; 128];
        file[126..].copy_from_slice(b"IM");
        file.extend(array(2, [classes.len() as u32, 1], &contents));
        file
    }

    #[test]
    fn a_development_kit_that_contradicts_itself_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("meta.mat");
        let read = |classes: &[(f64, &str)]| {
            fs::write(&path, meta(classes)).unwrap();
            development_kit(&path)
                .map_err(|error| error.to_string().replace(&path.display().to_string(), "META"))
        };
        // Numbers from 1001 on are superclasses.
        let good = read(&[(1000.0, "n01440764"), (1.0, "n02119789"), (1001.0, "n02119789")]).unwrap();
        assert_eq!(good, BTreeMap::from([(1, "n02119789".to_owned()), (1000, "n01440764".to_owned())]));
        for (second, expected) in [
            ((1.0, "n01440764"), "META: has two classes 1: n02119789 and n01440764"),
            ((2.0, "n02119789"), "META: has n02119789 twice: as class 1 and as class 2"),
            ((2.0, "n0211978"), "META: has a class 2 with the WordNet id \"n0211978\""),
            ((1.5, "n01440764"), "META: has a class 1.5 with the WordNet id \"n01440764\""),
            ((0.0, "n01440764"), "META: has a class 0 with the WordNet id \"n01440764\""),
        ] {
            assert_eq!(read(&[(1.0, "n02119789"), second]).unwrap_err(), expected);
        }
    }
}
