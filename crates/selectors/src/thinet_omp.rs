//! ThiNet with refit: forward selection as in the authors' later code (Luo et al. 2019), which is orthogonal matching
//! pursuit, in Gram form.

use thinet_seed::Seed;

use crate::{Evidence, Moments, Needs, Selection, Selector, SelectorError};

/// Adds, one at a time, the channel that fits the residual best, and refits all factors after each.
///
/// A step picks the j with the largest (x_jᵀe)² / x_jᵀx_j, e the residual of the least-squares fit of y = X·1 by the
/// channels picked so far; among equals the lowest index is added first. The order of addition is nested, so one order
/// serves every keep rate; the removal order is its reverse: the channel that would be added last is removed first.
///
/// A channel that depends on those picked so far is no candidate, nor is one whose gain is rounding. Once no candidate is
/// left, the others are added by index, first those that contribute at all, then the dead ones.
///
/// A score is the squared error that the channel's addition took away, 0 if it was added only to fill up.
pub(crate) struct ThiNetOmp;

impl Selector for ThiNetOmp {
    fn name(&self) -> &'static str {
        "thinet-omp"
    }

    fn about(&self) -> &'static str {
        "adds the channels that fit the next layer's outputs best, refitting after each (Luo et al. 2019)"
    }

    fn needs(&self) -> Needs {
        Needs::MOMENTS
    }

    fn select(&self, evidence: &Evidence, keep: usize, _seed: Seed) -> Result<Selection, SelectorError> {
        let moments = evidence.moments_for(self.name())?;
        evidence.count_to_remove(self.name(), keep)?;
        let additions = addition_order(moments);
        let mut scores = vec![0.0; evidence.channels];
        for addition in &additions {
            scores[addition.channel] = addition.gain;
        }
        let order = additions.iter().rev().map(|addition| addition.channel).collect();
        Selection::from_order(self.name(), evidence, keep, order, scores)
    }
}

/// One step of the forward selection.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Addition {
    /// The channel that is added.
    pub channel: usize,
    /// By how much the squared error of the refitted channels falls.
    pub gain: f64,
}

/// A channel with less than this part of its energy outside the span of those picked is dependent: G is not more
/// precise than that.
const DEPENDENT: f64 = 1e-10;
/// A correlation with the residual below this part of Σ‖x_j‖ is rounding.
const NO_GAIN: f64 = 1e-12;

/// All channels in the order in which they are added.
#[must_use]
pub fn addition_order(moments: &Moments) -> Vec<Addition> {
    let mut pursuit = Pursuit::new(moments);
    let mut order = Vec::with_capacity(moments.channels());
    while let Some(channel) = pursuit.best_candidate() {
        order.push(Addition { channel, gain: pursuit.add(channel) });
    }
    let alive = |&channel: &usize| pursuit.norms[channel] > 0.0;
    let left: Vec<usize> = (0..moments.channels()).filter(|&channel| !pursuit.added[channel]).collect();
    let fill =
        left.iter().filter(|channel| alive(channel)).chain(left.iter().filter(|channel| !alive(channel)));
    order.extend(fill.map(|&channel| Addition { channel, gain: 0.0 }));
    order
}

/// State of the matching pursuit, S the channels added so far. Holds X through Q, the orthonormal basis of X_S that a
/// Cholesky factorisation of G_SS implies; a step costs O(C·|S|).
struct Pursuit<'a> {
    moments: &'a Moments,
    added: Vec<bool>,
    /// ‖x_j‖ for every channel.
    norms: Vec<f64>,
    /// x_jᵀe for every channel, e the residual.
    correlations: Vec<f64>,
    /// ‖x_j‖² outside the span of X_S for every channel (the Schur complement of G_SS).
    outside: Vec<f64>,
    /// Xᵀq for every basis vector q: the columns of the Cholesky factor, with the rows of all channels.
    columns: Vec<Vec<f64>>,
    least_correlation: f64,
}

