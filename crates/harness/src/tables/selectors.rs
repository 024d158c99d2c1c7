//! The `selectors-…` tables of a study: one line per method, keep rate and seed, and the long form of every value.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use polars::frame::DataFrame;
use serde::Serialize;
use thinet_graph::ChannelSet;

use super::frame::column;
use super::markdown::{Grid, short_count};
use super::summary::{summary, tau};
use super::{Attachment, Table, TableError};
use crate::published::Published;
use crate::records::{CellRecord, DenseRecord, Metric, Row, Stage, Status, StudyRecord};

/// The stages of a cell, in order.
pub(super) const PRUNED_STAGES: [Stage; 3] =
    [Stage::AfterCut, Stage::AfterReconstruction, Stage::AfterFineTune];

/// What is known of a whole net's quality; `None` where nothing was measured.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Quality {
    pub(super) top1: Option<f64>,
    pub(super) top5: Option<f64>,
    pub(super) loss: Option<f64>,
}

impl Quality {
    pub(super) fn read(id: &str, rows: &[Row], stage: Stage) -> Result<Self, TableError> {
        let value = |metric| {
            let mut found =
                rows.iter().filter(|r| r.layer.is_empty() && r.stage == stage && r.metric == metric);
            let value = found.next().map(|r| r.value);
            match found.next() {
                Some(_) => Err(TableError::Repeated { id: id.to_owned(), stage, metric }),
                None => Ok(value),
            }
        };
        Ok(Self { top1: value(Metric::Top1)?, top5: value(Metric::Top5)?, loss: value(Metric::Loss)? })
    }
}

/// A cell with its dense net and the values that the tables show.
pub(super) struct Line<'a> {
    pub(super) cell: &'a CellRecord,
    dense: &'a DenseRecord,
    dense_quality: Quality,
    quality: [Quality; 3],
}

impl Line<'_> {
    /// What was measured at a stage of [`PRUNED_STAGES`].
    pub(super) fn at(&self, stage: Stage) -> Quality {
        PRUNED_STAGES.iter().position(|&s| s == stage).map_or(self.dense_quality, |at| self.quality[at])
    }

    /// Top-1 of the own dense net less top-1 after fine-tuning, points.
    fn drop(&self) -> Option<f64> {
        Some(self.dense_quality.top1? - self.at(Stage::AfterFineTune).top1?)
    }

    fn fewer_params(&self) -> f64 {
        self.dense.size.paper.params as f64 / self.cell.size.paper.params as f64
    }

    fn fewer_flops(&self) -> f64 {
        self.dense.size.paper.flops as f64 / self.cell.size.paper.flops as f64
    }
}

/// The tables of a study: every cell (with the kept channels as JSON), means over seeds, rank agreement with the paper.
///
/// # Errors
/// If a cell has no dense net of its seed, a value is recorded twice, or the published numbers are inconsistent.
pub fn selectors(study: &StudyRecord) -> Result<Vec<Table>, TableError> {
    let published = Published::load()?;
    let lines = lines(study)?;
    let main = Table {
        name: study.table.clone(),
        title: format!("Selection methods on {}, {}", study.dataset, study.net),
        frame: frame(&lines)?,
        grids: grids(study, &lines)?,
        notes: notes(study),
        attachments: vec![Attachment { suffix: "kept.json", text: kept_json(study, &lines)? }],
    };
    Ok(vec![main, summary(study, &lines, &published)?, tau(study, &lines, &published)?])
}

