//! Images as bytes on a device: copied while the device computes, normalised there. Sets of small images stay there as a whole.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use tch::{Kind, TchError, Tensor};
use thinet_data::{
    Batch, ChannelOrder, DataError, Dataset, LoaderOptions, Normalisation, Placement, Placer, Transform,
};
use thinet_models::{Device, ModelError, UploadBytes, Uploader};
use thinet_seed::Seed;

use crate::error::{HarnessError, torch_message};

/// A set stays on the device if its images have at most as many values as one of this shape: CIFAR's and those of 64×64.
const SMALL_IMAGE: usize = 3 * 64 * 64;
/// Most bytes of a set that stays on the device.
const SMALL_SET: usize = 1 << 30;
/// Bytes that are copied at a time when a set is put on the device.
const PART: usize = 64 << 20;

/// Brings bytes to a device and makes inputs of them there.
#[derive(Debug)]
pub struct ToDevice {
    device: Device,
    uploader: Uploader,
    /// `[]`: what a byte is divided by.
    range: Tensor,
    /// `[1, c, 1, 1]`.
    mean: Tensor,
    /// `[1, c, 1, 1]`.
    std: Tensor,
    sets: Vec<SmallSet>,
}

impl ToDevice {
    /// For images of the sets; small ones among them will be kept on the device when they are first used.
    ///
    /// # Errors
    /// If there is no such GPU, or it has not enough memory.
    pub fn new(
        device: Device,
        normalisation: &Normalisation,
        sets: &[&Arc<dyn Dataset>],
    ) -> Result<Self, HarnessError> {
        let uploader = Uploader::new(device)?;
        let of_channels = |values: &[f32]| {
            Tensor::f_from_slice(values)?.f_view([1, values.len() as i64, 1, 1])?.f_to_device(device.into())
        };
        let Normalisation { mean, std, range, .. } = normalisation;
        // A tensor on the device, as a GPU multiplies by the inverse of a number, which rounds otherwise than a division.
        let range =
            Tensor::f_from_slice(&[255.0_f32 / range])?.f_view([0_i64; 0])?.f_to_device(device.into())?;
        let mut small: Vec<SmallSet> = Vec::new();
        for set in sets.iter().filter(|set| is_small(&****set)) {
            if !small.iter().any(|known| Arc::ptr_eq(&known.data, set)) {
                small.push(SmallSet { data: Arc::clone(set), bytes: Mutex::default() });
            }
        }
        let (mean, std) = (of_channels(mean)?, of_channels(std)?);
        Ok(Self { device, uploader, range, mean, std, sets: small })
    }

    /// Memory for a loader's bytes.
    ///
    /// # Errors
    /// If there is not enough, or no such GPU.
    pub fn buffer(device: Device, length: usize) -> Result<UploadBytes, DataError> {
        UploadBytes::new(device, length).map_err(|error| DataError::Io {
            path: "memory for a batch".into(),
            action: "get it",
            source: std::io::Error::other(error.to_string()),
        })
    }

    /// The images of a batch that is not empty, normalised, `[n, c, h, w]`.
    ///
    /// # Errors
    /// If the device has not enough memory, or an earlier operation on it failed.
    pub fn images(&self, batch: &Batch<UploadBytes>) -> Result<Tensor, ModelError> {
        let shape = batch.shape.map(|n| n as i64);
        let view = || batch.images.tensor().f_narrow(0, 0, shape.iter().product())?.f_view(shape);
        let bytes = self.uploader.upload(&view().map_err(of_images)?)?;
        self.normalised(&bytes).map_err(of_images)
    }

    /// Labels on the device, `[n]`.
    ///
    /// # Errors
    /// As [`ToDevice::images`].
    pub fn labels(&self, labels: &[i64]) -> Result<Tensor, ModelError> {
        self.uploader.integers(labels, self.device)
    }

    /// The operations of the loader's own normalisation, in the same order and precision.
    fn normalised(&self, bytes: &Tensor) -> Result<Tensor, TchError> {
        let mut values = bytes.f_to_kind(Kind::Float)?;
        let _ = values.f_div_(&self.range)?;
        let _ = values.f_sub_(&self.mean)?;
        values.f_div_(&self.std)
    }

    /// A pass over a set that stays on the device; `None` for any other set, and where photographs are cropped at random.
    ///
    /// # Errors
    /// If the set cannot be read or does not fit into the device's memory, or the transform does not fit its images.
    pub fn pass(
        &self,
        data: &Arc<dyn Dataset>,
        order: &[usize],
        transform: &Transform,
        seed: Option<Seed>,
        options: &LoaderOptions,
    ) -> Result<Option<SmallPass>, HarnessError> {
        let Some(set) = self.sets.iter().find(|set| Arc::ptr_eq(&set.data, data)) else { return Ok(None) };
        let LoaderOptions { batch, drop_last, .. } = *options;
        // The loader's error says what is wrong.
        let is_wrong = batch == 0 || order.iter().any(|&index| index >= data.len());
        if is_wrong || (transform.augment.random_crop && seed.is_some()) {
            return Ok(None);
        }
        let channels = 0..data.shape()[0] as i64;
        let channels: Vec<i64> = match transform.normalisation.order {
            ChannelOrder::Bgr => channels.rev().collect(),
            ChannelOrder::Rgb => channels.collect(),
        };
        let whole = if drop_last { order.len() / batch * batch } else { order.len() };
        Ok(Some(SmallPass {
            bytes: set.on_device(self.device, &self.uploader)?,
            channels: self.uploader.integers(&channels, self.device)?,
            placer: Placer::new(transform, data.shape())?,
            data: Arc::clone(data),
            seed,
            batches: order[..whole].chunks(batch).map(<[usize]>::to_vec).rev().collect(),
        }))
    }

