//! SGD with momentum and weight decay over plain tensors, with multipliers for biases and a state that can be saved. On a GPU one
//! kernel updates many tensors; on the CPU, and as its test oracle, a loop goes over the tensors.

use std::collections::BTreeMap;

use tch::{Kind, TchError, Tensor};
use thinet_graph::Graph;

use crate::error::Context;
use crate::fused_sgd::{FusedStep, fused_step};
use crate::weights::{TensorKind, copy_tensor, layer_of};
use crate::{ModelError, Weights};

/// Settings of [`Sgd`].
#[derive(Clone, Debug, PartialEq)]
pub struct SgdOptions {
    pub momentum: f64,
    /// Whether a step goes along the gradient plus the velocity times the momentum, not along the velocity (Nesterov).
    pub nesterov: bool,
    /// L2 penalty added to the gradient.
    pub weight_decay: f64,
    /// Multiplier of the learning rate for biases (the paper's Caffe nets: 2; torch: 1).
    pub bias_lr: f64,
    /// Multiplier of the weight decay for biases (the paper's Caffe nets: 0; torch: 1).
    pub bias_decay: f64,
    /// Multipliers of the learning rate of single layers (a new classifier: `fc` = 10) or tensors (`fc.bias` = 2), on top
    /// of the others; a tensor's overrides its layer's.
    pub layer_lr: BTreeMap<String, f64>,
    /// Multipliers of the weight decay, likewise.
    pub layer_decay: BTreeMap<String, f64>,
}

/// The arithmetic of `torch.optim.SGD`: g ← g + λ·w, v ← μ·v + g (first step v ← g), w ← w − lr·v; with Nesterov's momentum
/// w ← w − lr·(g + μ·v).
///
/// Biases, the shift of a batch normalisation among them, are the tensors called `<layer>.bias`.
#[derive(Debug)]
pub struct Sgd {
    momentum: f64,
    nesterov: bool,
    parameters: Vec<Parameter>,
}

#[derive(Debug)]
struct Parameter {
    name: String,
    /// Multiplies the learning rate.
    lr: f64,
    /// Weight decay, multipliers included.
    decay: f64,
    velocity: Option<Tensor>,
}

impl Sgd {
    /// An optimiser for the trainable tensors of a graph.
    #[must_use]
    pub fn new(graph: &Graph, options: &SgdOptions) -> Self {
        let trainable = graph.tensors().into_iter().filter(|spec| spec.trainable);
        let parameters = trainable.map(|spec| Parameter::new(spec.name, options)).collect();
        Self { momentum: options.momentum, nesterov: options.nesterov, parameters }
    }

