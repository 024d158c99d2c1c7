//! The kinds of evidence, and which of them a selector reads.

use std::ops::BitOr;

use thinet_graph::{did_you_mean, nearest};

/// A kind of evidence about a layer.
///
/// Filter weights and batch-norm scales are read from the net; the other kinds are gathered in a calibration pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum EvidenceKind {
    /// The weights of the layer's filters ([`Filters`](crate::Filters)).
    Filters,
    /// The scales of the batch norm behind the layer ([`BatchNormScales`](crate::BatchNormScales)).
    BatchNormScales,
    /// Zeros after the activation ([`ZeroCounts`](crate::ZeroCounts)).
    Zeros,
    /// Means and maxima after the activation ([`ActivationStats`](crate::ActivationStats)).
    Activations,
    /// Second moments of what channels add to the next layer's outputs ([`Moments`](crate::Moments)).
    Moments,
    /// Products of activations and gradients of the loss ([`GradientProducts`](crate::GradientProducts)).
    Gradients,
}

impl EvidenceKind {
    pub const ALL: [Self; 6] = [
        Self::Filters,
        Self::BatchNormScales,
        Self::Zeros,
        Self::Activations,
        Self::Moments,
        Self::Gradients,
    ];

    /// The name in messages, such as "zero counts".
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Filters => "filter weights",
            Self::BatchNormScales => "batch-norm scales",
            Self::Zeros => "zero counts",
            Self::Activations => "activation statistics",
            Self::Moments => "contribution moments",
            Self::Gradients => "gradient products",
        }
    }

    /// The name in specs and in the messages of a selector's program, such as `zeros`.
    #[must_use]
    pub const fn key(self) -> &'static str {
        match self {
            Self::Filters => "filters",
            Self::BatchNormScales => "batch-norm-scales",
            Self::Zeros => "zeros",
            Self::Activations => "activations",
            Self::Moments => "moments",
            Self::Gradients => "gradients",
        }
    }

    /// The kind of this key.
    ///
    /// # Errors
    /// If there is none; the message lists the keys and the nearest one.
    pub fn of_key(key: &str) -> Result<Self, String> {
        let keys = || Self::ALL.into_iter().map(Self::key);
        Self::ALL.into_iter().find(|kind| kind.key() == key).ok_or_else(|| {
            let hint = did_you_mean(nearest(key, keys()));
            let known = keys().collect::<Vec<_>>().join(", ");
            format!("there is no kind of evidence {key:?}{hint}; kinds: {known}")
        })
    }
}

/// The kinds of evidence that a selector reads.
///
/// A selector receives these kinds and no others. A calibration gathers what the methods of a study need, and always
/// the moments, from which the reconstruction error of every method is reported. Each kind is gathered
/// independently, so that the needs of one selector do not affect the evidence of another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Needs(u32);

impl Needs {
    /// Nothing: a data-blind selector.
    pub const NONE: Self = Self(0);
    pub const FILTERS: Self = Self::only(EvidenceKind::Filters);
    /// Batch-norm scales only. Not every layer has them.
    pub const BATCH_NORM_SCALES: Self = Self::only(EvidenceKind::BatchNormScales);
    pub const ZEROS: Self = Self::only(EvidenceKind::Zeros);
    pub const ACTIVATIONS: Self = Self::only(EvidenceKind::Activations);
    pub const MOMENTS: Self = Self::only(EvidenceKind::Moments);
    /// Gradient products only. They cost a backward pass.
    pub const GRADIENTS: Self = Self::only(EvidenceKind::Gradients);

    #[must_use]
    pub const fn only(kind: EvidenceKind) -> Self {
        Self(1 << kind as u32)
    }

    /// Whether every kind that `others` names is needed.
    #[must_use]
    pub const fn contains_all(self, others: Self) -> bool {
        self.0 & others.0 == others.0
    }

    /// Whether the kind is needed.
    #[must_use]
    pub const fn contains(self, kind: EvidenceKind) -> bool {
        self.0 & Self::only(kind).0 != 0
    }

    /// These needs without one kind.
    #[must_use]
    pub const fn without(self, kind: EvidenceKind) -> Self {
        Self(self.0 & !Self::only(kind).0)
    }

    /// The kinds, in the order of [`EvidenceKind::ALL`].
    pub fn kinds(self) -> impl Iterator<Item = EvidenceKind> {
        EvidenceKind::ALL.into_iter().filter(move |&kind| self.contains(kind))
    }

    /// Whether nothing is needed.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self == Self::NONE
    }
}

impl BitOr for Needs {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn needs_unite_and_list_their_kinds() {
        let needs = Needs::MOMENTS | Needs::FILTERS;
        assert_eq!(needs.kinds().collect::<Vec<_>>(), [EvidenceKind::Filters, EvidenceKind::Moments]);
        assert_eq!(Needs::ZEROS | Needs::NONE, Needs::ZEROS);
        assert_eq!(needs | Needs::FILTERS, needs);
        assert_eq!(needs.without(EvidenceKind::Moments), Needs::FILTERS);
        assert_eq!(Needs::ZEROS.without(EvidenceKind::Moments), Needs::ZEROS);
        assert!(Needs::default().is_empty() && !Needs::ZEROS.is_empty());
    }

    #[test]
    fn an_unknown_kind_is_refused_with_the_nearest_one() {
        let problem = EvidenceKind::of_key("moment").unwrap_err();
        let expected = "there is no kind of evidence \"moment\", did you mean \"moments\"?; kinds: filters, \
                        batch-norm-scales, zeros, activations, moments, gradients";
        assert_eq!(problem, expected);
    }

    #[test]
    fn every_kind_has_a_name_and_a_place_of_its_own() {
        let all = EvidenceKind::ALL.into_iter().fold(Needs::NONE, |needs, kind| needs | Needs::only(kind));
        assert_eq!(all.kinds().collect::<Vec<_>>(), EvidenceKind::ALL);
        for (place, kind) in EvidenceKind::ALL.iter().enumerate() {
            let before = &EvidenceKind::ALL[..place];
            assert!(before.iter().all(|other| other.name() != kind.name() && other.key() != kind.key()));
            assert_eq!(EvidenceKind::of_key(kind.key()), Ok(*kind));
        }
    }
}
