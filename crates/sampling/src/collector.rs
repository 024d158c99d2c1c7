//! One calibration pass for any number of layers and kinds of evidence.

use std::collections::BTreeSet;

use tch::{Kind, TchError, Tensor};
use thinet_graph::{ChannelGroup, Graph, NodeId};
use thinet_seed::Seed;
use thinet_selectors::{Evidence, Needs};

use crate::SamplingError;
use crate::error::OfLayer;
use crate::kind::{Collector, GatheredKind, GroupOf, Pass, Source, Tap, gathered};
use crate::net::read_from_net;

/// Gathers exactly the evidence needed of each layer, with one collector per kind.
///
/// The caller runs the network in inference mode and calls [`observe`](Self::observe) with the output of every node in
/// [`taps`](Self::taps) for every batch; no pass needs to go further than the last of them. For kinds that are gathered from gradients
/// it calls [`observe_gradient`](Self::observe_gradient) for every node in [`gradient_taps`](Self::gradient_taps), which takes a pass
/// to the loss and back. The evidence of a layer
/// depends neither on the other layers, nor on the other kinds, nor on the size of batches. Weights are copied
/// when the collector is made and must not change before it is finished.
#[derive(Debug)]
pub struct EvidenceCollector {
    layers: Vec<LayerCollector>,
}

#[derive(Debug)]
struct LayerCollector {
    /// Evidence read from the net.
    evidence: Evidence,
    /// The gathered kinds.
    kinds: Vec<KindCollector>,
}

#[derive(Debug)]
struct KindCollector {
    kind: &'static dyn GatheredKind,
    /// The observed nodes and the collector of each.
    taps: Vec<(NodeId, Box<dyn Collector>)>,
}

impl EvidenceCollector {
    /// For each of `groups`, the kinds of evidence that are needed of it.
    ///
    /// `weight` finds a tensor of the network by name; `positions`: outputs of each reader sampled in an image,
    /// drawn from `seed`, the group's name, the reader's name if there are several, and the image's index.
    ///
    /// # Errors
    /// If a weight is missing or does not fit, batch-norm scales are needed of a layer without, or `positions` is zero
    /// where moments are needed.
    pub fn new<'w>(
        graph: &'w Graph,
        groups: &'w [(ChannelGroup, Needs)],
        weight: &'w dyn Fn(&str) -> Option<&'w Tensor>,
        positions: usize,
        seed: Seed,
    ) -> Result<Self, SamplingError> {
        let collector = |(group, needs): &'w (ChannelGroup, Needs)| {
            let of = GroupOf { graph, group, weight };
            let at_tap = |kind: &dyn GatheredKind, tap: &Tap<'w>| {
                let of_group = seed.child(&group.name);
                // The only reader has the group's own stream.
                let seed = match group.readers.len() {
                    1 => of_group,
                    _ => of_group.child(&graph.nodes()[tap.reader.node].name),
                };
                Ok((tap.node, kind.collector(&Source { of, reader: tap.reader, positions, seed })?))
            };
            let of_kind = |kind: &'static dyn GatheredKind| {
                let taps = kind.taps(group).iter().map(|tap| at_tap(kind, tap)).collect::<Result<_, _>>()?;
                Ok(KindCollector { kind, taps })
            };
            let evidence = read_from_net(of, *needs)?;
            let kinds = gathered(*needs).map(of_kind).collect::<Result<_, SamplingError>>()?;
            Ok(LayerCollector { evidence, kinds })
        };
        Ok(Self { layers: groups.iter().map(collector).collect::<Result<_, SamplingError>>()? })
    }

    /// The nodes whose outputs must be observed; empty if no pass is needed.
    #[must_use]
    pub fn taps(&self) -> BTreeSet<NodeId> {
        self.taps_in(Pass::Forward)
    }

    /// The nodes by whose outputs gradients must be observed; empty if no backward pass is needed.
    #[must_use]
    pub fn gradient_taps(&self) -> BTreeSet<NodeId> {
        self.taps_in(Pass::Backward)
    }

    fn taps_in(&self, pass: Pass) -> BTreeSet<NodeId> {
        let kinds = self.layers.iter().flat_map(|layer| &layer.kinds);
        let of_pass = kinds.filter(|kind| kind.kind.pass() == pass);
        of_pass.flat_map(|kind| kind.taps.iter().map(|(tap, _)| *tap)).collect()
    }

    /// Adds a batch's output of a node; `images` are the indices of its images in the data set. Ignores a node
    /// that is no tap.
    ///
    /// # Errors
    /// If shape or dtype of the output do not fit a layer that is observed there (named).
    pub fn observe(&mut self, node: NodeId, output: &Tensor, images: &[usize]) -> Result<(), SamplingError> {
        self.observe_in(Pass::Forward, node, output, images)
    }

    /// Adds a batch's output of a node and the gradients of the images' own losses by it, of the same shape; `images` are the indices of
    /// its images in the data set. Ignores a node that is no gradient tap.
    ///
    /// # Errors
    /// If output and gradient have other shapes, or do not fit a layer that is observed there (named).
    pub fn observe_gradient(
        &mut self,
        node: NodeId,
        output: &Tensor,
        gradient: &Tensor,
        images: &[usize],
    ) -> Result<(), SamplingError> {
        let is_seen = |kind: &KindCollector| {
            kind.kind.pass() == Pass::Backward && kind.taps.iter().any(|(tap, _)| *tap == node)
        };
        let Some(layer) = self.layers.iter().find(|layer| layer.kinds.iter().any(is_seen)) else {
            return Ok(());
        };
        let product = || -> Result<Tensor, TchError> {
            output.f_detach()?.f_to_kind(Kind::Double)?.f_mul(&gradient.f_to_kind(Kind::Double)?)
        };
        let product = product().of_layer(&layer.evidence.layer)?;
        self.observe_in(Pass::Backward, node, &product, images)
    }

    fn observe_in(
        &mut self,
        pass: Pass,
        node: NodeId,
        output: &Tensor,
        images: &[usize],
    ) -> Result<(), SamplingError> {
        let kinds = self.layers.iter_mut().flat_map(|layer| &mut layer.kinds);
        let all = kinds.filter(|kind| kind.kind.pass() == pass).flat_map(|kind| &mut kind.taps);
        for (_, collector) in all.filter(|(tap, _)| *tap == node) {
            collector.observe(output, images)?;
        }
        Ok(())
    }

    /// The evidence of each layer, in the order in which the layers were given.
    ///
    /// # Errors
    /// If a tap was never observed or saw a value that is not finite; names the layer.
    pub fn finish(self) -> Result<Vec<Evidence>, SamplingError> {
        let finished = |LayerCollector { mut evidence, kinds }: LayerCollector| {
            for kind in kinds {
                kind.finish(&mut evidence)?;
            }
            Ok(evidence)
        };
        self.layers.into_iter().map(finished).collect()
    }
}