    /// Names of the tensors that are trained, in the order of gradients: that of [`Graph::tensors`].
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.parameters.iter().map(|parameter| parameter.name.as_str())
    }

    /// One step, in place; `gradients` in the order of [`Sgd::names`]; they are consumed.
    ///
    /// # Errors
    /// If a weight is missing, a gradient has another shape, or libtorch refuses an operation.
    pub fn step(
        &mut self,
        weights: &Weights,
        gradients: impl IntoIterator<Item = Tensor>,
        lr: f64,
    ) -> Result<(), ModelError> {
        let _guard = tch::no_grad_guard();
        let first = self.parameters.first().map(|parameter| weights.get(&parameter.name)).transpose()?;
        match first.is_some_and(|weight| weight.device().is_cuda()) {
            true => self.step_together(weights, gradients, lr),
            false => self.step_each(weights, gradients, lr),
        }
    }

    /// [`Sgd::step`] as a loop over the tensors, as on a CPU.
    ///
    /// # Errors
    /// As [`Sgd::step`].
    pub fn step_each(
        &mut self,
        weights: &Weights,
        gradients: impl IntoIterator<Item = Tensor>,
        lr: f64,
    ) -> Result<(), ModelError> {
        for (parameter, gradient) in self.parameters.iter_mut().zip(gradients) {
            let weight = weights.get(&parameter.name)?.shallow_clone();
            parameter
                .step(weight, gradient, lr * parameter.lr, self.momentum, self.nesterov)
                .context(|| format!("training step of tensor {:?}", parameter.name))?;
        }
        Ok(())
    }

    /// [`Sgd::step`] on all tensors with the same factors at once, as on a GPU. The same arithmetic, rounded in other places; without
    /// momentum no velocities are kept.
    ///
    /// # Errors
    /// As [`Sgd::step`].
    pub fn step_together(
        &mut self,
        weights: &Weights,
        gradients: impl IntoIterator<Item = Tensor>,
        lr: f64,
    ) -> Result<(), ModelError> {
        let mut steps: BTreeMap<(u64, u64, bool), FusedStep> = BTreeMap::new();
        for (parameter, gradient) in self.parameters.iter_mut().zip(gradients) {
            // As in the loop, a tensor that the loss does not depend on stays.
            if !gradient.defined() {
                continue;
            }
            let weight = weights.get(&parameter.name)?;
            let context = || format!("training step of tensor {:?}", parameter.name);
            let gradient = match gradient.stride() == weight.stride() {
                true => gradient,
                false => like(weight, &gradient).context(context)?,
            };
            let velocity = match (self.momentum > 0.0, parameter.velocity.take()) {
                (false, _) => None,
                (true, Some(velocity)) => Some((velocity, false)),
                (true, None) => Some((weight.f_empty_like().context(context)?, true)),
            };
            let first = velocity.as_ref().is_some_and(|(_, first)| *first);
            let step = steps
                .entry((parameter.lr.to_bits(), parameter.decay.to_bits(), first))
                .or_insert_with(|| FusedStep {
                    lr: lr * parameter.lr,
                    momentum: self.momentum,
                    // Without momentum it is the same step, which libtorch would refuse by this name.
                    nesterov: self.nesterov && self.momentum > 0.0,
                    decay: parameter.decay,
                    first,
                    ..FusedStep::default()
                });
            step.weights.push(weight.shallow_clone());
            step.gradients.push(gradient);
            if let Some((velocity, _)) = velocity {
                step.velocities.push(velocity.shallow_clone());
                parameter.velocity = Some(velocity);
            }
        }
        steps.values().try_for_each(fused_step)
    }

    /// The velocities by tensor name, sharing storage with this optimiser; empty before the first step.
    #[must_use]
    pub fn state(&self) -> BTreeMap<String, Tensor> {
        let velocity = |p: &Parameter| p.velocity.as_ref().map(|v| (p.name.clone(), v.shallow_clone()));
        self.parameters.iter().filter_map(velocity).collect()
    }

    /// Restores the state of an earlier optimiser; training continues as if it had never stopped.
    ///
    /// # Errors
    /// If `state` is not empty and does not hold exactly one 32-bit float velocity of the right shape for each
    /// trained tensor; names the first that does not fit.
    pub fn restore(
        &mut self,
        weights: &Weights,
        mut state: BTreeMap<String, Tensor>,
    ) -> Result<(), ModelError> {
        let empty = state.is_empty();
        let mut velocities = Vec::with_capacity(self.parameters.len());
        for Parameter { name, .. } in &self.parameters {
            let weight = weights.get(name)?;
            velocities.push(match state.remove(name) {
                None if empty => None,
                found => Some(fitting_velocity(name, weight, found)?),
            });
        }
        if let Some((tensor, velocity)) = state.pop_first() {
            let found = TensorKind::of(&velocity).to_string();
            return Err(ModelError::UnexpectedTensor { tensor, found, graph: "the optimiser".into() });
        }
        for (parameter, velocity) in self.parameters.iter_mut().zip(velocities) {
            parameter.velocity = velocity;
        }
        Ok(())
    }
}

impl Parameter {
    fn new(name: String, options: &SgdOptions) -> Self {
        let of_layer = |factors: &BTreeMap<String, f64>| {
            factors.get(&name).or_else(|| factors.get(layer_of(&name))).copied().unwrap_or(1.0)
        };
        let (mut lr, mut decay) = (of_layer(&options.layer_lr), of_layer(&options.layer_decay));
        if name.ends_with(".bias") {
            lr *= options.bias_lr;
            decay *= options.bias_decay;
        }
        Self { lr, decay: options.weight_decay * decay, name, velocity: None }
    }

    fn step(
        &mut self,
        mut weight: Tensor,
        mut gradient: Tensor,
        lr: f64,
        momentum: f64,
        nesterov: bool,
    ) -> Result<(), TchError> {
        let decay = self.decay;
        // A layer that the output does not depend on has no gradient, and torch leaves its tensors alone.
        if !gradient.defined() {
            return Ok(());
        }
        // tch has no scaled addition; `addcmul` with a scalar tensor is one pass and needs no temporary.
        let scalar = |value: f64| Tensor::f_full([0; 0], value, (Kind::Float, weight.device()));
        if decay != 0.0 {
            let _ = gradient.f_addcmul_(&weight, &scalar(decay)?)?;
        }
        let minus_lr = scalar(-lr)?;
        let velocity = match &mut self.velocity {
            Some(velocity) => {
                let _ = velocity.f_mul_scalar_(momentum)?;
                let _ = velocity.f_add_(&gradient)?;
                velocity
            }
            None => {
                // With the weight's strides, which a gradient need not have, and a restored state would not have.
                self.velocity.insert(like(&weight, &gradient)?)
            }
        };
        if nesterov {
            let _ = gradient.f_addcmul_(velocity, &scalar(momentum)?)?;
            let _ = weight.f_addcmul_(&gradient, &minus_lr)?;
        } else {
            let _ = weight.f_addcmul_(velocity, &minus_lr)?;
        }
        Ok(())
    }
}