/// Every cell beside its dense net: by method, then keep rate, each in the order of the study, then seed.
fn lines(study: &StudyRecord) -> Result<Vec<Line<'_>>, TableError> {
    let mut lines = Vec::new();
    for cell in &study.cells {
        let dense = study
            .dense
            .iter()
            .find(|d| d.seed == cell.seed)
            .ok_or_else(|| TableError::NoDense { cell: cell.id.clone(), seed: cell.seed })?;
        let dense_quality = Quality::read(&dense.id, &dense.rows, Stage::Dense)?;
        let mut quality = [Quality::default(); 3];
        for (slot, stage) in quality.iter_mut().zip(PRUNED_STAGES) {
            *slot = Quality::read(&cell.id, &cell.rows, stage)?;
        }
        lines.push(Line { cell, dense, dense_quality, quality });
    }
    let methods = in_order(&lines, |l| l.cell.method.as_str());
    let rates = in_order(&lines, |l| l.cell.keep_rate);
    let key = |line: &Line| {
        let method = methods.iter().position(|&m| m == line.cell.method);
        let rate = rates.iter().position(|&r| r == line.cell.keep_rate);
        (method, rate, line.cell.seed, line.cell.id.clone())
    };
    lines.sort_by_cached_key(key);
    Ok(lines)
}

/// The distinct values of a property, in the order of their first appearance.
pub(super) fn in_order<'a, T: PartialEq>(lines: &[Line<'a>], property: impl Fn(&Line<'a>) -> T) -> Vec<T> {
    let mut distinct = Vec::new();
    for value in lines.iter().map(property) {
        if !distinct.contains(&value) {
            distinct.push(value);
        }
    }
    distinct
}

pub(super) fn status_name(status: Status) -> &'static str {
    match status {
        Status::Done => "done",
        Status::Diverged => "diverged",
        Status::NotRun => "not-run",
    }
}

fn frame(lines: &[Line]) -> Result<DataFrame, TableError> {
    let mut columns = vec![
        column("method", lines, |l| l.cell.method.as_str()),
        column("selector", lines, |l| l.cell.selector.as_str()),
        column("reconstruction", lines, |l| l.cell.reconstruction.as_str()),
        column("keep_rate", lines, |l| l.cell.keep_rate),
        column("seed", lines, |l| l.cell.seed),
        column("status", lines, |l| status_name(l.cell.status)),
        column("dense_status", lines, |l| status_name(l.dense.status)),
    ];
    for stage in [Stage::Dense].into_iter().chain(PRUNED_STAGES) {
        let name = |metric: &str| format!("{}_{metric}", stage.name().replace('-', "_"));
        columns.push(column(&name("top1"), lines, |l| l.at(stage).top1));
        columns.push(column(&name("top5"), lines, |l| l.at(stage).top5));
        columns.push(column(&name("loss"), lines, |l| l.at(stage).loss));
    }
    columns.extend([
        column("top1_drop", lines, Line::drop),
        column("params", lines, |l| l.cell.size.paper.params),
        column("flops", lines, |l| l.cell.size.paper.flops),
        column("macs", lines, |l| l.cell.size.paper.macs),
        column("all_parameters", lines, |l| l.cell.size.all_parameters.params),
        column("times_fewer_params", lines, Line::fewer_params),
        column("times_fewer_flops", lines, Line::fewer_flops),
        column("cell", lines, |l| l.cell.id.as_str()),
    ]);
    Ok(DataFrame::new(lines.len(), columns)?)
}

/// A value for people; where there is none, why.
pub(super) fn shown(value: Option<f64>, decimals: usize, status: Status) -> String {
    match (value, status) {
        (Some(value), _) => format!("{value:.decimals$}"),
        (None, Status::Done) => "not measured".to_owned(),
        (None, Status::Diverged) => "diverged".to_owned(),
        (None, Status::NotRun) => "not run".to_owned(),
    }
}

