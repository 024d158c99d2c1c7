//! A calibration pass over a whole network: what it gathers does not depend on what else is gathered, and it leaves the
//! network as it was.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on may panic")]

use std::collections::{BTreeMap, BTreeSet};

use tch::{Device, Kind, Reduction, Tensor};
use thinet_graph::{ChannelGroup, Graph, channel_group, channel_groups, prunable_layers};
use thinet_models::{Mode, OutputGradient, Weights, forward, forward_taps, output_gradients};
use thinet_nets::{Arch, NetSpec};
use thinet_sampling::{EvidenceCollector, EvidenceTensors, GroupOf, gathered, gathered_kinds, read_from_net};
use thinet_seed::Seed;
use thinet_selectors::{
    Evidence, EvidenceKind, Filters, Moments, Needs, Selection, Selector, SelectorError, select,
};

const IMAGES: [usize; 5] = [2, 3, 5, 7, 11];

/// Every kind of evidence.
fn all_kinds() -> Needs {
    EvidenceKind::ALL.into_iter().fold(Needs::NONE, |needs, kind| needs | Needs::only(kind))
}

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
    layers: &[(ChannelGroup, Needs)],
) -> Vec<Evidence> {
    calibrate_from(Seed::root(2), graph, weights, images, layers)
}

fn calibrate_from(
    seed: Seed,
    graph: &Graph,
    weights: &Weights,
    images: &Tensor,
    layers: &[(ChannelGroup, Needs)],
) -> Vec<Evidence> {
    let weight = |name: &str| weights.get(name).ok();
    let mut collector = EvidenceCollector::new(graph, layers, &weight, 6, seed).unwrap();
    let taps = collector.taps();
    let mut observe = |node, output: &Tensor| collector.observe(node, output, &IMAGES).unwrap();
    forward_taps(graph, weights, images, Mode::Eval, &taps, &mut observe).unwrap();
    let taps = collector.gradient_taps();
    if !taps.is_empty() {
        let mut observe = |found: OutputGradient| {
            let images = &IMAGES[found.first..][..found.output.size()[0] as usize];
            collector.observe_gradient(found.node, &found.output, &found.gradient, images).unwrap();
        };
        output_gradients(graph, weights, images, &labels(), &taps, &mut observe).unwrap();
    }
    collector.finish().unwrap()
}

/// The classes of the images.
fn labels() -> Tensor {
    Tensor::from_slice(&[0_i64, 1, 2, 3, 0])
}

fn all_layers(graph: &Graph, needs: Needs) -> Vec<(ChannelGroup, Needs)> {
    prunable_layers(graph).into_iter().map(|layer| (layer, needs)).collect()
}

#[test]
fn one_pass_for_all_groups_gathers_what_a_pass_for_each_would() {
    for (arch, size, groups) in [(Arch::Tiny, 8, 3), (Arch::CifarResnet20, 32, 12)] {
        let (graph, weights, images) = net(arch, size);
        let all: Vec<_> = channel_groups(&graph).into_iter().map(|group| (group, all_kinds())).collect();
        assert_eq!(all.len(), groups);
        let together = calibrate(&graph, &weights, &images, &all);
        for (evidence, (layer, _)) in together.iter().zip(&all) {
            assert_eq!((&evidence.layer, evidence.channels), (&layer.name, layer.channels));
            assert_eq!(evidence.moments.as_ref().unwrap().rows(), 30 * layer.readers.len() as u64);
            let alone = calibrate(&graph, &weights, &images, &[(layer.clone(), all_kinds())]);
            assert_eq!(alone, std::slice::from_ref(evidence));
        }
    }
}

