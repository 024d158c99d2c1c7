//! The training loop: seeded order, augmentation and dropout; resumes exactly from the middle of an epoch.

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use tch::{Kind, TchError, Tensor};
use thinet_data::Dataset;
use thinet_models::{
    Mark, ModelError, Net, Sgd, SgdOptions, Weights, generator_state, load_tensors, save_tensors, seed_torch,
    set_generator_state, set_tf32, train_step,
};
use thinet_report::records::LossCurve;
use thinet_seed::Seed;

use super::checkpoint::Checkpoints;
use super::feed::{DeviceBatch, Feed};
use super::loss_windows::LossWindows;
use super::streams;
use crate::error::{BatchSize, HarnessError, torch_message};
use crate::study::Recipe;

/// Steps whose losses a training may owe on a GPU: reading one waits until the GPU has nothing left to do.
pub(crate) const OWED_ON_GPU: usize = 20;
/// Steps that the program may be ahead of a GPU, so that few batches wait in its memory.
const STEPS_AHEAD: usize = 4;
/// Writing checkpoints takes at most one part in this many of the time.
const CHECKPOINT_SHARE: u32 = 100;

// Names of tensors in a training checkpoint.
const WEIGHT: &str = "weight.";
const VELOCITY: &str = "velocity.";
const STEP: &str = "step";
const LOSS_SUM: &str = "loss-sum";
const LOSS: &str = "loss";
const LOSS_WINDOWS: &str = "loss-windows";
const GENERATOR: &str = "generator";

/// A training that ended.
pub(crate) struct TrainingResult {
    pub(crate) end: TrainingEnd,
    /// `None` if it was begun by a version that recorded no curve.
    pub(crate) curve: Option<LossCurve>,
}

/// How a training ended.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum TrainingEnd {
    /// Mean loss over the steps of the last epoch.
    Done { loss: f64 },
    /// The loss became NaN or infinite at this step.
    Diverged { step: usize },
}

/// The inputs of a training besides net and images.
pub(crate) struct Session<'a> {
    pub(crate) feed: &'a Feed,
    pub(crate) recipe: &'a Recipe,
    pub(crate) seed: Seed,
    /// Checkpoints of this training; it resumes from the latest one.
    pub(crate) checkpoints: Checkpoints<'a>,
    /// Additional metadata of each checkpoint: how the net was cut.
    pub(crate) start: &'a BTreeMap<String, String>,
    /// Called after each step.
    pub(crate) progress: &'a dyn Fn(Advance),
    /// Called with messages for the log.
    pub(crate) note: &'a dyn Fn(String),
}

/// Progress of a training.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Advance {
    pub(crate) done: u64,
    pub(crate) total: u64,
    /// Mean loss of the epoch so far.
    pub(crate) loss: f64,
    /// Learning rate of the last step.
    pub(crate) lr: f64,
}

/// Trains `net` in place. If the spec allows TF32, it is allowed during the training only.
pub(crate) fn train(
    net: &mut Net,
    data: &Arc<dyn Dataset>,
    session: &Session<'_>,
) -> Result<TrainingResult, HarnessError> {
    set_tf32(session.feed.tf32)?;
    let trained = train_steps(net, data, session);
    set_tf32(false)?;
    trained
}

