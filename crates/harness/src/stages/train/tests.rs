//! Trainings that read their losses late and get their images as bytes, against those that do neither: on the CPU, to the bit.

use std::sync::Mutex;
use std::time::Duration;

use thinet_data::{ChannelOrder, DataError, MemoryDataset, Normalisation, Transform};
use thinet_models::{Device, MemoryFormat, Precision};
use thinet_nets::{Arch, NetSpec};

use super::*;
use crate::Stop;
use crate::stages::evaluate::evaluate;
use crate::stages::{BusyTime, Route, ToDevice};

const SHAPE: [usize; 3] = [3, 8, 8];
const IMAGES: usize = 27;
/// Five steps an epoch, three epochs.
const RECIPE: &str = "epochs = 3\nbatch = 5\nlr = 0.05\naugment = { crop-padding = 2, mirror = true }";

fn images() -> Arc<dyn Dataset> {
    let pixels = (0..IMAGES * 192).map(|i| (i * i / 7) as u8).collect();
    let labels = (0..IMAGES).map(|i| i % 5).collect();
    Arc::new(MemoryDataset::new("images", 5, SHAPE, pixels, labels).unwrap())
}

/// How a training gets its images, and when it reads its losses.
#[derive(Clone, Copy, Debug)]
struct Way {
    is_bytes: bool,
    /// Whether the set is known to the way of bytes, so that it stays on the device.
    stays: bool,
    owed_losses: usize,
}

const PLAIN: Way = Way { is_bytes: false, stays: false, owed_losses: 1 };
const LATE: Way = Way { owed_losses: OWED_ON_GPU, ..PLAIN };

fn feed(way: Way, data: &Arc<dyn Dataset>, stop: Stop, checkpoint_every: Duration) -> Feed {
    let normalisation = Normalisation {
        mean: vec![0.485, 0.456, 0.406],
        std: vec![0.229, 0.224, 0.225],
        order: ChannelOrder::Bgr,
        range: 1.0,
    };
    let sets: &[&Arc<dyn Dataset>] = if way.stays { &[data] } else { &[] };
    let route = match way.is_bytes {
        true => Route::Bytes(ToDevice::new(Device::Cpu, &normalisation, sets).unwrap()),
        false => Route::Values,
    };
    Feed {
        device: Device::Cpu,
        route,
        owed_losses: way.owed_losses,
        format: MemoryFormat::ChannelsLast,
        precision: Precision::F32,
        tf32: false,
        transform: Transform { pad: 0, crop: None, normalisation, augment: thinet_data::Augment::default() },
        loader_threads: 1,
        checkpoint_every,
        stop,
        busy: BusyTime::default(),
        waited: BusyTime::default(),
    }
}

/// A checkpoint's progress, and its tensors but for the state of libtorch's generator, which all threads share.
type Checkpoint = (String, Vec<(String, Vec<u64>)>);

/// What a training leaves.
struct Left {
    end: Result<TrainingEnd, HarnessError>,
    curve: Option<LossCurve>,
    /// Values of all weights and statistics.
    weights: Vec<(String, Vec<u32>)>,
    /// Step, loss and learning rate of each report.
    reports: Vec<(u64, u64, u64)>,
    checkpoints: Vec<Checkpoint>,
}

impl Left {
    fn diverged_at(&self) -> usize {
        match self.end {
            Ok(TrainingEnd::Diverged { step }) => step,
            ref other => panic!("{other:?}"),
        }
    }
}

fn bits(value: &Tensor) -> Vec<u32> {
    Vec::<f32>::try_from(value.contiguous().flatten(0, -1)).unwrap().into_iter().map(f32::to_bits).collect()
}

fn checkpoint(path: &Path) -> Checkpoint {
    let name = path.file_name().unwrap().to_str().unwrap();
    let (tensors, _) = load_tensors(path, tch::Device::Cpu).unwrap();
    let values = |tensor: &Tensor| {
        let values = tensor.to_kind(Kind::Double).contiguous().flatten(0, -1);
        Vec::<f64>::try_from(values).unwrap().into_iter().map(f64::to_bits).collect()
    };
    let kept = tensors.iter().filter(|(name, _)| *name != GENERATOR);
    let tensors = kept.map(|(name, tensor)| (name.clone(), values(tensor))).collect();
    (name.rsplit_once('-').unwrap().0.to_owned(), tensors)
}

