//! The loader on a file of prepared photographs against the loader that decodes them: same images, draws and thread.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Result, ensure};
use criterion::Criterion;
use thinet_bench::{Bound, Figure, Ratio, photographs};
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
    let source = photographs(folder.path(), IMAGES)?;
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
