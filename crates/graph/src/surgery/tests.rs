//! Tests of surgery plans: by hand, by shapes, and by running masked and cut networks side by side.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::plain_forward::{PlainWeights, apply, forward, scattered, scattered_weights};
use super::*;
use crate::graph::GraphBuilder;
use crate::group::{channel_groups, prunable_layers};
use crate::shape::Shape;

fn conv(
    in_channels: usize,
    out_channels: usize,
    kernel: usize,
    stride: usize,
    padding: usize,
    bias: bool,
) -> Op {
    Op::Conv { in_channels, out_channels, kernel, stride, padding, bias }
}

fn batch_norm(channels: usize) -> Op {
    Op::BatchNorm { channels, eps: 1e-3, momentum: 0.1 }
}

fn keep(width: usize, kept: &[usize]) -> ChannelSet {
    ChannelSet::new(width, kept.to_vec()).unwrap()
}

/// conv1 → bn1 → relu → conv2 → relu → pool → flatten → bn2 → fc on 3×4×4 images.
fn small() -> Graph {
    let mut net = GraphBuilder::new("small", [3, 4, 4]).unwrap();
    net.add("conv1", conv(3, 4, 3, 1, 1, true)).unwrap();
    net.add("bn1", batch_norm(4)).unwrap();
    net.add("relu1", Op::Relu {}).unwrap();
    net.add("conv2", conv(4, 3, 3, 1, 1, false)).unwrap();
    net.add("relu2", Op::Relu {}).unwrap();
    net.add("pool", Op::MaxPool { kernel: 2, stride: 2, padding: 0 }).unwrap();
    net.add("flat", Op::Flatten {}).unwrap();
    net.add("bn2", batch_norm(12)).unwrap();
    net.add("fc", Op::Linear { in_features: 12, out_features: 5 }).unwrap();
    net.finish()
}

fn as_lines(cuts: &[Cut]) -> Vec<String> {
    cuts.iter().map(|cut| format!("{} {} {:?}", cut.tensor, cut.axis, cut.indices)).collect()
}

#[test]
fn a_cut_before_a_convolution_names_filters_batch_norm_and_input_channels() {
    let surgery = plan_surgery(&small(), "conv1", &keep(4, &[1, 3])).unwrap();
    assert_eq!(
        as_lines(&surgery.cuts),
        [
            "conv1.weight 0 [1, 3]",
            "conv1.bias 0 [1, 3]",
            "bn1.weight 0 [1, 3]",
            "bn1.bias 0 [1, 3]",
            "bn1.running_mean 0 [1, 3]",
            "bn1.running_var 0 [1, 3]",
            "conv2.weight 1 [1, 3]",
        ]
    );
    assert_eq!(surgery.graph.nodes()[1].op, conv(3, 2, 3, 1, 1, true));
    assert_eq!(surgery.graph.nodes()[2].op, batch_norm(2));
    assert_eq!(surgery.graph.nodes()[4].op, conv(2, 3, 3, 1, 1, false));
    assert_eq!(surgery.graph.nodes()[5..], small().nodes()[5..]);
}

#[test]
fn behind_a_flatten_each_channel_is_a_block_of_columns() {
    let surgery = plan_surgery(&small(), "conv2", &keep(3, &[0, 2])).unwrap();
    let blocks = "[0, 1, 2, 3, 8, 9, 10, 11]";
    assert_eq!(
        as_lines(&surgery.cuts),
        [
            "conv2.weight 0 [0, 2]".to_owned(),
            format!("bn2.weight 0 {blocks}"),
            format!("bn2.bias 0 {blocks}"),
            format!("bn2.running_mean 0 {blocks}"),
            format!("bn2.running_var 0 {blocks}"),
            format!("fc.weight 1 {blocks}"),
        ]
    );
    assert_eq!(surgery.graph.nodes()[8].op, batch_norm(8));
    assert_eq!(surgery.graph.nodes()[9].op, Op::Linear { in_features: 8, out_features: 5 });
}