/// Equal numbers are not enough: a result may not change by a bit with what else is gathered.
#[test]
fn a_pass_for_each_kind_gathers_the_bits_of_one_pass_for_all() {
    for (arch, size) in [(Arch::Tiny, 8), (Arch::CifarResnet20, 32)] {
        let (graph, weights, images) = net(arch, size);
        let together = calibrate(&graph, &weights, &images, &all_layers(&graph, all_kinds()));
        for kind in EvidenceKind::ALL {
            let alone = calibrate(&graph, &weights, &images, &all_layers(&graph, Needs::only(kind)));
            for (alone, together) in alone.iter().zip(&together) {
                assert_ne!(*alone, Evidence::none(&alone.layer, alone.channels), "{}", kind.name());
                let together = together.only(Needs::only(kind));
                assert_eq!(bits(alone), bits(&together), "{} of {}", kind.name(), alone.layer);
            }
        }
    }
}

/// Every number of the evidence as bits.
fn bits(evidence: &Evidence) -> Vec<u64> {
    let mut bits = Vec::new();
    if let Some(filters) = &evidence.filters {
        bits.extend(filters.values.iter().map(|value| u64::from(value.to_bits())));
    }
    if let Some(scales) = &evidence.batch_norm_scales {
        bits.extend(scales.scales.iter().map(|value| u64::from(value.to_bits())));
    }
    for (_, tensor) in gathered_kinds().iter().flat_map(|kind| kind.to_tensors(evidence).unwrap()) {
        let flat = tensor.flatten(0, -1);
        match tensor.kind() {
            Kind::Int64 => bits.extend(Vec::<i64>::try_from(flat).unwrap().into_iter().map(|n| n as u64)),
            _ => bits.extend(Vec::<f64>::try_from(flat).unwrap().into_iter().map(f64::to_bits)),
        }
    }
    bits
}

#[test]
fn what_a_file_holds_is_read_back_bit_by_bit() {
    let (graph, weights, images) = net(Arch::Tiny, 8);
    let layers = all_layers(&graph, all_kinds());
    let whole = calibrate(&graph, &weights, &images, &layers);
    let mut tensors = BTreeMap::new();
    for evidence in &whole {
        for kind in gathered_kinds() {
            for (name, tensor) in kind.to_tensors(evidence).unwrap() {
                let name = format!("{}.{name}", evidence.layer);
                assert!(tensors.insert(name, tensor).is_none(), "two kinds have a tensor of the same name");
            }
            assert!(kind.to_tensors(&evidence.only(Needs::NONE)).unwrap().is_empty());
        }
    }
    let weight = |name: &str| weights.get(name).ok();
    for ((layer, needs), whole) in layers.iter().zip(&whole) {
        let of = GroupOf { graph: &graph, group: layer, weight: &weight };
        let mut evidence = read_from_net(of, *needs).unwrap();
        for kind in gathered(*needs) {
            kind.read(&EvidenceTensors { tensors: &tensors, layer: &layer.name }, &mut evidence).unwrap();
        }
        assert_eq!(evidence, *whole);
        assert_eq!(bits(&evidence), bits(whole));
    }
}

#[test]
fn scales_are_those_of_the_layers_own_batch_norm() {
    let (graph, mut weights, images) = net(Arch::Tiny, 8);
    let channels = weights.get("bn1.weight").unwrap().size()[0];
    let gamma = Tensor::arange(channels, (Kind::Float, Device::Cpu)) - 3.0;
    weights.insert("bn1.weight".to_owned(), gamma);
    let evidence = calibrate(&graph, &weights, &images, &all_layers(&graph, Needs::BATCH_NORM_SCALES));
    let scales = &evidence[0].batch_norm_scales.as_ref().unwrap().scales;
    assert_eq!(scales[..4], [3.0, 2.0, 1.0, 0.0]);
}

