//! The naive form of ThiNet's greedy removal, over stored rows: the test oracle of the Gram form and the baseline of its
//! benchmark. Not for use in a study.

use crate::Removal;

/// The first `count` steps of Luo et al. 2017, section 3.2.2 (eq. 6), on `x` row-major `[m, channels]`.
///
/// Carries z = Σ_{t in T} x_t over the m rows, so that a trial costs one pass over a column: O(m·C) a step. Among equals
/// the lowest index is removed first.
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

#[cfg(test)]
mod tests {
    use super::*;

    fn channels(steps: &[Removal]) -> Vec<usize> {
        steps.iter().map(|step| step.channel).collect()
    }

    #[test]
    fn equals_go_lowest_index_first() {
        assert_eq!(channels(&greedy_removal(4, &[1.0; 8], 4)), [0, 1, 2, 3]);
        assert_eq!(channels(&greedy_removal(4, &[0.0; 8], 4)), [0, 1, 2, 3]);
        // ‖x_0‖² = ‖x_2‖² = 4 and ‖x_1‖² = 1; after x_1 and x_0 the sums of squares decide.
        let steps = greedy_removal(3, &[2.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 2.0], 3);
        assert_eq!(channels(&steps), [1, 0, 2]);
        let errors: Vec<f64> = steps.iter().map(|step| step.squared_error).collect();
        assert_eq!(errors, [1.0, 5.0, 9.0]);
    }

    #[test]
    fn exactly_as_many_go_as_are_asked_for_while_there_are_channels() {
        let x = [3.0, 1.0, 2.0];
        let all = greedy_removal(3, &x, 3);
        assert_eq!(channels(&all), [1, 2, 0]);
        for count in 0..=5 {
            assert_eq!(greedy_removal(3, &x, count), all[..count.min(3)], "{count}");
        }
    }
}
