//! Testing a net: top-1, top-5 and loss over images in their order.

use std::sync::Arc;

use tch::Tensor;
use thinet_data::Dataset;
use thinet_metrics::{Evaluation, Evaluator};
use thinet_models::{Mode, ModelError, Net, add_batch, forward};

use super::feed::{DeviceBatch, Feed};
use crate::error::{BatchSize, HarnessError};

/// Top-1, top-5 and mean cross-entropy of `net` on all images, in their order.
pub(crate) fn evaluate(
    net: &Net,
    data: &Arc<dyn Dataset>,
    feed: &Feed,
    progress: &dyn Fn(u64, u64),
) -> Result<Evaluation, HarnessError> {
    evaluate_some(net, data, (0..data.len()).collect(), feed, progress)
}

/// As [`evaluate`], on some of the images.
pub(crate) fn evaluate_some(
    net: &Net,
    data: &Arc<dyn Dataset>,
    order: Vec<usize>,
    feed: &Feed,
    progress: &dyn Fn(u64, u64),
) -> Result<Evaluation, HarnessError> {
    let _guard = tch::no_grad_guard();
    let mut evaluator = Evaluator::default();
    let (mut done, total) = (0, order.len() as u64);
    // Reading logits waits for a GPU: those of a batch are read when the next one is under way.
    let mut owed: Option<BatchOutput> = None;
    let mut count = |passed: BatchOutput| -> Result<(), HarnessError> {
        let images = passed.labels.numel();
        feed.busy
            .time(|| add_batch(&mut evaluator, &passed.logits, &passed.labels))
            .map_err(|error| HarnessError::of_model(error, feed.device, images as i64, BatchSize::Fixed))?;
        done += images as u64;
        progress(done, total);
        Ok(())
    };
    for batch in feed.plain(data, order)? {
        feed.stop.check()?;
        let DeviceBatch { images, labels, indices } = batch?;
        if indices.is_empty() {
            continue;
        }
        let pass = |images: &Tensor| forward(&net.graph, &net.weights, images, Mode::Eval);
        let logits = feed.busy.time(|| pass(&images)).map_err(|error| {
            let mut fits = |fewer| done_on(&images, fewer, &pass);
            HarnessError::of_batch(error, feed.device, indices.len() as i64, BatchSize::Fixed, &mut fits)
        })?;
        let passed = BatchOutput { logits, labels };
        let ready = if feed.owed_losses > 1 { owed.replace(passed) } else { Some(passed) };
        ready.map_or(Ok(()), &mut count)?;
    }
    owed.map_or(Ok(()), count)?;
    Ok(evaluator.finish()?)
}

/// A batch that was passed through a net.
struct BatchOutput {
    /// `[n, classes]` on the device.
    logits: Tensor,
    /// `[n]` on the device.
    labels: Tensor,
}

/// Whether a pass can be done on the first `fewer` images of a batch.
fn done_on(images: &Tensor, fewer: i64, pass: &dyn Fn(&Tensor) -> Result<Tensor, ModelError>) -> bool {
    let output = images.f_narrow(0, 0, fewer).map(|some| pass(&some));
    // Reading a value waits for the device.
    matches!(output, Ok(Ok(output)) if output.f_sum(tch::Kind::Float).and_then(|sum| sum.f_double_value(&[])).is_ok())
}
