//! Paired comparison over seeds: Student's t-interval of a mean difference, and Holm's correction for several comparisons.

use statrs::distribution::{ContinuousCDF as _, StudentsT};

use crate::stats::{mean, sample_std};

/// A spread up to this is that of rounding: differences of accuracies in per cent are exact to about 1e-14.
const ROUNDING: f64 = 1e-10;

/// The mean of paired differences, such as of two methods' accuracies over the same seeds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PairedDifference {
    /// Number of pairs.
    pub n: usize,
    pub mean: f64,
    /// Sample standard deviation; `None` for one pair.
    pub std: Option<f64>,
    /// Half the width of the t-interval around the mean: the smallest mean difference that this spread and this `n` could have shown.
    /// `None` for one pair, and where all differences are equal, which leaves no spread to judge by.
    pub half_width: Option<f64>,
    /// Two-sided p-value of the t-test against no difference; `None` where there is no interval.
    pub p: Option<f64>,
}

impl PairedDifference {
    /// Over `differences`, with an interval of this `level` in (0, 1), such as 0.95. `None` without a difference.
    #[must_use]
    pub fn of(differences: &[f64], level: f64) -> Option<Self> {
        let (n, mean) = (differences.len(), mean(differences)?);
        let std = sample_std(differences);
        let error = std.filter(|std| *std > ROUNDING).map(|std| std / (n as f64).sqrt());
        let student = StudentsT::new(0.0, 1.0, n as f64 - 1.0).ok();
        let judged = error.zip(student);
        Some(Self {
            n,
            mean,
            std,
            half_width: judged.map(|(error, t)| error * t.inverse_cdf(0.5 + level / 2.0)),
            p: judged.map(|(error, t)| 2.0 * t.sf((mean / error).abs())),
        })
    }

    /// Both ends of the interval.
    #[must_use]
    pub fn interval(&self) -> Option<[f64; 2]> {
        self.half_width.map(|half| [self.mean - half, self.mean + half])
    }
}

/// The smallest number of pairs whose t-interval of this `level` would be no wider than `difference` to either side, if their differences
/// had this standard deviation: so many show such a mean difference. `None` beyond a thousand, or if `difference` is not above 0.
#[must_use]
pub fn seeds_to_show(std: f64, difference: f64, level: f64) -> Option<usize> {
    const MOST: usize = 1000;
    (2..=MOST).find(|&n| {
        let student = StudentsT::new(0.0, 1.0, n as f64 - 1.0).ok();
        student.is_some_and(|t| t.inverse_cdf(0.5 + level / 2.0) * std / (n as f64).sqrt() <= difference)
    })
}

/// Holm's step-down correction of the p-values of one family of comparisons, in their order; `None` takes no part. A comparison below
/// a bound after the correction is below it for the family.
#[must_use]
pub fn holm(p: &[Option<f64>]) -> Vec<Option<f64>> {
    let mut order: Vec<(usize, f64)> = p.iter().enumerate().filter_map(|(i, p)| Some((i, (*p)?))).collect();
    order.sort_by(|a, b| a.1.total_cmp(&b.1));
    let mut corrected = vec![None; p.len()];
    let mut least: f64 = 0.0;
    for (rank, &(i, p)) in order.iter().enumerate() {
        least = least.max(p * (order.len() - rank) as f64).min(1.0);
        corrected[i] = Some(least);
    }
    corrected
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn near(a: f64, b: f64) -> bool {
        (a - b).abs() < 1e-6
    }

    #[test]
    fn the_interval_is_that_of_the_textbooks() {
        // Mean 2, standard deviation 1; t at 0.975 with two degrees of freedom is 4.302653.
        let found = PairedDifference::of(&[1.0, 2.0, 3.0], 0.95).unwrap();
        assert_eq!((found.n, found.mean, found.std), (3, 2.0, Some(1.0)));
        assert!(near(found.half_width.unwrap(), 4.302_653 / 3.0_f64.sqrt()), "{found:?}");
        // t = 2·√3; p = 1 − t/√(2 + t²) with two degrees of freedom.
        let t = 2.0 * 3.0_f64.sqrt();
        assert!(near(found.p.unwrap(), 1.0 - t / (2.0 + t * t).sqrt()), "{found:?}");
        let [low, high] = found.interval().unwrap();
        assert!(low < 0.0 && near(low + high, 4.0));
    }

    #[test]
    fn without_spread_there_is_no_interval() {
        assert_eq!(PairedDifference::of(&[], 0.95), None);
        let one = PairedDifference::of(&[0.5], 0.95).unwrap();
        assert_eq!((one.n, one.mean, one.std, one.half_width, one.p), (1, 0.5, None, None, None));
        for equal in [[0.5, 0.5], [91.3 - 91.1, 90.3 - 90.1]] {
            let found = PairedDifference::of(&equal, 0.95).unwrap();
            assert_eq!((found.half_width, found.p), (None, None));
        }
    }

    #[test]
    fn seeds_are_counted_until_the_interval_is_narrow_enough() {
        // t at 0.975 with 3 and 4 degrees of freedom is 3.1824 and 2.7764: 0.5·t/√n is 0.796 and 0.621.
        assert_eq!(seeds_to_show(0.5, 0.7, 0.95), Some(5));
        assert_eq!(seeds_to_show(0.5, 0.8, 0.95), Some(4));
        assert_eq!(seeds_to_show(0.0, 0.5, 0.95), Some(2));
        assert_eq!(seeds_to_show(100.0, 0.5, 0.95), None);
        assert_eq!(seeds_to_show(1.0, 0.0, 0.95), None);
    }

    #[test]
    fn holm_multiplies_the_smallest_by_the_number_of_comparisons() {
        let found = holm(&[Some(0.01), None, Some(0.04), Some(0.03)]);
        let expected = [Some(0.03), None, Some(0.06), Some(0.06)];
        for (found, expected) in found.iter().zip(expected) {
            assert!(
                found.zip(expected).is_none_or(|(a, b)| near(a, b)) && found.is_some() == expected.is_some()
            );
        }
        assert_eq!(holm(&[Some(0.9), Some(0.8)]), [Some(1.0), Some(1.0)]);
        assert_eq!(holm(&[]), []);
    }

    proptest! {
        #[test]
        fn the_interval_holds_zero_just_where_p_is_above_its_bound(
            differences in proptest::collection::vec(-3.0..3.0_f64, 2..9),
        ) {
            let found = PairedDifference::of(&differences, 0.95).unwrap();
            if let (Some([low, high]), Some(p)) = (found.interval(), found.p) {
                prop_assert_eq!(low <= 0.0 && high >= 0.0, p >= 0.05, "{:?}", found);
            }
        }

        #[test]
        fn holm_keeps_the_order_and_lies_between_p_and_bonferroni(
            p in proptest::collection::vec(0.0..1.0_f64, 1..9),
        ) {
            let corrected = holm(&p.iter().copied().map(Some).collect::<Vec<_>>());
            for (i, a) in p.iter().enumerate() {
                let c = corrected[i].unwrap();
                prop_assert!(c >= *a && c <= (a * p.len() as f64).min(1.0) + 1e-12);
                for (j, b) in p.iter().enumerate() {
                    prop_assert!(a >= b || c <= corrected[j].unwrap());
                }
            }
        }
    }
}
