//! The Rust side of `make parity`: prepares images, loads them, computes logits and writes exports for `parity.py`, which
//! compares them with Pillow, torchvision and PyTorch. Each command prints one line of JSON.

#![allow(clippy::print_stdout, reason = "its output is read by parity.py")]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use tch::{Device, Kind, Tensor};
use thinet_bench::{process_memory, relative_difference};
use thinet_data::{
    Augment, DatasetSpec, ImagenetSpec, Loader, LoaderOptions, Protocol, Split, Transform, open,
};
use thinet_models::{
    FileType, ImportRules, Layout, Mode, Net, Weights, export_weights, forward, import_weights, load_tensors,
    save_tensors,
};
use thinet_nets::{Arch, NetSpec, ResNetStride};
use thinet_seed::Seed;

const USAGE: &str = "parity crops FOLDER CLASSES PROTOCOL OUT | loader FOLDER CLASSES SECONDS | \
                     decode FOLDER CLASSES SECONDS | logits NET WEIGHTS LOGITS DTYPE | export FOLDER";

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    tch::set_num_threads(1);
    match words[..] {
        ["crops", folder, classes, protocol, out] => {
            crops(&photos(folder, classes, protocol)?, Path::new(out))
        }
        ["loader", folder, classes, seconds] => {
            loader(&photos(folder, classes, "torchvision")?, seconds.parse().context("SECONDS")?)
        }
        ["decode", folder, classes, seconds] => decode(folder, classes, seconds.parse().context("SECONDS")?),
        ["logits", net, weights, golden, dtype] => logits(net, Path::new(weights), Path::new(golden), dtype),
        ["export", folder] => export(Path::new(folder)),
        _ => bail!("usage: {USAGE}"),
    }
}

fn photos(folder: &str, classes: &str, protocol: &str) -> Result<Split> {
    let protocol = match protocol {
        "caffe-squash" => Protocol::CaffeSquash,
        "caffe-short" => Protocol::CaffeShort,
        "torchvision" => Protocol::Torchvision,
        other => bail!("{other:?} is not a protocol; allowed: caffe-squash, caffe-short, torchvision"),
    };
    let classes = classes.parse().context("CLASSES")?;
    let spec = DatasetSpec::Imagenet(ImagenetSpec { classes, ..ImagenetSpec::new(protocol) });
    Ok(open(&spec, Path::new(folder))?)
}

/// Centre crops of all validation images as bytes, planar RGB, one after the other.
fn crops(split: &Split, out: &Path) -> Result<()> {
    let set = &split.test;
    let len = set.shape().iter().product::<usize>();
    let mut bytes = vec![0; set.len() * len];
    for (index, image) in bytes.chunks_exact_mut(len).enumerate() {
        set.read(index, image)?;
    }
    fs::write(out, bytes)?;
    println!("{{\"images\": {}, \"shape\": {:?}}}", set.len(), set.shape());
    Ok(())
}

/// Images per second of one loader thread: decoding, random resized crop, mirror, normalisation.
fn loader(split: &Split, seconds: f64) -> Result<()> {
    let normalisation = Protocol::Torchvision.normalisation();
    let augment = Augment { random_crop: true, mirror: true, crop_padding: 0 };
    let transform = Transform { pad: 0, crop: None, normalisation, augment };
    let options = LoaderOptions { batch: 32, drop_last: false, threads: 1, prefetch: 2 };
    let (mut images, mut epoch, start) = (0, 0, Instant::now());
    while start.elapsed().as_secs_f64() < seconds {
        let order = (0..split.train.len()).collect();
        let seed = Some(Seed::root(0).index(epoch));
        for batch in Loader::new(split.train.clone(), order, &transform, seed, options)? {
            images += batch?.indices.len();
        }
        epoch += 1;
    }
    let speed = images as f64 / start.elapsed().as_secs_f64();
    println!("{{\"images_per_second\": {speed}, \"images\": {images}}}");
    Ok(())
}

/// Images per second of decoding alone, approximated by shrinking each image to one pixel.
fn decode(folder: &str, classes: &str, seconds: f64) -> Result<()> {
    let classes = classes.parse().context("CLASSES")?;
    let one_pixel = ImagenetSpec { classes, side: Some(1), ..ImagenetSpec::new(Protocol::CaffeSquash) };
    let spec = DatasetSpec::Imagenet(ImagenetSpec { crop: Some(1), ..one_pixel });
    let set = open(&spec, Path::new(folder))?.train;
    let (mut images, mut pixel, start) = (0, [0; 3], Instant::now());
    while start.elapsed().as_secs_f64() < seconds {
        for index in 0..set.len() {
            set.read(index, &mut pixel)?;
        }
        images += set.len();
    }
    println!("{{\"images_per_second\": {}}}", images as f64 / start.elapsed().as_secs_f64());
    Ok(())
}

