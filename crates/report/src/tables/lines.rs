//! The rows of a study's tables: each cell with its dense net.

use std::collections::BTreeMap;

use polars::prelude::Column;

use super::TableError;
use super::asked::Got;
use super::frame::column;
use super::markdown::short_count;
use crate::records::{CellRecord, DenseRecord, Metric, Phase, Row, Size, Status, StudyRecord, Unfit};

/// The phases of a cell, in order.
pub(super) const PRUNED_PHASES: [Phase; 4] =
    [Phase::AfterCut, Phase::AfterReconstruction, Phase::AfterBatchNormEstimate, Phase::AfterFineTune];

/// The phases that have columns in the files of a study: all, but the test with estimated batch-norm statistics only where there
/// was one.
pub(super) fn phases_in_files(lines: &[Line]) -> Vec<Phase> {
    let has = |phase| lines.iter().any(|line| line.at(phase).top1.is_some());
    let phases = PRUNED_PHASES.into_iter();
    phases.filter(|&phase| phase != Phase::AfterBatchNormEstimate || has(phase)).collect()
}

/// The phases that are shown to people: as in the files, but the tuned nets are left out of a study without tuning.
pub(super) fn phases_shown(lines: &[Line]) -> Vec<Phase> {
    let is_measured = |phase| lines.iter().any(|line| line.at(phase).top1.is_some());
    let mut phases = phases_in_files(lines);
    if is_measured(Phase::AfterCut) && lines.iter().all(|line| line.cell.tuning_steps.unwrap_or(0) == 0) {
        phases.retain(|&phase| phase != Phase::AfterFineTune);
    }
    phases
}

/// The heading of a phase's accuracies.
pub(super) fn heading(phase: Phase) -> &'static str {
    match phase {
        Phase::Dense => "dense top-1, %",
        Phase::AfterCut => "cut top-1, %",
        Phase::AfterReconstruction => "refit top-1, %",
        Phase::AfterBatchNormEstimate => "BN top-1, %",
        Phase::AfterFineTune => "tuned top-1, %",
    }
}

/// Quality of a whole net; `None` where nothing was measured.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Quality {
    pub(super) top1: Option<f64>,
    pub(super) top5: Option<f64>,
    pub(super) loss: Option<f64>,
}

impl Quality {
    pub(super) fn read(id: &str, rows: &[Row], phase: Phase) -> Result<Self, TableError> {
        let value = |metric| {
            let mut found =
                rows.iter().filter(|r| r.layer.is_empty() && r.phase == phase && r.metric == metric);
            let value = found.next().map(|r| r.value);
            match found.next() {
                Some(_) => Err(TableError::Repeated { id: id.to_owned(), phase, metric }),
                None => Ok(value),
            }
        };
        Ok(Self { top1: value(Metric::Top1)?, top5: value(Metric::Top5)?, loss: value(Metric::Loss)? })
    }
}

/// Text for seeds whose dense net is unfit.
pub(super) const LEFT_OUT: &str = "dense net failed";
/// The method in the rows of the dense nets.
const DENSE: &str = "dense";

/// A cell with its dense net and the values in the tables.
pub(super) struct Line<'a> {
    pub(super) cell: &'a CellRecord,
    pub(super) dense: &'a DenseRecord,
    pub(super) dense_quality: Quality,
    pub(super) quality: [Quality; PRUNED_PHASES.len()],
    pub(super) train_loss: Option<f64>,
}

