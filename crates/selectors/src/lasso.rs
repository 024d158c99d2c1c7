//! LASSO: the channels that a sparse fit of the next layer's outputs uses (He, Zhang and Sun 2017, arXiv 1707.06168, eq. 2 and 4).

use thinet_seed::Seed;

use crate::{Evidence, Moments, Needs, Selection, Selector, SelectorError};

/// Keeps the channels whose factor is not zero in the LASSO fit of the outputs, at the largest penalty at which `keep` of them are used.
///
/// The factors β minimise ½‖y − Xβ‖² + λ‖β‖₁, y = X·1 the sampled outputs and x_j what channel j adds to them. From the penalty at which
/// all are zero, λ falls until `keep` factors are not: the other end of the paper's search, which raises λ, and easier to compute, as
/// few channels are used. Factors are straight lines between the penalties at which one starts or ends to be used, so the path is
/// followed from one to the next (Efron et al. 2004) and no descent has to converge.
///
/// This is the selection step (i) of the paper alone, as its authors run it: weights stay as they are while λ changes. Step (ii), a new
/// fit of the weights, is a reconstruction's business. A channel can be used at a large penalty and not at a smaller one, so
/// keep counts need not be nested.
///
/// Where fewer channels than `keep` fit the outputs exactly, the rest is kept by index, the highest first; of channels that start to be used
/// together the highest index does so first. So the lowest index is removed first among equals. A score is |β| at the last
/// penalty. Channels that add nothing are removed first, the others by index.
pub(crate) struct Lasso;

impl Selector for Lasso {
    fn name(&self) -> &'static str {
        "lasso"
    }

    fn about(&self) -> &'static str {
        "keeps the channels that a LASSO fit of the next layer's outputs uses (He et al. 2017)"
    }

    fn needs(&self) -> Needs {
        Needs::MOMENTS
    }

    fn select(&self, evidence: &Evidence, keep: usize, _seed: Seed) -> Result<Selection, SelectorError> {
        let moments = evidence.moments_for(self.name())?;
        evidence.count_to_remove(self.name(), keep)?;
        let path = Path::until(moments, keep);
        let mut order: Vec<usize> = (0..evidence.channels).collect();
        // The used ones are last and stay.
        order.sort_by_key(|&channel| (path.used.contains(&channel), path.is_alive(channel)));
        let scores = path.factors.iter().map(|factor| factor.abs()).collect();
        Selection::from_order(self.name(), evidence, keep, order, scores)
    }
}

/// A channel of less than this part of the largest energy adds nothing.
const NO_ENERGY: f64 = 1e-24;
/// A channel with less than this part of its energy outside the span of the used ones is dependent: G is not more precise than that.
const DEPENDENT: f64 = 1e-10;
/// Penalties closer than this, relative to the current one, are equal.
const EQUAL: f64 = 1e-9;
/// Below this part of the largest penalty there is none.
const NO_PENALTY: f64 = 1e-12;

/// The LASSO fit along the falling penalty.
struct Path<'a> {
    moments: &'a Moments,
    penalty: f64,
    /// The channels whose factors are not zero, in the order in which they started to be used, with the signs of their correlations.
    used: Vec<usize>,
    signs: Vec<f64>,
    /// Lower triangle of the Cholesky factor of G of the used channels, row by row.
    triangle: Vec<Vec<f64>>,
    /// β.
    factors: Vec<f64>,
    /// x_jᵀ(y − Xβ) for every channel; of a used one the penalty with its sign.
    correlations: Vec<f64>,
    /// Not to be used now: adds nothing, depends on the used ones, or has just ended to be used.
    is_out: Vec<bool>,
    least_energy: f64,
}

/// What happens next as the penalty falls, and by how much it falls until then.
#[derive(Clone, Copy)]
struct Event {
    after: f64,
    /// The place among the used channels of one that ends to be used; `None` if one starts.
    ends: Option<usize>,
}

impl<'a> Path<'a> {
    /// Follows the path until `keep` channels are used, or to no penalty.
    fn until(moments: &'a Moments, keep: usize) -> Self {
        let mut path = Self::start(moments);
        let least = NO_PENALTY * path.penalty;
        // Ends cost an event each and are few; the bound only guards against rounding.
        for _ in 0..8 * moments.channels() + 100 {
            if path.penalty <= least || path.used.len() == keep {
                break;
            }
            if path.starts_one() {
                continue;
            }
            let Some(event) = path.next_event() else { break };
            path.fall(event.after);
            if let Some(place) = event.ends {
                path.end(place);
            }
        }
        // Just below the penalty at which the last one starts its factor is not zero.
        if path.used.len() == keep
            && let Some(event) = path.next_event()
        {
            path.fall(0.5 * event.after);
        }
        path
    }

