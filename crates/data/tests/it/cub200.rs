//! CUB-200-2011's index files.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use thinet_data::{ChannelOrder, Cub200Spec, DatasetSpec, PhotoSpec, examine, open};

use crate::{first_bytes, jpeg, labels};

fn spec() -> DatasetSpec {
    DatasetSpec::Cub200(Cub200Spec(PhotoSpec { side: Some(8), crop: Some(8), ..PhotoSpec::default() }))
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
fn the_folder_of_the_archive_is_found_in_the_one_that_it_lies_in() {
    let folder = tempfile::tempdir().unwrap();
    example(&folder.path().join("CUB_200_2011"));
    let fingerprint = |folder: &Path| open(&spec(), folder).unwrap().train.fingerprint().to_owned();
    assert_eq!(fingerprint(folder.path()), fingerprint(&folder.path().join("CUB_200_2011")));
    let mut lines = Vec::new();
    thinet_data::fetch(&spec(), folder.path(), &mut |line| lines.push(line.to_owned())).unwrap();
    assert_eq!(lines, [format!("CUB-200-2011 is in {}", folder.path().display())]);
}

#[test]
fn lines_that_would_shift_or_change_labels_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    example(folder.path());
    let labels = "image_class_labels.txt";
    let folders_by_name: String = (1..=200).map(|class| format!("{class} {class:03}.Bird\n")).collect();
    let short_of_one: String = folders_by_name.lines().take(199).map(|line| format!("{line}\n")).collect();
    fs::write(folder.path().join("classes.txt"), &folders_by_name).unwrap();
    assert!(open(&spec(), folder.path()).is_ok());
    for (name, from, to, expected) in [
        // A label that was cut short, in the middle and at the end of the file.
        (labels, "\n2 200\n", "\n2 20\n", "line 2: gives class 20, but the folder 200.Bird is numbered 200"),
        (labels, "\n400 1\n", "\n400 ", "line 400: is not `<number> <value>`"),
        (labels, "\n3 199\n", "\n3 199 4\n", "line 3: \"199 4\" is outside 1..=200"),
        (labels, "\n3 199\n", "\n3 +199\n", "line 3: \"+199\" is outside 1..=200"),
        // Lines too few, too many, blank, repeated, in another order.
        (labels, "\n400 1\n", "\n", "line 400: there are 399 lines, images.txt has 400 images"),
        (labels, "\n400 1\n", "\n400 1\n401 1\n", "line 401: there are 401 lines, images.txt has 400 images"),
        (labels, "\n3 199\n", "\n\n3 199\n", "line 3: is blank"),
        (
            labels,
            "\n3 199\n",
            "\n3 199\n3 199\n",
            "line 4: has the number 3, expected 4: numbers count up from 1",
        ),
        (labels, "\n3 199\n", "\n", "line 3: has the number 4, expected 3: numbers count up from 1"),
        (
            "train_test_split.txt",
            "\n400 1\n",
            "\n",
            "line 400: there are 399 lines, images.txt has 400 images",
        ),
        ("train_test_split.txt", "\n2 1\n", "\n2 2\n", "line 2: \"2\" is outside 0..=1"),
        (
            "images.txt",
            "\n400 001.Bird/Bird_399.jpg\n",
            "\n",
            "line 400: there are 400 lines, images.txt has 399 images",
        ),
        // One file under two numbers, and names that lead elsewhere.
        (
            "images.txt",
            "\n2 200.Bird/Bird_1.jpg",
            "\n2 200.Bird/Bird_0.jpg",
            "line 2: 200.Bird/Bird_0.jpg is image 1 already",
        ),
        (
            "images.txt",
            "200.Bird/Bird_1",
            "200.Bird//Bird_1",
            "line 2: \"200.Bird//Bird_1.jpg\" is not `<folder of the class>/<file>`",
        ),
        (
            "images.txt",
            "200.Bird/Bird_1",
            "../Bird_1",
            "line 2: \"../Bird_1.jpg\" is not `<folder of the class>/<file>`",
        ),
        (
            "images.txt",
            "200.Bird/Bird_1",
            "Bird_1",
            "line 2: \"Bird_1.jpg\" is not `<folder of the class>/<file>`",
        ),
        (
            "classes.txt",
            "3 003.Bird",
            "3 003.Bird\n3 003.Bird",
            "line 4: has the number 3, expected 4: numbers count up from 1",
        ),
        (
            "classes.txt",
            "3 003.Bird",
            "3 004.Bird",
            "line 3: gives class 3, but the folder 004.Bird is numbered 4",
        ),
        (
            "classes.txt",
            "3 003.Bird\n4 004.Bird",
            "3 Jay\n4 Jay",
            "line 4: gives class 4 to Jay, the folder of class 3",
        ),
        (
            "classes.txt",
            &folders_by_name,
            &short_of_one,
            "line 200: there are 199 lines, CUB-200-2011 has 200 classes",
        ),
    ] {
        let path = folder.path().join(name);
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains(from), "{from:?}");
        fs::write(&path, text.replacen(from, to, 1)).unwrap();
        let error = says(folder.path());
        fs::write(&path, text).unwrap();
        // The file that is shorter or longer than images.txt is named, whichever was changed.
        let name = if expected.contains("images.txt has") && name == "images.txt" { labels } else { name };
        assert_eq!(error, format!("DIR/{name}: {expected}"));
    }
    let other = folders_by_name.replace("200.Bird", "200.Jay");
    fs::write(folder.path().join("classes.txt"), other).unwrap();
    let contradicted = says(folder.path());
    assert_eq!(
        contradicted,
        "DIR/image_class_labels.txt: line 1: gives class 200 to 200.Bird, but the folder of that class is 200.Jay"
    );
}

#[test]
fn line_ends_of_windows_and_byte_order_marks_change_nothing() {
    let folder = tempfile::tempdir().unwrap();
    example(folder.path());
    let fingerprints = || {
        let split = open(&spec(), folder.path()).unwrap();
        [split.train.fingerprint().to_owned(), split.test.fingerprint().to_owned()]
    };
    let before = fingerprints();
    for name in ["images.txt", "image_class_labels.txt", "train_test_split.txt"] {
        let path = folder.path().join(name);
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, format!("\u{feff}{}\r\n", text.replace('\n', "\r\n"))).unwrap();
    }
    assert_eq!(fingerprints(), before);
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
        "DIR/images.txt: line 2: does not start with a number"
    );
    let class = change("image_class_labels.txt", "1 200\n", "1 201\n");
    assert_eq!(class, "DIR/image_class_labels.txt: line 1: \"201\" is outside 1..=200");
    let no_test = change("train_test_split.txt", "1 0\n", "1 1\n");
    assert_eq!(no_test, "DIR/train_test_split.txt: class 200 has no test image");
    fs::remove_file(folder.path().join("images/200.Bird/Bird_0.jpg")).unwrap();
    assert!(says(folder.path()).starts_with("DIR/images/200.Bird/Bird_0.jpg: cannot read"));
}
