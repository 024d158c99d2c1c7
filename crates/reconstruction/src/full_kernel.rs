//! Least squares over all weights of the next layer that read the kept channels, the second half of He, Zhang and Sun 2017 ("Channel
//! pruning for accelerating very deep neural networks", eq. 4), where Luo et al. 2017 refit one factor a channel.

use thinet_graph::ChannelSet;
use thinet_selectors::Moments;

use crate::least_squares::{Factor, factor, solve};
use crate::{KernelRefit, Patches, Reconstructor, RefitError, RefitInput};

/// Gives each filter of the next layer the weights v = argmin ‖P·w − P_S·v‖², P being the sampled patches and w the filter before the cut.
///
/// Solved for the correction δ = v − w_S, all filters with one factor: G_SS·δ = G_ST·w_T, with G = PᵀP and T the weights of the removed
/// channels. A ridge, where G_SS is singular, pulls v towards the weights as they were: the error never exceeds theirs, and weights that
/// no patch shows stay as they are. Needs more sampled patches than a filter has weights, or it fits the sample alone.
///
/// Memory: G and the factor of G_SS, 8·(C·k²)² and 4·(|S|·k²)² bytes; 170 and 21 MB where half of 512 channels of 3×3 are kept.
pub(crate) struct FullKernel;

impl Reconstructor for FullKernel {
    fn name(&self) -> &'static str {
        "full-kernel"
    }

    fn about(&self) -> &'static str {
        "gives the next layer the least-squares weights of the kept channels (He et al. 2017, eq. 4)"
    }

    fn reads(&self) -> RefitInput {
        RefitInput::Patches
    }

    fn refit(&self, _moments: Option<&Moments>, _kept: &ChannelSet) -> Result<Vec<f64>, RefitError> {
        Err(RefitError::OtherInput { reconstructor: self.name(), input: "contribution moments" })
    }

    fn refit_kernels(&self, patches: &Patches<'_>, kept: &ChannelSet) -> Result<KernelRefit, RefitError> {
        let reconstructor = self.name();
        let &Patches { moments, taps, weights } = patches;
        let length = kept.width() * taps;
        if length == 0 || moments.channels() != length || !weights.len().is_multiple_of(length) {
            let expected =
                format!("patches and filters of {} channels with {taps} weights each", kept.width());
            let found = format!("patches of {} values and {} weights", moments.channels(), weights.len());
            return Err(RefitError::PatchMismatch { reconstructor, expected, found });
        }
        let columns = |channels: &[usize]| -> Vec<usize> {
            channels.iter().flat_map(|&channel| channel * taps..(channel + 1) * taps).collect()
        };
        let (stay, gone) = (columns(kept.kept()), columns(&kept.removed()));
        let lower: Vec<Vec<f64>> = (stay.iter().enumerate())
            .map(|(i, &column)| stay[..=i].iter().map(|&other| moments.g(column, other)).collect())
            .collect();
        let factor = factor(&lower).ok_or(RefitError::Indefinite { reconstructor })?;
        let mut refit = KernelRefit::default();
        for filter in weights.chunks_exact(length) {
            let missing =
                stay.iter().map(|&i| gone.iter().fold(0.0, |sum, &j| sum + moments.g(i, j) * filter[j]));
            let correction = match &factor {
                Factor::OfZero => vec![0.0; stay.len()],
                Factor::Lower(lower) => solve(lower, missing.collect()),
            };
            refit.weights.extend(
                stay.iter().zip(&correction).map(|(&column, correction)| filter[column] + correction),
            );
            // What is missing is P·u, with u = w for removed weights and −δ for kept ones.
            let mut without = vec![0.0; length];
            gone.iter().for_each(|&column| without[column] = filter[column]);
            refit.output += moments.squared_norm(filter);
            refit.before += moments.squared_norm(&without);
            stay.iter().zip(&correction).for_each(|(&column, correction)| without[column] = -correction);
            refit.after += moments.squared_norm(&without);
        }
        Ok(refit)
    }
}

#[cfg(test)]
mod tests {
    use nalgebra::{DMatrix, DVector};
    use proptest::prelude::*;

    use super::*;

    fn refit(taps: usize, rows: &[f64], weights: &[f64], kept: &ChannelSet) -> KernelRefit {
        let moments = Moments::from_rows(kept.width() * taps, rows).unwrap();
        FullKernel.refit_kernels(&Patches { moments: &moments, taps, weights }, kept).unwrap()
    }

