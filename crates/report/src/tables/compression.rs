//! The `compression` table: sizes and costs of the paper's eight models beside the printed ones (Luo et al. 2017,
//! tables 1 and 3).

use polars::frame::DataFrame;
use thinet_graph::{Convention, Counts, count};
use thinet_nets::{Arch, NetSpec, PaperModel, ResNetStride, paper_models};

use super::frame::column;
use super::markdown::{Grid, grouped};
use super::notes::sources_note;
use super::{Table, TableError};
use crate::published::{Compression, Figure, Published};

/// Counting convention, and position of the stride in ResNets with its name.
const VARIANTS: [(Convention, ResNetStride, &str); 3] = [
    (Convention::Paper, ResNetStride::First1x1, "1x1"),
    (Convention::AllParameters, ResNetStride::First1x1, "1x1"),
    (Convention::AllParameters, ResNetStride::Middle3x3, "3x3"),
];

/// One line of the table.
struct Line<'a> {
    model: &'a str,
    convention: Convention,
    stride: Option<&'static str>,
    counts: Counts,
    dense: Counts,
    /// Only under the paper's convention.
    published: Option<&'a Compression>,
}

impl Line<'_> {
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
        let Compression { params_m, flops_b, .. } = self.published?;
        Some((relative(self.params_m(), params_m), relative(self.flops_b(), flops_b)))
    }

    fn equal_at_printed_digits(&self) -> Option<bool> {
        let Compression { params_m, flops_b, .. } = self.published?;
        let params_equal = params_m.printed.equals_at_printed_digits(self.params_m());
        Some(params_equal && flops_b.printed.equals_at_printed_digits(self.flops_b()))
    }
}

/// Sizes and costs of the paper's eight models under both conventions, published values beside ours.
///
/// ResNet-50 is listed with its stride in the first 1×1 convolution (the paper's Caffe net) and, under `all-parameters`,
/// also with the stride in the 3×3 convolution (torchvision's net).
///
/// # Errors
/// If the published numbers are inconsistent or a model cannot be built.
pub fn compression() -> Result<Table, TableError> {
    compression_beside(&Published::load()?)
}

fn compression_beside(published: &Published) -> Result<Table, TableError> {
    let lines = lines(published)?;
    Ok(Table {
        name: "compression".to_owned(),
        title: "Sizes and costs of the paper's models, ImageNet".to_owned(),
        frame: frame(&lines)?,
        grids: vec![beside_published(&lines), all_counts(&lines)],
        notes: notes(&lines, published),
        attachments: Vec::new(),
    })
}

/// The models in the order of the paper, each with all its variants.
fn lines(published: &Published) -> Result<Vec<Line<'_>>, TableError> {
    let mut placed = Vec::new();
    for (convention, stride, stride_name) in VARIANTS {
        for (place, model) in paper_models(stride)?.into_iter().enumerate() {
            let is_resnet = model.spec.arch == Arch::Resnet50;
            if stride == ResNetStride::Middle3x3 && !is_resnet {
                continue;
            }
            let figures = published.compression(model.name)?;
            let line = Line {
                model: &figures.name,
                convention,
                stride: is_resnet.then_some(stride_name),
                counts: count(&model.build()?, convention),
                dense: count(&dense_of(&model).build()?, convention),
                published: (convention == Convention::Paper).then_some(figures),
            };
            placed.push((place, line));
        }
    }
    placed.sort_by_key(|&(place, _)| place);
    Ok(placed.into_iter().map(|(_, line)| line).collect())
}

/// The reference net of ratios: the dense VGG-16 or ResNet-50.
fn dense_of(model: &PaperModel) -> PaperModel {
    let arch = if model.spec.arch == Arch::Vgg16Gap { Arch::Vgg16 } else { model.spec.arch };
    PaperModel { name: model.name, spec: NetSpec { stride: model.spec.stride, ..NetSpec::new(arch) } }
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
        column("published_params_m", lines, |l| l.published.map(|p| p.params_m.printed.value())),
        column("published_flops_b", lines, |l| l.published.map(|p| p.flops_b.printed.value())),
        column("params_difference_percent", lines, |l| l.differences().map(|d| d.0)),
        column("flops_difference_percent", lines, |l| l.differences().map(|d| d.1)),
        column("equal_at_printed_digits", lines, Line::equal_at_printed_digits),
        column("published_verified", lines, |l| l.published.map(is_verified)),
    ];
    Ok(DataFrame::new(lines.len(), columns)?)
}