/// Trains; stops after the reports of `stop_at` steps.
fn trained(way: Way, data: &Arc<dyn Dataset>, recipe: &str, every: Duration, stop_at: Option<u64>) -> Left {
    let graph = NetSpec { batch_norm: Some(true), ..NetSpec::new(Arch::Tiny) }.build(SHAPE, 5).unwrap();
    let weights = Weights::init(&graph, Seed::root(3), tch::Device::Cpu).unwrap();
    let mut net = Net { weights: weights.to_format(MemoryFormat::ChannelsLast).unwrap(), graph };
    let folder = tempfile::tempdir().unwrap();
    let (stop, reports) = (Stop::default(), Mutex::new(Vec::new()));
    let trained = {
        let progress = |Advance { done, loss, lr, .. }: Advance| {
            reports.lock().unwrap().push((done, loss.to_bits(), lr.to_bits()));
            if Some(done) == stop_at {
                stop.set();
            }
        };
        let session = Session {
            feed: &feed(way, data, stop.clone(), every),
            recipe: &toml::from_str(recipe).unwrap(),
            seed: Seed::root(8),
            checkpoints: Checkpoints::new(folder.path(), "train"),
            start: &BTreeMap::new(),
            progress: &progress,
            note: &|text| panic!("{text}"),
        };
        train(&mut net, data, &session)
    };
    let mut checkpoints: Vec<Checkpoint> =
        std::fs::read_dir(folder.path()).unwrap().map(|file| checkpoint(&file.unwrap().path())).collect();
    checkpoints.sort();
    let weights = net.weights.iter().map(|(name, value)| (name.to_owned(), bits(value))).collect();
    let (end, curve) = match trained {
        Ok(TrainingResult { end, curve }) => (Ok(end), curve),
        Err(error) => (Err(error), None),
    };
    Left { end, curve, weights, reports: reports.into_inner().unwrap(), checkpoints }
}

const NEVER: Duration = Duration::from_secs(1000);

#[test]
fn losses_that_are_read_late_and_images_that_come_as_bytes_change_no_stored_value() {
    let data = images();
    let ways = [
        LATE,
        Way { owed_losses: 2, ..PLAIN },
        Way { is_bytes: true, ..PLAIN },
        Way { is_bytes: true, ..LATE },
        Way { is_bytes: true, stays: true, ..LATE },
    ];
    // With a checkpoint after every step, after none, and at a stop.
    for (every, stop_at) in [(Duration::ZERO, None), (NEVER, None), (NEVER, Some(10))] {
        let plain = trained(PLAIN, &data, RECIPE, every, stop_at);
        for way in ways {
            // At a stop, late losses have more steps behind them; there a step at the end of an epoch is compared.
            let late = trained(way, &data, RECIPE, every, stop_at);
            match (&plain.end, &late.end) {
                (Ok(TrainingEnd::Done { loss: a }), Ok(TrainingEnd::Done { loss: b })) => {
                    assert_eq!(a.to_bits(), b.to_bits(), "{way:?}");
                }
                (Err(HarnessError::Stopped), Err(HarnessError::Stopped)) => {}
                ends => panic!("{way:?}: {ends:?}"),
            }
            assert!(late.weights == plain.weights, "{way:?}");
            assert_eq!((&late.reports, &late.curve), (&plain.reports, &plain.curve), "{way:?}");
            assert!(late.checkpoints == plain.checkpoints, "{way:?}");
        }
        let steps = if stop_at.is_some() { 10 } else { 15 };
        assert_eq!(plain.reports.len(), steps);
        assert_eq!(plain.checkpoints.len(), usize::from(every.is_zero() || stop_at.is_some()));
    }
}

#[test]
fn a_test_whose_logits_are_read_late_has_the_same_result_and_reports() {
    let data: Arc<dyn Dataset> = {
        let pixels = (0..600 * 192_usize).map(|i| (i * i / 7) as u8).collect();
        Arc::new(MemoryDataset::new("images", 5, SHAPE, pixels, (0..600).map(|i| i % 5).collect()).unwrap())
    };
    let graph = NetSpec { batch_norm: Some(true), ..NetSpec::new(Arch::Tiny) }.build(SHAPE, 5).unwrap();
    let weights = Weights::init(&graph, Seed::root(3), tch::Device::Cpu).unwrap();
    let net = Net { weights: weights.to_format(MemoryFormat::ChannelsLast).unwrap(), graph };
    let tested = |way| {
        let reports = Mutex::new(Vec::new());
        let feed = feed(way, &data, Stop::default(), NEVER);
        let found = evaluate(&net, &data, &feed, &|done, total| reports.lock().unwrap().push((done, total)));
        (found.unwrap(), reports.into_inner().unwrap())
    };
    let plain = tested(PLAIN);
    // Three batches.
    assert_eq!((plain.0.images, &plain.1[..]), (600, &[(250, 600), (500, 600), (600, 600)][..]));
    for way in [LATE, Way { is_bytes: true, ..LATE }, Way { is_bytes: true, stays: true, ..LATE }] {
        assert_eq!(tested(way), plain, "{way:?}");
    }
}

