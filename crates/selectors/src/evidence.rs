//! What a selector may look at: filter weights, zero counts and contribution moments of one layer.

use std::ops::BitOr;

use crate::{EvidenceError, Moments, SelectorError};

/// The kinds of evidence a selector reads; one calibration pass gathers the union over all selectors of a study.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// Filter weights ([`Filters`]).
    pub filters: bool,
    /// Zero counts after the activation ([`ZeroCounts`]).
    pub zeros: bool,
    /// Contribution moments ([`Moments`]).
    pub moments: bool,
}

impl Needs {
    /// Nothing: a data-blind selector.
    pub const NONE: Self = Self { filters: false, zeros: false, moments: false };
    /// Filter weights only.
    pub const FILTERS: Self = Self { filters: true, ..Self::NONE };
    /// Zero counts only.
    pub const ZEROS: Self = Self { zeros: true, ..Self::NONE };
    /// Contribution moments only.
    pub const MOMENTS: Self = Self { moments: true, ..Self::NONE };

    /// Whether nothing is needed.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self == Self::NONE
    }
}

impl BitOr for Needs {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self {
            filters: self.filters || other.filters,
            zeros: self.zeros || other.zeros,
            moments: self.moments || other.moments,
        }
    }
}

/// The weights of a layer's filters.
#[derive(Clone, Debug, PartialEq)]
pub struct Filters {
    /// C, the filters of the layer.
    pub channels: usize,
    /// Weights a filter: input channels times kernel height times kernel width.
    pub len: usize,
    /// Row-major `[C, len]`.
    pub values: Vec<f32>,
}

impl Filters {
    /// The weights of filter `j`.
    #[must_use]
    pub fn filter(&self, j: usize) -> &[f32] {
        &self.values[j * self.len..(j + 1) * self.len]
    }

    fn check(&self, channels: usize) -> Result<(), EvidenceError> {
        check_channels(FILTERS, self.channels, channels)?;
        let problem = if self.values.len() != self.channels * self.len {
            format!(
                "hold {} values, {} filters of {} need {}",
                self.values.len(),
                channels,
                self.len,
                channels * self.len
            )
        } else if let Some(at) = self.values.iter().position(|w| !w.is_finite()) {
            format!("hold {} in filter {}", self.values[at], at / self.len)
        } else {
            return Ok(());
        };
        Err(EvidenceError { kind: FILTERS, problem })
    }
}

/// How often each channel of a layer was exactly zero after its activation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ZeroCounts {
    /// Zeros seen in each channel, over images and positions.
    pub zeros: Vec<u64>,
    /// Values seen in each channel, the same for all.
    pub total: u64,
}

impl ZeroCounts {
    fn check(&self, channels: usize) -> Result<(), EvidenceError> {
        check_channels(ZEROS, self.zeros.len(), channels)?;
        let problem = if self.total == 0 {
            "saw no values".to_owned()
        } else if let Some(j) = self.zeros.iter().position(|&zeros| zeros > self.total) {
            format!("name {} zeros among the {} values of channel {j}", self.zeros[j], self.total)
        } else {
            return Ok(());
        };
        Err(EvidenceError { kind: ZEROS, problem })
    }
}

/// All that was gathered about one layer.
#[derive(Clone, Debug, PartialEq)]
pub struct Evidence {
    /// The layer's name, for messages.
    pub layer: String,
    /// C, the channels that the layer puts out.
    pub channels: usize,
    /// Filter weights, if gathered.
    pub filters: Option<Filters>,
    /// Zero counts, if gathered.
    pub zeros: Option<ZeroCounts>,
    /// Contribution moments, if gathered.
    pub moments: Option<Moments>,
}

const FILTERS: &str = "filter weights";
const ZEROS: &str = "zero counts";
pub(crate) const MOMENTS: &str = "contribution moments";

impl Evidence {
    /// The filter weights, known to be finite and to fit the layer.
    ///
    /// # Errors
    /// If they were not gathered, are not finite or do not fit; names `selector` and the layer.
    pub fn filters_for(&self, selector: &'static str) -> Result<&Filters, SelectorError> {
        let filters = self.require(self.filters.as_ref(), selector, FILTERS)?;
        self.checked(filters.check(self.channels), selector)?;
        Ok(filters)
    }

    /// The zero counts, known to be at most the total and to fit the layer.
    ///
    /// # Errors
    /// If they were not gathered, saw nothing or do not fit; names `selector` and the layer.
    pub fn zeros_for(&self, selector: &'static str) -> Result<&ZeroCounts, SelectorError> {
        let zeros = self.require(self.zeros.as_ref(), selector, ZEROS)?;
        self.checked(zeros.check(self.channels), selector)?;
        Ok(zeros)
    }

    /// The contribution moments (finite and symmetric by construction), known to fit the layer.
    ///
    /// # Errors
    /// If they were not gathered or do not fit; names `selector` and the layer.
    pub fn moments_for(&self, selector: &'static str) -> Result<&Moments, SelectorError> {
        let moments = self.require(self.moments.as_ref(), selector, MOMENTS)?;
        self.checked(check_channels(MOMENTS, moments.channels(), self.channels), selector)?;
        Ok(moments)
    }

    /// How many channels go when `keep` stay.
    ///
    /// # Errors
    /// If `keep` is zero or more than the layer has.
    pub fn count_to_remove(&self, selector: &'static str, keep: usize) -> Result<usize, SelectorError> {
        if keep == 0 || keep > self.channels {
            let layer = self.layer.clone();
            return Err(SelectorError::Keep { selector, layer, keep, channels: self.channels });
        }
        Ok(self.channels - keep)
    }

    fn require<'a, T>(
        &self,
        held: Option<&'a T>,
        selector: &'static str,
        missing: &'static str,
    ) -> Result<&'a T, SelectorError> {
        held.ok_or_else(|| SelectorError::MissingEvidence { selector, layer: self.layer.clone(), missing })
    }

    fn checked(
        &self,
        outcome: Result<(), EvidenceError>,
        selector: &'static str,
    ) -> Result<(), SelectorError> {
        outcome.map_err(|source| SelectorError::BadEvidence { selector, layer: self.layer.clone(), source })
    }
}

fn check_channels(kind: &'static str, found: usize, expected: usize) -> Result<(), EvidenceError> {
    if found == expected {
        return Ok(());
    }
    Err(EvidenceError { kind, problem: format!("are of {found} channels, the layer has {expected}") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn needs_unite() {
        assert_eq!(Needs::FILTERS | Needs::MOMENTS, Needs { filters: true, zeros: false, moments: true });
        assert_eq!(Needs::ZEROS | Needs::NONE, Needs::ZEROS);
        assert!(Needs::default().is_empty() && !Needs::ZEROS.is_empty());
    }

    #[test]
    fn filters_of_the_wrong_size_are_refused() {
        let filters = Some(Filters { channels: 2, len: 3, values: vec![0.0; 5] });
        let evidence =
            Evidence { layer: "conv1".to_owned(), channels: 2, filters, zeros: None, moments: None };
        assert_eq!(
            evidence.filters_for("weight-sum-l1").unwrap_err().to_string(),
            "selector \"weight-sum-l1\" cannot rank layer \"conv1\": filter weights hold 5 values, 2 filters of 3 need 6"
        );
    }
}
