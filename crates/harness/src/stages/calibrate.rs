//! The calibration pass: seeded training images through the net, up to the last layer that is observed.

use thinet_graph::PrunableLayer;
use thinet_models::{Mode, Net, forward_taps};
use thinet_sampling::{EvidenceCollector, draw_images};
use thinet_seed::Seed;
use thinet_selectors::{Evidence, Needs};

use super::{Context, crops};
use crate::error::HarnessError;

/// Gathers the kinds of evidence in `needs` for each of `layers` (of `net.graph`) in one pass; returns them in order.
///
/// The draws depend on `seed` alone, so that every kind is gathered from the same images, in the same pass or another.
pub(crate) fn calibrate(
    context: &Context<'_>,
    net: &Net,
    layers: Vec<PrunableLayer>,
    needs: Needs,
    seed: Seed,
    progress: &dyn Fn(u64, u64),
) -> Result<Vec<Evidence>, HarnessError> {
    let data = &context.plan.data.calibration;
    let spec = &context.plan.spec.calibration;
    let labels: Vec<usize> = (0..data.len()).map(|image| data.label(image)).collect();
    let images = draw_images(&labels, data.classes(), spec.images_per_class, seed.child("images"))?;
    let total = images.len() as u64;

    let layers: Vec<(PrunableLayer, Needs)> = layers.into_iter().map(|layer| (layer, needs)).collect();
    let mut collector = EvidenceCollector::new(
        &net.graph,
        &layers,
        &|name| net.weights.get(name).ok(),
        spec.positions_per_image,
        seed.child("positions"),
    )?;
    let taps = collector.taps();
    let mut done = 0;
    let _guard = tch::no_grad_guard();
    let (data, order, indices) = crops::cached(context, data, images, progress)?;
    let feed = context.feed;
    let mut batches = feed.plain(&data, order)?;
    while let Some(batch) = feed.busy.time(|| batches.next()) {
        feed.stop.check()?;
        let mut batch = batch?;
        if batch.indices.is_empty() {
            continue;
        }
        for index in &mut batch.indices {
            *index = indices[*index];
        }
        let mut failure = None;
        feed.busy.time(|| {
            let (inputs, _) = feed.tensors(&batch)?;
            forward_taps(&net.graph, &net.weights, &inputs, Mode::Eval, &taps, &mut |node, activation| {
                if failure.is_none() {
                    failure = collector.observe(node, activation, &batch.indices).err();
                }
            })
            .map_err(HarnessError::from)
        })?;
        if let Some(error) = failure {
            return Err(error.into());
        }
        done += batch.indices.len() as u64;
        progress(done, total);
    }
    Ok(collector.finish()?)
}
