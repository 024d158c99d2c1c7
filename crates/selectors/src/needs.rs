//! The kinds of evidence, and which of them a selector reads.

use std::ops::BitOr;

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
}

impl EvidenceKind {
    pub const ALL: [Self; 5] =
        [Self::Filters, Self::BatchNormScales, Self::Zeros, Self::Activations, Self::Moments];

    /// The name in messages, such as "zero counts".
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Filters => "filter weights",
            Self::BatchNormScales => "batch-norm scales",
            Self::Zeros => "zero counts",
            Self::Activations => "activation statistics",
            Self::Moments => "contribution moments",
        }
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

    #[must_use]
    pub const fn only(kind: EvidenceKind) -> Self {
        Self(1 << kind as u32)
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
    fn every_kind_has_a_name_and_a_place_of_its_own() {
        let all = EvidenceKind::ALL.into_iter().fold(Needs::NONE, |needs, kind| needs | Needs::only(kind));
        assert_eq!(all.kinds().collect::<Vec<_>>(), EvidenceKind::ALL);
        for (place, kind) in EvidenceKind::ALL.iter().enumerate() {
            assert!(EvidenceKind::ALL[..place].iter().all(|other| other.name() != kind.name()));
        }
    }
}
