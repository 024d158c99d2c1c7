//! The Rust side of `make gpu-check`: compares a CUDA device with the CPU, and measures how fast it trains and calibrates.
//! `gpu-check/gpu_check.py` runs it beside PyTorch on the GPU machine. Each command prints one line of JSON.

#![allow(clippy::print_stdout, reason = "its output is read by gpu_check.py")]

use std::time::Instant;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};
use tch::{Kind, Tensor};
use thinet_bench::{observe_batch, photographs, plain_sgd, relative_difference};
use thinet_data::{
    Augment, DataError, DatasetSpec, ImagenetSpec, Loader, LoaderOptions, Protocol, Transform, open, prepare,
    shuffled,
};
use thinet_graph::{ChannelGroup, Graph, channel_group};
use thinet_models::{
    Device, MemoryFormat, Mode, Precision, Sgd, UploadBytes, Uploader, Weights, forward, loss_and_gradients,
    peak_gpu_bytes, seed_torch, set_compute_threads, set_deterministic, set_tf32, train_step,
};
use thinet_nets::{Arch, NetSpec, ResNetStride, paper_models};
use thinet_sampling::EvidenceCollector;
use thinet_seed::Seed;
use thinet_selectors::{Evidence, Needs, Selector};

const USAGE: &str = "gpu-check parity DEVICE BATCH MODEL|evidence,… | train NET PRECISION BATCH SECONDS DEVICE | \
                     infer NET PRECISION BATCH SECONDS DEVICE | calibrate NET BATCH SECONDS DEVICE | \
                     load decoding|prepared IMAGES SECONDS THREADS DEVICE";
/// Shape of the images and number of classes of the paper's nets.
const PHOTOGRAPHS: ([usize; 3], usize) = ([3, 224, 224], 1000);
/// Those of the nets called `cifar-…`.
const SMALL: ([usize; 3], usize) = ([3, 32, 32], 10);
/// A name of the paper's nets, which all take the same images.
const PHOTO: &str = "vgg16";
/// Positions sampled in each image of a calibration pass, as in the paper.
const POSITIONS: usize = 10;
/// Most that logits may differ from those in 32-bit floats: TF32 has 10 bits after the point, bfloat16 has 7, and some tens of layers
/// add up.
const MOST_OF_TF32: f64 = 0.01;
const MOST_OF_BF16: f64 = 0.08;
/// Most that the share of a channel's zeros may differ: one value in a thousand switches its sign by rounding.
const MOST_OF_ZEROS: f64 = 1e-3;
/// Runs between two waits for the device, as in `gpu_check.py`.
const FREE_RUNS: usize = 20;
/// Runs before the clock starts.
const WARM_UP: usize = 3;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    set_compute_threads(cores)?;
    let report = match words[..] {
        ["parity", device, batch, models] => {
            parity(available(device)?, batch.parse().context("BATCH")?, models)?
        }
        [what @ ("train" | "infer"), net, precision, batch, seconds, device] => {
            let measure = if what == "train" { train } else { infer };
            let (batch, seconds) = (batch.parse().context("BATCH")?, seconds.parse().context("SECONDS")?);
            measure(net, precision, batch, seconds, available(device)?)?
        }
        ["load", way, images, seconds, threads, device] => load(
            way,
            images.parse().context("IMAGES")?,
            seconds.parse().context("SECONDS")?,
            threads.parse().context("THREADS")?,
            available(device)?,
        )?,
        ["calibrate", net, batch, seconds, device] => calibrate(
            net,
            batch.parse().context("BATCH")?,
            seconds.parse().context("SECONDS")?,
            available(device)?,
        )?,
        _ => bail!("usage: {USAGE}"),
    };
    println!("{report}");
    Ok(())
}

/// The device of this name, checked to be available.
fn available(name: &str) -> Result<Device> {
    let device: Device = name.parse()?;
    device.check_usable()?;
    Ok(device)
}

/// Values in −1..1 from a formula, the same on every machine.
fn waves(shape: &[i64], phase: f64) -> Tensor {
    let count: i64 = shape.iter().product();
    let i = Tensor::arange(count, (Kind::Double, tch::Device::Cpu));
    (i * 0.013 + phase).sin().to_kind(Kind::Float).view(shape)
}

/// Images for a net of this name.
fn images(net: &str, batch: usize) -> Tensor {
    let [channels, height, width] = input_of(net).0.map(|n| n as i64);
    waves(&[batch as i64, channels, height, width], 0.5)
}

