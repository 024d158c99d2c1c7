//! What a refit of whole kernels is computed from, and what it gives.

use thinet_selectors::Moments;

use crate::ReconstructionError;

/// The patches that a layer reads at sampled positions, and its weights.
#[derive(Clone, Copy, Debug)]
pub struct Patches<'a> {
    /// PᵀP over the sampled patches P: `[C·taps, C·taps]`, the taps of a channel side by side.
    pub moments: &'a Moments,
    /// Weights of a filter for each channel: k², or the columns of a channel behind a flatten.
    pub taps: usize,
    /// The layer's weights before the cut, `[D, C·taps]`.
    pub weights: &'a [f64],
}

/// The weights that a refit of whole kernels gives a layer, with the squared errors of its sampled outputs, summed over the filters.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct KernelRefit {
    /// `[D, |S|·taps]`, in the order of the kept channels.
    pub weights: Vec<f64>,
    /// Σ‖P·w‖²: the outputs before the cut, without biases.
    pub output: f64,
    /// Σ‖P·w − P_S·w_S‖²: of the kept channels as they are.
    pub before: f64,
    /// Σ‖P·w − P_S·v‖²: with the new weights v.
    pub after: f64,
}

impl KernelRefit {
    /// The relative errors of several layers that read the same channels, all outputs taken together; 0 where these are all zero.
    #[must_use]
    pub fn error(refits: &[Self]) -> ReconstructionError {
        let sum = |of: fn(&Self) -> f64| refits.iter().map(of).fold(0.0, |sum, value| sum + value);
        let output = sum(|refit| refit.output);
        let relative = |squared: f64| if output > 0.0 { (squared / output).sqrt() } else { 0.0 };
        ReconstructionError {
            before: relative(sum(|refit| refit.before)),
            after: relative(sum(|refit| refit.after)),
        }
    }
}
