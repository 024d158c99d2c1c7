//! ThiNet's greedy removal written the obvious way, over stored rows: the test oracle of the Gram form and the
//! yardstick of its benchmark. Not for use in a study.

use crate::Removal;

/// The first `count` steps of Luo et al. 2017, section 3.2.2 (eq. 6), on `x` row-major `[m, channels]`.
///
/// Carries z = Σ_{t in T} x_t over the m rows, so that a trial costs one pass over a column: O(m·C) a step. Among equals
/// the lowest index goes first.
#[must_use]
pub fn greedy_removal(channels: usize, x: &[f64], count: usize) -> Vec<Removal> {
    let mut left: Vec<usize> = (0..channels).collect();
    let mut z = vec![0.0; x.len() / channels];
    let mut order = Vec::with_capacity(count);
    while order.len() < count && !left.is_empty() {
        let mut best = Removal { channel: left[0], squared_error: f64::INFINITY };
        for &channel in &left {
            let squared_error = trial(&z, x, channels, channel);
            if squared_error < best.squared_error {
                best = Removal { channel, squared_error };
            }
        }
        for (z, row) in z.iter_mut().zip(x.chunks_exact(channels)) {
            *z += row[best.channel];
        }
        left.retain(|&channel| channel != best.channel);
        order.push(best);
    }
    order
}

/// ‖z + x_j‖².
fn trial(z: &[f64], x: &[f64], channels: usize, channel: usize) -> f64 {
    let mut sum = 0.0;
    for (z, row) in z.iter().zip(x.chunks_exact(channels)) {
        let error = z + row[channel];
        sum += error * error;
    }
    sum
}
