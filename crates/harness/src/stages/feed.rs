//! Feeds images to a net: batches as tensors on the device, and the time spent on them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tch::{TchError, Tensor};
use thinet_data::{Dataset, Loader, LoaderOptions, Transform};
use thinet_models::{Device, MemoryFormat, ModelError, Precision, UploadBytes};
use thinet_seed::Seed;

use super::streams;
use super::to_device::{SmallPass, ToDevice};
use crate::error::{BatchSize, HarnessError};
use crate::stop::Stop;
use crate::study::Recipe;

/// Maximum number of images per forward pass without gradients on a CPU.
const CPU_BATCH: usize = 250;
/// Maximum number of pixels per such pass: 20 images of 224×224, 250 of 64×64.
const CPU_PIXELS: usize = CPU_BATCH * 64 * 64;
/// The same on a GPU. A change of these two raises `GPU_VERSION` in `study/identity.rs`.
const GPU_BATCH: usize = 2048;
/// 128 images of 224×224, which leave a GPU no time to wait for the next pass and need 4 GB in VGG-16.
const GPU_PIXELS: usize = 128 * 224 * 224;

/// Settings for feeding images to a net, and for training on them.
#[derive(Debug)]
pub(crate) struct Feed {
    pub(crate) device: Device,
    pub(crate) route: Route,
    /// Steps whose losses a training may owe: reading one waits until a GPU has nothing left to do.
    pub(crate) owed_losses: usize,
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
    /// The part of it that was spent waiting for images.
    pub(crate) waited: BusyTime,
}

/// How images get to the device. Both ways give the same inputs, to the bit.
#[derive(Debug)]
pub(crate) enum Route {
    /// Loader threads normalise them, and the CPU computes where they lie.
    Values,
    /// Loader threads cut out bytes, which are normalised on the device; small images stay there.
    Bytes(ToDevice),
}

/// Accumulates times of work.
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
    /// Batches of the images in `order`, not augmented. The batch size depends on the kind of device and the image size alone, as
    /// libtorch's last bits can depend on it.
    pub(crate) fn plain(
        &self,
        data: &Arc<dyn Dataset>,
        order: Vec<usize>,
    ) -> Result<Batches<'_>, HarnessError> {
        let [_, height, width] = self.transform.output_shape(data.shape())?;
        let options = self.options(batch_without_gradients(self.device, height * width), false);
        self.batches(data, order, &self.transform, None, options, BatchSize::Fixed)
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
    ) -> Result<Batches<'_>, HarnessError> {
        let mut order = thinet_data::shuffled(data.len(), streams::order(seed).index(epoch as u64));
        order.drain(..first * recipe.batch);
        let transform = Transform { augment: recipe.augment, ..self.transform.clone() };
        let augment = streams::augmentation(seed).index(epoch as u64);
        let options = self.options(recipe.batch, true);
        self.batches(data, order, &transform, Some(augment), options, BatchSize::OfSpec)
    }

    fn options(&self, batch: usize, drop_last: bool) -> LoaderOptions {
        LoaderOptions { batch, drop_last, threads: self.loader_threads, prefetch: 4 }
    }

    fn batches(
        &self,
        data: &Arc<dyn Dataset>,
        order: Vec<usize>,
        transform: &Transform,
        seed: Option<Seed>,
        options: LoaderOptions,
        size: BatchSize,
    ) -> Result<Batches<'_>, HarnessError> {
        let source = match &self.route {
            Route::Values => Source::Values(Loader::new(data.clone(), order, transform, seed, options)?),
            Route::Bytes(way) => match way.pass(data, &order, transform, seed, &options)? {
                Some(pass) => Source::OnDevice(way, pass),
                None => {
                    let device = self.device;
                    let buffer = move |length| ToDevice::buffer(device, length);
                    Source::Bytes(way, Loader::bytes(data.clone(), order, transform, seed, options, buffer)?)
                }
            },
        };
        Ok(Batches { feed: self, source, size })
    }
}

