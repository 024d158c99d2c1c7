//! The reconstruction error of a cut, without and with a refit, relative to the size of the output (Luo et al. 2017,
//! eq. 6 and 7).

use thinet_graph::ChannelSet;
use thinet_selectors::Moments;

/// The relative error of the sampled outputs y of the next layer, computed from the kept channels; 0 where y is all zero.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ReconstructionError {
    /// ‖y − X_S·1‖₂ / ‖y‖₂: the kept channels as they are.
    pub before: f64,
    /// ‖y − X_S·w‖₂ / ‖y‖₂: the kept channels scaled.
    pub after: f64,
}

/// The reconstruction error of keeping `kept`, as they are and multiplied by `scale` (one factor per kept channel).
///
/// As y = X·1, the residual is X·u with u = 1 for removed and 1 − w for kept channels: ‖X·u‖² = uᵀG·u, which loses less
/// to cancellation than c − 2·w·b_S + w·G_SS·w.
///
/// # Panics
/// If `moments`, `kept` and `scale` are not of one layer.
#[must_use]
pub fn reconstruction_error(moments: &Moments, kept: &ChannelSet, scale: &[f64]) -> ReconstructionError {
    assert_eq!(kept.width(), moments.channels(), "kept channels and moments are of different layers");
    assert_eq!(kept.len(), scale.len(), "one scale per kept channel");
    let c = moments.c();
    if c <= 0.0 {
        return ReconstructionError { before: 0.0, after: 0.0 };
    }
    let mut missing = vec![1.0; moments.channels()];
    for &channel in kept.kept() {
        missing[channel] = 0.0;
    }
    let before = moments.squared_norm(&missing);
    for (&channel, scale) in kept.kept().iter().zip(scale) {
        missing[channel] = 1.0 - scale;
    }
    let after = moments.squared_norm(&missing);
    ReconstructionError { before: (before / c).sqrt(), after: (after / c).sqrt() }
}

#[cfg(test)]
mod tests {
    use nalgebra::{DMatrix, DVector};
    use proptest::prelude::*;

    use super::*;

    fn keep(width: usize, kept: &[usize]) -> ChannelSet {
        ChannelSet::new(width, kept.to_vec()).unwrap()
    }

    proptest! {
        /// Against ‖y − X_S·w‖ / ‖y‖ on the rows, and against the formula of the fact sheet on G, b and c.
        #[test]
        fn errors_equal_those_of_the_rows(
            (channels, x, scale, stays) in (2..8_usize, 1..20_usize).prop_flat_map(|(channels, rows)| (
                Just(channels),
                prop::collection::vec(-0.5..1.0, channels * rows),
                prop::collection::vec(-2.0..2.0, channels),
                prop::collection::vec(any::<bool>(), channels),
            )),
        ) {
            let mut kept: Vec<usize> = (0..channels).filter(|&j| stays[j]).collect();
            if kept.is_empty() {
                kept.push(0);
            }
            let scale = &scale[..kept.len()];
            let moments = Moments::from_rows(channels, &x).unwrap();
            let error = reconstruction_error(&moments, &keep(channels, &kept), scale);

            let x = DMatrix::from_row_slice(x.len() / channels, channels, &x);
            let y = x.column_sum();
            let x_s = x.select_columns(&kept);
            let before = (&y - x_s.column_sum()).norm();
            let after = (&y - &x_s * DVector::from_column_slice(scale)).norm();
            let tolerance = 1e-6 * (1.0 + y.norm());
            prop_assert!((error.before * y.norm() - before).abs() <= tolerance);
            prop_assert!((error.after * y.norm() - after).abs() <= tolerance);

            let b = moments.b();
            let mut squared = moments.c();
            for (&i, w_i) in kept.iter().zip(scale) {
                squared -= 2.0 * w_i * b[i];
                squared += kept.iter().zip(scale).map(|(&j, w_j)| w_i * w_j * moments.g(i, j)).sum::<f64>();
            }
            prop_assert!((after * after - squared).abs() <= 1e-9 * (1.0 + moments.c() + squared.abs()));
        }
    }

    #[test]
    fn removing_a_known_part_gives_its_share() {
        // y = 3 + 4 in orthogonal rows: without the second channel 4 of ‖y‖ = 5 are missing.
        let moments = Moments::from_rows(2, &[3.0, 0.0, 0.0, 4.0]).unwrap();
        let error = reconstruction_error(&moments, &keep(2, &[0]), &[0.0]);
        assert_eq!(error, ReconstructionError { before: 0.8, after: 1.0 });
    }

    #[test]
    fn an_output_of_zeros_has_no_error() {
        let dead = Moments::from_rows(2, &[0.0; 6]).unwrap();
        let cancelling = Moments::from_rows(2, &[1.0, -1.0]).unwrap();
        for moments in [dead, cancelling] {
            let error = reconstruction_error(&moments, &keep(2, &[1]), &[1.0]);
            assert_eq!(error, ReconstructionError { before: 0.0, after: 0.0 });
        }
    }

    #[test]
    fn keeping_all_has_no_error() {
        let moments = Moments::from_rows(3, &[0.1, 0.7, -0.3, 0.2, 0.9, 0.4]).unwrap();
        let error = reconstruction_error(&moments, &ChannelSet::all(3).unwrap(), &[1.0; 3]);
        assert_eq!(error, ReconstructionError { before: 0.0, after: 0.0 });
    }
}
