//! The calibration pass: seeded training images through the net, up to the last layer that is observed, and back from the loss for kinds
//! of evidence that are gathered from gradients.

use std::collections::BTreeSet;

use tch::Tensor;
use thinet_graph::{ChannelGroup, NodeId};
use thinet_models::{BatchNormEstimate, Mode, Net, OutputGradient, forward_taps, output_gradients};
use thinet_sampling::{
    EvidenceCollector, PatchCollector, ReaderPatches, SamplingError, SamplingSpec, draw_images,
};
use thinet_seed::Seed;
use thinet_selectors::{Evidence, Needs};

use super::feed::DeviceBatch;
use super::{Context, crops, streams};
use crate::error::{BatchSize, HarnessError};

/// The images and positions of a calibration.
#[derive(Clone, Copy)]
pub(crate) struct Sample {
    pub(crate) size: SamplingSpec,
    /// Which ones are drawn depends on it alone.
    pub(crate) seed: Seed,
}

/// Gathers the kinds of evidence in `needs` for each of `groups` (of `net.graph`) in one pass; returns them in order.
///
/// The draws depend on `sample` alone, so that every kind is gathered from the same images, in the same pass or another. Kinds that need
/// gradients have a pass of their own over each batch, so that the others are computed as without them.
pub(crate) fn calibrate(
    context: &Context<'_>,
    net: &Net,
    groups: Vec<ChannelGroup>,
    needs: Needs,
    sample: Sample,
    progress: &dyn Fn(u64, u64),
) -> Result<Vec<Evidence>, HarnessError> {
    let groups: Vec<(ChannelGroup, Needs)> = groups.into_iter().map(|group| (group, needs)).collect();
    let mut collector = EvidenceCollector::new(
        &net.graph,
        &groups,
        &|name| net.weights.get(name).ok(),
        sample.size.positions_per_image,
        streams::positions(sample.seed),
    )?;
    let (taps, gradient_taps) = (collector.taps(), collector.gradient_taps());
    for_each_batch(context, sample, progress, &mut |batch| {
        observe(net, batch, &taps, &mut |node, activation, images| {
            collector.observe(node, activation, images)
        })?;
        if gradient_taps.is_empty() {
            return Ok(());
        }
        let mut failure = None;
        let mut observe = |OutputGradient { node, first, output, gradient }: OutputGradient| {
            let indices = &batch.indices[first..][..output.size()[0] as usize];
            if failure.is_none() {
                failure = collector.observe_gradient(node, &output, &gradient, indices).err();
            }
        };
        output_gradients(
            &net.graph,
            &net.weights,
            &batch.images,
            &batch.labels,
            &gradient_taps,
            &mut observe,
        )?;
        failure.map_or(Ok(()), |error| Err(error.into()))
    })?;
    Ok(collector.finish()?)
}

/// Gathers the products of the patches that the readers of `group` (of `net.graph`) see, from the same images and positions as
/// [`calibrate`]; in the order of the readers.
pub(crate) fn gather_patches(
    context: &Context<'_>,
    net: &Net,
    group: &ChannelGroup,
    sample: Sample,
    progress: &dyn Fn(u64, u64),
) -> Result<Vec<ReaderPatches>, HarnessError> {
    let (positions, seed) = (sample.size.positions_per_image, streams::positions(sample.seed));
    let mut collector = PatchCollector::new(&net.graph, group, positions, seed, context.plan.device.into())?;
    let taps = collector.taps();
    for_each_batch(context, sample, progress, &mut |batch| {
        observe(net, batch, &taps, &mut |node, activation, images| {
            collector.observe(node, activation, images)
        })
    })?;
    Ok(collector.finish()?)
}

/// Work on the output of a node, and the indices of the images in it.
type NodeWork<'a> = dyn FnMut(NodeId, &Tensor, &[usize]) -> Result<(), SamplingError> + 'a;

/// Calls `work` with the output of each of the nodes `taps` for a batch, and the indices of its images.
fn observe(
    net: &Net,
    batch: &DeviceBatch,
    taps: &BTreeSet<NodeId>,
    work: &mut NodeWork<'_>,
) -> Result<(), HarnessError> {
    let mut failure = None;
    forward_taps(&net.graph, &net.weights, &batch.images, Mode::Eval, taps, &mut |node, activation| {
        if failure.is_none() {
            failure = work(node, activation, &batch.indices).err();
        }
    })?;
    failure.map_or(Ok(()), |error| Err(error.into()))
}

/// Work on one batch of calibration images, whose indices are those of the training set.
type BatchWork<'a> = dyn FnMut(&DeviceBatch) -> Result<(), HarnessError> + 'a;

/// Calls `work` with each batch of the calibration images, on the device. The images depend on `sample` alone.
fn for_each_batch(
    context: &Context<'_>,
    sample: Sample,
    progress: &dyn Fn(u64, u64),
    work: &mut BatchWork<'_>,
) -> Result<(), HarnessError> {
    let data = &context.plan.data.calibration;
    let labels: Vec<usize> = (0..data.len()).map(|image| data.label(image)).collect();
    let images =
        draw_images(&labels, data.classes(), sample.size.images_per_class, streams::images(sample.seed))?;
    let total = images.len() as u64;

    let _guard = tch::no_grad_guard();
    let (data, order, indices) = crops::cached(context, data, images, progress)?;
    let feed = context.feed;
    let mut done = 0;
    for batch in feed.plain(&data, order)? {
        feed.stop.check()?;
        let mut batch = batch?;
        if batch.indices.is_empty() {
            continue;
        }
        for index in &mut batch.indices {
            *index = indices[*index];
        }
        feed.busy.time(|| work(&batch)).map_err(|error| {
            // The pass ends here, so what fewer images add to it is lost with the rest.
            let mut fits = |fewer: i64| batch.first(fewer).is_ok_and(|some| work(&some).is_ok());
            error.in_batch(feed.device, batch.indices.len() as i64, BatchSize::Fixed, &mut fits)
        })?;
        done += batch.indices.len() as u64;
        progress(done, total);
    }
    Ok(())
}

/// The net with the running statistics of its batch normalisations estimated on the images of `sample`.
pub(crate) fn estimate_batch_norm(
    context: &Context<'_>,
    net: &Net,
    sample: Sample,
    progress: &dyn Fn(u64, u64),
) -> Result<Net, HarnessError> {
    let mut estimate = BatchNormEstimate::new(&net.graph, &net.weights)?;
    for_each_batch(context, sample, progress, &mut |batch| Ok(estimate.add(&batch.images)?))?;
    Ok(Net { graph: net.graph.clone(), weights: estimate.finish() })
}
