//! Refits do not depend on the unit of activations: contributions and patches multiplied by a power of two give the same factors,
//! weights and relative errors, bit by bit. So no threshold may be an absolute number.

use thinet_graph::ChannelSet;
use thinet_selectors::Moments;

use crate::{KernelRefit, Patches, RefitInput, all, reconstruction_error};

/// Rows of five channels: channel 1 is dead, 3 equals 0, 4 = 0 + 2.
const X: [f64; 30] = [
    0.7, 0.0, -0.3, 0.7, 0.4, 0.1, 0.0, 0.9, 0.1, 1.0, -0.2, 0.0, 0.45, -0.2, 0.25, 0.6, 0.0, 0.13, 0.6,
    0.73, 0.05, 0.0, -0.77, 0.05, -0.72, 0.31, 0.0, 0.27, 0.31, 0.58,
];

#[test]
fn a_power_of_two_changes_neither_factors_nor_relative_errors() {
    let moments = |scale: f64| Moments::from_rows(5, &X.map(|x| x * scale)).unwrap();
    let plain = moments(1.0);
    for reconstructor in all() {
        for bits in 1..32_u32 {
            let kept = ChannelSet::new(5, (0..5).filter(|j| bits >> j & 1 == 1).collect()).unwrap();
            if reconstructor.reads() == RefitInput::Patches {
                let refit = |moments: &Moments| {
                    let patches = Patches { moments, taps: 1, weights: &[1.0, -0.5, 0.25, 2.0, 0.75] };
                    let refit = reconstructor.refit_kernels(&patches, &kept).unwrap();
                    (refit.weights.clone(), KernelRefit::error(&[refit]))
                };
                for exponent in [-200, -40, -7, 9, 40, 200] {
                    assert_eq!(refit(&moments(2_f64.powi(exponent))), refit(&plain), "2^{exponent}");
                }
                continue;
            }
            let scale = reconstructor.refit(Some(&plain), &kept).unwrap();
            let error = reconstruction_error(&plain, &kept, &scale);
            for exponent in [-200, -40, -7, 9, 40, 200] {
                let scaled = moments(2_f64.powi(exponent));
                let name = reconstructor.name();
                assert_eq!(reconstructor.refit(Some(&scaled), &kept).unwrap(), scale, "{name} 2^{exponent}");
                assert_eq!(reconstruction_error(&scaled, &kept, &scale), error, "{name} 2^{exponent}");
            }
        }
    }
}
