//! Preparing photographs: equal to decoding, resumed, refused where space is short.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use image::{ImageFormat, Rgb, RgbImage};
use thinet_seed::Seed;

use super::*;
use crate::{Augment, Dataset, Loader, LoaderOptions, Split, Transform, open, open_with};

/// Classes of the images below.
const CLASSES: [&str; 2] = ["n01440764", "n02119789"];

/// A folder in ImageNet's layout: nine training and four test photographs of several sizes and both formats.
fn photographs(folder: &Path) {
    let save = |path: PathBuf, number: u32| {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let [width, height] = [[31, 20], [20, 33], [24, 24], [12, 50]][number as usize % 4];
        let pixel =
            |x: u32, y: u32| Rgb([x * 7 + number, y * 5 + x * y, number * (x + 3 * y)].map(|v| v as u8));
        let format = if number.is_multiple_of(3) { ImageFormat::Png } else { ImageFormat::Jpeg };
        RgbImage::from_fn(width, height, pixel).save_with_format(path, format).unwrap();
    };
    for number in 0..9 {
        let class = CLASSES[number as usize % 2];
        save(folder.join("train").join(class).join(format!("{class}_{number}.JPEG")), number);
    }
    for number in 0..4 {
        let class = CLASSES[number as usize % 2];
        save(folder.join("val").join(class).join(format!("ILSVRC2012_val_{number}.JPEG")), 20 + number);
    }
}

fn spec(protocol: &str, more: &str) -> DatasetSpec {
    let keys =
        format!("kind = 'imagenet'\nclasses = 2\nprotocol = '{protocol}'\nside = 16\ncrop = 11\n{more}");
    toml::from_str(&keys).unwrap()
}

/// Makes the files; returns them and the lines that were reported.
fn prepared(spec: &DatasetSpec, folder: &Path) -> Result<(Vec<PreparedFile>, Vec<String>), DataError> {
    let mut lines = Vec::new();
    let files = prepare(spec, folder, None, &mut |event| {
        if let FetchEvent::Line(line) = event {
            lines.push(line.replace(&folder.display().to_string(), "DIR"));
        }
    })?;
    Ok((files, lines))
}

/// The split as it is decoded each time.
fn decoded(spec: &DatasetSpec, folder: &Path) -> Split {
    let nowhere = folder.join("nowhere");
    let split = open_with(spec, folder, Some(&nowhere)).unwrap();
    assert!(split.train.prepared_file().is_none() && split.train.is_decoded_each_time());
    split
}

/// Every batch of two epochs, cropped and mirrored at random, and one of centre crops.
fn batches(set: &Arc<dyn Dataset>, spec: &DatasetSpec) -> Vec<crate::Batch> {
    let augment = Augment { random_crop: true, mirror: true, crop_padding: 0 };
    let plain =
        Transform { pad: 0, crop: None, normalisation: spec.normalisation(), augment: Augment::default() };
    let training = Transform { augment, ..plain.clone() };
    let options = LoaderOptions { batch: 4, drop_last: false, threads: 2, prefetch: 2 };
    let order: Vec<usize> = (0..set.len()).rev().collect();
    let mut all = Vec::new();
    for (transform, seed) in [(&training, Some(1)), (&training, Some(2)), (&plain, None)] {
        let seed = seed.map(Seed::root);
        let loader = Loader::new(Arc::clone(set), order.clone(), transform, seed, options).unwrap();
        all.extend(loader.map(Result::unwrap));
    }
    all
}

fn assert_equal(found: &Split, expected: &Split, spec: &DatasetSpec) {
    for (found, expected) in [
        (&found.train, &expected.train),
        (&found.calibration, &expected.calibration),
        (&found.test, &expected.test),
    ] {
        assert_eq!(found.fingerprint(), expected.fingerprint());
        assert_eq!(batches(found, spec), batches(expected, spec));
        assert_eq!(found.left_out(), expected.left_out());
    }
}

/// The error of opening the folder, with `DIR` for its name.
fn refusal(spec: &DatasetSpec, folder: &Path) -> String {
    match open(spec, folder) {
        Err(error @ DataError::Prepared { .. }) => {
            error.to_string().replace(&folder.display().to_string(), "DIR")
        }
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("opened"),
    }
}

