//! Training and evaluation loops: seeded order, augmentation and dropout; exact resume from the end of an epoch.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tch::{Device, Tensor};
use thinet_data::{Batch, Dataset, Loader, LoaderOptions, Transform};
use thinet_graph::Graph;
use thinet_metrics::{Evaluation, Evaluator};
use thinet_models::{Mode, Net, ParamRates, Sgd, Weights};
use thinet_seed::Seed;

use crate::error::HarnessError;
use crate::spec::{ComputeSpec, Recipe};

/// Images per forward pass where no gradient is needed. Part of the stages' meaning: libtorch's bits may depend on it.
pub(crate) const EVAL_BATCH: usize = 250;

/// A checkpoint is written at the end of an epoch if this much time has passed since the last one.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(15);

/// How images become tensors.
#[derive(Clone, Debug)]
pub(crate) struct Feed {
    pub(crate) device: Device,
    pub(crate) compute: ComputeSpec,
    /// Pixels to inputs, without augmentation.
    pub(crate) transform: Transform,
    /// Loader threads; results do not depend on it.
    pub(crate) loader_threads: usize,
}

impl Feed {
    /// Batches of `order`, not augmented.
    pub(crate) fn plain(&self, data: &Arc<dyn Dataset>, order: Vec<usize>) -> Result<Loader, HarnessError> {
        let options = self.options(EVAL_BATCH, false);
        Ok(Loader::new(data.clone(), order, &self.transform, None, options)?)
    }

    /// Batches of one training epoch: order and augmentation are drawn from the epoch's own streams.
    fn training(
        &self,
        data: &Arc<dyn Dataset>,
        recipe: &Recipe,
        seed: Seed,
        epoch: usize,
    ) -> Result<Loader, HarnessError> {
        let order = thinet_data::shuffled(data.len(), seed.child("order").index(epoch as u64));
        let transform = Transform { augment: recipe.augment, ..self.transform.clone() };
        let augment = seed.child("augment").index(epoch as u64);
        Ok(Loader::new(data.clone(), order, &transform, Some(augment), self.options(recipe.batch, true))?)
    }

    fn options(&self, batch: usize, drop_last: bool) -> LoaderOptions {
        LoaderOptions { batch, drop_last, threads: self.loader_threads, prefetch: 4 }
    }

    /// A batch as tensors on the device: images `[n, c, h, w]` and labels `[n]`.
    pub(crate) fn tensors(&self, batch: &Batch) -> Result<(Tensor, Tensor), HarnessError> {
        let shape = batch.shape.map(|n| n as i64);
        let images = Tensor::f_from_slice(&batch.images)?.f_view(shape)?.f_to_device(self.device)?;
        let images = if self.compute.channels_last { thinet_models::channels_last(&images)? } else { images };
        let labels = Tensor::f_from_slice(&batch.labels)?.f_to_device(self.device)?;
        Ok((images, labels))
    }
}

/// How a training ended.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Trained {
    /// Mean loss over the steps of the last epoch.
    Done { loss: f64 },
    /// The loss became NaN or infinite at this step.
    Diverged { step: usize },
}

/// What a training works with besides net and images.
pub(crate) struct Session<'a> {
    pub(crate) feed: &'a Feed,
    pub(crate) recipe: &'a Recipe,
    pub(crate) seed: Seed,
    /// Where the state at the end of an epoch is kept; an existing one is continued.
    pub(crate) checkpoint: Option<&'a Path>,
    /// Told the steps done, the steps in all and the running loss.
    pub(crate) progress: &'a dyn Fn(u64, u64, f64),
}

/// Trains `net` in place.
pub(crate) fn train(
    net: &mut Net,
    data: &Arc<dyn Dataset>,
    session: &Session<'_>,
) -> Result<Trained, HarnessError> {
    let Session { feed, recipe, seed, .. } = *session;
    let total = recipe.total_steps(data.len());
    let steps_per_epoch = data.len() / recipe.batch;
    let mut sgd = sgd(&net.graph, recipe);
    let mut step = match session.checkpoint {
        Some(path) => resume(path, net, &mut sgd, feed.device)?,
        None => 0,
    };
    net.weights.train_in_place(&net.graph);
    let mut saved = Instant::now();
    let mut loss = f64::NAN;
    while step < total {
        let epoch = step / steps_per_epoch;
        thinet_models::seed_torch(seed.child("torch").index(epoch as u64));
        let (mut sum, first) = (0.0, step);
        for batch in feed.training(data, recipe, seed, epoch)? {
            let (images, labels) = feed.tensors(&batch?)?;
            let lr = recipe.schedule.lr(recipe.lr, step, total);
            let value = thinet_models::train_step(&net.graph, &net.weights, &mut sgd, &images, &labels, lr)?;
            if !value.is_finite() {
                return Ok(Trained::Diverged { step });
            }
            sum += value;
            step += 1;
            loss = sum / (step - first) as f64;
            (session.progress)(step as u64, total as u64, loss);
            if step == total {
                break;
            }
        }
        if let Some(path) = session.checkpoint
            && step < total
            && saved.elapsed() >= CHECKPOINT_EVERY
        {
            save(path, net, &sgd, step)?;
            saved = Instant::now();
        }
    }
    Ok(Trained::Done { loss })
}

fn sgd(graph: &Graph, recipe: &Recipe) -> Sgd {
    let bias = ParamRates { lr: recipe.bias_lr, decay: recipe.bias_decay };
    Sgd::new(graph, recipe.momentum, recipe.weight_decay, bias)
}
