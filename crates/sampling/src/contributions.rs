//! The contribution of each channel of a pruned layer to sampled outputs of the next layer (Luo et al. 2017, section
//! 3.2.1).
//!
//! For filter d and output position (p, q) of the next layer, with window taps k1, k2, stride s and padding:
//!
//! ```text
//! x_j = Σ_{k1,k2} W[d, j, k1, k2] · In[j, s·p − padding + k1, s·q − padding + k2]
//! ```
//!
//! so that Σ_j x_j is the output without its bias. Products of 32-bit floats are exact in 64 bits and are summed in tap
//! order, so a row has the same bits whatever the device, the batch and the number of threads.

use tch::{Kind, Tensor, no_grad};

use crate::SamplingError;
use crate::error::OfLayer;
use crate::positions::{Instance, Positions};
use crate::window::{Tap, Window};

/// Values copied to the host at a time (1 MiB): memory does not grow with batch or positions, and they stay in cache.
const CHUNK: usize = 1 << 18;

/// The consumer of one pruned layer, with its weight split by channel.
#[derive(Debug)]
pub(crate) struct Contributions {
    layer: String,
    window: Window,
    /// `[D, taps, C]`, a copy on the host: the channels of a tap lie side by side.
    weight: Vec<f32>,
    /// The needed part of a few images' input, `[images, places, C]`.
    values: Vec<f32>,
    /// The taps of the current instance.
    taps: Vec<Tap>,
    row: Vec<f64>,
}

impl Contributions {
    /// `weight`: of the consumer, `[D, C, k, k]` or `[D, C·columns]`.
    pub(crate) fn new(layer: &str, window: Window, weight: &Tensor) -> Result<Self, SamplingError> {
        let [d, c, taps] = [window.filters, window.channels, window.taps()].map(|size| size as i64);
        let k = window.kernel.map(|size| size as i64);
        let found = weight.size();
        if found != [d, c, k[0], k[1]] && found != [d, c * taps] {
            let problem = format!("the next layer's weight is {found:?}, not {:?}", [d, c, k[0], k[1]]);
            return Err(SamplingError::input(layer, problem));
        }
        let row = vec![0.0; window.channels];
        let weight = channels_last(&to_host(layer, weight)?, window.channels, window.taps());
        Ok(Self { layer: layer.to_owned(), window, weight, values: Vec::new(), taps: Vec::new(), row })
    }

    /// Calls `each` with the row `x: [C]` of every instance drawn in a batch, image by image.
    ///
    /// `input`: what the consumer reads, `[n, C, h, w]` or `[n, C·columns]`; `images`: indices of its n images.
    pub(crate) fn for_each_row(
        &mut self,
        input: &Tensor,
        images: &[usize],
        positions: Positions,
        each: &mut dyn FnMut(&[f64]) -> Result<(), SamplingError>,
    ) -> Result<(), SamplingError> {
        let maps = self.per_channel(input, images.len())?;
        let (channels, taps, places) = (self.window.channels, self.window.taps(), self.window.places());
        // Small maps are copied to the host whole; of large ones only the values under the windows.
        let gathers = positions.count * taps < places;
        let span = if gathers { positions.count * taps } else { places };
        let images_at_a_time = (CHUNK / (channels * span).max(1)).max(1);

        for (chunk, images) in images.chunks(images_at_a_time).enumerate() {
            let instances: Vec<_> = images.iter().map(|&image| positions.draw(&self.window, image)).collect();
            let first = (chunk * images_at_a_time) as i64;
            let maps = maps.f_narrow(0, first, instances.len() as i64).of_layer(&self.layer)?;
            let needed =
                if gathers { gather(&maps, &self.window, &instances).of_layer(&self.layer)? } else { maps };
            let count = instances.len() * channels * span;
            self.values.resize(count, 0.0);
            needed.f_copy_data(&mut self.values, count).of_layer(&self.layer)?;

            for (values, instances) in self.values.chunks_exact(channels * span).zip(&instances) {
                for (number, instance) in instances.iter().enumerate() {
                    let on_map = self.window.taps_on_map(instance.output);
                    let gathered = |tap: Tap| Tap { place: number * taps + tap.tap, ..tap };
                    self.taps.clear();
                    self.taps.extend(on_map.map(|tap| if gathers { gathered(tap) } else { tap }));
                    let filter = &self.weight[instance.filter * taps * channels..][..taps * channels];
                    contribute(&mut self.row, values, filter, &self.taps);
                    each(&self.row)?;
                }
            }
        }
        Ok(())
    }

