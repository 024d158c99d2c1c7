//! How much the draw of a calibration sample alone matters: the spread of top-1 over the draws of samples of one size on the same dense
//! net, beside that over nets. For studies whose variants repeat a sample with other values of `calibration.draw`.

use polars::frame::DataFrame;
use thinet_metrics::{mean, pooled_std, sample_std};

use super::comparison::word;
use super::frame::column;
use super::lines::{Line, heading, in_order, phases_shown, tested};
use super::markdown::Grid;
use super::notes::{origin, test_images};
use super::{DRAWS, Table, TableError};
use crate::records::{FROM_SCRATCH, Phase, StudyRecord, VariantRecord};

/// What the variants of one row have in common: all but the draw.
#[derive(Clone, Copy, PartialEq)]
struct Sample<'a> {
    images_per_class: u64,
    positions_per_image: u64,
    /// What they override besides the sample.
    others: &'a str,
}

impl<'a> Sample<'a> {
    fn of(variant: &'a VariantRecord) -> Self {
        let sample = variant.sample;
        Self {
            images_per_class: sample.images_per_class,
            positions_per_image: sample.positions_per_image,
            others: &variant.others,
        }
    }
}

/// A method at a keep rate after a phase, over the draws of one sample.
struct Spread<'a> {
    sample: Sample<'a>,
    method: &'a str,
    keep_rate: f64,
    phase: Phase,
    /// Top-1 of the draws of each net; nets without a value are left out.
    nets: Vec<Vec<f64>>,
}

impl Spread<'_> {
    fn means(&self) -> Vec<f64> {
        self.nets.iter().filter_map(|draws| mean(draws)).collect()
    }

    fn fewest_draws(&self) -> u64 {
        self.nets.iter().map(Vec::len).min().unwrap_or(0) as u64
    }

    fn most_draws(&self) -> u64 {
        self.nets.iter().map(Vec::len).max().unwrap_or(0) as u64
    }

    /// `6 draws of each of 3 nets`, and `1 to 6 draws of 3 nets` where they have not as many.
    fn n(&self) -> String {
        let nets = match self.nets.len() {
            1 => "1 net".to_owned(),
            nets => format!("{nets} nets"),
        };
        match (self.fewest_draws(), self.most_draws()) {
            (least, most) if least < most => format!("{least} to {most} draws of {nets}"),
            (_, most) if self.nets.len() == 1 => format!("{most} draws of {nets}"),
            (_, most) => format!("{most} draws of each of {nets}"),
        }
    }

    fn all(&self) -> impl Iterator<Item = f64> {
        self.nets.iter().flatten().copied()
    }

    fn min(&self) -> f64 {
        self.all().fold(f64::INFINITY, f64::min)
    }

    fn max(&self) -> f64 {
        self.all().fold(f64::NEG_INFINITY, f64::max)
    }

    /// Highest less lowest of the net where that is the most.
    fn widest(&self) -> f64 {
        let range = |draws: &Vec<f64>| {
            let (low, high) = draws
                .iter()
                .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), &v| (low.min(v), high.max(v)));
            high - low
        };
        self.nets.iter().map(range).fold(0.0, f64::max)
    }
}

