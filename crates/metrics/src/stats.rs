//! Statistics over runs: mean, sample standard deviation, and Kendall's rank correlation between two orders.

use std::cmp::Ordering;

/// Arithmetic mean, summed in the order given; `None` without values.
#[must_use]
pub fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

/// Sample standard deviation (n − 1 in the denominator); `None` for fewer than two values.
#[must_use]
pub fn sample_std(values: &[f64]) -> Option<f64> {
    if values.len() < 2 {
        return None;
    }
    let mean = mean(values)?;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    Some((squares / (values.len() - 1) as f64).sqrt())
}

/// The deviation within groups: the square root of their sample variances' mean, weighted by their degrees of freedom. `None` if no
/// group has two values.
#[must_use]
pub fn pooled_std(groups: &[Vec<f64>]) -> Option<f64> {
    let spread = |group: &Vec<f64>| Some((sample_std(group)?, (group.len() - 1) as f64));
    let spreads: Vec<(f64, f64)> = groups.iter().filter_map(spread).collect();
    let freedom: f64 = spreads.iter().map(|(_, freedom)| freedom).sum();
    let squares: f64 = spreads.iter().map(|(std, freedom)| std.powi(2) * freedom).sum();
    (freedom > 0.0).then(|| (squares / freedom).sqrt())
}

/// Kendall's τ-b between `a[i]` and `b[i]`, corrected for ties: 1 for the same order, −1 for the reverse.
///
/// `None` where it is not defined: lists of different length, a NaN, or a list whose values are all equal (fewer than
/// two values included).
#[must_use]
pub fn kendall_tau_b(a: &[f64], b: &[f64]) -> Option<f64> {
    if a.len() != b.len() {
        return None;
    }
    let (mut score, mut untied_a, mut untied_b) = (0_i64, 0_i64, 0_i64);
    for i in 0..a.len() {
        for j in 0..i {
            let (order_a, order_b) = (sign(a[i].partial_cmp(&a[j])?), sign(b[i].partial_cmp(&b[j])?));
            score += order_a * order_b;
            untied_a += order_a.abs();
            untied_b += order_b.abs();
        }
    }
    (untied_a > 0 && untied_b > 0).then(|| score as f64 / (untied_a as f64 * untied_b as f64).sqrt())
}

fn sign(order: Ordering) -> i64 {
    order as i64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn mean_and_spread_by_hand() {
        assert_eq!(mean(&[]), None);
        assert_eq!(mean(&[3.0, 4.0, 8.0]), Some(5.0));
        assert_eq!(sample_std(&[]), None);
        assert_eq!(sample_std(&[3.0]), None);
        assert_eq!(sample_std(&[3.0, 4.0, 8.0]), Some(7_f64.sqrt()));
        assert_eq!(sample_std(&[2.0, 2.0]), Some(0.0));
        // Far from zero a one-pass formula would lose every digit.
        assert_eq!(sample_std(&[1e9, 1e9 + 1.0, 1e9 + 2.0]), Some(1.0));
    }

    #[test]
    fn a_pooled_deviation_is_that_within_groups() {
        assert_eq!(pooled_std(&[]), None);
        assert_eq!(pooled_std(&[vec![1.0], vec![5.0]]), None, "one value each");
        // Variances 7 and 2 with two and one degrees of freedom; a group of one has none.
        let groups = [vec![3.0, 4.0, 8.0], vec![101.0, 103.0], vec![50.0]];
        assert!((pooled_std(&groups).unwrap() - (16.0_f64 / 3.0).sqrt()).abs() < 1e-12);
    }

    #[test]
    fn tau_by_hand() {
        let tau = |a: &[f64], b: &[f64]| kendall_tau_b(a, b).unwrap();
        assert_eq!(tau(&[1.0, 2.0, 3.0, 4.0], &[10.0, 20.0, 30.0, 40.0]), 1.0);
        assert_eq!(tau(&[1.0, 2.0, 3.0, 4.0], &[4.0, 3.0, 2.0, 1.0]), -1.0);
        // 5 pairs in order, 1 not, of 6.
        assert_eq!(tau(&[1.0, 2.0, 3.0, 4.0], &[1.0, 2.0, 4.0, 3.0]), 4.0 / 6.0);
        // 2 pairs in order, 0 not; 3 pairs untied in a, 2 in b.
        assert_eq!(tau(&[1.0, 2.0, 3.0], &[1.0, 1.0, 2.0]), 2.0 / 6_f64.sqrt());
        // 2 in order, 6 not; 2 of 10 pairs tied in a, 1 in b.
        assert_eq!(tau(&[12.0, 2.0, 1.0, 12.0, 2.0], &[1.0, 4.0, 7.0, 1.0, 0.0]), -4.0 / 72_f64.sqrt());
    }

    #[test]
    fn tau_is_none_where_it_is_not_defined() {
        assert_eq!(kendall_tau_b(&[], &[]), None);
        assert_eq!(kendall_tau_b(&[1.0], &[1.0]), None);
        assert_eq!(kendall_tau_b(&[1.0, 2.0], &[1.0]), None);
        assert_eq!(kendall_tau_b(&[1.0, 1.0], &[1.0, 2.0]), None);
        assert_eq!(kendall_tau_b(&[1.0, 2.0], &[f64::NAN, 2.0]), None);
    }

    /// τ-b by counting each kind of pair and the groups of ties apart, as textbooks write it.
    fn textbook_tau_b(a: &[i32], b: &[i32]) -> Option<f64> {
        let n = a.len();
        let pairs = || (0..n).flat_map(|i| (i + 1..n).map(move |j| (i, j)));
        let concordant =
            pairs().filter(|&(i, j)| (a[i] < a[j] && b[i] < b[j]) || (a[i] > a[j] && b[i] > b[j]));
        let discordant =
            pairs().filter(|&(i, j)| (a[i] < a[j] && b[i] > b[j]) || (a[i] > a[j] && b[i] < b[j]));
        let tied_pairs = |values: &[i32]| -> usize {
            let mut sorted = values.to_vec();
            sorted.sort_unstable();
            sorted.chunk_by(|x, y| x == y).map(|group| group.len() * (group.len() - 1) / 2).sum()
        };
        let all = n * (n - 1) / 2;
        let room = (all - tied_pairs(a)) * (all - tied_pairs(b));
        (room > 0).then(|| (concordant.count() as f64 - discordant.count() as f64) / (room as f64).sqrt())
    }

    proptest! {
        #[test]
        fn tau_is_the_textbooks_bounded_symmetric_and_odd(
            pairs in proptest::collection::vec((-4..4_i32, -4..4_i32), 2..12),
        ) {
            let (a, b): (Vec<i32>, Vec<i32>) = pairs.iter().copied().unzip();
            let float = |values: &[i32]| -> Vec<f64> { values.iter().map(|&v| f64::from(v)).collect() };
            let negated: Vec<f64> = b.iter().map(|&v| -f64::from(v)).collect();
            let tau = kendall_tau_b(&float(&a), &float(&b));
            prop_assert_eq!(tau, textbook_tau_b(&a, &b));
            prop_assert_eq!(tau, kendall_tau_b(&float(&b), &float(&a)));
            prop_assert_eq!(tau.map(|t| -t), kendall_tau_b(&float(&a), &negated));
            if let Some(tau) = tau {
                prop_assert!((-1.0 - 1e-12..=1.0 + 1e-12).contains(&tau));
            }
        }
    }
}
