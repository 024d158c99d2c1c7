//! The `compression` table: sizes and costs of the paper's eight models beside the printed ones (Luo et al. 2017,
//! tables 1 and 3).

use polars::frame::DataFrame;
use thinet_graph::{ChannelSet, Convention, Counts, Graph, count, kept_channels, plan_surgery, prunable_layers};
use thinet_models::{Arch, NetSpec, ResNetStride};

use super::frame::column;
use super::markdown::{Grid, grouped};
use super::{Table, TableError};
use crate::published::{Figure, Published};

/// Widths of the 13 convolutions of ThiNet-Tiny, from the authors' released model.
const TINY: [usize; 13] = [16, 16, 32, 32, 64, 64, 64, 128, 128, 128, 128, 128, 256];

/// How many of VGG-16's convolutions the paper prunes: conv1_1 to conv4_3.
pub(super) const VGG_PRUNED: usize = 10;

/// ImageNet's images and classes.
const INPUT: [usize; 3] = [3, 224, 224];
const CLASSES: usize = 1000;

/// What is cut from a dense net.
#[derive(Clone, Copy)]
enum Widths {
    Dense,
    /// The first so many prunable layers keep floor(C·r) channels.
    First(usize, f64),
    /// Every prunable layer keeps floor(C·r) channels.
    Every(f64),
    /// As many channels as listed stay in each prunable layer.
    Listed(&'static [usize]),
}

/// The paper's models: name, the dense net it is cut from, the net that ratios refer to, what is cut.
const MODELS: [(&str, Arch, Arch, Widths); 8] = [
    ("VGG-16", Arch::Vgg16, Arch::Vgg16, Widths::Dense),
    ("ThiNet-Conv", Arch::Vgg16, Arch::Vgg16, Widths::First(VGG_PRUNED, 0.5)),
    ("ThiNet-GAP", Arch::Vgg16Gap, Arch::Vgg16, Widths::First(VGG_PRUNED, 0.5)),
    ("ThiNet-Tiny", Arch::Vgg16Gap, Arch::Vgg16, Widths::Listed(&TINY)),
    ("ResNet-50", Arch::Resnet50, Arch::Resnet50, Widths::Dense),
    ("ThiNet-70", Arch::Resnet50, Arch::Resnet50, Widths::Every(0.7)),
    ("ThiNet-50", Arch::Resnet50, Arch::Resnet50, Widths::Every(0.5)),
    ("ThiNet-30", Arch::Resnet50, Arch::Resnet50, Widths::Every(0.3)),
];

/// One line of the table.
struct Line {
    model: &'static str,
    convention: Convention,
    stride: Option<&'static str>,
    counts: Counts,
    dense: Counts,
    /// Only under the paper's convention.
    published: Option<(Figure, Figure)>,
}

impl Line {
    fn params_m(&self) -> f64 {
        self.counts.params as f64 / 1e6
    }

    fn flops_b(&self) -> f64 {
        self.counts.flops as f64 / 1e9
    }

    fn fewer_params(&self) -> f64 {
        self.dense.params as f64 / self.counts.params as f64
    }

    fn fewer_flops(&self) -> f64 {
        self.dense.flops as f64 / self.counts.flops as f64
    }

    /// (ours − published) / published of parameters and FLOPs, per cent.
    fn differences(&self) -> Option<(f64, f64)> {
        let relative = |ours: f64, figure: &Figure| {
            let published = figure.printed.value();
            100.0 * (ours - published) / published
        };
        let (params, flops) = self.published.as_ref()?;
        Some((relative(self.params_m(), params), relative(self.flops_b(), flops)))
    }

