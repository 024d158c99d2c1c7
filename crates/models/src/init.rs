//! Starting weights, drawn from ChaCha streams so that they do not depend on libtorch's generator.

use std::f64::consts::TAU;

use rand::RngExt;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tch::{Device, Tensor};
use thinet_graph::{Graph, Op, TensorSpec};
use thinet_seed::{ChaCha8Rng, Seed};

use crate::error::Context;
use crate::{ModelError, Weights};

/// Standard deviation of a classifier's starting weights (He et al. 2015 and the VGG authors use 0.01).
const LINEAR_STD: f64 = 0.01;

/// Variance of a convolution's starting weights (He et al. 2015).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Init {
    /// 2 / (filters·k²): gradients keep their variance from layer to layer (eq. 14). Activations shrink where a net widens.
    #[default]
    FanOut,
    /// 2 / (input channels·k²): activations keep their variance (eq. 10), so that a deep net without batch normalisation
    /// is not near zero at its output.
    FanIn,
}

impl Weights {
    /// [`init_as`](Self::init_as) with [`Init::FanOut`].
    ///
    /// # Errors
    /// If libtorch cannot allocate the tensors.
    pub fn init(graph: &Graph, seed: Seed, device: Device) -> Result<Self, ModelError> {
        Self::init_as(graph, Init::FanOut, seed, device)
    }

    /// Starting weights: convolutions from a normal distribution with the variance of `init`, linear layers from N(0, 0.01²),
    /// batch normalisation 1 and 0 with running mean 0 and variance 1, biases 0.
    ///
    /// Each tensor has its own stream, named after it: a layer's starting weights do not depend on the layers before it.
    ///
    /// # Errors
    /// If libtorch cannot allocate the tensors.
    pub fn init_as(graph: &Graph, init: Init, seed: Seed, device: Device) -> Result<Self, ModelError> {
        let mut weights = Self::new();
        for spec in graph.tensors() {
            let values = start_values(graph, &spec, init, seed);
            let shape: Vec<i64> = spec.shape.iter().map(|&n| n as i64).collect();
            let tensor = Tensor::f_from_slice(&values)
                .and_then(|flat| flat.f_view(shape.as_slice()))
                .and_then(|tensor| tensor.f_to_device(device))
                .context(|| format!("start of tensor {:?}", spec.name))?;
            weights.insert(spec.name, tensor);
        }
        Ok(weights)
    }
}

fn start_values(graph: &Graph, spec: &TensorSpec, init: Init, seed: Seed) -> Vec<f32> {
    let count = spec.shape.iter().product();
    let tensor = spec.name.rsplit_once('.').map_or("", |(_, tensor)| tensor);
    let mut rng = seed.child(&spec.name).rng();
    match (&graph.nodes()[spec.node].op, tensor) {
        (&Op::Conv { out_channels, kernel, .. }, "weight") => {
            let fan = match init {
                Init::FanOut => out_channels * kernel * kernel,
                Init::FanIn => count / out_channels,
            };
            normal(&mut rng, count, (2.0 / fan as f64).sqrt())
        }
        (Op::Linear { .. }, "weight") => normal(&mut rng, count, LINEAR_STD),
        (Op::BatchNorm { .. }, "weight" | "running_var") => vec![1.0; count],
        _ => vec![0.0; count],
    }
}

/// `count` draws from N(0, std²) by the Box–Muller transform.
fn normal(rng: &mut ChaCha8Rng, count: usize, std: f64) -> Vec<f32> {
    let mut values = Vec::with_capacity(count + 1);
    while values.len() < count {
        // 1 − u lies in (0, 1], so the logarithm is finite.
        let radius = std * (-2.0 * (1.0 - rng.random::<f64>()).ln()).sqrt();
        let (sin, cos) = (TAU * rng.random::<f64>()).sin_cos();
        values.push((radius * cos) as f32);
        values.push((radius * sin) as f32);
    }
    values.truncate(count);
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_have_the_moments_of_a_normal_distribution() {
        let values = normal(&mut Seed::root(3).rng(), 100_001, 0.5);
        let n = values.len() as f64;
        let moment = |k: i32| values.iter().map(|&v| f64::from(v).powi(k)).sum::<f64>() / n;
        assert_eq!(values.len(), 100_001);
        assert!(moment(1).abs() < 0.01, "mean {}", moment(1));
        assert!((moment(2) - 0.25).abs() < 0.005, "variance {}", moment(2));
        assert!((moment(4) - 3.0 * 0.0625).abs() < 0.01, "fourth moment {}", moment(4));
    }
}
