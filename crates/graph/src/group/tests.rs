//! Tests of channel groups on graphs drawn by hand.

use super::*;
use crate::GraphBuilder;

fn conv(in_channels: usize, out_channels: usize, stride: usize) -> Op {
    Op::Conv { in_channels, out_channels, kernel: 3, stride, padding: 1, bias: false }
}

fn batch_norm(channels: usize) -> Op {
    Op::BatchNorm { channels, eps: 1e-5, momentum: 0.1 }
}

fn linear(in_features: usize, out_features: usize) -> Op {
    Op::Linear { in_features, out_features }
}

/// conv1 → relu1 → pool → relu1b → conv2 (nothing between) conv3 → bn3 → flatten → bn4 → relu4 → drop → fc1 → relu5 → fc2.
fn chain() -> Graph {
    let mut net = GraphBuilder::new("chain", [3, 8, 8]).unwrap();
    net.add("conv1", conv(3, 4, 1)).unwrap();
    net.add("relu1", Op::Relu {}).unwrap();
    net.add("pool", Op::MaxPool { kernel: 3, stride: 2, padding: 1 }).unwrap();
    net.add("relu1b", Op::Relu {}).unwrap();
    net.add("conv2", conv(4, 6, 2)).unwrap();
    net.add("conv3", conv(6, 5, 1)).unwrap();
    net.add("bn3", batch_norm(5)).unwrap();
    net.add("flat", Op::Flatten {}).unwrap();
    net.add("bn4", batch_norm(20)).unwrap();
    net.add("relu4", Op::Relu {}).unwrap();
    net.add("drop", Op::Dropout { p: 0.5 }).unwrap();
    net.add("fc1", linear(20, 7)).unwrap();
    net.add("relu5", Op::Relu {}).unwrap();
    net.add("fc2", linear(7, 10)).unwrap();
    net.finish()
}

/// A stem, a block with a projection, a block without, and a head.
fn residual() -> Graph {
    let mut net = GraphBuilder::new("residual", [3, 8, 8]).unwrap();
    net.add("stem", conv(3, 4, 1)).unwrap();
    let trunk = net.add("stem.relu", Op::Relu {}).unwrap();
    net.add("a.conv1", conv(4, 4, 2)).unwrap();
    net.add("a.bn1", batch_norm(4)).unwrap();
    net.add("a.relu1", Op::Relu {}).unwrap();
    net.add("a.conv2", conv(4, 8, 1)).unwrap();
    let branch = net.add("a.bn2", batch_norm(8)).unwrap();
    let shortcut = net.add_from("a.projection", conv(4, 8, 2), vec![trunk]).unwrap();
    net.add_from("a.add", Op::Add {}, vec![branch, shortcut]).unwrap();
    let sum = net.add("a.relu", Op::Relu {}).unwrap();
    net.add("b.conv1", conv(8, 8, 1)).unwrap();
    net.add_from("b.add", Op::Add {}, vec![net.last(), sum]).unwrap();
    net.add("b.bn", batch_norm(8)).unwrap();
    net.add("head", conv(8, 2, 1)).unwrap();
    net.finish()
}

/// The group's parts: producers with their batch norms, and readers with input, activation and block.
fn parts(net: &Graph, group: &ChannelGroup) -> (Vec<String>, Vec<String>) {
    let name = |node: NodeId| net.nodes()[node].name.clone();
    let producer = |producer: &Producer| {
        let norm = producer.batch_norm.map_or_else(|| "-".into(), name);
        format!("{} {norm}", name(producer.node))
    };
    let reader = |reader: &Reader| {
        let [node, input, activation] = [reader.node, reader.input, reader.activation].map(name);
        format!("{node} {input} {activation} {}", reader.entry.block)
    };
    (group.producers.iter().map(producer).collect(), group.readers.iter().map(reader).collect())
}

fn entries(group: &ChannelGroup) -> Vec<String> {
    let entry = |e: &Entry| format!("{} {} {}+{}", e.tensor, e.axis, e.offset, e.block);
    group.entries().map(entry).collect()
}

fn message(net: &Graph, name: &str) -> String {
    channel_group(net, name).unwrap_err().to_string()
}

