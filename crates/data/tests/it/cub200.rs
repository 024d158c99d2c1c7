//! CUB-200-2011's index files.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use thinet_data::{ChannelOrder, DatasetSpec, PhotoSpec, examine, open};

use crate::{first_bytes, jpeg, labels};

fn spec() -> DatasetSpec {
    DatasetSpec::Cub200(PhotoSpec { side: Some(8), crop: Some(8), ..PhotoSpec::default() })
}

/// Two images of each of 200 classes, numbered from the last class to the first: one for training, one for testing.
fn example(folder: &Path) {
    let (mut images, mut classes, mut split) = (String::new(), String::new(), String::new());
    for i in 0..400 {
        let (id, class) = (i + 1, 200 - i / 2);
        let name = format!("{class:03}.Bird/Bird_{i}.jpg");
        jpeg(&folder.join("images").join(&name), class as u8);
        writeln!(images, "{id} {name}").unwrap();
        writeln!(classes, "{id} {class}").unwrap();
        writeln!(split, "{id} {}", i % 2).unwrap();
    }
    fs::write(folder.join("images.txt"), images).unwrap();
    fs::write(folder.join("image_class_labels.txt"), classes).unwrap();
    fs::write(folder.join("train_test_split.txt"), split).unwrap();
}

fn says(folder: &Path) -> String {
    open(&spec(), folder).err().unwrap().to_string().replace(&folder.display().to_string(), "DIR")
}

#[test]
fn the_index_files_say_class_and_split() {
    let folder = tempfile::tempdir().unwrap();
    example(folder.path());
    let split = open(&spec(), folder.path()).unwrap();
    let expected: Vec<usize> = (0..200).rev().collect();
    for set in [&split.train, &split.test] {
        assert_eq!(labels(&**set), expected);
        assert_eq!((set.len(), set.classes(), set.name()), (200, 200, "CUB-200-2011"));
    }
    let bytes = first_bytes(&*split.train);
    assert!(bytes.iter().zip((1..=200u8).rev()).all(|(found, class)| found.abs_diff(class) <= 2));
    let normalisation = spec().normalisation();
    assert_eq!((normalisation.mean, normalisation.order), (vec![110.0, 127.0, 123.0], ChannelOrder::Bgr));
    let unusual = examine(&spec(), folder.path(), Some(10)).unwrap().unusual;
    assert_eq!(unusual, ["200 training images, officially 5994", "200 test images, officially 5794"]);
}

#[test]
fn faults_are_named_by_file_and_line() {
    let folder = tempfile::tempdir().unwrap();
    let missing = says(folder.path());
    assert!(missing.starts_with("DIR/images.txt: not found; CUB-200-2011's folder holds"), "{missing}");
    example(folder.path());
    let change = |name: &str, from: &str, to: &str| {
        let path = folder.path().join(name);
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains(from));
        fs::write(&path, text.replacen(from, to, 1)).unwrap();
        let error = says(folder.path());
        fs::write(&path, text).unwrap();
        error
    };
    assert_eq!(
        change("images.txt", "2 200", "two 200"),
        "DIR/images.txt: line 2: does not start with an image number"
    );
    assert_eq!(change("images.txt", "2 200", "1 200"), "DIR/images.txt: line 2: repeats an image number");
    let class = change("image_class_labels.txt", "1 200\n", "1 201\n");
    assert_eq!(class, "DIR/image_class_labels.txt: image 1: \"201\" is outside 1..=200");
    let short = change("train_test_split.txt", "\n400 1", "");
    assert_eq!(short, "DIR/train_test_split.txt: has no line for image 400");
    let no_test = change("train_test_split.txt", "1 0\n", "1 1\n");
    assert_eq!(no_test, "DIR/train_test_split.txt: class 200 has no test image");
    fs::remove_file(folder.path().join("images/200.Bird/Bird_0.jpg")).unwrap();
    assert!(says(folder.path()).starts_with("DIR/images/200.Bird/Bird_0.jpg: cannot read"));
}
