//! A naive forward pass for tests: one image, 64-bit floats, no library.

use std::collections::BTreeMap;

use crate::graph::{Graph, Node, Op};
use crate::shape::Shape;
use crate::surgery::Surgery;

/// A tensor as shape and row-major values.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Plain {
    pub(super) shape: Vec<usize>,
    pub(super) values: Vec<f64>,
}

impl Plain {
    /// Keeps the given indices along an axis.
    fn index_select(&self, axis: usize, indices: &[usize]) -> Self {
        let mut shape = self.shape.clone();
        shape[axis] = indices.len();
        let outer: usize = self.shape[..axis].iter().product();
        let inner: usize = self.shape[axis + 1..].iter().product();
        let mut values = Vec::new();
        for o in 0..outer {
            for index in indices {
                let start = (o * self.shape[axis] + index) * inner;
                values.extend_from_slice(&self.values[start..start + inner]);
            }
        }
        Self { shape, values }
    }
}

pub(super) type PlainWeights = BTreeMap<String, Plain>;

/// Weights that differ from value to value, scattered around zero; variances are positive.
pub(super) fn scattered_weights(graph: &Graph) -> PlainWeights {
    let weights = graph.tensors().into_iter().enumerate().map(|(t, tensor)| {
        let n: usize = tensor.shape.iter().product();
        let mut values: Vec<f64> = scattered(n, t as u64 + 1);
        if tensor.name.ends_with("running_var") {
            values.iter_mut().for_each(|value| *value = value.abs() + 0.5);
        }
        (tensor.name, Plain { shape: tensor.shape, values })
    });
    weights.collect()
}

/// `n` values in −1..1 that look random.
pub(super) fn scattered(n: usize, stream: u64) -> Vec<f64> {
    let value = |i: u64| {
        let mixed = (i + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ stream.wrapping_mul(0xd1b5_4a32_d192_ed03);
        let mixed = (mixed ^ (mixed >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        (mixed >> 11) as f64 / (1_u64 << 52) as f64 - 1.0
    };
    (0..n as u64).map(value).collect()
}

/// The tensors of the cut network.
pub(super) fn apply(weights: &PlainWeights, surgery: &Surgery) -> PlainWeights {
    let mut weights = weights.clone();
    for cut in &surgery.cuts {
        let tensor = weights.get_mut(&cut.tensor).unwrap();
        *tensor = tensor.index_select(cut.axis, &cut.indices);
    }
    weights
}

/// The network's output for one image.
pub(super) fn forward(graph: &Graph, weights: &PlainWeights, image: &[f64]) -> Vec<f64> {
    let mut outputs: Vec<Vec<f64>> = Vec::new();
    for (id, node) in graph.nodes().iter().enumerate() {
        let inputs: Vec<&[f64]> = node.inputs.iter().map(|&i| &outputs[i][..]).collect();
        let from = node.inputs.first().map_or(graph.shape(0), |&i| graph.shape(i));
        let tensor = |name: &str| weights.get(&format!("{}.{name}", node.name)).map(|t| &t.values[..]);
        outputs.push(match inputs[..] {
            [] => image.to_vec(),
            [x] => unary(node, x, from, graph.shape(id), &tensor),
            [x, y] => x.iter().zip(y).map(|(x, y)| x + y).collect(),
            _ => unreachable!("no node reads more than two"),
        });
    }
    outputs.pop().unwrap()
}

fn unary<'a>(
    node: &Node,
    x: &[f64],
    from: Shape,
    to: Shape,
    tensor: &dyn Fn(&str) -> Option<&'a [f64]>,
) -> Vec<f64> {
    let required = |name: &str| tensor(name).unwrap();
    match node.op {
        Op::Relu {} => x.iter().map(|x| x.max(0.0)).collect(),
        Op::Flatten {} | Op::Dropout { .. } => x.to_vec(),
        Op::BatchNorm { channels, eps, .. } => {
            let (weight, bias) = (required("weight"), required("bias"));
            let (mean, var) = (required("running_mean"), required("running_var"));
            let channel = |i: usize| i / (x.len() / channels);
            let normal = |(i, x): (usize, &f64)| {
                let c = channel(i);
                (x - mean[c]) / (var[c] + eps).sqrt() * weight[c] + bias[c]
            };
            x.iter().enumerate().map(normal).collect()
        }
        Op::Linear { in_features, .. } => {
            let rows = required("weight").chunks_exact(in_features).zip(required("bias"));
            rows.map(|(row, bias)| bias + row.iter().zip(x).map(|(w, x)| w * x).sum::<f64>()).collect()
        }
        Op::Conv { in_channels, out_channels, kernel, stride, padding, .. } => {
            let (weight, bias) = (required("weight"), tensor("bias"));
            let area = kernel * kernel;
            let filters =
                (0..out_channels).map(|o| (&weight[o * in_channels * area..], bias.map_or(0.0, |b| b[o])));
            let output = filters.flat_map(|(filter, bias)| {
                windows(from, to, kernel, stride, padding).into_iter().map(move |window| {
                    let products = (0..in_channels).flat_map(|c| {
                        let plane = c * from.positions();
                        window.iter().map(move |&(k, pixel)| filter[c * area + k] * x[plane + pixel])
                    });
                    bias + products.sum::<f64>()
                })
            });
            output.collect()
        }
        Op::MaxPool { kernel, stride, padding } => {
            pool(x, from, &windows(from, to, kernel, stride, padding), |seen| {
                seen.iter().copied().fold(f64::NEG_INFINITY, f64::max)
            })
        }
        Op::AvgPool { kernel, stride } => pool(x, from, &windows(from, to, kernel, stride, 0), |seen| {
            seen.iter().sum::<f64>() / seen.len() as f64
        }),
        Op::Input { .. } | Op::Add {} => unreachable!("reads not one node"),
    }
}

/// For each output position the pairs (place in the kernel, pixel) that lie inside the map.
fn windows(from: Shape, to: Shape, kernel: usize, stride: usize, padding: usize) -> Vec<Vec<(usize, usize)>> {
    let (Shape::Map { h, w, .. }, Shape::Map { h: rows, w: columns, .. }) = (from, to) else {
        unreachable!("windows slide over maps")
    };
    let pixel = |p: usize, k: usize, size: usize| (p * stride + k).checked_sub(padding).filter(|&i| i < size);
    let window = |p: usize, q: usize| {
        let places = (0..kernel).flat_map(|k1| (0..kernel).map(move |k2| (k1, k2)));
        let inside = |(k1, k2)| Some((k1 * kernel + k2, pixel(p, k1, h)? * w + pixel(q, k2, w)?));
        places.filter_map(inside).collect()
    };
    (0..rows).flat_map(|p| (0..columns).map(move |q| (p, q))).map(|(p, q)| window(p, q)).collect()
}

fn pool(x: &[f64], from: Shape, windows: &[Vec<(usize, usize)>], join: impl Fn(&[f64]) -> f64) -> Vec<f64> {
    let planes = x.chunks_exact(from.positions());
    let joined = planes.flat_map(|plane| {
        windows.iter().map(|window| join(&window.iter().map(|&(_, pixel)| plane[pixel]).collect::<Vec<_>>()))
    });
    joined.collect()
}
