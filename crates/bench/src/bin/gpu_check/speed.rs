//! Our side of a comparison with PyTorch's eager loop: training steps or calibration passes, as many as fit into the
//! seconds that a line on standard input gives.

use std::collections::BTreeMap;
use std::io::BufRead as _;
use std::time::Instant;

use anyhow::{Context as _, Result, bail, ensure};
use tch::{Cuda, Device};
use thinet_models::{
    MemoryFormat, Precision, Sgd, SgdOptions, Weights, peak_gpu_bytes, seed_torch, set_deterministic,
    set_tf32, train_step,
};
use thinet_sampling::SamplingSpec;
use thinet_seed::Seed;

use crate::child::{Block, Message, Ready};
use crate::nets::{Calibration, Scale, images, labels, parameters};

// As in eager.py. So small a rate that the weights, and with them the work, stay what they are.
const LR: f64 = 1e-4;
const MOMENTUM: f64 = 0.9;
const WEIGHT_DECAY: f64 = 5e-4;

/// The layer whose calibration is timed.
pub(crate) fn calibrated(net: &str) -> Result<&'static str> {
    match net {
        "vgg16" => Ok("conv3_2"),
        "resnet50" => Ok("layer3.0.conv2"),
        other => bail!("no layer of {other} is calibrated here"),
    }
}

/// The child process that trains.
pub(crate) fn train(net: &str, precision: &str, device: Device, scale: Scale) -> Result<()> {
    let (precision, format) = match precision {
        "f32" => (Precision::F32, MemoryFormat::Contiguous),
        "bf16" => (Precision::Bf16, MemoryFormat::ChannelsLast),
        other => bail!("{other} is no precision"),
    };
    set_tf32(precision == Precision::Bf16)?;
    set_deterministic(false)?;
    let graph = scale.net(net)?;
    let weights = Weights::init(&graph, Seed::root(0), device)?.to_format(format)?;
    let options = SgdOptions {
        momentum: MOMENTUM,
        weight_decay: WEIGHT_DECAY,
        bias_lr: 1.0,
        bias_decay: 1.0,
        layer_lr: BTreeMap::new(),
        layer_decay: BTreeMap::new(),
    };
    let mut sgd = Sgd::new(&graph, &options);
    seed_torch(Seed::root(0));
    let batch = scale.speed_batch();
    let (images, labels) = (format.apply(&images(batch, scale, device)?)?, labels(batch, device)?);
    let ready = Ready { parameters: parameters(&graph), shape: images.size() };
    serve(ready, batch, device, scale, &mut || {
        let loss = train_step(&graph, &weights, &mut sgd, &images, &labels, LR, precision)?;
        ensure!(loss.is_finite(), "the loss is {loss}");
        Ok(())
    })
}

/// The child process that calibrates.
pub(crate) fn calibrate(net: &str, device: Device, scale: Scale) -> Result<()> {
    set_tf32(false)?;
    set_deterministic(false)?;
    let graph = scale.net(net)?;
    let weights = Weights::init(&graph, Seed::root(0), device)?;
    let positions = SamplingSpec::default().positions_per_image;
    let calibration = Calibration::new(&graph, calibrated(net)?, positions)?;
    let batch = scale.speed_batch();
    let images = images(batch, scale, device)?;
    let mut shape = Vec::new();
    calibration.pass(&graph, &weights, &images, &mut |_, seen| shape = seen.size())?;
    let ready = Ready { parameters: parameters(&graph), shape };
    serve(ready, batch, device, scale, &mut || {
        calibration.pass(&graph, &weights, &images, &mut |_, _| ()).map(drop)
    })
}

/// Warms up, says that it stands, then works off one line after the other.
fn serve(
    ready: Ready,
    batch: usize,
    device: Device,
    scale: Scale,
    once: &mut dyn FnMut() -> Result<()>,
) -> Result<()> {
    let wait = || {
        if let Device::Cuda(index) = device {
            Cuda::synchronize(index as i64);
        }
    };
    // Only the start of the count is wanted here.
    let _ = peak_gpu_bytes(device, true);
    for _ in 0..if scale.tiny { 1 } else { 5 } {
        once()?;
    }
    wait();
    Message::Ready(ready).send();
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let seconds = line.strip_prefix("go ").with_context(|| format!("{line:?} is not understood"))?;
        let seconds: f64 = seconds.parse()?;
        let (mut images, start) = (0, Instant::now());
        // Both sides wait for each batch: a queue that runs ahead would end after the clock.
        while images == 0 || start.elapsed().as_secs_f64() < seconds {
            once()?;
            wait();
            images += batch as u64;
        }
        let seconds = start.elapsed().as_secs_f64();
        Message::Block(Block { images, seconds, peak: peak_gpu_bytes(device, false) }).send();
    }
    Ok(())
}