#[test]
fn the_network_is_left_as_it_was() {
    let (graph, weights, images) = net(Arch::Tiny, 8);
    let before = weights.deep_copy().unwrap();
    calibrate(&graph, &weights, &images, &all_layers(&graph, all_kinds()));
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

/// Everything that a selector by activations and scales takes: removes first what is both small and scaled down.
struct ScaledMean;

impl Selector for ScaledMean {
    fn name(&self) -> &'static str {
        "scaled-mean"
    }

    fn about(&self) -> &'static str {
        "removes channels with the smallest product of mean activation and batch-norm scale"
    }

    fn needs(&self) -> Needs {
        Needs::ACTIVATIONS | Needs::BATCH_NORM_SCALES
    }

    fn select(&self, evidence: &Evidence, keep: usize, _seed: Seed) -> Result<Selection, SelectorError> {
        let means = &evidence.activations_for(self.name())?.mean_abs;
        let scales = &evidence.batch_norm_scales_for(self.name())?.scales;
        let scores: Vec<f64> =
            means.iter().zip(scales).map(|(mean, scale)| mean * f64::from(*scale)).collect();
        let mut order: Vec<usize> = (0..evidence.channels).collect();
        order.sort_by(|&a, &b| scores[a].total_cmp(&scores[b]));
        Selection::from_order(self.name(), evidence, keep, order, scores)
    }
}

#[test]
fn a_selector_by_activations_and_scales_needs_nothing_else() {
    let (graph, mut weights, images) = net(Arch::Tiny, 8);
    let channels = weights.get("bn1.weight").unwrap().size()[0];
    weights.insert("bn1.weight".to_owned(), Tensor::arange(channels, (Kind::Float, Device::Cpu)) - 2.5);
    let evidence = calibrate(&graph, &weights, &images, &all_layers(&graph, ScaledMean.needs())).remove(0);
    let selection = select(&ScaledMean, &evidence, 3, Seed::root(0)).unwrap();

    // The same from the activation itself.
    let relu = graph.find("relu1").unwrap();
    let mut map = Tensor::new();
    let mut keep = |_, output: &Tensor| map = output.shallow_clone();
    forward_taps(&graph, &weights, &images, Mode::Eval, &BTreeSet::from([relu]), &mut keep).unwrap();
    let means = map.to_kind(Kind::Double).mean_dim([0_i64, 2, 3].as_slice(), false, Kind::Double);
    let scores = means * weights.get("bn1.weight").unwrap().abs();
    let order = Vec::<i64>::try_from(scores.argsort(0, false)).unwrap();
    let expected: Vec<usize> =
        order[..channels as usize - 3].iter().map(|&channel| channel as usize).collect();
    assert_eq!(selection.removed, expected);
    for (score, expected) in selection.scores.iter().zip(Vec::<f64>::try_from(scores).unwrap()) {
        assert!((score - expected).abs() < 1e-12, "{score} is not {expected}");
    }
    let only_activations = evidence.only(Needs::ACTIVATIONS);
    let error = select(&ScaledMean, &only_activations, 3, Seed::root(0)).unwrap_err().to_string();
    assert!(error.contains("reads batch-norm scales of layer \"conv1\""), "{error}");
}