fn train_steps(
    net: &mut Net,
    data: &Arc<dyn Dataset>,
    session: &Session<'_>,
) -> Result<TrainingResult, HarnessError> {
    let Session { feed, recipe, seed, .. } = *session;
    let total = recipe.total_steps(data.len());
    let steps_per_epoch = data.len() / recipe.batch;
    let options = SgdOptions {
        momentum: recipe.momentum,
        nesterov: recipe.nesterov,
        weight_decay: recipe.weight_decay,
        bias_lr: recipe.bias_lr,
        bias_decay: recipe.bias_decay,
        layer_lr: recipe.layer_lr.clone(),
        layer_decay: recipe.layer_decay.clone(),
    };
    let mut sgd = Sgd::new(&net.graph, &options);
    let mut at = Position::start(total);
    let damaged = |name| (session.note)(format!("checkpoint {name} is damaged; an older state is continued"));
    if let Some(path) = session.checkpoints.latest(&mut { damaged })? {
        at = resume(&path, net, &mut sgd, feed, steps_per_epoch, total)?;
    }
    let (mut saved, mut due) = (Instant::now(), feed.checkpoint_every);
    while at.step < total {
        let (epoch, first) = (at.step / steps_per_epoch, at.step % steps_per_epoch);
        match at.generator.take() {
            Some(state) if first > 0 => set_generator_state(feed.device, &state)?,
            _ => seed_torch(streams::torch(seed).index(epoch as u64)),
        }
        if first == 0 {
            at.loss_sum = 0.0;
        }
        let mut batches = feed.training(data, recipe, seed, epoch, first)?;
        let (mut pending, mut diverged, mut ahead) = (Vec::new(), None, VecDeque::new());
        let epoch_start = epoch * steps_per_epoch;
        while at.step < total
            && let Some(batch) = batches.next()
        {
            let lr = recipe.lr_at(at.step, total, steps_per_epoch);
            let step = batch.and_then(|batch| feed.busy.time(|| step(net, &mut sgd, &batch, lr, feed)));
            match step {
                // A batch whose images were all left out as damaged still counts as a step.
                Ok(None) => {}
                Ok(Some((images, loss))) => pending.push(PendingLoss { step: at.step, lr, images, loss }),
                // A training that diverged before has diverged, whatever happens to it afterwards.
                Err(error) => {
                    diverged = diverged.or(read(&mut pending, &mut at, epoch_start, total, session)?);
                    return diverged.map_or(Err(error), |end| Ok(at.ended(end)));
                }
            }
            ahead.push_back(Mark::now(feed.device)?);
            if ahead.len() > STEPS_AHEAD
                && let Some(mark) = ahead.pop_front()
            {
                let waited = feed.busy.time(|| mark.wait());
                waited.map_err(|error| late(error, &pending, feed))?;
            }
            at.step += 1;
            // At fixed steps, whenever the run was stopped or saved a checkpoint: a diverged net has the same weights in every run.
            let in_epoch = at.step - epoch_start;
            if in_epoch == steps_per_epoch || at.step == total || in_epoch.is_multiple_of(feed.owed_losses) {
                diverged = diverged.or(read(&mut pending, &mut at, epoch_start, total, session)?);
                if let Some(end) = diverged {
                    return Ok(at.ended(end));
                }
            }
            let is_stopped = feed.stop.is_set();
            if is_stopped || saved.elapsed() >= due {
                diverged = diverged.or(read(&mut pending, &mut at, epoch_start, total, session)?);
                let started = Instant::now();
                if diverged.is_none() {
                    save(session, net, &sgd, &at)?;
                }
                saved = Instant::now();
                if !feed.checkpoint_every.is_zero() {
                    due = feed.checkpoint_every.max(CHECKPOINT_SHARE * (saved - started));
                }
            }
            if is_stopped {
                return Err(HarnessError::Stopped);
            }
        }
    }
    let end = TrainingEnd::Done { loss: at.loss };
    Ok(at.ended(end))
}

/// A step whose loss has not been read.
struct PendingLoss {
    step: usize,
    lr: f64,
    /// Images in its batch.
    images: i64,
    /// A tensor `[]` on the device.
    loss: Tensor,
}

