//! Photographs to read: of a folder of the user, or drawn.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use image::{ImageFormat, Rgb, RgbImage};

/// Puts so many training photographs into ImageNet's layout, and one for validation: those in the folder that the variable IMAGES names,
/// else drawn ones of a usual size. Returns what they are.
///
/// # Errors
/// If files cannot be read or written, or IMAGES has too few.
pub fn photographs(folder: &Path, images: usize) -> Result<String> {
    let place = |part: &str| folder.join(part).join("n01440764");
    for part in ["train", "val"] {
        fs::create_dir_all(place(part))?;
    }
    let path = |number: usize| place("train").join(format!("photo_{number:03}.JPEG"));
    let drawn = |number: usize| RgbImage::from_fn(500, 375, |x, y| texture(x, y, number as u32));
    let source = match std::env::var_os("IMAGES") {
        Some(source) => {
            let found = jpegs(&PathBuf::from(source))?;
            ensure!(
                found.len() >= images,
                "IMAGES has {} .jpg or .jpeg files, {images} are needed",
                found.len()
            );
            for (number, file) in found.iter().take(images).enumerate() {
                fs::copy(file, path(number)).with_context(|| file.display().to_string())?;
            }
            "photographs of IMAGES"
        }
        None => {
            for number in 0..images {
                drawn(number).save_with_format(path(number), ImageFormat::Jpeg)?;
            }
            "drawn images of 500×375"
        }
    };
    drawn(0).save_with_format(place("val").join("photo_000.JPEG"), ImageFormat::Jpeg)?;
    Ok(source.to_owned())
}

/// Waves of several lengths with some noise, so that a JPEG file has about as many bytes as one of a photograph.
fn texture(x: u32, y: u32, number: u32) -> Rgb<u8> {
    let noise = (x.wrapping_mul(2_654_435_761) ^ y.wrapping_mul(40_503) ^ number.wrapping_mul(97)) >> 13 & 31;
    let wave = |length: f32, shift: f32| ((x as f32 + 0.6 * y as f32) / length + shift).sin() * 50.0 + 110.0;
    Rgb([wave(9.0, 0.0), wave(31.0, number as f32), wave(77.0, 2.0)].map(|value| value as u8 + noise as u8))
}

/// The JPEG files in a folder, sorted, and those in folders in it.
fn jpegs(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    let mut paths = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    paths.sort();
    let mut found = Vec::new();
    for path in paths {
        let extension = path.extension().map(|extension| extension.to_ascii_lowercase());
        if path.is_dir() {
            found.extend(jpegs(&path)?);
        } else if extension.is_some_and(|extension| extension == "jpg" || extension == "jpeg") {
            found.push(path);
        }
    }
    Ok(found)
}
