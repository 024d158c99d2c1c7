//! Evidence of several layers about the same channels, joined so that each layer weighs the same: what a selector reads about
//! a group of channels with several producers or readers.

use crate::evidence::check_channels;
use crate::{BatchNormScales, EvidenceError, EvidenceKind, Filters, Moments};

impl Filters {
    /// The filters of several layers joined: filter *j* holds filter *j* of each, in order, divided by the Frobenius norm of
    /// its layer's weights. The norm of a joined filter sums the layers' scores. Weights that are all zero stay zero.
    ///
    /// # Errors
    /// If the layers have different numbers of filters, or there are none.
    pub fn balanced(parts: &[Self]) -> Result<Self, EvidenceError> {
        let channels = common_channels(EvidenceKind::Filters, parts.iter().map(|part| part.channels))?;
        let norm =
            |part: &Self| part.values.iter().fold(0.0, |sum, &w| sum + f64::from(w) * f64::from(w)).sqrt();
        let norms: Vec<f64> = parts.iter().map(|part| or_one(norm(part))).collect();
        let mut values = Vec::with_capacity(parts.iter().map(|part| part.values.len()).sum());
        for channel in 0..channels {
            for (part, norm) in parts.iter().zip(&norms) {
                values.extend(part.filter(channel).iter().map(|&w| (f64::from(w) / norm) as f32));
            }
        }
        Ok(Self { channels, len: parts.iter().map(|part| part.len).sum(), values })
    }
}

impl BatchNormScales {
    /// The sum of the scales behind several layers, each divided by its mean. Scales that are all zero stay zero.
    ///
    /// # Errors
    /// If the layers have different numbers of channels, or there are none.
    pub fn balanced(parts: &[Self]) -> Result<Self, EvidenceError> {
        let channels =
            common_channels(EvidenceKind::BatchNormScales, parts.iter().map(|part| part.scales.len()))?;
        let sum = |part: &Self| part.scales.iter().fold(0.0, |sum, &scale| sum + f64::from(scale));
        let means: Vec<f64> = parts.iter().map(|part| or_one(sum(part) / channels as f64)).collect();
        let joined = |channel: usize| {
            let each = parts.iter().zip(&means).map(|(part, mean)| f64::from(part.scales[channel]) / mean);
            each.fold(0.0, |sum, scale| sum + scale) as f32
        };
        Ok(Self { scales: (0..channels).map(joined).collect() })
    }
}

impl Moments {
    /// The sum of the moments of contributions to several layers, each divided by its trace, so that a layer with large
    /// outputs does not decide alone. Moments that are all zero add nothing.
    ///
    /// What is computed from the sum holds for all layers at once: eq. 6 and 7 of Luo et al. 2017 then minimise the sum of the
    /// layers' squared errors, each in the unit of its trace.
    ///
    /// # Errors
    /// If the moments are of different numbers of channels, or there are none.
    pub fn balanced(parts: &[&Self]) -> Result<Self, EvidenceError> {
        let channels = common_channels(EvidenceKind::Moments, parts.iter().map(|part| part.channels()))?;
        let mut gram = vec![0.0; channels * channels];
        for part in parts {
            let trace = or_one(part.diagonal().into_iter().fold(0.0, |sum, g| sum + g));
            for (i, sums) in gram.chunks_exact_mut(channels).enumerate() {
                for (sum, g) in sums.iter_mut().zip(part.row(i)) {
                    *sum += g / trace;
                }
            }
        }
        Self::new(channels, parts.iter().map(|part| part.rows()).sum(), gram)
    }
}

/// The number of channels that all parts have.
fn common_channels(
    kind: EvidenceKind,
    mut channels: impl Iterator<Item = usize>,
) -> Result<usize, EvidenceError> {
    let first = channels.next().filter(|&first| first > 0);
    let first =
        first.ok_or_else(|| EvidenceError { kind: kind.name(), problem: "are of no channels".into() })?;
    channels.try_for_each(|other| check_channels(kind, other, first))?;
    Ok(first)
}

/// A divisor: 1 instead of 0, so that zeros stay zeros.
fn or_one(size: f64) -> f64 {
    if size == 0.0 { 1.0 } else { size }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn joined_filters_hold_each_layers_filter_at_unit_norm() {
        // Norms 5 and 10; a dead layer stays dead.
        let first = Filters { channels: 2, len: 1, values: vec![3.0, -4.0] };
        let second = Filters { channels: 2, len: 2, values: vec![6.0, 0.0, 0.0, 8.0] };
        let dead = Filters { channels: 2, len: 1, values: vec![0.0; 2] };
        let joined = Filters::balanced(&[first, second, dead]).unwrap();
        assert_eq!((joined.channels, joined.len), (2, 4));
        assert_eq!(joined.filter(0), [0.6, 0.6, 0.0, 0.0]);
        assert_eq!(joined.filter(1), [-0.8, 0.0, 0.8, 0.0]);
    }

    #[test]
    fn joined_scales_are_sums_of_multiples_of_the_mean() {
        let scales = |scales: &[f32]| BatchNormScales { scales: scales.to_vec() };
        let parts = [scales(&[1.0, 3.0]), scales(&[30.0, 10.0]), scales(&[0.0, 0.0])];
        assert_eq!(BatchNormScales::balanced(&parts).unwrap(), scales(&[2.0, 2.0]));
    }

    #[test]
    fn joined_moments_are_sums_of_moments_of_trace_one() {
        // Traces 2 and 500; the second layer has larger outputs and weighs the same.
        let small = Moments::new(2, 3, vec![1.0, 0.5, 0.5, 1.0]).unwrap();
        let large = Moments::new(2, 4, vec![100.0, -50.0, -50.0, 400.0]).unwrap();
        let dead = Moments::new(2, 5, vec![0.0; 4]).unwrap();
        let joined = Moments::balanced(&[&small, &large, &dead]).unwrap();
        assert_eq!(joined.rows(), 12);
        assert_eq!([joined.g(0, 0), joined.g(0, 1), joined.g(1, 1)], [0.7, 0.15, 1.3]);
    }

    #[test]
    fn parts_of_other_widths_or_none_are_refused() {
        let one = Filters { channels: 1, len: 1, values: vec![1.0] };
        let two = Filters { channels: 2, len: 1, values: vec![1.0; 2] };
        let message = Filters::balanced(&[one, two]).unwrap_err().to_string();
        assert!(message.ends_with("are of 2 channels, the layer has 1"), "{message}");
        assert!(Moments::balanced(&[]).is_err());
        assert!(BatchNormScales::balanced(&[]).is_err());
    }
}
