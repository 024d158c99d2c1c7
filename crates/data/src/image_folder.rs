//! A folder of PNG and JPEG images, one folder for each class: `train/<class>/*` and `test/<class>/*` or `val/<class>/*`.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

use crate::dataset::{check_read, image_len};
use crate::decode::{MAX_PIXELS, Picture};
use crate::files::{self, image_size};
use crate::{DataError, Dataset, ImageFolderSpec, MemoryDataset, Resize, Split};

/// Splits that take no more than this together are held in memory unless the spec says otherwise.
const CACHE_BYTES: u64 = 2 << 30;

/// Raised when what is read from a file changes (decoding, resizing), so that results stored before are not taken for those
/// of the new meaning: ids follow the fingerprint. The CHANGELOG then says so. 2: rows are resized first, rounded between
/// the two passes, as Pillow does.
pub(crate) const VERSION: &str = "thinet image folder v2";

/// The images of one split, decoded when they are read.
struct ImageFolder {
    name: String,
    classes: usize,
    files: Vec<PathBuf>,
    labels: Vec<usize>,
    channels: usize,
    size: usize,
    resize: Resize,
    max_pixels: u64,
    fingerprint: String,
}

/// Lists both splits; classes are numbered by folder name, images sorted by class and file name.
pub(crate) fn open(spec: &ImageFolderSpec, folder: &Path) -> Result<Split, DataError> {
    let train_folder = folder.join("train");
    let test_folder = folder.join(test_folder(spec, folder)?);
    let train_classes = class_folders(&train_folder)?;
    let test_classes = class_folders(&test_folder)?;
    let lacking =
        |these: &[OsString], those: &[OsString]| these.iter().find(|name| !those.contains(name)).cloned();
    for (lacks, class) in [
        (&test_folder, lacking(&train_classes, &test_classes)),
        (&train_folder, lacking(&test_classes, &train_classes)),
    ] {
        if let Some(class) = class {
            let problem =
                format!("has no class {}, the other split has; both need the same classes", class.display());
            return Err(DataError::layout(lacks, problem));
        }
    }
    let train = list(spec, &train_folder, &train_classes)?;
    Ok(Split::new(Arc::new(train), Arc::new(list(spec, &test_folder, &test_classes)?)))
}

fn test_folder<'a>(spec: &'a ImageFolderSpec, folder: &Path) -> Result<&'a str, DataError> {
    if let Some(name) = &spec.test_folder {
        return Ok(name);
    }
    match [files::is_folder(&folder.join("test"))?, files::is_folder(&folder.join("val"))?] {
        [true, true] => Err(DataError::layout(
            folder,
            "has both test and val; the key test-folder must say which one to use",
        )),
        [false, true] => Ok("val"),
        _ => Ok("test"),
    }
}

/// The names of what is in a folder, sorted, litter aside.
fn names(folder: &Path) -> Result<Vec<OsString>, DataError> {
    files::names(folder, "an image folder holds train/<class>/ and test/<class>/ (or val/<class>/)")
}

fn class_folders(folder: &Path) -> Result<Vec<OsString>, DataError> {
    let names = names(folder)?;
    if names.is_empty() {
        return Err(DataError::layout(folder, "is empty, expected a folder for each class"));
    }
    for path in names.iter().map(|name| folder.join(name)) {
        if !files::is_folder(&path)? {
            return Err(DataError::layout(&path, "is not a folder, expected a folder for each class"));
        }
    }
    Ok(names)
}