    /// The consumer's input as `[n, places, C]`, if it is that of `images` images of this layer.
    fn per_channel(&self, input: &Tensor, images: usize) -> Result<Tensor, SamplingError> {
        let [c, h, w] =
            [self.window.channels, self.window.map[0], self.window.map[1]].map(|size| size as i64);
        let n = images as i64;
        let found = input.size();
        if found != [n, c, h, w] && found != [n, c * h * w] {
            let problem = format!("the next layer's input is {found:?}, not {:?}", [n, c, h, w]);
            return Err(SamplingError::input(&self.layer, problem));
        }
        check_float(&self.layer, input)?;
        // Both are views: nothing is copied, whatever the memory format.
        let view = || match found.len() {
            4 => input.f_detach()?.f_permute([0, 2, 3, 1])?.f_reshape([n, h * w, c]),
            _ => input.f_detach()?.f_reshape([n, c, h * w])?.f_transpose(1, 2),
        };
        no_grad(view).of_layer(&self.layer)
    }
}

/// Σ over the taps, for every channel: `values: [places, C]`, `filter: [taps, C]`, `row: [C]`.
fn contribute(row: &mut [f64], values: &[f32], filter: &[f32], taps: &[Tap]) {
    let channels = row.len();
    row.fill(0.0);
    for &Tap { tap, place } in taps {
        let values = &values[place * channels..][..channels];
        let weights = &filter[tap * channels..][..channels];
        for ((x, &value), &weight) in row.iter_mut().zip(values).zip(weights) {
            *x += f64::from(value) * f64::from(weight);
        }
    }
}

/// `[D, C, taps]` to `[D, taps, C]`.
fn channels_last(weight: &[f32], channels: usize, taps: usize) -> Vec<f32> {
    let mut turned = vec![0.0; weight.len()];
    let filters = weight.chunks_exact(channels * taps).zip(turned.chunks_exact_mut(channels * taps));
    for (filter, turned) in filters {
        for (tap, turned) in turned.chunks_exact_mut(channels).enumerate() {
            for (turned, &weight) in turned.iter_mut().zip(filter[tap..].iter().step_by(taps)) {
                *turned = weight;
            }
        }
    }
    turned
}

/// The values under the windows: `maps: [n, places, C]` to `[n, instances · taps, C]`; where a tap is in the padding,
/// any value.
fn gather(maps: &Tensor, window: &Window, instances: &[Vec<Instance>]) -> Result<Tensor, tch::TchError> {
    let taps = window.taps();
    let images = instances.len() as i64;
    let mut places = vec![0_i64; instances.iter().map(Vec::len).sum::<usize>() * taps];
    for (places, instance) in places.chunks_exact_mut(taps).zip(instances.iter().flatten()) {
        for tap in window.taps_on_map(instance.output) {
            places[tap.tap] = tap.place as i64;
        }
    }
    let index = Tensor::f_from_slice(&places)?.f_to(maps.device())?.f_reshape([images, -1, 1])?;
    no_grad(|| maps.f_gather(1, &index.f_expand([-1, -1, window.channels as i64], false)?, false))
}

/// A copy of a tensor of 32-bit floats, row-major.
pub(crate) fn to_host(layer: &str, tensor: &Tensor) -> Result<Vec<f32>, SamplingError> {
    check_float(layer, tensor)?;
    let mut values = vec![0.0; tensor.numel()];
    tensor.f_copy_data(&mut values, tensor.numel()).of_layer(layer)?;
    Ok(values)
}

