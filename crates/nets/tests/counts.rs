//! The eight networks of the paper count to the printed digits (fact sheet of the paper's tables 1 and 3).

#![allow(clippy::unwrap_used, reason = "a test that cannot go on may panic")]

use thinet_graph::{Convention, Graph, count};
use thinet_nets::{PaperModel, ResNetStride, paper_models};

/// Name, parameters in millions and FLOPs in billions as printed, parameters in torch.
const PRINTED: [(&str, &str, &str, u64); 8] = [
    ("vgg16", "138.34", "30.94", 138_357_544),
    ("thinet-conv", "131.44", "9.58", 131_452_552),
    ("thinet-gap", "8.32", "9.34", 8_322_696),
    ("thinet-tiny", "1.32", "2.01", 1_325_368),
    ("resnet50", "25.56", "7.72", 25_557_032),
    ("thinet-70", "16.94", "4.88", 16_945_246),
    ("thinet-50", "12.38", "3.41", 12_381_864),
    ("thinet-30", "8.66", "2.20", 8_665_318),
];

/// Multiply-adds in billions with torchvision's stride.
const TORCH_GMACS: [&str; 8] = ["15.470", "4.791", "4.668", "1.005", "4.089", "2.601", "1.822", "1.166"];

fn graphs(stride: ResNetStride) -> Vec<(PaperModel, Graph)> {
    let models = paper_models(stride).unwrap().into_iter();
    models.map(|model| (model.clone(), model.build().unwrap())).collect()
}

#[test]
fn the_papers_convention_gives_the_printed_digits() {
    for ((model, graph), (name, params, flops, _)) in graphs(ResNetStride::First1x1).iter().zip(PRINTED) {
        let counts = count(graph, Convention::Paper);
        assert_eq!(model.name, name);
        assert_eq!(format!("{:.2}", counts.params as f64 / 1e6), params, "{name}");
        assert_eq!(format!("{:.2}", counts.flops as f64 / 1e9), flops, "{name}");
    }
}

#[test]
fn all_parameters_and_torchvisions_stride_give_torchs_numbers() {
    let graphs = graphs(ResNetStride::Middle3x3);
    for ((model, graph), ((_, _, _, params), gmacs)) in graphs.iter().zip(PRINTED.iter().zip(TORCH_GMACS)) {
        let counts = count(graph, Convention::AllParameters);
        assert_eq!(counts.params, *params, "{}", model.name);
        assert_eq!(format!("{:.3}", counts.macs as f64 / 1e9), gmacs, "{}", model.name);
        assert_eq!(counts.flops, 2 * counts.macs);
    }
    assert_eq!(count(&graphs[4].1, Convention::AllParameters).macs, 4_089_184_256);
}
