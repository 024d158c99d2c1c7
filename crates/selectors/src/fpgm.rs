//! FPGM: filter pruning via the geometric median (He et al. 2019, arXiv 1811.00250).

use thinet_seed::Seed;

use crate::{Evidence, Filters, Needs, Selection, Selector, SelectorError};

/// Removes the filters nearest to the geometric median of their layer first: those that the others can replace. A score is
/// Σ_t ‖F_j − F_t‖₂ over all filters F_t of the layer, as in the paper, which shows that the filter where this sum is least is
/// the one nearest to the median.
///
/// All scores are computed before a filter is removed: two equal filters have the same score, and both can go. Differences,
/// squares and sums are taken in float64, those of a distance in memory order, those of a score by index t, so that equal filters have
/// equal scores to the bit; among equals the lowest index is removed first.
pub(crate) struct Fpgm;

impl Selector for Fpgm {
    fn name(&self) -> &'static str {
        "fpgm"
    }

    fn about(&self) -> &'static str {
        "removes filters with the smallest sum of distances to the others: near their geometric median (He et al. 2019)"
    }

    fn needs(&self) -> Needs {
        Needs::FILTERS
    }

    fn select(&self, evidence: &Evidence, keep: usize, _seed: Seed) -> Result<Selection, SelectorError> {
        let scores = sums_of_distances(evidence.filters_for(self.name())?);
        Selection::least_first(self.name(), evidence, keep, scores)
    }

    fn importance(&self) -> Option<fn(f64) -> f64> {
        Some(|score| score)
    }
}

/// For each filter the sum of its Euclidean distances to all others, `[C]`.
fn sums_of_distances(filters: &Filters) -> Vec<f64> {
    let mut sums = vec![0.0; filters.channels];
    // Each distance is computed once. Filter t still receives those to 0, 1, … in this order, so that every sum runs by index.
    for j in 0..filters.channels {
        for t in j + 1..filters.channels {
            let distance = distance(filters.filter(j), filters.filter(t));
            sums[j] += distance;
            sums[t] += distance;
        }
    }
    sums
}

fn distance(a: &[f32], b: &[f32]) -> f64 {
    let differences = a.iter().zip(b).map(|(&a, &b)| f64::from(a) - f64::from(b));
    differences.fold(0.0, |sum, difference| sum + difference * difference).sqrt()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn filters(len: usize, values: Vec<f32>) -> Filters {
        Filters { channels: values.len() / len, len, values }
    }

    fn select(filters: Filters, keep: usize) -> Selection {
        let channels = filters.channels;
        let evidence = Evidence { filters: Some(filters), ..Evidence::none("conv1", channels) };
        Fpgm.select(&evidence, keep, Seed::root(0)).unwrap()
    }

    #[test]
    fn the_filter_in_the_middle_goes_first_whatever_its_norm() {
        // Corners of a 6 by 8 rectangle, whose diagonal is 10, and its centre, 5 away from each.
        let corners_and_centre = vec![100.0, 100.0, 106.0, 100.0, 103.0, 104.0, 100.0, 108.0, 106.0, 108.0];
        let selection = select(filters(2, corners_and_centre), 4);
        assert_eq!(selection.removed, [2]);
        assert_eq!(selection.scores, [29.0, 29.0, 20.0, 29.0, 29.0]);
    }

    #[test]
    fn distances_are_not_squared() {
        // On a line at 0, 1, 2 and 11: sums of distances 14, 12, 12, 30. Squares would put the filter at 2 first.
        let selection = select(filters(1, vec![0.0, 1.0, 2.0, 11.0]), 2);
        assert_eq!((selection.removed, selection.scores), (vec![1, 2], vec![14.0, 12.0, 12.0, 30.0]));
    }

    #[test]
    fn equal_filters_and_the_only_one_are_ranked_by_index() {
        let twice = select(filters(2, vec![1.0, 0.1, 5.0, 0.7, 1.0, 0.1]), 1);
        assert_eq!(twice.removed, [0, 2]);
        assert_eq!(twice.scores[0].to_bits(), twice.scores[2].to_bits());
        assert_eq!(select(filters(3, vec![1.0, 2.0, 3.0]), 1).scores, [0.0]);
    }

    proptest! {
        /// The plain version: every distance from every filter, in order.
        #[test]
        fn half_of_the_distances_give_the_sums_of_all(
            (len, values) in (1..6_usize, 1..10_usize).prop_flat_map(|(len, channels)| {
                (Just(len), prop::collection::vec(-2.0..2.0_f32, len * channels))
            }),
        ) {
            let filters = filters(len, values);
            let plain = |j: usize| {
                let to = |t: usize| {
                    let pairs = filters.filter(j).iter().zip(filters.filter(t));
                    pairs.map(|(a, b)| (f64::from(*a) - f64::from(*b)) * (f64::from(*a) - f64::from(*b))).sum::<f64>().sqrt()
                };
                (0..filters.channels).fold(0.0, |sum, t| sum + to(t))
            };
            let expected: Vec<f64> = (0..filters.channels).map(plain).collect();
            prop_assert_eq!(sums_of_distances(&filters), expected);
        }
    }
}
