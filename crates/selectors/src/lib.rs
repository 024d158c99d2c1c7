//! Which channels of a layer stay: the [`Selector`] trait and every selector that is registered.
//!
//! A selector never sees a network. It declares the kinds of evidence that it [needs](Selector::needs), receives these and
//! no others from [`select`], and turns the [`Evidence`] into a [`Selection`].
//!
//! A new selector is a file with its `impl Selector` and two lines next to each other in this file: its `mod` and
//! its entry in the registry. The contract tests run over every entry. A program with selectors of its own [registers](register) them.

mod allocation;
#[cfg(test)]
mod answers;
mod balanced;
#[cfg(test)]
mod contract;
mod error;
mod evidence;
mod moments;
pub mod naive;
mod needs;
pub mod pinned;
#[cfg(test)]
mod scale_tests;
mod selection;

use std::sync::OnceLock;

use thinet_graph::{did_you_mean, nearest};
use thinet_seed::Seed;

pub use allocation::{FLOOR, Normalisation, Ranking, least_kept};
pub use error::{EvidenceError, SelectorError};
pub use evidence::{ActivationStats, BatchNormScales, Evidence, Filters, GradientProducts, ZeroCounts};
pub use moments::Moments;
pub use needs::{EvidenceKind, Needs};
pub use selection::Selection;
pub use thinet::{Removal, removal_order};
pub use thinet_omp::{Addition, addition_order};

/// A rule that decides which channels of a layer stay.
///
/// Every registered selector keeps exactly `keep` channels, answers the same for the same evidence and seed, keeps all
/// when asked to, and breaks ties by the lowest index: among equals the channel with the lowest index is taken first
/// (removed first by those that remove, added first by those that add).
pub trait Selector: Send + Sync {
    /// The name that specs, tables and the command line use.
    fn name(&self) -> &'static str;

    /// A one-line description with its source.
    fn about(&self) -> &'static str;

    /// The version of its answers: raised whenever the result of [`Selector::select`] for the same evidence can change.
    /// Results are stored under it (1 is left out of their ids, so that older results keep theirs).
    fn version(&self) -> u32 {
        1
    }

    /// The kinds of evidence that [`Selector::select`] reads; it receives no others.
    fn needs(&self) -> Needs;

    /// Chooses the `keep` channels of a layer that stay. Only data-blind selectors draw from `seed`.
    ///
    /// # Errors
    /// If `keep` is zero or more than the layer has, or if needed evidence is missing, does not fit the layer or holds
    /// a value that is not finite; the message names selector and layer.
    fn select(&self, evidence: &Evidence, keep: usize, seed: Seed) -> Result<Selection, SelectorError>;

    /// How the scores of a [`Selection`] become importances, which compare channels of several layers once they are normalised: the
    /// channel with the smallest importance is removed first, within a layer as between layers. Such scores depend neither on the number
    /// of channels to keep nor on the other channels that stay.
    ///
    /// `None`, the default, for a selector that removes or adds channels one after the other: it has an order, and no scores that could
    /// be compared between layers.
    fn importance(&self) -> Option<fn(f64) -> f64> {
        None
    }
}

/// Runs a selector on the kinds of evidence that it needs and no others.
///
/// # Errors
/// As [`Selector::select`], and if the selector reads a kind that it does not name in its needs.
pub fn select(
    selector: &dyn Selector,
    evidence: &Evidence,
    keep: usize,
    seed: Seed,
) -> Result<Selection, SelectorError> {
    selector.select(&evidence.only(selector.needs()), keep, seed)
}

/// The importance of each channel of a layer, see [`Selector::importance`].
///
/// # Errors
/// [`SelectorError::NoImportance`] if the selector has an order and no scores; as [`select`].
pub fn importances(
    selector: &dyn Selector,
    evidence: &Evidence,
    seed: Seed,
) -> Result<Vec<f64>, SelectorError> {
    let importance = find_importance(selector)?;
    // Its scores are the same for every number of channels to keep.
    let scores = select(selector, evidence, evidence.channels, seed)?.scores;
    Ok(scores.into_iter().map(importance).collect())
}

/// How a selector's scores become importances.
///
/// # Errors
/// [`SelectorError::NoImportance`] if it has an order and no scores; the message lists the selectors that have some.
pub fn find_importance(selector: &dyn Selector) -> Result<fn(f64) -> f64, SelectorError> {
    selector.importance().ok_or_else(|| {
        let all = all();
        let with_scores = all.iter().filter(|other| other.importance().is_some());
        let allowed = with_scores.map(|other| other.name()).collect::<Vec<_>>().join(", ");
        SelectorError::NoImportance { selector: selector.name(), allowed }
    })
}

// The registry: one `mod` line and one entry for each selector.
mod activation_mean;
mod apoz;
mod bn_scale;
mod fpgm;
mod lasso;
mod random;
mod taylor;
mod thinet;
mod thinet_omp;
mod weight_sum;

static ALL: &[&dyn Selector] = &[
    &thinet::ThiNet,
    &thinet_omp::ThiNetOmp,
    &lasso::Lasso,
    &apoz::Apoz,
    &activation_mean::ActivationMean,
    &taylor::Taylor,
    &weight_sum::WeightSum::L1,
    &weight_sum::WeightSum::L2,
    &fpgm::Fpgm,
    &bn_scale::BnScale,
    &random::Random,
];

/// Selectors of a program that uses this workspace as a library.
static OTHERS: OnceLock<&[&dyn Selector]> = OnceLock::new();

/// Adds the selectors of another package for this process, behind those of this crate; once, before anything asks for a selector.
///
/// # Errors
/// If a name is taken, or selectors were added before.
pub fn register(others: &'static [&'static dyn Selector]) -> Result<(), SelectorError> {
    for (place, other) in others.iter().enumerate() {
        if ALL.iter().chain(&others[..place]).any(|known| known.name() == other.name()) {
            return Err(SelectorError::Taken(other.name()));
        }
    }
    OTHERS.set(others).map_err(|_| SelectorError::Added)
}

/// Every registered selector, in the order of tables.
#[must_use]
pub fn all() -> Vec<&'static dyn Selector> {
    let others = OTHERS.get().copied().unwrap_or_default();
    ALL.iter().chain(others).copied().collect()
}

/// The selector of this name.
///
/// # Errors
/// If there is none; the message lists the names and the nearest one.
pub fn find(name: &str) -> Result<&'static dyn Selector, SelectorError> {
    let all = all();
    all.iter().copied().find(|selector| selector.name() == name).ok_or_else(|| {
        let hint = did_you_mean(nearest(name, all.iter().map(|selector| selector.name())));
        SelectorError::Unknown {
            name: name.to_owned(),
            hint,
            allowed: all.iter().map(|selector| selector.name()).collect::<Vec<_>>().join(", "),
        }
    })
}
