//! Testing a net: top-1, top-5 and loss over images in their order.

use std::sync::Arc;

use thinet_data::Dataset;
use thinet_metrics::{Evaluation, Evaluator};
use thinet_models::{Mode, Net, add_batch, forward};

use super::feed::Feed;
use crate::error::HarnessError;

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
    let mut batches = feed.plain(data, order)?;
    while let Some(batch) = feed.busy.time(|| batches.next()) {
        feed.stop.check()?;
        let batch = batch?;
        if batch.indices.is_empty() {
            continue;
        }
        feed.busy.time(|| {
            let (images, labels) = feed.tensors(&batch)?;
            let logits = forward(&net.graph, &net.weights, &images, Mode::Eval)
                .map_err(|e| HarnessError::of_model(e, feed.device, images.size()[0]))?;
            Ok::<_, HarnessError>(add_batch(&mut evaluator, &logits, &labels)?)
        })?;
        done += batch.indices.len() as u64;
        progress(done, total);
    }
    Ok(evaluator.finish()?)
}
