//! A cut net computes what the dense net does with the cut channels masked at the next layer's input.

use std::collections::BTreeSet;

use tch::{Kind, Tensor};
use thinet_graph::{
    ChannelGroup, ChannelSet, Graph, GraphBuilder, Op, channel_group, channel_groups, plan_surgery,
    prunable_layers,
};
use thinet_models::{
    MemoryFormat, Mode, ModelError, Net, Weights, apply_surgery, forward, forward_taps, read_weights,
    scale_readers, set_read_weights,
};
use thinet_nets::{Arch, NetSpec, ResNetStride};

use crate::nets::{batch, difference, filled, net, tiny};

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

/// The weights with those of the readers set to zero that read channels outside `keep`, element by element. Producers, their
/// batch norms and what they add to each other stay as they are.
fn masked(net: &Net, group: &ChannelGroup, keep: &ChannelSet) -> Weights {
    let mut weights = net.weights.deep_copy().unwrap();
    for entry in group.readers.iter().map(|reader| &reader.entry) {
        let weight = weights.get(&entry.tensor).unwrap().shallow_clone();
        for index in entry.indices(&keep.removed()) {
            let _ = weight.select(entry.axis as i64, index as i64).zero_();
        }
        weights.insert(entry.tensor.clone(), weight);
    }
    weights.check(&net.graph).unwrap();
    weights
}

fn logits(graph: &Graph, weights: &Weights, images: &Tensor) -> Tensor {
    forward(graph, weights, images, Mode::Eval).unwrap()
}

#[test]
fn masked_dense_net_equals_cut_net_for_every_group() {
    for net in nets() {
        let (images, _) = batch(&net.graph);
        let dense = logits(&net.graph, &net.weights, &images);
        let (mut groups, mut changed) = (0, 0);
        for group in channel_groups(&net.graph) {
            let keep = every_other(group.channels);
            let cut = cut(&net, &group.name, &keep);
            let expected = logits(&net.graph, &masked(&net, &group, &keep), &images);
            let found = logits(&cut.graph, &cut.weights, &images);
            let gap = difference(&found, &expected);
            assert!(gap < 1e-4, "{}, {}: {gap}", net.graph.name(), group.name);
            groups += 1;
            changed += usize::from(difference(&expected, &dense) > 1e-3);
        }
        assert!(changed * 2 > groups, "{}: only {changed} of {groups} cuts are seen", net.graph.name());
    }
}

/// The residual stages (with the stem of a ResNet-50) and the hidden linear layers of each net.
#[test]
fn the_groups_beyond_the_prunable_layers_are_stages_and_hidden_linear_layers() {
    for net in nets() {
        let default: Vec<String> = prunable_layers(&net.graph).into_iter().map(|g| g.name).collect();
        let forms = channel_groups(&net.graph).into_iter().filter(|group| !default.contains(&group.name));
        let forms: Vec<_> = forms
            .map(|g| (g.name.clone(), g.producers.len(), g.readers.len(), g.readers[0].entry.block))
            .collect();
        let expected: &[(&str, usize, usize, usize)] = match net.graph.name() {
            "vgg16" => &[("fc6", 1, 1, 1), ("fc7", 1, 1, 1)],
            "resnet50" => &[
                ("conv1", 1, 2, 1),
                ("layer1.0.add", 4, 4, 1),
                ("layer2.0.add", 5, 5, 1),
                ("layer3.0.add", 7, 7, 1),
                ("layer4.0.add", 4, 3, 1),
            ],
            "cifar-resnet20" => {
                &[("layer1.0.add", 4, 5, 1), ("layer2.0.add", 4, 4, 1), ("layer3.0.add", 4, 3, 1)]
            }
            "cifar-resnet56" => {
                &[("layer1.0.add", 10, 11, 1), ("layer2.0.add", 10, 10, 1), ("layer3.0.add", 10, 9, 1)]
            }
            _ => &[],
        };
        let expected: Vec<_> = expected.iter().map(|&(name, p, r, b)| (name.to_owned(), p, r, b)).collect();
        assert_eq!(forms, expected, "{}", net.graph.name());
    }
    let vgg16 = NetSpec { width: 0.0625, ..NetSpec::new(Arch::Vgg16) }.build([3, 224, 224], 5).unwrap();
    assert_eq!(channel_group(&vgg16, "conv5_3").unwrap().readers[0].entry.block, 49);
}

