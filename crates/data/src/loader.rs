//! The loader: batches of transformed images in a given order, prepared ahead by worker threads.
//!
//! The batches depend only on the dataset, the order, the transform and the seed. Each image has its own random stream,
//! workers take whole batches by number, and batches and errors are returned in order. [`Loader::new`] makes normalised values;
//! [`Loader::bytes`] makes bytes that are normalised elsewhere, in memory of the caller.

use std::any::Any;
use std::collections::BTreeMap;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use thinet_seed::Seed;

use crate::dataset::{image_len, no_random_crop};
use crate::transform::{FittedTransform, Placement};
use crate::{DataError, Dataset, Transform};

/// Images ready for a net.
#[derive(Clone, Debug, PartialEq)]
pub struct Batch<B = Vec<f32>> {
    /// `[n, c, h, w]` row-major: the normalised values, or a buffer that begins with the bytes.
    pub images: B,
    /// The label of each image.
    pub labels: Vec<i64>,
    /// The index of each image in the dataset. Damaged images are left out, so a batch may be
    /// empty.
    pub indices: Vec<usize>,
    /// n, c, h, w.
    pub shape: [usize; 4],
}

/// Options of a loader; only `batch` and `drop_last` change its batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoaderOptions {
    /// Images in a batch; the last one may be shorter.
    pub batch: usize,
    /// Whether a shorter last batch is left out.
    pub drop_last: bool,
    /// Worker threads; with 0, batches are made on demand in the calling thread.
    pub threads: usize,
    /// Batches that may be made ahead (at least one for each thread).
    pub prefetch: usize,
}

/// An iterator over the batches of one pass. It ends after the first error; dropping it early stops its threads.
pub struct Loader<B: Send + 'static = Vec<f32>> {
    work: Arc<Work<B>>,
    next: usize,
    workers: Option<Workers<B>>,
}

impl Loader {
    /// A pass over `order` (indices into `dataset`). With a seed, each image is augmented from the stream
    /// `augment_seed.index(image index)`: give every epoch its own seed.
    ///
    /// # Errors
    /// If the batch size is 0, an index is out of range, the transform does not fit the images (see
    /// [`Transform::output_shape`]), or a thread cannot be started.
    pub fn new(
        dataset: Arc<dyn Dataset>,
        order: Vec<usize>,
        transform: &Transform,
        augment_seed: Option<Seed>,
        options: LoaderOptions,
    ) -> Result<Self, DataError> {
        let target = Target {
            buffer: Box::new(|len| Ok(vec![0.0; len])),
            write: |transform, pixels, placement, images, at| {
                transform.apply(pixels, placement, &mut images[at]);
            },
            trim: Vec::truncate,
        };
        Self::with_target(dataset, order, transform, augment_seed, options, target)
    }
}

impl<B: AsMut<[u8]> + Send + 'static> Loader<B> {
    /// As [`Loader::new`], but with bytes that are cut out, mirrored and in the order of the net's channels, and have yet to be
    /// normalised. `buffer` gives memory for at least so many bytes; it is called in the worker threads.
    ///
    /// # Errors
    /// As [`Loader::new`].
    pub fn bytes(
        dataset: Arc<dyn Dataset>,
        order: Vec<usize>,
        transform: &Transform,
        augment_seed: Option<Seed>,
        options: LoaderOptions,
        buffer: impl Fn(usize) -> Result<B, DataError> + Send + Sync + 'static,
    ) -> Result<Self, DataError> {
        let target = Target {
            buffer: Box::new(buffer),
            write: |transform, pixels, placement, images, at| {
                transform.apply_bytes(pixels, placement, &mut images.as_mut()[at]);
            },
            trim: |_, _| (),
        };
        Self::with_target(dataset, order, transform, augment_seed, options, target)
    }
}

