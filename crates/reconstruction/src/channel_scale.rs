//! One least-squares factor per kept channel: the paper's w (Luo et al. 2017, eq. 7).

use thinet_graph::ChannelSet;
use thinet_selectors::Moments;

use crate::least_squares::{Factor, factor, solve};
use crate::{Reconstructor, RefitError, RefitInput};

/// Scales the kept channels by w = argmin ‖y − X_S·w‖².
///
/// Solved for the correction v = w − 1: G_SS·v = G_ST·1, with T the removed channels. Where G_SS is singular or nearly so
/// (dead, duplicate or dependent channels), a ridge is added to its diagonal ([`factor`]). The ridge pulls w towards 1, not 0: the error never exceeds that of w = 1, channels
/// without evidence stay as they are, and duplicates share a correction evenly.
pub(crate) struct ChannelScale;

impl Reconstructor for ChannelScale {
    fn name(&self) -> &'static str {
        "channel-scale"
    }

    fn about(&self) -> &'static str {
        "multiplies each kept channel by its least-squares factor w (Luo et al. 2017, eq. 7)"
    }

    fn reads(&self) -> RefitInput {
        RefitInput::Contributions
    }

    fn refit(&self, moments: Option<&Moments>, kept: &ChannelSet) -> Result<Vec<f64>, RefitError> {
        let reconstructor = self.name();
        let moments = moments.ok_or(RefitError::MissingMoments { reconstructor })?;
        if moments.channels() != kept.width() {
            let (expected, found) = (kept.width(), moments.channels());
            return Err(RefitError::ChannelMismatch { reconstructor, expected, found });
        }
        let gram = kept_gram(moments, kept.kept());
        let missing = removed_products(moments, kept);
        let solution = match factor(&gram).ok_or(RefitError::Indefinite { reconstructor })? {
            Factor::OfZero => vec![0.0; kept.len()],
            Factor::Lower(lower) => solve(&lower, missing),
        };
        Ok(solution.into_iter().map(|v| 1.0 + v).collect())
    }
}

/// The lower triangle of G_SS, row by row.
fn kept_gram(moments: &Moments, kept: &[usize]) -> Vec<Vec<f64>> {
    let row =
        |(i, &channel): (usize, &usize)| kept[..=i].iter().map(|&other| moments.g(channel, other)).collect();
    kept.iter().enumerate().map(row).collect()
}

/// G_ST·1: what the kept channels have in common with the sum of the removed ones.
fn removed_products(moments: &Moments, kept: &ChannelSet) -> Vec<f64> {
    let removed = kept.removed();
    let product = |&i: &usize| removed.iter().fold(0.0, |sum, &j| sum + moments.g(i, j));
    kept.kept().iter().map(product).collect()
}

#[cfg(test)]
mod ridge_tests;

#[cfg(test)]
mod tests {
    use nalgebra::{DMatrix, DVector};
    use proptest::prelude::*;

    use super::*;
    use crate::reconstruction_error;

    fn refit(channels: usize, x: &[f64], kept: &[usize]) -> Vec<f64> {
        let moments = Moments::from_rows(channels, x).unwrap();
        ChannelScale.refit(Some(&moments), &ChannelSet::new(channels, kept.to_vec()).unwrap()).unwrap()
    }

    fn close(found: &[f64], expected: &[f64], tolerance: f64) -> bool {
        found.len() == expected.len() && found.iter().zip(expected).all(|(f, e)| (f - e).abs() <= tolerance)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]

        #[test]
        fn scales_equal_least_squares_on_the_rows(
            (channels, kept, x) in (2..10_usize, 8..30_usize).prop_flat_map(|(channels, extra)| (
                Just(channels),
                prop::sample::subsequence((0..channels).collect::<Vec<_>>(), 1..channels),
                prop::collection::vec(-0.7..1.0, channels * (2 * channels + extra)),
            )),
        ) {
            let found = refit(channels, &x, &kept);
            let x = DMatrix::from_row_slice(x.len() / channels, channels, &x);
            let qr = x.select_columns(&kept).qr();
            let plain = qr.r().solve_upper_triangular(&(qr.q().transpose() * x.column_sum())).unwrap();
            prop_assert!(close(&found, plain.as_slice(), 1e-8), "{:?} and {}", found, plain);
        }

