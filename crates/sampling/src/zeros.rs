//! How often each channel is exactly zero after its activation (APoZ: Hu et al. 2016, eq. 1).

use tch::{Kind, TchError, Tensor, no_grad};
use thinet_graph::ChannelGroup;
use thinet_selectors::{Evidence, EvidenceKind, ZeroCounts};

use crate::SamplingError;
use crate::contributions::check_float;
use crate::error::OfLayer;
use crate::kind::{
    Collector, EvidenceTensors, GatheredKind, Source, Tap, count_tensor, each_activation, held,
};

/// Values marked at a time (1 MiB of marks): memory does not grow with the batch, and the marks stay in cache.
const CHUNK: usize = 1 << 18;
/// Up to this many ones, a sum of 32-bit floats is exact.
const EXACT: usize = 1 << 24;

/// Zero counts, observed after the first ReLU before each reader.
pub(crate) struct GatheredZeros;

impl GatheredKind for GatheredZeros {
    fn kind(&self) -> EvidenceKind {
        EvidenceKind::Zeros
    }

    fn stage(&self) -> &'static str {
        "zeros"
    }

    fn taps<'g>(&self, group: &'g ChannelGroup) -> Vec<Tap<'g>> {
        each_activation(group)
    }

    fn collector(&self, source: &Source<'_>) -> Result<Box<dyn Collector>, SamplingError> {
        Ok(Box::new(ZeroCounter::new(&source.of.group.name, source.of.group.channels)))
    }

    /// The sums: every place where the channel is read counts the same.
    fn join(&self, parts: &[Evidence], evidence: &mut Evidence) -> Result<(), SamplingError> {
        let parts = held(self.kind(), parts, |part| part.zeros.as_ref())?;
        let zeros = |channel| parts.iter().map(|counts| counts.zeros[channel]).sum();
        evidence.zeros = Some(ZeroCounts {
            zeros: (0..evidence.channels).map(zeros).collect(),
            total: parts.iter().map(|counts| counts.total).sum(),
        });
        Ok(())
    }

    fn to_tensors(&self, evidence: &Evidence) -> Result<Vec<(&'static str, Tensor)>, SamplingError> {
        let Some(counts) = &evidence.zeros else { return Ok(Vec::new()) };
        let zeros = count_tensor(&evidence.layer, &counts.zeros)?;
        Ok(vec![("zeros", zeros), ("total", count_tensor(&evidence.layer, &[counts.total])?)])
    }

    fn read(&self, stored: &EvidenceTensors<'_>, evidence: &mut Evidence) -> Result<(), SamplingError> {
        evidence.zeros = Some(ZeroCounts { zeros: stored.counts("zeros")?, total: stored.count("total")? });
        Ok(())
    }
}

/// Counts zeros per channel over any number of batches; the counts are exact.
#[derive(Debug)]
struct ZeroCounter {
    layer: String,
    channels: usize,
    /// Values that are not zero, `[C]`; absent before the first batch.
    nonzero: Option<Tensor>,
    /// Values seen in each channel.
    total: u64,
}

impl ZeroCounter {
    /// A collector without counts; `layer` is for messages.
    fn new(layer: &str, channels: usize) -> Self {
        Self { layer: layer.to_owned(), channels, nonzero: None, total: 0 }
    }

    /// The counts of all batches.
    fn counts(&self) -> Result<ZeroCounts, SamplingError> {
        let Some(nonzero) = self.nonzero.as_ref().filter(|_| self.total > 0) else {
            return Err(SamplingError::input(&self.layer, "no activation was seen"));
        };
        let nonzero = Vec::<i64>::try_from(nonzero).of_layer(&self.layer)?;
        let zeros = nonzero.into_iter().map(|nonzero| self.total - nonzero as u64).collect();
        Ok(ZeroCounts { zeros, total: self.total })
    }

    /// The values that are not zero so far, with those of a batch of maps of `places` values.
    ///
    /// Marks as 32-bit floats, written into a reused chunk and summed over a map, are several times faster than
    /// libtorch's `count_nonzero`.
    fn count(&self, activation: &Tensor, places: usize) -> Result<Tensor, TchError> {
        let (channels, places) = (self.channels as i64, places as i64);
        let activation = activation.f_detach()?;
        // Either a map's values are contiguous or a position's channels are; neither memory format is transposed to the other.
        let by_place = match activation.dim() {
            4 => Some(activation.f_permute([0, 2, 3, 1])?).filter(Tensor::is_contiguous),
            _ => None,
        };
        let (maps, over) = match by_place {
            Some(by_place) => (by_place.f_reshape([-1, places, channels])?, 1_i64),
            None => (activation.f_reshape([-1, channels, places])?, 2_i64),
        };
        let images_at_a_time = (CHUNK as i64 / (channels * places).max(1)).max(1);
        let mut nonzero = match &self.nonzero {
            Some(nonzero) => nonzero.shallow_clone(),
            None => Tensor::f_zeros([channels], (Kind::Int64, maps.device()))?,
        };
        let size = [images_at_a_time, maps.size()[1], maps.size()[2]];
        let marks = Tensor::f_empty(size, (Kind::Float, maps.device()))?;
        for maps in maps.f_split(images_at_a_time, 0)? {
            let marks = maps.f_ne_scalar_out(&marks.f_narrow(0, 0, maps.size()[0])?, 0.0)?;
            let by_map = marks.f_sum_dim_intlist([over].as_slice(), false, Kind::Float)?;
            nonzero = nonzero.f_add(&by_map.f_sum_dim_intlist([0_i64].as_slice(), false, Kind::Int64)?)?;
        }
        Ok(nonzero)
    }
}

