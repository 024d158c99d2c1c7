//! How fast a device trains, tests, calibrates and gets its images.

use std::path::Path;
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};
use thinet_bench::{photographs, plain_sgd};
use thinet_data::{
    Augment, DataError, Dataset, DatasetSpec, ImagenetSpec, Loader, LoaderOptions, Protocol, Transform, open,
    prepare, shuffled,
};
use thinet_graph::NodeId;
use thinet_harness::stages::ToDevice;
use thinet_models::{
    Device, MemoryFormat, Mode, Precision, Sgd, UploadBytes, Uploader, Weights, forward, forward_taps,
    peak_gpu_bytes, seed_torch, set_tf32, train_step,
};
use thinet_seed::Seed;

use crate::cores;
use crate::evidence::{SAMPLED, collector, layer, pass};
use crate::input::{images, labels, net};

/// Runs between two waits for the device, as in `speed.py`.
const FREE_RUNS: usize = 20;
/// Runs before the clock starts.
const WARM_UP: usize = 3;
/// Photographs of a batch of [`load`].
const LOADED: usize = 64;
/// Batches in the prepared file of [`fed`].
const PREPARED: usize = 2;

fn precision_and_format(name: &str) -> Result<(Precision, MemoryFormat)> {
    match name {
        "f32" => Ok((Precision::F32, MemoryFormat::Contiguous)),
        "bf16" => Ok((Precision::Bf16, MemoryFormat::ChannelsLast)),
        other => bail!("{other:?} is not a precision; allowed: f32, bf16"),
    }
}

/// Forward passes without gradients.
pub(crate) fn infer(
    net_name: &str,
    precision: &str,
    batch: usize,
    seconds: f64,
    asked: Device,
) -> Result<Value> {
    let device = asked.into();
    let (precision, format) = precision_and_format(precision)?;
    set_tf32(precision == Precision::Bf16)?;
    let graph = net(net_name)?;
    let weights = Weights::init(&graph, Seed::root(0), device)?.to_format(format)?;
    let images = format.apply(&images(net_name, batch).to_device(device))?;
    let _guard = tch::no_grad_guard();
    let speed = repeat(seconds, asked, || {
        let _autocast = precision.enter(device)?;
        drop(forward(&graph, &weights, &images, Mode::Eval)?);
        Ok(batch)
    })?;
    Ok(speed.report())
}

/// Training steps on the same batch.
pub(crate) fn train(
    net_name: &str,
    precision: &str,
    batch: usize,
    seconds: f64,
    asked: Device,
) -> Result<Value> {
    let device = asked.into();
    let (precision, format) = precision_and_format(precision)?;
    set_tf32(precision == Precision::Bf16)?;
    let graph = net(net_name)?;
    let weights = Weights::init(&graph, Seed::root(0), device)?.to_format(format)?;
    let mut sgd = Sgd::new(&graph, &plain_sgd());
    seed_torch(Seed::root(0));
    let images = format.apply(&images(net_name, batch).to_device(device))?;
    let labels = labels(net_name, batch).to_device(device);
    let speed = repeat(seconds, asked, || {
        drop(train_step(&graph, &weights, &mut sgd, &images, &labels, 1e-4, precision)?);
        Ok(batch)
    })?;
    let mut report = speed.report();
    report["peak_mib"] = peak_gpu_bytes(asked, false).map(|bytes| bytes >> 20).into();
    Ok(report)
}

/// Training steps in bf16 on photographs from a prepared file, which loader threads cut while the device computes, and on the same batch
/// again and again: the difference is what feeding costs.
pub(crate) fn fed(net_name: &str, batch: usize, seconds: f64, asked: Device) -> Result<Value> {
    let device = asked.into();
    let (precision, format) = precision_and_format("bf16")?;
    set_tf32(true)?;
    let graph = net(net_name)?;
    let weights = Weights::init(&graph, Seed::root(0), device)?.to_format(format)?;
    let mut sgd = Sgd::new(&graph, &plain_sgd());
    seed_torch(Seed::root(0));
    let mut step = |images: &tch::Tensor, labels: &tch::Tensor| -> Result<usize> {
        drop(train_step(&graph, &weights, &mut sgd, images, labels, 1e-4, precision)?);
        Ok(labels.size()[0] as usize)
    };
    let fixed = {
        let images = format.apply(&images(net_name, batch).to_device(device))?;
        let labels = labels(net_name, batch).to_device(device);
        repeat(seconds, asked, || step(&images, &labels))?
    };
    let folder = tempfile::tempdir()?;
    let photos = Photographs::new(folder.path(), "prepared", PREPARED * batch)?;
    let way = ToDevice::new(asked, &photos.transform.normalisation, &[])?;
    let options = LoaderOptions { batch, drop_last: true, threads: cores(), prefetch: 4 };
    let mut epoch = 0;
    let mut loader = photos.loader(epoch, options, asked)?;
    let speed = repeat(seconds, asked, || {
        let next = match loader.next() {
            Some(next) => next?,
            None => {
                epoch += 1;
                loader = photos.loader(epoch, options, asked)?;
                loader.next().context("an epoch without a batch")??
            }
        };
        let images = format.apply(&way.images(&next)?)?;
        step(&images, &way.labels(&next.labels)?)
    })?;
    let mut report = speed.report();
    report["fixed"] = fixed.images_per_second.into();
    report["source"] = photos.source.into();
    Ok(report)
}

