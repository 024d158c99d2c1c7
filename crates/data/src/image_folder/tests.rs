//! Image folders, opened as a study opens them.

use std::fs;

use image::{Rgb, RgbImage};

use super::*;
use crate::DatasetSpec;

/// As a study opens it.
fn opened(spec: &ImageFolderSpec, folder: &Path) -> Result<Split, DataError> {
    crate::open(&DatasetSpec::ImageFolder(spec.clone()), folder)
}

fn spec(size: usize) -> ImageFolderSpec {
    ImageFolderSpec {
        name: "Pictures".to_owned(),
        size,
        channels: 3,
        resize: Resize::Bicubic,
        test_folder: None,
        cache: None,
        max_pixels: None,
        train_limit: None,
        test_limit: None,
        validation: None,
    }
}

fn write(folder: &Path, name: &str, value: u8) {
    let path = folder.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    RgbImage::from_pixel(4, 4, Rgb([value, value + 1, value + 2])).save(path).unwrap();
}

/// Three training images and two test images in the classes ant and bee.
fn example() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, value) in [
        ("train/bee/1.png", 30),
        ("train/ant/b.PNG", 20),
        ("train/ant/a.png", 10),
        ("test/ant/x.png", 40),
        ("test/bee/x.png", 50),
    ] {
        write(folder.path(), name, value);
    }
    fs::write(folder.path().join("train/.hidden"), "not a class").unwrap();
    folder
}

fn first_bytes(dataset: &dyn Dataset) -> Vec<u8> {
    let mut out = vec![0; image_len(dataset.shape())];
    let read = |index| dataset.read(index, &mut out).map(|()| out[0]);
    (0..dataset.len()).map(read).collect::<Result<_, _>>().unwrap()
}

fn says(folder: &Path, spec: &ImageFolderSpec) -> String {
    let error = opened(spec, folder).err().unwrap().to_string();
    error.replace(&folder.display().to_string(), "DIR")
}

#[test]
fn classes_and_files_are_sorted_by_name_with_and_without_cache() {
    let folder = example();
    for cache in [true, false] {
        let cache = Some(cache);
        let split = opened(&ImageFolderSpec { cache, ..spec(4) }, folder.path()).unwrap();
        assert_eq!(first_bytes(&*split.train), [10, 20, 30]);
        assert_eq!(first_bytes(&*split.test), [40, 50]);
        assert_eq!([0, 1, 2].map(|index| split.train.label(index)), [0, 0, 1]);
        assert_eq!(
            (split.train.classes(), split.train.shape(), split.train.name()),
            (2, [3, 4, 4], "Pictures")
        );
        assert!(matches!(split.train.read(3, &mut [0; 48]), Err(DataError::Index { index: 3, .. })));
    }
}

#[test]
fn the_fingerprint_follows_names_sizes_and_decoding_but_not_the_cache() {
    let folder = example();
    let of = |spec: &ImageFolderSpec| opened(spec, folder.path()).unwrap().train.fingerprint().to_owned();
    let base = of(&spec(4));
    assert_eq!(base, of(&ImageFolderSpec { cache: Some(false), name: "Other".to_owned(), ..spec(4) }));
    assert_ne!(base, of(&spec(5)));
    assert_ne!(base, of(&ImageFolderSpec { channels: 1, ..spec(4) }));
    assert_ne!(base, of(&ImageFolderSpec { resize: Resize::Bilinear, ..spec(4) }));
    fs::rename(folder.path().join("train/ant/a.png"), folder.path().join("train/ant/c.png")).unwrap();
    let renamed = of(&spec(4));
    assert_ne!(base, renamed);
    let mut bytes = fs::read(folder.path().join("train/ant/c.png")).unwrap();
    bytes.push(0);
    fs::write(folder.path().join("train/ant/c.png"), bytes).unwrap();
    assert_ne!(renamed, of(&spec(4)));
}

