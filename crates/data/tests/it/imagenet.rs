//! ImageNet's layouts: class order, flat validation images with each of the three lists, and what people get wrong.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use thinet_data::{DatasetSpec, ImagenetSpec, Protocol, Split, examine, open};

use crate::{first_bytes, jpeg, labels};

/// Classes whose folders sort in another order than the development kit numbers them.
const CLASSES: [&str; 3] = ["n00001740", "n01440764", "n02119789"];

fn spec() -> ImagenetSpec {
    let keys = "classes = 3\nprotocol = 'caffe-squash'\nside = 8\ncrop = 8";
    toml::from_str(keys).unwrap()
}

fn opened(spec: &ImagenetSpec, folder: &Path) -> Result<Split, String> {
    let split = open(&DatasetSpec::Imagenet(spec.clone()), folder);
    split.map_err(|error| error.to_string().replace(&folder.display().to_string(), "DIR"))
}

fn says(folder: &Path) -> String {
    opened(&spec(), folder).err().unwrap()
}

/// Two training images for each class, grey levels 10, 20, … in class order.
fn train(folder: &Path) {
    for (i, class) in CLASSES.iter().enumerate() {
        for k in 0..2 {
            let value = (20 * i + 10 * k + 10) as u8;
            jpeg(&folder.join("train").join(class).join(format!("{class}_{k}.JPEG")), value);
        }
    }
}

/// Validation images 1, 2, 3 of the classes n02119789, n00001740, n01440764, flat; grey levels 100, 110, 120.
fn flat(folder: &Path) {
    for i in 0..3 {
        jpeg(&folder.join(format!("val/ILSVRC2012_val_0000000{}.JPEG", i + 1)), 100 + 10 * i);
    }
}

/// The validation images above in class folders.
fn sorted(folder: &Path) {
    for (i, class) in ["n02119789", "n00001740", "n01440764"].iter().enumerate() {
        jpeg(&folder.join(format!("val/{class}/ILSVRC2012_val_0000000{}.JPEG", i + 1)), 100 + 10 * i as u8);
    }
}

fn close(found: &[u8], expected: &[u8]) {
    assert_eq!(found.len(), expected.len());
    assert!(found.iter().zip(expected).all(|(a, b)| a.abs_diff(*b) <= 2), "{found:?} for {expected:?}");
}

#[test]
fn classes_are_in_wordnet_order_and_flat_images_get_their_labels_from_any_list() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    train(folder.path());
    flat(folder.path());
    let hint = says(folder.path());
    assert!(hint.contains("LOC_val_solution.csv") && hint.contains("meta.mat"), "{hint}");

    let check = || {
        let split = opened(&spec(), folder.path()).unwrap();
        close(&first_bytes(&*split.train), &[10, 20, 30, 40, 50, 60]);
        assert_eq!(labels(&*split.train), [0, 0, 1, 1, 2, 2]);
        close(&first_bytes(&*split.test), &[100, 110, 120]);
        assert_eq!(labels(&*split.test), [2, 0, 1]);
    };
    fs::write(
        path("val.txt"),
        "ILSVRC2012_val_00000001.JPEG 2\nILSVRC2012_val_00000002.JPEG 0\nILSVRC2012_val_00000003.JPEG 1\n",
    )
    .unwrap();
    check();
    fs::remove_file(path("val.txt")).unwrap();
    let kaggle = "ImageId,PredictionString\nILSVRC2012_val_00000003,n01440764 1 2 3 4\nILSVRC2012_val_00000001,n02119789 1 2 3 4 n02119789 1 1 2 2\nILSVRC2012_val_00000002,n00001740 0 0 1 1\n";
    fs::write(path("LOC_val_solution.csv"), kaggle).unwrap();
    check();
    fs::remove_file(path("LOC_val_solution.csv")).unwrap();

    // The official list numbers classes by the development kit: 1 is n02119789, 4 n00001740, 2 n01440764.
    let devkit = path("ILSVRC2012_devkit_t12/data");
    fs::create_dir_all(&devkit).unwrap();
    fs::write(devkit.join("ILSVRC2012_validation_ground_truth.txt"), "1\n4\n2\n").unwrap();
    let no_meta = says(folder.path());
    assert!(
        no_meta.contains("meta.mat: not found") && no_meta.contains("every label would be wrong"),
        "{no_meta}"
    );
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/meta.mat");
    fs::copy(golden, devkit.join("meta.mat")).unwrap();
    check();

    fs::remove_dir_all(path("val")).unwrap();
    sorted(folder.path());
    let split = opened(&spec(), folder.path()).unwrap();
    assert_eq!(labels(&*split.test), [0, 1, 2]);
    close(&first_bytes(&*split.test), &[110, 120, 100]);
}