#[test]
fn every_draw_from_a_prepared_file_is_that_of_decoding_to_the_bit() {
    for (protocol, more) in [
        ("caffe-squash", ""),
        ("caffe-short", ""),
        ("caffe-short", "train-limit = 5\ntest-limit = 2"),
        ("caffe-squash", "calibration-protocol = 'caffe-short'"),
        ("caffe-short", "max-pixels = 5000"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        photographs(folder);
        let spec = spec(protocol, more);
        let expected = decoded(&spec, folder);
        let (files, lines) = prepared(&spec, folder).unwrap();
        let found = open(&spec, folder).unwrap();
        for (set, file) in [(&found.train, &files[0]), (&found.test, &files[1])] {
            assert_eq!(set.prepared_file(), Some(&*file.path));
            assert_eq!((set.len(), set.is_decoded_each_time()), (file.images, false));
        }
        assert_eq!(found.calibration.prepared_file().is_some(), !more.contains("calibration-protocol"));
        assert_equal(&found, &expected, &spec);
        // Read from the file, as the image itself is destroyed; it is not one of those that are decoded for comparison.
        let reference = batches(&found.train, &spec);
        let image = folder.join("train/n01440764/n01440764_2.JPEG");
        let length = fs::metadata(&image).unwrap().len();
        fs::write(&image, vec![0; length as usize]).unwrap();
        assert_eq!(batches(&open(&spec, folder).unwrap().train, &spec), reference);
        assert!(lines[0].starts_with("preparing in DIR/prepared: "), "{lines:?}");
        assert!(lines[1].starts_with("prepared DIR/prepared/imagenet-train-"), "{lines:?}");
    }
}

#[test]
fn the_size_is_reported_beforehand_to_the_byte() {
    for protocol in ["caffe-squash", "caffe-short"] {
        let folder = tempfile::tempdir().unwrap();
        photographs(folder.path());
        let spec = spec(protocol, "");
        // One byte too few is too little.
        let bytes = Cell::new(0);
        let attempt = |free: u64| {
            prepare_with(&spec, folder.path(), None, &mut |_| (), &|_| {
                bytes.set(free);
                Ok(free)
            })
        };
        let needed = {
            let sets = spec.keys().photos(folder.path()).unwrap().unwrap();
            let place = Place::new(&spec, folder.path(), None);
            let train = Job::new(&place, Part::Train, &sets.train).unwrap();
            let test = Job::new(&place, Part::Test, &sets.test).unwrap();
            train.planned(&mut |_| ()).unwrap() + test.planned(&mut |_| ()).unwrap()
        };
        let error = attempt(needed - 1).unwrap_err();
        let text = error.to_string();
        assert!(matches!(error, DataError::Prepared { .. }), "{text}");
        assert!(text.contains("13 images take") && text.contains("too little; --prepared DIR"), "{text}");
        assert_eq!(fs::read_dir(folder.path().join("prepared")).unwrap().count(), 0);
        let files = attempt(needed).unwrap();
        assert_eq!(files.iter().map(|file| file.bytes).sum::<u64>(), needed);
        assert_eq!(bytes.get(), needed);
    }
}

/// Calls [`prepare`] and is interrupted when the first images have been written.
fn interrupted(spec: &DatasetSpec, folder: &Path) -> PathBuf {
    let mut steps = 0;
    let killed = catch_unwind(AssertUnwindSafe(|| {
        prepare(spec, folder, None, &mut |event| {
            if matches!(event, FetchEvent::Progress { step, .. } if step.starts_with("decoding")) {
                steps += 1;
                assert!(steps < 2, "killed");
            }
        })
    }));
    assert!(killed.is_err());
    let mut partials: Vec<PathBuf> =
        names(folder).iter().map(|name| folder.join("prepared").join(name)).collect();
    assert!(
        partials.len() == 1 && partials[0].to_string_lossy().ends_with(".pixels.partial"),
        "{partials:?}"
    );
    partials.remove(0)
}

/// The sorted names of the prepared files.
fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder.join("prepared")).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_killed_call_is_continued_and_the_file_is_the_same() {
    let unbroken = tempfile::tempdir().unwrap();
    photographs(unbroken.path());
    let spec = spec("caffe-short", "");
    let (files, _) = prepared(&spec, unbroken.path()).unwrap();

    let folder = tempfile::tempdir().unwrap();
    photographs(folder.path());
    let partial = interrupted(&spec, folder.path());
    // Nothing that is not finished is used.
    assert!(open(&spec, folder.path()).unwrap().train.prepared_file().is_none());
    let whole = fs::read(&partial).unwrap();
    let (_, start) = record::read_header(&File::open(&partial).unwrap(), &partial).unwrap().ok().unwrap();
    // Cut off anywhere, or damaged anywhere: what comes before is kept, the rest is made again.
    let mut states: Vec<(usize, Vec<u8>)> = Vec::new();
    for length in [0, 10, start as usize, start as usize + 5, whole.len() / 2, whole.len() - 1, whole.len()] {
        states.push((length, whole[..length].to_vec()));
    }
    let mut damaged = whole.clone();
    damaged[whole.len() / 2] ^= 1;
    states.push((whole.len() / 2, damaged));
    states.push((whole.len(), [&whole[..], b"what a disk left"].concat()));
    for (good, bytes) in states {
        fs::remove_dir_all(folder.path().join("prepared")).unwrap();
        fs::create_dir(folder.path().join("prepared")).unwrap();
        fs::write(&partial, bytes).unwrap();
        let mut first = None;
        let resumed = prepare(&spec, folder.path(), None, &mut |event| match event {
            FetchEvent::Progress { step: "decoding the train images", done, .. } if first.is_none() => {
                first = Some(done);
            }
            _ => {}
        });
        for (resumed, unbroken) in resumed.unwrap().iter().zip(&files) {
            assert_eq!(resumed.path.file_name(), unbroken.path.file_name());
            // But for the folder in the header.
            let images = |path: &Path| {
                let (_, start) = record::read_header(&File::open(path).unwrap(), path).unwrap().ok().unwrap();
                let end = if path.starts_with(folder.path()) { resumed.bytes } else { unbroken.bytes };
                fs::read(path).unwrap()[start as usize..end as usize - record::FOOTER].to_vec()
            };
            assert!(images(&resumed.path) == images(&unbroken.path));
        }
        // As many images as lie whole before the change.
        let kept = end_of_records(&whole, start as usize, good);
        assert_eq!(first, Some(kept as u64), "{good} good bytes");
        assert_equal(&open(&spec, folder.path()).unwrap(), &decoded(&spec, folder.path()), &spec);
    }
}