#[test]
fn the_channels_of_image_and_logits_are_refused_by_name() {
    for net in nets() {
        let last = net.graph.nodes().last().unwrap().name.clone();
        for name in ["input", &last] {
            let error = channel_group(&net.graph, name).unwrap_err().to_string();
            assert!(
                error.starts_with(&format!("layer {name:?} cannot be pruned: its channels are ")),
                "{error}"
            );
        }
    }
}

/// A convolution whose output is added to what it reads is cut along both axes of its weight.
#[test]
fn a_layer_that_reads_and_produces_a_group_is_cut_along_both_axes() {
    let conv = |in_channels, out_channels| Op::Conv {
        in_channels,
        out_channels,
        kernel: 3,
        stride: 1,
        padding: 1,
        bias: true,
    };
    let mut builder = GraphBuilder::new("loop", [3, 6, 6]).unwrap();
    let first = builder.add("first", conv(3, 6)).unwrap();
    let back = builder.add("loop", conv(6, 6)).unwrap();
    builder.add_from("add", Op::Add {}, vec![back, first]).unwrap();
    builder.add("flatten", Op::Flatten {}).unwrap();
    builder.add("fc", Op::Linear { in_features: 216, out_features: 5 }).unwrap();
    let graph = builder.finish();
    let net = Net { weights: filled(&graph), graph };
    let (group, keep) = (channel_group(&net.graph, "add").unwrap(), every_other(6));
    let cut = cut(&net, "add", &keep);
    assert_eq!(cut.weights.get("loop.weight").unwrap().size(), [3, 3, 3, 3]);
    let (images, _) = batch(&net.graph);
    let expected = logits(&net.graph, &masked(&net, &group, &keep), &images);
    let gap = difference(&logits(&cut.graph, &cut.weights, &images), &expected);
    assert!(gap < 1e-5, "{gap}");
}

#[test]
fn the_number_of_prunable_layers_is_the_papers() {
    let counts: Vec<usize> = nets().iter().map(|net| prunable_layers(&net.graph).len()).collect();
    assert_eq!(counts, [13, 13, 13, 13, 32, 32, 9, 27, 3, 3]);
}