#[test]
fn class_folders_that_contradict_the_list_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    train(folder.path());
    sorted(folder.path());
    assert!(opened(&spec(), folder.path()).is_ok());
    let wrong =
        "ILSVRC2012_val_00000001.JPEG 0\nILSVRC2012_val_00000002.JPEG 0\nILSVRC2012_val_00000003.JPEG 1\n";
    fs::write(folder.path().join("val.txt"), wrong).unwrap();
    let expected = "DIR/val/n02119789/ILSVRC2012_val_00000001.JPEG: lies in the folder of class n02119789, DIR/val.txt says n00001740";
    assert_eq!(says(folder.path()), expected);
}

#[test]
fn layouts_that_people_end_up_with_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    sorted(folder.path());
    let missing = says(folder.path());
    assert!(missing.starts_with("DIR/train: not found"), "{missing}");

    fs::create_dir(path("train")).unwrap();
    assert_eq!(says(folder.path()), "DIR/train: is empty, expected a folder for each class");

    jpeg(&path("train/n01440764_1.JPEG"), 1);
    assert!(says(folder.path()).starts_with("DIR/train: is flat"));
    fs::remove_dir_all(path("train")).unwrap();

    jpeg(&path("train/0/a.JPEG"), 1);
    jpeg(&path("train/1/a.JPEG"), 1);
    assert!(says(folder.path()).starts_with("DIR/train: has numbered folders"));
    fs::remove_dir_all(path("train")).unwrap();

    train(folder.path());
    fs::write(path("train/n03000000.tar"), "").unwrap();
    assert!(says(folder.path()).starts_with("DIR/train: holds archives"));
    fs::remove_file(path("train/n03000000.tar")).unwrap();

    fs::create_dir(path("train/goldfish")).unwrap();
    assert_eq!(
        says(folder.path()),
        "DIR/train: holds \"goldfish\", which is not a WordNet id (n and eight digits)"
    );
    fs::remove_dir(path("train/goldfish")).unwrap();

    let whole = opened(&ImagenetSpec { classes: 1000, ..spec() }, folder.path()).err().unwrap();
    assert_eq!(
        whole,
        "DIR/train: has 3 class folders, expected 1000; for a part of ImageNet set the key `classes`"
    );

    fs::rename(path("train/n01440764/n01440764_0.JPEG"), path("train/n02119789/n01440764_0.JPEG")).unwrap();
    let mislabelled = "DIR/train/n02119789/n01440764_0.JPEG: lies in the folder of class n02119789, its name says n01440764";
    assert_eq!(says(folder.path()), mislabelled);
    fs::rename(path("train/n02119789/n01440764_0.JPEG"), path("train/n01440764/n01440764_0.JPEG")).unwrap();

    fs::rename(path("train/n01440764"), path("elsewhere")).unwrap();
    fs::create_dir(path("train/n01440764")).unwrap();
    assert_eq!(says(folder.path()), "DIR/train/n01440764: has no image");
    fs::remove_dir(path("train/n01440764")).unwrap();
    fs::rename(path("elsewhere"), path("train/n01440764")).unwrap();

    fs::rename(path("val/n01440764"), path("val/n01440765")).unwrap();
    assert_eq!(says(folder.path()), "DIR/val: has no class n01440764, but train has");
    fs::rename(path("val/n01440765"), path("val/n01440764")).unwrap();
    jpeg(&path("val/n09999999/a.JPEG"), 1);
    assert_eq!(says(folder.path()), "DIR/val: has the class n09999999, but train has not");
    fs::remove_dir_all(path("val/n09999999")).unwrap();
    fs::rename(path("val/n01440764"), path("val/7")).unwrap();
    assert!(says(folder.path()).starts_with("DIR/val: has numbered folders"));
}

