//! Studies that prune groups of channels beyond a single convolution: residual stages and hidden linear layers.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::AtomicUsize;

use tch::Device;
use thinet_graph::{ChannelSet, channel_group};
use thinet_harness::events::Silent;
use thinet_models::load_net;
use thinet_report::records::{Metric, Phase, Status, StudyRecord};

use crate::fixture::{DiesAt, Fixture, SPEC, one_shot};

/// A block's first convolution, then the stage that its block adds to: the producers and readers of one group are cut layers of
/// the other. With the control from a random start, whose widths are those of the cells.
fn residual() -> String {
    SPEC.replace("arch = \"tiny\"\nbatch-norm = true", "arch = \"cifar-resnet20\"\nwidth = 0.5")
        .replace("[0.5, 0.75]", "[0.5]\nlayers = [\"layer2.0.conv1\", \"layer2.0.add\"]")
        .replace("epochs = 2", "epochs = 1")
        .replace("selector = \"random\"", "selector = \"weight-sum-l1\"")
        + "[from-scratch]\nepochs = 1\nbatch = 16\nlr = 0.01\n"
}

/// The last convolution, whose channels fc6 reads, and the two hidden linear layers. Dropout is off: its masks come from
/// libtorch's one generator.
fn linear() -> String {
    SPEC.replace(
        "arch = \"tiny\"\nbatch-norm = true",
        "arch = \"vgg16\"\nwidth = 0.0625\ndropout = 0.0\n[input]\nsize = 64",
    )
    .replace("[0.5, 0.75]", "[0.5]\nlayers = [\"conv5_3\", \"fc6\", \"fc7\"]")
    .replace("epochs = 2", "epochs = 1")
    .replace("selector = \"random\"", "selector = \"weight-sum-l1\"")
}

/// Runs a spec, and again with a death at each of `deaths`: the results are the same.
fn run_unbroken_and_broken(fixture: &Fixture, spec: &str, deaths: &[usize]) -> StudyRecord {
    let study = fixture.run(spec, "unbroken", &Silent).study;
    for &event in deaths {
        let reporter = DiesAt { left: AtomicUsize::new(event) };
        let run = catch_unwind(AssertUnwindSafe(|| fixture.run(spec, "broken", &reporter)));
        assert!(run.is_err(), "the study ended before event {event}");
    }
    fixture.run(spec, "broken", &Silent);
    fixture.assert_same_stages("unbroken", "broken");
    assert_eq!(fixture.tables("broken"), fixture.tables("unbroken"));
    study
}

/// Checks that every cell kept `kept` of each group, in all tensors of the stored net, and that ThiNet's refit lowers errors.
fn check_cells(fixture: &Fixture, study: &StudyRecord, kept: &[(&str, usize)]) {
    let (mut refitted, mut lower) = (0, 0);
    for cell in study.cells.iter().filter(|cell| cell.status == Status::Done) {
        let path = fixture.path(&format!("unbroken/store/{}/weights.safetensors", cell.id));
        let (net, _) = load_net(&path, Device::Cpu).unwrap();
        for (name, kept) in kept {
            let group = channel_group(&net.graph, name).unwrap();
            assert_eq!(group.channels, *kept, "{} of {}", name, cell.method);
            for entry in group.entries() {
                let size = net.weights.get(&entry.tensor).unwrap().size()[entry.axis];
                assert_eq!(size as usize, kept * entry.block, "{}", entry.tensor);
            }
            if !cell.method.contains("thinet") {
                continue;
            }
            let error = |phase| {
                let mut rows = cell.rows.iter().filter(|row| row.layer == *name && row.phase == phase);
                rows.find(|row| row.metric == Metric::ReconstructionError).unwrap().value
            };
            let (before, after) = (error(Phase::AfterCut), error(Phase::AfterReconstruction));
            assert!(after <= before && before.is_finite(), "{name}: {before} became {after}");
            refitted += 1;
            lower += usize::from(after < before);
        }
    }
    // A layer that is dead after so short a training has nothing to refit.
    assert!(refitted == kept.len() && lower > 0, "{lower} of {refitted}");
}