fn grids(study: &StudyRecord, lines: &[Line]) -> Result<Vec<Grid>, TableError> {
    let mut grids = vec![dense_grid(study)?];
    for rate in in_order(lines, |l| l.cell.keep_rate) {
        let of_rate: Vec<&Line> = lines.iter().filter(|l| l.cell.keep_rate == rate).collect();
        let mut sizes: Vec<String> = Vec::new();
        for line in &of_rate {
            let size = line.cell.size.paper;
            let (params, flops) = (short_count(size.params), short_count(size.flops));
            let size = format!("{params} params, {flops} FLOPs ({:.2}× fewer)", line.fewer_flops());
            if !sizes.contains(&size) {
                sizes.push(size);
            }
        }
        let headings = [
            "<method",
            "seed",
            "cut top-1, %",
            "refit top-1, %",
            "tuned top-1, %",
            "drop, points",
            "tuned top-5, %",
            "tuned loss",
        ];
        let mut grid = Grid::new(format!("Keep rate {rate}: {}", sizes.join("; ")), &headings);
        for line in of_rate {
            let status = line.cell.status;
            let [cut, refit, tuned] = line.quality;
            grid.rows.push(vec![
                line.cell.method.clone(),
                line.cell.seed.to_string(),
                shown(cut.top1, 2, status),
                shown(refit.top1, 2, status),
                shown(tuned.top1, 2, status),
                shown(line.drop(), 2, status),
                shown(tuned.top5, 2, status),
                shown(tuned.loss, 4, status),
            ]);
        }
        grids.push(grid);
    }
    Ok(grids)
}

fn dense_grid(study: &StudyRecord) -> Result<Grid, TableError> {
    let headings = ["<net", "seed", "top-1, %", "top-5, %", "loss", "params", "FLOPs"];
    let mut grid = Grid::new("Before pruning", &headings);
    for dense in &study.dense {
        let quality = Quality::read(&dense.id, &dense.rows, Stage::Dense)?;
        grid.rows.push(vec![
            "dense".to_owned(),
            dense.seed.to_string(),
            shown(quality.top1, 2, dense.status),
            shown(quality.top5, 2, dense.status),
            shown(quality.loss, 4, dense.status),
            short_count(dense.size.paper.params),
            short_count(dense.size.paper.flops),
        ]);
    }
    Ok(grid)
}

/// The note that says which study a table comes from.
pub(super) fn origin(study: &StudyRecord) -> String {
    let StudyRecord { name, run, dataset, net, mode, .. } = study;
    format!("Experiment `{name}`, run `{run}`: {dataset}; {net}; {mode}.")
}

/// The note that says what the columns `cut`, `refit` and `tuned` stand for.
pub(super) fn stages_note(study: &StudyRecord) -> String {
    let cut = if study.mode == "one-shot" {
        "all layers cut at once, nothing refitted"
    } else {
        "after the last layer's cut, that cut not refitted, all earlier layers already refitted and tuned"
    };
    format!(
        "cut: {cut}; refit: after the reconstruction (without one the same net); tuned: after fine-tuning."
    )
}

fn notes(study: &StudyRecord) -> Vec<String> {
    vec![
        origin(study),
        "Top-1 and top-5 are per cent of the test images, losses mean cross-entropy in nats; drop: top-1 of the \
         seed's own dense net less the tuned top-1."
            .to_owned(),
        stages_note(study),
        "Params and FLOPs follow the convention `paper`: weights without biases, 2·C values per batch norm; FLOPs \
         are 2 × multiply-adds plus 4·C per batch norm."
            .to_owned(),
        "diverged: the training loss became NaN or infinite, values after that do not exist; not run: nothing is \
         stored."
            .to_owned(),
        format!(
            "Top-5 and loss of every stage and the multiply-adds are in the CSV and Parquet files, the kept \
             channels in `{}.kept.json`.",
            study.table
        ),
    ]
}

/// A cell's kept channels, one line of the JSON file.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Kept<'a> {
    cell: &'a str,
    method: &'a str,
    keep_rate: f64,
    seed: u64,
    status: Status,
    kept: &'a BTreeMap<String, ChannelSet>,
}