    /// Filters of one layer, patches that it reads, and channels that stay.
    fn layers(
        rows: std::ops::Range<usize>,
    ) -> impl Strategy<Value = (usize, usize, Vec<usize>, Vec<f64>, Vec<f64>)> {
        (2..5_usize, 1..4_usize, rows, 1..4_usize).prop_flat_map(|(channels, taps, rows, filters)| {
            let length = channels * taps;
            (
                Just(channels),
                Just(taps),
                prop::sample::subsequence((0..channels).collect::<Vec<_>>(), 1..channels),
                prop::collection::vec(-0.7..1.0, length * rows),
                prop::collection::vec(-0.5..0.5, length * filters),
            )
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        /// The plain way: least squares on the patches themselves, filter by filter.
        #[test]
        fn weights_and_errors_equal_least_squares_on_the_patches((channels, taps, kept, x, w) in layers(30..50)) {
            let kept = ChannelSet::new(channels, kept).unwrap();
            let found = refit(taps, &x, &w, &kept);
            let length = channels * taps;
            let patches = DMatrix::from_row_slice(x.len() / length, length, &x);
            let stay: Vec<usize> = kept.kept().iter().flat_map(|&c| c * taps..(c + 1) * taps).collect();
            let of_kept = patches.select_columns(&stay);
            let qr = of_kept.clone().qr();
            let (mut output, mut before, mut after, mut plain) = (0.0, 0.0, 0.0, Vec::new());
            for filter in w.chunks_exact(length) {
                let y = &patches * DVector::from_column_slice(filter);
                let v = qr.r().solve_upper_triangular(&(qr.q().transpose() * &y)).unwrap();
                let as_before = DVector::from_iterator(stay.len(), stay.iter().map(|&column| filter[column]));
                output += y.norm_squared();
                before += (&y - &of_kept * as_before).norm_squared();
                after += (&y - &of_kept * &v).norm_squared();
                plain.extend_from_slice(v.as_slice());
            }
            prop_assert_eq!(found.weights.len(), plain.len());
            for (found, plain) in found.weights.iter().zip(&plain) {
                prop_assert!((found - plain).abs() < 1e-7, "{} and {}", found, plain);
            }
            for (found, plain) in [(found.output, output), (found.before, before), (found.after, after)] {
                prop_assert!((found - plain).abs() < 1e-8 * (1.0 + output), "{} and {}", found, plain);
            }
        }

        /// Fewer patches than weights: the sample is fitted, and nothing becomes worse.
        #[test]
        fn the_error_never_rises_and_weights_are_finite((channels, taps, kept, x, w) in layers(1..8)) {
            let kept = ChannelSet::new(channels, kept).unwrap();
            let found = refit(taps, &x, &w, &kept);
            prop_assert!(found.weights.iter().all(|v| v.is_finite()));
            prop_assert!(found.after <= found.before * (1.0 + 1e-9) + 1e-12 * found.output, "{:?}", found);
        }
    }

    #[test]
    fn a_kept_channel_takes_over_what_a_removed_one_said() {
        // Two channels of one tap; the second is always twice the first. w = (1, 3): the output is 7 times the first.
        let kept = ChannelSet::new(2, vec![0]).unwrap();
        let found = refit(1, &[1.0, 2.0, -2.0, -4.0, 0.5, 1.0], &[1.0, 3.0], &kept);
        assert!((found.weights[0] - 7.0).abs() < 1e-9 && found.weights.len() == 1, "{found:?}");
        let error = KernelRefit::error(&[found]);
        assert!((error.before - 6.0 / 7.0).abs() < 1e-12 && error.after < 1e-9, "{error:?}");
    }

    #[test]
    fn weights_stay_where_nothing_is_removed_or_nothing_was_seen() {
        let w = [0.5, -0.25, 0.125, 1.0];
        let all = ChannelSet::all(2).unwrap();
        assert_eq!(refit(2, &[0.3; 16], &w, &all).weights, w);
        let one = ChannelSet::new(2, vec![1]).unwrap();
        let unseen = refit(2, &[0.0; 16], &w, &one);
        assert_eq!(unseen, KernelRefit { weights: vec![0.125, 1.0], ..KernelRefit::default() });
        assert_eq!(KernelRefit::error(&[unseen]), crate::ReconstructionError { before: 0.0, after: 0.0 });
    }

    #[test]
    fn patches_of_another_layer_and_contributions_are_refused() {
        let moments = Moments::from_rows(4, &[1.0; 8]).unwrap();
        let kept = ChannelSet::new(3, vec![0]).unwrap();
        let error =
            FullKernel.refit_kernels(&Patches { moments: &moments, taps: 2, weights: &[0.0; 6] }, &kept);
        assert_eq!(
            error.unwrap_err().to_string(),
            "reconstruction \"full-kernel\" got patches of 4 values and 6 weights, expected patches and filters of 3 channels with 2 \
             weights each"
        );
        let error = FullKernel.refit(Some(&moments), &ChannelSet::all(4).unwrap()).unwrap_err().to_string();
        assert_eq!(error, "reconstruction \"full-kernel\" is not computed from contribution moments");
    }
}
