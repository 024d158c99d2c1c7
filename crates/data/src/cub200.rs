//! CUB-200-2011 from its own index files: `images.txt`, `image_class_labels.txt`, `train_test_split.txt` (Wah et al. 2011).

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use crate::photos::{Listing, Photos};
use crate::{DataError, Normalisation, PhotoSpec, Protocol, Split};

pub(crate) const NAME: &str = "CUB-200-2011";
pub(crate) const CLASSES: usize = 200;
/// What the authors' CUB-200 runs use (`fine-tune-avg-vgg16`).
pub(crate) const PROTOCOL: Protocol = Protocol::CaffeSquash;
/// Their mean for this set, subtracted from B, G and R.
const MEAN: [f32; 3] = [110.0, 127.0, 123.0];

/// As the protocol says; Caffe's protocols with the mean of the authors' CUB-200 runs.
pub(crate) fn normalisation(protocol: Protocol) -> Normalisation {
    match protocol {
        Protocol::CaffeSquash | Protocol::CaffeShort => Protocol::caffe_normalisation(MEAN),
        Protocol::Torchvision => protocol.normalisation(),
    }
}

/// Opens both splits: reads the index files and finds every image; nothing is decoded.
pub(crate) fn open(spec: &PhotoSpec, folder: &Path) -> Result<Split, DataError> {
    let images = index(folder, "images.txt")?;
    let classes = numbers(folder, "image_class_labels.txt", 1..=CLASSES)?;
    let is_train = numbers(folder, "train_test_split.txt", 0..=1)?;
    let empty = || Listing { files: Vec::new(), labels: Vec::new(), classes: CLASSES };
    let (mut train, mut test) = (empty(), empty());
    for (id, name) in &images {
        let of = |list: &BTreeMap<u64, usize>, file: &str| {
            let problem = || DataError::format(&folder.join(file), format!("has no line for image {id}"));
            list.get(id).copied().ok_or_else(problem)
        };
        let class = of(&classes, "image_class_labels.txt")?;
        let part = if of(&is_train, "train_test_split.txt")? == 1 { &mut train } else { &mut test };
        part.files.push(folder.join("images").join(name));
        part.labels.push(class - 1);
    }
    for (part, name) in [(&train, "training"), (&test, "test")] {
        if let Some(class) = (0..CLASSES).find(|class| !part.labels.contains(class)) {
            let problem = format!("class {} has no {name} image", class + 1);
            return Err(DataError::format(&folder.join("train_test_split.txt"), problem));
        }
    }
    let [geometry, calibration] = spec.geometries(PROTOCOL);
    let train = Photos::new(NAME, folder, train, geometry, spec.bad_files)?;
    let test = Photos::new(NAME, folder, test, geometry, spec.bad_files)?;
    Ok(Split {
        calibration: Arc::new(train.under(calibration)),
        train: Arc::new(train),
        test: Arc::new(test),
    })
}

/// Lines of `<image number> <text>`, by number.
fn index(folder: &Path, name: &str) -> Result<BTreeMap<u64, String>, DataError> {
    let path = folder.join(name);
    if !path.is_file() {
        let hint = "CUB-200-2011's folder holds images/, images.txt, image_class_labels.txt and train_test_split.txt \
                    (the folder CUB_200_2011 of the archive)";
        return Err(DataError::Missing { path, hint: hint.to_owned() });
    }
    let text = fs::read_to_string(&path).map_err(DataError::io(&path, "read"))?;
    let mut lines = BTreeMap::new();
    for (line, text) in text.lines().enumerate().filter(|(_, text)| !text.trim().is_empty()) {
        let bad = |problem: &str| DataError::format(&path, format!("line {}: {problem}", line + 1));
        let (id, rest) = text.trim().split_once(' ').ok_or_else(|| bad("is not `<image number> <value>`"))?;
        let id = id.parse().map_err(|_| bad("does not start with an image number"))?;
        if lines.insert(id, rest.trim().to_owned()).is_some() {
            return Err(bad("repeats an image number"));
        }
    }
    Ok(lines)
}

/// An index whose values are numbers in a range.
fn numbers(
    folder: &Path,
    name: &str,
    allowed: std::ops::RangeInclusive<usize>,
) -> Result<BTreeMap<u64, usize>, DataError> {
    let mut values = BTreeMap::new();
    for (id, text) in index(folder, name)? {
        let value = text.parse().ok().filter(|value| allowed.contains(value)).ok_or_else(|| {
            let problem = format!("image {id}: {text:?} is outside {}..={}", allowed.start(), allowed.end());
            DataError::format(&folder.join(name), problem)
        })?;
        values.insert(id, value);
    }
    Ok(values)
}
