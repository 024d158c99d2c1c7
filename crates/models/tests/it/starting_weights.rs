//! Starting weights are pinned, so that stored results keep their meaning: they come from the random-number crate's own
//! algorithms.

use tch::Device;
use thinet_models::{Init, Weights};
use thinet_nets::{Arch, NetSpec};
use thinet_seed::Seed;

#[test]
fn starting_weights_are_pinned() {
    let graph = NetSpec::new(Arch::Tiny).build([3, 8, 8], 10).unwrap();
    let weights = Weights::init(&graph, Seed::root(1).child("init"), Device::Cpu).unwrap();
    let mut hasher = blake3::Hasher::new();
    for (name, tensor) in weights.iter() {
        hasher.update(name.as_bytes());
        for value in Vec::<f32>::try_from(tensor.flatten(0, -1)).unwrap() {
            hasher.update(&value.to_le_bytes());
        }
    }
    let first = |name: &str| {
        let values = weights.get(name).unwrap().flatten(0, -1).narrow(0, 0, 3);
        Vec::<f32>::try_from(values).unwrap()
    };
    assert_eq!(first("conv1.weight"), [-0.017295431, -0.088346265, -0.018925041]);
    assert_eq!(hasher.finalize().to_hex()[..16], *"652852280744c99b");
}

/// The same draws, scaled: conv2 has 8 input channels and 16 filters of 3×3.
#[test]
fn fan_in_and_fan_out_differ_by_a_factor() {
    let graph = NetSpec::new(Arch::Tiny).build([3, 8, 8], 10).unwrap();
    let of = |init| Weights::init_as(&graph, init, Seed::root(1), Device::Cpu).unwrap();
    let (fan_out, fan_in) = (of(Init::FanOut), of(Init::FanIn));
    for (name, tensor) in fan_out.iter() {
        let shape = tensor.size();
        let factor = if shape.len() == 4 { (shape[0] as f64 / shape[1] as f64).sqrt() } else { 1.0 };
        let other = fan_in.get(name).unwrap();
        assert!((tensor * factor).allclose(other, 1e-6, 0.0, false), "{name}");
    }
    let std = fan_in.get("conv2.weight").unwrap().std(false).double_value(&[]);
    let expected = (2.0 / (9.0 * graph_inputs(&fan_in, "conv2.weight"))).sqrt();
    assert!((std / expected - 1.0).abs() < 0.1, "{std} instead of {expected}");
}

/// Number of input channels of a convolution.
fn graph_inputs(weights: &Weights, name: &str) -> f64 {
    weights.get(name).unwrap().size()[1] as f64
}