#[test]
fn lists_with_faults_are_named_by_line() {
    let folder = tempfile::tempdir().unwrap();
    train(folder.path());
    flat(folder.path());
    let with = |text: &str| {
        fs::write(folder.path().join("val.txt"), text).unwrap();
        says(folder.path())
    };
    assert_eq!(with("x"), "DIR/val.txt: line 1: is not `image label`");
    let from_one = with("ILSVRC2012_val_00000001.JPEG 3\n");
    assert_eq!(from_one, "DIR/val.txt: line 1: label 3 is outside 0..3 (numbered from 0?)");
    let short = with("ILSVRC2012_val_00000001.JPEG 2\n");
    assert_eq!(short, "DIR/val/ILSVRC2012_val_00000002.JPEG: has no label in DIR/val.txt");
    let all_same: String = (1..4).map(|i| format!("ILSVRC2012_val_0000000{i}.JPEG 1\n")).collect();
    assert_eq!(with(&all_same), "DIR/val: has no image of class n00001740");
}

/// The development kit's folder with this ground truth.
fn development_kit(folder: &Path, truth: &str) {
    let devkit = folder.join("ILSVRC2012_devkit_t12/data");
    fs::create_dir_all(&devkit).unwrap();
    fs::write(devkit.join("ILSVRC2012_validation_ground_truth.txt"), truth).unwrap();
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/meta.mat");
    fs::copy(golden, devkit.join("meta.mat")).unwrap();
}

#[test]
fn lines_of_the_ground_truth_that_would_shift_labels_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    train(folder.path());
    flat(folder.path());
    let with = |truth: &str| {
        development_kit(folder.path(), truth);
        opened(&spec(), folder.path()).map(|split| labels(&*split.test))
    };
    for whole in ["1\n4\n2\n", "1\n4\n2", "\u{feff}1\r\n4\r\n2\r\n", "1\n4\n2\n\n"] {
        assert_eq!(with(whole), Ok(vec![2, 0, 1]), "{whole:?}");
    }
    let list = "DIR/ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt";
    for (truth, problem) in [
        ("1\n\n4\n2\n", "line 2: is blank"),
        ("1\n4 2\n2\n", "line 2: \"4 2\" is not a number"),
        ("1\n4\n-2\n", "line 3: \"-2\" is not a number"),
        ("1\n4\n5\n", "line 3: meta.mat has no class 5"),
        ("1\n4\n2\n2\n", "has 4 labels for 3 images; the first without an image is image 4"),
        ("", "is empty"),
    ] {
        assert_eq!(with(truth), Err(format!("{list}: {problem}")), "{truth:?}");
    }
    let short = "DIR/val/ILSVRC2012_val_00000003.JPEG: has no label in ".to_owned() + list;
    assert_eq!(with("1\n4\n"), Err(short));
}

