//! How long stages take: as assumed, times how much longer the stored ones took.

use crate::store::StageKind;

/// What the time of a kind of stage follows from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Basis {
    /// The times of stored stages of that kind.
    Measured,
    /// Those of stored stages of other kinds: how much faster or slower they were than assumed.
    MeasuredOnOthers,
    /// Assumed rates alone.
    Assumed,
}

/// A stored stage: seconds that were assumed of it, and those it took.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Duration {
    pub(crate) kind: StageKind,
    pub(crate) expected: f64,
    pub(crate) took: f64,
}

/// How many times as long as assumed the stored stages of some kinds took; `None` without any.
fn ratio(stored: &[Duration], is_meant: impl Fn(StageKind) -> bool) -> Option<f64> {
    let meant = || stored.iter().filter(|stage| is_meant(stage.kind));
    let took: f64 = meant().map(|stage| stage.took).sum();
    let expected: f64 = meant().map(|stage| stage.expected).sum();
    (took > 0.0 && expected > 0.0).then(|| took / expected)
}

/// How many times as long as assumed stages of a kind without stored ones take; `None` while nothing is stored. Gathering evidence
/// costs more than its passes, so calibrations say little about trainings and count only where there is nothing else.
pub(crate) fn ratio_of_all(stored: &[Duration]) -> Option<f64> {
    ratio(stored, |kind| kind != StageKind::Evidence).or_else(|| ratio(stored, |_| true))
}

/// How many times as long as assumed the stages of a kind take, and what that follows from.
pub(crate) fn ratio_of_kind(stored: &[Duration], kind: StageKind) -> (f64, Basis) {
    match (ratio(stored, |other| other == kind), ratio_of_all(stored)) {
        (Some(ratio), _) => (ratio, Basis::Measured),
        (None, Some(ratio)) => (ratio, Basis::MeasuredOnOthers),
        (None, None) => (1.0, Basis::Assumed),
    }
}
