//! A cut net computes what the dense net does with the cut channels masked at the next layer's input.

use std::collections::BTreeSet;

use tch::{Kind, Tensor};
use thinet_graph::{ChannelSet, Graph, Op, PrunableLayer, plan_surgery, prunable_layer, prunable_layers};
use thinet_models::{
    MemoryFormat, Mode, ModelError, Net, Weights, apply_surgery, forward, forward_taps, scale_consumer_inputs,
};
use thinet_nets::{Arch, NetSpec, ResNetStride};

use crate::nets::{batch, difference, net, tiny};

/// Every architecture and layout, small.
fn nets() -> Vec<Net> {
    let spec = |arch, width| NetSpec { width, ..NetSpec::new(arch) };
    let on_16 = |spec: &NetSpec| net(spec, [3, 16, 16]);
    let on_32 = |spec: &NetSpec| net(spec, [1, 32, 32]);
    vec![
        on_32(&spec(Arch::Vgg16, 0.0625)),
        on_32(&spec(Arch::Vgg16Gap, 0.0625)),
        on_32(&NetSpec { batch_norm: Some(true), ..spec(Arch::Vgg16Gap, 0.0625) }),
        on_32(&spec(Arch::CifarVgg16, 0.0625)),
        on_32(&spec(Arch::Resnet50, 0.0625)),
        on_32(&NetSpec { stride: Some(ResNetStride::Middle3x3), ..spec(Arch::Resnet50, 0.0625) }),
        on_16(&spec(Arch::CifarResnet20, 0.25)),
        on_16(&spec(Arch::CifarResnet56, 0.25)),
        on_16(&spec(Arch::Tiny, 1.0)),
        on_16(&NetSpec { batch_norm: Some(false), ..spec(Arch::Tiny, 1.0) }),
    ]
}

/// Output of one node.
fn output_of(node: usize, graph: &Graph, weights: &Weights, images: &Tensor) -> Tensor {
    let mut output = Tensor::new();
    let mut keep = |_, tensor: &Tensor| output = tensor.shallow_clone();
    forward_taps(graph, weights, images, Mode::Eval, &BTreeSet::from([node]), &mut keep).unwrap();
    output
}

/// Keeps every other channel, so that what is kept is not just a prefix.
fn every_other(channels: usize) -> ChannelSet {
    ChannelSet::new(channels, (0..channels).filter(|c| c % 2 == 1).collect()).unwrap()
}

fn cut(net: &Net, layer: &str, keep: &ChannelSet) -> Net {
    let surgery = plan_surgery(&net.graph, layer, keep).unwrap();
    let weights = apply_surgery(&net.weights, &surgery).unwrap();
    Net { graph: surgery.graph, weights }
}

/// The weights with the consumer's input channels outside `keep` set to zero, element by element.
fn masked(net: &Net, layer: &PrunableLayer, keep: &ChannelSet) -> Weights {
    let mut weights = net.weights.deep_copy().unwrap();
    let name = format!("{}.weight", net.graph.nodes()[layer.consumer].name);
    let weight = weights.get(&name).unwrap();
    for channel in keep.removed() {
        let (start, length) = ((channel * layer.columns) as i64, layer.columns as i64);
        let _ = weight.narrow(1, start, length).zero_();
    }
    weights.check(&net.graph).unwrap();
    let weight = weight.shallow_clone();
    weights.insert(name, weight);
    weights
}

fn logits(graph: &Graph, weights: &Weights, images: &Tensor) -> Tensor {
    forward(graph, weights, images, Mode::Eval).unwrap()
}

