//! The Rust side of `make gpu-check`: compares a CUDA device with the CPU, and measures how fast it trains and calibrates.
//! `gpu-check/gpu_check.py` runs it beside PyTorch on the GPU machine. Each command prints one line of JSON.

#![allow(clippy::print_stdout, reason = "its output is read by gpu_check.py")]

use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};
use tch::{Kind, Tensor};
use thinet_bench::{observe_batch, plain_sgd, relative_difference};
use thinet_graph::{Graph, PrunableLayer, prunable_layer};
use thinet_models::{
    Device, MemoryFormat, Mode, Precision, Sgd, Weights, forward, loss_and_gradients, peak_gpu_bytes,
    seed_torch, set_compute_threads, set_deterministic, set_tf32, train_step,
};
use thinet_nets::{Arch, NetSpec, ResNetStride, paper_models};
use thinet_sampling::EvidenceCollector;
use thinet_seed::Seed;
use thinet_selectors::{Evidence, Needs};

const USAGE: &str = "gpu-check parity DEVICE BATCH MODEL,… | train NET PRECISION BATCH SECONDS DEVICE | \
                     calibrate NET BATCH SECONDS DEVICE";
const IMAGE: [usize; 3] = [3, 224, 224];
const CLASSES: usize = 1000;
/// Positions sampled in each image of a calibration pass, as in the paper.
const POSITIONS: usize = 10;
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
        ["train", net, precision, batch, seconds, device] => train(
            net,
            precision,
            batch.parse().context("BATCH")?,
            seconds.parse().context("SECONDS")?,
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
    device.check_available()?;
    Ok(device)
}

/// Values in −1..1 from a formula, the same on every machine.
fn waves(shape: &[i64], phase: f64) -> Tensor {
    let count: i64 = shape.iter().product();
    let i = Tensor::arange(count, (Kind::Double, tch::Device::Cpu));
    (i * 0.013 + phase).sin().to_kind(Kind::Float).view(shape)
}

fn images(batch: usize) -> Tensor {
    waves(&[batch as i64, 3, 224, 224], 0.5)
}

fn labels(batch: usize) -> Tensor {
    Tensor::arange(batch as i64, (Kind::Int64, tch::Device::Cpu)).remainder(CLASSES as i64)
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

/// The results of a net on one device.
struct NetResults {
    logits: Tensor,
    loss: f64,
    gradient: Tensor,
}

fn compute(
    graph: &Graph,
    weights: &Weights,
    batch: usize,
    device: tch::Device,
    format: MemoryFormat,
) -> Result<NetResults> {
    let (images, labels) = (format.apply(&images(batch).to_device(device))?, labels(batch).to_device(device));
    let weights = weights.to_device(device)?.to_format(format)?;
    let logits = tch::no_grad(|| forward(graph, &weights, &images, Mode::Eval))?.to_device(tch::Device::Cpu);
    let first =
        graph.tensors().into_iter().find(|spec| spec.trainable).context("a net without weights")?.name;
    // Dropout draws from another generator on each device: the gradient is taken without it.
    let (loss, mut gradients) =
        loss_and_gradients(graph, &weights, [first.as_str()], &images, &labels, Mode::Eval, Precision::F32)?;
    Ok(NetResults { logits, loss, gradient: gradients.remove(0).to_device(tch::Device::Cpu) })
}

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
        let compute = |device, format| compute(&graph, &weights, batch, device, format);
        let cpu = compute(tch::Device::Cpu, MemoryFormat::Contiguous)?;
        let other = compute(tch::Device::Cpu, MemoryFormat::ChannelsLast)?;
        let there = compute(device, MemoryFormat::Contiguous)?;
        let again = compute(device, MemoryFormat::Contiguous)?;
        rows.push(row(
            model.name,
            "logits, largest relative difference",
            relative_difference(&there.logits, &cpu.logits),
            "",
        ));
        rows.push(row(
            model.name,
            "loss, relative difference",
            ((there.loss - cpu.loss) / cpu.loss).abs(),
            "",
        ));
        let gradient = relative_difference(&there.gradient, &cpu.gradient);
        let mut gradient =
            row(model.name, "gradient of the first layer, largest relative difference", gradient, "");
        // How much of it is rounding: the CPU against itself, adding in another order. A pool or a rectifier that switches
        // moves a gradient by more than any sum does.
        gradient["noise"] = relative_difference(&other.gradient, &cpu.gradient).into();
        rows.push(gradient);
        let same = there.logits == again.logits && there.gradient == again.gradient;
        rows.push(row(model.name, "the same bits in a second run", same, ""));
    }
    for (arch, layer) in SAMPLED {
        let graph = net(arch)?;
        let weights = weights(&graph)?;
        let cpu = evidence(&graph, &weights, layer, batch, tch::Device::Cpu)?;
        let there = evidence(&graph, &weights, layer, batch, device)?;
        rows.extend(compare(&format!("{arch} {layer}"), &cpu, &there)?);
    }
    Ok(json!({ "rows": rows }))
}