#[test]
fn contradictory_lines_of_the_other_lists_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    train(folder.path());
    flat(folder.path());
    let image = |n: u32, rest: &str| format!("ILSVRC2012_val_0000000{n}{rest}\n");
    let caffe = |lines: &[(u32, &str)]| {
        fs::write(
            path("val.txt"),
            lines.iter().map(|(n, label)| image(*n, &format!(".JPEG {label}"))).collect::<String>(),
        )
        .unwrap();
        says(folder.path())
    };
    assert_eq!(
        caffe(&[(1, "2"), (2, "0"), (1, "1"), (3, "1")]),
        "DIR/val.txt: line 3: ILSVRC2012_val_00000001 has a label already (n02119789)"
    );
    let twice = caffe(&[(1, "2"), (1, "2")]);
    assert_eq!(twice, "DIR/val.txt: line 2: ILSVRC2012_val_00000001 has a label already (n02119789)");
    assert_eq!(caffe(&[(1, "2 1")]), "DIR/val.txt: line 1: is not `image label`");
    assert_eq!(caffe(&[(1, "2\n"), (2, "0")]), "DIR/val.txt: line 2: is blank");
    assert_eq!(
        caffe(&[(1, "2"), (2, "0"), (3, "1"), (4, "1")]),
        "DIR/val.txt: has 4 labels for 3 images; the first without an image is ILSVRC2012_val_00000004"
    );
    // The same image under two names.
    fs::copy(path("val/ILSVRC2012_val_00000003.JPEG"), path("val/ILSVRC2012_val_00000003.jpg")).unwrap();
    assert_eq!(
        caffe(&[(1, "2"), (2, "0"), (3, "1"), (4, "1")]),
        "DIR/val/ILSVRC2012_val_00000003.jpg: has the label of DIR/val/ILSVRC2012_val_00000003.JPEG in DIR/val.txt"
    );
    fs::remove_file(path("val/ILSVRC2012_val_00000003.jpg")).unwrap();
    fs::remove_file(path("val.txt")).unwrap();

    let kaggle = |text: &str| {
        fs::write(path("LOC_val_solution.csv"), text).unwrap();
        says(folder.path()).replace("DIR/LOC_val_solution.csv: ", "")
    };
    let line = |n, rest: &str| format!("ImageId,PredictionString\n{}", image(n, rest));
    assert_eq!(
        kaggle(&image(1, ",n02119789 1 2 3 4")),
        "line 1: is not the heading \"ImageId,PredictionString\""
    );
    assert_eq!(
        kaggle(&line(1, ",n0211978 1 2 3 4")),
        "line 2: \"n0211978\" is not a WordNet id (n and eight digits)"
    );
    assert_eq!(kaggle(&line(1, ",n02119789 1 2 3")), "line 2: n02119789 has no box of four numbers");
    assert_eq!(
        kaggle(&line(1, ",n02119789 1 2 3 4 n01440764 1 2 3 4")),
        "line 2: has two classes, n02119789 and n01440764"
    );
    assert_eq!(kaggle(&line(1, ",")), "line 2: has no class");
    assert_eq!(kaggle(&line(1, "")), "line 2: is not `image,class x y x y …`");
}

#[test]
fn a_list_of_all_images_serves_a_part_and_has_fifty_of_each_class() {
    let folder = tempfile::tempdir().unwrap();
    train(folder.path());
    flat(folder.path());
    let mut text = "ImageId,PredictionString\n".to_owned();
    let mut classes: Vec<String> = (0..997).map(|i| format!("n1{i:07}")).collect();
    classes.splice(0..0, ["n02119789", "n00001740", "n01440764"].map(str::to_owned));
    for i in 0..50_000 {
        writeln!(text, "ILSVRC2012_val_{:08},{} 1 2 3 4", i + 1, classes[i % 1000]).unwrap();
    }
    let list = folder.path().join("LOC_val_solution.csv");
    fs::write(&list, &text).unwrap();
    assert_eq!(labels(&*opened(&spec(), folder.path()).unwrap().test), [2, 0, 1]);
    // A folder with all classes needs all images.
    fs::write(&list, text.replacen("00001001,n02119789", "00001001,n00001740", 1)).unwrap();
    assert_eq!(
        says(folder.path()),
        "DIR/LOC_val_solution.csv: has 51 labels of class n00001740, the official lists have 50"
    );
}