#[test]
fn masked_dense_net_equals_cut_net_for_every_prunable_layer() {
    for net in nets() {
        let (images, _) = batch(&net.graph);
        let dense = logits(&net.graph, &net.weights, &images);
        let (mut layers, mut changed) = (0, 0);
        for layer in prunable_layers(&net.graph) {
            let keep = every_other(layer.channels);
            let cut = cut(&net, &layer.name, &keep);
            let expected = logits(&net.graph, &masked(&net, &layer, &keep), &images);
            let found = logits(&cut.graph, &cut.weights, &images);
            let gap = difference(&found, &expected);
            assert!(gap < 1e-4, "{}, {}: {gap}", net.graph.name(), layer.name);
            layers += 1;
            changed += usize::from(difference(&expected, &dense) > 1e-3);
        }
        assert!(changed * 2 > layers, "{}: only {changed} of {layers} cuts are seen", net.graph.name());
    }
}

#[test]
fn the_number_of_prunable_layers_is_the_papers() {
    let counts: Vec<usize> = nets().iter().map(|net| prunable_layers(&net.graph).len()).collect();
    assert_eq!(counts, [13, 13, 13, 13, 32, 32, 9, 27, 3, 3]);
}

#[test]
fn cuts_of_all_layers_one_after_the_other_fit() {
    for mut net in nets() {
        let (images, _) = batch(&net.graph);
        for layer in prunable_layers(&net.graph) {
            net = cut(&net, &layer.name, &every_other(layer.channels));
        }
        let out = logits(&net.graph, &net.weights, &images);
        assert_eq!(out.size(), [4, 5]);
        assert!(bool::try_from(out.isfinite().all()).unwrap());
    }
}

#[test]
fn keeping_all_channels_changes_nothing_and_shares_nothing() {
    let net = tiny();
    let same = cut(&net, "conv2", &ChannelSet::all(12).unwrap());
    assert_eq!(same.graph, net.graph);
    for (name, tensor) in net.weights.iter() {
        assert_eq!(same.weights.get(name).unwrap(), tensor);
        let _ = same.weights.get(name).unwrap().shallow_clone().zero_();
        assert!(tensor.abs().sum(Kind::Float).double_value(&[]) > 0.0, "{name} is shared");
    }
}

/// Scaled consumer weights equal scaled channels: the consumer reads scale[j]·x_j.
#[test]
fn scaling_a_consumer_equals_scaling_what_it_reads() {
    let spec = NetSpec { batch_norm: Some(false), ..NetSpec::new(Arch::Tiny) };
    for name in ["conv1", "conv2", "conv3"] {
        let net = net(&spec, [3, 8, 8]);
        let layer = prunable_layer(&net.graph, name).unwrap();
        let scale: Vec<f64> = (0..layer.channels).map(|j| 0.25 * j as f64 - 0.5).collect();
        let (images, _) = batch(&net.graph);

        let mut scaled = net.weights.deep_copy().unwrap();
        scale_consumer_inputs(&mut scaled, &net.graph, &layer, &scale).unwrap();
        let found = output_of(layer.consumer, &net.graph, &scaled, &images);
        let input = output_of(layer.consumer_input, &net.graph, &net.weights, &images);
        let columns: Vec<f64> = scale.iter().flat_map(|&s| vec![s; layer.columns]).collect();
        let shape: &[i64] = if input.dim() == 2 { &[1, -1] } else { &[1, -1, 1, 1] };
        let input = input * Tensor::from_slice(&columns).to_kind(Kind::Float).view(shape);
        let consumer = &net.graph.nodes()[layer.consumer];
        let parameter = |tensor: &str| net.weights.get(&format!("{}.{tensor}", consumer.name)).unwrap();
        let expected = match consumer.op {
            Op::Linear { .. } => input.linear(parameter("weight"), Some(parameter("bias"))),
            _ => input.conv2d(parameter("weight"), Some(parameter("bias")), [1, 1], [1, 1], [1, 1], 1),
        };
        assert!(difference(&found, &expected) < 1e-5, "{name}");
    }
}