/// Calibration passes, and bare passes over the same part of the net.
pub(crate) fn calibrate(net_name: &str, batch: usize, seconds: f64, asked: Device) -> Result<Value> {
    let device = asked.into();
    set_tf32(false)?;
    let graph = net(net_name)?;
    let (_, sampled) =
        SAMPLED.iter().rev().find(|(arch, _)| *arch == net_name).context("no layer of this net")?;
    let weights = Weights::init(&graph, Seed::root(0), device)?;
    let layers = [layer(&graph, sampled)?];
    let images = images(net_name, batch).to_device(device);
    let indices: Vec<usize> = (0..batch).collect();
    let taps = collector(&graph, &weights, &layers)?.taps();
    let _guard = tch::no_grad_guard();
    let bare = repeat(seconds, asked, || {
        let mut nothing = |_: NodeId, _: &tch::Tensor| ();
        forward_taps(&graph, &weights, &images, Mode::Eval, &taps, &mut nothing)?;
        Ok(batch)
    })?;
    let speed = repeat(seconds, asked, || {
        pass(&graph, &weights, &layers, &images, &indices)?;
        Ok(batch)
    })?;
    let mut report = speed.report();
    report["bare"] = bare.images_per_second.into();
    report["layer"] = (*sampled).into();
    Ok(report)
}

/// Batches of photographs as bytes on the device, decoded each time or from a prepared file, by so many loader threads.
pub(crate) fn load(way: &str, count: usize, seconds: f64, threads: usize, asked: Device) -> Result<Value> {
    let folder = tempfile::tempdir()?;
    let photos = Photographs::new(folder.path(), way, count)?;
    let options = LoaderOptions { batch: LOADED.min(count), drop_last: true, threads, prefetch: 4 };
    let uploader = Uploader::new(asked)?;
    let (mut images, mut epoch, start) = (0, 0_u64, Instant::now());
    while start.elapsed().as_secs_f64() < seconds {
        for batch in photos.loader(epoch, options, asked)? {
            let batch = batch?;
            drop(uploader.upload(batch.images.tensor())?);
            images += batch.indices.len();
            if start.elapsed().as_secs_f64() >= seconds {
                break;
            }
        }
        epoch += 1;
    }
    asked.synchronize();
    let speed = images as f64 / start.elapsed().as_secs_f64();
    Ok(json!({ "images_per_second": speed, "source": photos.source }))
}

/// Photographs in a temporary folder.
struct Photographs {
    set: Arc<dyn Dataset>,
    transform: Transform,
    /// Where they come from, in words.
    source: String,
}

impl Photographs {
    /// `way`: `decoding` for files that are decoded each time, `prepared` for a prepared file.
    fn new(folder: &Path, way: &str, count: usize) -> Result<Self> {
        let source = photographs(folder, count)?;
        let spec = ImagenetSpec { classes: 1, ..ImagenetSpec::new(Protocol::CaffeShort) };
        let spec = DatasetSpec::Imagenet(spec);
        if way == "prepared" {
            prepare(&spec, folder, None, &mut |_| ())?;
        }
        let set = open(&spec, folder)?.train;
        ensure!(
            set.prepared_file().is_some() == (way == "prepared"),
            "{way:?} is no way; allowed: decoding, prepared"
        );
        let augment = Augment { random_crop: true, mirror: true, crop_padding: 0 };
        let transform = Transform { pad: 0, crop: None, normalisation: spec.normalisation(), augment };
        Ok(Self { set, transform, source })
    }

    /// Passes over the photographs; several, so that little of the time is the start of threads.
    fn loader(
        &self,
        epoch: u64,
        options: LoaderOptions,
        device: Device,
    ) -> Result<Loader<UploadBytes>, DataError> {
        let seed = Seed::root(0).index(epoch);
        let order =
            (0..16).flat_map(|round| shuffled(self.set.len(), seed.child("order").index(round))).collect();
        let buffer = move |length| ToDevice::buffer(device, length);
        Loader::bytes(self.set.clone(), order, &self.transform, Some(seed), options, buffer)
    }
}

/// What [`repeat`] measured.
struct Speed {
    images_per_second: f64,
    /// When the clock ran, in seconds since 1970: the card is watched by another program.
    from: f64,
    to: f64,
}

impl Speed {
    fn report(&self) -> Value {
        json!({ "images_per_second": self.images_per_second, "from": self.from, "to": self.to })
    }
}

/// Repeats work on so many images as it returns; waits for the device every [`FREE_RUNS`] times, as training reads its losses.
fn repeat(seconds: f64, device: Device, mut once: impl FnMut() -> Result<usize>) -> Result<Speed> {
    for _ in 0..WARM_UP {
        once()?;
    }
    device.synchronize();
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64());
    let (from, start) = (now(), Instant::now());
    let (mut images, mut runs) = (0, 0_usize);
    while start.elapsed().as_secs_f64() < seconds {
        images += once()?;
        runs += 1;
        if runs.is_multiple_of(FREE_RUNS) {
            device.synchronize();
        }
    }
    device.synchronize();
    Ok(Speed { images_per_second: images as f64 / start.elapsed().as_secs_f64(), from, to: now() })
}
