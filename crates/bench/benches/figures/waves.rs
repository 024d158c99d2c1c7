//! A small data set of drawn grey images, for studies that benches run.

use std::fs;
use std::path::Path;

use anyhow::Result;
use image::GrayImage;

/// Writes ten classes of images of 32×32 in the layout of an image folder, each with so many training images and one for the test.
pub(crate) fn waves(folder: &Path, training: u32) -> Result<()> {
    for class in 0..10_u32 {
        for i in 0..=training {
            let split = if i < training { "train" } else { "test" };
            let place = folder.join(split).join(format!("class{class}"));
            fs::create_dir_all(&place)?;
            let pixel = |x, y| image::Luma([(x * (class + 1) * 16 + y * (i + 3) * 7) as u8]);
            GrayImage::from_fn(32, 32, pixel).save(place.join(format!("{i:03}.png")))?;
        }
    }
    Ok(())
}