/// One step on a batch: its number of images and its loss, or `None` if the batch is empty.
fn step(
    net: &Net,
    sgd: &mut Sgd,
    batch: &DeviceBatch,
    lr: f64,
    feed: &Feed,
) -> Result<Option<(i64, Tensor)>, HarnessError> {
    let DeviceBatch { images, labels, indices } = batch;
    if indices.is_empty() {
        return Ok(None);
    }
    let mut step_on = |images: &Tensor, labels: &Tensor| {
        train_step(&net.graph, &net.weights, sgd, images, labels, lr, feed.precision)
    };
    let count = indices.len() as i64;
    step_on(images, labels).map(|loss| Some((count, loss))).map_err(|error| {
        // The training ends here, so nothing is lost by a step on fewer images.
        let mut fits = |fewer| {
            let some =
                images.f_narrow(0, 0, fewer).and_then(|images| Ok((images, labels.f_narrow(0, 0, fewer)?)));
            let done = some.map(|(images, labels)| step_on(&images, &labels));
            // Reading the loss waits for the device.
            matches!(done, Ok(Ok(loss)) if loss.f_double_value(&[]).is_ok())
        };
        HarnessError::of_batch(error, feed.device, count, BatchSize::OfSpec, &mut fits)
    })
}

/// Reads the losses of steps in their order, adds them to the position's and reports them. Returns the end of a training that
/// diverged.
fn read(
    pending: &mut Vec<PendingLoss>,
    at: &mut Position,
    epoch_start: usize,
    total: usize,
    session: &Session<'_>,
) -> Result<Option<TrainingEnd>, HarnessError> {
    let feed = session.feed;
    let values = feed.busy.time(|| -> Result<Vec<f64>, TchError> {
        if pending.is_empty() {
            return Ok(Vec::new());
        }
        let losses: Vec<&Tensor> = pending.iter().map(|step| &step.loss).collect();
        let losses = Tensor::f_stack(&losses, 0)?.f_to_device(tch::Device::Cpu)?.f_to_kind(Kind::Double)?;
        Vec::try_from(losses)
    });
    let values = values.map_err(|error| {
        let message = torch_message(&error);
        late(ModelError::Torch { context: "reading the loss".to_owned(), message }, pending, feed)
    })?;
    for (PendingLoss { step, lr, .. }, value) in pending.drain(..).zip(values) {
        if !value.is_finite() {
            return Ok(Some(TrainingEnd::Diverged { step }));
        }
        at.loss_sum += value;
        at.loss = at.loss_sum / (step + 1 - epoch_start) as f64;
        if let Some(windows) = &mut at.windows {
            windows.add(step as u64, value);
        }
        (session.progress)(Advance { done: step as u64 + 1, total: total as u64, loss: at.loss, lr });
    }
    Ok(None)
}

/// An error of a GPU's own work, which shows when the program waits for it: names the steps in which it can have happened.
fn late(error: ModelError, pending: &[PendingLoss], feed: &Feed) -> HarnessError {
    let (Some(first), Some(last)) = (pending.first(), pending.last()) else { return error.into() };
    let error = match error {
        ModelError::Torch { context, message } => {
            let steps = match (first.step + 1, last.step + 1) {
                (first, last) if first == last => format!("step {first}"),
                (first, last) => format!("one of the steps {first} to {last}"),
            };
            ModelError::Torch { context: format!("{steps} of a training ({context})"), message }
        }
        other => other,
    };
    HarnessError::of_model(error, feed.device, first.images, BatchSize::OfSpec)
}

/// The position of a training, besides weights and velocities.
struct Position {
    step: usize,
    /// Sum of the losses of this epoch's steps.
    loss_sum: f64,
    /// Mean loss of the epoch so far; that of the last epoch until the first step of a new one.
    loss: f64,
    /// The loss curve so far; `None` if the training was begun by a version that recorded none.
    windows: Option<LossWindows>,
    /// State of libtorch's generator, used by dropout, at a checkpoint; each epoch starts with a new one.
    generator: Option<Vec<u8>>,
}

impl Position {
    /// Before the first of `total` steps.
    fn start(total: usize) -> Self {
        let windows = Some(LossWindows::new(total as u64));
        Self { step: 0, loss_sum: 0.0, loss: f64::NAN, windows, generator: None }
    }

    fn ended(self, end: TrainingEnd) -> TrainingResult {
        TrainingResult { end, curve: self.windows.map(LossWindows::into_curve) }
    }
}

