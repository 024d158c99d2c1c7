//! What `thinet data check` finds beyond what opening refuses.

use std::fs;
use std::path::Path;

use thinet_data::{DataError, DatasetSpec, examine, open};

use crate::jpeg;

fn spec(keys: &str) -> DatasetSpec {
    toml::from_str(&format!("kind = 'image-folder'\nname = 'Pictures'\nsize = 8\n{keys}")).unwrap()
}

/// `each` images of each class in both splits.
fn example(folder: &Path, classes: &[&str], each: usize) {
    for part in ["train", "test"] {
        for class in classes {
            for i in 0..each {
                jpeg(&folder.join(part).join(class).join(format!("{i:03}.jpg")), i as u8);
            }
        }
    }
}

#[test]
fn all_damaged_files_of_an_image_folder_are_counted() {
    let folder = tempfile::tempdir().unwrap();
    example(folder.path(), &["ant", "bee"], 3);
    let damaged = ["test/bee/002.jpg", "train/ant/001.jpg", "train/bee/000.jpg"];
    for name in damaged {
        fs::write(folder.path().join(name), "no image").unwrap();
    }
    assert!(open(&spec(""), folder.path()).is_err());
    // A sample is for folders that a study does not hold in memory.
    for (keys, most, decoded) in
        [("", Some(4), 12), ("cache = false", None, 12), ("cache = false", Some(4), 4)]
    {
        let found = examine(&spec(keys), folder.path(), most).unwrap();
        assert_eq!((found.decoded, found.problems.len()), (decoded, 0));
        if decoded == 12 {
            let mut names: Vec<&str> = found
                .damaged
                .iter()
                .map(|text| &text.split_once(": ").unwrap().0[folder.path().as_os_str().len() + 1..])
                .collect();
            names.sort_unstable();
            assert_eq!(names, damaged);
        }
    }
}

#[test]
fn what_is_no_image_file_is_counted_and_the_rest_looked_at() {
    let folder = tempfile::tempdir().unwrap();
    example(folder.path(), &["ant", "bee"], 3);
    fs::create_dir(folder.path().join("train/ant/x.png")).unwrap();
    fs::write(folder.path().join("test/bee/notes.txt"), "notes").unwrap();
    fs::write(folder.path().join("train/bee/000.jpg"), "no image").unwrap();
    let error = open(&spec(""), folder.path()).err().unwrap().to_string();
    assert!(error.ends_with("train/ant/x.png: is a folder, expected a .png, .jpg or .jpeg file"), "{error}");
    let found = examine(&spec(""), folder.path(), None).unwrap();
    assert_eq!((found.decoded, found.damaged.len(), found.problems.len()), (12, 3, 0));
    for name in ["ant/x.png: is a folder", "notes.txt: is not a .png", "bee/000.jpg: "] {
        assert!(found.damaged.iter().any(|text| text.contains(name)), "{:?}", found.damaged);
    }
    for image in fs::read_dir(folder.path().join("test/ant")).unwrap() {
        fs::remove_file(image.unwrap().path()).unwrap();
    }
    let found = examine(&spec(""), folder.path(), None).unwrap();
    assert!(found.damaged.iter().any(|text| text.ends_with("test/ant: has no image")), "{:?}", found.damaged);
    assert_eq!(found.problems, ["all 3 test images are of one class"]);
}

#[cfg(unix)]
#[test]
fn a_file_that_cannot_be_read_stops_the_check_and_is_named() {
    let folder = tempfile::tempdir().unwrap();
    example(folder.path(), &["ant", "bee"], 2);
    let path = folder.path().join("train/ant/000.jpg");
    fs::remove_file(&path).unwrap();
    std::os::unix::fs::symlink("nowhere", &path).unwrap();
    let error = examine(&spec(""), folder.path(), None).err().unwrap();
    assert!(matches!(&error, DataError::Io { path: named, .. } if *named == path), "{error}");
}

#[test]
fn one_class_only_is_a_problem() {
    let folder = tempfile::tempdir().unwrap();
    example(folder.path(), &["ant"], 2);
    let found = examine(&spec(""), folder.path(), None).unwrap();
    assert_eq!(
        found.problems,
        ["all 2 training images are of one class", "all 2 test images are of one class"]
    );
}