impl<'a> Pursuit<'a> {
    fn new(moments: &'a Moments) -> Self {
        let outside = moments.diagonal();
        let norms: Vec<f64> = outside.iter().map(|g| g.sqrt()).collect();
        let least_correlation = NO_GAIN * norms.iter().fold(0.0, |sum, norm| sum + norm);
        let added = vec![false; norms.len()];
        let columns = Vec::with_capacity(norms.len());
        Self { moments, added, norms, correlations: moments.b(), outside, columns, least_correlation }
    }

    /// The candidate with the largest |x_jᵀe| / ‖x_j‖, the lowest index among equals.
    fn best_candidate(&self) -> Option<usize> {
        let mut best = None;
        let mut largest = self.least_correlation;
        for (channel, &norm) in self.norms.iter().enumerate() {
            let independent = self.outside[channel] > DEPENDENT * norm * norm;
            if self.added[channel] || !independent {
                continue;
            }
            let correlation = self.correlations[channel].abs() / norm;
            if correlation > largest {
                (best, largest) = (Some(channel), correlation);
            }
        }
        best
    }

    /// Adds a channel and refits: takes q, the direction it adds, out of the residual. Returns (qᵀe)².
    fn add(&mut self, channel: usize) -> f64 {
        let norm = self.outside[channel].sqrt();
        let along = self.correlations[channel] / norm;
        let mut column = self.moments.row(channel).to_vec();
        for earlier in &self.columns {
            let factor = earlier[channel];
            for (value, earlier) in column.iter_mut().zip(earlier) {
                *value -= factor * earlier;
            }
        }
        for ((value, correlation), outside) in
            column.iter_mut().zip(&mut self.correlations).zip(&mut self.outside)
        {
            *value /= norm;
            *correlation -= *value * along;
            *outside -= *value * *value;
        }
        self.columns.push(column);
        self.added[channel] = true;
        along * along
    }
}

#[cfg(test)]
mod tests {
    use nalgebra::{DMatrix, DVector};
    use proptest::prelude::*;

    use super::*;

    /// The plain version: explicit least squares on the rows, as in the authors' code.
    fn plain_order(x: &DMatrix<f64>) -> Vec<Addition> {
        let y = x.column_sum();
        let mut residual = y.clone();
        let mut picked: Vec<usize> = vec![];
        let mut order = vec![];
        while picked.len() < x.ncols() {
            let mut best = (0, f64::INFINITY);
            for j in (0..x.ncols()).filter(|j| !picked.contains(j)) {
                let column = x.column(j);
                let coefficient = column.dot(&residual) / column.dot(&column);
                let score = (&residual - column * coefficient).norm();
                if score < best.1 {
                    best = (j, score);
                }
            }
            picked.push(best.0);
            let before = residual.norm_squared();
            residual = &y - fitted(x, &picked, &y);
            order.push(Addition { channel: best.0, gain: before - residual.norm_squared() });
        }
        order
    }

    /// The projection of y on the picked columns, which are independent.
    fn fitted(x: &DMatrix<f64>, picked: &[usize], y: &DVector<f64>) -> DVector<f64> {
        let q = x.select_columns(picked).qr().q();
        &q * (q.transpose() * y)
    }

    fn channels_of(order: &[Addition]) -> Vec<usize> {
        order.iter().map(|addition| addition.channel).collect()
    }

    fn moments(rows: &[&[f64]]) -> Moments {
        Moments::from_rows(rows[0].len(), &rows.concat()).unwrap()
    }