        /// Small integers give dead, duplicate and dependent channels, and more channels than rows.
        #[test]
        fn the_error_never_rises_and_scales_are_finite(
            (channels, kept, x) in (2..12_usize, 1..12_usize).prop_flat_map(|(channels, rows)| (
                Just(channels),
                prop::sample::subsequence((0..channels).collect::<Vec<_>>(), 1..channels),
                prop::collection::vec((-1..=1_i32).prop_map(f64::from), channels * rows),
            )),
        ) {
            let found = refit(channels, &x, &kept);
            prop_assert!(found.iter().all(|w| w.is_finite()), "{:?}", found);
            let moments = Moments::from_rows(channels, &x).unwrap();
            let error = reconstruction_error(&moments, &ChannelSet::new(channels, kept).unwrap(), &found);
            prop_assert!(error.after <= error.before * (1.0 + 1e-9), "{:?}", error);
        }

        /// The ridge costs next to nothing: singular problems meet the condition of least error, X_Sᵀ·(y − X_S·w) = 0.
        #[test]
        fn singular_problems_reach_the_least_error(
            (channels, kept, x) in (2..12_usize, 1..12_usize).prop_flat_map(|(channels, rows)| (
                Just(channels),
                prop::sample::subsequence((0..channels).collect::<Vec<_>>(), 1..channels),
                prop::collection::vec((-1..=1_i32).prop_map(f64::from), channels * rows),
            )),
        ) {
            let w = DVector::from_vec(refit(channels, &x, &kept));
            let x = DMatrix::from_row_slice(x.len() / channels, channels, &x);
            let x_s = x.select_columns(&kept);
            let gradient = x_s.transpose() * (x.column_sum() - &x_s * &w);
            prop_assert!(gradient.amax() <= 1e-6 * (1.0 + w.amax()), "{}", gradient);
        }
    }

    #[test]
    fn a_planted_scale_is_recovered() {
        // Channel 2 is half of channel 0 and a quarter of channel 1.
        let (a, b) = ([1.0, 2.0, -1.0], [0.5, -2.0, 4.0]);
        let x: Vec<f64> = a.iter().zip(&b).flat_map(|(a, b)| [*a, *b, 0.5 * a + 0.25 * b]).collect();
        assert!(close(&refit(3, &x, &[0, 1]), &[1.5, 1.25], 1e-12));
    }

    #[test]
    fn duplicates_share_what_a_removed_twin_leaves() {
        assert!(close(&refit(3, &[1.0, 1.0, 1.0, 2.0, 2.0, 2.0], &[0, 1]), &[1.5, 1.5], 1e-6));
    }

    #[test]
    fn dead_channels_stay_as_they_are() {
        assert_eq!(refit(3, &[0.0; 6], &[0, 2]), [1.0, 1.0]);
        assert!(close(&refit(3, &[0.0, 2.0, 2.0, 0.0, 1.0, 1.0], &[0, 1]), &[1.0, 2.0], 1e-6));
    }

    #[test]
    fn nothing_removed_changes_nothing() {
        assert_eq!(refit(3, &[0.3, -0.7, 0.2, 0.9, 0.4, 0.1], &[0, 1, 2]), [1.0, 1.0, 1.0]);
    }

    #[test]
    fn a_matrix_that_no_rows_can_give_is_refused() {
        let moments = Moments::new(3, 1, vec![1.0, 9.0, 0.0, 9.0, 1.0, 0.0, 0.0, 0.0, 1.0]).unwrap();
        let kept = ChannelSet::new(3, vec![0, 1]).unwrap();
        let error = ChannelScale.refit(Some(&moments), &kept).unwrap_err();
        assert_eq!(
            error.to_string(),
            "reconstruction \"channel-scale\" got moments that are not positive semidefinite"
        );
    }
}
