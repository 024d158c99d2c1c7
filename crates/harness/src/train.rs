//! Training and evaluation loops: seeded order, augmentation and dropout; exact resume from the end of an epoch.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tch::{Device, Tensor};
use thinet_data::{Batch, Dataset, Loader, LoaderOptions, Transform};
use thinet_metrics::{Evaluation, Evaluator};
use thinet_models::{
    MemoryFormat, Mode, Net, Precision, Sgd, SgdOptions, Weights, forward, load_tensors, save_tensors,
    seed_torch, set_tf32, train_step,
};
use thinet_seed::Seed;

use crate::error::HarnessError;
use crate::spec::Recipe;

/// Most images per forward pass where no gradient is needed.
const EVAL_BATCH: usize = 250;
/// Most pixels per such pass: 20 images of 224×224, 250 of 64×64.
const EVAL_PIXELS: usize = EVAL_BATCH * 64 * 64;

/// A checkpoint is written at the end of an epoch if this much time has passed since the last one.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(15);

// Names in a training checkpoint.
const WEIGHT: &str = "weight.";
const VELOCITY: &str = "velocity.";
const STEP: &str = "step";

/// How images become tensors.
#[derive(Clone, Debug)]
pub(crate) struct Feed {
    pub(crate) device: Device,
    /// How images and weights lie in memory.
    pub(crate) format: MemoryFormat,
    /// In what type training computes; calibration and testing are always in 32-bit floats.
    pub(crate) precision: Precision,
    /// Whether training may round the factors of 32-bit products to TF32.
    pub(crate) tf32: bool,
    /// Pixels to inputs, without augmentation.
    pub(crate) transform: Transform,
    /// Loader threads; results do not depend on it.
    pub(crate) loader_threads: usize,
}

impl Feed {
    /// Batches of `order`, not augmented. Their size follows from that of the images alone: libtorch's last bits may
    /// depend on it.
    pub(crate) fn plain(&self, data: &Arc<dyn Dataset>, order: Vec<usize>) -> Result<Loader, HarnessError> {
        let [_, height, width] = self.transform.output_shape(data.shape())?;
        let batch = (EVAL_PIXELS / (height * width).max(1)).clamp(1, EVAL_BATCH);
        Ok(Loader::new(data.clone(), order, &self.transform, None, self.options(batch, false))?)
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
        let images = self.to_device(&Tensor::f_from_slice(&batch.images)?.f_view(shape)?)?;
        let labels = self.to_device(&Tensor::f_from_slice(&batch.labels)?)?;
        Ok((self.format.apply(&images)?, labels))
    }

    /// To a GPU from page-locked memory, so that the copy runs beside the computing.
    fn to_device(&self, tensor: &Tensor) -> Result<Tensor, HarnessError> {
        if !self.device.is_cuda() {
            return Ok(tensor.shallow_clone());
        }
        let pinned = tensor.f_pin_memory(self.device)?;
        Ok(pinned.f_to_dtype_layout((tensor.kind(), self.device), true, false)?)
    }
}

/// Top-1, top-5 and mean cross-entropy of `net` on all images, in their order.
pub(crate) fn evaluate(
    net: &Net,
    data: &Arc<dyn Dataset>,
    feed: &Feed,
    progress: &dyn Fn(u64, u64),
) -> Result<Evaluation, HarnessError> {
    evaluate_some(net, data, (0..data.len()).collect(), feed, progress)
}

/// The same on some of the images.
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
    for batch in feed.plain(data, order)? {
        let batch = batch?;
        if batch.indices.is_empty() {
            continue;
        }
        let (images, labels) = feed.tensors(&batch)?;
        let logits = forward(&net.graph, &net.weights, &images, Mode::Eval)
            .map_err(|e| HarnessError::of_model(e, feed.device, images.size()[0]))?;
        evaluator.add(&logits, &labels)?;
        done += batch.indices.len() as u64;
        progress(done, total);
    }
    Ok(evaluator.finish()?)
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

