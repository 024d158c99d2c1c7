//! SGD with momentum and weight decay over plain tensors, with multipliers for biases and a state that can be saved.

use std::collections::BTreeMap;

use tch::{Kind, TchError, Tensor};
use thinet_graph::Graph;

use crate::error::Context;
use crate::weights::{TensorKind, copy_tensor, layer_of};
use crate::{ModelError, Weights};

/// Settings of [`Sgd`].
#[derive(Clone, Debug, PartialEq)]
pub struct SgdOptions {
    pub momentum: f64,
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

/// The arithmetic of `torch.optim.SGD`: g ← g + λ·w, v ← μ·v + g (first step v ← g), w ← w − lr·v.
///
/// Biases, the shift of a batch normalisation among them, are the tensors called `<layer>.bias`.
#[derive(Debug)]
pub struct Sgd {
    momentum: f64,
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
        Self { momentum: options.momentum, parameters }
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
        for (parameter, gradient) in self.parameters.iter_mut().zip(gradients) {
            let weight = weights.get(&parameter.name)?.shallow_clone();
            parameter
                .step(weight, gradient, lr * parameter.lr, self.momentum)
                .context(|| format!("training step of tensor {:?}", parameter.name))?;
        }
        Ok(())
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
                let mut first = weight.f_empty_like()?;
                first.f_copy_(&gradient)?;
                self.velocity.insert(first)
            }
        };
        let _ = weight.f_addcmul_(velocity, &minus_lr)?;
        Ok(())
    }
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
