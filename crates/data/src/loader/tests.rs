//! Tests of the loader.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::{Augment, ChannelOrder, MemoryDataset, Normalisation, shuffled};

const OPTIONS: LoaderOptions = LoaderOptions { batch: 4, drop_last: false, threads: 0, prefetch: 2 };

fn transform() -> Transform {
    let augment = Augment { crop_padding: 2, mirror: true, random_crop: false };
    let normalisation =
        Normalisation { mean: vec![0.3], std: vec![0.4], order: ChannelOrder::Rgb, range: 1.0 };
    Transform { pad: 1, crop: None, normalisation, augment }
}

fn images(n: usize) -> Arc<dyn Dataset> {
    let pixels = (0..n * 6).map(|i| (i * 31) as u8).collect();
    Arc::new(MemoryDataset::new("small", 5, [1, 2, 3], pixels, (0..n).map(|i| i % 5).collect()).unwrap())
}

/// What happens at an image instead of reading it.
#[derive(Clone, Copy, PartialEq)]
enum At {
    Read,
    Fail,
    Panic,
    LeaveOut,
    /// Every value is 1; those of the dataset's own crop are the low byte of its seed's first draw.
    OwnCrop,
}

/// A dataset with faulty images, or a random crop of its own, that counts what is read.
struct Odd {
    inner: Arc<dyn Dataset>,
    at: fn(usize) -> At,
    reads: AtomicUsize,
}

impl Odd {
    fn new(n: usize, at: fn(usize) -> At) -> Arc<Self> {
        Arc::new(Self { inner: images(n), at, reads: AtomicUsize::new(0) })
    }
}

impl Dataset for Odd {
    fn name(&self) -> &str {
        "odd"
    }
    fn classes(&self) -> usize {
        self.inner.classes()
    }
    fn len(&self) -> usize {
        self.inner.len()
    }
    fn shape(&self) -> [usize; 3] {
        self.inner.shape()
    }
    fn label(&self, index: usize) -> usize {
        self.inner.label(index)
    }
    fn read(&self, index: usize, out: &mut [u8]) -> Result<(), DataError> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        match (self.at)(index) {
            At::Read => self.inner.read(index, out)?,
            At::Fail => {
                let path = PathBuf::from(format!("{index}.png"));
                return Err(DataError::Decode { path, problem: "bad".to_owned() });
            }
            At::Panic => panic!("image {index} is cursed"),
            At::LeaveOut => {
                return Err(DataError::LeftOut { path: PathBuf::new(), problem: String::new() });
            }
            At::OwnCrop => out.fill(1),
        }
        Ok(())
    }
    fn has_random_crop(&self) -> bool {
        (self.at)(0) == At::OwnCrop
    }
    fn read_random_crop(&self, _: usize, seed: Seed, out: &mut [u8]) -> Result<(), DataError> {
        out.fill(own_crop(seed));
        Ok(())
    }
    fn fingerprint(&self) -> &str {
        ""
    }
}

fn own_crop(seed: Seed) -> u8 {
    rand::Rng::next_u64(&mut seed.rng()) as u8
}

fn all(
    dataset: &Arc<dyn Dataset>,
    order: &[usize],
    seed: Option<Seed>,
    options: LoaderOptions,
) -> Vec<Batch> {
    let loader = Loader::new(dataset.clone(), order.to_vec(), &transform(), seed, options).unwrap();
    loader.collect::<Result<_, _>>().unwrap()
}

#[test]
fn any_number_of_threads_gives_the_same_batches() {
    let dataset = images(50);
    let order = shuffled(50, Seed::root(1));
    let seed = Some(Seed::root(2));
    let expected = all(&dataset, &order, seed, OPTIONS);
    assert_eq!(expected.len(), 13);
    for threads in [1, 2, 4, 100] {
        for prefetch in [0, 1, 3, usize::MAX] {
            let options = LoaderOptions { threads, prefetch, ..OPTIONS };
            assert_eq!(all(&dataset, &order, seed, options), expected);
        }
    }
}

