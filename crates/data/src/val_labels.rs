//! The lists that say which class a flat validation image of ImageNet has.
//!
//! Three are in use: the official ground truth, whose numbers follow the development kit's own order and need its
//! `meta.mat`; Kaggle's `LOC_val_solution.csv` with WordNet ids; Caffe's `val.txt`, numbers in WordNet-id order.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::DataError;
use crate::mat5::{Value, struct_fields};

const GROUND_TRUTH: &str = "ILSVRC2012_validation_ground_truth.txt";
const META: &str = "meta.mat";
const KAGGLE: &str = "LOC_val_solution.csv";
const CAFFE: &str = "val.txt";

/// Where the lists are looked for, below the dataset's folder.
const PLACES: [&str; 5] = ["", "val", "devkit/data", "ILSVRC2012_devkit_t12/data", "data"];

/// What a list says.
pub(crate) struct ValLabels {
    /// The list.
    pub(crate) path: PathBuf,
    labels: Labels,
}

enum Labels {
    /// The WordNet id of image 1, 2, …
    InOrder(Vec<String>),
    /// By file name without extension.
    ByName(BTreeMap<String, String>),
}

/// What can be asked for when there is no list.
pub(crate) fn hint() -> String {
    format!(
        "flat validation images need their labels: {GROUND_TRUTH} with {META} beside it (development kit), {KAGGLE} \
         (Kaggle) or {CAFFE} (Caffe), in the dataset's folder or in its ILSVRC2012_devkit_t12/data"
    )
}

impl ValLabels {
    /// The first list that is found; `classes` are the WordNet ids in order.
    pub(crate) fn find(folder: &Path, classes: &[String]) -> Result<Option<Self>, DataError> {
        for place in PLACES.map(|place| folder.join(place)) {
            let truth = place.join(GROUND_TRUTH);
            if truth.is_file() {
                return official(&truth, &place.join(META)).map(Some);
            }
            for (name, read) in [(KAGGLE, kaggle as fn(&Path, &[String]) -> _), (CAFFE, caffe)] {
                let path = place.join(name);
                if path.is_file() {
                    let labels = Labels::ByName(read(&path, classes)?);
                    return Ok(Some(Self { path, labels }));
                }
            }
        }
        Ok(None)
    }

    /// The WordNet id of an image.
    pub(crate) fn of(&self, image: &Path) -> Result<&str, DataError> {
        let stem = image.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        let found = match &self.labels {
            Labels::ByName(labels) => labels.get(stem),
            Labels::InOrder(labels) => {
                let number =
                    stem.strip_prefix("ILSVRC2012_val_").and_then(|number| number.parse::<usize>().ok());
                number.and_then(|number| labels.get(number.checked_sub(1)?))
            }
        };
        found
            .map(String::as_str)
            .ok_or_else(|| DataError::layout(image, format!("has no label in {}", self.path.display())))
    }
}

fn read(path: &Path) -> Result<String, DataError> {
    fs::read_to_string(path).map_err(DataError::io(path, "read"))
}

fn bad_line(path: &Path, line: usize, problem: impl std::fmt::Display) -> DataError {
    DataError::format(path, format!("line {}: {problem}", line + 1))
}

/// A line for each image, a number of the development kit on it.
fn official(truth: &Path, meta: &Path) -> Result<ValLabels, DataError> {
    if !meta.is_file() {
        let hint = format!(
            "the numbers in {GROUND_TRUTH} are the development kit's, not the order of the WordNet ids; without its \
             {META} every label would be wrong"
        );
        return Err(DataError::Missing { path: meta.to_owned(), hint });
    }
    let bytes = fs::read(meta).map_err(DataError::io(meta, "read"))?;
    let fields = struct_fields(&bytes, ["ILSVRC2012_ID", "WNID"])
        .map_err(|problem| DataError::format(meta, problem))?;
    let mut names = BTreeMap::new();
    for field in fields {
        if let [Value::Number(id), Value::Text(wnid)] = field {
            names.insert(id as usize, wnid);
        }
    }
    let mut labels = Vec::new();
    for (line, text) in read(truth)?.lines().enumerate().filter(|(_, text)| !text.trim().is_empty()) {
        let id: usize =
            text.trim().parse().map_err(|_| bad_line(truth, line, format!("{text:?} is no number")))?;
        let wnid = names.get(&id);
        let wnid = wnid.ok_or_else(|| bad_line(truth, line, format!("{META} has no class {id}")))?;
        labels.push(wnid.clone());
    }
    Ok(ValLabels { path: truth.to_owned(), labels: Labels::InOrder(labels) })
}

/// `ImageId,PredictionString`, then `ILSVRC2012_val_00000001,n01751748 111 108 …`.
fn kaggle(path: &Path, _: &[String]) -> Result<BTreeMap<String, String>, DataError> {
    let mut labels = BTreeMap::new();
    for (line, text) in read(path)?.lines().enumerate().skip(1).filter(|(_, text)| !text.trim().is_empty()) {
        let entry =
            text.split_once(',').and_then(|(image, boxes)| Some((image, boxes.split_whitespace().next()?)));
        let (image, wnid) = entry.ok_or_else(|| bad_line(path, line, "is not `image,class …`"))?;
        labels.insert(image.to_owned(), wnid.to_owned());
    }
    Ok(labels)
}

/// `ILSVRC2012_val_00000001.JPEG 65`, classes numbered from 0 in WordNet-id order.
fn caffe(path: &Path, classes: &[String]) -> Result<BTreeMap<String, String>, DataError> {
    let mut labels = BTreeMap::new();
    for (line, text) in read(path)?.lines().enumerate().filter(|(_, text)| !text.trim().is_empty()) {
        let entry = text
            .trim()
            .rsplit_once(' ')
            .and_then(|(image, label)| Some((image, label.parse::<usize>().ok()?)));
        let (image, label) = entry.ok_or_else(|| bad_line(path, line, "is not `image label`"))?;
        let wnid = classes.get(label).ok_or_else(|| {
            bad_line(path, line, format!("label {label} is outside 0..{} (numbered from 0?)", classes.len()))
        })?;
        let stem = Path::new(image).file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        labels.insert(stem.to_owned(), wnid.clone());
    }
    Ok(labels)
}