/// Each part is gathered on its own: of one reader, under the name and the seed that it has in the group.
#[test]
fn a_group_of_several_readers_and_producers_has_the_joined_evidence_of_each() {
    let (graph, weights, images) = net(Arch::CifarResnet20, 32);
    let group = channel_group(&graph, "layer2.0.add").unwrap();
    assert_eq!((group.producers.len(), group.readers.len()), (4, 4));
    let name = |node: usize| graph.nodes()[node].name.clone();
    let found = calibrate(&graph, &weights, &images, &[(group.clone(), all_kinds())]).remove(0);

    let gathered = Needs::ZEROS | Needs::ACTIVATIONS | Needs::MOMENTS | Needs::GRADIENTS;
    let seed = Seed::root(2).child(&group.name);
    let of_reader = |reader: &thinet_graph::Reader| {
        let alone = ChannelGroup { name: name(reader.node), readers: vec![reader.clone()], ..group.clone() };
        calibrate_from(seed, &graph, &weights, &images, &[(alone, gathered)]).remove(0)
    };
    let parts: Vec<Evidence> = group.readers.iter().map(of_reader).collect();
    let moments: Vec<&Moments> = parts.iter().map(|part| part.moments.as_ref().unwrap()).collect();
    assert_eq!(found.moments, Some(Moments::balanced(&moments).unwrap()));

    // The first block of the next stage and its projection read the same activation, which counts once.
    let activations: Vec<String> = group.readers.iter().map(|reader| name(reader.activation)).collect();
    assert_eq!(activations, ["layer2.0.relu2", "layer2.1.relu2", "layer2.2.relu2", "layer2.2.relu2"]);
    let zeros = found.zeros.as_ref().unwrap();
    let stats = found.activations.as_ref().unwrap();
    let gradients = found.gradients.as_ref().unwrap();
    assert_eq!((zeros.total, stats.total, gradients.images), (3 * 5 * 256, 3 * 5 * 256, 5));
    let parts_of_loss: Vec<_> = parts[..3].iter().map(|part| part.gradients.as_ref().unwrap()).collect();
    for channel in 0..group.channels {
        let sum = parts_of_loss.iter().fold(0.0, |sum, part| sum + part.taylor[channel]);
        assert_eq!(gradients.taylor[channel], sum);
        let sum = parts_of_loss.iter().fold(0.0, |sum, part| sum + part.taylor_abs[channel]);
        assert_eq!(gradients.taylor_abs[channel], sum);
        let of_parts = parts[..3].iter().map(|part| part.zeros.as_ref().unwrap().zeros[channel]);
        assert_eq!(zeros.zeros[channel], of_parts.sum::<u64>());
        let parts = || parts[..3].iter().map(|part| part.activations.as_ref().unwrap());
        let mean = parts().map(|stats| stats.mean[channel]).sum::<f64>() / 3.0;
        assert!((stats.mean[channel] - mean).abs() <= 1e-12 * mean.abs());
        assert_eq!(stats.mean_abs[channel], stats.mean[channel], "after a ReLU");
        assert_eq!(stats.max[channel], parts().map(|stats| stats.max[channel]).fold(0.0, f64::max));
    }

    let weight = |producer: &thinet_graph::Producer| weights.get(&producer.entries[0].tensor).unwrap();
    let of_producer = |producer| thinet_sampling::filters("layer", weight(producer)).unwrap();
    let parts: Vec<Filters> = group.producers.iter().map(of_producer).collect();
    assert_eq!(found.filters, Some(Filters::balanced(&parts).unwrap()));
    // All scales start at 1: each batch norm adds its mean multiple, 1.
    assert_eq!(found.batch_norm_scales.unwrap().scales, vec![4.0; group.channels]);
}

#[test]
fn a_hidden_linear_layer_has_the_evidence_of_its_neurons() {
    let spec = NetSpec { width: 0.0625, ..NetSpec::new(Arch::Vgg16) };
    let graph = spec.build([3, 32, 32], 4).unwrap();
    let weights = Weights::init(&graph, Seed::root(1), Device::Cpu).unwrap();
    let images = Tensor::arange(5 * 3 * 1024, (Kind::Float, Device::Cpu)).sin().reshape([-1, 3, 32, 32]);
    let needs = Needs::FILTERS | Needs::ZEROS | Needs::MOMENTS;
    let group = channel_group(&graph, "fc6").unwrap();
    let evidence = calibrate(&graph, &weights, &images, &[(group, needs)]).remove(0);
    assert_eq!(evidence.channels, 256);
    let filters = evidence.filters.unwrap();
    let row: Vec<f32> = Vec::try_from(weights.get("fc6.weight").unwrap().get(3)).unwrap();
    assert_eq!(filters.filter(3), row);
    assert_eq!(evidence.zeros.unwrap().total, 5);
    assert_eq!(evidence.moments.unwrap().rows(), 30);
}

/// Each image's own loss, in inference mode.
fn losses(graph: &Graph, weights: &Weights, images: &Tensor) -> Vec<f64> {
    let logits = forward(graph, weights, images, Mode::Eval).unwrap().to_kind(Kind::Double);
    let losses = logits.cross_entropy_loss::<Tensor>(&labels(), None, Reduction::None, -100, 0.0);
    Vec::try_from(&losses).unwrap()
}

