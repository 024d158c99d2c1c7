//! What lies between images and a training step, on a device against known values: images that are copied as bytes, a set that stays
//! there, the step on many tensors, and the state of the generator that dropout draws from.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tch::{Kind, Tensor};
use thinet_bench::{plain_sgd, relative_difference};
use thinet_data::{
    Augment, ChannelOrder, Dataset, Loader, LoaderOptions, MemoryDataset, Normalisation, Protocol, Transform,
    shuffled,
};
use thinet_harness::stages::ToDevice;
use thinet_models::{
    Device, MemoryFormat, Sgd, SgdOptions, Weights, generator_state, seed_torch, set_generator_state,
};
use thinet_seed::Seed;

use crate::cores;
use crate::input::{net, waves, weights};
use crate::row::{bounded, row};

/// Most that weights and velocities may differ between the step on many tensors and the loop, relative to the largest value.
const MOST_OF_STEPS: f64 = 1e-6;
/// Steps that are compared.
const STEPS: usize = 5;

/// Images of a check, and how many batches of them there are.
struct Amount {
    side: usize,
    images: usize,
    batch: usize,
    batches: usize,
}

/// Bytes of photographs through a loader, page-locked memory and a copy beside the computation, while the device has more work than it
/// can do: each buffer is given back at once, so one that is written to before its copy is done gives other values.
pub(crate) fn bytes(device: Device) -> Result<Vec<Value>> {
    // Larger than what stays on the device.
    let amount = match device.is_gpu() {
        true => Amount { side: 240, images: 128, batch: 64, batches: 40 },
        false => Amount { side: 80, images: 16, batch: 8, batches: 8 },
    };
    let crop = amount.side - 16;
    check_images("bytes to the device", device, &amount, Some(crop), Protocol::Torchvision.normalisation())
}

/// A set of small images that stays on the device, cut and mirrored there.
pub(crate) fn small_set(device: Device) -> Result<Vec<Value>> {
    let amount = Amount { side: 32, images: 640, batch: 64, batches: if device.is_gpu() { 40 } else { 10 } };
    // Caffe's: channels in the other order.
    let normalisation = Normalisation {
        mean: vec![103.939, 116.779, 123.68],
        std: vec![1.0; 3],
        order: ChannelOrder::Bgr,
        range: 255.0,
    };
    check_images("set on the device", device, &amount, None, normalisation)
}

fn check_images(
    name: &str,
    device: Device,
    amount: &Amount,
    crop: Option<usize>,
    normalisation: Normalisation,
) -> Result<Vec<Value>> {
    let Amount { side, images, batch, batches } = *amount;
    let values = images * 3 * side * side;
    let pixels = (0..values).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let labels = (0..images).map(|image| image % 10).collect();
    let data: Arc<dyn Dataset> = Arc::new(MemoryDataset::new(name, 10, [3, side, side], pixels, labels)?);
    let augment = Augment { crop_padding: 4, mirror: true, random_crop: false };
    let transform = Transform { pad: 0, crop, normalisation, augment };
    let seed = Seed::root(0);
    let rounds = (batch * batches).div_ceil(images) as u64;
    let mut order: Vec<usize> = (0..rounds).flat_map(|round| shuffled(images, seed.index(round))).collect();
    order.truncate(batch * batches);
    let options = LoaderOptions { batch, drop_last: true, threads: cores().min(8), prefetch: 4 };
    let way = ToDevice::new(device, &transform.normalisation, &[&data])?;
    let busy = Busy::new(device);

    let mut found: Vec<(Tensor, Tensor)> = Vec::new();
    match way.pass(&data, &order, &transform, Some(seed), &options)? {
        Some(mut pass) => {
            while let Some((indices, labels)) = pass.next() {
                busy.work();
                found.push((way.cut(&pass, &indices)?, way.labels(&labels)?));
            }
        }
        None => {
            let buffer = move |length| ToDevice::buffer(device, length);
            for batch in Loader::bytes(data.clone(), order.clone(), &transform, Some(seed), options, buffer)?
            {
                let batch = batch?;
                busy.work();
                found.push((way.images(&batch)?, way.labels(&batch.labels)?));
            }
        }
    }
    let mut wrong = 0;
    let expected = Loader::new(data, order, &transform, Some(seed), options)?;
    for (batch, (images, labels)) in expected.zip(&found) {
        let batch = batch?;
        let shape = batch.shape.map(|n| n as i64);
        let same = images.size() == shape
            && Vec::<f32>::try_from(images.to_device(tch::Device::Cpu).flatten(0, -1))? == batch.images
            && Vec::<i64>::try_from(labels.to_device(tch::Device::Cpu))? == batch.labels;
        wrong += usize::from(!same);
    }
    ensure!(found.len() == batches, "{} batches came, not {batches}", found.len());
    let note = format!("{batches} batches of {batch} images, {wrong} differ");
    Ok(vec![row(name, "the same inputs as the loader's, to the bit", wrong == 0, &note)])
}