    fn equal_at_printed_digits(&self) -> Option<bool> {
        let (params, flops) = self.published.as_ref()?;
        let params_equal = params.printed.equals_at_printed_digits(self.params_m());
        Some(params_equal && flops.printed.equals_at_printed_digits(self.flops_b()))
    }
}

/// Sizes and costs of the paper's eight models under both conventions, published values beside ours.
///
/// ResNet-50 stands with its stride in the first 1×1 convolution (the paper's Caffe net) and, under `all-parameters`,
/// also with the stride in the 3×3 convolution (torchvision's net).
///
/// # Errors
/// If the published numbers are inconsistent or a model cannot be built.
pub fn compression() -> Result<Table, TableError> {
    compression_beside(&Published::load()?)
}

fn compression_beside(published: &Published) -> Result<Table, TableError> {
    let mut lines = Vec::new();
    for (model, arch, family, widths) in MODELS {
        let figures = published.compression(model)?;
        let variants: &[(Convention, Option<ResNetStride>)] = if arch == Arch::Resnet50 {
            &[
                (Convention::Paper, Some(ResNetStride::OneByOne)),
                (Convention::AllParameters, Some(ResNetStride::OneByOne)),
                (Convention::AllParameters, Some(ResNetStride::ThreeByThree)),
            ]
        } else {
            &[(Convention::Paper, None), (Convention::AllParameters, None)]
        };
        for &(convention, stride) in variants {
            let graph = cut_to(model, dense_graph(arch, stride, CLASSES)?, widths)?;
            let of_paper = convention == Convention::Paper;
            lines.push(Line {
                model,
                convention,
                stride: stride.map(stride_name),
                counts: count(&graph, convention),
                dense: count(&dense_graph(family, stride, CLASSES)?, convention),
                published: of_paper.then(|| (figures.params_m.clone(), figures.flops_b.clone())),
            });
        }
    }
    Ok(Table {
        name: "compression".to_owned(),
        title: "Sizes and costs of the paper's models, ImageNet".to_owned(),
        frame: frame(&lines)?,
        grids: vec![beside_published(&lines), all_counts(&lines)],
        notes: notes(&lines, published),
        attachments: Vec::new(),
    })
}

/// A dense net at ImageNet's image size.
pub(super) fn dense_graph(
    arch: Arch,
    stride: Option<ResNetStride>,
    classes: usize,
) -> Result<Graph, TableError> {
    let mut spec = NetSpec::new(arch);
    spec.stride = stride;
    Ok(spec.build(INPUT, classes)?)
}

/// The dense net with its first `pruned` prunable layers at floor(C·r) channels.
pub(super) fn at_keep_rate(graph: Graph, pruned: usize, rate: f64) -> Result<Graph, TableError> {
    cut_to("the net", graph, Widths::First(pruned, rate))
}

/// Counts depend on how many channels stay, not on which: the first ones do here.
fn cut_to(model: &str, mut graph: Graph, widths: Widths) -> Result<Graph, TableError> {
    let layers = prunable_layers(&graph);
    let expected = match widths {
        Widths::Dense => 0,
        Widths::First(pruned, _) => pruned,
        Widths::Every(_) => layers.len(),
        Widths::Listed(kept) => kept.len(),
    };
    if expected > layers.len() {
        return Err(TableError::PrunableLayers { model: model.to_owned(), found: layers.len(), expected });
    }
    for (at, layer) in layers.iter().take(expected).enumerate() {
        let kept = match widths {
            Widths::Dense => layer.channels,
            Widths::First(_, rate) | Widths::Every(rate) => kept_channels(&layer.name, layer.channels, rate)?,
            Widths::Listed(kept) => kept[at],
        };
        let keep = ChannelSet::new(layer.channels, (0..kept).collect())?;
        graph = plan_surgery(&graph, &layer.name, &keep)?.graph;
    }
    Ok(graph)
}

fn stride_name(stride: ResNetStride) -> &'static str {
    match stride {
        ResNetStride::OneByOne => "1x1",
        ResNetStride::ThreeByThree => "3x3",
    }
}

