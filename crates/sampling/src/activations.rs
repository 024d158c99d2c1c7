//! Mean, mean of absolute values and maximum of each channel after its activation, over every position of every image.

use tch::{Kind, TchError, Tensor, no_grad};
use thinet_graph::ChannelGroup;
use thinet_selectors::{ActivationStats, Evidence, EvidenceKind};

use crate::SamplingError;
use crate::contributions::check_float;
use crate::error::OfLayer;
use crate::kind::{
    Collector, EvidenceTensors, GatheredKind, Source, Tap, count_tensor, each_activation, held,
};
use crate::zeros::places_of;

/// Activation statistics, observed where zeros are counted.
pub(crate) struct GatheredActivations;

impl GatheredKind for GatheredActivations {
    fn kind(&self) -> EvidenceKind {
        EvidenceKind::Activations
    }

    fn stage(&self) -> &'static str {
        "activations"
    }

    fn taps<'g>(&self, group: &'g ChannelGroup) -> Vec<Tap<'g>> {
        each_activation(group)
    }

    fn collector(&self, source: &Source<'_>) -> Result<Box<dyn Collector>, SamplingError> {
        Ok(Box::new(ActivationSums::new(&source.of.group.name, source.of.group.channels)))
    }

    /// Means over all places, each counted the same, and the largest maximum.
    fn join(&self, parts: &[Evidence], evidence: &mut Evidence) -> Result<(), SamplingError> {
        let parts = held(self.kind(), parts, |part| part.activations.as_ref())?;
        let total: u64 = parts.iter().map(|stats| stats.total).sum();
        let mean = |of: fn(&ActivationStats) -> &[f64], channel: usize| {
            parts
                .iter()
                .fold(0.0, |sum, stats| sum + of(stats)[channel] * (stats.total as f64 / total as f64))
        };
        let max =
            |channel: usize| parts.iter().fold(f64::NEG_INFINITY, |max, stats| max.max(stats.max[channel]));
        let channels = 0..evidence.channels;
        evidence.activations = Some(ActivationStats {
            mean: channels.clone().map(|channel| mean(|stats| &stats.mean, channel)).collect(),
            mean_abs: channels.clone().map(|channel| mean(|stats| &stats.mean_abs, channel)).collect(),
            max: channels.map(max).collect(),
            total,
        });
        Ok(())
    }

    fn to_tensors(&self, evidence: &Evidence) -> Result<Vec<(&'static str, Tensor)>, SamplingError> {
        let Some(stats) = &evidence.activations else { return Ok(Vec::new()) };
        let floats = |values: &[f64]| Tensor::f_from_slice(values).of_layer(&evidence.layer);
        Ok(vec![
            ("mean", floats(&stats.mean)?),
            ("mean-abs", floats(&stats.mean_abs)?),
            ("max", floats(&stats.max)?),
            ("values", count_tensor(&evidence.layer, &[stats.total])?),
        ])
    }

    fn read(&self, stored: &EvidenceTensors<'_>, evidence: &mut Evidence) -> Result<(), SamplingError> {
        evidence.activations = Some(ActivationStats {
            mean: stored.floats("mean")?,
            mean_abs: stored.floats("mean-abs")?,
            max: stored.floats("max")?,
            total: stored.count("values")?,
        });
        Ok(())
    }
}

/// Sums of one layer in 64 bits, added image by image: the bits do not depend on how images are cut into batches.
#[derive(Debug)]
struct ActivationSums {
    layer: String,
    channels: usize,
    /// Sums of values and of absolute values, and the largest value, `[C]` each; absent before the first image.
    sums: Option<[Tensor; 3]>,
    /// Number of values per channel.
    total: u64,
}

impl ActivationSums {
    fn new(layer: &str, channels: usize) -> Self {
        Self { layer: layer.to_owned(), channels, sums: None, total: 0 }
    }

    /// The sums so far with those of one image, `[1, C, h, w]` or `[1, C·columns]`.
    fn with_image(&self, image: &Tensor, places: usize) -> Result<[Tensor; 3], TchError> {
        let size = [self.channels as i64, places as i64];
        let map = image.f_detach()?.f_to_kind(Kind::Double)?.f_reshape(size)?;
        let over = |tensor: &Tensor| tensor.f_sum_dim_intlist([1_i64].as_slice(), false, Kind::Double);
        let of_image = [over(&map)?, over(&map.f_abs()?)?, map.f_amax([1_i64].as_slice(), false)?];
        match &self.sums {
            None => Ok(of_image),
            Some([sum, sum_abs, max]) => {
                Ok([sum.f_add(&of_image[0])?, sum_abs.f_add(&of_image[1])?, max.f_maximum(&of_image[2])?])
            }
        }
    }

