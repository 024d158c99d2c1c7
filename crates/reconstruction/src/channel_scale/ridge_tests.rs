//! Tests of the ridge: when it is needed, how it grows and where it ends. Each problem has two kept channels and one
//! removed, whose products with them are (b, −b): the direction that a small ridge decides alone.

use super::*;

/// The factors of channels 0 and 1 with G_SS = `gram` and G_ST·1 = (b, −b).
fn refit(gram: [[f64; 2]; 2], b: f64) -> Result<Vec<f64>, RefitError> {
    let [[g00, g01], [g10, g11]] = gram;
    let moments = Moments::new(3, 1, vec![g00, g01, b, g10, g11, -b, b, -b, 1.0]).unwrap();
    ChannelScale.refit(Some(&moments), &ChannelSet::new(3, vec![0, 1]).unwrap())
}

fn assert_close(found: &[f64], expected: [f64; 2]) {
    let close = found.iter().zip(expected).all(|(found, expected)| (found - expected).abs() < 1e-6);
    assert!(found.len() == 2 && close, "{found:?}, expected {expected:?}");
}

#[test]
fn the_ridge_grows_tenfold_and_is_a_part_of_the_mean_diagonal() {
    // 4·[1, 1 + e; 1 + e, 1] has the eigenvalue −4·e for (1, −1). With e = 3e-6 the first ridge that lifts it is
    // 4·1e-5: then v = b / (4·(1e-5 − e)) along (1, −1), which is 1 for this b.
    let e = 3e-6;
    let gram = [[4.0, 4.0 * (1.0 + e)], [4.0 * (1.0 + e), 4.0]];
    assert_close(&refit(gram, 4.0 * (1e-5 - e)).unwrap(), [2.0, 0.0]);
}

#[test]
fn a_ridge_as_large_as_the_mean_diagonal_is_the_last_that_is_tried() {
    // The eigenvalue of (1, −1) is −0.5, with the ridge 0.5.
    assert_close(&refit([[1.0, 1.5], [1.5, 1.0]], 0.25).unwrap(), [1.5, 0.5]);
    let error = refit([[1.0, 2.5], [2.5, 1.0]], 0.25).unwrap_err();
    assert_eq!(error, RefitError::Indefinite { reconstructor: "channel-scale" });
}

#[test]
fn a_positive_pivot_that_may_be_rounding_needs_the_ridge_too() {
    // The second pivot is d = 1e-11, a tenth of what counts. With the ridge 1e-9 of the mean diagonal m:
    let (d, b) = (1e-11, 1e-9);
    let ridge = 1e-9 * (1.0 + d / 2.0);
    let determinant = 2.0 * ridge + d + ridge * d + ridge * ridge;
    let v = [b * (2.0 + d + ridge) / determinant, -b * (2.0 + ridge) / determinant];
    assert_close(&refit([[1.0, 1.0], [1.0, 1.0 + d]], b).unwrap(), v.map(|v| 1.0 + v));
    // A pivot that is larger than rounding needs none: v = b·(2 + d, −2) / d.
    let (d, b) = (1e-4, 1e-4);
    assert_close(&refit([[1.0, 1.0], [1.0, 1.0 + d]], b).unwrap(), [3.0 + d, -1.0]);
}