#[test]
fn kaggles_archive_is_found_with_its_list_from_each_of_its_folders() {
    let folder = tempfile::tempdir().unwrap();
    let images = folder.path().join("ILSVRC/Data/CLS-LOC");
    train(&images);
    flat(&images);
    fs::create_dir_all(images.join("test")).unwrap();
    // Names and running numbers, no labels.
    let sets = folder.path().join("ILSVRC/ImageSets/CLS-LOC");
    fs::create_dir_all(&sets).unwrap();
    fs::write(sets.join("val.txt"), "ILSVRC2012_val_00000001 1\nILSVRC2012_val_00000002 2\n").unwrap();
    let without = says(folder.path());
    assert!(without.contains("flat validation images need their labels"), "{without}");
    let kaggle = "ImageId,PredictionString\nILSVRC2012_val_00000003,n01440764 1 2 3 4 \nILSVRC2012_val_00000001,n02119789 1 2 3 4 n02119789 1 1 2 2 \nILSVRC2012_val_00000002,n00001740 0 0 1 1 \n";
    fs::write(folder.path().join("LOC_val_solution.csv"), kaggle).unwrap();
    let mut fingerprints = Vec::new();
    for place in ["", "ILSVRC", "ILSVRC/Data/CLS-LOC"] {
        let split = opened(&spec(), &folder.path().join(place)).unwrap();
        assert_eq!(
            (labels(&*split.train), labels(&*split.test)),
            (vec![0, 0, 1, 1, 2, 2], vec![2, 0, 1]),
            "{place}"
        );
        fingerprints.push([split.train.fingerprint().to_owned(), split.test.fingerprint().to_owned()]);
    }
    fingerprints.dedup();
    assert_eq!(fingerprints.len(), 1);
    // Under another name than Kaggle's, with the list in it.
    let renamed = folder.path().join("photos");
    fs::rename(folder.path().join("ILSVRC"), &renamed).unwrap();
    fs::rename(folder.path().join("LOC_val_solution.csv"), renamed.join("LOC_val_solution.csv")).unwrap();
    assert_eq!(labels(&*opened(&spec(), &renamed).unwrap().test), [2, 0, 1]);
}

#[test]
fn litter_is_neither_class_nor_image() {
    let folder = tempfile::tempdir().unwrap();
    train(folder.path());
    sorted(folder.path());
    let fingerprint = || opened(&spec(), folder.path()).unwrap().train.fingerprint().to_owned();
    let clean = fingerprint();
    for name in [
        "train/@eaDir",
        "train/n01440764/@eaDir",
        "val/__MACOSX",
        "val/n01440764/lost+found",
        "train/#recycle",
    ] {
        fs::create_dir_all(folder.path().join(name)).unwrap();
    }
    for name in [
        "train/Thumbs.db",
        "train/n01440764/._n01440764_0.JPEG",
        "val/n01440764/desktop.ini",
        "val/.DS_Store",
    ] {
        fs::write(folder.path().join(name), "").unwrap();
    }
    assert_eq!(fingerprint(), clean);
}

#[cfg(unix)]
#[test]
fn names_that_are_not_utf8_are_refused_when_the_data_is_opened() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt as _;
    let folder = tempfile::tempdir().unwrap();
    train(folder.path());
    sorted(folder.path());
    let odd: PathBuf = folder.path().join("train/n01440764").join(OsStr::from_bytes(b"caf\xe9.JPEG"));
    jpeg(&odd, 1);
    let error = says(folder.path());
    assert!(error.starts_with("DIR/train/n01440764/caf") && error.contains("not UTF-8"), "{error}");
    // A folder above may have any name.
    fs::remove_file(odd).unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    let moved = elsewhere.path().join(OsStr::from_bytes(b"\xff\xfe"));
    fs::rename(folder.path(), &moved).unwrap();
    assert_eq!(first_bytes(&*opened(&spec(), &moved).unwrap().train).len(), 6);
}

#[test]
fn a_part_of_the_classes_takes_its_share_of_flat_images() {
    let folder = tempfile::tempdir().unwrap();
    train(folder.path());
    flat(folder.path());
    fs::remove_dir_all(folder.path().join("train/n00001740")).unwrap();
    let kaggle = "ImageId,PredictionString\nILSVRC2012_val_00000001,n02119789 1 2 3 4\nILSVRC2012_val_00000002,n00001740 1 2 3 4\nILSVRC2012_val_00000003,n01440764 1 2 3 4\n";
    fs::write(folder.path().join("LOC_val_solution.csv"), kaggle).unwrap();
    let split = opened(&ImagenetSpec { classes: 2, ..spec() }, folder.path()).unwrap();
    assert_eq!(labels(&*split.test), [1, 0]);
}