    fn stats(&self) -> Result<ActivationStats, SamplingError> {
        let Some(sums) = self.sums.as_ref().filter(|_| self.total > 0) else {
            return Err(SamplingError::input(&self.layer, "no activation was seen"));
        };
        let host = |tensor: &Tensor| Vec::<f64>::try_from(tensor).of_layer(&self.layer);
        let [sum, sum_abs, max] = sums;
        let mean = |sum: Vec<f64>| sum.into_iter().map(|sum| sum / self.total as f64).collect();
        let stats = ActivationStats {
            mean: mean(host(sum)?),
            mean_abs: mean(host(sum_abs)?),
            max: host(max)?,
            total: self.total,
        };
        // A value that is not finite makes the mean of absolute values not finite.
        match stats.mean_abs.iter().position(|mean| !mean.is_finite()) {
            Some(channel) => {
                let problem = format!("saw a value of channel {channel} that is not finite");
                Err(SamplingError::evidence(&self.layer, EvidenceKind::Activations, problem))
            }
            None => Ok(stats),
        }
    }
}

impl Collector for ActivationSums {
    fn observe(&mut self, activation: &Tensor, _images: &[usize]) -> Result<(), SamplingError> {
        let [images, places] = places_of(&self.layer, self.channels, activation)?;
        check_float(&self.layer, activation)?;
        for at in 0..images {
            let sums = no_grad(|| self.with_image(&activation.f_narrow(0, at as i64, 1)?, places));
            self.sums = Some(sums.of_layer(&self.layer)?);
        }
        self.total += (images * places) as u64;
        Ok(())
    }

    fn finish(self: Box<Self>, evidence: &mut Evidence) -> Result<(), SamplingError> {
        evidence.activations = Some(self.stats()?);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_nets::{host, random};

    fn gather(channels: usize, batches: &[Tensor]) -> ActivationStats {
        let mut sums = ActivationSums::new("conv", channels);
        batches.iter().for_each(|batch| sums.observe(batch, &[]).unwrap());
        sums.stats().unwrap()
    }

    /// The plain version: reads every value, `[n, C, places]`.
    fn plain(values: &[f32], channels: usize, places: usize) -> [Vec<f64>; 3] {
        let of = |channel: usize| {
            let maps = values.chunks_exact(places).enumerate();
            maps.filter(move |(map, _)| map % channels == channel)
                .flat_map(|(_, map)| map.iter().map(|&v| f64::from(v)))
        };
        let total = (values.len() / channels) as f64;
        let each = |f: &dyn Fn(usize) -> f64| (0..channels).map(f).collect();
        [
            each(&|c| of(c).sum::<f64>() / total),
            each(&|c| of(c).map(f64::abs).sum::<f64>() / total),
            each(&|c| of(c).fold(f64::NEG_INFINITY, f64::max)),
        ]
    }

    #[test]
    fn statistics_are_those_of_looking_at_every_value() {
        let activation = random(&[9, 5, 6, 7], 1);
        let stats = gather(5, &activation.split(4, 0));
        let [mean, mean_abs, max] = plain(&host(&activation), 5, 42);
        assert_eq!((stats.total, &stats.max), (9 * 42, &max));
        for (found, expected) in [(&stats.mean, &mean), (&stats.mean_abs, &mean_abs)] {
            for (found, expected) in found.iter().zip(expected) {
                assert!((found - expected).abs() < 1e-13, "{found} is not {expected}");
            }
        }
        assert!(stats.mean.iter().zip(&stats.mean_abs).all(|(mean, mean_abs)| mean.abs() < 0.5 * mean_abs));
        // After a ReLU nothing is below zero.
        let relu = gather(5, &[activation.relu()]);
        assert_eq!(relu.mean, relu.mean_abs);
    }

    #[test]
    fn they_have_the_same_bits_for_every_batch_size_and_memory_layout() {
        let activation = random(&[9, 5, 6, 7], 1);
        let whole = gather(5, &[activation.shallow_clone()]);
        for batch in [1, 2, 4] {
            assert_eq!(gather(5, &activation.split(batch, 0)), whole);
        }
        let channels_last = activation.permute([0, 2, 3, 1]).contiguous().permute([0, 3, 1, 2]);
        assert_eq!(gather(5, &[channels_last]), whole);
        assert_eq!(gather(5, &[activation.flatten(1, 3)]), whole);
    }

    #[test]
    fn values_that_are_not_finite_other_shapes_and_no_batch_are_refused_by_layer() {
        let mut sums = ActivationSums::new("conv", 2);
        sums.observe(&Tensor::from_slice(&[1.0_f32, f32::NAN]).reshape([1, 2]), &[]).unwrap();
        let error = sums.stats().unwrap_err();
        assert!(matches!(error, SamplingError::Evidence { .. }), "a diverged net is recognised by it");
        let expected = "calibration of layer \"conv\": activation statistics saw a value of channel 1 that is not finite";
        assert_eq!(error.to_string(), expected);
        let refuse = |activation: &Tensor| {
            ActivationSums::new("conv", 3).observe(activation, &[]).unwrap_err().to_string()
        };
        let message = refuse(&random(&[2, 4, 5, 5], 1));
        assert_eq!(
            message,
            "calibration of layer \"conv\": the activation is [2, 4, 5, 5], not of 3 channels"
        );
        let message = refuse(&random(&[2, 3], 1).to_kind(Kind::Half));
        assert_eq!(message, "calibration of layer \"conv\": expected 32-bit floats, found Half");
        let message = ActivationSums::new("conv", 3).stats().unwrap_err().to_string();
        assert_eq!(message, "calibration of layer \"conv\": no activation was seen");
    }
}
