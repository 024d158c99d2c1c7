//! Selections do not depend on the unit of weights and activations: evidence multiplied by a power of two gives the same
//! order and equally scaled scores, bit by bit. So no threshold may be an absolute number.

use thinet_seed::Seed;

use crate::{Evidence, Filters, Moments, Selection, addition_order, find, removal_order};

/// Rows of six channels: channel 1 is dead, 3 equals 0, 4 = 0 + 2, and there are fewer rows than channels.
const X: [f64; 30] = [
    0.7, 0.0, -0.3, 0.7, 0.4, 0.11, 0.1, 0.0, 0.9, 0.1, 1.0, -0.37, -0.2, 0.0, 0.45, -0.2, 0.25, 0.83, 0.6,
    0.0, 0.13, 0.6, 0.73, 0.29, 0.05, 0.0, -0.77, 0.05, -0.72, 0.61,
];
const CHANNELS: usize = 6;

fn select(name: &str, scale: f64, keep: usize) -> Selection {
    let x = X.map(|x| x * scale);
    let filters = Filters { channels: CHANNELS, len: 5, values: x.iter().map(|&x| x as f32).collect() };
    let evidence = Evidence {
        moments: Some(Moments::from_rows(CHANNELS, &x).unwrap()),
        filters: Some(filters),
        ..Evidence::none("conv1", CHANNELS)
    };
    find(name).unwrap().select(&evidence, keep, Seed::root(0)).unwrap()
}

#[test]
fn a_power_of_two_changes_no_order_and_multiplies_the_scores() {
    for (name, degree) in [
        ("thinet", 2),
        ("thinet-omp", 2),
        ("weight-sum-l1", 1),
        ("weight-sum-l2", 1),
        ("fpgm", 1),
        ("lasso", 0),
    ] {
        for keep in 1..=CHANNELS {
            let plain = select(name, 1.0, keep);
            for exponent in [-30, -7, 9, 30] {
                let scaled = select(name, 2_f64.powi(exponent), keep);
                assert_eq!(scaled.removed, plain.removed, "{name} at 2^{exponent}");
                let expected = plain.scores.iter().map(|score| score * 2_f64.powi(degree * exponent));
                assert_eq!(scaled.scores, expected.collect::<Vec<_>>(), "{name} at 2^{exponent}");
            }
        }
    }
}

#[test]
fn every_step_of_both_greedy_orders_is_the_same_at_any_scale() {
    let plain = Moments::from_rows(CHANNELS, &X).unwrap();
    for exponent in [-200, -40, 40, 200] {
        let scaled = Moments::from_rows(CHANNELS, &X.map(|x| x * 2_f64.powi(exponent))).unwrap();
        let squared = 2_f64.powi(2 * exponent);
        for (scaled, plain) in addition_order(&scaled).iter().zip(addition_order(&plain)) {
            assert_eq!((scaled.channel, scaled.gain), (plain.channel, plain.gain * squared), "2^{exponent}");
        }
        for (scaled, plain) in removal_order(&scaled, CHANNELS).iter().zip(removal_order(&plain, CHANNELS)) {
            let expected = (plain.channel, plain.squared_error * squared);
            assert_eq!((scaled.channel, scaled.squared_error), expected, "2^{exponent}");
        }
    }
}

#[test]
fn how_far_moments_may_be_from_symmetric_is_relative_to_both_channels() {
    // √(4·9) = 6: a difference of 6e-8 is the bound.
    let moments = |difference: f64| Moments::new(2, 1, vec![4.0, 1.0, 1.0 + difference, 9.0]);
    let below = 2_f64.powi(-24);
    assert!(5.9e-8 < below && below < 6e-8);
    let evened = moments(below).unwrap();
    assert_eq!((evened.g(0, 1), evened.g(1, 0)), (1.0 + below / 2.0, 1.0 + below / 2.0));
    assert!(moments(7e-8).is_err() && moments(-7e-8).is_err());
}
