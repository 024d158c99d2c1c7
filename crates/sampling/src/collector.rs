//! One calibration pass for any number of layers and selectors: which nodes to look at, and the evidence in the end.

use std::collections::BTreeSet;

use tch::Tensor;
use thinet_graph::{Graph, NodeId, PrunableLayer};
use thinet_seed::Seed;
use thinet_selectors::{Evidence, Filters, Needs};

use crate::{MomentsCollector, SamplingError, ZeroCounter, filters};

/// Gathers exactly the evidence that is needed of each layer.
///
/// Whoever runs the network calls [`observe`](Self::observe) with the output of every node in [`taps`](Self::taps) for
/// every batch, in inference mode, and may stop a forward pass at [`last_tap`](Self::last_tap). What is gathered of a
/// layer does not depend on the other layers, nor on how the images are cut into batches. Weights are copied when the
/// collector is made and must not change before it is finished.
#[derive(Debug)]
pub struct EvidenceCollector {
    layers: Vec<LayerCollector>,
}

#[derive(Debug)]
struct LayerCollector {
    layer: PrunableLayer,
    filters: Option<Filters>,
    zeros: Option<ZeroCounter>,
    moments: Option<MomentsCollector>,
}

impl EvidenceCollector {
    /// For each of `layers`, what all selectors together need of it.
    ///
    /// `weight` finds a tensor of the network by name; `positions`: outputs of the next layer looked at in an image,
    /// drawn from `seed`, the layer's name and the image's index.
    ///
    /// # Errors
    /// If a weight is missing or does not fit, or `positions` is zero where moments are needed.
    pub fn new<'w>(
        graph: &Graph,
        layers: &[(PrunableLayer, Needs)],
        weight: &dyn Fn(&str) -> Option<&'w Tensor>,
        positions: usize,
        seed: Seed,
    ) -> Result<Self, SamplingError> {
        let collector = |(layer, needs): &(PrunableLayer, Needs)| {
            let find = |node: NodeId| {
                let tensor = format!("{}.weight", graph.nodes()[node].name);
                weight(&tensor).ok_or_else(|| {
                    SamplingError::input(&layer.name, format!("there is no tensor {tensor:?}"))
                })
            };
            let moments = || {
                MomentsCollector::new(graph, layer, find(layer.consumer)?, positions, seed.child(&layer.name))
            };
            Ok(LayerCollector {
                filters: needs.filters.then(|| filters(&layer.name, find(layer.conv)?)).transpose()?,
                zeros: needs.zeros.then(|| ZeroCounter::new(&layer.name, layer.channels)),
                moments: needs.moments.then(moments).transpose()?,
                layer: layer.clone(),
            })
        };
        Ok(Self { layers: layers.iter().map(collector).collect::<Result<_, _>>()? })
    }

    /// The nodes whose outputs must be observed; empty if no pass is needed.
    #[must_use]
    pub fn taps(&self) -> BTreeSet<NodeId> {
        let taps = self.layers.iter().flat_map(|collector| {
            let zeros = collector.zeros.as_ref().map(|_| collector.layer.activation);
            let moments = collector.moments.as_ref().map(|_| collector.layer.consumer_input);
            zeros.into_iter().chain(moments)
        });
        taps.collect()
    }

    /// The last node that a forward pass must reach; `None` if no pass is needed.
    #[must_use]
    pub fn last_tap(&self) -> Option<NodeId> {
        self.taps().last().copied()
    }

    /// Adds a batch's output of a node; `images` are the indices of its images in the data set. Does nothing for a node
    /// that is no tap.
    ///
    /// # Errors
    /// If shape or dtype of the output do not fit a layer that is observed there (named).
    pub fn observe(&mut self, node: NodeId, output: &Tensor, images: &[usize]) -> Result<(), SamplingError> {
        for LayerCollector { layer, zeros, moments, .. } in &mut self.layers {
            if let Some(zeros) = zeros.as_mut().filter(|_| layer.activation == node) {
                zeros.observe(output)?;
            }
            if let Some(moments) = moments.as_mut().filter(|_| layer.consumer_input == node) {
                moments.observe(output, images)?;
            }
        }
        Ok(())
    }

    /// The evidence of each layer, in the order in which the layers were given.
    ///
    /// # Errors
    /// If a tap was never observed or saw a value that is not finite; names the layer.
    pub fn finish(self) -> Result<Vec<Evidence>, SamplingError> {
        let evidence = |LayerCollector { layer, filters, zeros, moments }: LayerCollector| {
            Ok(Evidence {
                layer: layer.name,
                channels: layer.channels,
                filters,
                zeros: zeros.map(ZeroCounter::finish).transpose()?,
                moments: moments.map(MomentsCollector::finish).transpose()?,
            })
        };
        self.layers.into_iter().map(evidence).collect()
    }
}
