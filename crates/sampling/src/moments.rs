//! Contribution moments of one layer to those that read it, gathered batch by batch (Luo et al. 2017, section 3.2).

use tch::Tensor;
use thinet_graph::ChannelGroup;
use thinet_selectors::{Evidence, EvidenceKind, Moments};

use crate::SamplingError;
use crate::contributions::Contributions;
use crate::error::OfLayer;
use crate::gram::GramSum;
use crate::kind::{Collector, EvidenceTensors, GatheredKind, Source, Tap, count_tensor, each_input, held};
use crate::positions::Positions;
use crate::window::Window;

/// Contribution moments, observed where the next layer reads.
pub(crate) struct GatheredMoments;

impl GatheredKind for GatheredMoments {
    fn kind(&self) -> EvidenceKind {
        EvidenceKind::Moments
    }

    fn stage(&self) -> &'static str {
        "moments"
    }

    fn taps<'g>(&self, group: &'g ChannelGroup) -> Vec<Tap<'g>> {
        each_input(group)
    }

    fn collector(&self, source: &Source<'_>) -> Result<Box<dyn Collector>, SamplingError> {
        let weight = source.of.weight_of(source.reader.node)?;
        Ok(Box::new(MomentsCollector::new(source, weight)?))
    }

    /// The sum of the moments of each reader, each divided by its trace: see [`Moments::balanced`].
    fn join(&self, parts: &[Evidence], evidence: &mut Evidence) -> Result<(), SamplingError> {
        let parts = held(self.kind(), parts, |part| part.moments.as_ref())?;
        let moments = Moments::balanced(&parts);
        let of_layer = |source| SamplingError::Evidence { layer: evidence.layer.clone(), source };
        evidence.moments = Some(moments.map_err(of_layer)?);
        Ok(())
    }

    fn to_tensors(&self, evidence: &Evidence) -> Result<Vec<(&'static str, Tensor)>, SamplingError> {
        let Some(moments) = &evidence.moments else { return Ok(Vec::new()) };
        let c = moments.channels();
        let gram: Vec<f64> = (0..c).flat_map(|i| moments.row(i).to_vec()).collect();
        let gram = Tensor::f_from_slice(&gram).and_then(|gram| gram.f_view([c as i64, c as i64]));
        let rows = count_tensor(&evidence.layer, &[moments.rows()])?;
        Ok(vec![("gram", gram.of_layer(&evidence.layer)?), ("rows", rows)])
    }

    fn read(&self, stored: &EvidenceTensors<'_>, evidence: &mut Evidence) -> Result<(), SamplingError> {
        let moments = Moments::new(evidence.channels, stored.count("rows")?, stored.floats("gram")?);
        let moments =
            moments.map_err(|source| SamplingError::Evidence { layer: evidence.layer.clone(), source })?;
        evidence.moments = Some(moments);
        Ok(())
    }
}

/// Samples outputs of the next layer in every image and sums the moments of the channels' contributions to them.
#[derive(Debug)]
struct MomentsCollector {
    contributions: Contributions,
    sum: GramSum,
    positions: Positions,
}

impl MomentsCollector {
    /// Samples outputs of the source's reader in each image, drawn from the source's seed and the image's index.
    ///
    /// `weight` (the reader's: `[D, C, k, k]`, or `[D, C·columns]` of a linear layer) is copied; the products are made on
    /// its device.
    fn new(source: &Source<'_>, weight: &Tensor) -> Result<Self, SamplingError> {
        let Source { of, reader, positions, seed } = *source;
        if positions == 0 {
            return Err(SamplingError::Nothing("positions-per-image"));
        }
        let window = Window::new(of.graph, of.group, reader)?;
        let contributions = Contributions::new(&of.group.name, window, weight)?;
        let sum = GramSum::new(&of.group.name, of.group.channels, weight.device())?;
        Ok(Self { contributions, sum, positions: Positions { count: positions, seed } })
    }
}

impl Collector for MomentsCollector {
    fn observe(&mut self, input: &Tensor, images: &[usize]) -> Result<(), SamplingError> {
        let Self { contributions, sum, positions } = self;
        contributions.for_each_row(input, images, *positions, &mut |row| sum.push(row))
    }

    fn finish(self: Box<Self>, evidence: &mut Evidence) -> Result<(), SamplingError> {
        evidence.moments = Some(self.sum.finish()?);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kind::GroupOf;
    use crate::test_nets::{conv_net, random};
    use thinet_seed::Seed;

    const IMAGES: i64 = 70;

    /// A collector for the layer "a" of a net of two convolutions.
    fn collector(positions: usize) -> Result<MomentsCollector, SamplingError> {
        let (graph, group) = conv_net(3, 4, 3, 2, 1, 8, None);
        let weight = random(&[4, 3, 3, 3], 1);
        let of = GroupOf { graph: &graph, group: &group, weight: &|_| None };
        let source = Source { of, reader: &group.readers[0], positions, seed: Seed::root(1) };
        MomentsCollector::new(&source, &weight)
    }

    fn collect(input: &Tensor, batch: i64, images: &[usize]) -> Moments {
        let mut collector = collector(20).unwrap();
        let mut first = 0;
        while first < IMAGES {
            let count = batch.min(IMAGES - first);
            let range = first as usize..(first + count) as usize;
            collector.observe(&input.narrow(0, first, count), &images[range]).unwrap();
            first += count;
        }
        collector.sum.finish().unwrap()
    }

    #[test]
    fn the_moments_have_the_same_bits_for_every_batch_size() {
        let input = random(&[IMAGES, 3, 8, 8], 2);
        let images: Vec<usize> = (100..100 + IMAGES as usize).collect();
        let one = collect(&input, 1, &images);
        assert_eq!(one.rows(), 1400);
        assert_eq!(collect(&input, 7, &images), one);
        assert_eq!(collect(&input, 64, &images), one);
        assert_eq!(collect(&input, 70, &images), one);
    }

    #[test]
    fn positions_follow_the_image_not_its_place_in_the_batch() {
        let input = random(&[IMAGES, 3, 8, 8], 2);
        let images: Vec<usize> = (100..100 + IMAGES as usize).collect();
        let one = collect(&input, 64, &images);
        let reversed: Vec<usize> = images.iter().copied().rev().collect();
        let other_order = collect(&input.flip([0]), 64, &reversed);
        for i in 0..3 {
            for j in 0..3 {
                let room = 1e-12 * (one.g(i, i) * one.g(j, j)).sqrt();
                assert!((one.g(i, j) - other_order.g(i, j)).abs() <= room);
            }
        }
        assert_ne!(collect(&input, 64, &reversed), one);
    }

    #[test]
    fn no_positions_and_no_images_are_refused() {
        assert_eq!(collector(0).unwrap_err().to_string(), "positions-per-image must be at least 1");
        let message = collector(1).unwrap().sum.finish().unwrap_err().to_string();
        assert_eq!(message, "calibration of layer \"a\": contribution moments saw no rows");
    }
}