/// The end of the last record from `start` on that ends at `end` or before.
fn end_of_records(bytes: &[u8], start: usize, end: usize) -> usize {
    let mut at = start;
    while at + record::SIZES <= end {
        let next = at + Size::of(&bytes[at..]).record_len() as usize;
        if next > end {
            break;
        }
        at = next;
    }
    at
}

#[test]
fn a_second_call_finds_the_files_whole_and_repairs_damaged_ones() {
    let folder = tempfile::tempdir().unwrap();
    photographs(folder.path());
    let spec = spec("caffe-squash", "");
    let (files, _) = prepared(&spec, folder.path()).unwrap();
    let (again, lines) = prepared(&spec, folder.path()).unwrap();
    assert_eq!(again, files);
    assert!(
        lines.len() == 2 && lines.iter().all(|line| line.ends_with(".pixels is there and whole")),
        "{lines:?}"
    );

    // An image in the middle, which opening does not read.
    let mut bytes = fs::read(&files[0].path).unwrap();
    let whole = bytes.clone();
    let middle = bytes.len() - 2000;
    bytes[middle] ^= 1;
    fs::write(&files[0].path, &bytes).unwrap();
    let train = open(&spec, folder.path()).unwrap().train;
    let mut out = vec![0; 3 * 11 * 11];
    let error = (0..9).find_map(|index| train.read(index, &mut out).err()).unwrap().to_string();
    let name = files[0].path.display();
    let expected = format!(
        "{name}: image 6 in it is damaged; run `thinet data prepare` again, or remove it to decode the images each time"
    );
    assert_eq!(error, expected);
    let (_, lines) = prepared(&spec, folder.path()).unwrap();
    assert!(lines[0].ends_with(" is damaged or does not fit: made again"), "{lines:?}");
    assert!(fs::read(&files[0].path).unwrap() == whole);

    // The end, which opening does read.
    fs::write(&files[1].path, &fs::read(&files[1].path).unwrap()[..3000]).unwrap();
    let text = refusal(&spec, folder.path());
    let expected = ".pixels: it is damaged or cut off, so it is not used; run `thinet data prepare` again, or remove it \
                    to decode the images each time";
    assert!(text.starts_with("DIR/prepared/imagenet-test-") && text.ends_with(expected), "{text}");
    fs::remove_file(&files[1].path).unwrap();
    let split = open(&spec, folder.path()).unwrap();
    assert!(split.train.prepared_file().is_some() && split.test.prepared_file().is_none());
}