fn frame(lines: &[Line]) -> Result<DataFrame, TableError> {
    let columns = vec![
        column("model", lines, |l| l.model),
        column("convention", lines, |l| l.convention.to_string()),
        column("stride", lines, |l| l.stride),
        column("params", lines, |l| l.counts.params),
        column("flops", lines, |l| l.counts.flops),
        column("macs", lines, |l| l.counts.macs),
        column("mib", lines, |l| l.counts.mib()),
        column("times_fewer_params", lines, Line::fewer_params),
        column("times_fewer_flops", lines, Line::fewer_flops),
        column("published_params_m", lines, |l| l.published.as_ref().map(|p| p.0.printed.value())),
        column("published_flops_b", lines, |l| l.published.as_ref().map(|p| p.1.printed.value())),
        column("params_difference_percent", lines, |l| l.differences().map(|d| d.0)),
        column("flops_difference_percent", lines, |l| l.differences().map(|d| d.1)),
        column("equal_at_printed_digits", lines, Line::equal_at_printed_digits),
        column("published_verified", lines, |l| l.published.as_ref().map(|p| p.0.verified && p.1.verified)),
    ];
    Ok(DataFrame::new(lines.len(), columns)?)
}

fn beside_published(lines: &[Line]) -> Grid {
    let headings =
        ["<model", "params, M", "published", "diff, %", "FLOPs, B", "published", "diff, %", "<digits equal"];
    let mut grid = Grid::new("Ours beside the published numbers (convention `paper`)", &headings);
    for line in lines {
        let (Some((params, flops)), Some((params_off, flops_off))) = (&line.published, line.differences()) else {
            continue;
        };
        grid.rows.push(vec![
            line.model.to_owned(),
            format!("{:.3}", line.params_m()),
            shown(params),
            format!("{params_off:+.2}"),
            format!("{:.3}", line.flops_b()),
            shown(flops),
            format!("{flops_off:+.2}"),
            if line.equal_at_printed_digits() == Some(true) { "yes" } else { "NO" }.to_owned(),
        ]);
    }
    grid
}

fn shown(figure: &Figure) -> String {
    let label = if figure.verified { "" } else { " (unverified)" };
    format!("{}{label}", figure.printed.printed())
}

fn all_counts(lines: &[Line]) -> Grid {
    let headings = [
        "<model",
        "<convention",
        "<stride",
        "params",
        "MACs",
        "FLOPs, B",
        "MiB",
        "params, × fewer",
        "FLOPs, × fewer",
    ];
    let mut grid = Grid::new("Both conventions", &headings);
    for line in lines {
        grid.rows.push(vec![
            line.model.to_owned(),
            line.convention.to_string(),
            line.stride.unwrap_or_default().to_owned(),
            grouped(line.counts.params),
            grouped(line.counts.macs),
            format!("{:.3}", line.flops_b()),
            format!("{:.2}", line.counts.mib()),
            format!("{:.2}", line.fewer_params()),
            format!("{:.2}", line.fewer_flops()),
        ]);
    }
    grid
}