fn list(spec: &ImageFolderSpec, folder: &Path, classes: &[OsString]) -> Result<ImageFolder, DataError> {
    let mut hasher = blake3::Hasher::new();
    let filter: &[u8] = match spec.resize {
        Resize::Bicubic => b"bicubic",
        Resize::Bilinear => b"bilinear",
    };
    hasher.update(VERSION.as_bytes()).update(filter);
    for number in [spec.channels, spec.size] {
        hasher.update(&(number as u64).to_le_bytes());
    }
    let (mut files, mut labels) = (Vec::new(), Vec::new());
    for (label, class) in classes.iter().enumerate() {
        let class_folder = folder.join(class);
        let images = names(&class_folder)?;
        if images.is_empty() {
            return Err(DataError::layout(&class_folder, "has no image"));
        }
        for image in images {
            let path = class_folder.join(&image);
            let size = image_size(&path)?;
            for name in [class, &image] {
                let name = name.as_encoded_bytes();
                hasher.update(&(name.len() as u64).to_le_bytes()).update(name);
            }
            hasher.update(&size.to_le_bytes());
            files.push(path);
            labels.push(label);
        }
    }
    let fingerprint = hasher.finalize().to_hex().to_string();
    let ImageFolderSpec { name, channels, size, resize, max_pixels, .. } = spec.clone();
    let (classes, max_pixels) = (classes.len(), max_pixels.unwrap_or(MAX_PIXELS));
    Ok(ImageFolder { name, classes, files, labels, channels, size, resize, max_pixels, fingerprint })
}

impl Dataset for ImageFolder {
    fn name(&self) -> &str {
        &self.name
    }

    fn classes(&self) -> usize {
        self.classes
    }

    fn len(&self) -> usize {
        self.files.len()
    }

    fn shape(&self) -> [usize; 3] {
        [self.channels, self.size, self.size]
    }

    fn label(&self, index: usize) -> usize {
        self.labels[index]
    }

    fn read(&self, index: usize, out: &mut [u8]) -> Result<(), DataError> {
        check_read(self, index, out)?;
        let path = &self.files[index];
        let size = [self.size; 2];
        let picture = Picture::decode(path, self.channels, self.max_pixels)?;
        let picture = picture.resized(size, self.resize, self.max_pixels);
        let picture = picture.map_err(|problem| DataError::Decode { path: path.clone(), problem })?;
        picture.write_planar([0, 0], size, out);
        Ok(())
    }

    fn is_decoded_each_time(&self) -> bool {
        true
    }

    fn fingerprint(&self) -> &str {
        &self.fingerprint
    }
}

/// The same split with its images decoded and in memory, if `cache` says so or, without it, if they are small enough.
pub(crate) fn cached(split: Split, cache: Option<bool>) -> Result<Split, DataError> {
    if !is_cached(&split, cache) {
        return Ok(split);
    }
    let in_memory = |dataset: &dyn Dataset| -> Result<Arc<dyn Dataset>, DataError> {
        Ok(Arc::new(MemoryDataset::copy_of(dataset, read_all(dataset)?)))
    };
    Ok(Split::new(in_memory(&*split.train)?, in_memory(&*split.test)?))
}

/// Whether a study holds the decoded images in memory.
pub(crate) fn is_cached(split: &Split, cache: Option<bool>) -> bool {
    let bytes = |dataset: &Arc<dyn Dataset>| dataset.len() as u64 * image_len(dataset.shape()) as u64;
    cache.unwrap_or(bytes(&split.train) + bytes(&split.test) <= CACHE_BYTES)
}