    /// The images of a batch of a pass, normalised, `[n, c, h, w]`.
    ///
    /// # Errors
    /// As [`ToDevice::images`].
    pub fn cut(&self, pass: &SmallPass, indices: &[usize]) -> Result<Tensor, ModelError> {
        let [_, height, width] = pass.placer.output().map(|n| n as i64);
        let n = indices.len() as i64;
        let place = |&index: &usize| pass.placer.place(pass.seed.map(|seed| seed.index(index as u64)));
        let places: Vec<Placement> = indices.iter().map(place).collect();
        let [_, stored_height, stored_width] = pass.data.shape();
        // One copy for all: the images' numbers, their rows and their columns.
        let mut values: Vec<i64> = indices.iter().map(|&index| index as i64).collect();
        for place in &places {
            values.extend(shown(place.top as i64, stored_height, height, false));
        }
        for place in &places {
            values.extend(shown(place.left as i64, stored_width, width, place.mirror));
        }
        let values = self.uploader.integers(&values, self.device)?;
        let part = |from, shape: [i64; 4]| values.f_narrow(0, from, shape.iter().product())?.f_view(shape);
        let cut = || {
            let images = part(0, [n, 1, 1, 1])?;
            let channels = pass.channels.f_view([1_i64, -1, 1, 1])?;
            let rows = part(n, [n, 1, height, 1])?;
            let columns = part(n + n * height, [n, 1, 1, width])?;
            let bytes = pass.bytes.f_index(&[Some(images), Some(channels), Some(rows), Some(columns)])?;
            self.normalised(&bytes)
        };
        cut().map_err(of_images)
    }
}

/// The rows (or columns) of a stored image that an input of `length` shows from `start` on, from the last one on if mirrored; the
/// zeros behind the image where it shows none.
fn shown(start: i64, stored: usize, length: i64, mirror: bool) -> impl Iterator<Item = i64> {
    let stored = stored as i64;
    (0..length).map(move |place| {
        let at = start + if mirror { length - 1 - place } else { place };
        if (0..stored).contains(&at) { at } else { stored }
    })
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn of_images(error: TchError) -> ModelError {
    ModelError::Torch { context: "images on the device".to_owned(), message: torch_message(&error) }
}

/// Whether a set is in memory and small enough to stay on a device.
fn is_small(data: &dyn Dataset) -> bool {
    let values = data.shape().iter().product::<usize>();
    let is_read = data.is_decoded_each_time() || data.prepared_file().is_some();
    !is_read && values <= SMALL_IMAGE && values.saturating_mul(data.len()) <= SMALL_SET
}

/// A set of small images.
struct SmallSet {
    data: Arc<dyn Dataset>,
    /// On the device once it was used, `[images, c, h + 1, w + 1]`: a row and a column of zeros lie behind each image.
    bytes: Mutex<Option<Tensor>>,
}

impl SmallSet {
    fn on_device(&self, device: Device, uploader: &Uploader) -> Result<Tensor, HarnessError> {
        let mut bytes = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bytes) = &*bytes {
            return Ok(bytes.shallow_clone());
        }
        let there = self.put(device, uploader)?;
        *bytes = Some(there.shallow_clone());
        Ok(there)
    }

    fn put(&self, device: Device, uploader: &Uploader) -> Result<Tensor, HarnessError> {
        let [channels, height, width] = self.data.shape();
        let stored = channels * (height + 1) * (width + 1);
        let shape = |images: usize| [images, channels, height + 1, width + 1].map(|n| n as i64);
        let there = Tensor::f_zeros(shape(self.data.len()), (Kind::Uint8, device.into()))?;
        let mut image = vec![0; channels * height * width];
        let mut first = 0;
        while first < self.data.len() {
            let count = (PART / stored).clamp(1, self.data.len() - first);
            let mut part = UploadBytes::new(device, count * stored)?;
            part.as_mut().fill(0);
            for (offset, target) in part.as_mut().chunks_exact_mut(stored).enumerate() {
                self.data.read(first + offset, &mut image)?;
                let planes = target.chunks_exact_mut((height + 1) * (width + 1));
                for (target, plane) in planes.zip(image.chunks_exact(height * width)) {
                    for (target, line) in target.chunks_exact_mut(width + 1).zip(plane.chunks_exact(width)) {
                        target[..width].copy_from_slice(line);
                    }
                }
            }
            let part = uploader.upload(&part.tensor().f_view(shape(count))?)?;
            there.f_narrow(0, first as i64, count as i64)?.f_copy_(&part)?;
            first += count;
        }
        Ok(there)
    }
}

impl fmt::Debug for SmallSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SmallSet").field("data", &self.data.name()).finish_non_exhaustive()
    }
}

/// A pass over a set on the device. Batches are those of a loader with the same order, transform and seed.
pub struct SmallPass {
    bytes: Tensor,
    /// The stored channel of each channel of the input, `[c]`.
    channels: Tensor,
    placer: Placer,
    data: Arc<dyn Dataset>,
    seed: Option<Seed>,
    /// The indices of each batch, the next one last.
    batches: Vec<Vec<usize>>,
}

impl SmallPass {
    /// Indices and labels of the next batch.
    #[expect(
        clippy::should_implement_trait,
        reason = "images are cut by `ToDevice::cut`, so it is no iterator of batches"
    )]
    pub fn next(&mut self) -> Option<(Vec<usize>, Vec<i64>)> {
        let indices = self.batches.pop()?;
        let labels = indices.iter().map(|&index| self.data.label(index) as i64).collect();
        Some((indices, labels))
    }
}

#[cfg(test)]
mod tests;
