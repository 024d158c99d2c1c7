//! Products of the patches that the readers of a layer see, from which whole kernels are refitted (He, Zhang and Sun 2017, eq. 4).
//!
//! A patch is what one filter of the next layer reads for one output: `[C·taps]`, the taps of a channel side by side, zero in the padding.
//! Patches are sampled at the same outputs as contributions.

use std::collections::BTreeSet;

use tch::{Device, Tensor};
use thinet_graph::{ChannelGroup, Graph, NodeId};
use thinet_seed::Seed;
use thinet_selectors::Moments;

use crate::SamplingError;
use crate::contributions::{check_float, to_host};
use crate::error::OfLayer;
use crate::gram::GramSum;
use crate::positions::Positions;
use crate::window::Window;

/// The largest matrix of products that is summed for one layer, bytes.
const MOST_BYTES: usize = 4 << 30;

/// Sums the products of patches for each reader of one group of channels, in 8·(C·taps)² bytes each.
#[derive(Debug)]
pub struct PatchCollector {
    /// The observed nodes and the sum of each reader, in the order of the group's readers.
    readers: Vec<(NodeId, PatchSum)>,
}

/// Products of the patches of one reader.
#[derive(Clone, Debug, PartialEq)]
pub struct ReaderPatches {
    /// PᵀP: `[C·taps, C·taps]`.
    pub moments: Moments,
    /// Weights of a filter for each channel.
    pub taps: usize,
}

#[derive(Debug)]
struct PatchSum {
    layer: String,
    window: Window,
    sum: GramSum,
    positions: Positions,
    patch: Vec<f64>,
}

impl PatchCollector {
    /// `positions`: outputs of each reader that are sampled in an image, drawn as those of contributions with the same `seed`. Products are
    /// computed on `device`.
    ///
    /// # Errors
    /// If `positions` is zero, or the products of a reader take more than 4 GiB; names the layer.
    pub fn new(
        graph: &Graph,
        group: &ChannelGroup,
        positions: usize,
        seed: Seed,
        device: Device,
    ) -> Result<Self, SamplingError> {
        if positions == 0 {
            return Err(SamplingError::Nothing("positions-per-image"));
        }
        let of_group = seed.child(&group.name);
        let mut readers = Vec::new();
        for reader in &group.readers {
            let name = &graph.nodes()[reader.node].name;
            let seed = if group.readers.len() == 1 { of_group } else { of_group.child(name) };
            let window = Window::new(graph, group, reader)?;
            let length = window.channels * window.taps();
            let bytes = length * length * size_of::<f64>();
            if bytes > MOST_BYTES {
                let problem = format!(
                    "the products of the {length} values that a filter of {name:?} reads take {:.1} GiB, and at most {} GiB are used; \
                     give this study another reconstruction, or leave the layer out of it",
                    bytes as f64 / (1_u64 << 30) as f64,
                    MOST_BYTES >> 30
                );
                return Err(SamplingError::input(&group.name, problem));
            }
            let sum = GramSum::new(&group.name, length, device)?;
            let positions = Positions { count: positions, seed };
            let layer = group.name.clone();
            readers
                .push((reader.input, PatchSum { layer, window, sum, positions, patch: vec![0.0; length] }));
        }
        Ok(Self { readers })
    }

    /// The nodes whose outputs must be observed.
    #[must_use]
    pub fn taps(&self) -> BTreeSet<NodeId> {
        self.readers.iter().map(|(node, _)| *node).collect()
    }

    /// Adds a batch's output of a node; `images` are the indices of its images in the data set. Ignores a node that no reader reads.
    ///
    /// # Errors
    /// If shape or dtype of the output do not fit.
    pub fn observe(&mut self, node: NodeId, output: &Tensor, images: &[usize]) -> Result<(), SamplingError> {
        for (_, sum) in self.readers.iter_mut().filter(|(observed, _)| *observed == node) {
            sum.observe(output, images)?;
        }
        Ok(())
    }

    /// The products of each reader, in the order of the group's readers.
    ///
    /// # Errors
    /// If a reader saw no patch, or values that are not finite; names the layer.
    pub fn finish(self) -> Result<Vec<ReaderPatches>, SamplingError> {
        let finished = |(_, PatchSum { window, sum, .. }): (NodeId, PatchSum)| {
            Ok(ReaderPatches { moments: sum.finish()?, taps: window.taps() })
        };
        self.readers.into_iter().map(finished).collect()
    }
}

