//! How images get to a training: read while the step before is computed, and handed on as bytes instead of values.

use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use criterion::Criterion;
use tch::Tensor;
use thinet_bench::{Bound, Figure, Ratio, plain_sgd};
use thinet_data::{
    Augment, DataError, Dataset, Loader, LoaderOptions, MemoryDataset, Protocol, Transform, shuffled,
};
use thinet_models::{Device, Precision, Sgd, UploadBytes, Uploader, Weights, train_step};
use thinet_nets::{Arch, NetSpec};
use thinet_seed::Seed;

use crate::in_turn::{FILTERED, duration, in_turn, timed};

pub(crate) fn figures(criterion: &mut Criterion) -> Result<Vec<Figure>> {
    let mut figures = vec![overlap(criterion)?, bytes(criterion)?, step_together(criterion)?];
    figures.extend(ON_A_GPU.map(|(name, reason)| Figure::not_measured(name, None, reason)));
    Ok(figures)
}

/// What a CPU has no use for.
const ON_A_GPU: [(&str, &str); 3] = [
    (
        "training step, losses read late",
        "a CPU has done its work when it is asked for the loss; `make gpu-check` measures the step on a GPU beside PyTorch's",
    ),
    (
        "test and calibration in batches of 128 photographs over 20",
        "only a GPU has other batches; `make gpu-check` measures calibration over a bare pass over the same layers",
    ),
    (
        "small images that stay on the device over the loader",
        "a CPU computes where the images lie; `make gpu-check` samples how busy a study's GPU is",
    ),
];

const BATCH: usize = 64;
/// Steps of a pass.
const STEPS: usize = 8;
/// Loading alone and computing alone take the same time here, so at best both at once take half of the sum.
const OVERLAPS: Bound = Bound::AtLeast(1.6);

/// A training step with a loader that is as slow as the step itself, with and without a loader thread.
fn overlap(criterion: &mut Criterion) -> Result<Figure> {
    let name = "training step with a loader as slow as it, thread over none";
    let graph = NetSpec::new(Arch::CifarResnet20).build([3, 32, 32], 10)?;
    let weights = Weights::init(&graph, Seed::root(0), tch::Device::Cpu)?;
    let mut sgd = Sgd::new(&graph, &plain_sgd());
    let mut step = |images: &[f32], labels: &[i64]| -> Result<()> {
        let images = Tensor::f_from_slice(images)?.f_view([BATCH as i64, 3, 32, 32])?;
        let labels = Tensor::f_from_slice(labels)?;
        let loss = train_step(&graph, &weights, &mut sgd, &images, &labels, 1e-4, Precision::F32)?;
        ensure!(loss.f_double_value(&[])?.is_finite(), "the loss is not finite");
        Ok(())
    };
    let (values, labels) = (vec![0.5; BATCH * 3 * 32 * 32], vec![1; BATCH]);
    step(&values, &labels)?;
    let start = Instant::now();
    for _ in 0..3 {
        step(&values, &labels)?;
    }
    let of_step = start.elapsed() / 3;
    let set: Arc<dyn Dataset> = Arc::new(Slow { image: of_step / BATCH as u32 });
    let mut pass = |threads| -> Result<()> {
        let options = LoaderOptions { batch: BATCH, drop_last: true, threads, prefetch: 4 };
        let order = (0..set.len()).collect();
        for batch in Loader::new(set.clone(), order, &photographs(Augment::default()), None, options)? {
            let batch = batch?;
            step(&batch.images, &batch.labels)?;
        }
        Ok(())
    };
    let pass = std::cell::RefCell::new(&mut pass);
    let mut ours = || timed(|| (*pass.borrow_mut())(1));
    let mut reference = || timed(|| (*pass.borrow_mut())(0));
    let pairs = in_turn(criterion, ["feeding", "slow loader"], &mut ours, &mut reference)?;
    if pairs.is_empty() {
        return Ok(Figure::not_measured(name, Some(OVERLAPS), FILTERED));
    }
    Ok(Figure {
        name: name.to_owned(),
        ours: duration(pairs.ours() / STEPS as f64),
        reference: duration(pairs.reference() / STEPS as f64),
        ratio: Some(pairs.ratio(Ratio::Speedup)),
        required: Some(OVERLAPS),
        note: format!(
            "measured: {STEPS} steps of ResNet-20 on a batch of {BATCH}, {} each, with images that take as long to read (the reader \
             sleeps). {}",
            duration(of_step.as_secs_f64()),
            pairs.spread(Ratio::Speedup)
        ),
    })
}

/// Images that take their time to be read, without the processor.
struct Slow {
    image: Duration,
}

impl Dataset for Slow {
    fn name(&self) -> &str {
        "slow"
    }
    fn classes(&self) -> usize {
        10
    }
    fn len(&self) -> usize {
        STEPS * BATCH
    }
    fn shape(&self) -> [usize; 3] {
        [3, 32, 32]
    }
    fn label(&self, index: usize) -> usize {
        index % 10
    }
    fn read(&self, index: usize, out: &mut [u8]) -> Result<(), DataError> {
        sleep(self.image);
        out.fill(index as u8);
        Ok(())
    }
    fn fingerprint(&self) -> &str {
        "slow"
    }
}