/// Trains `net` in place. TF32 is allowed for as long as that takes, if the spec says so.
pub(crate) fn train(
    net: &mut Net,
    data: &Arc<dyn Dataset>,
    session: &Session<'_>,
) -> Result<Trained, HarnessError> {
    set_tf32(session.feed.tf32)?;
    let trained = train_steps(net, data, session);
    set_tf32(false)?;
    trained
}

fn train_steps(
    net: &mut Net,
    data: &Arc<dyn Dataset>,
    session: &Session<'_>,
) -> Result<Trained, HarnessError> {
    let Session { feed, recipe, seed, .. } = *session;
    let total = recipe.total_steps(data.len());
    let steps_per_epoch = data.len() / recipe.batch;
    let options = SgdOptions {
        momentum: recipe.momentum,
        weight_decay: recipe.weight_decay,
        bias_lr: recipe.bias_lr,
        bias_decay: recipe.bias_decay,
        layer_lr: recipe.layer_lr.clone(),
        layer_decay: recipe.layer_decay.clone(),
    };
    let mut sgd = Sgd::new(&net.graph, &options);
    let mut step = match session.checkpoint {
        Some(path) if path.is_file() => resume(path, net, &mut sgd, feed)?,
        _ => 0,
    };
    let mut saved = Instant::now();
    let mut loss = f64::NAN;
    while step < total {
        let epoch = step / steps_per_epoch;
        seed_torch(seed.child("torch").index(epoch as u64));
        let (mut sum, first) = (0.0, step);
        for batch in feed.training(data, recipe, seed, epoch)? {
            let batch = batch?;
            if batch.indices.is_empty() {
                // Every image was left out as damaged; the schedule goes on all the same.
                step += 1;
                continue;
            }
            let (images, labels) = feed.tensors(&batch)?;
            let lr = recipe.schedule.lr(recipe.lr, step, total);
            let value = train_step(&net.graph, &net.weights, &mut sgd, &images, &labels, lr, feed.precision)
                .map_err(|e| HarnessError::of_model(e, feed.device, batch.indices.len() as i64))?;
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

/// One file, renamed into place, holds weights, velocities and the step.
fn save(path: &Path, net: &Net, sgd: &Sgd, step: usize) -> Result<(), HarnessError> {
    let mut tensors: Vec<(String, Tensor)> = Vec::new();
    for (name, tensor) in net.weights.iter() {
        tensors.push((format!("{WEIGHT}{name}"), tensor.shallow_clone()));
    }
    for (name, velocity) in sgd.state() {
        tensors.push((format!("{VELOCITY}{name}"), velocity));
    }
    tensors.push((STEP.to_owned(), Tensor::f_from_slice(&[step as i64])?));
    Ok(save_tensors(path, &tensors, &BTreeMap::new())?)
}

/// Puts net and optimiser back to what [`save`] saw and returns the step.
fn resume(path: &Path, net: &mut Net, sgd: &mut Sgd, feed: &Feed) -> Result<usize, HarnessError> {
    let damaged =
        |problem: &str| HarnessError::Damaged { path: path.to_owned(), problem: problem.to_owned() };
    let (tensors, _) = load_tensors(path, feed.device)?;
    let (mut weights, mut velocities, mut step) = (Weights::new(), BTreeMap::new(), None);
    for (name, tensor) in tensors {
        if let Some(name) = name.strip_prefix(WEIGHT) {
            weights.insert(name, tensor);
        } else if let Some(name) = name.strip_prefix(VELOCITY) {
            velocities.insert(name.to_owned(), tensor);
        } else if name == STEP && tensor.numel() == 1 {
            step = usize::try_from(tensor.f_int64_value(&[0])?).ok();
        }
    }
    let step = step.ok_or_else(|| damaged("does not say how many steps were done"))?;
    weights.check(&net.graph)?;
    net.weights = weights.to_format(feed.format)?;
    sgd.restore(&net.weights, velocities)?;
    Ok(step)
}