/// A copy of a gradient with the strides of its weight.
fn like(weight: &Tensor, gradient: &Tensor) -> Result<Tensor, TchError> {
    let mut copy = weight.f_empty_like()?;
    copy.f_copy_(gradient)?;
    Ok(copy)
}

fn fitting_velocity(name: &str, weight: &Tensor, found: Option<Tensor>) -> Result<Tensor, ModelError> {
    let expected = TensorKind::of(weight);
    let (layer, tensor) = (layer_of(name).to_owned(), name.to_owned());
    match found {
        Some(velocity) if TensorKind::of(&velocity) == expected => {
            let mut copy = copy_tensor(name, weight)?;
            copy.f_copy_(&velocity).context(|| format!("velocity of tensor {name:?}"))?;
            Ok(copy)
        }
        Some(velocity) => {
            let found = TensorKind::of(&velocity).to_string();
            Err(ModelError::TensorMismatch { layer, tensor, expected: expected.to_string(), found })
        }
        None => Err(ModelError::MissingTensor { layer, tensor, expected: expected.to_string() }),
    }
}

#[cfg(test)]
mod tests {
    use thinet_nets::{Arch, NetSpec};
    use thinet_seed::Seed;

    use super::*;
    use crate::MemoryFormat;

    #[test]
    fn the_step_on_many_tensors_agrees_with_the_loop() {
        let graph = NetSpec::new(Arch::Tiny).build([3, 8, 8], 5).unwrap();
        let options = SgdOptions {
            momentum: 0.9,
            nesterov: false,
            weight_decay: 5e-4,
            bias_lr: 2.0,
            bias_decay: 0.0,
            layer_lr: BTreeMap::from([("fc".to_owned(), 10.0)]),
            layer_decay: BTreeMap::new(),
        };
        let formats = [MemoryFormat::Contiguous, MemoryFormat::ChannelsLast];
        let kinds = [(0.9, false), (0.9, true), (0.0, false)];
        for (format, (momentum, nesterov)) in
            formats.into_iter().flat_map(|format| kinds.map(|kind| (format, kind)))
        {
            let options = SgdOptions { momentum, nesterov, ..options.clone() };
            let start = || {
                let weights = Weights::init(&graph, Seed::root(0), tch::Device::Cpu).unwrap();
                (weights.to_format(format).unwrap(), Sgd::new(&graph, &options))
            };
            let ((each, mut plain), (together, mut fused)) = (start(), start());
            for step in 0..4 {
                let gradients = || -> Vec<Tensor> {
                    // The second tensor has none in the first step.
                    plain_names(&graph)
                        .iter()
                        .enumerate()
                        .map(|(at, name)| match (step, at) {
                            (0, 1) => Tensor::new(),
                            _ => (each.get(name).unwrap().contiguous() * 3.0 + f64::from(step)).sin(),
                        })
                        .collect()
                };
                let (a, b) = (gradients(), gradients());
                plain.step_each(&each, a, 0.1).unwrap();
                fused.step_together(&together, b, 0.1).unwrap();
            }
            let kept = |sgd: &Sgd| sgd.state().into_keys().collect::<Vec<_>>();
            assert_eq!(kept(&fused), if momentum > 0.0 { kept(&plain) } else { Vec::new() });
            let close = |name: &str, a: &Tensor, b: &Tensor| {
                let off = (a - b).abs().max().double_value(&[]);
                assert!(off <= 1e-6 * a.abs().max().double_value(&[]), "{name}: {off:e}");
            };
            for (name, velocity) in fused.state() {
                close(&name, &plain.state()[&name], &velocity);
            }
            for name in plain.names() {
                close(name, each.get(name).unwrap(), together.get(name).unwrap());
            }
        }
    }

    #[test]
    fn libtorchs_reason_for_refusing_a_step_is_passed_on() {
        let tensor = |n| vec![Tensor::zeros([n], (Kind::Float, tch::Device::Cpu))];
        let step = FusedStep {
            weights: tensor(2),
            gradients: tensor(3),
            velocities: tensor(2),
            ..FusedStep::default()
        };
        assert!(fused_step(&step).unwrap_err().to_string().starts_with("training step of 1 tensors: "));
    }

    fn plain_names(graph: &Graph) -> Vec<String> {
        graph.tensors().into_iter().filter(|spec| spec.trainable).map(|spec| spec.name).collect()
    }
}