/// Work that keeps a GPU behind the program.
struct Busy(Option<Tensor>);

impl Busy {
    fn new(device: Device) -> Self {
        Self(device.is_gpu().then(|| waves(&[2048, 2048], 0.1).to_device(device.into())))
    }

    /// Some milliseconds of it.
    fn work(&self) {
        if let Some(matrix) = &self.0 {
            for _ in 0..20 {
                drop(matrix.matmul(matrix));
            }
        }
    }
}

/// The step on many tensors against the loop over them, from the same state, on the device.
pub(crate) fn sgd(device: Device) -> Result<Vec<Value>> {
    let graph = net("cifar-resnet20")?;
    let start = weights(&graph)?;
    let mut rows = Vec::new();
    for (what, momentum, weight_decay, nesterov) in [
        ("momentum and weight decay", 0.9, 5e-4, false),
        ("momentum", 0.9, 0.0, false),
        ("Nesterov's momentum and weight decay", 0.9, 5e-4, true),
        ("weight decay", 0.0, 5e-4, false),
        ("neither", 0.0, 0.0, false),
    ] {
        let layer_lr = BTreeMap::from([("fc".to_owned(), 10.0)]);
        let options = SgdOptions { momentum, weight_decay, nesterov, bias_lr: 2.0, layer_lr, ..plain_sgd() };
        let mut worst = 0.0_f64;
        for format in [MemoryFormat::Contiguous, MemoryFormat::ChannelsLast] {
            let here = || start.to_device(device.into())?.to_format(format);
            let (each, together) = (here()?, here()?);
            let (mut plain, mut fused) = (Sgd::new(&graph, &options), Sgd::new(&graph, &options));
            for step in 0..STEPS {
                plain.step_each(&each, gradients(&plain, &start, device, step)?, 0.1)?;
                fused.step_together(&together, gradients(&fused, &start, device, step)?, 0.1)?;
            }
            let fused = fused.state();
            for (name, velocity) in plain.state().iter().filter(|_| momentum > 0.0) {
                let other = fused.get(name).with_context(|| format!("no velocity of {name}"))?;
                worst = worst.max(relative_difference(other, velocity));
            }
            for name in plain.names() {
                worst = worst.max(relative_difference(together.get(name)?, each.get(name)?));
            }
        }
        let metric = format!("{what}: one step for all tensors, largest relative difference from the loop");
        rows.push(bounded("SGD", &metric, worst, MOST_OF_STEPS, &format!("{STEPS} steps")));
    }
    Ok(rows)
}

/// Gradients from a formula, another one at each step.
fn gradients(sgd: &Sgd, start: &Weights, device: Device, step: usize) -> Result<Vec<Tensor>> {
    let of = |name: &str| Ok(waves(&start.get(name)?.size(), step as f64).to_device(device.into()));
    sgd.names().map(of).collect()
}

/// The generator's state, read and put back: dropout draws the same again.
pub(crate) fn dropout(device: Device) -> Result<Vec<Value>> {
    seed_torch(Seed::root(0));
    let ones = Tensor::ones([1 << 12], (Kind::Float, device.into()));
    let draw = || -> Vec<Tensor> { (0..3).map(|_| ones.dropout(0.5, true)).collect() };
    // A GPU's generator is made at its first use.
    drop(draw());
    let state = generator_state(device)?;
    let first = draw();
    set_generator_state(device, &state)?;
    let differ = first[0] != first[1] && first[1] != first[2];
    let name = "dropout";
    Ok(vec![row(name, "the same draws from a state that was saved", differ && draw() == first, "3 draws")])
}