/// Photographs of a batch, 77 MB as values.
const PHOTOGRAPHS: usize = 128;

/// A batch of photographs made and handed on: as bytes in memory from which a GPU copies, and as values that are copied twice (into
/// a tensor, and into such memory).
fn bytes(criterion: &mut Criterion) -> Result<Figure> {
    let (name, required) = ("a batch of 128 photographs, bytes over values", Bound::AtLeast(2.0));
    let shape = [3, 224, 224];
    let pixels = (0..PHOTOGRAPHS * 3 * 224 * 224).map(|i| (i * 31 + i / 997) as u8).collect();
    let set: Arc<dyn Dataset> =
        Arc::new(MemoryDataset::new("photographs", 1, shape, pixels, vec![0; PHOTOGRAPHS])?);
    let transform = photographs(Augment { mirror: true, ..Augment::default() });
    let options = LoaderOptions { batch: PHOTOGRAPHS, drop_last: true, threads: 0, prefetch: 0 };
    let (order, seed) = (shuffled(PHOTOGRAPHS, Seed::root(0)), Some(Seed::root(1)));
    let size = [PHOTOGRAPHS as i64, 3, 224, 224];
    let uploader = Uploader::new(Device::Cpu)?;
    let as_bytes = || -> Result<Tensor> {
        let buffer = |length| {
            UploadBytes::new(Device::Cpu, length)
                .map_err(|error| DataError::Value { key: "memory", problem: error.to_string() })
        };
        let mut loader = Loader::bytes(set.clone(), order.clone(), &transform, seed, options, buffer)?;
        let batch = loader.next().ok_or_else(|| anyhow::anyhow!("no batch"))??;
        Ok(uploader.upload(&batch.images.tensor().f_view(size)?)?)
    };
    let as_values = || -> Result<Tensor> {
        let mut loader = Loader::new(set.clone(), order.clone(), &transform, seed, options)?;
        let batch = loader.next().ok_or_else(|| anyhow::anyhow!("no batch"))??;
        let values = Tensor::f_from_slice(&batch.images)?.f_view(size)?;
        let mut there = values.f_empty_like()?;
        there.f_copy_(&values)?;
        Ok(there)
    };
    let mut ours = || timed(as_bytes);
    let mut reference = || timed(as_values);
    let pairs = in_turn(criterion, ["feeding", "bytes"], &mut ours, &mut reference)?;
    if pairs.is_empty() {
        return Ok(Figure::not_measured(name, Some(required), FILTERED));
    }
    Ok(Figure {
        name: name.to_owned(),
        ours: duration(pairs.ours()),
        reference: duration(pairs.reference()),
        ratio: Some(pairs.ratio(Ratio::Speedup)),
        required: Some(required),
        note: format!(
            "measured: images in memory, mirrored at random, in the calling thread; the device normalises the bytes, which is not \
             timed here. {}",
            pairs.spread(Ratio::Speedup)
        ),
    })
}

/// One step of SGD on the tensors of ResNet-50: all at once, as on a GPU, and one after the other.
fn step_together(criterion: &mut Criterion) -> Result<Figure> {
    let name = "SGD step on ResNet-50's tensors, all at once over one by one";
    let graph = NetSpec::new(Arch::Resnet50).build([3, 224, 224], 1000)?;
    let weights = Weights::init(&graph, Seed::root(0), tch::Device::Cpu)?;
    let (mut together, mut each) = (Sgd::new(&graph, &plain_sgd()), Sgd::new(&graph, &plain_sgd()));
    // Of no tensor's storage, as a step changes its gradients.
    let gradients = || -> Result<Vec<Tensor>> {
        graph
            .tensors()
            .iter()
            .filter(|spec| spec.trainable)
            .map(|spec| Ok(weights.get(&spec.name)?.copy()))
            .collect()
    };
    let mut ours = || {
        let gradients = gradients()?;
        timed(|| Ok(together.step_together(&weights, gradients, 1e-6)?))
    };
    let mut reference = || {
        let gradients = gradients()?;
        timed(|| Ok(each.step_each(&weights, gradients, 1e-6)?))
    };
    let pairs = in_turn(criterion, ["feeding", "step"], &mut ours, &mut reference)?;
    if pairs.is_empty() {
        return Ok(Figure::not_measured(name, None, FILTERED));
    }
    Ok(Figure {
        name: name.to_owned(),
        ours: duration(pairs.ours()),
        reference: duration(pairs.reference()),
        ratio: Some(pairs.ratio(Ratio::Speedup)),
        required: None,
        note: format!(
            "measured: on the CPU, where the loop is used. A GPU has a kernel to start for each \
             operation of the loop. {}",
            pairs.spread(Ratio::Speedup)
        ),
    })
}

/// torchvision's normalisation, without a crop.
fn photographs(augment: Augment) -> Transform {
    Transform { pad: 0, crop: None, normalisation: Protocol::Torchvision.normalisation(), augment }
}