impl Line<'_> {
    /// The quality at a phase.
    pub(super) fn at(&self, phase: Phase) -> Quality {
        PRUNED_PHASES.iter().position(|&s| s == phase).map_or(self.dense_quality, |at| self.quality[at])
    }

    /// Whether the row is that of the dense net itself, at a keep rate that cuts nothing.
    pub(super) fn is_dense(&self) -> bool {
        // Names of selectors are never empty.
        self.cell.selector.is_empty()
    }

    /// Whether it has no values because its dense net is unfit.
    pub(super) fn is_left_out(&self) -> bool {
        self.cell.status == Status::NotRun && self.dense.unfit.is_some()
    }

    /// Formats a value of the cell, or why there is none.
    pub(super) fn shown(&self, value: Option<f64>, decimals: usize) -> String {
        match value {
            None if self.is_left_out() => LEFT_OUT.to_owned(),
            value => shown(value, decimals, self.cell.status),
        }
    }

    /// Parameters over those of the dense net.
    pub(super) fn params_fraction(&self) -> Option<f64> {
        self.cell.size.map(|size| size.paper.params as f64 / self.dense.size.paper.params as f64)
    }

    /// FLOPs over those of the dense net.
    pub(super) fn flops_fraction(&self) -> Option<f64> {
        self.cell.size.map(|size| size.paper.flops as f64 / self.dense.size.paper.flops as f64)
    }

    /// Fractions of the dense net that were asked and got.
    pub(super) fn got(&self) -> Got {
        let CellRecord { channels_fraction: channels, flops_target, .. } = *self.cell;
        Got { channels, flops_target, flops: self.flops_fraction() }
    }

    /// Top-1 of the own dense net less top-1 after fine-tuning, points.
    pub(super) fn drop(&self) -> Option<f64> {
        self.drop_at(Phase::AfterFineTune)
    }

    /// Top-1 of the own dense net less top-1 at a phase, points.
    pub(super) fn drop_at(&self, phase: Phase) -> Option<f64> {
        Some(self.dense_quality.top1? - self.at(phase).top1?)
    }

    pub(super) fn fewer_params(&self) -> Option<f64> {
        self.cell.size.map(|size| self.dense.size.paper.params as f64 / size.paper.params as f64)
    }

    pub(super) fn fewer_flops(&self) -> Option<f64> {
        self.cell.size.map(|size| self.dense.size.paper.flops as f64 / size.paper.flops as f64)
    }
}

/// The cells of a study, preceded by the dense nets as the result of keep rates that cut nothing: one per seed, not one per
/// method.
pub(super) fn with_dense_nets(study: &StudyRecord) -> Vec<CellRecord> {
    let at_rate = |variant: Option<&str>, keep_rate: f64| {
        let variant = variant.map(str::to_owned);
        study.dense.iter().map(move |dense| CellRecord {
            id: dense.id.clone(),
            variant: variant.clone(),
            method: DENSE.to_owned(),
            selector: String::new(),
            reconstruction: String::new(),
            keep_rate,
            flops_target: None,
            seed: dense.seed,
            // A seed that is left out counts as not run, as in the cells.
            status: if let Some(Unfit::NearChance { .. }) = dense.unfit {
                Status::NotRun
            } else {
                dense.status
            },
            size: Some(dense.size),
            channels_fraction: None,
            rows: Vec::new(),
            loss_curve: None,
            tuning_steps: None,
            kept: BTreeMap::new(),
            test_images: dense.test_images,
        })
    };
    let mut cells = Vec::new();
    for (variant, rates) in uncut_rates(study) {
        cells.extend(rates.iter().flat_map(|&rate| at_rate(variant, rate)));
    }
    cells.extend(study.cells.iter().cloned());
    cells
}

/// The keep rates that cut nothing, of each variant or of a study without variants.
fn uncut_rates(study: &StudyRecord) -> Vec<(Option<&str>, &[f64])> {
    if study.variants.is_empty() {
        return vec![(None, &study.uncut_rates)];
    }
    let of_variants = study.variants.iter();
    of_variants.map(|variant| (Some(variant.name.as_str()), &variant.uncut_rates[..])).collect()
}

/// The keep rates at which some variant cuts nothing.
pub(super) fn all_uncut_rates(study: &StudyRecord) -> Vec<f64> {
    let mut rates = Vec::new();
    for &rate in uncut_rates(study).iter().flat_map(|(_, rates)| *rates) {
        if !rates.contains(&rate) {
            rates.push(rate);
        }
    }
    rates
}

/// The column of variants, which a study without variants does not have.
pub(super) fn variant_column<R>(
    study: &StudyRecord,
    rows: &[R],
    variant: impl Fn(&R) -> Option<String>,
) -> Option<Column> {
    (!study.variants.is_empty()).then(|| column("variant", rows, variant))
}

