//! The loader on a file of prepared photographs against the loader that decodes them: same images, draws and thread.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use criterion::Criterion;
use image::{ImageFormat, Rgb, RgbImage};
use thinet_bench::{Bound, Figure, Ratio};
use thinet_data::{
    Augment, Dataset, DatasetSpec, ImagenetSpec, Loader, LoaderOptions, Protocol, Transform, open, open_with,
    prepare,
};
use thinet_seed::Seed;

use crate::in_turn::{FILTERED, in_turn, timed};

const REQUIRED: Bound = Bound::AtLeast(10.0);
/// Photographs of a pass.
const IMAGES: usize = 64;
const BATCH: usize = 16;

/// A row for each protocol whose resize is fixed.
pub(crate) fn figures(criterion: &mut Criterion) -> Result<Vec<Figure>> {
    let folder = tempfile::tempdir()?;
    let source = photographs(folder.path())?;
    let protocols = [Protocol::CaffeSquash, Protocol::CaffeShort];
    protocols.into_iter().map(|protocol| figure(criterion, protocol, folder.path(), &source)).collect()
}

fn figure(criterion: &mut Criterion, protocol: Protocol, folder: &Path, source: &str) -> Result<Figure> {
    let name = format!("loader from a prepared file over decoding, {} 256 to 224", protocol.name());
    let spec = DatasetSpec::Imagenet(ImagenetSpec { classes: 1, ..ImagenetSpec::new(protocol) });
    let decoding = open_with(&spec, folder, Some(&folder.join("none")))?.train;
    prepare(&spec, folder, None, &mut |_| ())?;
    let prepared = open(&spec, folder)?.train;
    ensure!(prepared.prepared_file().is_some() && decoding.prepared_file().is_none(), "nothing to compare");
    ensure!(pass(&prepared, &spec)? == pass(&decoding, &spec)?, "the two loaders differ");
    let mut ours = || timed(|| pass(&prepared, &spec));
    let mut reference = || timed(|| pass(&decoding, &spec));
    let pairs = in_turn(criterion, ["prepared", protocol.name()], &mut ours, &mut reference)?;
    if pairs.is_empty() {
        return Ok(Figure::not_measured(name, Some(REQUIRED), FILTERED));
    }
    let rate = |seconds: f64| format!("{:.0} images/s", IMAGES as f64 / seconds);
    Ok(Figure {
        name,
        ours: rate(pairs.ours()),
        reference: rate(pairs.reference()),
        ratio: Some(pairs.ratio(Ratio::Speedup)),
        required: Some(REQUIRED),
        note: format!(
            "measured: passes over {IMAGES} {source} with random crops and mirroring in the calling thread, in turn; the file is \
             in the cache of the system, the batches are equal. {}",
            pairs.spread(Ratio::Speedup)
        ),
    })
}

/// The sum of all inputs of an epoch, which shows that both loaders give the same.
fn pass(set: &Arc<dyn Dataset>, spec: &DatasetSpec) -> Result<f64> {
    let augment = Augment { random_crop: true, mirror: true, crop_padding: 0 };
    let transform = Transform { pad: 0, crop: None, normalisation: spec.normalisation(), augment };
    let options = LoaderOptions { batch: BATCH, drop_last: true, threads: 0, prefetch: 0 };
    let order = (0..set.len()).collect();
    let loader = Loader::new(Arc::clone(set), order, &transform, Some(Seed::root(0)), options)?;
    let mut sum = 0.0;
    for batch in loader {
        // A few values of each batch: adding all up would be timed, too.
        sum += batch?.images.iter().step_by(1009).map(|value| f64::from(*value)).sum::<f64>();
    }
    Ok(sum)
}

/// Puts photographs into ImageNet's layout: those in the folder that the variable IMAGES names, else drawn ones of a usual size.
/// Returns what they are.
fn photographs(folder: &Path) -> Result<String> {
    let place = |part: &str| folder.join(part).join("n01440764");
    for part in ["train", "val"] {
        fs::create_dir_all(place(part))?;
    }
    let path = |number: usize| place("train").join(format!("photo_{number:03}.JPEG"));
    let drawn = |number: usize| RgbImage::from_fn(500, 375, |x, y| texture(x, y, number as u32));
    let source = match std::env::var_os("IMAGES") {
        Some(images) => {
            let found = jpegs(&PathBuf::from(images))?;
            ensure!(
                found.len() >= IMAGES,
                "IMAGES has {} .jpg or .jpeg files, {IMAGES} are needed",
                found.len()
            );
            for (number, file) in found.iter().take(IMAGES).enumerate() {
                fs::copy(file, path(number)).with_context(|| file.display().to_string())?;
            }
            "photographs of IMAGES"
        }
        None => {
            for number in 0..IMAGES {
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