#[test]
fn a_file_of_images_that_have_changed_is_refused_until_it_is_made_again() {
    let folder = tempfile::tempdir().unwrap();
    photographs(folder.path());
    let spec = spec("caffe-squash", "");
    let (files, _) = prepared(&spec, folder.path()).unwrap();
    let image = |number: u32| folder.path().join(format!("train/n01440764/n01440764_{number}.JPEG"));
    fs::copy(image(0), image(99)).unwrap();
    let text = refusal(&spec, folder.path());
    assert!(text.starts_with("DIR/prepared/imagenet-train-caffe-squash-16."), "{text}");
    assert!(text.contains(": it was prepared from other images (9 then, 10 now): files in "), "{text}");
    // Another protocol or size has other files, and none yet.
    for other in [self::spec("caffe-short", ""), self::spec("torchvision", "")] {
        assert!(open(&other, folder.path()).unwrap().train.prepared_file().is_none());
    }
    let (new, lines) = prepared(&spec, folder.path()).unwrap();
    assert_ne!(new[0].path, files[0].path);
    assert_eq!(new[1].path, files[1].path);
    assert!(lines.last().unwrap().ends_with(", as the images have changed since"), "{lines:?}");
    assert_eq!(names(folder.path()).len(), 2);
    assert_equal(&open(&spec, folder.path()).unwrap(), &decoded(&spec, folder.path()), &spec);

    // An image of the same size in bytes, which names and sizes do not show, if it is one of those that are compared.
    let first = fs::read(image(0)).unwrap();
    fs::write(image(0), [&first[..first.len() - 40], &[0; 40]].concat()).unwrap();
    let text = refusal(&spec, folder.path());
    assert!(text.contains("n01440764_0.JPEG gives other pixels than those in it"), "{text}");
}

