//! Two loaders on one machine at the same time, as two processes of a study have, each with its share of the cores against each with
//! all of them.

use std::sync::Arc;
use std::thread;

use anyhow::{Result, anyhow, ensure};
use criterion::Criterion;
use thinet_bench::{Bound, Figure, Ratio, photographs};
use thinet_data::{
    Augment, Dataset, DatasetSpec, ImagenetSpec, Loader, LoaderOptions, Protocol, Transform, open_with,
    shuffled,
};
use thinet_harness::study::loader_threads;
use thinet_seed::Seed;

use crate::in_turn::{FILTERED, in_turn, timed};

const NAME: &str = "two loaders of photographs at once, cores shared over all cores each";
/// More threads than cores bring no images; fewer must not cost any.
const REQUIRED: Bound = Bound::AtLeast(0.95);
const PROCESSES: usize = 2;
/// Photographs of a pass of each loader.
const IMAGES: usize = 64;
const BATCH: usize = 16;

/// The row.
pub(crate) fn figure(criterion: &mut Criterion) -> Result<Figure> {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let folder = tempfile::tempdir()?;
    let source = photographs(folder.path(), IMAGES)?;
    let spec = DatasetSpec::Imagenet(ImagenetSpec { classes: 1, ..ImagenetSpec::new(Protocol::Torchvision) });
    let set = open_with(&spec, folder.path(), None)?.train;
    ensure!(set.is_decoded_each_time(), "these images are not decoded");
    let share = loader_threads(cores, PROCESSES, true);
    let mut ours = || timed(|| at_once(&set, &spec, share));
    let mut reference = || timed(|| at_once(&set, &spec, cores));
    let pairs = in_turn(criterion, ["loaders", "threads"], &mut ours, &mut reference)?;
    if pairs.is_empty() {
        return Ok(Figure::not_measured(NAME, Some(REQUIRED), FILTERED));
    }
    let rate = |seconds: f64| format!("{:.0} images/s", (PROCESSES * IMAGES) as f64 / seconds);
    Ok(Figure {
        name: NAME.to_owned(),
        ours: rate(pairs.ours()),
        reference: rate(pairs.reference()),
        ratio: Some(pairs.ratio(Ratio::Speedup)),
        required: Some(REQUIRED),
        note: format!(
            "measured: {PROCESSES} loaders on {cores} cores, each with {share} or {cores} threads, decode {IMAGES} {source} with random \
             crops and mirroring at the same time. {}",
            pairs.spread(Ratio::Speedup)
        ),
    })
}

/// A pass of every loader, all at the same time.
fn at_once(set: &Arc<dyn Dataset>, spec: &DatasetSpec, threads: usize) -> Result<()> {
    thread::scope(|scope| {
        let loaders: Vec<_> = (0..PROCESSES).map(|_| scope.spawn(|| pass(set, spec, threads))).collect();
        loaders.into_iter().try_for_each(|loader| loader.join().map_err(|_| anyhow!("a loader panicked"))?)
    })
}

fn pass(set: &Arc<dyn Dataset>, spec: &DatasetSpec, threads: usize) -> Result<()> {
    let augment = Augment { random_crop: true, mirror: true, crop_padding: 0 };
    let transform = Transform { pad: 0, crop: None, normalisation: spec.normalisation(), augment };
    let options = LoaderOptions { batch: BATCH, drop_last: true, threads, prefetch: 2 * threads };
    let order = shuffled(set.len(), Seed::root(0));
    let mut images = 0;
    for batch in Loader::new(Arc::clone(set), order, &transform, Some(Seed::root(1)), options)? {
        images += batch?.labels.len();
    }
    ensure!(images == IMAGES, "{images} of {IMAGES} images");
    Ok(())
}