impl PatchSum {
    /// `input`: what the reader reads, `[n, C, h, w]` or `[n, C·columns]`.
    fn observe(&mut self, input: &Tensor, images: &[usize]) -> Result<(), SamplingError> {
        let Self { layer, window, sum, positions, patch } = self;
        let [n, c] = [images.len(), window.channels].map(|size| size as i64);
        let [h, w] = window.map.map(|size| size as i64);
        let found = input.size();
        if found != [n, c, h, w] && found != [n, c * h * w] {
            let problem = format!("the next layer's input is {found:?}, not {:?}", [n, c, h, w]);
            return Err(SamplingError::input(layer, problem));
        }
        check_float(layer, input)?;
        let (places, taps) = (window.places(), window.taps());
        for (at, &image) in images.iter().enumerate() {
            let map = input.f_detach().and_then(|all| all.f_select(0, at as i64)).of_layer(layer)?;
            let values = to_host(layer, &map)?;
            for instance in positions.draw(window, image) {
                patch.fill(0.0);
                for tap in window.taps_on_map(instance.output) {
                    for (channel, map) in values.chunks_exact(places).enumerate() {
                        patch[channel * taps + tap.tap] = f64::from(map[tap.place]);
                    }
                }
                sum.push(patch)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contributions::Contributions;
    use crate::test_nets::{conv_net, host, linear_net, random};

    const POSITIONS: usize = 6;

    /// The products of all patches that `weight` sees in `input`, and its contributions' moments at the same outputs.
    fn both(
        graph: &Graph,
        group: &ChannelGroup,
        weight: &Tensor,
        input: &Tensor,
    ) -> (ReaderPatches, Moments) {
        let images: Vec<usize> = (7..7 + input.size()[0] as usize).collect();
        let seed = Seed::root(3);
        let mut patches = PatchCollector::new(graph, group, POSITIONS, seed, Device::Cpu).unwrap();
        let reader = &group.readers[0];
        assert_eq!(patches.taps(), BTreeSet::from([reader.input]));
        patches.observe(reader.input, &input.narrow(0, 0, 2), &images[..2]).unwrap();
        patches.observe(reader.node, input, &images).unwrap();
        patches.observe(reader.input, &input.narrow(0, 2, input.size()[0] - 2), &images[2..]).unwrap();
        let window = Window::new(graph, group, reader).unwrap();
        let mut contributions = Contributions::new("a", window, weight).unwrap();
        let mut rows = Vec::new();
        let positions = Positions { count: POSITIONS, seed: seed.child("a") };
        contributions
            .for_each_row(input, &images, positions, &mut |row| {
                rows.extend_from_slice(row);
                Ok(())
            })
            .unwrap();
        let moments = Moments::from_rows(group.channels, &rows).unwrap();
        (patches.finish().unwrap().remove(0), moments)
    }

    /// With one filter every contribution is its patch times its weights, channel by channel: XᵀX is PᵀP weighted and summed over the taps.
    #[test]
    fn weighted_patches_are_the_contributions() {
        let conv = |stride, padding| conv_net(3, 1, 3, stride, padding, 6, None);
        let input = random(&[5, 3, 6, 6], 2);
        for ((graph, group), weight, input) in [
            (conv(1, 1), random(&[1, 3, 3, 3], 1), input.shallow_clone()),
            (conv(2, 0), random(&[1, 3, 3, 3], 1), input.shallow_clone()),
            (linear_net(3, 1, 4), random(&[1, 48], 1), random(&[5, 48], 2)),
        ] {
            let (ReaderPatches { moments: patches, taps }, contributions) =
                both(&graph, &group, &weight, &input);
            assert_eq!(patches.rows(), contributions.rows());
            let w: Vec<f64> = host(&weight).into_iter().map(f64::from).collect();
            assert_eq!(w.len(), 3 * taps);
            for i in 0..3 {
                for j in 0..3 {
                    let mut sum = 0.0;
                    for a in i * taps..(i + 1) * taps {
                        for b in j * taps..(j + 1) * taps {
                            sum += w[a] * patches.g(a, b) * w[b];
                        }
                    }
                    let found = contributions.g(i, j);
                    assert!((sum - found).abs() < 1e-9 * (1.0 + found.abs()), "{i} {j}: {sum} and {found}");
                }
            }
        }
    }

    #[test]
    fn a_layer_whose_products_are_too_large_and_inputs_that_do_not_fit_are_refused_by_name() {
        let new = |(graph, group): &(Graph, ChannelGroup), positions| {
            PatchCollector::new(graph, group, positions, Seed::root(0), Device::Cpu)
        };
        let large = new(&linear_net(600, 1, 7), 1).unwrap_err().to_string();
        let expected = "calibration of layer \"a\": the products of the 29400 values that a filter of \"b\" reads take 6.4 GiB";
        assert!(large.starts_with(expected), "{large}");
        let net = conv_net(3, 4, 3, 1, 1, 6, None);
        assert_eq!(new(&net, 0).unwrap_err().to_string(), "positions-per-image must be at least 1");
        let mut small = new(&net, 1).unwrap();
        let node = net.1.readers[0].input;
        let error = small.observe(node, &random(&[1, 2, 6, 6], 1), &[0]).unwrap_err().to_string();
        assert_eq!(
            error,
            "calibration of layer \"a\": the next layer's input is [1, 2, 6, 6], not [1, 3, 6, 6]"
        );
        assert!(small.finish().unwrap_err().to_string().contains("saw no rows"));
    }
}