#[test]
fn layers_of_a_chain_are_groups_of_one_producer_and_one_reader() {
    let net = chain();
    let expected = [
        ("conv1", 4, "conv1 -", "conv2 relu1b relu1 1"),
        ("conv2", 6, "conv2 -", "conv3 conv2 conv2 1"),
        ("conv3", 5, "conv3 bn3", "fc1 drop relu4 4"),
        ("fc1", 7, "fc1 -", "fc2 relu5 relu5 1"),
    ];
    let groups = channel_groups(&net);
    assert_eq!(groups.len(), expected.len());
    for (group, (name, channels, producer, reader)) in groups.iter().zip(expected) {
        assert_eq!((group.name.as_str(), group.channels), (name, channels));
        assert_eq!(parts(&net, group), (vec![producer.to_owned()], vec![reader.to_owned()]));
        assert_eq!(channel_group(&net, name).as_ref(), Ok(group));
    }
    assert_eq!(
        entries(&groups[2]),
        [
            "conv3.weight 0 0+1",
            "bn3.weight 0 0+1",
            "bn3.bias 0 0+1",
            "bn3.running_mean 0 0+1",
            "bn3.running_var 0 0+1",
            "bn4.weight 0 0+4",
            "bn4.bias 0 0+4",
            "bn4.running_mean 0 0+4",
            "bn4.running_var 0 0+4",
            "fc1.weight 1 0+4",
        ]
    );
    assert_eq!(entries(&groups[3]), ["fc1.weight 0 0+1", "fc1.bias 0 0+1", "fc2.weight 1 0+1"]);
}

#[test]
fn an_entry_names_the_blocks_of_its_channels() {
    let entry = Entry { node: 1, tensor: "fc.weight".into(), axis: 1, offset: 0, block: 3 };
    assert_eq!(entry.indices(&[0, 2]), [0, 1, 2, 6, 7, 8]);
    assert_eq!(Entry { offset: 10, block: 1, ..entry }.indices(&[0, 2]), [10, 12]);
}

#[test]
fn additions_couple_what_they_add() {
    let net = residual();
    let names: Vec<String> = channel_groups(&net).into_iter().map(|group| group.name).collect();
    assert_eq!(names, ["stem", "a.conv1", "a.add"]);
    let stage = channel_group(&net, "a.add").unwrap();
    assert_eq!(stage.channels, 8);
    let (producers, readers) = parts(&net, &stage);
    assert_eq!(producers, ["a.conv2 a.bn2", "a.projection -", "b.conv1 -"]);
    assert_eq!(readers, ["b.conv1 a.relu a.relu 1", "head b.bn b.bn 1"]);
    assert_eq!(stage.batch_norms.iter().map(|entry| entry.node).collect::<Vec<_>>(), {
        let [of_branch, of_sum] = ["a.bn2", "b.bn"].map(|name| net.find(name).unwrap());
        [[of_branch; 4], [of_sum; 4]].concat()
    });
    let stem = channel_group(&net, "stem").unwrap();
    let (producers, readers) = parts(&net, &stem);
    assert_eq!(producers, ["stem -"]);
    assert_eq!(readers, ["a.conv1 stem.relu stem.relu 1", "a.projection stem.relu stem.relu 1"]);
}

#[test]
fn what_is_pruned_by_default_is_a_convolution_read_by_one_layer() {
    let names = |net: &Graph| prunable_layers(net).into_iter().map(|g| g.name).collect::<Vec<_>>();
    assert_eq!(names(&chain()), ["conv1", "conv2", "conv3"]);
    assert_eq!(names(&residual()), ["a.conv1"]);
    // One producer and one reader are not enough: nothing else may read what lies between.
    let mut net = GraphBuilder::new("net", [3, 8, 8]).unwrap();
    let conv_id = net.add("conv", conv(3, 4, 1)).unwrap();
    net.add("unread", Op::Relu {}).unwrap();
    net.add_from("head", conv(4, 2, 1), vec![conv_id]).unwrap();
    let net = net.finish();
    assert_eq!(names(&net), [""; 0]);
    assert_eq!(parts(&net, &channel_group(&net, "conv").unwrap()).1, ["head conv conv 1"]);
}

