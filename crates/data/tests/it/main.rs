//! Datasets as they lie in folders: the layouts of ImageNet and CUB-200, their faults, and what a check finds.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on may panic")]

mod cub200;
mod examine;
mod imagenet;

use std::fs;
use std::path::Path;

use image::{Rgb, RgbImage};

/// Writes a small JPEG of one colour.
fn jpeg(path: &Path, value: u8) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    RgbImage::from_pixel(12, 10, Rgb([value; 3])).save_with_format(path, image::ImageFormat::Jpeg).unwrap();
}

/// The first byte of each image of a dataset.
fn first_bytes(dataset: &dyn thinet_data::Dataset) -> Vec<u8> {
    let mut out = vec![0; dataset.shape().iter().product()];
    let read = |index| dataset.read(index, &mut out).map(|()| out[0]);
    (0..dataset.len()).map(read).collect::<Result<_, _>>().unwrap()
}

fn labels(dataset: &dyn thinet_data::Dataset) -> Vec<usize> {
    (0..dataset.len()).map(|index| dataset.label(index)).collect()
}
