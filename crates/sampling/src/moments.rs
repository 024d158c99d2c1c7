//! Contribution moments of one layer, gathered batch by batch (Luo et al. 2017, section 3.2).

use tch::Tensor;
use thinet_graph::{Graph, NodeId, PrunableLayer};
use thinet_seed::Seed;
use thinet_selectors::{Evidence, EvidenceKind, Moments};

use crate::SamplingError;
use crate::contributions::Contributions;
use crate::error::OfLayer;
use crate::gram::GramSum;
use crate::kind::{Collector, EvidenceTensors, GatheredKind, Source, count_tensor};
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

    fn tap(&self, layer: &PrunableLayer) -> NodeId {
        layer.consumer_input
    }

    fn collector(&self, source: &Source<'_>) -> Result<Box<dyn Collector>, SamplingError> {
        let Source { of, positions, seed } = source;
        let weight = of.weight_of(of.layer.consumer)?;
        Ok(Box::new(MomentsCollector::new(of.graph, of.layer, weight, *positions, *seed)?))
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
    /// Samples `positions` outputs per image, drawn from `seed` and the image's index, of the layer that reads `layer`.
    ///
    /// `consumer_weight` (`[D, C, k, k]`, or `[D, C·columns]` of a linear layer) is copied; the products are made on its
    /// device.
    fn new(
        graph: &Graph,
        layer: &PrunableLayer,
        consumer_weight: &Tensor,
        positions: usize,
        seed: Seed,
    ) -> Result<Self, SamplingError> {
        if positions == 0 {
            return Err(SamplingError::Nothing("positions-per-image"));
        }
        let window = Window::new(graph, layer)?;
        let contributions = Contributions::new(&layer.name, window, consumer_weight)?;
        let sum = GramSum::new(&layer.name, layer.channels, consumer_weight.device())?;
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
    use crate::test_nets::{conv_net, random};

    const IMAGES: i64 = 70;

    fn collect(input: &Tensor, batch: i64, images: &[usize]) -> Moments {
        let (graph, layer) = conv_net(3, 4, 3, 2, 1, 8, None);
        let weight = random(&[4, 3, 3, 3], 1);
        let mut collector = MomentsCollector::new(&graph, &layer, &weight, 20, Seed::root(1)).unwrap();
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
        let (graph, layer) = conv_net(3, 4, 3, 2, 1, 8, None);
        let new = |positions| {
            MomentsCollector::new(&graph, &layer, &random(&[4, 3, 3, 3], 1), positions, Seed::root(1))
        };
        assert_eq!(new(0).unwrap_err().to_string(), "positions-per-image must be at least 1");
        let message = new(1).unwrap().sum.finish().unwrap_err().to_string();
        assert_eq!(message, "calibration of layer \"a\": contribution moments saw no rows");
    }
}