fn labels(net: &str, batch: usize) -> Tensor {
    Tensor::arange(batch as i64, (Kind::Int64, tch::Device::Cpu)).remainder(input_of(net).1 as i64)
}

fn input_of(net: &str) -> ([usize; 3], usize) {
    if net.starts_with("cifar-") { SMALL } else { PHOTOGRAPHS }
}

/// Random weights; batch statistics that differ from their initial values.
fn weights(graph: &Graph) -> Result<Weights> {
    let mut weights = Weights::init(graph, Seed::root(0).child("gpu-check"), tch::Device::Cpu)?;
    for (phase, spec) in graph.tensors().iter().enumerate() {
        let shape: Vec<i64> = spec.shape.iter().map(|&n| n as i64).collect();
        if spec.name.ends_with("running_mean") {
            weights.insert(spec.name.clone(), waves(&shape, phase as f64) * 0.1);
        } else if spec.name.ends_with("running_var") {
            weights.insert(spec.name.clone(), waves(&shape, phase as f64) * 0.3 + 1.0);
        }
    }
    Ok(weights)
}

/// The results of a net on one device, copied to the CPU.
struct NetResults {
    logits: Tensor,
    loss: f64,
    /// By tensor name, of every trained tensor.
    gradients: Vec<(String, Tensor)>,
}

impl NetResults {
    fn equals(&self, other: &Self) -> bool {
        let gradients = self.gradients.iter().zip(&other.gradients);
        self.logits == other.logits && gradients.into_iter().all(|((_, a), (_, b))| a == b)
    }
}

fn logits(
    graph: &Graph,
    weights: &Weights,
    images: &Tensor,
    device: tch::Device,
    format: MemoryFormat,
    precision: Precision,
) -> Result<Tensor> {
    let images = format.apply(&images.to_device(device))?;
    let weights = weights.to_device(device)?.to_format(format)?;
    let _autocast = precision.enter(device)?;
    let logits = tch::no_grad(|| forward(graph, &weights, &images, Mode::Eval))?;
    Ok(logits.to_kind(Kind::Float).to_device(tch::Device::Cpu))
}

fn compute(
    graph: &Graph,
    weights: &Weights,
    images: &Tensor,
    device: tch::Device,
    format: MemoryFormat,
) -> Result<NetResults> {
    let logits = logits(graph, weights, images, device, format, Precision::F32)?;
    let labels = labels(PHOTO, images.size()[0] as usize).to_device(device);
    let images = format.apply(&images.to_device(device))?;
    let weights = weights.to_device(device)?.to_format(format)?;
    let names: Vec<String> =
        graph.tensors().into_iter().filter(|spec| spec.trainable).map(|spec| spec.name).collect();
    // Dropout draws from another generator on each device: gradients are taken without it.
    let (loss, gradients) = loss_and_gradients(
        graph,
        &weights,
        names.iter().map(String::as_str),
        &images,
        &labels,
        Mode::Eval,
        Precision::F32,
    )?;
    let gradients = gradients.into_iter().map(|gradient| gradient.contiguous().to_device(tch::Device::Cpu));
    Ok(NetResults {
        logits,
        loss: loss.f_double_value(&[])?,
        gradients: names.into_iter().zip(gradients).collect(),
    })
}

/// The gradient that differs most for its noise: its name, difference and noise. A pool or a rectifier that switches moves a gradient
/// by more than any sum does, and which ones switch is chance, so the noise is the largest of several.
fn worst_gradient(cpu: &NetResults, others: &[NetResults], there: &NetResults) -> Result<(String, f64, f64)> {
    let mut all = Vec::new();
    for (at, (name, gradient)) in cpu.gradients.iter().enumerate() {
        let difference = relative_difference(&there.gradients[at].1, gradient);
        let of = |other: &NetResults| relative_difference(&other.gradients[at].1, gradient);
        all.push((name.clone(), difference, others.iter().map(of).fold(0.0, f64::max)));
    }
    let ratio = |(_, difference, noise): &(String, f64, f64)| difference / noise.max(LEAST_NOISE);
    all.into_iter().max_by(|a, b| ratio(a).total_cmp(&ratio(b))).context("a net without weights")
}

/// Passes on the CPU with images that differ by one rounding.
const ROUNDED: u8 = 3;

/// Noise below this is that of a single rounding, which another batch would show.
const LEAST_NOISE: f64 = 1e-6;

fn row(name: &str, metric: &str, value: impl Into<Value>, note: &str) -> Value {
    json!({ "name": name, "metric": metric, "value": value.into(), "note": note })
}