pub(crate) fn check_float(layer: &str, tensor: &Tensor) -> Result<(), SamplingError> {
    match tensor.f_kind().of_layer(layer)? {
        Kind::Float => Ok(()),
        found => Err(SamplingError::input(layer, format!("expected 32-bit floats, found {found:?}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_nets::{conv_net, host, linear_net, random};
    use proptest::prelude::*;
    use thinet_seed::Seed;

    /// The plain version: the formula, written out on zero-padded coordinates.
    fn plain_row(window: &Window, weight: &[f32], image: &[f32], instance: Instance) -> Vec<f64> {
        let Window { channels, kernel: [kernel_h, kernel_w], stride, padding, map: [h, w], .. } = *window;
        let [p, q] = instance.output;
        let mut x = vec![0.0; channels];
        for (j, x) in x.iter_mut().enumerate() {
            for k1 in 0..kernel_h {
                for k2 in 0..kernel_w {
                    let (y, z) = (stride * p + k1, stride * q + k2);
                    let on_map = (padding..padding + h).contains(&y) && (padding..padding + w).contains(&z);
                    let at = ((instance.filter * channels + j) * kernel_h + k1) * kernel_w + k2;
                    let input = if on_map { image[(j * h + y - padding) * w + z - padding] } else { 0.0 };
                    *x += f64::from(weight[at]) * f64::from(input);
                }
            }
        }
        x
    }

    /// Rows of `count` instances in each image, as the fast version and as the plain one, and the instances.
    fn both(window: &Window, weight: &Tensor, input: &Tensor, count: usize) -> [Vec<Vec<f64>>; 2] {
        let images = input.size()[0] as usize;
        let mut fast = Vec::new();
        let mut contributions = Contributions::new("a", window.clone(), weight).unwrap();
        let mut keep = |row: &[f64]| {
            fast.push(row.to_vec());
            Ok(())
        };
        let indices: Vec<usize> = (0..images).collect();
        contributions.for_each_row(input, &indices, positions(count), &mut keep).unwrap();
        let (weight, input) = (host(weight), host(input));
        let size = input.len() / images;
        let instances = draw(window, images, count);
        let plain = instances.iter().zip(input.chunks_exact(size)).flat_map(|(instances, image)| {
            instances.iter().map(|&instance| plain_row(window, &weight, image, instance)).collect::<Vec<_>>()
        });
        [fast, plain.collect()]
    }

    fn positions(count: usize) -> Positions {
        Positions { count, seed: Seed::root(2) }
    }

    fn draw(window: &Window, images: usize, count: usize) -> Vec<Vec<Instance>> {
        (0..images).map(|image| positions(count).draw(window, image)).collect()
    }

    /// Σ_j x_j against libtorch's own output without bias, `[n, D, p, q]` in 64 bits.
    fn assert_identity(window: &Window, rows: &[Vec<f64>], output: &Tensor, count: usize) {
        let images = output.size()[0] as usize;
        let instances = draw(window, images, count);
        assert_eq!(rows.len(), images * count);
        for (at, (row, instance)) in rows.iter().zip(instances.iter().flatten()).enumerate() {
            let Instance { filter, output: [p, q] } = *instance;
            let y = output.double_value(&[(at / count) as i64, filter as i64, p as i64, q as i64]);
            let sum: f64 = row.iter().sum();
            assert!((sum - y).abs() <= 1e-12 * y.abs().max(1.0), "{instance:?}: {sum} is not {y}");
        }
    }

    #[test]
    fn contributions_add_up_to_the_next_convolutions_output() {
        for (kernel, stride, padding, size) in [1, 3, 7]
            .into_iter()
            .flat_map(|k| [1, 2].into_iter().flat_map(move |s| [0, 1, 3].map(|p| (k, s, p))))
            .flat_map(|(k, s, p)| [7, 12].map(|size| (k, s, p, size)))
        {
            let (graph, layer) = conv_net(3, 4, kernel, stride, padding, size, None);
            let window = Window::new(&graph, &layer, &layer.readers[0]).unwrap();
            let (k, s, p) = (kernel as i64, stride as i64, padding as i64);
            let weight = random(&[4, 3, k, k], 1);
            let input = random(&[2, 3, size as i64, size as i64], 2);
            // 2 instances gather from the larger map, 200 never do.
            for count in [2, 200] {
                let [fast, plain] = both(&window, &weight, &input, count);
                assert_eq!(fast, plain);
                let (input, weight) = (input.to_kind(Kind::Double), weight.to_kind(Kind::Double));
                let output = input.conv2d(&weight, None::<Tensor>, [s], [p], [1], 1);
                assert_identity(&window, &fast, &output, count);
            }
        }
    }

    #[test]
    fn contributions_add_up_to_the_next_linear_layers_output() {
        for (size, columns) in [(1, 1), (3, 9)] {
            let (graph, layer) = linear_net(5, 4, size);
            assert_eq!(layer.readers[0].entry.block, columns);
            let window = Window::new(&graph, &layer, &layer.readers[0]).unwrap();
            let features = 5 * columns as i64;
            let (weight, input) = (random(&[4, features], 3), random(&[6, features], 4));
            let [fast, plain] = both(&window, &weight, &input, 7);
            assert_eq!(fast, plain);
            let output = input.to_kind(Kind::Double).matmul(&weight.to_kind(Kind::Double).tr());
            assert_identity(&window, &fast, &output.reshape([6, 4, 1, 1]), 7);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn the_fast_rows_are_the_plain_rows(
            kernel in 1_usize..5, stride in 1_usize..4, padding in 0_usize..4, size in 4_usize..9,
            channels in 1_usize..4, images in 1_usize..4, count in 1_usize..9,
        ) {
            let (graph, layer) = conv_net(channels, 2, kernel, stride, padding, size, None);
            let window = Window::new(&graph, &layer, &layer.readers[0]).unwrap();
            let weight = random(&[2, channels as i64, kernel as i64, kernel as i64], 5);
            let input = random(&[images as i64, channels as i64, size as i64, size as i64], 6);
            let [fast, plain] = both(&window, &weight, &input, count);
            prop_assert_eq!(fast, plain);
        }
    }

    #[test]
    fn more_than_a_chunk_of_images_and_other_memory_layouts_give_the_same_rows() {
        let (graph, layer) = conv_net(70, 2, 3, 1, 1, 32, None);
        let window = Window::new(&graph, &layer, &layer.readers[0]).unwrap();
        let weight = random(&[2, 70, 3, 3], 7);
        let input = random(&[5, 70, 32, 32], 8);
        const { assert!(5 * 70 * 32 * 32 > CHUNK && 70 * 32 * 32 < CHUNK) };
        let channels_last = input.permute([0, 2, 3, 1]).contiguous().permute([0, 3, 1, 2]);
        for count in [3, 120] {
            let [fast, plain] = both(&window, &weight, &input, count);
            assert_eq!(fast, plain);
            assert_eq!(both(&window, &weight, &channels_last, count)[0], fast);
        }
    }

    #[test]
    fn tensors_of_another_layer_are_refused() {
        let (graph, layer) = conv_net(3, 4, 3, 1, 1, 8, None);
        let window = Window::new(&graph, &layer, &layer.readers[0]).unwrap();
        let message =
            Contributions::new("a", window.clone(), &random(&[4, 2, 3, 3], 1)).unwrap_err().to_string();
        let expected =
            "calibration of layer \"a\": the next layer's weight is [4, 2, 3, 3], not [4, 3, 3, 3]";
        assert_eq!(message, expected);

        let mut contributions = Contributions::new("a", window, &random(&[4, 3, 3, 3], 1)).unwrap();
        let mut refuse = |input: &Tensor| {
            let outcome = contributions.for_each_row(input, &[0, 1], positions(1), &mut |_| Ok(()));
            outcome.unwrap_err().to_string()
        };
        let message = refuse(&random(&[3, 3, 8, 8], 1));
        let expected = "calibration of layer \"a\": the next layer's input is [3, 3, 8, 8], not [2, 3, 8, 8]";
        assert_eq!(message, expected);
        let message = refuse(&random(&[2, 3, 8, 8], 1).to_kind(Kind::Double));
        assert_eq!(message, "calibration of layer \"a\": expected 32-bit floats, found Double");
    }
}