#[test]
fn bytes_are_those_that_the_values_are_made_of_with_any_number_of_threads() {
    let pixels = (0..50 * 18).map(|i| (i * 31) as u8).collect();
    let labels = (0..50).map(|i| i % 5).collect();
    let dataset: Arc<dyn Dataset> =
        Arc::new(MemoryDataset::new("rgb", 5, [3, 2, 3], pixels, labels).unwrap());
    // A range of 255 without mean and deviation leaves whole numbers.
    let normalisation =
        Normalisation { mean: vec![0.0; 3], std: vec![1.0; 3], order: ChannelOrder::Bgr, range: 255.0 };
    let transform = Transform { normalisation, ..transform() };
    for (seed, drop_last) in [(None, false), (Some(Seed::root(2)), true)] {
        for threads in [0, 1, 3] {
            let (order, options) =
                (shuffled(50, Seed::root(1)), LoaderOptions { drop_last, threads, ..OPTIONS });
            let values = Loader::new(dataset.clone(), order.clone(), &transform, seed, options).unwrap();
            // Memory that is longer than needed and was used before.
            let buffer = |len| Ok(vec![77_u8; len + 5]);
            let bytes = Loader::bytes(dataset.clone(), order, &transform, seed, options, buffer).unwrap();
            assert_eq!(bytes.batches(), values.batches());
            for (bytes, values) in bytes.zip(values) {
                let (bytes, values) = (bytes.unwrap(), values.unwrap());
                assert_eq!(
                    (bytes.shape, bytes.labels, bytes.indices),
                    (values.shape, values.labels, values.indices)
                );
                let placed = bytes.images[..values.images.len()].iter().map(|byte| f32::from(*byte));
                assert!(placed.eq(values.images));
            }
        }
    }
}

#[test]
fn a_buffer_that_cannot_be_had_is_the_batchs_error() {
    let none = |_| Err::<Vec<u8>, _>(DataError::Value { key: "memory", problem: "is full".to_owned() });
    let order = (0..4).collect();
    let mut loader = Loader::bytes(images(4), order, &transform(), None, OPTIONS, none).unwrap();
    assert_eq!(loader.next().unwrap().unwrap_err().to_string(), "key \"memory\": is full");
    assert!(loader.next().is_none());
}

#[test]
fn the_batch_size_changes_no_image_and_the_seed_does() {
    let dataset = images(50);
    let order: Vec<usize> = (0..50).collect();
    let images = |seed: u64, batch| {
        let batches = all(&dataset, &order, Some(Seed::root(seed)), LoaderOptions { batch, ..OPTIONS });
        batches.into_iter().flat_map(|batch| batch.images).collect::<Vec<f32>>()
    };
    assert_eq!(images(2, 4), images(2, 50));
    assert_eq!(images(2, 4), images(2, usize::MAX));
    assert_ne!(images(2, 4), images(3, 4));
}

#[test]
fn batches_follow_the_order_and_the_last_may_be_short_or_left_out() {
    let dataset = images(9);
    let batches = all(&dataset, &[8, 0, 3, 3, 5], None, LoaderOptions { batch: 3, ..OPTIONS });
    assert_eq!(batches.iter().map(|batch| batch.shape).collect::<Vec<_>>(), [[3, 1, 4, 5], [2, 1, 4, 5]]);
    assert_eq!((&batches[0].indices[..], &batches[0].labels[..]), (&[8, 0, 3][..], &[3, 0, 3][..]));
    assert_eq!(batches[1].images.len(), 40);
    // Image 3 comes twice, with the same values.
    assert_eq!(batches[0].images[40..], batches[1].images[..20]);
    let dropped = LoaderOptions { batch: 3, drop_last: true, threads: 2, ..OPTIONS };
    assert_eq!(all(&dataset, &[8, 0, 3, 3, 5], None, dropped), batches[..1]);
    let whole = LoaderOptions { batch: 5, ..dropped };
    assert_eq!(all(&dataset, &[8, 0, 3, 3, 5], None, whole).len(), 1);
    assert!(all(&dataset, &[], None, OPTIONS).is_empty());
    let loader = Loader::new(dataset, vec![0; 5], &transform(), None, dropped).unwrap();
    assert_eq!((loader.batches(), loader.size_hint()), (1, (1, Some(1))));
    let mut loader = Loader::new(images(9), (0..9).collect(), &transform(), None, OPTIONS).unwrap();
    assert_eq!(loader.batches(), 3);
    let mut left = || loader.next().map(|batch| (batch.unwrap().indices.len(), loader.size_hint()));
    let expected = [Some((4, (1, Some(2)))), Some((4, (1, Some(1)))), Some((1, (0, Some(0)))), None];
    assert_eq!([left(), left(), left(), left()], expected);
}

#[test]
fn an_error_comes_after_the_batches_before_it_and_ends_the_pass() {
    for threads in [0, 1, 3] {
        let dataset = Odd::new(40, |index| match index {
            14 => At::Fail,
            30 => At::Panic,
            _ => At::Read,
        });
        let options = LoaderOptions { threads, prefetch: 8, ..OPTIONS };
        let mut loader = Loader::new(dataset, (0..40).collect(), &transform(), None, options).unwrap();
        for first in [0, 4, 8] {
            assert_eq!(loader.next().unwrap().unwrap().indices[0], first);
        }
        let error = loader.next().unwrap().unwrap_err();
        assert_eq!(error.to_string(), "14.png: cannot decode the image: bad");
        assert!(loader.next().is_none());
    }
}

