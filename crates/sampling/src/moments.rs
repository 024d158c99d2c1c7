//! Contribution moments of one layer, gathered batch by batch (Luo et al. 2017, section 3.2).

use tch::Tensor;
use thinet_graph::{Graph, PrunableLayer};
use thinet_seed::Seed;
use thinet_selectors::Moments;

use crate::SamplingError;
use crate::contributions::Contributions;
use crate::gram::GramSum;
use crate::positions::Positions;
use crate::window::Window;

/// Samples outputs of the next layer in every image and sums the moments of the channels' contributions to them.
#[derive(Debug)]
pub struct MomentsCollector {
    contributions: Contributions,
    sum: GramSum,
    positions: Positions,
}

impl MomentsCollector {
    /// Looks at `positions` outputs an image, drawn from `seed` and the image's index, of the layer that reads `layer`.
    ///
    /// `consumer_weight` (`[D, C, k, k]`, or `[D, C·columns]` of a linear layer) is copied; the products are made on its
    /// device.
    ///
    /// # Errors
    /// If `positions` is zero, or the weight or the layer is not of this network.
    pub fn new(
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

    /// Adds a batch: `input` is what the consumer reads (`[n, C, h, w]`, or `[n, C·columns]`), `images` are the indices
    /// of its n images in the data set.
    ///
    /// # Errors
    /// If shape or dtype of `input` do not fit.
    pub fn observe(&mut self, input: &Tensor, images: &[usize]) -> Result<(), SamplingError> {
        let Self { contributions, sum, positions } = self;
        contributions.for_each_row(input, images, *positions, &mut |row| sum.push(row))
    }

    /// The moments of all rows.
    ///
    /// # Errors
    /// If nothing was observed, or a value was not finite; names the layer.
    pub fn finish(self) -> Result<Moments, SamplingError> {
        self.sum.finish()
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
        collector.finish().unwrap()
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
        let message = new(1).unwrap().finish().unwrap_err().to_string();
        assert_eq!(message, "calibration of layer \"a\": contribution moments saw no rows");
    }
}