impl KindCollector {
    /// Stores the evidence of the only tap, or the joined evidence of several.
    fn finish(mut self, evidence: &mut Evidence) -> Result<(), SamplingError> {
        if self.taps.len() == 1 {
            let (_, collector) = self.taps.remove(0);
            return collector.finish(evidence);
        }
        let of_tap = |(_, collector): (NodeId, Box<dyn Collector>)| {
            let mut part = Evidence::none(&evidence.layer, evidence.channels);
            collector.finish(&mut part)?;
            Ok(part)
        };
        let parts = self.taps.into_iter().map(of_tap).collect::<Result<Vec<_>, SamplingError>>()?;
        self.kind.join(&parts, evidence)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::positions::Positions;
    use crate::test_nets::{conv_net, random};
    use crate::window::Window;
    use std::collections::BTreeMap;
    use tch::Kind;
    use thinet_graph::prunable_layers;

    fn all() -> Needs {
        Needs::FILTERS | Needs::ZEROS | Needs::ACTIVATIONS | Needs::MOMENTS
    }

    /// Conv "a" → ReLU → max pool → strided conv "b", its weights, and outputs of its nodes for 6 images.
    struct Example {
        graph: Graph,
        layer: ChannelGroup,
        weights: BTreeMap<String, Tensor>,
        relu: Tensor,
        pool: Tensor,
    }

    impl Example {
        fn new() -> Self {
            let (graph, layer) = conv_net(5, 4, 3, 2, 1, 12, Some(2));
            let weights = [("a.weight", [5, 2, 1, 1]), ("b.weight", [4, 5, 3, 3])];
            let weights = weights.map(|(name, shape)| (name.to_owned(), random(&shape, shape[0] as u64)));
            let relu = random(&[6, 5, 12, 12], 9).relu();
            let pool = relu.max_pool2d([2], [2], [0], [1], false);
            Self { graph, layer, weights: weights.into(), relu, pool }
        }

        fn collector(&self, layers: &[(ChannelGroup, Needs)]) -> Result<EvidenceCollector, SamplingError> {
            let weight = |name: &str| self.weights.get(name);
            EvidenceCollector::new(&self.graph, layers, &weight, 8, Seed::root(4))
        }
    }

    #[test]
    fn only_what_is_needed_is_tapped_and_gathered() {
        let pass = Example::new();
        let (relu, pool) = (pass.layer.readers[0].activation, pass.layer.readers[0].input);
        assert_eq!(pass.graph.nodes()[pool].name, "pool");
        let taps = |needs| {
            pass.collector(&[(pass.layer.clone(), needs)]).unwrap().taps().into_iter().collect::<Vec<_>>()
        };
        assert!(taps(Needs::FILTERS).is_empty());
        assert_eq!(taps(Needs::ZEROS), [relu]);
        assert_eq!(taps(Needs::MOMENTS), [pool]);
        assert_eq!(taps(Needs::ACTIVATIONS), [relu]);
        assert_eq!(taps(all()), [relu, pool]);

        let evidence = pass.collector(&[(pass.layer.clone(), Needs::FILTERS)]).unwrap().finish().unwrap();
        assert_eq!((evidence[0].layer.as_str(), evidence[0].channels), ("a", 5));
        assert_eq!(evidence[0].filters.as_ref().unwrap().len, 2);
        assert!(evidence[0] == evidence[0].only(Needs::FILTERS));
    }

    #[test]
    fn gradients_are_tapped_by_a_pass_of_their_own_and_observed_as_products_with_the_output() {
        let pass = Example::new();
        let mut collector = pass.collector(&[(pass.layer.clone(), Needs::GRADIENTS)]).unwrap();
        let relu = pass.layer.readers[0].activation;
        assert!(collector.taps().is_empty());
        assert_eq!(collector.gradient_taps().into_iter().collect::<Vec<_>>(), [relu]);
        // Neither an output without gradient nor a node that is no tap is seen.
        collector.observe(relu, &pass.relu, &[0; 6]).unwrap();
        collector.observe_gradient(relu + 1, &pass.pool, &pass.relu, &[0; 6]).unwrap();
        let gradient = Tensor::full([6, 5, 12, 12], -2.0, (Kind::Float, tch::Device::Cpu));
        collector.observe_gradient(relu, &pass.relu, &gradient, &[0; 6]).unwrap();
        let message =
            collector.observe_gradient(relu, &pass.relu, &pass.pool, &[0; 6]).unwrap_err().to_string();
        assert!(message.starts_with("calibration of layer \"a\": "), "{message}");
        let found = collector.finish().unwrap().remove(0).gradients.unwrap();
        let means = pass.relu.to_kind(Kind::Double).mean_dim([0_i64, 2, 3].as_slice(), false, Kind::Double);
        for (channel, mean) in Vec::<f64>::try_from(means).unwrap().into_iter().enumerate() {
            assert!((found.taylor[channel] + 2.0 * mean).abs() < 1e-12);
            assert!((found.taylor_abs[channel] - 2.0 * mean).abs() < 1e-12);
        }
    }

    #[test]
    fn moments_behind_a_pool_are_those_of_the_next_layers_output() {
        let pass = Example::new();
        let images = [3, 1, 4, 15, 9, 2];
        let mut collector = pass.collector(&[(pass.layer.clone(), all())]).unwrap();
        collector.observe(pass.layer.readers[0].activation, &pass.relu, &images).unwrap();
        collector.observe(pass.layer.readers[0].input, &pass.pool, &images).unwrap();
        collector.observe(pass.layer.producers[0].node, &pass.relu, &images).unwrap();
        let evidence = collector.finish().unwrap().remove(0);
        assert_eq!(evidence.zeros.unwrap().total, 6 * 144);

        let weight = pass.weights["b.weight"].to_kind(Kind::Double);
        let output = pass.pool.to_kind(Kind::Double).conv2d(&weight, None::<Tensor>, [2], [1], [1], 1);
        let window = Window::new(&pass.graph, &pass.layer, &pass.layer.readers[0]).unwrap();
        let positions = Positions { count: 8, seed: Seed::root(4).child("a") };
        let drawn = (0..).zip(images).flat_map(|(n, image)| {
            positions.draw(&window, image).into_iter().map(move |instance| (n, instance))
        });
        let squares: f64 = drawn
            .map(|(n, i)| output.double_value(&[n, i.filter as i64, i.output[0] as i64, i.output[1] as i64]))
            .map(|y| y * y)
            .sum();
        let moments = evidence.moments.unwrap();
        assert_eq!(moments.rows(), 48);
        assert!((moments.c() - squares).abs() < 1e-12 * squares);
    }

    #[test]
    fn missing_and_unseen_things_are_named() {
        let mut pass = Example::new();
        let layers = [(pass.layer.clone(), Needs::MOMENTS)];
        let message = pass.collector(&layers).unwrap().finish().unwrap_err().to_string();
        assert_eq!(message, "calibration of layer \"a\": contribution moments saw no rows");
        pass.weights.remove("b.weight");
        let message = pass.collector(&layers).unwrap_err().to_string();
        assert_eq!(message, "calibration of layer \"a\": there is no tensor \"b.weight\"");
        let mut collector = pass.collector(&[(pass.layer.clone(), Needs::ZEROS)]).unwrap();
        let message =
            collector.observe(pass.layer.readers[0].activation, &pass.pool.narrow(1, 0, 4), &[]).unwrap_err();
        assert!(message.to_string().contains("layer \"a\": the activation is [6, 4, 6, 6]"), "{message}");
        assert_eq!(prunable_layers(&pass.graph), [pass.layer]);
    }
}