/// Compares the CPU with the device, in 32-bit floats without TF32, with deterministic algorithms.
fn parity(asked: Device, batch: usize, names: &str) -> Result<Value> {
    set_tf32(false)?;
    set_deterministic(true, asked)?;
    let device = asked.into();
    let names: Vec<&str> = names.split(',').collect();
    let mut rows = Vec::new();
    for model in paper_models(ResNetStride::First1x1)? {
        if !names.contains(&model.name) {
            continue;
        }
        let graph = model.build()?;
        let weights = weights(&graph)?;
        let images = images(PHOTO, batch);
        let compute = |images: &Tensor, device, format| compute(&graph, &weights, images, device, format);
        let cpu = compute(&images, tch::Device::Cpu, MemoryFormat::Contiguous)?;
        // The CPU against itself: adding in another order, and from images that differ by one rounding.
        let mut others = vec![compute(&images, tch::Device::Cpu, MemoryFormat::ChannelsLast)?];
        for phase in 1..=ROUNDED {
            let factor = waves(&images.size(), f64::from(phase)).sign() * f64::from(f32::EPSILON) + 1.0;
            others.push(compute(&(&images * factor), tch::Device::Cpu, MemoryFormat::Contiguous)?);
        }
        let there = compute(&images, device, MemoryFormat::Contiguous)?;
        let again = compute(&images, device, MemoryFormat::Contiguous)?;
        let noise = |of: &dyn Fn(&NetResults) -> f64| others.iter().map(of).fold(0.0, f64::max);
        let mut judged = |metric: &str, value: f64, noise: f64, note: &str| {
            let mut row = row(model.name, metric, value, note);
            row["noise"] = noise.max(LEAST_NOISE).into();
            rows.push(row);
        };
        judged(
            "logits, largest relative difference",
            relative_difference(&there.logits, &cpu.logits),
            noise(&|other| relative_difference(&other.logits, &cpu.logits)),
            "",
        );
        let of_loss = |other: &NetResults| ((other.loss - cpu.loss) / cpu.loss).abs();
        judged("loss, relative difference", of_loss(&there), noise(&of_loss), "");
        let (name, difference, noise) = worst_gradient(&cpu, &others, &there)?;
        judged(
            "gradients of all layers, largest relative difference",
            difference,
            noise,
            &format!("the worst: {name}"),
        );
        rows.push(row(model.name, "the same bits in a second run", there.equals(&again), ""));
        for (what, precision, tf32, bound) in
            [("TF32", Precision::F32, true, MOST_OF_TF32), ("bf16", Precision::Bf16, true, MOST_OF_BF16)]
        {
            set_tf32(tf32)?;
            let rounded = logits(&graph, &weights, &images, device, MemoryFormat::ChannelsLast, precision);
            set_tf32(false)?;
            let difference = relative_difference(&rounded?, &there.logits);
            let mut row =
                row(model.name, &format!("{what} against f32, logits, relative difference"), difference, "");
            row["bound"] = bound.into();
            rows.push(row);
        }
    }
    for (arch, layer) in SAMPLED.into_iter().filter(|_| names.contains(&EVIDENCE)) {
        let graph = net(arch)?;
        let weights = weights(&graph)?;
        let cpu = evidence(&graph, &weights, layer, batch, tch::Device::Cpu)?;
        let there = evidence(&graph, &weights, layer, batch, device)?;
        rows.extend(compare(&format!("{arch} {layer}"), &cpu, &there)?);
    }
    Ok(json!({ "rows": rows }))
}

/// The name under which the evidence of [`SAMPLED`] is compared.
const EVIDENCE: &str = "evidence";

/// The layers whose moments are compared and whose calibration is timed.
const SAMPLED: [(&str, &str); 3] =
    [("vgg16-gap", "conv3_2"), ("resnet50", "layer2.0.conv1"), ("resnet50", "layer3.0.conv2")];

fn net(name: &str) -> Result<Graph> {
    let arch: Arch = name.parse()?;
    let (image, classes) = input_of(name);
    Ok(NetSpec::new(arch).build(image, classes)?)
}

fn needs() -> Needs {
    Needs::FILTERS | Needs::ZEROS | Needs::ACTIVATIONS | Needs::MOMENTS
}