impl<B: Send + 'static> Loader<B> {
    fn with_target(
        dataset: Arc<dyn Dataset>,
        order: Vec<usize>,
        transform: &Transform,
        augment_seed: Option<Seed>,
        options: LoaderOptions,
        target: Target<B>,
    ) -> Result<Self, DataError> {
        let LoaderOptions { batch, drop_last, threads, prefetch } = options;
        if batch == 0 {
            return Err(DataError::Value { key: "batch", problem: "must be at least 1".to_owned() });
        }
        let len = dataset.len();
        if let Some(&index) = order.iter().find(|index| **index >= len) {
            return Err(DataError::Index { dataset: dataset.name().to_owned(), index, len });
        }
        if transform.augment.random_crop && augment_seed.is_some() && !dataset.has_random_crop() {
            return Err(no_random_crop(dataset.name()));
        }
        let random_crop = transform.augment.random_crop;
        let transform = FittedTransform::new(transform, dataset.shape())?;
        let batches = if drop_last { order.len() / batch } else { order.len().div_ceil(batch) };
        let work =
            Arc::new(Work { dataset, order, batch, batches, transform, augment_seed, random_crop, target });
        let threads = threads.min(batches);
        let workers = match threads {
            0 => None,
            _ => Some(Workers::start(&work, threads, prefetch.max(threads))?),
        };
        Ok(Self { work, next: 0, workers })
    }

    /// The number of batches of the whole pass.
    #[must_use]
    pub fn batches(&self) -> usize {
        self.work.batches
    }
}

impl<B: Send + 'static> Iterator for Loader<B> {
    type Item = Result<Batch<B>, DataError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.next >= self.work.batches {
            return None;
        }
        let result = match &self.workers {
            None => self.work.make_caught(self.next),
            Some(workers) => workers.shared.take(self.next),
        };
        match result {
            Ok(_) => self.next += 1,
            Err(_) => {
                self.next = self.work.batches;
                self.workers = None;
            }
        }
        Some(result)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.work.batches - self.next;
        // An error ends the pass early.
        (left.min(1), Some(left))
    }
}

/// How the images of a batch are written.
struct Target<B> {
    /// Memory for the images of a batch: so many values.
    buffer: Box<dyn Fn(usize) -> Result<B, DataError> + Send + Sync>,
    /// Writes the bytes of an image, placed, at a range of the buffer.
    write: fn(&FittedTransform, &[u8], Placement, &mut B, Range<usize>),
    /// Drops what lies behind so many values.
    trim: fn(&mut B, usize),
}

/// Everything that decides what the batches are.
struct Work<B> {
    dataset: Arc<dyn Dataset>,
    order: Vec<usize>,
    batch: usize,
    batches: usize,
    transform: FittedTransform,
    augment_seed: Option<Seed>,
    random_crop: bool,
    target: Target<B>,
}

impl<B> Work<B> {
    fn make(&self, number: usize) -> Result<Batch<B>, DataError> {
        let start = number * self.batch;
        let wanted = &self.order[start..self.order.len().min(start.saturating_add(self.batch))];
        let [channels, height, width] = self.transform.output();
        let len = channels * height * width;
        let mut pixels = vec![0; image_len(self.dataset.shape())];
        let mut images = (self.target.buffer)(wanted.len() * len)?;
        let mut indices = Vec::with_capacity(wanted.len());
        for &index in wanted {
            let seed = self.augment_seed.map(|seed| seed.index(index as u64));
            match self.read(index, seed, &mut pixels) {
                Ok(()) => {}
                Err(DataError::LeftOut { .. }) => continue,
                Err(error) => return Err(error),
            }
            let at = indices.len() * len..(indices.len() + 1) * len;
            (self.target.write)(&self.transform, &pixels, self.transform.placement(seed), &mut images, at);
            indices.push(index);
        }
        (self.target.trim)(&mut images, indices.len() * len);
        let labels = indices.iter().map(|index| self.dataset.label(*index) as i64).collect();
        Ok(Batch { images, labels, shape: [indices.len(), channels, height, width], indices })
    }

