//! The specs in `experiments/cifar10` cut the nets to the published widths and costs, and follow the published recipes.

use thinet_graph::Convention;
use thinet_graph::count;
use thinet_harness::study::{Options, ResolvedStudy};
use thinet_report::records::FROM_SCRATCH;

use crate::shipped_specs::project;

fn resolved(name: &str) -> ResolvedStudy {
    let file = project().join(format!("experiments/cifar10/cifar10-{name}.toml"));
    ResolvedStudy::without_data(&file, &Options::default()).unwrap().unwrap()
}

/// The channels kept of each layer at each keep rate, and the multiply-adds of the dense net over those left.
fn at_each_rate(study: &ResolvedStudy) -> Vec<(f64, Vec<usize>, f64)> {
    let mut found: Vec<(f64, Vec<usize>, f64)> = Vec::new();
    for cell in &study.cells {
        let kept = cell.keep.iter().map(|(_, kept)| *kept).collect();
        let row = (cell.keep_rate, kept, study.size.paper.macs as f64 / cell.size.paper.macs as f64);
        if found.iter().all(|(rate, ..)| *rate != cell.keep_rate) {
            found.push(row);
        } else {
            // All methods of a rate have the same widths.
            assert!(found.contains(&row), "{}", cell.label());
        }
    }
    found
}

/// The three stages of ResNet-56, `blocks` convolutions of each width.
fn stages(widths: [usize; 3]) -> Vec<usize> {
    widths.into_iter().flat_map(|width| [width; 9]).collect()
}

#[test]
fn resnet56_has_the_speed_ups_of_wang_et_al() {
    let study = resolved("resnet56-wang");
    let expected = [
        (0.7, [11, 22, 44], 1.45),
        (0.5, [8, 16, 32], 1.99),
        (0.3, [4, 9, 19], 3.59),
        (0.1, [1, 3, 6], 11.4),
    ];
    let found = at_each_rate(&study);
    assert_eq!(found.len(), expected.len());
    for ((rate, kept, speed_up), (expected_rate, widths, published)) in found.into_iter().zip(expected) {
        assert_eq!((rate, kept), (expected_rate, stages(widths)));
        // Their shortcuts hold no weights, ours are projections.
        assert!((speed_up / published - 1.0).abs() < 0.01, "{rate}: {speed_up}");
    }
    // The first convolution of each of the 27 blocks.
    assert_eq!(study.spec.prune.layers.len(), 27);
    assert!(study.spec.prune.layers.iter().all(|layer| layer.ends_with(".conv1")));
    let methods: Vec<String> =
        study.cells.iter().step_by(4 * 3).map(|cell| cell.method.selector.name()).collect();
    assert_eq!(methods, ["weight-sum-l1", "thinet", "apoz", "random", FROM_SCRATCH]);
}

#[test]
fn vgg16_a_has_the_widths_and_savings_of_li_et_al() {
    let study = resolved("vgg16-li");
    let [(rate, kept, _)] = &at_each_rate(&study)[..] else { panic!("one rate") };
    assert_eq!((*rate, kept.as_slice()), (0.5, &[32, 256, 256, 256, 256, 256, 256][..]));
    // conv1 and conv8 to conv13, in the order of the net.
    let convs: Vec<String> = (study.graph.tensors().into_iter())
        .filter_map(|tensor| tensor.name.strip_suffix(".weight").map(str::to_owned))
        .filter(|name| name.starts_with("conv"))
        .collect();
    let expected: Vec<&String> = [1, 8, 9, 10, 11, 12, 13].iter().map(|number| &convs[number - 1]).collect();
    assert_eq!(study.spec.prune.layers.iter().collect::<Vec<_>>(), expected);
    let [dense, pruned] = [&study.graph, &study.cells[0].graph].map(|graph| count(graph, Convention::Paper));
    let saved = |of: [u64; 2]| 100.0 * (1.0 - of[1] as f64 / of[0] as f64);
    let percent = [saved([dense.flops, pruned.flops]), saved([dense.params, pruned.params])];
    assert_eq!(percent.map(|value| format!("{value:.1}")), ["34.2", "64.3"]);
    // 3.13e8 and 2.06e8 multiply-adds, 1.5e7 and 5.3e6 parameters in their convolutions.
    assert_eq!((dense.macs, pruned.macs), (313_201_664, 206_146_048));
}