#[test]
fn limits_leave_undrawn_images_undecoded() {
    let folder = example();
    fs::write(folder.path().join("train/ant/b.PNG"), "no image").unwrap();
    let limited = DatasetSpec::ImageFolder(ImageFolderSpec { train_limit: Some(2), ..spec(4) });
    let split = crate::open(&limited, folder.path()).unwrap();
    assert_eq!(first_bytes(&*split.train), [10, 30]);
    let whole = crate::open(&DatasetSpec::ImageFolder(spec(4)), folder.path()).err().unwrap();
    assert!(matches!(whole, DataError::Decode { path, .. } if path.ends_with("train/ant/b.PNG")));
    let four = DatasetSpec::ImageFolder(ImageFolderSpec { train_limit: Some(4), ..spec(4) });
    let error = crate::open(&four, folder.path()).err().unwrap();
    assert_eq!(error.to_string(), "key \"train-limit\": 4 is more than the 3 images there are (Pictures)");
    let one = DatasetSpec::ImageFolder(ImageFolderSpec { test_limit: Some(1), ..spec(4) });
    let error = crate::open(&one, folder.path()).err().unwrap().to_string();
    assert!(error.starts_with("key \"test-limit\": 1 is too few: each of the 2 classes"), "{error}");
}

#[test]
fn images_held_out_for_validation_are_in_no_set() {
    let folder = example();
    for (name, value) in [("train/bee/b.png", 35), ("train/bee/c.png", 36)] {
        write(folder.path(), name, value);
    }
    let opened = |validation, train_limit| {
        crate::open(
            &DatasetSpec::ImageFolder(ImageFolderSpec { validation, train_limit, ..spec(4) }),
            folder.path(),
        )
    };
    let whole = opened(None, None).unwrap();
    assert_eq!(first_bytes(&*whole.train), [10, 20, 30, 35, 36]);
    let split = opened(Some(2), None).unwrap();
    for kept in [&split.train, &split.calibration] {
        assert_eq!(first_bytes(&**kept), [10, 30, 35]);
        assert_ne!(kept.fingerprint(), whole.train.fingerprint());
    }
    assert_eq!(split.test.fingerprint(), whole.test.fingerprint());
    // Limits choose among what is left.
    assert_eq!(first_bytes(&*opened(Some(2), Some(2)).unwrap().train), [10, 30]);
    let error = opened(Some(2), Some(4)).err().unwrap().to_string();
    assert_eq!(error, "key \"train-limit\": 4 is more than the 3 images there are (Pictures)");
    let error = opened(Some(4), None).err().unwrap().to_string();
    assert_eq!(error, "key \"validation\": 4 held out leave no image of class 0 for training (Pictures)");
}

#[test]
fn val_serves_for_test_and_both_need_a_word() {
    let folder = example();
    fs::rename(folder.path().join("test"), folder.path().join("val")).unwrap();
    assert_eq!(first_bytes(&*open(&spec(4), folder.path(), &mut Err).unwrap().test), [40, 50]);
    write(folder.path(), "test/ant/1.png", 60);
    write(folder.path(), "test/bee/1.png", 70);
    let both = "DIR: has both test and val; the key test-folder must say which one to use";
    assert_eq!(says(folder.path(), &spec(4)), both);
    let named = ImageFolderSpec { test_folder: Some("test".to_owned()), ..spec(4) };
    assert_eq!(first_bytes(&*open(&named, folder.path(), &mut Err).unwrap().test), [60, 70]);
}

#[test]
fn litter_is_neither_class_nor_image_and_changes_no_fingerprint() {
    let folder = example();
    let of = || {
        let split = open(&spec(4), folder.path(), &mut Err).unwrap();
        assert_eq!((first_bytes(&*split.train), split.train.classes()), (vec![10, 20, 30], 2));
        split.train.fingerprint().to_owned()
    };
    let clean = of();
    for name in
        ["train/@eaDir/ant/a.png", "train/__MACOSX/x.png", "train/.AppleDouble/x", "train/lost+found/x"]
    {
        fs::create_dir_all(folder.path().join(name)).unwrap();
    }
    for name in ["train/Thumbs.db", "train/ant/desktop.ini", "train/ant/._a.png", "test/bee/.DS_Store"] {
        fs::write(folder.path().join(name), "litter").unwrap();
    }
    fs::create_dir(folder.path().join("train/ant/@eaDir")).unwrap();
    assert_eq!(of(), clean);
}

#[test]
fn an_image_above_the_limit_is_refused_by_name() {
    let folder = example();
    let small = ImageFolderSpec { max_pixels: Some(15), ..spec(4) };
    let error = says(folder.path(), &small);
    let expected = "DIR/train/ant/a.png: cannot decode the image: 4×4 are more than 15 pixels; the key \"max-pixels\" can allow more";
    assert_eq!(error, expected);
    let enough = ImageFolderSpec { max_pixels: Some(16), ..spec(4) };
    let fingerprint = |spec| open(spec, folder.path(), &mut Err).unwrap().train.fingerprint().to_owned();
    assert_eq!(fingerprint(&enough), fingerprint(&spec(4)));
}

