//! Feeds images to a net: batches as tensors on the device, and the time spent on them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tch::Tensor;
use thinet_data::{Batch, Dataset, Loader, LoaderOptions, Transform};
use thinet_models::{Device, MemoryFormat, Precision};
use thinet_seed::Seed;

use crate::error::HarnessError;
use crate::stop::Stop;
use crate::study::Recipe;

/// Maximum number of images per forward pass without gradients.
const EVAL_BATCH: usize = 250;
/// Maximum number of pixels per such pass: 20 images of 224×224, 250 of 64×64.
const EVAL_PIXELS: usize = EVAL_BATCH * 64 * 64;

/// Settings for feeding images to a net, and for training on them.
#[derive(Clone, Debug)]
pub(crate) struct Feed {
    pub(crate) device: Device,
    /// Memory format of images and weights.
    pub(crate) format: MemoryFormat,
    /// Element type of training; calibration and testing always use 32-bit floats.
    pub(crate) precision: Precision,
    /// Whether training may round the factors of 32-bit products to TF32.
    pub(crate) tf32: bool,
    /// Pixels to inputs, without augmentation.
    pub(crate) transform: Transform,
    /// Loader threads; results do not depend on it.
    pub(crate) loader_threads: usize,
    /// Minimum time between two checkpoints of a training; zero: after every step.
    pub(crate) checkpoint_every: Duration,
    /// Checked between batches.
    pub(crate) stop: Stop,
    /// Time spent in libtorch and waiting for images.
    pub(crate) busy: BusyTime,
}

/// Accumulates the time spent in libtorch and waiting for images.
#[derive(Clone, Debug, Default)]
pub(crate) struct BusyTime(Arc<AtomicU64>);

impl BusyTime {
    pub(crate) fn time<T>(&self, work: impl FnOnce() -> T) -> T {
        let started = Instant::now();
        let result = work();
        self.0.fetch_add(started.elapsed().as_nanos() as u64, Ordering::Relaxed);
        result
    }

    /// Seconds since the last call.
    pub(crate) fn take(&self) -> f64 {
        self.0.swap(0, Ordering::Relaxed) as f64 * 1e-9
    }
}

impl Feed {
    /// Batches of the images in `order`, not augmented. The batch size depends on the image size alone, as libtorch's last bits can
    /// depend on it.
    pub(crate) fn plain(&self, data: &Arc<dyn Dataset>, order: Vec<usize>) -> Result<Loader, HarnessError> {
        let [_, height, width] = self.transform.output_shape(data.shape())?;
        let batch = (EVAL_PIXELS / (height * width).max(1)).clamp(1, EVAL_BATCH);
        Ok(Loader::new(data.clone(), order, &self.transform, None, self.options(batch, false))?)
    }

    /// Batches of one training epoch from batch `first` on. Order and augmentation are drawn from streams of the epoch, augmentation
    /// from one stream per image, so that skipped batches change nothing.
    pub(crate) fn training(
        &self,
        data: &Arc<dyn Dataset>,
        recipe: &Recipe,
        seed: Seed,
        epoch: usize,
        first: usize,
    ) -> Result<Loader, HarnessError> {
        let mut order = thinet_data::shuffled(data.len(), seed.child("order").index(epoch as u64));
        order.drain(..first * recipe.batch);
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

    /// Copies to a GPU from page-locked memory, so that copy and computation overlap.
    fn to_device(&self, tensor: &Tensor) -> Result<Tensor, HarnessError> {
        if !self.device.is_gpu() {
            return Ok(tensor.shallow_clone());
        }
        let device = self.device.into();
        let pinned = tensor.f_pin_memory(device)?;
        Ok(pinned.f_to_dtype_layout((tensor.kind(), device), true, false)?)
    }
}
