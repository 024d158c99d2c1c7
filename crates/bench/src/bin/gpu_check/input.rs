//! Nets, weights and images for checks, the same on every machine.

use anyhow::Result;
use tch::{Kind, Tensor};
use thinet_graph::Graph;
use thinet_models::{MemoryFormat, Weights};
use thinet_nets::{Arch, NetSpec};
use thinet_seed::Seed;

/// Shape of the images and number of classes of the paper's nets.
const PHOTOGRAPHS: ([usize; 3], usize) = ([3, 224, 224], 1000);
/// Those of the nets called `cifar-…`.
const SMALL: ([usize; 3], usize) = ([3, 32, 32], 10);
/// A name of the paper's nets, which all take the same images.
pub(crate) const PHOTO: &str = "vgg16";
/// Passes on the CPU with images that differ by one rounding.
const ROUNDED: u8 = 3;

pub(crate) fn net(name: &str) -> Result<Graph> {
    let arch: Arch = name.parse()?;
    let (image, classes) = input_of(name);
    Ok(NetSpec::new(arch).build(image, classes)?)
}

fn input_of(net: &str) -> ([usize; 3], usize) {
    if net.starts_with("cifar-") { SMALL } else { PHOTOGRAPHS }
}

/// Values in −1..1 from a formula.
pub(crate) fn waves(shape: &[i64], phase: f64) -> Tensor {
    let count: i64 = shape.iter().product();
    let i = Tensor::arange(count, (Kind::Double, tch::Device::Cpu));
    (i * 0.013 + phase).sin().to_kind(Kind::Float).view(shape)
}

/// Images for a net of this name.
pub(crate) fn images(net: &str, batch: usize) -> Tensor {
    let [channels, height, width] = input_of(net).0.map(|n| n as i64);
    waves(&[batch as i64, channels, height, width], 0.5)
}

/// Labels for a net of this name.
pub(crate) fn labels(net: &str, batch: usize) -> Tensor {
    Tensor::arange(batch as i64, (Kind::Int64, tch::Device::Cpu)).remainder(input_of(net).1 as i64)
}

/// Random weights; batch statistics and scales that differ from their initial values.
pub(crate) fn weights(graph: &Graph) -> Result<Weights> {
    let mut weights = Weights::init(graph, Seed::root(0).child("gpu-check"), tch::Device::Cpu)?;
    let scales = batch_norm_scales(graph);
    for (phase, spec) in graph.tensors().iter().enumerate() {
        let shape: Vec<i64> = spec.shape.iter().map(|&n| n as i64).collect();
        if spec.name.ends_with("running_mean") {
            weights.insert(spec.name.clone(), waves(&shape, phase as f64) * 0.1);
        } else if spec.name.ends_with("running_var") || scales.contains(&spec.name) {
            weights.insert(spec.name.clone(), waves(&shape, phase as f64) * 0.3 + 1.0);
        }
    }
    Ok(weights)
}

/// The names of the scales γ: the weights of layers that have a running variance.
fn batch_norm_scales(graph: &Graph) -> Vec<String> {
    let names = graph.tensors().into_iter().map(|spec| spec.name);
    names.filter_map(|name| Some(format!("{}weight", name.strip_suffix("running_var")?))).collect()
}

/// What the CPU is compared with to measure noise: another memory format, which adds in another order, and images that differ by one
/// rounding.
pub(crate) fn noisy(images: &Tensor) -> Vec<(Tensor, MemoryFormat)> {
    let rounded = (1..=ROUNDED).map(|phase| {
        let factor = waves(&images.size(), f64::from(phase)).sign() * f64::from(f32::EPSILON) + 1.0;
        (images * factor, MemoryFormat::Contiguous)
    });
    std::iter::once((images.shallow_clone(), MemoryFormat::ChannelsLast)).chain(rounded).collect()
}