#[test]
fn cuts_of_all_groups_one_after_the_other_fit() {
    for mut net in nets() {
        let (images, _) = batch(&net.graph);
        for group in channel_groups(&net.graph) {
            net = cut(&net, &group.name, &every_other(group.channels));
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

/// Scaled weights of a reader equal scaled channels: the reader reads scale[j]·x_j.
#[test]
fn scaling_a_reader_equals_scaling_what_it_reads() {
    let tiny = NetSpec { batch_norm: Some(false), ..NetSpec::new(Arch::Tiny) };
    let residual = NetSpec { width: 0.25, ..NetSpec::new(Arch::CifarResnet20) };
    for (spec, name) in [
        (&tiny, "conv1"),
        (&tiny, "conv2"),
        (&tiny, "conv3"),
        (&residual, "layer1.0.add"),
        (&residual, "layer3.0.add"),
    ] {
        let net = net(spec, [3, 8, 8]);
        let group = channel_group(&net.graph, name).unwrap();
        let scale: Vec<f64> = (0..group.channels).map(|j| 0.25 * j as f64 - 0.5).collect();
        let (images, _) = batch(&net.graph);

        let mut scaled = net.weights.deep_copy().unwrap();
        scale_readers(&mut scaled, &group, &scale).unwrap();
        for reader in &group.readers {
            let input = output_of(reader.input, &net.graph, &net.weights, &images);
            let columns: Vec<f64> = scale.iter().flat_map(|&s| vec![s; reader.entry.block]).collect();
            let shape: &[i64] = if input.dim() == 2 { &[1, -1] } else { &[1, -1, 1, 1] };
            let input = input * Tensor::from_slice(&columns).to_kind(Kind::Float).view(shape);
            let node = &net.graph.nodes()[reader.node];
            let run = |input: &Tensor, weights: &Weights| {
                let parameter = |tensor: &str| weights.get(&format!("{}.{tensor}", node.name)).ok();
                match node.op {
                    Op::Linear { .. } => input.linear(parameter("weight").unwrap(), parameter("bias")),
                    Op::Conv { stride, padding, .. } => {
                        let [stride, padding] = [[stride as i64; 2], [padding as i64; 2]];
                        input.conv2d(
                            parameter("weight").unwrap(),
                            parameter("bias"),
                            stride,
                            padding,
                            [1, 1],
                            1,
                        )
                    }
                    ref other => panic!("{other:?} reads no channels"),
                }
            };
            let plain = output_of(reader.input, &net.graph, &net.weights, &images);
            let gap = difference(&run(&plain, &scaled), &run(&input, &net.weights));
            assert!(gap < 1e-5, "{name}, {}: {gap}", node.name);
        }
    }
}

#[test]
fn scales_of_another_width_or_net_are_refused() {
    let mut net = tiny();
    let group = channel_group(&net.graph, "conv3").unwrap();
    let error = scale_readers(&mut net.weights, &group, &[1.0; 3]).unwrap_err();
    assert_eq!(error.to_string(), "layer \"conv3\" has 16 channels, 3 scales were given");
    let mut cut = cut(&net, "conv3", &every_other(16));
    let error = scale_readers(&mut cut.weights, &group, &[1.0; 16]).unwrap_err().to_string();
    assert!(error.starts_with("scaling of tensor \"fc.weight\""), "{error}");
}

/// Written one by one, the weights that a scale gives are those of [`scale_readers`]; others stay.
#[test]
fn weights_that_a_reader_is_given_take_the_place_of_those_of_the_kept_channels() {
    let tiny = NetSpec::new(Arch::Tiny);
    for name in ["conv1", "conv3"] {
        let net = net(&tiny, [3, 8, 8]);
        let group = channel_group(&net.graph, name).unwrap();
        let (reader, kept) = (&group.readers[0], every_other(group.channels));
        let scale: Vec<f64> = (0..group.channels)
            .map(|j| if kept.kept().contains(&j) { 0.25 * j as f64 - 0.5 } else { 1.0 })
            .collect();
        let mut scaled = net.weights.deep_copy().unwrap();
        scale_readers(&mut scaled, &group, &scale).unwrap();

        let all = read_weights(&net.weights, reader).unwrap();
        let filters = net.weights.get(&reader.entry.tensor).unwrap().size()[0] as usize;
        let taps = all.len() / filters / group.channels;
        let mut values = Vec::new();
        for filter in all.chunks_exact(taps * group.channels) {
            for &channel in kept.kept() {
                values.extend(filter[channel * taps..][..taps].iter().map(|w| w * scale[channel]));
            }
        }
        let mut changed = net.weights.deep_copy().unwrap();
        set_read_weights(&mut changed, reader, &kept, &values).unwrap();
        for (tensor, value) in changed.iter() {
            assert_eq!(*value, *scaled.get(tensor).unwrap(), "{name}: {tensor}");
        }
        let error = set_read_weights(&mut changed, reader, &kept, &values[1..]).unwrap_err().to_string();
        let expected = format!(
            "tensor {:?}: {} new weights, expected {}",
            reader.entry.tensor,
            values.len() - 1,
            values.len()
        );
        assert_eq!(error, expected);
    }
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