/// Images in a pass without gradients, for inputs of so many pixels.
fn batch_without_gradients(device: Device, pixels: usize) -> usize {
    let (most, all_pixels) = if device.is_gpu() { (GPU_BATCH, GPU_PIXELS) } else { (CPU_BATCH, CPU_PIXELS) };
    (all_pixels / pixels.max(1)).clamp(1, most)
}

/// A batch on the device.
pub(crate) struct DeviceBatch {
    /// Normalised, `[n, c, h, w]`; undefined if the batch is empty.
    pub(crate) images: Tensor,
    /// `[n]`.
    pub(crate) labels: Tensor,
    /// The index of each image in the dataset. Damaged images are left out, so a batch may be empty.
    pub(crate) indices: Vec<usize>,
}

impl DeviceBatch {
    fn empty() -> Self {
        Self { images: Tensor::new(), labels: Tensor::new(), indices: Vec::new() }
    }

    /// The first `count` images.
    pub(crate) fn first(&self, count: i64) -> Result<Self, TchError> {
        let Self { images, labels, indices } = self;
        let (images, labels) = (images.f_narrow(0, 0, count)?, labels.f_narrow(0, 0, count)?);
        Ok(Self { images, labels, indices: indices[..count as usize].to_vec() })
    }
}

/// The batches of a pass. Ends after the first error.
pub(crate) struct Batches<'a> {
    feed: &'a Feed,
    source: Source<'a>,
    size: BatchSize,
}

enum Source<'a> {
    Values(Loader),
    Bytes(&'a ToDevice, Loader<UploadBytes>),
    OnDevice(&'a ToDevice, SmallPass),
}

impl Iterator for Batches<'_> {
    type Item = Result<DeviceBatch, HarnessError>;

    fn next(&mut self) -> Option<Self::Item> {
        let size = self.size;
        let (busy, waited, format) = (&self.feed.busy, &self.feed.waited, self.feed.format);
        busy.time(|| {
            let (images, labels, indices) = match &mut self.source {
                Source::Values(loader) => match waited.time(|| loader.next())? {
                    Err(error) => return Some(Err(error.into())),
                    Ok(batch) if batch.indices.is_empty() => return Some(Ok(DeviceBatch::empty())),
                    Ok(batch) => {
                        let shape = batch.shape.map(|n| n as i64);
                        let images = Tensor::f_from_slice(&batch.images).and_then(|all| all.f_view(shape));
                        (images.map_err(HarnessError::from), batch.labels, batch.indices)
                    }
                },
                Source::Bytes(way, loader) => match waited.time(|| loader.next())? {
                    Err(error) => return Some(Err(error.into())),
                    Ok(batch) if batch.indices.is_empty() => return Some(Ok(DeviceBatch::empty())),
                    Ok(batch) => (
                        way.images(&batch)
                            .map_err(|error| self.feed.of_images(error, batch.indices.len(), size)),
                        batch.labels,
                        batch.indices,
                    ),
                },
                Source::OnDevice(way, pass) => {
                    let (indices, labels) = pass.next()?;
                    let images = way.cut(pass, &indices);
                    (images.map_err(|error| self.feed.of_images(error, indices.len(), size)), labels, indices)
                }
            };
            Some(images.and_then(|images| {
                let labels = match &self.feed.route {
                    Route::Values => Tensor::f_from_slice(&labels)?,
                    Route::Bytes(way) => way.labels(&labels)?,
                };
                Ok(DeviceBatch { images: format.apply(&images)?, labels, indices })
            }))
        })
    }
}

impl Feed {
    fn of_images(&self, error: ModelError, batch: usize, size: BatchSize) -> HarnessError {
        HarnessError::of_model(error, self.device, batch as i64, size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_batch_without_gradients_depends_on_the_kind_of_device_and_the_size_of_images() {
        let of = |device, side: usize| batch_without_gradients(device, side * side);
        // Stored results of CPUs depend on these.
        assert_eq!([28, 32, 64, 224, 2000].map(|side| of(Device::Cpu, side)), [250, 250, 250, 20, 1]);
        let gpu = [28, 32, 64, 224, 4000].map(|side| of(Device::Cuda(0), side));
        assert_eq!(gpu, [2048, 2048, 1568, 128, 1]);
        assert_eq!(of(Device::Cuda(3), 224), 128);
    }
}