fn net_spec(name: &str) -> Result<NetSpec> {
    Ok(match name {
        "vgg16" => NetSpec::new(Arch::Vgg16),
        "vgg16-bn" => NetSpec { batch_norm: Some(true), ..NetSpec::new(Arch::Vgg16) },
        "resnet50" => NetSpec { stride: Some(ResNetStride::Middle3x3), ..NetSpec::new(Arch::Resnet50) },
        other => bail!("{other:?} is not a net; allowed: vgg16, vgg16-bn, resnet50"),
    })
}

/// Imports a weight file and compares the logits with those that PyTorch computed.
fn logits(net: &str, weights: &Path, golden: &Path, dtype: &str) -> Result<()> {
    let graph = net_spec(net)?.build([3, 224, 224], 1000)?;
    let dtype = if dtype == "f16" { FileType::F16 } else { FileType::F32 };
    let rules = ImportRules { dtype, ..ImportRules::default() };
    let (weights, report) = import_weights(weights, &graph, &rules, Device::Cpu)?;
    let import_peak = process_memory()?.peak / 1024;
    let (golden, _) = load_tensors(golden, Device::Cpu)?;
    let (images, expected) = (&golden["images"], &golden["logits"]);
    let found = tch::no_grad(|| forward(&graph, &weights, images, Mode::Eval))?;
    let off = relative_difference(&found, expected);
    let peak = process_memory()?.peak / 1024;
    println!(
        "{{\"off\": {off}, \"layout\": {:?}, \"import_peak_mib\": {import_peak}, \"peak_mib\": {peak}}}",
        report.layout.name()
    );
    Ok(())
}

/// Three nets with pruned widths under torchvision's names, with images and our logits.
fn export(folder: &Path) -> Result<()> {
    let pruned = |layers: &[(&str, usize)]| layers.iter().map(|(l, w)| ((*l).to_owned(), *w)).collect();
    let vgg = NetSpec {
        width: 0.25,
        widths: pruned(&[("conv1_1", 5), ("conv3_2", 40), ("conv5_3", 100), ("fc6", 64), ("fc7", 48)]),
        ..NetSpec::new(Arch::Vgg16)
    };
    let vgg_bn = NetSpec { batch_norm: Some(true), ..vgg.clone() };
    let resnet = NetSpec {
        stride: Some(ResNetStride::Middle3x3),
        widths: pruned(&[("layer1.0.conv1", 30), ("layer2.0.conv2", 77), ("layer4.2.conv1", 300)]),
        ..NetSpec::new(Arch::Resnet50)
    };
    for (name, spec) in [("vgg16", vgg), ("vgg16_bn", vgg_bn), ("resnet50", resnet)] {
        let graph = spec.build([3, 224, 224], 1000)?;
        let weights = shaken(&Weights::init(&graph, Seed::root(0), Device::Cpu)?);
        let images = images();
        let logits = tch::no_grad(|| forward(&graph, &weights, &images, Mode::Eval))?;
        let net = Net { graph, weights };
        let metadata = BTreeMap::new();
        export_weights(&folder.join(format!("{name}.safetensors")), &net, Layout::Torchvision, &metadata)?;
        let golden = [("images", &images), ("logits", &logits)];
        save_tensors(&folder.join(format!("{name}.check.safetensors")), &golden, &metadata)?;
    }
    println!("{{\"exported\": 3}}");
    Ok(())
}

/// Biases, scales and statistics that differ from their initial values, so that a mix-up shows, and classifiers large
/// enough for the logits to depend on the image.
fn shaken(start: &Weights) -> Weights {
    let mut weights = Weights::new();
    for (number, (name, tensor)) in start.iter().enumerate() {
        let tensor = match tensor.size()[..] {
            [len] => tensor + wave(len, 0.7, number as f64) * 0.3,
            [_, _] => tensor * 4.0,
            _ => tensor.shallow_clone(),
        };
        weights.insert(name, tensor);
    }
    weights
}

fn wave(len: i64, step: f64, phase: f64) -> Tensor {
    (Tensor::arange(len, (Kind::Float, Device::Cpu)) * step + phase).sin()
}

/// Two images of waves, which need no random generator.
fn images() -> Tensor {
    let image = |step: f64| wave(3 * 224 * 224, step, 0.0).view([3, 224, 224]);
    Tensor::stack(&[image(0.013), image(0.37)], 0)
}