/// The layers whose moments are compared and whose calibration is timed.
const SAMPLED: [(&str, &str); 3] =
    [("vgg16-gap", "conv3_2"), ("resnet50", "layer2.0.conv1"), ("resnet50", "layer3.0.conv2")];

fn net(name: &str) -> Result<Graph> {
    let arch: Arch = name.parse()?;
    Ok(NetSpec::new(arch).build(IMAGE, CLASSES)?)
}

fn needs() -> Needs {
    Needs::FILTERS | Needs::ZEROS | Needs::MOMENTS
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
    let layers = [(prunable_layer(graph, layer)?, needs())];
    let indices: Vec<usize> = (0..batch).collect();
    let mut all = pass(graph, &weights, &layers, &images(batch).to_device(device), &indices)?;
    Ok(all.remove(0))
}

fn pass(
    graph: &Graph,
    weights: &Weights,
    layers: &[(PrunableLayer, Needs)],
    images: &Tensor,
    indices: &[usize],
) -> Result<Vec<Evidence>> {
    let seed = Seed::root(0).child("positions");
    let lookup = |name: &str| weights.get(name).ok();
    let mut collector = EvidenceCollector::new(graph, layers, &lookup, POSITIONS, seed)?;
    observe_batch(&mut collector, graph, weights, images, indices, &mut |_| ())?;
    Ok(collector.finish()?)
}

/// Compares moments, and the channels that every selector keeps at a rate of one half.
fn compare(name: &str, cpu: &Evidence, there: &Evidence) -> Result<Vec<Value>> {
    let moments = |evidence: &Evidence| -> Result<Tensor> {
        let moments = evidence.moments.as_ref().context("no moments")?;
        let rows: Vec<f64> = (0..evidence.channels).flat_map(|i| moments.row(i).to_vec()).collect();
        Ok(Tensor::from_slice(&rows))
    };
    let gram = relative_difference(&moments(there)?, &moments(cpu)?);
    let mut rows = vec![row(name, "moments, largest relative difference", gram, "")];
    let keep = cpu.channels / 2;
    for selector in thinet_selectors::all() {
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

fn train(net_name: &str, precision: &str, batch: usize, seconds: f64, asked: Device) -> Result<Value> {
    let device = asked.into();
    let (precision, format) = match precision {
        "f32" => (Precision::F32, MemoryFormat::Contiguous),
        "bf16" => (Precision::Bf16, MemoryFormat::ChannelsLast),
        other => bail!("{other:?} is not a precision; allowed: f32, bf16"),
    };
    set_tf32(precision == Precision::Bf16)?;
    let graph = net(net_name)?;
    let weights = Weights::init(&graph, Seed::root(0), device)?.to_format(format)?;
    let mut sgd = Sgd::new(&graph, &plain_sgd());
    seed_torch(Seed::root(0));
    let (images, labels) = (format.apply(&images(batch).to_device(device))?, labels(batch).to_device(device));
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
    let layers = [(prunable_layer(&graph, layer)?, needs())];
    let images = images(batch).to_device(device);
    let indices: Vec<usize> = (0..batch).collect();
    let speed =
        repeat(batch, seconds, asked, || pass(&graph, &weights, &layers, &images, &indices).map(drop))?;
    Ok(json!({ "images_per_second": speed, "layer": layer }))
}

/// Repeats the work and returns images per second; waits for the device.
fn repeat(batch: usize, seconds: f64, device: Device, mut once: impl FnMut() -> Result<()>) -> Result<f64> {
    for _ in 0..WARM_UP {
        once()?;
    }
    device.synchronize();
    let (mut count, start) = (0, Instant::now());
    while start.elapsed().as_secs_f64() < seconds {
        once()?;
        device.synchronize();
        count += 1;
    }
    Ok((count * batch) as f64 / start.elapsed().as_secs_f64())
}