#[test]
fn resnet56_has_distillers_multiply_adds_to_the_last_one() {
    for (name, widths, published) in [
        ("resnet56-distiller-79m", [7, 16, 58, 45], 78_856_832),
        ("resnet56-distiller-68m", [5, 13, 52, 39], 67_797_632),
    ] {
        let study = resolved(name);
        assert_eq!(study.size.paper.macs, 125_747_840, "{name}");
        for cell in &study.cells {
            assert_eq!(cell.size.paper.macs, published, "{name}: {}", cell.label());
            for (layer, kept) in cell.keep.iter() {
                let expected = match layer.as_str() {
                    "layer3.1.conv1" => widths[2],
                    layer if layer.starts_with("layer1.") => widths[0],
                    layer if layer.starts_with("layer2.") => widths[1],
                    _ => widths[3],
                };
                assert_eq!(*kept, expected, "{name}: {layer}");
            }
        }
        let spared =
            ["layer2.0.conv1", "layer2.5.conv1", "layer2.8.conv1", "layer3.0.conv1", "layer3.4.conv1"];
        assert_eq!(study.spec.prune.layers.len() + spared.len(), 27);
        assert!(spared.iter().all(|layer| !study.spec.prune.layers.iter().any(|pruned| pruned == layer)));
        assert_eq!(study.spec.dataset.images(), Some([45_000, 10_000]));
    }
}

#[test]
fn rates_follow_the_published_schedules() {
    let [wang, li, distiller] = ["resnet56-wang", "vgg16-li", "resnet56-distiller-79m"].map(resolved);
    let rates = |study: &ResolvedStudy, tuning: bool, epochs: &[usize]| -> Vec<String> {
        let prune = &study.spec.prune;
        let recipe = if tuning { prune.after_last.as_ref() } else { study.spec.dense.train.as_ref() };
        let recipe = recipe.unwrap();
        let images = study.spec.dataset.images().unwrap()[0];
        let (total, epoch) = (recipe.total_steps(images), images / recipe.batch);
        // The last step of an epoch and the first of the next have the rates of their epochs.
        let rate = |step| format!("{:.5}", recipe.lr_at(step, total, epoch));
        let at = |&number: &usize| {
            let [first, last] = [number * epoch, (number + 1) * epoch - 1].map(rate);
            assert_eq!(first, last, "{} epoch {number}", study.spec.name);
            first
        };
        epochs.iter().map(at).collect()
    };
    for (study, tuning, epochs, expected) in [
        (&wang, false, [0, 99, 100, 149, 150], ["0.10000", "0.10000", "0.01000", "0.01000", "0.00100"]),
        (&wang, true, [0, 59, 60, 89, 90], ["0.01000", "0.01000", "0.00100", "0.00100", "0.00010"]),
        (&li, false, [0, 79, 80, 119, 120], ["0.10000", "0.10000", "0.01000", "0.01000", "0.00100"]),
        (&li, true, [0, 1, 2, 3, 39], ["0.00100"; 5]),
        (&distiller, false, [78, 79, 124, 168, 169], ["0.30000", "0.03000", "0.00300", "0.00300", "0.00030"]),
        (&distiller, true, [0, 9, 10, 11, 69], ["0.10000", "0.10000", "0.09500", "0.09025", "0.00461"]),
    ] {
        assert_eq!(rates(study, tuning, &epochs), expected, "{} {tuning}", study.spec.name);
    }
}