impl Collector for ZeroCounter {
    /// A NaN is not a zero.
    fn observe(&mut self, activation: &Tensor, _images: &[usize]) -> Result<(), SamplingError> {
        let [images, places] = places_of(&self.layer, self.channels, activation)?;
        check_float(&self.layer, activation)?;
        if places > EXACT {
            return Err(SamplingError::input(
                &self.layer,
                format!("a map of {places} places is too large to count"),
            ));
        }
        let counted = no_grad(|| self.count(activation, places)).of_layer(&self.layer)?;
        self.nonzero = Some(counted);
        self.total += (images * places) as u64;
        Ok(())
    }

    fn finish(self: Box<Self>, evidence: &mut Evidence) -> Result<(), SamplingError> {
        evidence.zeros = Some(self.counts()?);
        Ok(())
    }
}

/// Images of a batch of activations (`[n, C, h, w]`, or `[n, C·columns]` after a flatten), and places of a channel's map.
pub(crate) fn places_of(
    layer: &str,
    channels: usize,
    activation: &Tensor,
) -> Result<[usize; 2], SamplingError> {
    let size: Vec<usize> = activation.size().iter().map(|&size| size as usize).collect();
    match *size.as_slice() {
        [n, c, h, w] if c == channels => Ok([n, h * w]),
        [n, flat] if flat > 0 && flat.is_multiple_of(channels) => Ok([n, flat / channels]),
        _ => {
            let problem = format!("the activation is {size:?}, not of {channels} channels");
            Err(SamplingError::input(layer, problem))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_nets::{host, random};

    /// The plain version: reads every value, `[n, C, places]`.
    fn plain_count(values: &[f32], channels: usize, places: usize) -> Vec<u64> {
        let mut zeros = vec![0; channels];
        for (map, values) in values.chunks_exact(places).enumerate() {
            zeros[map % channels] += values.iter().filter(|&&value| value == 0.0).count() as u64;
        }
        zeros
    }

    fn count(channels: usize, batches: &[Tensor]) -> ZeroCounts {
        let mut counter = ZeroCounter::new("conv", channels);
        batches.iter().for_each(|batch| counter.observe(batch, &[]).unwrap());
        counter.counts().unwrap()
    }

    #[test]
    fn counts_are_those_of_looking_at_every_value_for_every_batch_size() {
        let activation = random(&[9, 5, 6, 7], 1).relu();
        let expected = ZeroCounts { zeros: plain_count(&host(&activation), 5, 42), total: 9 * 42 };
        assert!(expected.zeros.iter().all(|&zeros| zeros > 100 && zeros < 300));
        for batch in [1, 2, 9] {
            assert_eq!(count(5, &activation.split(batch, 0)), expected);
        }
        let channels_last = activation.permute([0, 2, 3, 1]).contiguous().permute([0, 3, 1, 2]);
        assert_eq!(count(5, &[channels_last]), expected);
        assert_eq!(count(5, &[activation.flatten(1, 3)]), expected);
    }

    #[test]
    fn maps_and_batches_larger_than_a_chunk_are_counted_exactly() {
        for shape in [[3, 2, 512, 350], [17, 2, 256, 256]] {
            let activation = random(&shape, 2).relu();
            let places = (shape[2] * shape[3]) as usize;
            let zeros = plain_count(&host(&activation), 2, places);
            let expected = ZeroCounts { zeros, total: shape[0] as u64 * places as u64 };
            let channels_last = activation.permute([0, 2, 3, 1]).contiguous().permute([0, 3, 1, 2]);
            assert_eq!(count(2, &[activation]), expected);
            assert_eq!(count(2, &[channels_last]), expected);
        }
    }

    #[test]
    fn signed_zeros_count_and_nan_does_not() {
        let activation = Tensor::from_slice(&[0.0_f32, -0.0, f32::NAN, 1e-40]).reshape([4, 1]);
        assert_eq!(count(1, &[activation]), ZeroCounts { zeros: vec![2], total: 4 });
    }

    #[test]
    fn other_shapes_and_dtypes_and_no_batch_are_refused_by_layer() {
        let refuse = |activation: &Tensor| {
            ZeroCounter::new("conv", 3).observe(activation, &[]).unwrap_err().to_string()
        };
        let message = refuse(&random(&[2, 4, 5, 5], 1));
        assert_eq!(
            message,
            "calibration of layer \"conv\": the activation is [2, 4, 5, 5], not of 3 channels"
        );
        let message = refuse(&random(&[2, 4], 1));
        assert_eq!(message, "calibration of layer \"conv\": the activation is [2, 4], not of 3 channels");
        let message = refuse(&random(&[2, 3], 1).to_kind(Kind::Half));
        assert_eq!(message, "calibration of layer \"conv\": expected 32-bit floats, found Half");
        let message = ZeroCounter::new("conv", 3).counts().unwrap_err().to_string();
        assert_eq!(message, "calibration of layer \"conv\": no activation was seen");
    }
}