#[test]
fn groups_that_cannot_be_cut_are_refused_with_the_reason() {
    let net = residual();
    let added = r#"its channels are added to others; "a.add" names the group of all of them"#;
    for (layer, reason) in [
        ("a.conv2", added),
        ("a.projection", added),
        ("a.relu", added),
        ("b.conv1", added),
        ("b.add", added),
        ("head", "its channels are the outputs of the network"),
        ("a.relu1", r#"it is of kind relu; "a.conv1" names the group of its channels"#),
        ("a.bn1", r#"it is of kind batch-norm; "a.conv1" names the group of its channels"#),
        ("input", "its channels are those of the image"),
    ] {
        assert_eq!(message(&net, layer), format!("layer {layer:?} cannot be pruned: {reason}"));
    }
}

#[test]
fn whatever_is_added_to_the_image_or_the_outputs_is_fixed_too() {
    let mut net = GraphBuilder::new("net", [3, 8, 8]).unwrap();
    net.add("conv", conv(3, 3, 1)).unwrap();
    net.add_from("add", Op::Add {}, vec![1, 0]).unwrap();
    net.add("wide", conv(3, 6, 1)).unwrap();
    net.add("last", conv(6, 6, 1)).unwrap();
    net.add_from("sum", Op::Add {}, vec![3, 4]).unwrap();
    net.add("relu", Op::Relu {}).unwrap();
    let net = net.finish();
    for layer in ["conv", "add", "input"] {
        assert!(message(&net, layer).ends_with("those of the image"), "{layer}");
    }
    for layer in ["wide", "last", "sum", "relu"] {
        assert!(message(&net, layer).ends_with("the outputs of the network"), "{layer}");
    }
    assert!(channel_groups(&net).is_empty());
}

#[test]
fn a_layer_that_nothing_reads_is_refused() {
    let mut net = GraphBuilder::new("net", [3, 8, 8]).unwrap();
    net.add("unread", conv(3, 4, 1)).unwrap();
    net.add_from("head", conv(3, 2, 1), vec![0]).unwrap();
    assert_eq!(
        message(&net.finish(), "unread"),
        r#"layer "unread" cannot be pruned: no layer reads its output"#
    );
}

#[test]
fn a_layer_added_to_itself_or_to_what_it_reads_is_one_group() {
    let mut net = GraphBuilder::new("net", [3, 8, 8]).unwrap();
    let first = net.add("first", conv(3, 4, 1)).unwrap();
    net.add_from("double", Op::Add {}, vec![first, first]).unwrap();
    let sum = net.last();
    net.add("loop", conv(4, 4, 1)).unwrap();
    net.add_from("back", Op::Add {}, vec![net.last(), sum]).unwrap();
    net.add("head", conv(4, 2, 1)).unwrap();
    let group = channel_group(&net.finish(), "double").unwrap();
    assert_eq!(
        entries(&group),
        ["first.weight 0 0+1", "loop.weight 0 0+1", "loop.weight 1 0+1", "head.weight 1 0+1",]
    );
}

#[test]
fn flattened_maps_of_several_sizes_that_are_added_share_the_smallest_common_channels() {
    // 4 maps of 3×1 and 6 maps of 2×1: both flatten to 12 values, of which 6 belong to a channel of either.
    let mut net = GraphBuilder::new("net", [3, 6, 1]).unwrap();
    let windows = |out_channels, kernel: usize| Op::Conv {
        in_channels: 3,
        out_channels,
        kernel: 1,
        stride: kernel,
        padding: 0,
        bias: false,
    };
    net.add("four", windows(4, 2)).unwrap();
    let four = net.add("four.flat", Op::Flatten {}).unwrap();
    net.add_from("six", windows(6, 3), vec![0]).unwrap();
    let six = net.add("six.flat", Op::Flatten {}).unwrap();
    net.add_from("add", Op::Add {}, vec![four, six]).unwrap();
    net.add("fc", linear(12, 2)).unwrap();
    let group = channel_group(&net.finish(), "add").unwrap();
    assert_eq!(group.channels, 2);
    assert_eq!(entries(&group), ["four.weight 0 0+2", "six.weight 0 0+3", "fc.weight 1 0+6"]);
}

#[test]
fn an_unknown_layer_is_answered_with_the_nearest_and_all() {
    let rest = "prunable layers: conv1, conv2, conv3, fc1";
    let message = |name: &str| message(&chain(), name);
    assert_eq!(
        message("cnov2"),
        format!(r#"there is no layer "cnov2" in chain, did you mean "conv2"?; {rest}"#)
    );
    assert_eq!(message("fire9"), format!(r#"there is no layer "fire9" in chain; {rest}"#));
    assert_eq!(message(""), format!(r#"there is no layer "" in chain; {rest}"#));
}

#[test]
fn average_pooling_and_a_second_flatten_lie_between_a_layer_and_its_reader() {
    let mut net = GraphBuilder::new("net", [3, 8, 8]).unwrap();
    net.add("conv", conv(3, 4, 1)).unwrap();
    net.add("pool", Op::AvgPool { kernel: 4, stride: 4 }).unwrap();
    net.add("flat", Op::Flatten {}).unwrap();
    net.add("again", Op::Flatten {}).unwrap();
    net.add("fc", linear(16, 2)).unwrap();
    let net = net.finish();
    let group = channel_group(&net, "conv").unwrap();
    assert_eq!(parts(&net, &group).1, ["fc again again 4"]);
    assert_eq!(group.check(&ChannelSet::all(4).unwrap()), Ok(()));
    assert!(group.check(&ChannelSet::all(5).unwrap()).is_err());
}