    fn start(moments: &'a Moments) -> Self {
        let energies = moments.diagonal();
        let least_energy = NO_ENERGY * energies.iter().fold(0.0_f64, |largest, &energy| largest.max(energy));
        let channels = moments.channels();
        let mut path = Self {
            moments,
            penalty: 0.0,
            used: Vec::new(),
            signs: Vec::new(),
            triangle: Vec::new(),
            factors: vec![0.0; channels],
            correlations: moments.b(),
            is_out: vec![false; channels],
            least_energy,
        };
        path.allow_all();
        let alive = (0..channels).filter(|&channel| path.is_alive(channel));
        path.penalty = alive.fold(0.0_f64, |largest, channel| largest.max(path.correlations[channel].abs()));
        path
    }

    fn is_alive(&self, channel: usize) -> bool {
        self.moments.g(channel, channel) > self.least_energy
    }

    fn allow_all(&mut self) {
        self.is_out = (0..self.factors.len()).map(|channel| !self.is_alive(channel)).collect();
    }

    fn is_waiting(&self, channel: usize) -> bool {
        !self.is_out[channel] && !self.used.contains(&channel)
    }

    /// Starts to use the channel of the highest index whose correlation is the penalty, if there is one.
    fn starts_one(&mut self) -> bool {
        let is_due = |channel: &usize| {
            self.correlations[*channel].abs() >= self.penalty * (1.0 - EQUAL) && self.is_waiting(*channel)
        };
        let Some(channel) = (0..self.factors.len()).rev().find(is_due) else { return false };
        let with_used: Vec<f64> = self.used.iter().map(|&other| self.moments.g(channel, other)).collect();
        let mut row = self.solve_lower(with_used);
        let energy = self.moments.g(channel, channel);
        let outside = energy - row.iter().fold(0.0, |sum, value| sum + value * value);
        if outside <= DEPENDENT * energy {
            self.is_out[channel] = true;
            return true;
        }
        row.push(outside.sqrt());
        self.triangle.push(row);
        self.signs.push(1.0_f64.copysign(self.correlations[channel]));
        self.used.push(channel);
        true
    }

    /// How the factors of the used channels change as the penalty falls by 1, and by how much all correlations then fall.
    fn direction(&self) -> (Vec<f64>, Vec<f64>) {
        let factors = self.solve_upper(self.solve_lower(self.signs.clone()));
        let mut correlations = vec![0.0; self.factors.len()];
        for (&channel, &by) in self.used.iter().zip(&factors) {
            for (correlation, g) in correlations.iter_mut().zip(self.moments.row(channel)) {
                *correlation += g * by;
            }
        }
        (factors, correlations)
    }

    /// The next event above no penalty, or that there is no penalty any more; `None` if nothing is used.
    fn next_event(&self) -> Option<Event> {
        if self.used.is_empty() {
            return None;
        }
        let (factors, correlations) = self.direction();
        let mut next = Event { after: self.penalty, ends: None };
        for (place, (&channel, &by)) in self.used.iter().zip(&factors).enumerate() {
            // A factor that grows away from zero does not end.
            let after = -self.factors[channel] / by;
            if by * self.signs[place] < 0.0 && (0.0..next.after).contains(&after) {
                next = Event { after, ends: Some(place) };
            }
        }
        for channel in (0..self.factors.len()).filter(|channel| !self.used.contains(channel)) {
            let (now, by) = (self.correlations[channel], correlations[channel]);
            let above = (self.penalty - now) / (1.0 - by);
            let below = (self.penalty + now) / (1.0 + by);
            // One that is out lies on the penalty of its sign, but can reach the other.
            let reached = match (self.is_out[channel], now > 0.0) {
                (false, _) => [above, below],
                (true, true) => [below, below],
                (true, false) => [above, above],
            };
            for after in reached {
                if (0.0..next.after).contains(&after) {
                    next = Event { after, ends: None };
                }
            }
        }
        Some(next)
    }

    fn fall(&mut self, by: f64) {
        let (factors, correlations) = self.direction();
        for (&channel, change) in self.used.iter().zip(factors) {
            self.factors[channel] += by * change;
        }
        for (correlation, change) in self.correlations.iter_mut().zip(correlations) {
            *correlation -= by * change;
        }
        self.penalty -= by;
        // What has just ended is inside the penalty now.
        let is_inside = |channel: usize| self.correlations[channel].abs() < self.penalty * (1.0 - EQUAL);
        let inside: Vec<usize> =
            (0..self.factors.len()).filter(|&channel| self.is_alive(channel) && is_inside(channel)).collect();
        for channel in inside {
            self.is_out[channel] = false;
        }
    }