/// Kept channels of every cell as JSON, a line per cell.
fn kept_json(study: &StudyRecord, lines: &[Line]) -> Result<String, TableError> {
    let mut cells = Vec::new();
    for Line { cell, .. } in lines {
        let CellRecord { id, method, keep_rate, seed, status, kept, .. } = cell;
        let (keep_rate, seed, status) = (*keep_rate, *seed, *status);
        cells.push(serde_json::to_string(&Kept { cell: id, method, keep_rate, seed, status, kept })?);
    }
    let run = serde_json::to_string(&study.run)?;
    Ok(format!("{{\"run\":{run},\"cells\":[\n{}\n]}}\n", cells.join(",\n")))
}

/// One value of the long form.
struct LongRow<'a> {
    seed: u64,
    id: &'a str,
    method: &'a str,
    keep_rate: Option<f64>,
    row: &'a Row,
}

/// Every recorded value in long form: run, seed, cell, method, keep_rate, layer, stage, metric, value.
///
/// The dense nets' rows have the method `dense` and no keep rate; values of the whole net have an empty layer. Sorted
/// by seed, method, keep rate, cell, layer, stage and metric.
///
/// # Errors
/// If Polars cannot make the columns.
pub fn rows_frame(study: &StudyRecord) -> Result<DataFrame, TableError> {
    let mut rows: Vec<LongRow> = Vec::new();
    for dense in &study.dense {
        let (seed, id) = (dense.seed, dense.id.as_str());
        rows.extend(dense.rows.iter().map(|row| LongRow { seed, id, method: "dense", keep_rate: None, row }));
    }
    for cell in &study.cells {
        let (seed, id, method, keep_rate) =
            (cell.seed, cell.id.as_str(), cell.method.as_str(), Some(cell.keep_rate));
        rows.extend(cell.rows.iter().map(|row| LongRow { seed, id, method, keep_rate, row }));
    }
    rows.sort_by(compare);
    let columns = vec![
        column("run", &rows, |_| study.run.as_str()),
        column("seed", &rows, |r| r.seed),
        column("cell", &rows, |r| r.id),
        column("method", &rows, |r| r.method),
        column("keep_rate", &rows, |r| r.keep_rate),
        column("layer", &rows, |r| r.row.layer.as_str()),
        column("stage", &rows, |r| r.row.stage.name()),
        column("metric", &rows, |r| r.row.metric.name()),
        column("value", &rows, |r| r.row.value),
    ];
    Ok(DataFrame::new(rows.len(), columns)?)
}

