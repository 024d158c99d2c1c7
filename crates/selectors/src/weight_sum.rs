//! Weight sum: the norm of each filter (Li et al. 2017, arXiv 1608.08710).

use thinet_seed::Seed;

use crate::{Evidence, Needs, Selection, Selector, SelectorError};

/// Removes the filters with the smallest norm first. A score is the norm, summed in float64 in memory order.
///
/// Among equals the lowest index is removed first.
pub(crate) enum WeightSum {
    /// Σ|w|, as in the paper.
    L1,
    /// √Σw², a variant of the ThiNet authors' comparison.
    L2,
}

impl Selector for WeightSum {
    fn name(&self) -> &'static str {
        match self {
            Self::L1 => "weight-sum-l1",
            Self::L2 => "weight-sum-l2",
        }
    }

    fn about(&self) -> &'static str {
        match self {
            Self::L1 => "removes filters with the smallest sum of absolute weights (Li et al. 2017)",
            Self::L2 => "removes filters with the smallest Euclidean norm",
        }
    }

    fn needs(&self) -> Needs {
        Needs::FILTERS
    }

    fn select(&self, evidence: &Evidence, keep: usize, _seed: Seed) -> Result<Selection, SelectorError> {
        let filters = evidence.filters_for(self.name())?;
        let scores: Vec<f64> =
            (0..evidence.channels).map(|channel| self.norm(filters.filter(channel))).collect();
        let mut order: Vec<usize> = (0..evidence.channels).collect();
        order.sort_by(|&a, &b| scores[a].total_cmp(&scores[b]));
        Selection::from_order(self.name(), evidence, keep, order, scores)
    }

    fn importance(&self) -> Option<fn(f64) -> f64> {
        Some(|score| score)
    }
}

impl WeightSum {
    fn norm(&self, filter: &[f32]) -> f64 {
        let weights = filter.iter().map(|&w| f64::from(w));
        match self {
            Self::L1 => weights.fold(0.0, |sum, w| sum + w.abs()),
            Self::L2 => weights.fold(0.0, |sum, w| sum + w * w).sqrt(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Filters;

    fn evidence(len: usize, values: Vec<f32>) -> Evidence {
        let channels = values.len() / len;
        let filters = Some(Filters { channels, len, values });
        Evidence { filters, ..Evidence::none("conv1", channels) }
    }

    #[test]
    fn the_norms_order_differently_where_they_should() {
        let evidence = evidence(2, vec![3.0, -4.0, 6.0, 0.0, -1.0, 1.0]);
        let l1 = WeightSum::L1.select(&evidence, 1, Seed::root(0)).unwrap();
        let l2 = WeightSum::L2.select(&evidence, 1, Seed::root(0)).unwrap();
        assert_eq!((l1.removed, l1.scores), (vec![2, 1], vec![7.0, 6.0, 2.0]));
        assert_eq!((l2.removed, l2.scores), (vec![2, 0], vec![5.0, 6.0, f64::sqrt(2.0)]));
    }

    #[test]
    fn a_negative_zero_is_a_zero() {
        let selection = WeightSum::L1.select(&evidence(1, vec![0.0, -0.0, 0.0]), 1, Seed::root(0)).unwrap();
        assert_eq!(selection.removed, [0, 1]);
    }

    #[test]
    fn float64_sums_distinguish_what_float32_sums_would_not() {
        let large = 16_777_216.0;
        let selection = WeightSum::L1
            .select(&evidence(3, vec![large, 1.0, 1.0, large, 1.0, 0.0]), 1, Seed::root(0))
            .unwrap();
        assert_eq!(selection.removed, [1]);
    }
}