/// All images one after the other, read by as many threads as there are cores; of several errors, the first image's.
fn read_all(dataset: &dyn Dataset) -> Result<Vec<u8>, DataError> {
    let len = image_len(dataset.shape());
    let mut pixels = Vec::new();
    pixels.try_reserve_exact(dataset.len() * len).map_err(|error| DataError::Value {
        key: "cache",
        problem: format!("the {} images of {} do not fit in memory: {error}", dataset.len(), dataset.name()),
    })?;
    pixels.resize(dataset.len() * len, 0);
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let each = dataset.len().div_ceil(threads).max(1);
    let outcomes: Vec<Result<(), DataError>> = thread::scope(|scope| {
        let read_part = |(part, chunk): (usize, &'_ mut [u8])| {
            let mut images = chunk.chunks_exact_mut(len).enumerate();
            images.try_for_each(|(i, out)| dataset.read(part * each + i, out))
        };
        let parts = pixels.chunks_mut(each * len).enumerate();
        let handles: Vec<_> = parts.map(|part| scope.spawn(move || read_part(part))).collect();
        handles
            .into_iter()
            .map(|handle| handle.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    });
    outcomes.into_iter().collect::<Result<(), DataError>>()?;
    Ok(pixels)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use image::{Rgb, RgbImage};

    use super::*;
    use crate::DatasetSpec;

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
        let error = open(spec, folder).and_then(|split| cached(split, spec.cache)).err().unwrap().to_string();
        error.replace(&folder.display().to_string(), "DIR")
    }

    #[test]
    fn classes_and_files_are_sorted_by_name_with_and_without_cache() {
        let folder = example();
        for cache in [true, false] {
            let split = cached(open(&spec(4), folder.path()).unwrap(), Some(cache)).unwrap();
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
    fn only_what_is_not_held_in_memory_is_decoded_each_time() {
        let folder = example();
        for (cache, expected) in [(Some(true), false), (Some(false), true), (None, false)] {
            let split = cached(open(&spec(4), folder.path()).unwrap(), cache).unwrap();
            assert_eq!([&split.train, &split.test].map(|part| part.is_decoded_each_time()), [expected; 2]);
        }
    }

    /// So many images of 1 KiB.
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
    fn without_a_word_both_splits_together_are_held_up_to_two_gibibytes() {
        let is_held = |train, test, cache| {
            is_cached(&Split::new(Arc::new(Kibibytes(train)), Arc::new(Kibibytes(test))), cache)
        };
        let gibibyte = 1 << 20;
        assert!(is_held(gibibyte, gibibyte, None));
        assert!(!is_held(gibibyte, gibibyte + 1, None));
        assert!(!is_held(2 * gibibyte, 1, None));
        assert!(is_held(gibibyte, gibibyte + 1, Some(true)) && !is_held(1, 1, Some(false)));
    }

    #[test]
    fn the_fingerprint_follows_names_sizes_and_decoding_but_not_the_cache() {
        let folder = example();
        let of = |spec: &ImageFolderSpec| {
            cached(open(spec, folder.path()).unwrap(), spec.cache).unwrap().train.fingerprint().to_owned()
        };
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
        assert_eq!(
            error.to_string(),
            "key \"train-limit\": 4 is more than the 3 images there are (Pictures)"
        );
        let one = DatasetSpec::ImageFolder(ImageFolderSpec { test_limit: Some(1), ..spec(4) });
        let error = crate::open(&one, folder.path()).err().unwrap().to_string();
        assert!(error.starts_with("key \"test-limit\": 1 is too few: each of the 2 classes"), "{error}");
    }

    #[test]
    fn val_serves_for_test_and_both_need_a_word() {
        let folder = example();
        fs::rename(folder.path().join("test"), folder.path().join("val")).unwrap();
        assert_eq!(first_bytes(&*open(&spec(4), folder.path()).unwrap().test), [40, 50]);
        write(folder.path(), "test/ant/1.png", 60);
        write(folder.path(), "test/bee/1.png", 70);
        let both = "DIR: has both test and val; the key test-folder must say which one to use";
        assert_eq!(says(folder.path(), &spec(4)), both);
        let named = ImageFolderSpec { test_folder: Some("test".to_owned()), ..spec(4) };
        assert_eq!(first_bytes(&*open(&named, folder.path()).unwrap().test), [60, 70]);
    }

    #[test]
    fn litter_is_neither_class_nor_image_and_changes_no_fingerprint() {
        let folder = example();
        let of = || {
            let split = open(&spec(4), folder.path()).unwrap();
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
        let fingerprint = |spec| open(spec, folder.path()).unwrap().train.fingerprint().to_owned();
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
        let split = open(&spec(4), folder.path()).unwrap();
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
        assert_eq!(lacks, "DIR/test: has no class cat, the other split has; both need the same classes");
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
}