/// The oracle needs no gradient: a factor on a channel's map, which for a positive factor is one on the weights that read it, changes the
/// loss by the sum over the map of activation times gradient.
#[test]
fn gradient_products_are_what_a_factor_on_the_channel_changes_of_each_images_loss() {
    const STEP: f64 = 1e-3;
    let (graph, weights, images) = net(Arch::Tiny, 8);
    let all = calibrate(&graph, &weights, &images, &all_layers(&graph, Needs::GRADIENTS));
    for (evidence, layer) in all.iter().zip(prunable_layers(&graph)) {
        let reader = &layer.readers[0];
        let places = graph.shape(reader.activation).positions() as f64;
        let losses_at = |channel: usize, factor: f64| {
            let mut scaled = weights.deep_copy().unwrap();
            let weight = scaled.get(&reader.entry.tensor).unwrap().copy();
            let block = reader.entry.block as i64;
            let mut of_channel = weight.narrow(reader.entry.axis as i64, channel as i64 * block, block);
            let _ = of_channel.g_mul_scalar_(factor);
            scaled.insert(reader.entry.tensor.clone(), weight);
            losses(&graph, &scaled, &images)
        };
        let (mut taylor, mut taylor_abs) = (Vec::new(), Vec::new());
        for channel in 0..layer.channels {
            let (above, below) = (losses_at(channel, 1.0 + STEP), losses_at(channel, 1.0 - STEP));
            let change = |(above, below): (&f64, &f64)| (above - below) / (2.0 * STEP) / places;
            let changes: Vec<f64> = above.iter().zip(&below).map(change).collect();
            taylor.push(changes.iter().sum::<f64>() / 5.0);
            taylor_abs.push(changes.iter().map(|change| change.abs()).sum::<f64>() / 5.0);
        }
        let found = evidence.gradients.as_ref().unwrap();
        assert_eq!(found.images, 5);
        // The step crosses a few kinks of later rectifiers, and losses are rounded.
        for (found, expected) in [(&found.taylor, &taylor), (&found.taylor_abs, &taylor_abs)] {
            let norm =
                |values: &mut dyn Iterator<Item = f64>| values.map(|value| value * value).sum::<f64>().sqrt();
            let size = norm(&mut expected.iter().copied());
            let error =
                norm(&mut found.iter().zip(expected).map(|(found, expected)| found - expected)) / size;
            assert!(error < 0.01 && size > 1e-5, "{}: {error} of {size}", layer.name);
        }
    }
}

/// In training mode images would share the statistics of their batch.
#[test]
fn gradients_of_an_image_do_not_depend_on_its_batch_and_weights_stay_untracked() {
    let (graph, weights, images) = net(Arch::Tiny, 8);
    let taps: BTreeSet<_> = ["relu1", "relu2"].map(|name| graph.find(name).unwrap()).into();
    let gradients = |images: &Tensor, labels: &Tensor| {
        let mut all = Vec::new();
        output_gradients(&graph, &weights, images, labels, &taps, &mut |found| all.push(found)).unwrap();
        all
    };
    let whole = gradients(&images, &labels());
    assert_eq!(
        whole.iter().map(|found| found.node).collect::<Vec<_>>(),
        taps.iter().copied().collect::<Vec<_>>()
    );
    for image in 0..5 {
        let alone = gradients(&images.narrow(0, image, 1), &labels().narrow(0, image, 1));
        for (alone, whole) in alone.iter().zip(&whole) {
            let of_image = whole.gradient.narrow(0, image, 1);
            let error = (&alone.gradient - &of_image).abs().max().double_value(&[]);
            assert!(error <= 1e-5 * of_image.abs().max().double_value(&[]), "{error}");
            assert!(!whole.output.requires_grad());
        }
    }
    assert!(weights.iter().all(|(_, tensor)| !tensor.requires_grad() && !tensor.grad().defined()));
    assert!(!images.requires_grad());
}
