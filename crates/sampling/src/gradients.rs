//! Activation times gradient of the loss by it, averaged over a channel's map, for each image (Molchanov et al. 2017, eq. 8).

use tch::{Kind, TchError, Tensor, no_grad};
use thinet_graph::ChannelGroup;
use thinet_selectors::{Evidence, EvidenceKind, GradientProducts};

use crate::SamplingError;
use crate::error::OfLayer;
use crate::kind::{
    Collector, EvidenceTensors, GatheredKind, Pass, Source, Tap, count_tensor, each_activation, held,
};
use crate::zeros::places_of;

/// Gradient products, observed where zeros are counted.
pub(crate) struct GatheredGradients;

impl GatheredKind for GatheredGradients {
    fn kind(&self) -> EvidenceKind {
        EvidenceKind::Gradients
    }

    fn stage(&self) -> &'static str {
        "gradients"
    }

    fn pass(&self) -> Pass {
        Pass::Backward
    }

    fn taps<'g>(&self, group: &'g ChannelGroup) -> Vec<Tap<'g>> {
        each_activation(group)
    }

    fn collector(&self, source: &Source<'_>) -> Result<Box<dyn Collector>, SamplingError> {
        Ok(Box::new(ProductSums::new(&source.of.group.name, source.of.group.channels)))
    }

    /// The sums over the taps. Nothing is normalised: all are changes of the same loss.
    fn join(&self, parts: &[Evidence], evidence: &mut Evidence) -> Result<(), SamplingError> {
        let parts = held(self.kind(), parts, |part| part.gradients.as_ref())?;
        let sum = |of: fn(&GradientProducts) -> &[f64], channel: usize| {
            parts.iter().fold(0.0, |sum, products| sum + of(products)[channel])
        };
        let channels = 0..evidence.channels;
        evidence.gradients = Some(GradientProducts {
            taylor: channels.clone().map(|channel| sum(|products| &products.taylor, channel)).collect(),
            taylor_abs: channels.map(|channel| sum(|products| &products.taylor_abs, channel)).collect(),
            // Every tap sees every image.
            images: parts.iter().map(|products| products.images).min().unwrap_or(0),
        });
        Ok(())
    }

    fn to_tensors(&self, evidence: &Evidence) -> Result<Vec<(&'static str, Tensor)>, SamplingError> {
        let Some(products) = &evidence.gradients else { return Ok(Vec::new()) };
        let floats = |values: &[f64]| Tensor::f_from_slice(values).of_layer(&evidence.layer);
        Ok(vec![
            ("taylor", floats(&products.taylor)?),
            ("taylor-abs", floats(&products.taylor_abs)?),
            ("images", count_tensor(&evidence.layer, &[products.images])?),
        ])
    }

    fn read(&self, stored: &EvidenceTensors<'_>, evidence: &mut Evidence) -> Result<(), SamplingError> {
        evidence.gradients = Some(GradientProducts {
            taylor: stored.floats("taylor")?,
            taylor_abs: stored.floats("taylor-abs")?,
            images: stored.count("images")?,
        });
        Ok(())
    }
}

/// Sums of one layer, added image by image: the bits do not depend on how images are cut into batches.
#[derive(Debug)]
struct ProductSums {
    layer: String,
    channels: usize,
    /// Sums over images of the means over a map, and of their absolute values, `[C]` each.
    sums: [Vec<f64>; 2],
    images: u64,
}

impl ProductSums {
    fn new(layer: &str, channels: usize) -> Self {
        Self {
            layer: layer.to_owned(),
            channels,
            sums: [vec![0.0; channels], vec![0.0; channels]],
            images: 0,
        }
    }

    /// The mean over the map of each channel of one image, `[1, C, h, w]` or `[1, C·columns]`.
    fn of_image(&self, image: &Tensor, places: usize) -> Result<Vec<f64>, TchError> {
        let map = image.f_detach()?.f_reshape([self.channels as i64, places as i64])?;
        Vec::try_from(&map.f_mean_dim([1_i64].as_slice(), false, Kind::Double)?)
    }
}

impl Collector for ProductSums {
    fn observe(&mut self, products: &Tensor, _images: &[usize]) -> Result<(), SamplingError> {
        let [images, places] = places_of(&self.layer, self.channels, products)?;
        if products.kind() != Kind::Double {
            let problem = format!("expected 64-bit products, found {:?}", products.kind());
            return Err(SamplingError::input(&self.layer, problem));
        }
        for at in 0..images {
            let means = no_grad(|| self.of_image(&products.f_narrow(0, at as i64, 1)?, places));
            for (channel, mean) in means.of_layer(&self.layer)?.into_iter().enumerate() {
                self.sums[0][channel] += mean;
                self.sums[1][channel] += mean.abs();
            }
        }
        self.images += images as u64;
        Ok(())
    }