#[test]
fn a_keep_set_of_another_width_is_refused() {
    let error = plan_surgery(&small(), "conv1", &keep(3, &[0, 2])).unwrap_err().to_string();
    assert_eq!(error, r#"layer "conv1" has 4 channels, the kept channels were chosen among 3"#);
    for (kept, problem) in [(0, "kept channels are empty"), (5, "kept channels name 4, the layer has 4")] {
        assert_eq!(with_channels(&small(), "conv1", kept).unwrap_err().to_string(), problem);
    }
}

#[test]
fn layers_that_are_not_prunable_get_no_plan() {
    for layer in ["fc", "relu1", "nothing", "input"] {
        assert_eq!(
            plan_surgery(&small(), layer, &keep(4, &[0])).unwrap_err(),
            channel_group(&small(), layer).unwrap_err()
        );
    }
}

#[test]
fn keeping_all_changes_nothing() {
    let net = small();
    let weights = scattered_weights(&net);
    let surgery = plan_surgery(&net, "conv1", &ChannelSet::all(4).unwrap()).unwrap();
    assert_eq!(surgery.graph, net);
    assert_eq!(apply(&weights, &surgery), weights);
}

#[derive(Clone, Copy, Debug)]
struct Block {
    filters: usize,
    kernel: usize,
    stride: usize,
    padding: usize,
    bias: bool,
    batch_norm: bool,
    relu: bool,
    pool: u8,
    residual: bool,
}

/// Convolutions with any strides and paddings, with and without batch norm, ReLU, pooling and a residual branch around
/// them; then a flatten, maybe with a batch norm behind it, and two linear layers. What does not fit is left out.
fn build(blocks: &[Block], size: usize, flat_batch_norm: bool) -> Graph {
    let mut net = GraphBuilder::new("random", [2, size, size + 1]).unwrap();
    for (i, block) in blocks.iter().enumerate() {
        let (trunk, width) = (net.last(), net.shape().channels());
        let wide = conv(width, block.filters, block.kernel, block.stride, block.padding, block.bias);
        if net.add(format!("conv{i}"), wide).is_err() {
            net.add(format!("conv{i}"), conv(width, block.filters, 1, 1, 0, block.bias)).unwrap();
        }
        if block.batch_norm {
            net.add(format!("bn{i}"), batch_norm(block.filters)).unwrap();
        }
        if block.relu {
            net.add(format!("relu{i}"), Op::Relu {}).unwrap();
        }
        if block.residual {
            // conv{i}b brings the branch back to the trunk's width; the addition is left out where sizes differ.
            net.add(format!("conv{i}b"), conv(block.filters, width, 3, 1, 1, block.bias)).unwrap();
            let branch = net.last();
            if net.add_from(format!("add{i}"), Op::Add {}, vec![trunk, branch]).is_ok() {
                net.add(format!("relu{i}b"), Op::Relu {}).unwrap();
            }
        }
        let pool = match block.pool {
            0 => Op::MaxPool { kernel: 2, stride: 2, padding: 0 },
            1 => Op::MaxPool { kernel: 3, stride: 2, padding: 1 },
            2 => Op::AvgPool { kernel: 2, stride: 1 },
            _ => Op::Dropout { p: 0.5 },
        };
        // A pool that does not fit is left out, as any node that cannot be added.
        net.add(format!("pool{i}"), pool).ok();
    }
    net.add("flat", Op::Flatten {}).unwrap();
    let features = net.shape().channels();
    if flat_batch_norm {
        net.add("flat.bn", batch_norm(features)).unwrap();
    }
    net.add("fc1", Op::Linear { in_features: features, out_features: 4 }).unwrap();
    net.add("relu", Op::Relu {}).unwrap();
    net.add("fc2", Op::Linear { in_features: 4, out_features: 3 }).unwrap();
    net.finish()
}

fn blocks() -> impl Strategy<Value = Vec<Block>> {
    let block = (1..6_usize, 1..4_usize, 1..3_usize, 0..2_usize, any::<[bool; 4]>(), 0..5_u8).prop_map(
        |(filters, kernel, stride, padding, [bias, batch_norm, relu, residual], pool)| Block {
            filters,
            kernel,
            stride,
            padding,
            bias,
            batch_norm,
            relu,
            pool,
            residual,
        },
    );
    proptest::collection::vec(block, 1..4)
}

fn net() -> impl Strategy<Value = Graph> {
    (blocks(), 3..8_usize, any::<bool>()).prop_map(|(blocks, size, bn)| build(&blocks, size, bn))
}

/// A set of kept channels from random bits; the last channel stays if no other does.
fn subset(width: usize, bits: u64) -> ChannelSet {
    let mut kept: Vec<usize> = (0..width).filter(|c| bits >> c & 1 == 1).collect();
    if kept.is_empty() {
        kept.push(width - 1);
    }
    ChannelSet::new(width, kept).unwrap()
}

/// A network, one of its groups and kept channels. A net without a group is drawn again.
fn net_and_cut() -> impl Strategy<Value = (Graph, ChannelGroup, ChannelSet)> {
    let choose = |(net, which, bits): (Graph, proptest::sample::Index, u64)| {
        let groups = channel_groups(&net);
        let group = groups.get(which.index(groups.len().max(1)))?.clone();
        let keep = subset(group.channels, bits);
        Some((net, group, keep))
    };
    (net(), any::<proptest::sample::Index>(), any::<u64>()).prop_filter_map("nothing to cut", choose)
}

/// The weights with those of the readers set to zero that read a removed channel.
fn masked(weights: &PlainWeights, group: &ChannelGroup, keep: &ChannelSet) -> PlainWeights {
    let mut weights = weights.clone();
    for entry in group.readers.iter().map(|reader| &reader.entry) {
        let tensor = weights.get_mut(&entry.tensor).unwrap();
        let inner: usize = tensor.shape[entry.axis + 1..].iter().product();
        let along = tensor.shape[entry.axis];
        let gone = entry.indices(&keep.removed());
        for (at, value) in tensor.values.iter_mut().enumerate() {
            if gone.contains(&(at / inner % along)) {
                *value = 0.0;
            }
        }
    }
    weights
}

#[test]
fn the_nets_of_these_tests_have_chains_additions_and_linear_layers() {
    let block = |filters, residual| Block {
        filters,
        kernel: 3,
        stride: 1,
        padding: 1,
        bias: true,
        batch_norm: true,
        relu: true,
        pool: 3,
        residual,
    };
    let net = build(&[block(3, false), block(4, true), block(5, true)], 5, true);
    let forms: Vec<(String, usize, usize)> =
        channel_groups(&net).into_iter().map(|g| (g.name, g.producers.len(), g.readers.len())).collect();
    // conv0, conv1b and conv2b are added; conv1, conv2 and fc1 read the sums.
    let expected = [("conv1", 1, 1), ("add1", 3, 3), ("conv2", 1, 1), ("fc1", 1, 1)]
        .map(|(n, p, r)| (n.to_owned(), p, r));
    assert_eq!(forms, expected);
}

proptest! {
    #[test]
    fn old_shapes_with_the_cuts_applied_are_the_new_graphs_shapes((net, group, keep) in net_and_cut()) {
        let surgery = plan_surgery(&net, &group.name, &keep).unwrap();
        let mut shapes: Vec<_> = net.tensors().into_iter().map(|t| (t.name, t.shape)).collect();
        prop_assert_eq!(&with_channels(&net, &group.name, keep.len()).unwrap(), &surgery.graph);
        let places: BTreeMap<String, usize> = shapes.iter().map(|(name, _)| name.clone()).zip(0..).collect();
        for cut in &surgery.cuts {
            let (_, shape) = &mut shapes[places[&cut.tensor]];
            prop_assert!(cut.indices.windows(2).all(|pair| pair[0] < pair[1]));
            prop_assert!(*cut.indices.last().unwrap() < shape[cut.axis]);
            shape[cut.axis] = cut.indices.len();
        }
        let expected: Vec<_> = surgery.graph.tensors().into_iter().map(|t| (t.name, t.shape)).collect();
        prop_assert_eq!(shapes, expected);

        let order: Vec<_> = surgery.cuts.iter().map(|cut| (places[&cut.tensor], cut.axis)).collect();
        prop_assert!(order.windows(2).all(|pair| pair[0] < pair[1]), "out of order or cut twice: {:?}", order);
        // The image and the outputs keep their shapes, as do the outputs of readers that produce nothing of the group.
        prop_assert_eq!(surgery.graph.shape(0), net.shape(0));
        prop_assert_eq!(surgery.graph.classes(), net.classes());
        for reader in &group.readers {
            let produces = group.producers.iter().any(|producer| producer.node == reader.node);
            prop_assert!(produces || surgery.graph.shape(reader.node) == net.shape(reader.node));
        }
    }

    #[test]
    fn the_cut_net_answers_as_the_dense_net_with_the_readers_weights_masked((net, group, keep) in net_and_cut()) {
        let weights = scattered_weights(&net);
        let image = scattered(net.input_shape().iter().product(), 0);
        let masked = forward(&net, &masked(&weights, &group, &keep), &image);
        let surgery = plan_surgery(&net, &group.name, &keep).unwrap();
        let cut = forward(&surgery.graph, &apply(&weights, &surgery), &image);
        // Exactly: masked terms add zeros to sums in the same order.
        prop_assert_eq!(cut, masked);
    }

    #[test]
    fn two_cuts_of_a_group_are_one_cut_to_what_both_keep((net, layer, first) in net_and_cut(), bits in any::<u64>()) {
        let second = subset(first.len(), bits);
        let both: Vec<usize> = second.kept().iter().map(|&i| first.kept()[i]).collect();
        let weights = scattered_weights(&net);

        let once = plan_surgery(&net, &layer.name, &ChannelSet::new(layer.channels, both).unwrap()).unwrap();
        let cut = plan_surgery(&net, &layer.name, &first).unwrap();
        let again = plan_surgery(&cut.graph, &layer.name, &second).unwrap();
        prop_assert_eq!(&again.graph, &once.graph);
        prop_assert_eq!(apply(&apply(&weights, &cut), &again), apply(&weights, &once));
    }

    #[test]
    fn cuts_of_different_groups_may_come_in_any_order(net in net(), bits in any::<u64>()) {
        let weights = scattered_weights(&net);
        let groups = channel_groups(&net);
        let cut_all = |order: &[ChannelGroup]| {
            let mut state = (net.clone(), weights.clone());
            for group in order {
                let keep = subset(group.channels, bits.rotate_left(group.producers[0].node as u32));
                let surgery = plan_surgery(&state.0, &group.name, &keep).unwrap();
                state = (surgery.graph.clone(), apply(&state.1, &surgery));
            }
            state
        };
        let backwards: Vec<ChannelGroup> = groups.iter().rev().cloned().collect();
        prop_assert_eq!(cut_all(&groups), cut_all(&backwards));
    }

    #[test]
    fn every_axis_of_a_weight_is_in_one_group_at_most_and_default_layers_are_groups(net in net()) {
        let mut seen = BTreeSet::new();
        let groups = channel_groups(&net);
        for entry in groups.iter().flat_map(ChannelGroup::entries) {
            prop_assert!(seen.insert((entry.tensor.clone(), entry.axis)), "{:?} twice", entry);
        }
        for layer in prunable_layers(&net) {
            prop_assert!(groups.contains(&layer));
            prop_assert_eq!(&net.nodes()[layer.producers[0].node].name, &layer.name);
            prop_assert_eq!((layer.producers.len(), layer.readers.len()), (1, 1));
        }
    }
}

#[test]
fn the_plain_forward_pass_is_right_on_a_net_worked_by_hand() {
    let mut net = GraphBuilder::new("hand", [1, 3, 3]).unwrap();
    net.add("conv", conv(1, 2, 2, 2, 1, true)).unwrap();
    net.add("pool", Op::AvgPool { kernel: 2, stride: 1 }).unwrap();
    net.add("flat", Op::Flatten {}).unwrap();
    net.add("fc", Op::Linear { in_features: 2, out_features: 1 }).unwrap();
    let net = net.finish();
    assert_eq!(net.shape(1), Shape::Map { c: 2, h: 2, w: 2 });
    let mut weights = scattered_weights(&net);
    let mut set = |name: &str, values: &[f64]| weights.get_mut(name).unwrap().values = values.to_vec();
    set("conv.weight", &[1.0, 2.0, 3.0, 4.0, 0.0, 0.0, 0.0, 1.0]);
    set("conv.bias", &[0.5, -1.0]);
    set("fc.weight", &[2.0, 10.0]);
    set("fc.bias", &[7.0]);
    let image = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0];
    // Windows start at −1 and 1: filter 0 gives 4, 2·3 + 3·4 = 18, 2·4 + 4·7 = 36, 5 + 12 + 24 + 36 = 77, each + 0.5;
    // filter 1 gives the lower right pixel, 1, 3, 7 and 9, each − 1.
    let expected = 7.0 + 2.0 * (4.0 + 18.0 + 36.0 + 77.0 + 2.0) / 4.0 + 10.0 * (20.0 - 4.0) / 4.0;
    assert_eq!(forward(&net, &weights, &image), [expected]);
}