fn notes(lines: &[Line], published: &Published) -> Vec<String> {
    let mut notes = vec![
        "Convention `paper` (the authors' counter): weights without biases, 2·C values per batch norm; FLOPs are \
         2 × multiply-adds of convolutions and linear layers plus 4·C per batch norm."
            .to_owned(),
        "Convention `all-parameters`: every value that is trained; FLOPs are 2 × multiply-adds.".to_owned(),
        "Stride: where ResNet-50 halves the map, in a block's first 1×1 convolution (the paper's Caffe net) or in \
         its 3×3 convolution (torchvision)."
            .to_owned(),
        "1 MiB is 2^20 bytes; parameters are 32-bit floats. × fewer: against the dense VGG-16 or ResNet-50 of the \
         same convention and stride."
            .to_owned(),
    ];
    let mut sources: Vec<&str> = Vec::new();
    for (params, flops) in lines.iter().filter_map(|l| l.published.as_ref()) {
        for figure in [params, flops] {
            let source = published.source(&figure.source);
            if !sources.contains(&source) {
                sources.push(source);
            }
        }
    }
    notes.push(format!("Published numbers read in: {}.", sources.join("; ")));
    if lines.iter().filter_map(|l| l.published.as_ref()).any(|(p, f)| !(p.verified && f.verified)) {
        notes.push("Unverified: recalled from the paper, no source opened.".to_owned());
    }
    notes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines() -> (Table, Vec<(String, String, Option<String>)>) {
        let table = compression().unwrap();
        let text = |name: &str, row: usize| {
            table.frame.column(name).unwrap().str().unwrap().get(row).map(str::to_owned)
        };
        let keys = (0..table.frame.height())
            .map(|r| (text("model", r).unwrap(), text("convention", r).unwrap(), text("stride", r)))
            .collect();
        (table, keys)
    }

    fn number(table: &Table, name: &str, row: usize) -> u64 {
        table.frame.column(name).unwrap().u64().unwrap().get(row).unwrap()
    }

    #[test]
    fn all_eight_models_equal_the_printed_digits() {
        let (table, keys) = lines();
        let equal = table.frame.column("equal_at_printed_digits").unwrap();
        let equal = equal.bool().unwrap();
        for (row, (model, convention, _)) in keys.iter().enumerate() {
            let expected = (convention == "paper").then_some(true);
            assert_eq!(equal.get(row), expected, "{model} under {convention}");
        }
        assert_eq!(equal.into_iter().flatten().count(), 8);
        assert_eq!(keys.len(), 4 * 2 + 4 * 3);
    }

    #[test]
    fn counts_are_the_known_ones_under_both_conventions() {
        let (table, keys) = lines();
        let torch = [
            ("VGG-16", None, 138_357_544, 15_470),
            ("ThiNet-Conv", None, 131_452_552, 4_791),
            ("ThiNet-GAP", None, 8_322_696, 4_668),
            ("ThiNet-Tiny", None, 1_325_368, 1_005),
            ("ResNet-50", Some("3x3"), 25_557_032, 4_089),
            ("ThiNet-70", Some("3x3"), 16_945_246, 2_601),
            ("ThiNet-50", Some("3x3"), 12_381_864, 1_822),
            ("ThiNet-30", Some("3x3"), 8_665_318, 1_166),
        ];
        for (model, stride, params, mega_macs) in torch {
            let wanted = (model.to_owned(), "all-parameters".to_owned(), stride.map(str::to_owned));
            let row = keys.iter().position(|key| *key == wanted).unwrap();
            assert_eq!(number(&table, "params", row), params, "{model}");
            assert_eq!((number(&table, "macs", row) + 500_000) / 1_000_000, mega_macs, "{model}");
        }
        let row = keys.iter().position(|key| key.0 == "ResNet-50" && key.2.as_deref() == Some("3x3")).unwrap();
        assert_eq!(number(&table, "macs", row), 4_089_184_256);
    }

    #[test]
    fn ratios_are_against_the_dense_net_of_the_family() {
        let (table, keys) = lines();
        let row = keys.iter().position(|key| key.0 == "ThiNet-GAP" && key.1 == "paper").unwrap();
        let ratio = |name: &str| table.frame.column(name).unwrap().f64().unwrap().get(row).unwrap();
        // The paper prints 16.63× and 3.31×, from its rounded numbers.
        assert!((ratio("times_fewer_params") - 16.63).abs() < 0.01);
        assert!((ratio("times_fewer_flops") - 3.31).abs() < 0.01);
    }

    #[test]
    fn the_markdown_stays_as_it_is() {
        insta::assert_snapshot!(compression().unwrap().markdown());
    }

    #[test]
    fn an_unverified_number_is_labelled() {
        let mut published = Published::load().unwrap();
        let clean = compression_beside(&published).unwrap().markdown();
        assert!(!clean.to_lowercase().contains("unverified"));
        published.compression[2].flops_b.verified = false;
        let labelled = compression_beside(&published).unwrap().markdown();
        assert!(labelled.contains("9.34 (unverified)") && labelled.contains("Unverified: recalled"));
    }

    #[test]
    fn a_net_with_too_few_prunable_layers_is_refused() {
        let vgg = dense_graph(Arch::Vgg16, None, 10).unwrap();
        let error = at_keep_rate(vgg, 99, 0.5).unwrap_err().to_string();
        assert!(error.contains("prunable layers, the paper's model prunes 99"), "{error}");
    }
}