#[test]
fn a_residual_stage_is_pruned_layer_by_layer_and_resumed() {
    let fixture = Fixture::new();
    let study = run_unbroken_and_broken(&fixture, &residual(), &[25, 20, 15]);
    check_cells(&fixture, &study, &[("layer2.0.conv1", 8), ("layer2.0.add", 8)]);
    let methods: Vec<&str> = study.cells.iter().map(|cell| cell.method.as_str()).collect();
    assert_eq!(methods.len(), 4, "{methods:?}");
}

#[test]
fn a_residual_stage_is_pruned_in_one_shot_from_stored_evidence() {
    let fixture = Fixture::new();
    let study = run_unbroken_and_broken(&fixture, &one_shot(&residual()), &[20, 30]);
    check_cells(&fixture, &study, &[("layer2.0.conv1", 8), ("layer2.0.add", 8)]);
}

#[test]
fn hidden_linear_layers_are_pruned_layer_by_layer_and_resumed() {
    let fixture = Fixture::new();
    let study = run_unbroken_and_broken(&fixture, &linear(), &[30, 30, 15]);
    check_cells(&fixture, &study, &[("conv5_3", 16), ("fc6", 128), ("fc7", 128)]);
}

#[test]
fn hidden_linear_layers_are_pruned_in_one_shot_from_stored_evidence() {
    let fixture = Fixture::new();
    let study = run_unbroken_and_broken(&fixture, &one_shot(&linear()), &[15]);
    check_cells(&fixture, &study, &[("conv5_3", 16), ("fc6", 128), ("fc7", 128)]);
}

#[test]
fn groups_of_a_study_are_the_ones_it_names_and_all_means_single_convolutions() {
    let fixture = Fixture::new();
    let plan = fixture.plan(&residual(), "results").unwrap();
    assert_eq!(plan.spec.prune.layers, ["layer2.0.conv1", "layer2.0.add"]);
    for cell in &plan.cells {
        assert_eq!(*cell.design.keep, [("layer2.0.conv1".to_owned(), 8), ("layer2.0.add".to_owned(), 8)]);
    }
    let all = residual().replace("[\"layer2.0.conv1\", \"layer2.0.add\"]", "\"all\"");
    let layers = fixture.plan(&all, "results").unwrap().spec.prune.layers;
    assert_eq!(layers.len(), 9);
    assert!(layers.iter().all(|layer| layer.ends_with(".conv1")), "{layers:?}");
}

#[test]
fn names_that_no_group_has_are_refused_with_the_group_that_was_meant() {
    let fixture = Fixture::new();
    let message = |layer: &str| {
        let spec = residual().replace("\"layer2.0.add\"", &format!("{layer:?}"));
        let error = fixture.plan(&spec, "results").err().unwrap();
        assert!(error.is_bad_spec(), "{error}");
        error.to_string()
    };
    for (layer, problem) in [
        (
            "layer2.1.conv2",
            "its channels are added to others; \"layer2.0.add\" names the group of all of them",
        ),
        ("layer2.2.add", "its channels are added to others; \"layer2.0.add\" names the group of all of them"),
        ("layer3.0.bn1", "it is of kind batch-norm; \"layer3.0.conv1\" names the group of its channels"),
        ("input", "its channels are those of the image"),
        ("fc", "its channels are the outputs of the network"),
        ("layer2.0.ad", "did you mean \"layer2.0.add\"?"),
    ] {
        let found = message(layer);
        assert!(found.contains("prune.layers: ") && found.contains(problem), "{found}");
    }
    let twice = residual().replace("\"layer2.0.conv1\"", "\"layer2.0.add\"");
    assert!(fixture.plan(&twice, "results").err().unwrap().to_string().contains("listed twice"));
}

#[test]
fn a_set_of_all_channels_of_a_stage_is_a_cell_without_a_cut_of_it() {
    let fixture = Fixture::new();
    let spec = residual().replace("[0.5]", "[0.5]\nlayer-rates = { \"layer2.0.add\" = 1.0 }");
    let study = fixture.run(&spec, "unbroken", &Silent).study;
    let cell = study.cells.iter().find(|cell| cell.method == "apoz").unwrap();
    assert_eq!(cell.kept["layer2.0.add"], ChannelSet::all(16).unwrap());
}
