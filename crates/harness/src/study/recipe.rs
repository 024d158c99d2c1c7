//! Training recipes of a spec.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use thinet_data::Augment;
use thinet_models::{Init, Schedule};

use super::spec::is_default;

/// A training recipe: SGD with momentum.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Recipe {
    /// Length in passes over the training images, 1 to 1,000,000. Exactly one of `epochs` and `steps` is required.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epochs: Option<usize>,
    /// Length in batches, 1 to 1,000,000,000. Exactly one of `epochs` and `steps` is required.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub steps: Option<usize>,
    /// Images per batch, at most the training images; a last short batch of an epoch is dropped. Default: 128.
    #[serde(default = "batch_128")]
    pub batch: usize,
    /// Learning rate at the start, above 0. Required.
    pub lr: f64,
    /// Momentum of SGD, in [0, 1). Default: 0.9.
    #[serde(default = "momentum")]
    pub momentum: f64,
    /// Whether the momentum is Nesterov's, by the rule of PyTorch's SGD. Default: false.
    #[serde(default, skip_serializing_if = "is_default")]
    pub nesterov: bool,
    /// L2 penalty added to the gradient, at least 0 (Luo et al. 2017 use 5e-4). Default: 0.0005.
    #[serde(default = "weight_decay")]
    pub weight_decay: f64,
    /// Multiplier of the learning rate for biases, at least 0 (the paper's Caffe nets: 2). Default: 1.
    #[serde(default = "unit")]
    pub bias_lr: f64,
    /// Multiplier of the weight decay for biases, at least 0 (the paper's Caffe nets: 0). Default: 1.
    #[serde(default = "unit")]
    pub bias_decay: f64,
    /// Multipliers of the learning rate of single layers, such as `{ fc = 10 }` for a new classifier, or of single tensors,
    /// such as `{ "fc.bias" = 2 }`; at least 0. Default: none.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub layer_lr: BTreeMap<String, f64>,
    /// Multipliers of the weight decay of single layers or tensors, likewise. Default: none.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub layer_decay: BTreeMap<String, f64>,
    /// How the learning rate falls. Default: constant.
    #[serde(default)]
    pub schedule: Schedule,
    /// Fraction of the training, in [0, 1), over which the learning rate rises linearly to what the schedule says. Default: 0.
    #[serde(default, skip_serializing_if = "is_default")]
    pub warm_up: f64,
    /// Random changes of the training images. Default: none.
    #[serde(default)]
    pub augment: Augment,
    /// Variance of a net's starting weights, where it starts at random. Default: fan-out.
    #[serde(default, skip_serializing_if = "is_default")]
    pub init: Init,
}

impl Recipe {
    /// Learning rate of step `step` (from 0) of `total` with `epoch` steps in an epoch: the schedule's, times
    /// (step + 1) / (warm-up · total) at most 1.
    #[must_use]
    pub fn lr_at(&self, step: usize, total: usize, epoch: usize) -> f64 {
        let rise = self.warm_up * total as f64;
        self.schedule.lr(self.lr, step, total, epoch)
            * if rise > 0.0 { ((step + 1) as f64 / rise).min(1.0) } else { 1.0 }
    }

    /// Number of batches on `images` training images.
    #[must_use]
    pub fn total_steps(&self, images: usize) -> usize {
        match (self.steps, self.epochs) {
            (Some(steps), _) => steps,
            (None, epochs) => epochs.unwrap_or(0).saturating_mul(images / self.batch.max(1)),
        }
    }
}

fn batch_128() -> usize {
    128
}

fn momentum() -> f64 {
    0.9
}

fn weight_decay() -> f64 {
    5e-4
}

fn unit() -> f64 {
    1.0
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::study::spec::MINIMAL;
    use crate::study::{Recipe, Spec};

    #[test]
    fn the_learning_rate_rises_to_what_the_schedule_says() {
        let text = MINIMAL.replace("lr = 0.1 }", "lr = 0.1, warm-up = 0.4, schedule = { kind = 'cosine' } }");
        let recipe = Spec::parse(&text, Path::new("x.toml")).unwrap().dense.train.unwrap();
        let without = Recipe { warm_up: 0.0, ..recipe.clone() };
        let share = |step| recipe.lr_at(step, 10, 5) / without.lr_at(step, 10, 5);
        for (step, expected) in [0.25, 0.5, 0.75, 1.0, 1.0, 1.0].into_iter().enumerate() {
            assert!((share(step) - expected).abs() < 1e-12, "step {step}");
        }
        assert_eq!(without.lr_at(3, 10, 5).to_bits(), without.schedule.lr(0.1, 3, 10, 5).to_bits());
    }
}
