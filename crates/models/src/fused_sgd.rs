//! One step of SGD on many tensors at once, by libtorch's own kernel, which the bindings lack (`switches.cpp`).

#![allow(unsafe_code, reason = "a call into switches.cpp with pointers to tensors that outlive it")]

use std::ffi::{c_char, c_int, c_void};

use tch::Tensor;

use crate::ModelError;
use crate::error::Context;
use crate::reason::Reason;

unsafe extern "C" {
    fn thinet_fused_sgd(
        weights: *const *const c_void,
        gradients: *const *const c_void,
        velocities: *const *const c_void,
        count: i64,
        has_velocities: c_int,
        lr: f64,
        momentum: f64,
        decay: f64,
        nesterov: c_int,
        first: c_int,
        reason: *mut c_char,
        capacity: i64,
    ) -> i64;
}

/// A step of tensors that share their factors; all lists have the same length, and the three tensors of a place the same shape and
/// strides. Without momentum there are no velocities.
#[derive(Debug, Default)]
pub(crate) struct FusedStep {
    pub(crate) weights: Vec<Tensor>,
    pub(crate) gradients: Vec<Tensor>,
    pub(crate) velocities: Vec<Tensor>,
    pub(crate) lr: f64,
    pub(crate) momentum: f64,
    pub(crate) nesterov: bool,
    pub(crate) decay: f64,
    /// Velocities are written and not read.
    pub(crate) first: bool,
}

/// g ← g + λ·w, v ← μ·v + g (first step v ← g), w ← w − lr·v or with Nesterov's momentum w ← w − lr·(g + μ·v), in place.
pub(crate) fn fused_step(step: &FusedStep) -> Result<(), ModelError> {
    let pointers =
        |tensors: &[Tensor]| tensors.iter().map(|tensor| tensor.as_ptr().cast()).collect::<Vec<_>>();
    let (weights, gradients, velocities) =
        (pointers(&step.weights), pointers(&step.gradients), pointers(&step.velocities));
    assert!(weights.len() == gradients.len() && (velocities.is_empty() || weights.len() == velocities.len()));
    let mut reason = Reason::new();
    // SAFETY: each list that is read holds `count` pointers to tensors that `step` owns, and at most `CAPACITY` bytes are written to `reason`.
    let length = unsafe {
        thinet_fused_sgd(
            weights.as_ptr(),
            gradients.as_ptr(),
            velocities.as_ptr(),
            weights.len() as i64,
            c_int::from(!velocities.is_empty()),
            step.lr,
            step.momentum,
            step.decay,
            c_int::from(step.nesterov),
            c_int::from(step.first),
            reason.to(),
            Reason::CAPACITY,
        )
    };
    match length {
        0 => Ok(()),
        _ => Err(reason.error()).context(|| format!("training step of {} tensors", step.weights.len())),
    }
}
