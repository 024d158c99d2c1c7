//! Times of two workloads that ran in turn, and the ratios within the pairs.

/// The direction of a ratio.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ratio {
    /// Reference / ours: how many times faster ours is.
    Speedup,
    /// Ours / reference: how many times as long ours takes.
    Cost,
}

/// Seconds of ours and of the reference, measured one right after the other.
///
/// The speed of a machine drifts by more than the differences to be measured, but little within a pair: the ratio is
/// taken within pairs, and the median over them is reported.
#[derive(Clone, Debug, Default)]
pub struct Pairs {
    pairs: Vec<[f64; 2]>,
}

impl Pairs {
    pub fn push(&mut self, ours: f64, reference: f64) {
        self.pairs.push([ours, reference]);
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.pairs.len()
    }

    /// Whether nothing was measured.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.pairs.is_empty()
    }

    /// Drops the first pair, which ran with cold caches, unless it is the only one.
    #[must_use]
    pub fn warm(mut self) -> Self {
        if self.pairs.len() > 1 {
            self.pairs.remove(0);
        }
        self
    }

    /// Multiplies every time of the reference.
    #[must_use]
    pub fn scale_reference(mut self, factor: f64) -> Self {
        for [_, reference] in &mut self.pairs {
            *reference *= factor;
        }
        self
    }

    /// Median time of ours, in seconds; NaN if nothing was measured.
    #[must_use]
    pub fn ours(&self) -> f64 {
        median(self.pairs.iter().map(|[ours, _]| *ours).collect())
    }

    /// Median time of the reference, in seconds; NaN if nothing was measured.
    #[must_use]
    pub fn reference(&self) -> f64 {
        median(self.pairs.iter().map(|[_, reference]| *reference).collect())
    }

    /// Median of the ratios within the pairs; NaN if nothing was measured.
    #[must_use]
    pub fn ratio(&self, of: Ratio) -> f64 {
        median(self.ratios(of))
    }

    /// How the ratio was computed and how far it spreads, for a note.
    #[must_use]
    pub fn spread(&self, of: Ratio) -> String {
        let mut ratios = self.ratios(of);
        ratios.sort_by(f64::total_cmp);
        let quarter = ratios.len() / 4;
        let Some((low, high)) = ratios.get(quarter).zip(ratios.iter().rev().nth(quarter)) else {
            return "nothing was measured".to_owned();
        };
        format!(
            "median of {} pairs run in turn, the middle half of them from {low:.3} to {high:.3}",
            self.len()
        )
    }

    fn ratios(&self, of: Ratio) -> Vec<f64> {
        let ratio = |[ours, reference]: &[f64; 2]| match of {
            Ratio::Speedup => reference / ours,
            Ratio::Cost => ours / reference,
        };
        self.pairs.iter().map(ratio).collect()
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    if values.is_empty() {
        return f64::NAN;
    }
    values.sort_by(f64::total_cmp);
    let half = values.len() / 2;
    if values.len() % 2 == 1 { values[half] } else { (values[half - 1] + values[half]) / 2.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(times: &[[f64; 2]]) -> Pairs {
        let mut pairs = Pairs::default();
        times.iter().for_each(|&[ours, reference]| pairs.push(ours, reference));
        pairs
    }

    #[test]
    fn the_ratio_is_taken_within_a_pair() {
        // The machine slowed down tenfold half-way: medians over each side would say 2 / 20 and hide it.
        let pairs = pairs(&[[1.0, 2.0], [1.0, 2.0], [1.0, 2.0], [10.0, 20.0], [10.0, 20.0]]);
        assert_eq!((pairs.ratio(Ratio::Speedup), pairs.ratio(Ratio::Cost)), (2.0, 0.5));
        assert_eq!((pairs.ours(), pairs.reference()), (1.0, 2.0));
        assert_eq!(pairs.scale_reference(3.0).ratio(Ratio::Speedup), 6.0);
    }

    #[test]
    fn a_median_of_two_is_their_mean_and_one_of_none_is_nan() {
        assert_eq!(pairs(&[[1.0, 1.0], [1.0, 3.0]]).ratio(Ratio::Speedup), 2.0);
        assert!(Pairs::default().ratio(Ratio::Speedup).is_nan());
        assert_eq!(Pairs::default().spread(Ratio::Cost), "nothing was measured");
    }

    #[test]
    fn the_first_pair_is_a_warm_up_unless_it_is_the_only_one() {
        let warm = pairs(&[[9.0, 9.0], [1.0, 2.0]]).warm();
        assert_eq!((warm.len(), warm.ratio(Ratio::Speedup)), (1, 2.0));
        assert_eq!(pairs(&[[9.0, 9.0]]).warm().len(), 1);
    }

    #[test]
    fn the_spread_leaves_out_the_outer_quarters() {
        let spread = pairs(&[[1.0, 100.0], [1.0, 2.0], [1.0, 3.0], [1.0, 0.1]]).spread(Ratio::Speedup);
        assert!(spread.ends_with("2.000 to 3.000"), "{spread}");
        assert!(spread.starts_with("median of 4 pairs"), "{spread}");
    }
}