/// Every cell beside its dense net: by variant, then method, then keep rate, each in the order of the study, then seed.
pub(super) fn lines<'a>(
    study: &'a StudyRecord,
    cells: &'a [CellRecord],
) -> Result<Vec<Line<'a>>, TableError> {
    let mut lines = Vec::new();
    for cell in cells {
        let dense = study
            .dense
            .iter()
            .find(|d| d.seed == cell.seed)
            .ok_or_else(|| TableError::NoDense { cell: cell.id.clone(), seed: cell.seed })?;
        let dense_quality = Quality::read(&dense.id, &dense.rows, Phase::Dense)?;
        let mut quality = [Quality::default(); PRUNED_PHASES.len()];
        for (slot, phase) in quality.iter_mut().zip(PRUNED_PHASES) {
            *slot = Quality::read(&cell.id, &cell.rows, phase)?;
        }
        let is_train_loss = |row: &&Row| {
            row.layer.is_empty() && (row.phase, row.metric) == (Phase::AfterFineTune, Metric::TrainLoss)
        };
        let train_loss = cell.rows.iter().find(is_train_loss).map(|row| row.value);
        lines.push(Line { cell, dense, dense_quality, quality, train_loss });
    }
    let variants: Vec<&str> = study.variants.iter().map(|variant| variant.name.as_str()).collect();
    let methods = in_order(&lines, |l| l.cell.method.as_str());
    let rates = in_order(&lines, |l| l.cell.keep_rate);
    let key = |line: &Line| {
        let variant = variants.iter().position(|&v| Some(v) == line.cell.variant.as_deref());
        let method = methods.iter().position(|&m| m == line.cell.method);
        let rate = rates.iter().position(|&r| r == line.cell.keep_rate);
        (variant, method, rate, line.cell.seed, line.cell.id.clone())
    };
    lines.sort_by_cached_key(key);
    Ok(lines)
}

/// The distinct values of a property, in the order of their first appearance.
pub(super) fn in_order<'r, R, T: PartialEq>(rows: &'r [R], property: impl Fn(&'r R) -> T) -> Vec<T> {
    let mut distinct = Vec::new();
    for value in rows.iter().map(property) {
        if !distinct.contains(&value) {
            distinct.push(value);
        }
    }
    distinct
}

/// The number of test images of each measured net.
pub(super) fn tested<'a>(lines: &'a [Line<'a>]) -> impl Iterator<Item = Option<u64>> + 'a {
    lines.iter().flat_map(|line| {
        let dense = line.dense_quality.top1.map(|_| line.dense.test_images);
        let is_measured = PRUNED_PHASES.iter().any(|&phase| line.at(phase).top1.is_some());
        dense.into_iter().chain(is_measured.then_some(line.cell.test_images))
    })
}

/// The name of a status in files.
pub(super) fn status_name(status: Status) -> &'static str {
    match status {
        Status::Done => "done",
        Status::Diverged => "diverged",
        Status::NotRun => "not-run",
    }
}

/// Formats a value, or why there is none.
pub(super) fn shown(value: Option<f64>, decimals: usize, status: Status) -> String {
    match (value, status) {
        (Some(value), _) => format!("{value:.decimals$}"),
        (None, Status::Done) => "not measured".to_owned(),
        (None, Status::Diverged) => "diverged".to_owned(),
        (None, Status::NotRun) => "not run".to_owned(),
    }
}

/// Describes the different sizes of some nets. With a global allocation each net has its own.
pub(super) fn sizes(lines: &[&Line]) -> String {
    let mut sizes: Vec<String> = Vec::new();
    for line in lines {
        let size = match (line.cell.size, line.fewer_flops()) {
            (Some(Size { paper, .. }), Some(fewer_flops)) if !line.cell.is_allocated() => {
                let (params, flops) = (short_count(paper.params), short_count(paper.flops));
                format!("{params} params, {flops} FLOPs ({fewer_flops:.2}× fewer)")
            }
            _ => "widths of each net's own (global allocation)".to_owned(),
        };
        if !sizes.contains(&size) {
            sizes.push(size);
        }
    }
    sizes.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tables::sample::study;

    #[test]
    fn ratios_are_those_of_the_cell_and_its_dense_net() {
        let study = study();
        let all = lines(&study, &study.cells).unwrap();
        // 120,000 of 300,000 parameters, 1.6 of 5 million multiply-adds.
        let line = all.iter().find(|line| line.cell.keep_rate == 0.5).unwrap();
        assert_eq!((line.fewer_params(), line.fewer_flops()), (Some(2.5), Some(3.125)));
        assert_eq!((line.params_fraction(), line.flops_fraction()), (Some(0.4), Some(0.32)));
    }

    #[test]
    fn the_training_loss_is_that_of_the_whole_net_in_fine_tuning() {
        let mut study = study();
        let loss = |layer: &str, phase, value| Row {
            layer: layer.to_owned(),
            phase,
            metric: Metric::TrainLoss,
            value,
        };
        study.cells[0].rows.extend([
            loss("conv1", Phase::AfterFineTune, 8.0),
            loss("", Phase::AfterReconstruction, 9.0),
            loss("", Phase::AfterFineTune, 0.25),
        ]);
        let all = lines(&study, &study.cells).unwrap();
        let of = |id: &str| all.iter().find(|line| line.cell.id == id).unwrap().train_loss;
        assert_eq!((of(&study.cells[0].id), of(&study.cells[1].id)), (Some(0.25), None));
    }
}
