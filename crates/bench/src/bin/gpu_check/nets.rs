//! What all checks work on: how large it is, seeded images, weights and the layers that are looked at.

use anyhow::{Context as _, Result};
use rand::RngExt as _;
use tch::{Device, Tensor};
use thinet_graph::{Graph, NodeId, PrunableLayer, prunable_layer};
use thinet_models::{Mode, NetSpec, Weights, forward_taps};
use thinet_sampling::EvidenceCollector;
use thinet_seed::Seed;
use thinet_selectors::{Evidence, Needs};

pub(crate) const CLASSES: usize = 1000;

/// Full size, or a few seconds of everything, to see that the folder works.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scale {
    pub(crate) tiny: bool,
}

impl Scale {
    /// Tiny if `GPU_CHECK_TINY` is set to anything but `0` and nothing.
    pub(crate) fn of_environment() -> Self {
        let set = std::env::var("GPU_CHECK_TINY").unwrap_or_default();
        Self { tiny: !matches!(set.as_str(), "" | "0") }
    }

    /// Height and width of the images.
    pub(crate) fn size(self) -> usize {
        if self.tiny { 64 } else { 224 }
    }

    pub(crate) fn image(self) -> [usize; 3] {
        [3, self.size(), self.size()]
    }

    /// Images of a parity check.
    pub(crate) fn parity_batch(self) -> usize {
        if self.tiny { 2 } else { 4 }
    }

    /// Images of a training step and of a calibration pass whose speed is measured.
    pub(crate) fn speed_batch(self) -> usize {
        if self.tiny { 2 } else { 64 }
    }

    /// Multiplies the widths of nets whose speed is measured.
    pub(crate) fn width(self) -> f64 {
        if self.tiny { 0.25 } else { 1.0 }
    }

    /// A net whose speed is measured.
    pub(crate) fn net(self, name: &str) -> Result<Graph> {
        let spec = NetSpec { width: self.width(), ..NetSpec::new(name.parse()?) };
        Ok(spec.build(self.image(), CLASSES)?)
    }
}

fn seed() -> Seed {
    Seed::root(0).child("gpu-check")
}

fn uniform(name: &str, shape: &[usize], low: f32, high: f32) -> Result<Tensor> {
    let mut rng = seed().child(name).rng();
    let values: Vec<f32> = (0..shape.iter().product()).map(|_| rng.random_range(low..high)).collect();
    let shape: Vec<i64> = shape.iter().map(|&n| n as i64).collect();
    Ok(Tensor::f_from_slice(&values)?.f_view(&shape[..])?)
}

/// Noise from [−1, 1).
pub(crate) fn images(batch: usize, scale: Scale, device: Device) -> Result<Tensor> {
    let [c, h, w] = scale.image();
    Ok(uniform("images", &[batch, c, h, w], -1.0, 1.0)?.f_to_device(device)?)
}

pub(crate) fn labels(batch: usize, device: Device) -> Result<Tensor> {
    // A stride through the classes, so that a batch has many of them.
    let labels: Vec<i64> = (0..batch).map(|image| (image * 37 % CLASSES) as i64).collect();
    Ok(Tensor::f_from_slice(&labels)?.f_to_device(device)?)
}

/// Random weights; scale, shift and statistics of batch normalisations away from 1 and 0, where an error could hide.
pub(crate) fn weights(graph: &Graph) -> Result<Weights> {
    let mut weights = Weights::init(graph, seed().child("weights"), Device::Cpu)?;
    for spec in graph.tensors() {
        let Some(layer) = spec.name.strip_suffix(".running_mean") else { continue };
        for (tensor, low, high) in [
            ("running_mean", -0.2, 0.2),
            ("running_var", 0.5, 1.5),
            ("weight", 0.5, 1.5),
            ("bias", -0.2, 0.2),
        ] {
            let name = format!("{layer}.{tensor}");
            let values = uniform(&name, &spec.shape, low, high)?;
            weights.insert(name, values);
        }
    }
    Ok(weights)
}

/// Numbers that are trained.
pub(crate) fn parameters(graph: &Graph) -> usize {
    let trainable = graph.tensors().into_iter().filter(|tensor| tensor.trainable);
    trainable.map(|tensor| tensor.shape.iter().product::<usize>()).sum()
}

/// One layer that is calibrated, and how.
pub(crate) struct Calibration {
    layers: Vec<(PrunableLayer, Needs)>,
    positions: usize,
}

impl Calibration {
    /// Everything is gathered, as a study does.
    pub(crate) fn new(graph: &Graph, layer: &str, positions: usize) -> Result<Self> {
        let needs = Needs { filters: true, zeros: true, moments: true };
        Ok(Self { layers: vec![(prunable_layer(graph, layer)?, needs)], positions })
    }

    /// One pass over a batch; `seen` is called with every output that is looked at.
    pub(crate) fn pass(
        &self,
        graph: &Graph,
        weights: &Weights,
        images: &Tensor,
        seen: &mut dyn FnMut(NodeId, &Tensor),
    ) -> Result<Evidence> {
        let weight = |name: &str| weights.get(name).ok();
        let positions = seed().child("positions");
        let mut collector = EvidenceCollector::new(graph, &self.layers, &weight, self.positions, positions)?;
        let taps = collector.taps();
        let indices: Vec<usize> = (0..images.size4()?.0 as usize).collect();
        let mut failure = None;
        let _guard = tch::no_grad_guard();
        forward_taps(graph, weights, images, Mode::Eval, &taps, &mut |node, activation| {
            seen(node, activation);
            if failure.is_none() {
                failure = collector.observe(node, activation, &indices).err();
            }
        })?;
        match failure {
            Some(error) => Err(error.into()),
            None => collector.finish()?.pop().context("no evidence"),
        }
    }
}
