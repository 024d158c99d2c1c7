//! Running statistics of batch normalisation, estimated again.

use tch::Tensor;
use thinet_graph::{Graph, Op};

use crate::error::Context;
use crate::{Mode, ModelError, Weights, forward};

/// Estimates the running statistics of a net again, batch by batch.
///
/// Every batch normalisation normalises by a batch's own mean and variance, and the running mean and (unbiased) variance become their
/// means over the batches, weighted by images. No other tensor changes. Cutting channels changes what later layers receive, so
/// that the statistics of the dense net no longer fit (Li et al. 2020, "EagleEye", who compare cut nets by such a test). PyTorch does
/// the same in training mode with `momentum=None`, except that it weights all batches alike.
#[derive(Debug)]
pub struct BatchNormEstimate<'a> {
    graph: &'a Graph,
    weights: Weights,
    seen: usize,
}

impl<'a> BatchNormEstimate<'a> {
    /// Starts with copies of the running statistics; all other tensors are those of `weights`, which is not changed.
    ///
    /// # Errors
    /// If a tensor is missing or libtorch fails.
    pub fn new(graph: &'a Graph, weights: &Weights) -> Result<Self, ModelError> {
        let mut fresh = Weights::new();
        for (name, tensor) in weights.iter() {
            fresh.insert(name, tensor.shallow_clone());
        }
        for node in graph.nodes().iter().filter(|node| matches!(node.op, Op::BatchNorm { .. })) {
            for (part, start) in [("running_mean", 0.0), ("running_var", 1.0)] {
                let name = format!("{}.{part}", node.name);
                let tensor = weights.get(&name)?.f_full_like(start).context(|| name.clone())?;
                fresh.insert(name, tensor);
            }
        }
        Ok(Self { graph, weights: fresh, seen: 0 })
    }

    /// Adds a batch of images `[n, c, h, w]`.
    ///
    /// # Errors
    /// As [`forward`].
    pub fn add(&mut self, images: &Tensor) -> Result<(), ModelError> {
        let _logits = forward(self.graph, &self.weights, images, Mode::Estimate { seen: self.seen })?;
        self.seen += images.size()[0] as usize;
        Ok(())
    }

    /// The weights with the estimated statistics; without a batch mean 0 and variance 1.
    #[must_use]
    pub fn finish(self) -> Weights {
        self.weights
    }
}

/// Whether a net has a batch normalisation.
#[must_use]
pub fn has_batch_norm(graph: &Graph) -> bool {
    graph.nodes().iter().any(|node| matches!(node.op, Op::BatchNorm { .. }))
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind};
    use thinet_nets::{Arch, NetSpec};
    use thinet_seed::Seed;

    use super::*;

    /// A net with statistics that fit no data, and images.
    fn example(images: i64) -> (Graph, Weights, Tensor) {
        let spec = NetSpec { batch_norm: Some(true), ..NetSpec::new(Arch::Tiny) };
        let graph = spec.build([3, 8, 8], 10).unwrap();
        let weights = Weights::init(&graph, Seed::root(7), Device::Cpu).unwrap();
        for (name, tensor) in weights.iter().filter(|(name, _)| name.contains("running")) {
            let mut tensor = tensor.shallow_clone();
            let _ = tensor.fill_(if name.ends_with("mean") { f64::NAN } else { 100.0 });
        }
        let count = images * 3 * 8 * 8;
        let images = (Tensor::arange(count, (Kind::Float, Device::Cpu)) * 0.37).sin().view([images, 3, 8, 8]);
        (graph, weights, images)
    }

    fn estimated(graph: &Graph, weights: &Weights, batches: &[Tensor]) -> Weights {
        let mut estimate = BatchNormEstimate::new(graph, weights).unwrap();
        for batch in batches {
            estimate.add(batch).unwrap();
        }
        estimate.finish()
    }

    #[test]
    fn statistics_of_one_batch_are_those_of_its_activations() {
        let (graph, weights, images) = example(6);
        let found = estimated(&graph, &weights, &[images.shallow_clone()]);
        // The first normalisation by hand: the convolution before it reads the images themselves.
        let conv =
            images.conv2d(found.get("conv1.weight").unwrap(), None::<Tensor>, [1, 1], [1, 1], [1, 1], 1);
        let by_channel = conv.permute([1, 0, 2, 3]).reshape([conv.size()[1], -1]);
        let (mean, var) = (by_channel.mean_dim(1, false, Kind::Float), by_channel.var_dim(1, true, false));
        for (part, expected) in [("running_mean", mean), ("running_var", var)] {
            let difference = (found.get(&format!("bn1.{part}")).unwrap() - expected).abs().max();
            assert!(difference.double_value(&[]) < 1e-5, "{part}");
        }
        // With the statistics of the batch itself, testing gives what training gives, but for n against n - 1.
        let [test, train] = [Mode::Eval, Mode::Estimate { seen: 0 }]
            .map(|mode| forward(&graph, &found, &images, mode).unwrap());
        assert!((test - train).abs().max().double_value(&[]) < 0.05);
    }

    #[test]
    fn batches_are_weighted_by_their_images_and_nothing_else_changes() {
        let (graph, weights, images) = example(9);
        let parts = images.split_with_sizes([6, 3], 0);
        let both = estimated(&graph, &weights, &parts);
        let each = parts.iter().map(|part| estimated(&graph, &weights, &[part.shallow_clone()]));
        let each: Vec<Weights> = each.collect();
        for name in ["bn1.running_mean", "bn3.running_var"] {
            let [first, second] = [0, 1].map(|part| each[part].get(name).unwrap().shallow_clone());
            let expected = first * (6.0 / 9.0) + second * (3.0 / 9.0);
            let difference = (both.get(name).unwrap() - expected).abs().max().double_value(&[]);
            assert!(difference < 1e-5, "{name}: {difference}");
        }
        for (name, tensor) in weights.iter() {
            let is_statistic = name.contains("running");
            assert_eq!(both.get(name).unwrap().equal(tensor), !is_statistic, "{name}");
        }
        let mean = weights.get("bn1.running_mean").unwrap();
        assert!(mean.isnan().all().int64_value(&[]) == 1, "the net's own statistics stay");
    }

    #[test]
    fn nets_are_known_by_their_layers() {
        let with = |batch_norm| NetSpec { batch_norm: Some(batch_norm), ..NetSpec::new(Arch::Tiny) };
        assert!(has_batch_norm(&with(true).build([3, 8, 8], 10).unwrap()));
        assert!(!has_batch_norm(&with(false).build([3, 8, 8], 10).unwrap()));
    }
}
