//! Drawn photographs, alone and in ImageNet's layout. The tests of the command line use this file, too.

use std::fs;
use std::path::Path;

use image::{ImageFormat, Rgb, RgbImage};

/// Writes a JPEG photograph of `[width, height]`; each `number` gives another picture.
pub(crate) fn photograph(path: &Path, [width, height]: [u32; 2], number: usize) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let pixel = |x: u32, y: u32| {
        Rgb([x as usize * number, y as usize * (number + 3), number * 20].map(|value| value as u8))
    };
    RgbImage::from_fn(width, height, pixel).save_with_format(path, ImageFormat::Jpeg).unwrap();
}

/// Writes `train` training images of each class, and `val` validation images by class. `size` gives `[width, height]` by the
/// number of an image in its class.
pub(crate) fn imagenet(
    folder: &Path,
    classes: usize,
    train: usize,
    val: impl Fn(usize) -> usize,
    size: impl Fn(u32) -> [u32; 2],
) {
    for class in 0..classes {
        let wnid = format!("n{:08}", 1_440_764 + class);
        let write = |name: String, i: usize| photograph(&folder.join(name), size(i as u32), 3 * class + i);
        for i in 0..train {
            write(format!("train/{wnid}/{wnid}_{i}.JPEG"), i);
        }
        for i in 0..val(class) {
            write(format!("val/{wnid}/ILSVRC2012_val_{class:04}{i:04}.JPEG"), i);
        }
    }
}