/// A total order: no two rows of different meaning are equal.
fn compare(a: &LongRow, b: &LongRow) -> Ordering {
    let rate = |row: &LongRow| row.keep_rate.unwrap_or(f64::INFINITY);
    let place = |row: &LongRow| (row.row.stage, row.row.metric);
    (a.seed.cmp(&b.seed))
        .then_with(|| a.method.cmp(b.method))
        .then_with(|| rate(a).total_cmp(&rate(b)))
        .then_with(|| a.id.cmp(b.id))
        .then_with(|| a.row.layer.cmp(&b.row.layer))
        .then_with(|| place(a).cmp(&place(b)))
        .then_with(|| a.row.value.total_cmp(&b.row.value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tables::sample::study;

    fn floats(frame: &DataFrame, name: &str) -> Vec<Option<f64>> {
        frame.column(name).unwrap().f64().unwrap().iter().collect()
    }

    fn texts(frame: &DataFrame, name: &str) -> Vec<String> {
        frame.column(name).unwrap().str().unwrap().iter().map(|t| t.unwrap().to_owned()).collect()
    }

    #[test]
    fn the_markdown_stays_as_it_is() {
        let tables = selectors(&study()).unwrap();
        insta::assert_snapshot!("selectors_main", tables[0].markdown());
        insta::assert_snapshot!("selectors_summary", tables[1].markdown());
        insta::assert_snapshot!("selectors_tau", tables[2].markdown());
    }

    #[test]
    fn done_diverged_and_not_run_differ_and_leave_their_cells_empty() {
        let table = selectors(&study()).unwrap().remove(0);
        let (status, tuned) = (texts(&table.frame, "status"), floats(&table.frame, "after_fine_tune_top1"));
        for (status, tuned) in status.iter().zip(&tuned) {
            assert_eq!(status == "done", tuned.is_some(), "{status} with {tuned:?}");
        }
        for name in ["done", "diverged", "not-run"] {
            assert!(status.contains(&name.to_owned()), "{name}");
        }
        let text = table.markdown();
        assert!(text.contains(" diverged |") && text.contains(" not run |"));
    }

    #[test]
    fn the_drop_is_taken_from_the_dense_net_of_the_same_seed() {
        let table = selectors(&study()).unwrap().remove(0);
        let (dense, tuned) =
            (floats(&table.frame, "dense_top1"), floats(&table.frame, "after_fine_tune_top1"));
        let drops = floats(&table.frame, "top1_drop");
        assert_eq!(table.frame.column("seed").unwrap().u64().unwrap().get(1), Some(1));
        assert_eq!((dense[0], dense[1]), (Some(91.5), Some(91.75)));
        assert_eq!(drops[1], Some(91.75 - tuned[1].unwrap()));
    }

    #[test]
    fn lines_are_in_the_order_of_the_study_whatever_the_order_of_its_cells() {
        let (mut shuffled, expected) = (study(), selectors(&study()).unwrap());
        // Seeds interleave and the ends swap; methods and rates still appear first in their order.
        let last = shuffled.cells.len() - 1;
        shuffled.cells.swap(0, 1);
        shuffled.cells.swap(last, last - 1);
        let tables = selectors(&shuffled).unwrap();
        for (a, b) in tables.iter().zip(&expected) {
            assert!(a.frame.equals_missing(&b.frame), "{}", a.name);
            assert_eq!(a.markdown(), b.markdown());
            assert_eq!(a.attachments, b.attachments);
        }
    }

    #[test]
    fn kept_channels_read_back_as_they_were() {
        let study = study();
        let table = selectors(&study).unwrap().remove(0);
        let json: serde_json::Value = serde_json::from_str(&table.attachments[0].text).unwrap();
        assert_eq!(json["run"], study.run);
        let first = &json["cells"][0];
        assert_eq!((&first["cell"], &first["status"]), (&study.cells[0].id.as_str().into(), &"done".into()));
        let kept: BTreeMap<String, ChannelSet> = serde_json::from_value(first["kept"].clone()).unwrap();
        assert_eq!(kept, study.cells[0].kept);
    }

    #[test]
    fn a_value_recorded_twice_or_a_cell_without_dense_net_is_refused() {
        let mut twice = study();
        let row = twice.cells[0].rows.iter().find(|r| r.layer.is_empty()).unwrap().clone();
        twice.cells[0].rows.push(row);
        let error = selectors(&twice).unwrap_err().to_string();
        assert!(error.contains("recorded twice") && error.contains(&twice.cells[0].id), "{error}");

        let mut orphan = study();
        orphan.dense.pop();
        let error = selectors(&orphan).unwrap_err().to_string();
        assert!(error.contains("no dense net with seed 1"), "{error}");
    }

    #[test]
    fn the_long_form_holds_every_row_in_one_order() {
        let (first, mut turned) = (study(), study());
        turned.cells.reverse();
        for cell in &mut turned.cells {
            cell.rows.reverse();
        }
        let (a, b) = (rows_frame(&first).unwrap(), rows_frame(&turned).unwrap());
        assert!(a.equals_missing(&b));
        let rows = first.dense.iter().map(|d| d.rows.len()).chain(first.cells.iter().map(|c| c.rows.len()));
        assert_eq!(a.height(), rows.sum::<usize>());
        assert_eq!(a.get_column_names()[0].as_str(), "run");
        assert!(texts(&a, "layer").contains(&"conv2".to_owned()));
        let dense_rates = floats(&a, "keep_rate");
        for (method, rate) in texts(&a, "method").iter().zip(dense_rates) {
            assert_eq!(method == "dense", rate.is_none());
        }
    }
}
