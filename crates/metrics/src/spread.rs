//! Median and spread of repeated timings.

/// Median and spread of repeated timings, in the unit of the samples.
///
/// The median is used because other load on the machine makes a timing longer and never shorter.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// Median; of an even number of samples the mean of the middle two.
    pub median: f64,
    /// Shortest.
    pub min: f64,
    /// Longest.
    pub max: f64,
    /// Median absolute deviation from the median, unscaled.
    pub mad: f64,
}

impl Spread {
    /// The spread of samples in any order; `None` without samples, or if one is not finite.
    #[must_use]
    pub fn of(samples: &[f64]) -> Option<Self> {
        if !samples.iter().all(|sample| sample.is_finite()) {
            return None;
        }
        let mut sorted = samples.to_vec();
        let median = sort_for_median(&mut sorted)?;
        let mut deviations: Vec<f64> = samples.iter().map(|sample| (sample - median).abs()).collect();
        let mad = sort_for_median(&mut deviations)?;
        Some(Self { median, min: *sorted.first()?, max: *sorted.last()?, mad })
    }
}

fn sort_for_median(values: &mut [f64]) -> Option<f64> {
    values.sort_unstable_by(f64::total_cmp);
    let upper = *values.get(values.len() / 2)?;
    let lower = values[(values.len() - 1) / 2];
    Some((lower + upper) / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn median_and_spread_by_hand() {
        let spread = |samples: &[f64]| Spread::of(samples).unwrap();
        assert_eq!(spread(&[7.0]), Spread { median: 7.0, min: 7.0, max: 7.0, mad: 0.0 });
        assert_eq!(spread(&[3.0, 1.0]), Spread { median: 2.0, min: 1.0, max: 3.0, mad: 1.0 });
        // One slow outlier moves the maximum only.
        assert_eq!(
            spread(&[10.0, 12.0, 11.0, 500.0, 9.0]),
            Spread { median: 11.0, min: 9.0, max: 500.0, mad: 1.0 }
        );
        assert_eq!(spread(&[8.0, 2.0, 6.0, 4.0]), Spread { median: 5.0, min: 2.0, max: 8.0, mad: 2.0 });
    }

    #[test]
    fn no_samples_or_a_broken_one_have_no_median() {
        assert_eq!(Spread::of(&[]), None);
        assert_eq!(Spread::of(&[1.0, f64::NAN]), None);
        assert_eq!(Spread::of(&[1.0, f64::INFINITY]), None);
    }
}
