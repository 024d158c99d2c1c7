//! Starting weights are pinned, so that stored results keep their meaning: they come from the random-number crate's own
//! algorithms.

use tch::Device;
use thinet_models::Weights;
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
