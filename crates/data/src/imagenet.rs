//! ILSVRC-2012 as people have it: training images in a folder for each class, validation images in class folders or flat
//! with a list of labels. Classes are numbered in WordNet-id order, whatever the order of the folders.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::photos::{Listing, Photos};
use crate::val_labels::{self, ValLabels};
use crate::{DataError, ImagenetSpec, Split};

pub(crate) const NAME: &str = "ImageNet";
pub(crate) const CLASSES: usize = 1000;

/// Opens both splits: lists all files and knows their labels; nothing is decoded.
pub(crate) fn open(spec: &ImagenetSpec, folder: &Path) -> Result<Split, DataError> {
    let train_folder = folder.join("train");
    let classes = train_classes(&train_folder, spec.classes)?;
    let train = class_folders(&train_folder, &classes)?;
    let test = validation(spec, folder, &classes)?;
    let photos = spec.photos();
    let [geometry, calibration] = photos.geometries(spec.protocol);
    let train = Photos::new(NAME, folder, train, geometry, photos.bad_files)?;
    let test = Photos::new(NAME, folder, test, geometry, photos.bad_files)?;
    Ok(Split {
        calibration: Arc::new(train.under(calibration)),
        train: Arc::new(train),
        test: Arc::new(test),
    })
}

/// The names in a folder, sorted, without hidden entries.
pub(crate) fn entries(folder: &Path) -> Result<Vec<String>, DataError> {
    if !folder.is_dir() {
        let hint = "ImageNet's folder holds train/<WordNet id>/ and val/, the latter in the same class folders or flat";
        return Err(DataError::Missing { path: folder.to_owned(), hint: hint.to_owned() });
    }
    let names =
        fs::read_dir(folder).and_then(|entries| entries.map(|entry| Ok(entry?.file_name())).collect());
    let names: Vec<std::ffi::OsString> = names.map_err(DataError::io(folder, "list"))?;
    let names = names.into_iter().map(|name| name.to_string_lossy().into_owned());
    let mut names: Vec<String> = names.filter(|name| !name.starts_with('.')).collect();
    names.sort_unstable();
    Ok(names)
}

/// The training classes: WordNet ids, in order. Says what is wrong with the layouts that people end up with.
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

fn is_wordnet_id(name: &str) -> bool {
    name.len() == 9 && name.starts_with('n') && name[1..].bytes().all(|byte| byte.is_ascii_digit())
}

fn is_image_name(path: &Path) -> bool {
    let extension = path.extension().and_then(OsStr::to_str).map(str::to_ascii_lowercase);
    extension.is_some_and(|extension| ["png", "jpg", "jpeg"].contains(&extension.as_str()))
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

/// Images in a folder for each of `classes`. A training image that carries another class in its name is refused.
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

fn validation(spec: &ImagenetSpec, folder: &Path, classes: &[String]) -> Result<Listing, DataError> {
    let val = folder.join("val");
    let names = entries(&val)?;
    let numbered = names.iter().any(|name| name.bytes().all(|byte| byte.is_ascii_digit()));
    if numbered {
        return Err(DataError::layout(
            &val,
            "has numbered folders; give them their original names (n01440764 …)",
        ));
    }
    let is_sorted_into_classes = names.iter().any(|name| is_wordnet_id(name) && val.join(name).is_dir());
    let labels = ValLabels::find(folder, classes)?;
    if is_sorted_into_classes {
        if let Some(class) = classes.iter().find(|class| names.binary_search(class).is_err()) {
            return Err(DataError::layout(&val, format!("has no class {class}, train has")));
        }
        if let Some(class) = names.iter().find(|name| is_wordnet_id(name) && !classes.contains(name)) {
            return Err(DataError::layout(&val, format!("has the class {class}, train has not")));
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
    let (mut files, mut labels) = (Vec::new(), Vec::new());
    let mut has_image = vec![false; classes.len()];
    let files_there = entries(&val)?.into_iter().map(|name| val.join(name));
    for file in files_there.filter(|file| is_image_name(file)) {
        let wnid = list.of(&file)?;
        match classes.binary_search_by(|class| class.as_str().cmp(wnid)) {
            Ok(label) => {
                has_image[label] = true;
                files.push(file);
                labels.push(label);
            }
            // Part of ImageNet: the list and the images are those of all classes.
            Err(_) if spec.classes < CLASSES => {}
            Err(_) => {
                let problem =
                    format!("is of class {wnid} by {}, train has no such class", list.path.display());
                return Err(DataError::layout(&file, problem));
            }
        }
    }
    if let Some(label) = has_image.iter().position(|has| !has) {
        return Err(DataError::layout(&val, format!("has no image of class {}", classes[label])));
    }
    Ok(Listing { files, labels, classes: classes.len() })
}

/// Class folders with a list beside them must say the same: a folder sorted by a wrong list is found out.
fn agrees(listing: Listing, classes: &[String], list: &ValLabels) -> Result<Listing, DataError> {
    for (file, label) in listing.files.iter().zip(&listing.labels) {
        // A list of other images says nothing about these.
        let Ok(wnid) = list.of(file) else { continue };
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