    fn finish(self: Box<Self>, evidence: &mut Evidence) -> Result<(), SamplingError> {
        if self.images == 0 {
            return Err(SamplingError::input(&self.layer, "no gradient was seen"));
        }
        // A product that is not finite makes the sum of absolute values so.
        if let Some(channel) = self.sums[1].iter().position(|sum| !sum.is_finite()) {
            let problem = format!("saw a value of channel {channel} that is not finite");
            return Err(SamplingError::evidence(&self.layer, EvidenceKind::Gradients, problem));
        }
        let [taylor, taylor_abs] =
            self.sums.map(|sums| sums.into_iter().map(|sum| sum / self.images as f64).collect());
        evidence.gradients = Some(GradientProducts { taylor, taylor_abs, images: self.images });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_nets::{host, random};

    fn products(channels: usize, batches: &[Tensor]) -> Result<GradientProducts, SamplingError> {
        let mut sums = Box::new(ProductSums::new("conv", channels));
        batches.iter().try_for_each(|batch| sums.observe(batch, &[]))?;
        let mut evidence = Evidence::none("conv", channels);
        sums.finish(&mut evidence)?;
        Ok(evidence.gradients.unwrap())
    }

    #[test]
    fn positions_cancel_before_the_absolute_value_and_images_do_not_after_it() {
        // Two images of two channels on a 1×2 map.
        let values = [1.0, 3.0, 2.0, -2.0, -4.0, 0.0, 1.0, 0.0];
        let found = products(2, &[Tensor::from_slice(&values).reshape([2, 2, 1, 2])]).unwrap();
        // Means over the map: (2, 0) and (-2, 0.5).
        let expected = GradientProducts { taylor: vec![0.0, 0.25], taylor_abs: vec![2.0, 0.25], images: 2 };
        assert_eq!(found, expected);
    }

    #[test]
    fn means_are_those_of_every_value_and_the_same_bits_for_every_batch_size_and_memory_format() {
        let all = random(&[9, 5, 6, 7], 1).to_kind(Kind::Double);
        let whole = products(5, &[all.shallow_clone()]).unwrap();
        let values = host(&all.to_kind(Kind::Float));
        for channel in 0..5 {
            let means = (0..9).map(|image| {
                let map = &values[(image * 5 + channel) * 42..][..42];
                map.iter().map(|&value| f64::from(value)).sum::<f64>() / 42.0
            });
            let (mean, mean_abs) =
                means.fold((0.0, 0.0), |(a, b), mean| (a + mean / 9.0, b + mean.abs() / 9.0));
            assert!((whole.taylor[channel] - mean).abs() < 1e-12);
            assert!((whole.taylor_abs[channel] - mean_abs).abs() < 1e-12);
        }
        for batch in [1, 2, 9] {
            assert_eq!(products(5, &all.split(batch, 0)).unwrap(), whole);
        }
        let channels_last = all.permute([0, 2, 3, 1]).contiguous().permute([0, 3, 1, 2]);
        assert_eq!(products(5, &[channels_last]).unwrap(), whole);
        assert_eq!(products(5, &[all.flatten(1, 3)]).unwrap(), whole);
    }

    #[test]
    fn values_that_are_not_finite_other_shapes_and_kinds_and_no_batch_are_refused_by_layer() {
        let refuse = |channels, batches: &[Tensor]| products(channels, batches).unwrap_err();
        let begin = "calibration of layer \"conv\": ";
        let broken = Tensor::from_slice(&[1.0, f64::NAN]).reshape([1, 2]);
        let error = refuse(2, &[broken]);
        assert!(matches!(error, SamplingError::Evidence { .. }), "a diverged net is recognised by it");
        let problem = "gradient products saw a value of channel 1 that is not finite";
        assert_eq!(error.to_string(), format!("{begin}{problem}"));
        let message = refuse(3, &[random(&[2, 4, 5, 5], 1).to_kind(Kind::Double)]).to_string();
        assert_eq!(message, format!("{begin}the activation is [2, 4, 5, 5], not of 3 channels"));
        let message = refuse(3, &[random(&[2, 3], 1)]).to_string();
        assert_eq!(message, format!("{begin}expected 64-bit products, found Float"));
        assert_eq!(refuse(3, &[]).to_string(), format!("{begin}no gradient was seen"));
    }
}
