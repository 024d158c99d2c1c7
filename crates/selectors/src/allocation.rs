//! Widths of all layers from one ranking of their channels: a global allocation.
//!
//! The scores of a selector are made comparable between layers by a [`Normalisation`], and the channel with the smallest normalised
//! score of all layers is removed first. A layer at its [floor](least_kept) loses no more channels.

use std::cmp::Ordering;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use thinet_graph::{ChannelSet, GraphError};

/// The share of a layer's channels that stays whatever their scores, as in PruningBench (Li et al. 2024, arXiv 2406.12315).
pub const FLOOR: f64 = 0.1;

/// By what the scores of a layer are divided before layers are compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Normalisation {
    /// The mean of their absolute values, the default of Torch-Pruning (Fang et al. 2023).
    #[default]
    Mean,
    /// The largest absolute value.
    Max,
    /// Their Euclidean norm (Molchanov et al. 2017).
    L2,
    /// Nothing: scores are compared as they are (Liu et al. 2017 for the scales of batch normalisation).
    None,
}

impl Normalisation {
    /// The normalised scores of a layer. Scores that are all zero stay zero.
    ///
    /// All but `None` divide by the largest absolute value first: nothing overflows, and two layers whose scores are multiples of each
    /// other have equal normalised scores.
    #[must_use]
    pub fn apply(self, scores: &[f64]) -> Vec<f64> {
        let largest = scores.iter().fold(0.0, |largest: f64, score| largest.max(score.abs()));
        if self == Self::None || largest == 0.0 {
            return scores.to_vec();
        }
        let scaled: Vec<f64> = scores.iter().map(|score| score / largest).collect();
        let sum = |of: fn(f64) -> f64| scaled.iter().fold(0.0, |sum, &score| sum + of(score));
        let divisor = match self {
            Self::Mean => sum(f64::abs) / scores.len() as f64,
            Self::L2 => sum(|score| score * score).sqrt(),
            Self::Max | Self::None => 1.0,
        };
        scaled.into_iter().map(|score| score / divisor).collect()
    }
}

/// The fewest channels that a global allocation leaves in a layer of so many: a tenth, rounded up, and at least one.
#[must_use]
pub fn least_kept(channels: usize) -> usize {
    // In whole numbers, as 0.1 is no binary fraction.
    channels.div_ceil(10).max(1)
}

/// All removable channels of all layers in one order: the smallest normalised score first; among equals the first layer, then the
/// lowest index. Each layer keeps [`least_kept`] channels, those with its largest scores.
#[derive(Clone, Debug, PartialEq)]
pub struct Ranking {
    /// Channels of each layer.
    channels: Vec<usize>,
    /// Layer and channel, first removed first.
    removals: Vec<(usize, usize)>,
}

impl Ranking {
    /// Ranks the channels of layers by their scores, one list for each layer; the channel with the smallest score matters least.
    /// Scores are finite.
    #[must_use]
    pub fn new(layers: &[Vec<f64>], normalisation: Normalisation) -> Self {
        let channels: Vec<usize> = layers.iter().map(Vec::len).collect();
        let mut all = Vec::new();
        for (layer, scores) in layers.iter().enumerate() {
            let normalised = normalisation.apply(scores);
            let mut order: Vec<usize> = (0..scores.len()).collect();
            // By the scores themselves, as a quotient can round two of them to one number.
            order.sort_by(|&a, &b| compare(scores[a], scores[b]));
            all.extend(order.into_iter().map(|channel| (layer, channel, normalised[channel])));
        }
        // The sort keeps the order of equals.
        all.sort_by(|(.., a), (.., b)| compare(*a, *b));
        let mut spare: Vec<usize> =
            channels.iter().map(|&channels| channels - least_kept(channels)).collect();
        let mut removals = Vec::new();
        for (layer, channel, _) in all {
            if spare[layer] > 0 {
                spare[layer] -= 1;
                removals.push((layer, channel));
            }
        }
        Self { channels, removals }
    }

    /// Channels of all layers.
    #[must_use]
    pub fn channels(&self) -> usize {
        self.channels.iter().sum()
    }

    /// The number of channels that can be removed: all but the floors.
    #[must_use]
    pub fn removable(&self) -> usize {
        self.removals.len()
    }

    /// Channels that stay in each layer once the first `removed` channels are removed; all removable ones if there are fewer.
    #[must_use]
    pub fn widths(&self, removed: usize) -> Vec<usize> {
        let mut widths = self.channels.clone();
        self.removals.iter().take(removed).for_each(|&(layer, _)| widths[layer] -= 1);
        widths
    }

