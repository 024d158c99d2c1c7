//! ThiNet: greedy removal of the channels that the next layer misses least (Luo et al. 2017, eq. 6), in Gram form.

use thinet_seed::Seed;

use crate::{Evidence, Moments, Needs, Selection, Selector, SelectorError};

/// Removes, one at a time, the channel whose removal leaves the smallest error of the next layer's sampled outputs.
///
/// The removal order is the greedy order, so one order serves every keep rate; among equals the lowest index is removed
/// first. A score is a squared error: of a removed channel the E(T) right after it went, of a kept channel the E(T)
/// that its removal would leave next.
pub(crate) struct ThiNet;

impl Selector for ThiNet {
    fn name(&self) -> &'static str {
        "thinet"
    }

    fn about(&self) -> &'static str {
        "greedily removes the channels that the next layer misses least (Luo et al. 2017, eq. 6)"
    }

    fn needs(&self) -> Needs {
        Needs::MOMENTS
    }

    fn select(&self, evidence: &Evidence, keep: usize, _seed: Seed) -> Result<Selection, SelectorError> {
        let moments = evidence.moments_for(self.name())?;
        let count = evidence.count_to_remove(self.name(), keep)?;
        let mut greedy = Greedy::new(moments);
        let mut scores = vec![0.0; evidence.channels];
        let mut order = Vec::with_capacity(count);
        for Removal { channel, squared_error } in greedy.by_ref().take(count) {
            scores[channel] = squared_error;
            order.push(channel);
        }
        for &channel in &greedy.left {
            scores[channel] = (greedy.squared_error + greedy.increase(channel)).max(0.0);
        }
        Selection::from_order(self.name(), evidence, keep, order, scores)
    }
}

/// One step of the greedy removal.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Removal {
    /// The removed channel.
    pub channel: usize,
    /// E(T) = ‖Σ_{j in T} x_j‖² after its removal.
    pub squared_error: f64,
}

/// The first `count` steps of the greedy removal; all of them where `count` is the number of channels.
#[must_use]
pub fn removal_order(moments: &Moments, count: usize) -> Vec<Removal> {
    Greedy::new(moments).take(count).collect()
}

/// State of the greedy removal: T are the removed channels. E(T) = 1_Tᵀ·G·1_T, and removing j changes it by
/// G_jj + 2·h_j with h = G·1_T, which can be negative. A step costs O(C).
struct Greedy<'a> {
    moments: &'a Moments,
    /// Channels outside T, ascending.
    left: Vec<usize>,
    /// G_jj + 2·h_j for every channel.
    increases: Vec<f64>,
    squared_error: f64,
}

impl<'a> Greedy<'a> {
    fn new(moments: &'a Moments) -> Self {
        let left = (0..moments.channels()).collect();
        Self { moments, left, increases: moments.diagonal(), squared_error: 0.0 }
    }

    fn increase(&self, channel: usize) -> f64 {
        self.increases[channel]
    }
}

impl Iterator for Greedy<'_> {
    type Item = Removal;

    fn next(&mut self) -> Option<Removal> {
        let mut place = 0;
        let mut smallest = self.increase(*self.left.first()?);
        for (candidate, &channel) in self.left.iter().enumerate() {
            if self.increase(channel) < smallest {
                (place, smallest) = (candidate, self.increase(channel));
            }
        }
        let channel = self.left.remove(place);
        // Only rounding can make a squared norm negative.
        self.squared_error = (self.squared_error + smallest).max(0.0);
        for (increase, g) in self.increases.iter_mut().zip(self.moments.row(channel)) {
            *increase += 2.0 * g;
        }
        Some(Removal { channel, squared_error: self.squared_error })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::naive;

    /// Channels and rows of a problem, and its X with entries from `entry`.
    fn rows<S: Strategy<Value = f64> + Clone + 'static>(
        entry: S,
    ) -> impl Strategy<Value = (usize, Vec<f64>)> {
        (1..12_usize, 1..40_usize).prop_flat_map(move |(channels, rows)| {
            (Just(channels), prop::collection::vec(entry.clone(), channels * rows))
        })
    }

    fn select(channels: usize, x: &[f64], keep: usize) -> Selection {
        let moments = Some(Moments::from_rows(channels, x).unwrap());
        let evidence = Evidence { moments, ..Evidence::none("conv1", channels) };
        ThiNet.select(&evidence, keep, Seed::root(0)).unwrap()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]

        /// Integers make both versions exact, so ties, dead channels and duplicates must come out the same.
        #[test]
        fn the_gram_form_equals_the_plain_version_on_integers(
            (channels, x) in rows((-3..=3_i32).prop_map(f64::from)),
        ) {
            let gram = removal_order(&Moments::from_rows(channels, &x).unwrap(), channels);
            prop_assert_eq!(gram, naive::greedy_removal(channels, &x, channels));
        }

        #[test]
        fn the_gram_form_equals_the_plain_version_on_reals((channels, x) in rows(-0.5..1.0)) {
            let gram = removal_order(&Moments::from_rows(channels, &x).unwrap(), channels);
            let plain = naive::greedy_removal(channels, &x, channels);
            let total = plain.iter().map(|step| step.squared_error).fold(0.0, f64::max);
            for (gram, plain) in gram.iter().zip(&plain) {
                prop_assert_eq!(gram.channel, plain.channel);
                prop_assert!((gram.squared_error - plain.squared_error).abs() <= 1e-9 * total);
            }
        }

        /// E(T) = 1_Tᵀ·G·1_T, and after the last removal E = c.
        #[test]
        fn the_error_is_the_squared_norm_of_the_removed_sum((channels, x) in rows(-0.5..1.0)) {
            let moments = Moments::from_rows(channels, &x).unwrap();
            let mut gone = vec![];
            for step in removal_order(&moments, channels) {
                gone.push(step.channel);
                let error: f64 = gone.iter().flat_map(|&i| gone.iter().map(move |&j| (i, j)))
                    .map(|(i, j)| moments.g(i, j)).sum();
                prop_assert!((step.squared_error - error).abs() <= 1e-9 * moments.diagonal().iter().sum::<f64>() * channels as f64);
            }
        }
    }

    #[test]
    fn channels_that_cancel_go_together() {
        // x_0 = -x_1 are large, x_2 is small: after one of the pair is removed, removing the other cancels its error.
        let x = [4.0, -4.0, 1.0, 4.0, -4.0, 2.0];
        let order = removal_order(&Moments::from_rows(3, &x).unwrap(), 3);
        let channels: Vec<usize> = order.iter().map(|step| step.channel).collect();
        let errors: Vec<f64> = order.iter().map(|step| step.squared_error).collect();
        assert_eq!(channels, [2, 1, 0]);
        assert_eq!(errors, [5.0, 13.0, 5.0]);
    }

    #[test]
    fn scores_are_the_errors_of_removing_each_channel() {
        let selection = select(3, &[1.0, 2.0, 0.5, 1.0, 2.0, -0.5], 2);
        assert_eq!(selection.removed, [2]);
        assert_eq!(selection.scores, [0.5 + 2.0, 0.5 + 8.0, 0.5]);
    }

    #[test]
    fn equals_go_lowest_index_first() {
        assert_eq!(select(4, &[1.0; 8], 1).removed, [0, 1, 2]);
        assert_eq!(select(4, &[0.0; 8], 1).removed, [0, 1, 2]);
        assert_eq!(select(4, &[-0.0, 0.0, -0.0, 0.0], 1).removed, [0, 1, 2]);
    }
}