    /// Twice as many rows as channels or more, so that the columns are far from dependent.
    fn well_conditioned() -> impl Strategy<Value = (usize, Vec<f64>)> {
        (1..10_usize, 8..30_usize).prop_flat_map(|(channels, extra)| {
            let values = channels * (2 * channels + extra);
            (Just(channels), prop::collection::vec(-0.7..1.0, values))
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]

        #[test]
        fn the_gram_form_equals_the_plain_version((channels, x) in well_conditioned()) {
            let gram = addition_order(&Moments::from_rows(channels, &x).unwrap());
            let plain = plain_order(&DMatrix::from_row_slice(x.len() / channels, channels, &x));
            prop_assert_eq!(channels_of(&gram), channels_of(&plain));
            let total: f64 = plain.iter().map(|addition| addition.gain).sum();
            for (gram, plain) in gram.iter().zip(&plain) {
                prop_assert!((gram.gain - plain.gain).abs() <= 1e-9 * total);
            }
        }

        /// Small integers give dead, duplicate and dependent channels, and more channels than rows.
        #[test]
        fn every_channel_is_added_once_and_gains_never_exceed_the_output(
            (channels, x) in (1..12_usize, 1..12_usize).prop_flat_map(|(channels, rows)| {
                (Just(channels), prop::collection::vec((-1..=1_i32).prop_map(f64::from), channels * rows))
            }),
        ) {
            let moments = Moments::from_rows(channels, &x).unwrap();
            let order = addition_order(&moments);
            let mut sorted = channels_of(&order);
            sorted.sort_unstable();
            prop_assert_eq!(sorted, (0..channels).collect::<Vec<_>>());
            prop_assert!(order.iter().all(|addition| addition.gain >= 0.0));
            let total: f64 = order.iter().map(|addition| addition.gain).sum();
            prop_assert!((total - moments.c()).abs() <= 1e-9 * (1.0 + moments.c()), "{} of {}", total, moments.c());
        }
    }

    #[test]
    fn a_duplicate_is_added_after_all_that_is_independent() {
        // Channels 0 and 1 are the same and large; y needs 2 and 3 as well.
        let order = addition_order(&moments(&[
            &[4.0, 4.0, 1.0, 0.0],
            &[4.0, 4.0, -1.0, 1.0],
            &[4.0, 4.0, 0.0, -1.0],
        ]));
        assert_eq!(channels_of(&order)[0], 0);
        assert_eq!(channels_of(&order)[3], 1);
        assert_eq!(order[3].gain, 0.0);
    }

    #[test]
    fn what_lies_outside_of_the_others_counts_from_a_part_of_1e_10_of_its_energy() {
        let gain_of_the_second = |outside: f64| {
            let order = addition_order(&moments(&[&[1.0, 1.0], &[0.0, outside.sqrt()]]));
            order[1].gain
        };
        // Far above the bound of a gain, so that the bound of dependence alone decides.
        assert_eq!(gain_of_the_second(2.5e-11), 0.0);
        assert!(gain_of_the_second(4e-10) > 0.0);
    }

    #[test]
    fn dead_channels_fill_up_last_and_by_index() {
        let order = addition_order(&moments(&[&[0.0, 2.0, 2.0, 0.0, 1.0], &[0.0, 1.0, 1.0, 0.0, 3.0]]));
        assert_eq!(channels_of(&order)[2..], [2, 0, 3]);
        assert_eq!(channels_of(&addition_order(&moments(&[&[0.0; 4]]))), [0, 1, 2, 3]);
    }

    #[test]
    fn equals_are_added_lowest_index_first() {
        let identity: [&[f64]; 3] = [&[1.0, 0.0, 0.0], &[0.0, 1.0, 0.0], &[0.0, 0.0, 1.0]];
        assert_eq!(channels_of(&addition_order(&moments(&identity))), [0, 1, 2]);
    }

    #[test]
    fn channels_that_cancel_in_full_give_no_gain_and_no_crash() {
        // y = 0 everywhere, though no channel is.
        let order = addition_order(&moments(&[&[0.1, 0.2, -0.3], &[0.7, -0.3, -0.4]]));
        assert_eq!(order.iter().map(|addition| addition.gain).collect::<Vec<_>>(), [0.0; 3]);
        assert_eq!(channels_of(&order), [0, 1, 2]);
    }
}