    /// The channels that stay in each layer once the first `removed` channels are removed.
    ///
    /// # Errors
    /// If a layer has no channels.
    pub fn kept(&self, removed: usize) -> Result<Vec<ChannelSet>, GraphError> {
        let mut stays: Vec<Vec<bool>> = self.channels.iter().map(|&channels| vec![true; channels]).collect();
        self.removals.iter().take(removed).for_each(|&(layer, channel)| stays[layer][channel] = false);
        let set = |stays: &Vec<bool>| {
            ChannelSet::new(stays.len(), (0..stays.len()).filter(|&channel| stays[channel]).collect())
        };
        stays.iter().map(set).collect()
    }

    /// The fewest channels to remove so that the widths meet a condition; `None` if they do not with all removable ones removed.
    /// Widths that meet it must meet it with more channels removed, as a limit of FLOPs.
    ///
    /// # Errors
    /// Those of `meets`.
    pub fn fewest<E>(&self, mut meets: impl FnMut(&[usize]) -> Result<bool, E>) -> Result<Option<usize>, E> {
        if !meets(&self.widths(self.removable()))? {
            return Ok(None);
        }
        let (mut too_few, mut enough) = (None, self.removable());
        while too_few.map_or(0, |n| n + 1) < enough {
            let middle = too_few.map_or(0, |n: usize| n + 1).midpoint(enough);
            if meets(&self.widths(middle))? { enough = middle } else { too_few = Some(middle) }
        }
        Ok(Some(enough))
    }
}

