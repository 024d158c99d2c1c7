//! Networks with weights and images by formula, shared by the tests; the formula is that of `golden/make_golden.py`.

use tch::{Device, Kind, Tensor};
use thinet_graph::Graph;
use thinet_models::{Net, Weights};
use thinet_nets::{Arch, NetSpec};

/// Images per batch.
pub(crate) const BATCH: i64 = 4;

/// `count` values in (−1, 1): sin(p + 0.7·i + 0.013·i²), p the sum of the name's bytes.
pub(crate) fn pattern(name: &str, count: usize) -> Vec<f64> {
    let phase = name.bytes().map(u64::from).sum::<u64>() as f64;
    (0..count).map(|i| i as f64).map(|i| (phase + 0.7 * i + 0.013 * i * i).sin()).collect()
}

/// Every tensor of the graph from its name and shape.
pub(crate) fn filled(graph: &Graph) -> Weights {
    let fill = |spec: thinet_graph::TensorSpec| {
        let count: usize = spec.shape.iter().product();
        let amplitude = 2.0 / ((count / spec.shape[0]) as f64).sqrt();
        let value = |v: f64| match spec.name.as_str() {
            _ if spec.shape.len() > 1 => v * amplitude,
            name if name.ends_with("running_var") => 1.0 + 0.5 * v,
            name if name.ends_with("bn3.weight") => 0.3 + 0.06 * v,
            name if name.ends_with("weight") => 1.0 + 0.2 * v,
            _ => 0.1 * v,
        };
        let values: Vec<f64> = pattern(&spec.name, count).into_iter().map(value).collect();
        let shape: Vec<i64> = spec.shape.iter().map(|&n| n as i64).collect();
        (spec.name, Tensor::from_slice(&values).view(shape.as_slice()).to_kind(Kind::Float))
    };
    graph.tensors().into_iter().map(fill).collect()
}

/// Images `[BATCH, c, h, w]` and labels `[BATCH]`.
pub(crate) fn batch(graph: &Graph) -> (Tensor, Tensor) {
    let [c, h, w] = graph.input_shape();
    let values = pattern("images", BATCH as usize * c * h * w);
    let images = Tensor::from_slice(&values).view([BATCH, c as i64, h as i64, w as i64]).to_kind(Kind::Float);
    let labels = Tensor::arange(BATCH, (Kind::Int64, Device::Cpu)).remainder(graph.classes() as i64);
    (images, labels)
}

/// A net of this spec for `input` and five classes, filled.
pub(crate) fn net(spec: &NetSpec, input: [usize; 3]) -> Net {
    let graph = spec.build(input, 5).unwrap();
    let weights = filled(&graph);
    Net { graph, weights }
}

/// The tiny net on 3×8×8 images.
pub(crate) fn tiny() -> Net {
    net(&NetSpec::new(Arch::Tiny), [3, 8, 8])
}

/// Largest difference of two tensors, relative to the largest value of the second.
pub(crate) fn difference(a: &Tensor, b: &Tensor) -> f64 {
    assert_eq!(a.size(), b.size());
    let (a, b) = (a.to_kind(Kind::Double), b.to_kind(Kind::Double));
    (a - &b).abs().max().double_value(&[]) / b.abs().max().double_value(&[])
}