#[test]
fn images_left_out_are_missing_from_their_batch_and_nothing_else_changes() {
    let whole = all(&images(8), &[0, 1, 2, 3, 4, 5, 6, 7], Some(Seed::root(2)), OPTIONS);
    let dataset: Arc<dyn Dataset> =
        Odd::new(8, |index| if [2, 4, 5, 6, 7].contains(&index) { At::LeaveOut } else { At::Read });
    let batches = all(&dataset, &[0, 1, 2, 3, 4, 5, 6, 7], Some(Seed::root(2)), OPTIONS);
    assert_eq!(batches.iter().map(|batch| batch.shape).collect::<Vec<_>>(), [[3, 1, 4, 5], [0, 1, 4, 5]]);
    assert_eq!((&batches[0].indices[..], &batches[0].labels[..]), (&[0, 1, 3][..], &[0, 1, 3][..]));
    assert_eq!(batches[0].images[..40], whole[0].images[..40]);
    assert_eq!(batches[0].images[40..], whole[0].images[60..]);
    assert!(batches[1].images.is_empty());
}

#[test]
fn a_random_crop_of_the_dataset_is_refused_where_there_is_none() {
    let augment = Augment { random_crop: true, ..Augment::default() };
    let random = Transform { augment, ..transform() };
    let new = |seed| Loader::new(images(4), vec![0], &random, seed, OPTIONS);
    let error = new(Some(Seed::root(1))).err().unwrap().to_string();
    assert_eq!(error, "key \"random-crop\": small has no random crop of its own; use crop-padding");
    assert!(new(None).is_ok());
}

#[test]
fn the_datasets_own_crop_is_read_where_it_is_asked_for_and_a_seed_is_there() {
    let dataset: Arc<dyn Dataset> = Odd::new(4, |_| At::OwnCrop);
    let normalisation =
        Normalisation { mean: vec![0.0], std: vec![1.0], range: 255.0, ..transform().normalisation };
    let first = |random_crop, seed: Option<Seed>| {
        let augment = Augment { random_crop, ..Augment::default() };
        let transform = Transform { pad: 0, crop: None, normalisation: normalisation.clone(), augment };
        let mut loader = Loader::new(dataset.clone(), vec![2], &transform, seed, OPTIONS).unwrap();
        loader.next().unwrap().unwrap().images[0]
    };
    let seed = Seed::root(3);
    assert_eq!(first(true, Some(seed)), f32::from(own_crop(seed.index(2).child("crop"))));
    assert_eq!([first(true, None), first(false, Some(seed)), first(false, None)], [1.0; 3]);
}

#[test]
fn a_panic_becomes_an_error() {
    for threads in [0, 2] {
        let options = LoaderOptions { threads, ..OPTIONS };
        let dataset = Odd::new(12, |index| if index == 5 { At::Panic } else { At::Read });
        let loader = Loader::new(dataset, (0..12).collect(), &transform(), None, options).unwrap();
        let results: Vec<_> = loader.collect();
        assert_eq!(results.len(), 2);
        let error = results[1].as_ref().unwrap_err();
        assert_eq!(error.to_string(), "making batch 1 panicked: image 5 is cursed");
    }
}

#[test]
fn dropping_early_stops_the_threads_and_the_prefetch_is_bounded() {
    for (threads, prefetch) in [(1, 1), (2, 3), (4, 0)] {
        let dataset = Odd::new(4000, |_| At::Read);
        let options = LoaderOptions { threads, prefetch, ..OPTIONS };
        let mut loader =
            Loader::new(dataset.clone(), (0..4000).collect(), &transform(), None, options).unwrap();
        loader.next().unwrap().unwrap();
        drop(loader);
        // The threads have ended, so nothing is read any more: one batch was taken, others were made ahead.
        assert!(dataset.reads.load(Ordering::SeqCst) <= 4 * (1 + prefetch.max(threads)));
        assert_eq!(Arc::strong_count(&dataset), 1);
    }
}

#[test]
fn what_cannot_work_is_refused_at_the_start() {
    let says = |order: Vec<usize>, transform: &Transform, options| {
        Loader::new(images(3), order, transform, None, options).err().unwrap().to_string()
    };
    let index = says(vec![0, 3], &transform(), OPTIONS);
    assert_eq!(index, "image index 3 is out of range: small has 3 images");
    let batch = says(vec![0], &transform(), LoaderOptions { batch: 0, ..OPTIONS });
    assert_eq!(batch, "key \"batch\": must be at least 1");
    let mut no_mean = transform();
    no_mean.normalisation.mean.clear();
    let mean = says(vec![0], &no_mean, OPTIONS);
    assert_eq!(mean, "key \"mean\": has 0 values, the images have 1 channels");
}