    /// Ends the use of the channel at this place.
    fn end(&mut self, place: usize) {
        let channel = self.used.remove(place);
        self.signs.remove(place);
        self.factors[channel] = 0.0;
        self.allow_all();
        self.is_out[channel] = true;
        self.remove_row(place);
    }

    /// Takes a row out of the triangle: rotations of columns make the rows behind it triangular again.
    fn remove_row(&mut self, place: usize) {
        self.triangle.remove(place);
        for at in place..self.triangle.len() {
            let (a, b) = (self.triangle[at][at], self.triangle[at][at + 1]);
            let length = (a * a + b * b).sqrt();
            let (cos, sin) = (a / length, b / length);
            for row in &mut self.triangle[at..] {
                let (a, b) = (row[at], row[at + 1]);
                (row[at], row[at + 1]) = (cos * a + sin * b, cos * b - sin * a);
            }
            self.triangle[at].truncate(at + 1);
        }
    }

    /// z with L·z = `right`.
    fn solve_lower(&self, mut right: Vec<f64>) -> Vec<f64> {
        for (at, row) in self.triangle.iter().enumerate() {
            let known = row[..at].iter().zip(&right).fold(0.0, |sum, (l, z)| sum + l * z);
            right[at] = (right[at] - known) / row[at];
        }
        right
    }