/// By keep rate, phase, sample and method, each in the order of the study; those that no net has two draws of are left out.
fn spreads<'a>(study: &'a StudyRecord, lines: &[Line<'a>]) -> Vec<Spread<'a>> {
    let cells: Vec<&Line> =
        lines.iter().filter(|line| !line.is_dense() && line.cell.selector != FROM_SCRATCH).collect();
    let samples = in_order(&study.variants, Sample::of);
    let variant_of = |line: &Line| {
        let name = line.cell.variant.as_deref();
        study.variants.iter().find(|variant| name == Some(&variant.name))
    };
    let methods = in_order(&cells, |line| line.cell.method.as_str());
    let seeds = in_order(&cells, |line| line.cell.seed);
    let mut all = Vec::new();
    for keep_rate in in_order(&cells, |line| line.cell.keep_rate) {
        for phase in phases_shown(lines) {
            for &sample in &samples {
                for &method in &methods {
                    let is_here = |line: &&&Line| {
                        (line.cell.keep_rate, line.cell.method.as_str()) == (keep_rate, method)
                            && variant_of(line).map(Sample::of) == Some(sample)
                    };
                    let of_net = |&seed: &u64| -> Vec<f64> {
                        let of_seed = cells.iter().filter(is_here).filter(|line| line.cell.seed == seed);
                        // A draw that two variants name counts once.
                        let (mut drawn, mut values) = (Vec::new(), Vec::new());
                        for line in of_seed {
                            let draw = variant_of(line).map(|variant| variant.sample.draw);
                            if let Some(top1) = line.at(phase).top1.filter(|_| !drawn.contains(&draw)) {
                                drawn.push(draw);
                                values.push(top1);
                            }
                        }
                        values
                    };
                    let nets: Vec<Vec<f64>> =
                        seeds.iter().map(of_net).filter(|draws| !draws.is_empty()).collect();
                    if nets.iter().any(|draws| draws.len() > 1) {
                        all.push(Spread { sample, method, keep_rate, phase, nets });
                    }
                }
            }
        }
    }
    all
}

/// The spread over draws; `None` if no two variants differ in the draw alone, or no two such cells are measured.
pub(super) fn draws(study: &StudyRecord, lines: &[Line]) -> Result<Option<Table>, TableError> {
    if study.variants.iter().all(|variant| variant.sample.draw == study.variants[0].sample.draw) {
        return Ok(None);
    }
    let all = spreads(study, lines);
    if all.is_empty() {
        return Ok(None);
    }
    let columns = vec![
        column("keep_rate", &all, |s| s.keep_rate),
        column("stage", &all, |s| s.phase.name()),
        column("images_per_class", &all, |s| s.sample.images_per_class),
        column("positions_per_image", &all, |s| s.sample.positions_per_image),
        column("others", &all, |s| s.sample.others),
        column("method", &all, |s| s.method),
        column("nets", &all, |s| s.nets.len() as u64),
        column("draws_least", &all, Spread::fewest_draws),
        column("draws_most", &all, Spread::most_draws),
        column("top1_mean", &all, |s| mean(&s.means())),
        column("draws_std", &all, |s| pooled_std(&s.nets)),
        column("nets_std", &all, |s| sample_std(&s.means())),
        column("top1_min", &all, Spread::min),
        column("top1_max", &all, Spread::max),
        column("widest", &all, Spread::widest),
        column("experiment", &all, |_| study.name.as_str()),
        column("dataset", &all, |_| study.dataset.as_str()),
        column("net", &all, |_| study.net.as_str()),
    ];
    let mut notes = vec![
        origin(study),
        format!(
            "Top-1 in per cent of the {}. ± draws: sample standard deviation over the draws of a sample on one dense net, pooled over \
             the nets; ± nets: that of the nets' means. Lowest and highest: of all draws and nets; widest: highest less lowest of one \
             net, where that is the most.",
            test_images(tested(lines))
        ),
    ];
    notes.extend(study.left_out());
    Ok(Some(Table {
        name: format!("{}{DRAWS}", study.table),
        title: format!("Spread over calibration draws on {}, {}", study.dataset, study.net),
        frame: DataFrame::new(all.len(), columns)?,
        grids: grids(&all),
        notes,
        attachments: Vec::new(),
    }))
}

/// One for each keep rate and phase.
fn grids(all: &[Spread]) -> Vec<Grid> {
    let has_others = all.iter().any(|spread| !spread.sample.others.is_empty());
    let others: &[&str] = if has_others { &["<also"] } else { &[] };
    let mut grids = Vec::new();
    for (keep_rate, phase) in in_order(all, |spread| (spread.keep_rate, spread.phase)) {
        let headings = [
            &["images a class", "positions an image"],
            others,
            &["<method", heading(phase), "± draws", "± nets", "lowest", "highest", "widest", "<n"],
        ]
        .concat();
        let mut grid = Grid::new(format!("{}, keep rate {keep_rate}", word(phase)), &headings);
        for spread in all.iter().filter(|spread| (spread.keep_rate, spread.phase) == (keep_rate, phase)) {
            let shown = |value: Option<f64>| value.map_or_else(String::new, |value| format!("{value:.2}"));
            let mut row = vec![
                spread.sample.images_per_class.to_string(),
                spread.sample.positions_per_image.to_string(),
            ];
            if has_others {
                row.push(spread.sample.others.to_owned());
            }
            row.extend([
                spread.method.to_owned(),
                shown(mean(&spread.means())),
                shown(pooled_std(&spread.nets)),
                shown(sample_std(&spread.means())),
                shown(Some(spread.min())),
                shown(Some(spread.max())),
                shown(Some(spread.widest())),
                spread.n(),
            ]);
            grid.rows.push(row);
        }
        grids.push(grid);
    }
    grids
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::Metric;
    use crate::tables::lines::{lines, with_dense_nets};
    use crate::tables::sample::{with_draws, with_variants};

    fn table(study: &StudyRecord) -> Option<Table> {
        let cells = with_dense_nets(study);
        draws(study, &lines(study, &cells).unwrap()).unwrap()
    }

    fn row(
        table: &Table,
        wanted: &[(&str, serde_json::Value)],
    ) -> serde_json::Map<String, serde_json::Value> {
        let rows = table.rows().unwrap();
        let mut found = rows.into_iter().filter(|row| wanted.iter().all(|(key, value)| row[*key] == *value));
        let row = found.next().unwrap();
        assert!(found.next().is_none(), "several rows with {wanted:?}");
        row
    }

    #[test]
    fn the_markdown_is_pinned() {
        insta::assert_snapshot!("draws", table(&with_draws()).unwrap().markdown());
    }

    #[test]
    fn the_deviation_over_draws_is_that_within_a_net_and_not_that_between_nets() {
        let table = table(&with_draws()).unwrap();
        let found = row(
            &table,
            &[
                ("images_per_class", 10.into()),
                ("method", "thinet + channel-scale".into()),
                ("keep_rate", 0.5.into()),
                ("stage", "after-fine-tune".into()),
            ],
        );
        let value = |key: &str| found[key].as_f64().unwrap();
        // Net 0: 90, 91, 92; net 1: 91, 93, 95.
        assert_eq!((value("top1_mean"), value("top1_min"), value("top1_max")), (92.0, 90.0, 95.0));
        assert_eq!((value("nets"), value("draws_least"), value("draws_most")), (2.0, 3.0, 3.0));
        assert_eq!(value("widest"), 4.0);
        // Variances 1 and 4 with two degrees of freedom each; means 91 and 93.
        assert!((value("draws_std") - 2.5_f64.sqrt()).abs() < 1e-12);
        assert!((value("nets_std") - 2_f64.sqrt()).abs() < 1e-12);
    }

    #[test]
    fn draws_that_are_missing_or_named_twice_are_counted_as_what_they_are() {
        let mut study = with_draws();
        let wanted = [
            ("images_per_class", 10.into()),
            ("method", "thinet + channel-scale".into()),
            ("keep_rate", 0.5.into()),
            ("stage", "after-fine-tune".into()),
        ];
        let n = |study: &StudyRecord| {
            let found = row(&table(study).unwrap(), &wanted);
            let n = ["nets", "draws_least", "draws_most"].map(|key| found[key].as_u64().unwrap());
            (n, found["draws_std"].as_f64().unwrap())
        };
        // Net 0 has draws 0, 1 and 2, net 1 only the first.
        study.cells.retain(|cell| cell.seed == 0 || !cell.variant.as_deref().unwrap().contains("draw"));
        assert_eq!(n(&study), ([2, 1, 3], 1.0));
        study.variants[2].sample.draw = 1;
        assert_eq!(n(&study).0, [2, 1, 2], "a draw that two variants name");
    }

    #[test]
    fn there_is_no_table_without_a_second_draw() {
        assert!(table(&with_variants()).is_none());
        let mut one_each = with_draws();
        one_each.cells.retain(|cell| cell.variant.as_deref() != Some("10 images"));
        one_each.cells.retain(|cell| cell.variant.as_deref() != Some("10 images, draw 2"));
        assert!(table(&one_each).is_none(), "one draw of each sample is measured");
        let mut unmeasured = with_draws();
        for cell in &mut unmeasured.cells {
            cell.rows.retain(|row| row.metric != Metric::Top1);
        }
        assert!(table(&unmeasured).is_none());
    }
}