#[test]
fn all_classes_need_a_list_of_the_flat_images_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let classes: Vec<String> = (0..1000).map(|i| format!("n{i:08}")).collect();
    jpeg(&path("image.JPEG"), 1);
    fs::create_dir(path("val")).unwrap();
    for (i, class) in classes.iter().enumerate() {
        fs::create_dir_all(path("train").join(class)).unwrap();
        fs::hard_link(path("image.JPEG"), path("train").join(class).join(format!("{class}_1.JPEG"))).unwrap();
        fs::hard_link(path("image.JPEG"), path(&format!("val/ILSVRC2012_val_{:08}.JPEG", i + 1))).unwrap();
    }
    let with = |images: usize, class: &dyn Fn(usize) -> String| {
        let mut text = "ImageId,PredictionString\n".to_owned();
        for i in 0..images {
            writeln!(text, "ILSVRC2012_val_{:08},{} 1 2 3 4", i + 1, class(i)).unwrap();
        }
        fs::write(path("LOC_val_solution.csv"), text).unwrap();
        opened(&ImagenetSpec { classes: 1000, ..spec() }, folder.path()).map(|split| labels(&*split.test))
    };
    assert_eq!(with(1000, &|i| classes[i].clone()), Ok((0..1000).collect()));
    let all = "DIR/LOC_val_solution.csv: has 50000 labels for 1000 images; the first without an image is ILSVRC2012_val_00001001";
    assert_eq!(with(50_000, &|i| classes[i % 1000].clone()), Err(all.to_owned()));
    let stranger = "DIR/val/ILSVRC2012_val_00000001.JPEG: is of class n99999999 by DIR/LOC_val_solution.csv, but train has no such class";
    let other = |i: usize| if i == 0 { "n99999999".to_owned() } else { classes[i].clone() };
    assert_eq!(with(1000, &other), Err(stranger.to_owned()));
}

#[test]
fn selectors_see_the_training_images_by_their_own_protocol() {
    let folder = tempfile::tempdir().unwrap();
    train(folder.path());
    sorted(folder.path());
    let same = opened(&spec(), folder.path()).unwrap();
    assert_eq!(same.calibration.fingerprint(), same.train.fingerprint());
    let keys = ImagenetSpec {
        protocol: Protocol::CaffeShort,
        calibration_protocol: Some(Protocol::CaffeSquash),
        train_limit: Some(3),
        ..spec()
    };
    let own = opened(&keys, folder.path()).unwrap();
    assert_ne!(own.calibration.fingerprint(), own.train.fingerprint());
    assert_eq!((own.calibration.len(), labels(&*own.calibration)), (3, labels(&*own.train)));
}

#[test]
fn an_examination_lists_what_cannot_be_decoded_and_unusual_counts() {
    let folder = tempfile::tempdir().unwrap();
    train(folder.path());
    sorted(folder.path());
    let file = folder.path().join("train/n01440764/n01440764_1.JPEG");
    let bytes = fs::read(&file).unwrap();
    fs::write(&file, &bytes[..bytes.len() / 2]).unwrap();
    let found = examine(&DatasetSpec::Imagenet(spec()), folder.path(), None).unwrap();
    assert_eq!((found.decoded, found.damaged.len(), found.unusual.len()), (9, 1, 0));
    assert!(
        found.damaged[0].contains("n01440764_1.JPEG: ") && found.damaged[0].contains("cut off"),
        "{:?}",
        found.damaged
    );
    let sample = examine(&DatasetSpec::Imagenet(spec()), folder.path(), Some(4)).unwrap();
    assert_eq!(sample.decoded, 4);
}
