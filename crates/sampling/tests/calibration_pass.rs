//! A calibration pass over a whole network: what it gathers does not depend on what else is gathered, and it leaves the
//! network as it was.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on may panic")]

use std::collections::BTreeSet;

use tch::{Device, Kind, Tensor};
use thinet_graph::{Graph, PrunableLayer, prunable_layers};
use thinet_models::{Arch, Mode, NetSpec, Weights, forward_taps};
use thinet_sampling::EvidenceCollector;
use thinet_seed::Seed;
use thinet_selectors::{Evidence, Needs};

const ALL: Needs = Needs { filters: true, zeros: true, moments: true };
const IMAGES: [usize; 5] = [2, 3, 5, 7, 11];

fn net(arch: Arch, size: i64) -> (Graph, Weights, Tensor) {
    let spec = NetSpec { batch_norm: Some(true), width: 0.5, ..NetSpec::new(arch) };
    let graph = spec.build([3, size as usize, size as usize], 4).unwrap();
    let weights = Weights::init(&graph, Seed::root(1), Device::Cpu).unwrap();
    let count = IMAGES.len() as i64 * 3 * size * size;
    let images = Tensor::arange(count, (Kind::Float, Device::Cpu)).sin().reshape([-1, 3, size, size]);
    (graph, weights, images)
}

fn calibrate(
    graph: &Graph,
    weights: &Weights,
    images: &Tensor,
    layers: &[(PrunableLayer, Needs)],
) -> Vec<Evidence> {
    let weight = |name: &str| weights.get(name).ok();
    let mut collector = EvidenceCollector::new(graph, layers, &weight, 6, Seed::root(2)).unwrap();
    let taps = collector.taps();
    let mut observe = |node, output: &Tensor| collector.observe(node, output, &IMAGES).unwrap();
    forward_taps(graph, weights, images, Mode::Eval, &taps, &mut observe).unwrap();
    collector.finish().unwrap()
}

fn all_layers(graph: &Graph, needs: Needs) -> Vec<(PrunableLayer, Needs)> {
    prunable_layers(graph).into_iter().map(|layer| (layer, needs)).collect()
}

#[test]
fn one_pass_for_all_layers_gathers_what_a_pass_for_each_would() {
    for (arch, size, layers) in [(Arch::Tiny, 8, 3), (Arch::CifarResnet20, 32, 9)] {
        let (graph, weights, images) = net(arch, size);
        let all = all_layers(&graph, ALL);
        assert_eq!(all.len(), layers);
        let together = calibrate(&graph, &weights, &images, &all);
        for (evidence, (layer, _)) in together.iter().zip(&all) {
            assert_eq!((&evidence.layer, evidence.channels), (&layer.name, layer.channels));
            assert_eq!(evidence.moments.as_ref().unwrap().rows(), 30);
            let alone = calibrate(&graph, &weights, &images, &[(layer.clone(), ALL)]);
            assert_eq!(alone, std::slice::from_ref(evidence));
            let moments_only = calibrate(&graph, &weights, &images, &[(layer.clone(), Needs::MOMENTS)]);
            assert_eq!(moments_only[0].moments, evidence.moments);
            assert!(moments_only[0].zeros.is_none() && moments_only[0].filters.is_none());
        }
    }
}

#[test]
fn the_network_is_left_as_it_was() {
    let (graph, weights, images) = net(Arch::Tiny, 8);
    let before = weights.deep_copy().unwrap();
    calibrate(&graph, &weights, &images, &all_layers(&graph, ALL));
    for ((name, before), (_, after)) in before.iter().zip(weights.iter()) {
        assert_eq!(before, after, "{name}");
    }
    assert!(weights.iter().any(|(name, _)| name.ends_with("running_mean")));
}

#[test]
fn zeros_are_counted_on_the_layers_own_activation_before_the_pool() {
    let (graph, weights, images) = net(Arch::Tiny, 8);
    let evidence = calibrate(&graph, &weights, &images, &all_layers(&graph, Needs::ZEROS));
    let relu = graph.find("relu1").unwrap();
    let mut map = Tensor::new();
    let mut keep = |_, output: &Tensor| map = output.shallow_clone();
    forward_taps(&graph, &weights, &images, Mode::Eval, &BTreeSet::from([relu]), &mut keep).unwrap();
    let zeros = map.eq(0.0).sum_dim_intlist([0_i64, 2, 3].as_slice(), false, Kind::Int64);
    let expected: Vec<u64> =
        Vec::<i64>::try_from(zeros).unwrap().into_iter().map(|zeros| zeros as u64).collect();
    let counts = evidence[0].zeros.as_ref().unwrap();
    assert_eq!((&counts.zeros, counts.total), (&expected, 5 * 64));
}
