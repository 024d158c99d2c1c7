//! Refits of the next layer after a cut: the [`Reconstructor`] trait, every registered reconstructor, and the
//! reconstruction error.
//!
//! A new reconstructor is a file with its `impl Reconstructor` and two lines next to each other in this file: its `mod`
//! and its entry in the registry. The contract tests run over every entry.

#[cfg(test)]
mod answers;
#[cfg(test)]
mod contract;
mod error;
mod least_squares;
mod measure;
mod patches;
#[cfg(test)]
mod scale_tests;

use thinet_graph::{ChannelSet, did_you_mean, nearest};
use thinet_selectors::Moments;

pub use error::RefitError;
pub use measure::{ReconstructionError, reconstruction_error};
pub use patches::{KernelRefit, Patches};

/// A rule that adapts the next layer to the channels that stay.
///
/// Every registered reconstructor gives one finite scale per kept channel, never a larger squared error than leaving
/// the channels as they are, and all ones where nothing is removed or the evidence is all zero.
pub trait Reconstructor: Send + Sync {
    /// The name that specs, tables and the command line use.
    fn name(&self) -> &'static str;

    /// A one-line description with its source.
    fn about(&self) -> &'static str;

    /// The version of its answers: raised whenever the result of [`Reconstructor::refit`] for the same moments can
    /// change. Results are stored under it (1 is left out of their ids, so that older results keep theirs).
    fn version(&self) -> u32 {
        1
    }

    /// What it is computed from, and thus which of the two methods below is called.
    fn reads(&self) -> RefitInput;

    /// One factor per kept channel, in the order of `kept`, by which that input channel of every filter of the next
    /// layer is multiplied.
    ///
    /// # Errors
    /// If needed moments are missing, of another layer's width, or no Gram matrix.
    fn refit(&self, moments: Option<&Moments>, kept: &ChannelSet) -> Result<Vec<f64>, RefitError>;

    /// The new weights of a layer that reads the channels, computed from the patches that it reads.
    ///
    /// # Errors
    /// If the reconstructor reads no patches, these are of another layer, or no Gram matrix.
    fn refit_kernels(&self, patches: &Patches<'_>, kept: &ChannelSet) -> Result<KernelRefit, RefitError> {
        let _ = (patches, kept);
        Err(RefitError::OtherInput { reconstructor: self.name(), input: "products of patches" })
    }
}

/// What a reconstructor is computed from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefitInput {
    /// Nothing: it changes no weight.
    Nothing,
    /// Moments of what each channel adds to sampled outputs of the next layer: `[C, C]`.
    Contributions,
    /// Products of all values that the next layer reads at sampled positions: `[C·k², C·k²]`.
    Patches,
}

mod channel_scale;
mod full_kernel;
mod none;

static ALL: &[&dyn Reconstructor] = &[&none::NoRefit, &channel_scale::ChannelScale, &full_kernel::FullKernel];

/// Every registered reconstructor, in the order of tables.
#[must_use]
pub fn all() -> &'static [&'static dyn Reconstructor] {
    ALL
}

/// The reconstructor of this name.
///
/// # Errors
/// If there is none; the message lists the names and the nearest one.
pub fn find(name: &str) -> Result<&'static dyn Reconstructor, RefitError> {
    ALL.iter().copied().find(|reconstructor| reconstructor.name() == name).ok_or_else(|| {
        let hint = did_you_mean(nearest(name, ALL.iter().map(|reconstructor| reconstructor.name())));
        RefitError::Unknown {
            name: name.to_owned(),
            hint,
            allowed: ALL.iter().map(|reconstructor| reconstructor.name()).collect::<Vec<_>>().join(", "),
        }
    })
}