/// Saves weights, velocities and the position as one file.
fn save(session: &Session<'_>, net: &Net, sgd: &Sgd, at: &Position) -> Result<(), HarnessError> {
    let mut tensors: Vec<(String, Tensor)> = Vec::new();
    for (name, tensor) in net.weights.iter() {
        tensors.push((format!("{WEIGHT}{name}"), tensor.shallow_clone()));
    }
    for (name, velocity) in sgd.state() {
        tensors.push((format!("{VELOCITY}{name}"), velocity));
    }
    tensors.push((STEP.to_owned(), Tensor::f_from_slice(&[at.step as i64])?));
    tensors.push((LOSS_SUM.to_owned(), Tensor::f_from_slice(&[at.loss_sum])?));
    tensors.push((LOSS.to_owned(), Tensor::f_from_slice(&[at.loss])?));
    if let Some(windows) = &at.windows {
        tensors.push((LOSS_WINDOWS.to_owned(), Tensor::f_from_slice(&windows.to_numbers())?));
    }
    let generator: Vec<i64> = generator_state(session.feed.device)?.into_iter().map(i64::from).collect();
    tensors.push((GENERATOR.to_owned(), Tensor::f_from_slice(&generator)?));
    session.checkpoints.save(at.step as u64, |path| Ok(save_tensors(path, &tensors, session.start)?))
}

/// Restores net and optimiser from a checkpoint of [`save`] and returns the position.
fn resume(
    path: &Path,
    net: &mut Net,
    sgd: &mut Sgd,
    feed: &Feed,
    steps_per_epoch: usize,
    total: usize,
) -> Result<Position, HarnessError> {
    let damaged =
        |problem: &str| HarnessError::Damaged { path: path.to_owned(), problem: problem.to_owned() };
    let (tensors, _) = load_tensors(path, feed.device.into())?;
    let (mut weights, mut velocities) = (Weights::new(), BTreeMap::new());
    let (mut step, mut loss_sum, mut loss, mut windows, mut generator) = (None, None, None, None, None);
    for (name, tensor) in tensors {
        if let Some(name) = name.strip_prefix(WEIGHT) {
            weights.insert(name, tensor);
        } else if let Some(name) = name.strip_prefix(VELOCITY) {
            velocities.insert(name.to_owned(), tensor);
        } else if name == STEP && tensor.numel() == 1 {
            step = usize::try_from(tensor.f_int64_value(&[0])?).ok();
        } else if name == LOSS_SUM && tensor.numel() == 1 {
            loss_sum = Some(tensor.f_double_value(&[0])?);
        } else if name == LOSS && tensor.numel() == 1 {
            loss = Some(tensor.f_double_value(&[0])?);
        } else if name == LOSS_WINDOWS {
            windows = Some(Vec::<f64>::try_from(tensor.f_to_device(tch::Device::Cpu)?)?);
        } else if name == GENERATOR {
            generator = Some(Vec::<i64>::try_from(tensor.f_to_device(tch::Device::Cpu)?)?);
        }
    }
    let missing = || damaged("is not a whole checkpoint of a training");
    let generator = generator.ok_or_else(missing)?.into_iter().map(|byte| byte as u8).collect();
    let (step, loss_sum) = (step.ok_or_else(missing)?, loss_sum.ok_or_else(missing)?);
    let windows = match windows {
        None => None,
        Some(numbers) => Some(LossWindows::from_numbers(total as u64, &numbers).ok_or_else(missing)?),
    };
    let position = Position {
        step,
        loss_sum,
        // Checkpoints of old versions hold the sum alone.
        loss: loss.unwrap_or_else(|| match step {
            0 => f64::NAN,
            done => loss_sum / ((done - 1) % steps_per_epoch + 1) as f64,
        }),
        windows,
        generator: Some(generator),
    };
    weights.check(&net.graph)?;
    net.weights = weights.to_format(feed.format)?;
    sgd.restore(&net.weights, velocities)?;
    Ok(position)
}

#[cfg(test)]
mod tests;