/// One calibration pass over a batch.
fn evidence(
    graph: &Graph,
    weights: &Weights,
    layer: &str,
    batch: usize,
    device: tch::Device,
) -> Result<Evidence> {
    let weights = weights.to_device(device)?;
    let layers = [(channel_group(graph, layer)?, needs())];
    let indices: Vec<usize> = (0..batch).collect();
    let mut all = pass(graph, &weights, &layers, &images(PHOTO, batch).to_device(device), &indices)?;
    Ok(all.remove(0))
}

fn pass(
    graph: &Graph,
    weights: &Weights,
    layers: &[(ChannelGroup, Needs)],
    images: &Tensor,
    indices: &[usize],
) -> Result<Vec<Evidence>> {
    let seed = Seed::root(0).child("positions");
    let lookup = |name: &str| weights.get(name).ok();
    let mut collector = EvidenceCollector::new(graph, layers, &lookup, POSITIONS, seed)?;
    observe_batch(&mut collector, graph, weights, images, indices, &mut |_| ())?;
    Ok(collector.finish()?)
}

/// Compares moments, and the channels that every selector of [`needs`] keeps at a rate of one half.
fn compare(name: &str, cpu: &Evidence, there: &Evidence) -> Result<Vec<Value>> {
    let moments = |evidence: &Evidence| -> Result<Tensor> {
        let moments = evidence.moments.as_ref().context("no moments")?;
        let rows: Vec<f64> = (0..evidence.channels).flat_map(|i| moments.row(i).to_vec()).collect();
        Ok(Tensor::from_slice(&rows))
    };
    let gram = relative_difference(&moments(there)?, &moments(cpu)?);
    let mut rows = vec![row(name, "moments, largest relative difference", gram, "")];
    let activations = |evidence: &Evidence| -> Result<[Tensor; 2]> {
        let found = evidence.activations.as_ref().context("no activations")?;
        Ok([Tensor::from_slice(&found.mean_abs), Tensor::from_slice(&found.max)])
    };
    for (what, (there, cpu)) in
        ["means", "maxima"].into_iter().zip(activations(there)?.iter().zip(&activations(cpu)?))
    {
        let metric = format!("{what} of activations, largest relative difference");
        rows.push(row(name, &metric, relative_difference(there, cpu), ""));
    }
    // A value near zero can fall on the other side of a rectifier: shares are compared, not counts.
    let zeros = |evidence: &Evidence| -> Result<Vec<f64>> {
        let found = evidence.zeros.as_ref().context("no zero counts")?;
        Ok(found.zeros.iter().map(|zeros| *zeros as f64 / found.total as f64).collect())
    };
    let shares = zeros(there)?.into_iter().zip(zeros(cpu)?).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    let mut of_zeros = row(name, "shares of zeros, largest difference", shares, "");
    of_zeros["bound"] = MOST_OF_ZEROS.into();
    rows.push(of_zeros);
    let keep = cpu.channels / 2;
    let is_served = |selector: &&&dyn Selector| needs().contains_all(selector.needs());
    for selector in thinet_selectors::all().iter().filter(is_served) {
        let seed = Seed::root(0).child("select");
        let kept = |evidence: &Evidence| -> Result<Vec<usize>> {
            Ok(selector.select(evidence, keep, seed)?.kept.kept().to_vec())
        };
        let (ours, theirs) = (kept(cpu)?, kept(there)?);
        let other = theirs.iter().filter(|channel| !ours.contains(channel)).count();
        let metric = format!("{}: channels kept on the CPU alone", selector.name());
        rows.push(row(name, &metric, other, &format!("of {keep}")));
    }
    Ok(rows)
}

fn precision_and_format(name: &str) -> Result<(Precision, MemoryFormat)> {
    match name {
        "f32" => Ok((Precision::F32, MemoryFormat::Contiguous)),
        "bf16" => Ok((Precision::Bf16, MemoryFormat::ChannelsLast)),
        other => bail!("{other:?} is not a precision; allowed: f32, bf16"),
    }
}

/// Forward passes without gradients.
fn infer(net_name: &str, precision: &str, batch: usize, seconds: f64, asked: Device) -> Result<Value> {
    let device = asked.into();
    let (precision, format) = precision_and_format(precision)?;
    set_tf32(precision == Precision::Bf16)?;
    let graph = net(net_name)?;
    let weights = Weights::init(&graph, Seed::root(0), device)?.to_format(format)?;
    let images = format.apply(&images(net_name, batch).to_device(device))?;
    let _guard = tch::no_grad_guard();
    let speed = repeat(batch, seconds, asked, || {
        let _autocast = precision.enter(device)?;
        forward(&graph, &weights, &images, Mode::Eval).map(drop).map_err(Into::into)
    })?;
    Ok(json!({ "images_per_second": speed }))
}