#[cfg(unix)]
#[test]
fn names_that_are_not_utf8_are_read_like_any_other() {
    use std::os::unix::ffi::OsStrExt as _;
    let folder = example();
    for (part, value) in [("train", 60), ("test", 70)] {
        let class = std::ffi::OsStr::from_bytes(b"caf\xe9");
        write(&folder.path().join(part).join(class), "1.png", value);
    }
    let split = open(&spec(4), folder.path(), &mut Err).unwrap();
    assert_eq!(
        (first_bytes(&*split.train), first_bytes(&*split.test)),
        (vec![10, 20, 30, 60], vec![40, 50, 70])
    );
}

#[test]
fn wrong_layouts_are_errors_that_name_the_place() {
    let folder = example();
    let path = |name: &str| folder.path().join(name);
    let nowhere = says(&path("no"), &spec(4));
    assert!(nowhere.starts_with("DIR/train: not found; "), "{nowhere}");

    fs::create_dir(path("train/cat")).unwrap();
    let lacks = says(folder.path(), &spec(4));
    assert_eq!(lacks, "DIR/test: has no class cat, but the other split has; both need the same classes");
    fs::create_dir(path("test/cat")).unwrap();
    assert_eq!(says(folder.path(), &spec(4)), "DIR/train/cat: has no image");
    write(folder.path(), "train/cat/1.png", 1);
    fs::write(path("test/cat/notes.txt"), "").unwrap();
    let notes = "DIR/test/cat/notes.txt: is not a .png, .jpg or .jpeg file";
    assert_eq!(says(folder.path(), &spec(4)), notes);
    fs::rename(path("test/cat/notes.txt"), path("test/cat/notes.png")).unwrap();
    let empty = says(folder.path(), &spec(4));
    assert!(empty.starts_with("DIR/test/cat/notes.png: cannot decode the image: "), "{empty}");
    fs::write(path("test/readme"), "").unwrap();
    let stray = says(folder.path(), &spec(4));
    assert_eq!(stray, "DIR/test/readme: is not a folder, expected a folder for each class");
    fs::remove_dir_all(path("test")).unwrap();
    fs::create_dir(path("test")).unwrap();
    assert_eq!(says(folder.path(), &spec(4)), "DIR/test: is empty, expected a folder for each class");
}

#[test]
fn only_what_is_not_held_in_memory_is_decoded_each_time() {
    let folder = example();
    for (cache, expected) in [(Some(true), false), (Some(false), true), (None, false)] {
        let spec = DatasetSpec::ImageFolder(ImageFolderSpec { cache, ..spec(4) });
        let split = crate::open(&spec, folder.path()).unwrap();
        assert_eq!([&split.train, &split.test].map(|part| part.is_decoded_each_time()), [expected; 2]);
    }
}

/// A number of images of 1 KiB.
struct Kibibytes(usize);

impl Dataset for Kibibytes {
    fn name(&self) -> &str {
        "large"
    }

    fn classes(&self) -> usize {
        1
    }

    fn len(&self) -> usize {
        self.0
    }

    fn shape(&self) -> [usize; 3] {
        [2, 16, 32]
    }

    fn label(&self, _: usize) -> usize {
        0
    }

    fn read(&self, _: usize, _: &mut [u8]) -> Result<(), DataError> {
        Ok(())
    }

    fn fingerprint(&self) -> &str {
        ""
    }
}

#[test]
fn by_default_both_splits_together_are_held_up_to_two_gibibytes() {
    let is_held = |train, test, cache| {
        let split = Split::new(Arc::new(Kibibytes(train)), Arc::new(Kibibytes(test)));
        ImageFolderSpec { cache, ..spec(4) }.is_held_in_memory(&split)
    };
    let gibibyte = 1 << 20;
    assert!(is_held(gibibyte, gibibyte, None));
    assert!(!is_held(gibibyte, gibibyte + 1, None));
    assert!(!is_held(2 * gibibyte, 1, None));
    assert!(is_held(gibibyte, gibibyte + 1, Some(true)) && !is_held(1, 1, Some(false)));
}