#[test]
fn scales_of_another_width_are_refused() {
    let mut net = tiny();
    let layer = prunable_layer(&net.graph, "conv3").unwrap();
    let error = scale_consumer_inputs(&mut net.weights, &net.graph, &layer, &[1.0; 3]).unwrap_err();
    assert_eq!(error.to_string(), "layer \"fc\" reads 16 channels, 3 scales were given");
}

#[test]
fn a_plan_of_another_net_is_refused() {
    let surgery = plan_surgery(&tiny().graph, "conv2", &every_other(12)).unwrap();
    let wider = NetSpec { width: 2.0, ..NetSpec::new(Arch::Tiny) };
    let error = apply_surgery(&net(&wider, [3, 8, 8]).weights, &surgery).unwrap_err();
    assert!(matches!(error, ModelError::TensorMismatch { .. }), "{error}");
}

#[test]
fn observed_activations_are_never_overwritten() {
    for net in nets() {
        let (images, _) = batch(&net.graph);
        // All nodes, so that nothing is computed in place, and every other node, so that something is.
        let nodes = net.graph.nodes().len();
        for taps in [(0..nodes).collect(), (0..nodes).step_by(2).chain([nodes - 1]).collect::<BTreeSet<_>>()]
        {
            let mut kept = Vec::new();
            let mut observe = |id, x: &Tensor| kept.push((id, x.shallow_clone(), x.copy()));
            forward_taps(&net.graph, &net.weights, &images, Mode::Eval, &taps, &mut observe).unwrap();
            assert!(kept.iter().map(|(node, ..)| node).eq(&taps));
            assert!(kept.iter().all(|(_, now, then)| now == then));
            let (_, out, _) = kept.last().unwrap();
            assert_eq!(*out, logits(&net.graph, &net.weights, &images), "in place or not");
        }
    }
}

#[test]
fn only_what_a_node_needs_is_run() {
    let net = net(&NetSpec { width: 0.0625, ..NetSpec::new(Arch::Resnet50) }, [3, 32, 32]);
    let projection = net.graph.find("layer1.0.downsample.0").unwrap();
    let (images, _) = batch(&net.graph);
    // A missing weight is found out only by the node that needs it.
    let needed = |name: &str| {
        ["conv1", "bn1", "layer1.0.downsample.0"].iter().any(|n| name.starts_with(&format!("{n}.")))
    };
    let weights: Weights = net.weights.into_iter().filter(|(name, _)| needed(name)).collect();
    let map = output_of(projection, &net.graph, &weights, &images);
    assert_eq!(map.size()[2..], [8, 8]);
}

#[test]
fn channels_last_gives_the_same_logits() {
    for net in nets() {
        let (images, _) = batch(&net.graph);
        let format = MemoryFormat::ChannelsLast;
        let weights = net.weights.to_format(format).unwrap();
        let found = logits(&net.graph, &weights, &format.apply(&images).unwrap());
        let gap = difference(&found, &logits(&net.graph, &net.weights, &images));
        assert!(gap < 1e-4, "{}: {gap}", net.graph.name());
    }
}

#[test]
fn images_that_do_not_fit_are_refused() {
    let net = tiny();
    let (images, _) = batch(&net.graph);
    let wrong =
        [images.narrow(1, 0, 1), images.narrow(0, 0, 0), images.to_kind(Kind::Double), images.view([-1, 8])];
    for images in wrong {
        let error = forward(&net.graph, &net.weights, &images, Mode::Eval).unwrap_err().to_string();
        assert!(error.starts_with("tiny expects images f32 [n, 3, 8, 8]"), "{error}");
    }
}

#[test]
fn a_node_that_does_not_exist_is_refused() {
    let net = tiny();
    let (images, _) = batch(&net.graph);
    let taps = BTreeSet::from([0, 99]);
    let error =
        forward_taps(&net.graph, &net.weights, &images, Mode::Eval, &taps, &mut |_, _| {}).unwrap_err();
    assert!(error.to_string().contains("\"99\""), "{error}");
}