/// Both zeros are one score.
fn compare(a: f64, b: f64) -> Ordering {
    (a + 0.0).total_cmp(&(b + 0.0))
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use proptest::prelude::*;

    use super::*;

    fn kept(ranking: &Ranking, removed: usize) -> Vec<Vec<usize>> {
        ranking.kept(removed).unwrap().iter().map(|set| set.kept().to_vec()).collect()
    }

    #[test]
    fn scores_are_divided_by_what_their_name_says() {
        let scores = [3.0, -4.0, 0.0, 5.0];
        assert_eq!(Normalisation::None.apply(&scores), scores);
        assert_eq!(Normalisation::Max.apply(&scores), [0.6, -0.8, 0.0, 1.0]);
        // Mean of absolute values 3, norm √50.
        for (normalisation, divisor) in [(Normalisation::Mean, 3.0), (Normalisation::L2, 50.0_f64.sqrt())] {
            for (found, score) in normalisation.apply(&scores).iter().zip(scores) {
                assert!((found - score / divisor).abs() < 1e-15, "{normalisation:?}: {found}");
            }
        }
        for normalisation in [Normalisation::None, Normalisation::Max, Normalisation::Mean, Normalisation::L2]
        {
            assert_eq!(normalisation.apply(&[0.0, 0.0]), [0.0, 0.0]);
            let huge = normalisation.apply(&[f64::MAX, f64::MAX / 2.0]);
            assert!(huge.iter().all(|score| score.is_finite()) && huge[0] > huge[1], "{normalisation:?}");
        }
    }

    #[test]
    fn the_smallest_score_of_all_layers_goes_first() {
        // Maxima 4 and 100, so normalised 0.25, 1, 0.5 and 0.1, 0.3, 1.
        let layers = [vec![1.0, 4.0, 2.0], vec![10.0, 30.0, 100.0]];
        let ranking = Ranking::new(&layers, Normalisation::Max);
        assert_eq!(ranking.removals, [(1, 0), (0, 0), (1, 1), (0, 2)]);
        assert_eq!((ranking.channels(), ranking.removable()), (6, 4));
        assert_eq!(ranking.widths(3), [2, 1]);
        assert_eq!(kept(&ranking, 3), [vec![1, 2], vec![2]]);
        assert_eq!(kept(&ranking, 0), [vec![0, 1, 2], vec![0, 1, 2]]);
        // As they are, the first layer's are all smaller, and its last channel stays.
        let ranking = Ranking::new(&layers, Normalisation::None);
        assert_eq!(ranking.removals, [(0, 0), (0, 2), (1, 0), (1, 1)]);
        // Means 7/3 and 140/3: 0.43, 1.71, 0.86 and 0.21, 0.64, 2.14.
        let ranking = Ranking::new(&layers, Normalisation::Mean);
        assert_eq!(ranking.removals, [(1, 0), (0, 0), (1, 1), (0, 2)]);
    }

    #[test]
    fn equals_go_by_layer_and_then_by_index() {
        // Multiples of each other, and both zeros.
        for normalisation in [Normalisation::Mean, Normalisation::Max, Normalisation::L2] {
            let ranking = Ranking::new(&[vec![3.0, 1.0, 1.0], vec![2.1, 0.7, 0.7]], normalisation);
            assert_eq!(ranking.removals, [(0, 1), (0, 2), (1, 1), (1, 2)], "{normalisation:?}");
        }
        let ranking = Ranking::new(&[vec![1.0, 0.0], vec![-0.0, 1.0]], Normalisation::None);
        assert_eq!(ranking.removals, [(0, 1), (1, 0)]);
    }

    #[test]
    fn a_tenth_of_each_layer_stays_rounded_up() {
        assert_eq!([1, 2, 10, 11, 20, 64, 512].map(least_kept), [1, 1, 1, 2, 2, 7, 52]);
        assert!([1, 9, 10, 11, 25, 30, 70, 512].iter().all(|&c| least_kept(c) as f64 >= FLOOR * c as f64));
        // All of the first layer are smaller: two of its eleven stay, those with the largest scores.
        let low: Vec<f64> = (0..11).map(|channel| f64::from(channel) / 100.0).collect();
        let ranking = Ranking::new(&[low, vec![1.0, 2.0, 3.0]], Normalisation::None);
        assert_eq!(ranking.widths(9), [2, 3]);
        assert_eq!(ranking.widths(10), [2, 2]);
        assert_eq!(kept(&ranking, usize::MAX), [vec![9, 10], vec![2]]);
        // Nothing can go.
        assert_eq!(Ranking::new(&[vec![1.0], vec![0.0]], Normalisation::Mean).removable(), 0);
    }

    #[test]
    fn as_few_as_possible_are_removed_to_meet_a_condition() {
        let ranking = Ranking::new(&[vec![1.0, 4.0, 2.0], vec![10.0, 30.0, 100.0]], Normalisation::Max);
        // Products of widths after 0 to 4 removals: 9, 6, 4, 2, 1.
        let fewest = |most: usize| {
            ranking.fewest(|widths| Ok::<_, Infallible>(widths.iter().product::<usize>() <= most)).unwrap()
        };
        assert_eq!(
            [9, 8, 6, 5, 4, 3, 2, 1, 0].map(fewest).map(|n| n.map_or(-1, |n| n as i32)),
            [0, 1, 1, 2, 2, 3, 3, 4, -1]
        );
    }

    proptest! {
        #[test]
        fn no_layer_goes_below_its_floor_and_every_reachable_number_is_met(
            layers in prop::collection::vec(prop::collection::vec(-2.0..2.0_f64, 1..40), 1..6),
            normalisation in prop::sample::select(vec![
                Normalisation::None, Normalisation::Mean, Normalisation::Max, Normalisation::L2,
            ]),
            asked in 0.0..1.0_f64,
        ) {
            let ranking = Ranking::new(&layers, normalisation);
            let floors: Vec<usize> = layers.iter().map(|layer| least_kept(layer.len())).collect();
            let (all, least) = (ranking.channels(), floors.iter().sum::<usize>());
            prop_assert_eq!(ranking.removable(), all - least);
            for removed in 0..=ranking.removable() {
                let widths = ranking.widths(removed);
                prop_assert_eq!(widths.iter().sum::<usize>(), all - removed);
                prop_assert!(widths.iter().zip(&floors).all(|(width, floor)| width >= floor && *width > 0));
                let kept = ranking.kept(removed).unwrap();
                prop_assert_eq!(&kept.iter().map(ChannelSet::len).collect::<Vec<_>>(), &widths);
                // Of a layer the channels with the largest scores stay.
                for (set, scores) in kept.iter().zip(&layers) {
                    let stay = set.kept().iter().map(|&channel| scores[channel]).fold(f64::MAX, f64::min);
                    let gone = set.removed().into_iter().map(|channel| scores[channel]);
                    prop_assert!(gone.fold(f64::MIN, f64::max) <= stay);
                }
            }
            // A limit on the product of widths, found one by one.
            let limit = layers.iter().map(Vec::len).product::<usize>() as f64 * asked;
            let meets = |widths: &[usize]| widths.iter().product::<usize>() as f64 <= limit;
            let expected = (0..=ranking.removable()).find(|&removed| meets(&ranking.widths(removed)));
            prop_assert_eq!(ranking.fewest(|widths| Ok::<_, Infallible>(meets(widths))), Ok(expected));
        }
    }
}