/// A learning rate at which the third step or so has no finite loss.
fn diverging() -> String {
    RECIPE.replace("lr = 0.05", "lr = 1e30")
}

#[test]
fn a_loss_that_is_not_finite_is_found_before_anything_is_written() {
    let data = images();
    let plain = trained(PLAIN, &data, &diverging(), Duration::ZERO, None);
    let step = plain.diverged_at();
    assert!((1..4).contains(&step), "diverged at step {step}, within an epoch and after the first step");
    let late = trained(LATE, &data, &diverging(), NEVER, None);
    assert_eq!(late.diverged_at(), step);
    assert_eq!(late.reports, plain.reports);
    assert_eq!((late.checkpoints.len(), plain.reports.len()), (0, step));

    // A checkpoint is due, or the run is stopped, while the loss is owed.
    let late = trained(LATE, &data, &diverging(), Duration::ZERO, None);
    assert!(late.diverged_at() == step && late.checkpoints == plain.checkpoints);
    let stopped = trained(LATE, &data, &diverging(), NEVER, Some(step as u64));
    assert!(stopped.checkpoints.is_empty() && stopped.reports == plain.reports);
}

/// A set of which one image cannot be read.
struct Damaged(Arc<dyn Dataset>, usize);

impl Dataset for Damaged {
    fn name(&self) -> &str {
        "damaged"
    }
    fn classes(&self) -> usize {
        self.0.classes()
    }
    fn len(&self) -> usize {
        self.0.len()
    }
    fn shape(&self) -> [usize; 3] {
        self.0.shape()
    }
    fn label(&self, index: usize) -> usize {
        self.0.label(index)
    }
    fn read(&self, index: usize, out: &mut [u8]) -> Result<(), DataError> {
        match index == self.1 {
            true => Err(DataError::Decode { path: "x.png".into(), problem: "bad".into() }),
            false => self.0.read(index, out),
        }
    }
    fn fingerprint(&self) -> &str {
        self.0.fingerprint()
    }
}

#[test]
fn a_training_that_diverged_before_an_image_that_cannot_be_read_has_diverged() {
    let order = thinet_data::shuffled(IMAGES, Seed::root(8).child("order").index(0));
    // In the last batch of the first epoch, when late losses are owed.
    let data: Arc<dyn Dataset> = Arc::new(Damaged(images(), order[4 * 5]));
    let step = trained(PLAIN, &data, &diverging(), NEVER, None).diverged_at();
    assert_eq!(trained(LATE, &data, &diverging(), NEVER, None).diverged_at(), step);
    for way in [PLAIN, LATE] {
        let left = trained(way, &data, RECIPE, NEVER, None);
        assert!(matches!(left.end, Err(HarnessError::Data(DataError::Decode { .. }))), "{:?}", left.end);
        assert_eq!(left.reports.len(), 4, "what was done before is reported");
    }
}

#[test]
fn an_error_that_shows_late_names_the_steps_it_can_have_happened_in() {
    let data = images();
    let feed = feed(LATE, &data, Stop::default(), NEVER);
    let pending = |steps: &[usize]| -> Vec<PendingLoss> {
        let loss = || Tensor::from_slice(&[0.0_f32]);
        steps.iter().map(|&step| PendingLoss { step, lr: 0.1, images: 5, loss: loss() }).collect()
    };
    let error = |message: &str| ModelError::Torch { context: "waiting".into(), message: message.into() };
    let text = |steps: &[usize], message: &str| late(error(message), &pending(steps), &feed).to_string();
    assert_eq!(
        text(&[20, 21, 24], "illegal access"),
        "one of the steps 21 to 25 of a training (waiting): illegal access"
    );
    assert_eq!(text(&[20], "illegal access"), "step 21 of a training (waiting): illegal access");
    assert_eq!(text(&[], "illegal access"), "waiting: illegal access");
    let full = text(&[0, 1], "out of memory");
    assert!(full.contains("for a batch of 5, one of the steps 1 to 2 of a training (waiting): "), "{full}");
}
