//! The `figure4-flops` table: FLOPs at the ten keep rates of the CUB-200 figure (Luo et al. 2017, figure 4).

use polars::frame::DataFrame;
use thinet_graph::{Convention, Counts, count};
use thinet_nets::{Arch, NetSpec, vgg16_pruned_layers};

use super::frame::column;
use super::markdown::{Grid, grouped};
use super::{Table, TableError};
use crate::published::{Digits, Published};

/// Images and classes of CUB-200.
const INPUT: [usize; 3] = [3, 224, 224];
const CLASSES: usize = 200;

/// One line of the table.
struct Line {
    keep_rate: f64,
    counts: Counts,
    dense: Counts,
    published: Digits,
}

impl Line {
    /// FLOPs relative to the full net as in the authors' script: GFLOPs rounded to two decimals first, then their ratio, per cent,
    /// rounded to two decimals. Uses integers, so that the result does not depend on binary fractions.
    fn percent(&self) -> f64 {
        let centi_gflops = |counts: Counts| (counts.flops + 5_000_000) / 10_000_000;
        let (ours, full) = (centi_gflops(self.counts), centi_gflops(self.dense));
        let hundredths = (2 * 10_000 * ours + full) / (2 * full);
        hundredths as f64 / 100.0
    }

    fn exact_percent(&self) -> f64 {
        100.0 * self.counts.flops as f64 / self.dense.flops as f64
    }

    fn equal(&self) -> bool {
        self.published.equals_at_printed_digits(self.percent())
    }
}

/// FLOPs of VGG-16-GAP with 200 classes when the first ten convolutions keep 100 to 10 per cent of their filters.
///
/// # Errors
/// If the published numbers are inconsistent or the net cannot be built.
pub fn figure4_flops() -> Result<Table, TableError> {
    let published = Published::load()?;
    let figure = &published.figure4;
    let (full, layers) = (NetSpec::new(Arch::Vgg16Gap), vgg16_pruned_layers());
    let dense = count(&full.build(INPUT, CLASSES)?, Convention::Paper);
    let mut lines = Vec::new();
    for (&keep_rate, digits) in figure.keep_rates.iter().zip(&figure.flops_percent) {
        let pruned = full.at_keep_rate(INPUT, CLASSES, &layers, keep_rate)?;
        let counts = count(&pruned.build(INPUT, CLASSES)?, Convention::Paper);
        lines.push(Line { keep_rate, counts, dense, published: digits.clone() });
    }
    Ok(Table {
        name: "figure4-flops".to_owned(),
        title: format!("FLOPs at the keep rates of figure 4 ({}, VGG-16-GAP)", figure.data),
        frame: frame(&lines)?,
        grids: vec![grid(&lines)],
        notes: vec![
            "First ten convolutions pruned to floor(C·r) filters; 200 classes; convention `paper`.".to_owned(),
            "FLOPs, %: as the authors' script has it, GFLOPs rounded to two decimals before the division; exact: \
             not rounded before it."
                .to_owned(),
            format!(
                "Published numbers read in: {}.{}",
                published.source(&figure.source),
                if figure.verified { "" } else { " Unverified." }
            ),
        ],
        attachments: Vec::new(),
    })
}

fn frame(lines: &[Line]) -> Result<DataFrame, TableError> {
    let columns = vec![
        column("keep_rate", lines, |l| l.keep_rate),
        column("params", lines, |l| l.counts.params),
        column("flops", lines, |l| l.counts.flops),
        column("macs", lines, |l| l.counts.macs),
        column("flops_percent", lines, Line::percent),
        column("published_flops_percent", lines, |l| l.published.value()),
        column("equal_at_printed_digits", lines, Line::equal),
        column("exact_flops_percent", lines, Line::exact_percent),
    ];
    Ok(DataFrame::new(lines.len(), columns)?)
}

fn grid(lines: &[Line]) -> Grid {
    let headings =
        ["keep rate", "params", "FLOPs, B", "FLOPs, %", "published, %", "exact, %", "<digits equal"];
    let mut grid = Grid::new("", &headings);
    for line in lines {
        grid.rows.push(vec![
            format!("{:.1}", line.keep_rate),
            grouped(line.counts.params),
            format!("{:.3}", line.counts.flops as f64 / 1e9),
            format!("{:.2}", line.percent()),
            line.published.printed().to_owned(),
            format!("{:.4}", line.exact_percent()),
            if line.equal() { "yes" } else { "NO" }.to_owned(),
        ]);
    }
    grid
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_ten_rates_equal_the_published_percentages() {
        let table = figure4_flops().unwrap();
        let percent: Vec<f64> =
            table.frame.column("flops_percent").unwrap().f64().unwrap().into_no_null_iter().collect();
        assert_eq!(percent, [100.0, 82.01, 66.37, 52.39, 40.37, 30.43, 21.70, 15.09, 10.23, 7.23]);
        let equal = table.frame.column("equal_at_printed_digits").unwrap().bool().unwrap().all();
        assert!(equal);
    }

    #[test]
    fn the_markdown_is_pinned() {
        insta::assert_snapshot!(figure4_flops().unwrap().markdown());
    }

    #[test]
    fn other_digits_than_the_published_ones_are_not_called_equal() {
        let published = Published::load().unwrap().figure4.flops_percent;
        let counts = |flops: u64| Counts { params: 1, macs: flops / 2, flops };
        // 82.01 % of 10 GFLOPs, of which the script's rounding makes 82.00.
        let line = |flops| Line {
            keep_rate: 0.9,
            counts: counts(flops),
            dense: counts(10_000_000_000),
            published: published[1].clone(),
        };
        assert_eq!(published[1].printed(), "82.01");
        assert!(!line(8_201_000_000).equal() && !line(8_190_000_000).equal());
        let exact = Line { dense: counts(100_000_000_000), ..line(82_010_000_000) };
        assert!(exact.equal());
    }
}