fn beside_published(lines: &[Line]) -> Grid {
    let headings =
        ["<model", "params, M", "published", "diff, %", "FLOPs, B", "published", "diff, %", "<digits equal"];
    let mut grid = Grid::new("Ours beside the published numbers (convention `paper`)", &headings);
    for line in lines {
        let (Some(published), Some((params_off, flops_off))) = (line.published, line.differences()) else {
            continue;
        };
        grid.rows.push(vec![
            line.model.to_owned(),
            format!("{:.3}", line.params_m()),
            shown(&published.params_m),
            format!("{params_off:+.2}"),
            format!("{:.3}", line.flops_b()),
            shown(&published.flops_b),
            format!("{flops_off:+.2}"),
            if line.equal_at_printed_digits() == Some(true) { "yes" } else { "NO" }.to_owned(),
        ]);
    }
    grid
}

fn is_verified(published: &Compression) -> bool {
    published.params_m.verified && published.flops_b.verified
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
    let figures = lines.iter().filter_map(|l| l.published).flat_map(|p| [&p.params_m, &p.flops_b]);
    notes.extend(sources_note(published, figures));
    if !lines.iter().filter_map(|l| l.published).all(is_verified) {
        notes.push("Unverified: recalled from the paper, no source opened.".to_owned());
    }
    notes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> (Table, Vec<(String, String, Option<String>)>) {
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
        let (table, keys) = table();
        let equal = table.frame.column("equal_at_printed_digits").unwrap();
        let equal = equal.bool().unwrap();
        let rows = table.rows().unwrap();
        for (row, (model, convention, _)) in keys.iter().enumerate() {
            let expected = (convention == "paper").then_some(true);
            assert_eq!(equal.get(row), expected, "{model} under {convention}");
            assert_eq!(
                (&rows[row]["model"], &rows[row]["params"]),
                (&model.as_str().into(), &number(&table, "params", row).into())
            );
        }
        assert_eq!(rows.len(), keys.len());
        assert_eq!(equal.iter().flatten().count(), 8);
        assert_eq!(keys.len(), 4 * 2 + 4 * 3);
    }

    #[test]
    fn counts_are_the_known_ones_under_both_conventions() {
        let (table, keys) = table();
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
        let row =
            keys.iter().position(|key| key.0 == "ResNet-50" && key.2.as_deref() == Some("3x3")).unwrap();
        assert_eq!(number(&table, "macs", row), 4_089_184_256);
    }

    #[test]
    fn ratios_are_against_the_dense_net_of_the_family() {
        let (table, keys) = table();
        let row = keys.iter().position(|key| key.0 == "ThiNet-GAP" && key.1 == "paper").unwrap();
        let ratio = |name: &str| table.frame.column(name).unwrap().f64().unwrap().get(row).unwrap();
        // The paper prints 16.63× and 3.31×, from its rounded numbers.
        assert!((ratio("times_fewer_params") - 16.63).abs() < 0.01);
        assert!((ratio("times_fewer_flops") - 3.31).abs() < 0.01);
    }

    #[test]
    fn the_markdown_is_pinned() {
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
    fn digits_are_equal_only_if_those_of_both_numbers_are() {
        let published = Published::load().unwrap();
        let equal = |published: &Published| {
            let table = compression_beside(published).unwrap();
            let equal = table.frame.column("equal_at_printed_digits").unwrap().bool().unwrap();
            (equal.get(0), table.grids[0].rows[0][7].clone())
        };
        assert_eq!(equal(&published), (Some(true), "yes".to_owned()));
        let others = [&published.compression[1].params_m, &published.compression[1].flops_b]
            .map(|f| f.printed.clone());
        let [mut params, mut flops] = [published.clone(), published];
        params.compression[0].params_m.printed = others[0].clone();
        flops.compression[0].flops_b.printed = others[1].clone();
        for altered in [&params, &flops] {
            assert_eq!(equal(altered), (Some(false), "NO".to_owned()));
        }
    }
}