/// Photographs of a batch of [`load`].
const LOADED: usize = 64;

/// Batches of photographs as bytes on the device, decoded each time or from a prepared file, by so many loader threads.
fn load(way: &str, count: usize, seconds: f64, threads: usize, asked: Device) -> Result<Value> {
    let folder = tempfile::tempdir()?;
    let source = photographs(folder.path(), count)?;
    let spec = ImagenetSpec { classes: 1, ..ImagenetSpec::new(Protocol::CaffeShort) };
    let spec = DatasetSpec::Imagenet(spec);
    if way == "prepared" {
        prepare(&spec, folder.path(), None, &mut |_| ())?;
    }
    let set = open(&spec, folder.path())?.train;
    ensure!(
        set.prepared_file().is_some() == (way == "prepared"),
        "{way:?} is no way; allowed: decoding, prepared"
    );
    let augment = Augment { random_crop: true, mirror: true, crop_padding: 0 };
    let transform = Transform { pad: 0, crop: None, normalisation: spec.normalisation(), augment };
    let options = LoaderOptions { batch: LOADED.min(count), drop_last: true, threads, prefetch: 4 };
    let uploader = Uploader::new(asked)?;
    let (mut images, mut epoch, start) = (0, 0_u64, Instant::now());
    while start.elapsed().as_secs_f64() < seconds {
        let seed = Seed::root(0).index(epoch);
        // Several times the same ones, so that little of the time is the start of threads.
        let order: Vec<usize> =
            (0..16).flat_map(|round| shuffled(count, seed.child("order").index(round))).collect();
        let buffer = move |length| {
            UploadBytes::new(asked, length)
                .map_err(|error| DataError::Value { key: "memory", problem: error.to_string() })
        };
        for batch in Loader::bytes(set.clone(), order, &transform, Some(seed), options, buffer)? {
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
    Ok(json!({ "images_per_second": images as f64 / start.elapsed().as_secs_f64(), "source": source }))
}

fn train(net_name: &str, precision: &str, batch: usize, seconds: f64, asked: Device) -> Result<Value> {
    let device = asked.into();
    let (precision, format) = precision_and_format(precision)?;
    set_tf32(precision == Precision::Bf16)?;
    let graph = net(net_name)?;
    let weights = Weights::init(&graph, Seed::root(0), device)?.to_format(format)?;
    let mut sgd = Sgd::new(&graph, &plain_sgd());
    seed_torch(Seed::root(0));
    let images = format.apply(&images(net_name, batch).to_device(device))?;
    let labels = labels(net_name, batch).to_device(device);
    let mut step = || train_step(&graph, &weights, &mut sgd, &images, &labels, 1e-4, precision);
    let speed = repeat(batch, seconds, asked, || step().map(drop).map_err(Into::into))?;
    let peak = peak_gpu_bytes(asked, false).map(|bytes| bytes >> 20);
    Ok(json!({ "images_per_second": speed, "peak_mib": peak }))
}

fn calibrate(net_name: &str, batch: usize, seconds: f64, asked: Device) -> Result<Value> {
    let device = asked.into();
    set_tf32(false)?;
    let graph = net(net_name)?;
    let (_, layer) =
        SAMPLED.iter().rev().find(|(arch, _)| *arch == net_name).context("no layer of this net")?;
    let weights = Weights::init(&graph, Seed::root(0), device)?;
    let layers = [(channel_group(&graph, layer)?, needs())];
    let images = images(net_name, batch).to_device(device);
    let indices: Vec<usize> = (0..batch).collect();
    let speed =
        repeat(batch, seconds, asked, || pass(&graph, &weights, &layers, &images, &indices).map(drop))?;
    Ok(json!({ "images_per_second": speed, "layer": layer }))
}

/// Repeats the work and returns images per second; waits for the device every [`FREE_RUNS`] times, as training reads its losses.
fn repeat(batch: usize, seconds: f64, device: Device, mut once: impl FnMut() -> Result<()>) -> Result<f64> {
    for _ in 0..WARM_UP {
        once()?;
    }
    device.synchronize();
    let (mut count, start) = (0, Instant::now());
    while start.elapsed().as_secs_f64() < seconds {
        once()?;
        count += 1;
        if count % FREE_RUNS == 0 {
            device.synchronize();
        }
    }
    device.synchronize();
    Ok((count * batch) as f64 / start.elapsed().as_secs_f64())
}
