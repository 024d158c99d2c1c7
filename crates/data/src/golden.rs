//! The hash of a prepared batch of each kind of dataset, so that preparation cannot change without a new version.
//!
//! Ids of stored results include the fingerprint of a dataset. A fingerprint covers names, sizes and a version of the
//! preparation, but not the decoded and resized pixels. So a batch of each kind is pinned together with its version.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use image::{Luma, Rgb, RgbImage};
use thinet_seed::Seed;

use crate::{
    Augment, Dataset, DatasetSpec, Loader, LoaderOptions, Split, Transform, cifar, dataset, fashion_mnist,
    image_folder, open, photos,
};

/// A prepared batch, the version that its fingerprint holds, and where that is written.
struct PinnedBatch {
    what: &'static str,
    version: [&'static str; 2],
    batch: &'static str,
}

const MEMORY: [&str; 2] = ["thinet dataset v1", "dataset::VERSION"];
const FOLDER: [&str; 2] = ["thinet image folder v2", "image_folder::VERSION"];
const PHOTOS: [&str; 2] = ["thinet photos v1", "photos::VERSION"];

const PINNED: [PinnedBatch; 7] = [
    PinnedBatch { what: "grey images in memory", version: MEMORY, batch: "eb2d0b11ddbce192" },
    PinnedBatch { what: "colour images in memory", version: MEMORY, batch: "83e998125d1acf14" },
    PinnedBatch { what: "an image folder, colour, bicubic", version: FOLDER, batch: "3c1e987ff504874e" },
    PinnedBatch { what: "an image folder, grey, bilinear", version: FOLDER, batch: "c56986c7aa6e1b4a" },
    PinnedBatch { what: "photographs under caffe-squash", version: PHOTOS, batch: "b1e28a3915adc8e2" },
    PinnedBatch { what: "photographs under caffe-short", version: PHOTOS, batch: "8ba00321351320cb" },
    PinnedBatch { what: "photographs under torchvision", version: PHOTOS, batch: "e69b46f4585bbc56" },
];

#[test]
fn prepared_batches_and_their_versions_are_pinned() {
    let folder = tempfile::tempdir().unwrap();
    let found = [
        grey_in_memory(),
        colour_in_memory(folder.path()),
        in_image_folder(&folder.path().join("colour"), "channels = 3\nresize = 'bicubic'"),
        in_image_folder(&folder.path().join("grey"), "channels = 1\nresize = 'bilinear'"),
        photographs(&folder.path().join("squash"), "caffe-squash"),
        photographs(&folder.path().join("short"), "caffe-short"),
        photographs(&folder.path().join("torchvision"), "torchvision"),
    ];
    let versions = [[dataset::VERSION; 2], [image_folder::VERSION; 2]].concat();
    let versions = versions.into_iter().chain([photos::VERSION; 3]);
    let mut changed = String::new();
    for ((PinnedBatch { what, version: [version, constant], batch }, found), now) in
        PINNED.iter().zip(found).zip(versions)
    {
        if found == *batch && now == *version {
            continue;
        }
        changed += &format!(
            "{what}: batch {found}, version {now:?}; pinned: batch {batch}, version {version:?}.\n  If the batch was meant \
             to change: raise {constant}, say in the CHANGELOG that ids change, and pin both here.\n",
        );
    }
    assert!(
        changed.is_empty(),
        "\n{changed}If it was not meant to change, stored results would lose their meaning."
    );
}

/// A batch for testing and one for training, drawn from a fixed seed.
fn hash(split: &Split, spec: &DatasetSpec, augment: Augment) -> String {
    let mut hasher = blake3::Hasher::new();
    for (set, seed) in [(&split.test, None), (&split.train, Some(Seed::root(1).child("golden")))] {
        let transform = Transform { pad: 1, crop: None, normalisation: spec.normalisation(), augment };
        let options = LoaderOptions { batch: 64, drop_last: false, threads: 0, prefetch: 0 };
        let set: Arc<dyn Dataset> = set.clone();
        let order = (0..set.len()).collect();
        let batch = Loader::new(set, order, &transform, seed, options).unwrap().next().unwrap().unwrap();
        let numbers =
            batch.shape.iter().map(|side| *side as u64).chain(batch.labels.iter().map(|label| *label as u64));
        numbers.for_each(|number| _ = hasher.update(&number.to_le_bytes()));
        batch.images.iter().for_each(|value| _ = hasher.update(&value.to_le_bytes()));
    }
    hasher.finalize().to_hex()[..16].to_owned()
}

fn drawn(crop_padding: usize, random_crop: bool) -> Augment {
    Augment { crop_padding, mirror: true, random_crop }
}

fn grey_in_memory() -> String {
    let split = fashion_mnist::tests::example_split([9, 0, 1, 2]);
    hash(&split, &toml::from_str("kind = 'fashion-mnist'").unwrap(), drawn(1, false))
}

fn colour_in_memory(folder: &Path) -> String {
    let set = cifar::tests::small(cifar::CIFAR10, 2);
    for name in cifar::tests::files(&set) {
        let image = |label: u8, seed: usize| {
            let values = (0..3072).map(|i| (i * i / 7 + i * seed + name.len()) as u8).collect();
            [vec![label], values].concat()
        };
        fs::write(folder.join(name), [image(3, 1), image(8, 5)].concat()).unwrap();
    }
    let split = cifar::open(&set, folder).unwrap();
    hash(&split, &toml::from_str("kind = 'cifar10'").unwrap(), drawn(4, false))
}

/// A picture with smooth parts, hard edges and texture.
fn picture(width: u32, height: u32, seed: u32) -> RgbImage {
    let value = |x: u32, y: u32, channel: u32| {
        let edge = if (x / 5 + y / 7 + channel).is_multiple_of(2) { 90 } else { 0 };
        (x * 3 + y * 2 + edge + (x * y * (seed + channel)) % 23) as u8
    };
    RgbImage::from_fn(width, height, |x, y| Rgb([0, 1, 2].map(|channel| value(x, y, channel))))
}

/// Pictures of all kinds of files: colour, grey, and JPEG files as other programs wrote them.
fn write_pictures(folder: &Path, prefix: &str, seed: u32) {
    fs::create_dir_all(folder).unwrap();
    let file = |name: &str| folder.join(format!("{prefix}{name}"));
    picture(61, 40, seed).save(file("1.png")).unwrap();
    picture(30, 47, seed).save(file("2.png")).unwrap();
    image::GrayImage::from_fn(50, 33, |x, y| Luma([(x * 5 + y * seed) as u8])).save(file("3.png")).unwrap();
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    for name in ["exif.jpg", "grey.jpg", "cmyk.jpg"] {
        fs::copy(golden.join(name), file(name)).unwrap();
    }
}

fn in_image_folder(folder: &Path, keys: &str) -> String {
    for (i, part) in ["train/ant", "train/bee", "test/ant", "test/bee"].into_iter().enumerate() {
        write_pictures(&folder.join(part), "", i as u32);
    }
    let spec: DatasetSpec =
        toml::from_str(&format!("kind = 'image-folder'\nname = 'Golden'\nsize = 32\n{keys}")).unwrap();
    hash(&open(&spec, folder).unwrap(), &spec, drawn(3, false))
}

fn photographs(folder: &Path, protocol: &str) -> String {
    for (i, class) in ["n01440764", "n01440765"].into_iter().enumerate() {
        write_pictures(&folder.join("train").join(class), &format!("{class}_"), i as u32);
        write_pictures(&folder.join("val").join(class), "val", 2 + i as u32);
    }
    let keys = format!("kind = 'imagenet'\nclasses = 2\nprotocol = '{protocol}'\nside = 36\ncrop = 32");
    let spec: DatasetSpec = toml::from_str(&keys).unwrap();
    hash(&open(&spec, folder).unwrap(), &spec, drawn(0, true))
}