    /// z with Lᵀ·z = `right`.
    fn solve_upper(&self, mut right: Vec<f64>) -> Vec<f64> {
        for (at, row) in self.triangle.iter().enumerate().rev() {
            right[at] /= row[at];
            let value = right[at];
            for (right, l) in right.iter_mut().zip(&row[..at]) {
                *right -= l * value;
            }
        }
        right
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn moments(rows: &[&[f64]]) -> Moments {
        Moments::from_rows(rows[0].len(), &rows.concat()).unwrap()
    }

    fn select(moments: Moments, keep: usize) -> Selection {
        let channels = moments.channels();
        let evidence = Evidence { moments: Some(moments), ..Evidence::none("conv1", channels) };
        Lasso.select(&evidence, keep, Seed::root(0)).unwrap()
    }

    #[test]
    fn channels_that_share_nothing_leave_by_energy() {
        // Energies 9, 1, 4: a factor is 1 - λ/energy.
        let x = moments(&[&[3.0, 0.0, 0.0], &[0.0, 1.0, 0.0], &[0.0, 0.0, 2.0]]);
        for (keep, removed) in [(2, vec![1]), (1, vec![1, 2])] {
            let path = Path::until(&x, keep);
            let selection = select(x.clone(), keep);
            assert_eq!(selection.removed, removed);
            for (channel, energy) in [(0, 9.0), (1, 1.0), (2, 4.0)] {
                let expected = (1.0 - path.penalty / energy).max(0.0);
                assert!((selection.scores[channel] - expected).abs() < 1e-12);
            }
        }
    }

    #[test]
    fn one_of_two_equal_channels_can_do_the_work_of_both() {
        // Channels 0 and 1 are equal, of energy 1; the third shares nothing with them and has energy 1.5. Together the equal ones have the
        // factor 2 - λ: the first leaves at 1 and the other at 2, channel 2 at 1.5 in between.
        let x = Moments::new(3, 2, vec![1.0, 1.0, 0.0, 1.0, 1.0, 0.0, 0.0, 0.0, 1.5]).unwrap();
        assert_eq!(select(x.clone(), 2).removed, [0]);
        assert_eq!(select(x.clone(), 1).removed, [0, 2]);
        let path = Path::until(&x, 1);
        assert!((1.5..2.0).contains(&path.penalty));
        assert!((path.factors[1] - (2.0 - path.penalty)).abs() < 1e-9, "{:?}", path.factors);
    }

    #[test]
    fn a_channel_that_only_takes_from_another_leaves_before_a_weaker_one() {
        // x_0 = (3, 0), x_1 = (-2, 0), x_2 = (0, 1): y = (1, 1). A smaller factor of channel 0 replaces channel 1 at once; then the
        // factors are (3 - λ)/9 and 1 - λ. Greedy removal takes channel 2, whose energy is the least.
        let x = moments(&[&[3.0, -2.0, 0.0], &[0.0, 0.0, 1.0]]);
        assert_eq!(crate::removal_order(&x, 1)[0].channel, 2);
        assert_eq!(select(x.clone(), 2).removed, [1]);
        let Path { factors, penalty, .. } = Path::until(&x, 2);
        assert!(penalty > 0.0 && factors[1] == 0.0, "{factors:?}");
        for (factor, expected) in [(factors[0], (3.0 - penalty) / 9.0), (factors[2], 1.0 - penalty)] {
            assert!((factor - expected).abs() < 1e-9, "{factors:?} at {penalty}");
        }
        assert_eq!(select(x, 1).removed, [1, 2]);
    }

    #[test]
    fn channels_that_leave_together_go_by_index() {
        let identity = moments(&[&[1.0, 0.0, 0.0], &[0.0, 1.0, 0.0], &[0.0, 0.0, 1.0]]);
        assert_eq!(select(identity.clone(), 2).removed, [0]);
        assert_eq!(select(identity, 1).removed, [0, 1]);
        // They cancel in full: y is zero, and no penalty is needed.
        let cancelled = moments(&[&[1.0, 1.0, -2.0], &[2.0, -1.0, -1.0]]);
        assert_eq!(select(cancelled, 1).removed, [0, 1]);
    }

    /// The plain version: coordinate descent, each factor in turn at its best value for the others.
    fn descent(moments: &Moments, penalty: f64) -> Vec<f64> {
        let (channels, b) = (moments.channels(), moments.b());
        let mut factors = vec![1.0; channels];
        for _ in 0..20_000 {
            for j in 0..channels {
                let others =
                    (0..channels).filter(|&k| k != j).map(|k| moments.g(j, k) * factors[k]).sum::<f64>();
                let alone = b[j] - others;
                factors[j] = (alone.abs() - penalty).max(0.0).copysign(alone) / moments.g(j, j);
            }
        }
        factors
    }

    #[test]
    fn the_path_leads_where_coordinate_descent_does() {
        // Multiples of 1/1000 in -0.3..0.7 (7919 is a generator modulo 1009).
        let value = |at: usize| ((at * at + 3 * at + 7) * 7919 % 1009) as f64 / 1000.0 - 0.3;
        let x: Vec<f64> = (0..8 * 30).map(value).collect();
        let moments = Moments::from_rows(8, &x).unwrap();
        for keep in 1..8 {
            let path = Path::until(&moments, keep);
            for (found, expected) in path.factors.iter().zip(descent(&moments, path.penalty)) {
                assert!((found - expected).abs() < 1e-9, "{keep}: {found} is not {expected}");
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        /// The conditions of an optimum: |x_jᵀ(y − Xβ)| is at most λ, and λ with the factor's sign where it is not zero.
        #[test]
        fn the_factors_are_those_of_the_lasso_and_all_that_are_not_zero_are_kept(
            (channels, x) in (2..10_usize, 8..30_usize).prop_flat_map(|(channels, extra)| {
                (Just(channels), prop::collection::vec(-0.7..1.0, channels * (2 * channels + extra)))
            }),
            part in 0.0..1.0,
        ) {
            let moments = Moments::from_rows(channels, &x).unwrap();
            let keep = 1 + (part * (channels - 1) as f64) as usize;
            let path = Path::until(&moments, keep);
            prop_assert_eq!(path.factors.iter().filter(|&&factor| factor != 0.0).count(), keep);
            let scale = moments.b().iter().fold(0.0_f64, |largest, b| largest.max(b.abs()));
            for j in 0..channels {
                let fitted: f64 = (0..channels).map(|k| moments.g(j, k) * path.factors[k]).sum();
                let correlation = moments.b()[j] - fitted;
                let bound = path.penalty + 1e-7 * scale;
                prop_assert!(correlation.abs() <= bound, "{} of {}", correlation, path.penalty);
                if path.factors[j] != 0.0 {
                    let expected = path.penalty.copysign(path.factors[j]);
                    prop_assert!((correlation - expected).abs() <= 1e-7 * scale, "{correlation} is not {expected}");
                }
            }
            let kept: Vec<usize> = (0..channels).filter(|&j| path.factors[j] != 0.0).collect();
            let selection = select(moments.clone(), keep);
            prop_assert_eq!(selection.kept.kept(), kept);
        }

        /// Small integers give dead, equal, opposite and dependent channels, and more channels than rows.
        #[test]
        fn any_evidence_is_ranked(
            (channels, x) in (1..10_usize, 1..8_usize).prop_flat_map(|(channels, rows)| {
                (Just(channels), prop::collection::vec((-1..=1_i32).prop_map(f64::from), channels * rows))
            }),
        ) {
            let moments = Moments::from_rows(channels, &x).unwrap();
            for keep in 1..=channels {
                let selection = select(moments.clone(), keep);
                prop_assert_eq!(selection.kept.kept().len(), keep);
                prop_assert!(selection.scores.iter().all(|score| *score <= 1e6), "{:?}", selection.scores);
            }
        }
    }
}
