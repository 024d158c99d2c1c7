//! ImageNet's layouts: class order, flat validation images with each of the three lists, and what people get wrong.

use std::fs;
use std::path::Path;

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

    fs::rename(path("val/n01440764"), path("val/n01440765")).unwrap();
    assert_eq!(says(folder.path()), "DIR/val: has no class n01440764, train has");
    fs::rename(path("val/n01440765"), path("val/n01440764")).unwrap();
    jpeg(&path("val/n09999999/a.JPEG"), 1);
    assert_eq!(says(folder.path()), "DIR/val: has the class n09999999, train has not");
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

#[test]
fn a_part_of_the_classes_takes_its_share_of_flat_images() {
    let folder = tempfile::tempdir().unwrap();
    train(folder.path());
    flat(folder.path());
    fs::remove_dir_all(folder.path().join("train/n00001740")).unwrap();
    let kaggle = "ImageId,PredictionString\nILSVRC2012_val_00000001,n02119789 1\nILSVRC2012_val_00000002,n00001740 1\nILSVRC2012_val_00000003,n01440764 1\n";
    fs::write(folder.path().join("LOC_val_solution.csv"), kaggle).unwrap();
    let split = opened(&ImagenetSpec { classes: 2, ..spec() }, folder.path()).unwrap();
    assert_eq!(labels(&*split.test), [1, 0]);
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
