//! What commands say about groups of channels: lists, counts and plans.

use serde_json::json;

use crate::fixture::{Fixture, SPEC};

#[test]
fn groups_of_a_net_are_listed_and_counted() {
    let fixture = Fixture::new();
    let listed = fixture.run(&["count", "vgg16", "--groups", "--json"]).json();
    let lines = listed.as_array().unwrap();
    assert_eq!(lines.len(), 15);
    let [conv5_3, fc6] = [
        json!({ "name": "conv5_3", "channels": 512, "producers": ["conv5_3"], "readers": ["fc6"], "in-all": true }),
        json!({ "name": "fc6", "channels": 4096, "producers": ["fc6"], "readers": ["fc7"], "in-all": false }),
    ];
    assert_eq!(lines[12..14], [conv5_3, fc6]);

    let text = fixture.run(&["count", "cifar-resnet20", "--groups"]).out;
    let stage = "layer3.0.add               64  no     layer3.0.conv2 layer3.0.downsample.0 layer3.1.conv2 layer3.2.conv2 → \
                 layer3.1.conv1 layer3.2.conv1 fc\n";
    assert!(text.contains(stage), "{text}");

    // VGG-16 has 138,357,544 parameters; 2048 neurons fewer have 25,089 each in fc6 and 4096 readers in fc7.
    let half = fixture.run(&["count", "vgg16", "--keep-rate", "0.5", "--prune", "fc6", "--json"]).json();
    assert_eq!(half["counts"][1]["params"], 138_357_544 - 2048 * 25_089 - 2048 * 4096);
    let wrong = fixture.run(&["count", "resnet50", "--keep-rate", "0.5", "--prune", "layer4.1.conv3"]);
    assert_eq!(wrong.code, 2);
    assert!(wrong.err.contains("\"layer4.0.add\" names the group of all of them"), "{}", wrong.err);
}

#[test]
fn a_plan_says_what_its_groups_consist_of() {
    let fixture = Fixture::with_study();
    let plain = fixture.run(&["plan", "small.toml", "--data", "images"]).out;
    assert!(!plain.contains("\ngroup "), "a convolution needs no line: {plain}");
    let spec = SPEC.replace("arch = \"tiny\"", "arch = \"cifar-resnet20\", width = 0.25").replace(
        "prune.keep-rates",
        "prune.layers = [\"layer1.0.conv1\", \"layer3.0.add\"]\nprune.keep-rates",
    );
    fixture.write("groups.toml", &spec);
    let plan = fixture.run(&["plan", "groups.toml", "--data", "images"]);
    let line = "group       layer3.0.add: 16 channels, computed by layer3.0.conv2 layer3.0.downsample.0 layer3.1.conv2 \
                layer3.2.conv2, read by layer3.1.conv1 layer3.2.conv1 fc\n";
    assert!(plan.out.contains(line), "{}{}", plan.out, plan.err);
    assert_eq!(plan.out.matches("\ngroup ").count(), 1, "{}", plan.out);
}