#[test]
fn a_folder_of_files_serves_several_sets_and_a_moved_one() {
    let (one, two, files) =
        (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    photographs(one.path());
    photographs(two.path());
    fs::remove_file(two.path().join("train/n01440764/n01440764_8.JPEG")).unwrap();
    let spec = spec("caffe-squash", "");
    let from = |folder: &Path| open_with(&spec, folder, Some(files.path()));
    for (count, folder) in [one.path(), two.path()].into_iter().enumerate() {
        let made = prepare(&spec, folder, Some(files.path()), &mut |_| ()).unwrap();
        let split = from(folder).unwrap();
        assert_eq!(split.train.prepared_file(), Some(&*made[0].path));
        // Both have the same test images and share their file.
        assert_eq!(fs::read_dir(files.path()).unwrap().count(), 2 + count);
        assert_equal(&split, &decoded(&spec, folder), &spec);
        assert!(open(&spec, folder).unwrap().train.prepared_file().is_none());
    }
    let moved = tempfile::tempdir().unwrap();
    fs::rename(one.path(), moved.path().join("set")).unwrap();
    assert!(from(&moved.path().join("set")).unwrap().train.prepared_file().is_some());
}

#[test]
fn a_file_of_all_images_serves_every_limit() {
    let folder = tempfile::tempdir().unwrap();
    photographs(folder.path());
    let (files, _) = prepared(&spec("caffe-short", ""), folder.path()).unwrap();
    let few = spec("caffe-short", "train-limit = 3\ntest-limit = 2");
    let split = open(&few, folder.path()).unwrap();
    assert_eq!((split.train.prepared_file(), split.train.len()), (Some(&*files[0].path), 3));
    assert_equal(&split, &decoded(&few, folder.path()), &few);
    // One of few images serves no other limit.
    fs::remove_dir_all(folder.path().join("prepared")).unwrap();
    prepared(&few, folder.path()).unwrap();
    assert!(open(&few, folder.path()).unwrap().train.prepared_file().is_some());
    assert!(
        open(&spec("caffe-short", "train-limit = 4"), folder.path()).unwrap().train.prepared_file().is_none()
    );
}

#[test]
fn damaged_images_are_left_out_as_when_decoding() {
    let folder = tempfile::tempdir().unwrap();
    photographs(folder.path());
    let path = folder.path().join("train/n02119789/n02119789_5.JPEG");
    let good = fs::read(&path).unwrap();
    fs::write(&path, vec![b'x'; good.len()]).unwrap();
    let strict = spec("caffe-squash", "");
    let error = prepared(&strict, folder.path()).unwrap_err();
    assert!(matches!(&error, DataError::Decode { path: named, .. } if *named == path), "{error}");

    // The spec that allows it goes on with what is there.
    let lenient = spec("caffe-squash", "bad-files = 1");
    let (files, lines) = prepared(&lenient, folder.path()).unwrap();
    assert!(lines[1].ends_with("; left out as damaged: 1"), "{lines:?}");
    assert_equal(&open(&lenient, folder.path()).unwrap(), &decoded(&lenient, folder.path()), &lenient);
    let train = open(&lenient, folder.path()).unwrap().train;
    batches(&train, &lenient);
    assert!(
        train.left_out().len() == 1 && train.left_out()[0].contains("n02119789_5.JPEG: "),
        "{:?}",
        train.left_out()
    );
    let mut out = vec![0; 3 * 11 * 11];
    let train = open(&strict, folder.path()).unwrap().train;
    assert_eq!(train.prepared_file(), Some(&*files[0].path));
    let errors: Vec<DataError> = (0..9).filter_map(|index| train.read(index, &mut out).err()).collect();
    assert!(matches!(&errors[..], [DataError::Decode { path: named, .. }] if *named == path), "{errors:?}");
    // Repaired at the same size: as decoding has it.
    fs::write(&path, &good).unwrap();
    assert_equal(&open(&lenient, folder.path()).unwrap(), &decoded(&lenient, folder.path()), &lenient);
}

#[test]
fn what_cannot_be_prepared_says_why() {
    let folder = tempfile::tempdir().unwrap();
    photographs(folder.path());
    let says = |spec: &DatasetSpec| prepared(spec, folder.path()).unwrap_err().to_string();
    let text = says(&spec("torchvision", "calibration-protocol = 'caffe-squash'"));
    let expected = "key \"protocol\": torchvision resizes a random part of each training image, so there is nothing to keep; \
                    the images are decoded each time";
    assert_eq!(text, expected);
    let text = says(&DatasetSpec::named("cifar10").unwrap());
    assert_eq!(
        text,
        "key \"kind\": CIFAR-10 has no protocol for photographs, so there is nothing to prepare"
    );
    assert!(
        says(&spec("caffe-squash", "train-limit = 10"))
            .starts_with("key \"train-limit\": 10 is more than the 9")
    );
    // A folder that cannot be written to; a file stands for it.
    fs::write(folder.path().join("prepared"), "").unwrap();
    let text = says(&spec("caffe-squash", ""));
    assert!(
        text.contains("prepared: cannot create: ") && text.ends_with("; --prepared DIR names another folder"),
        "{text}"
    );
    assert!(open(&spec("caffe-squash", ""), folder.path()).is_ok());
}

#[test]
fn two_processes_do_not_write_the_same_file() {
    let folder = tempfile::tempdir().unwrap();
    photographs(folder.path());
    let spec = spec("caffe-squash", "");
    let partial = interrupted(&spec, folder.path());
    let other = File::open(&partial).unwrap();
    other.lock().unwrap();
    let error = prepared(&spec, folder.path()).unwrap_err().to_string();
    assert_eq!(error, format!("{}: another process is preparing this dataset", partial.display()));
    drop(other);
    prepared(&spec, folder.path()).unwrap();
}

#[test]
fn sizes_are_said_in_words() {
    assert_eq!(
        [0, 1_250_000, 1_230_000_000, 252_400_000_000].map(size),
        ["0.0 MB", "1.2 MB", "1.2 GB", "252 GB"]
    );
}