    fn read(&self, index: usize, seed: Option<Seed>, pixels: &mut [u8]) -> Result<(), DataError> {
        match seed {
            Some(seed) if self.random_crop => {
                self.dataset.read_random_crop(index, seed.child("crop"), pixels)
            }
            _ => self.dataset.read(index, pixels),
        }
    }

    /// The batch; a panic (of a dataset's own code) becomes an error.
    fn make_caught(&self, number: usize) -> Result<Batch<B>, DataError> {
        catch_unwind(AssertUnwindSafe(|| self.make(number)))
            .unwrap_or_else(|panic| Err(DataError::WorkerPanic { batch: number, message: message(&*panic) }))
    }
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message").to_owned()
}

/// The running threads; dropping it stops and joins them.
struct Workers<B> {
    shared: Arc<Shared<B>>,
    handles: Vec<JoinHandle<()>>,
}

/// State shared by the threads and the loader.
struct Shared<B> {
    state: Mutex<State<B>>,
    /// Notified when a batch is ready, when there is room for another, and when the threads should stop.
    changed: Condvar,
    /// Batches that may be begun beyond those taken.
    ahead: usize,
}

struct State<B> {
    /// The next batch to begin.
    begun: usize,
    /// Batches that the loader has returned.
    taken: usize,
    ready: BTreeMap<usize, Result<Batch<B>, DataError>>,
    stop: bool,
}

impl<B: Send + 'static> Workers<B> {
    fn start(work: &Arc<Work<B>>, threads: usize, ahead: usize) -> Result<Self, DataError> {
        let state = State { begun: 0, taken: 0, ready: BTreeMap::new(), stop: false };
        let shared = Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new(), ahead });
        // Owned by the value from the start: if a later thread cannot be started, the drop stops the earlier ones.
        let mut workers = Self { shared: Arc::clone(&shared), handles: Vec::with_capacity(threads) };
        for number in 0..threads {
            let (shared, work) = (Arc::clone(&shared), Arc::clone(work));
            let handle = std::thread::Builder::new()
                .name(format!("loader-{number}"))
                .spawn(move || shared.serve(&work))
                .map_err(|source| DataError::Io {
                    path: PathBuf::from(format!("loader thread {number}")),
                    action: "start",
                    source,
                })?;
            workers.handles.push(handle);
        }
        Ok(workers)
    }
}

impl<B> Drop for Workers<B> {
    fn drop(&mut self) {
        self.shared.lock().stop = true;
        self.shared.changed.notify_all();
        for handle in self.handles.drain(..) {
            // A worker catches panics of the dataset's code itself, so there is nothing to report here.
            let _ = handle.join();
        }
    }
}

impl<B> Shared<B> {
    /// Runs a worker: takes the next batch number when there is room, makes the batch and stores it.
    fn serve(&self, work: &Work<B>) {
        while let Some(number) = self.begin(work.batches) {
            let result = work.make_caught(number);
            self.lock().ready.insert(number, result);
            self.changed.notify_all();
        }
    }

    fn begin(&self, batches: usize) -> Option<usize> {
        let mut state = self.lock();
        while !state.stop && state.begun < batches && state.begun >= state.taken.saturating_add(self.ahead) {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if state.stop || state.begun >= batches {
            return None;
        }
        state.begun += 1;
        Some(state.begun - 1)
    }

    /// Waits for the batch and makes room for another.
    fn take(&self, number: usize) -> Result<Batch<B>, DataError> {
        let mut state = self.lock();
        let result = loop {
            match state.ready.remove(&number) {
                Some(result) => break result,
                None => state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            }
        };
        state.taken = number + 1;
        drop(state);
        self.changed.notify_all();
        result
    }

    fn lock(&self) -> MutexGuard<'_, State<B>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
