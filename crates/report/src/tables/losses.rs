//! Training losses of a study: the loss curves of its dense nets, of the last tuning of its cells and of the control.

use polars::frame::DataFrame;
use polars::prelude::Column;

use super::frame::column;
use super::groups::SeedStats;
use super::lines::{Line, variant_column};
use super::markdown::Grid;
use super::notes::{origin, variants_note};
use super::{LOSSES, Table, TableError};
use crate::records::{FROM_SCRATCH, LossCurve, StudyRecord};

/// The training of one net.
struct Training<'a> {
    /// `None` for a dense net.
    line: Option<&'a Line<'a>>,
    seed: u64,
    /// Id of the stage.
    stage: &'a str,
    curve: &'a LossCurve,
}

/// One point of a curve.
struct Point<'a> {
    of: &'a Training<'a>,
    step: u64,
    loss: f64,
}

impl Training<'_> {
    fn training(&self) -> &'static str {
        match self.line {
            None => "dense",
            Some(line) if line.cell.selector == FROM_SCRATCH => FROM_SCRATCH,
            Some(_) => "tuning",
        }
    }

    fn method(&self) -> &str {
        self.line.map_or("dense", |line| line.cell.method.as_str())
    }

    fn variant(&self) -> Option<String> {
        self.line.and_then(|line| line.cell.variant.clone())
    }

    fn keep_rate(&self) -> Option<f64> {
        self.line.map(|line| line.cell.keep_rate)
    }
}

/// All trainings with a curve: dense nets, then cells in the order of the study.
fn trainings<'a>(study: &'a StudyRecord, lines: &'a [Line<'a>]) -> Vec<Training<'a>> {
    let dense = study.dense.iter().filter_map(|dense| {
        let curve = dense.loss_curve.as_ref()?;
        Some(Training { line: None, seed: dense.seed, stage: &dense.id, curve })
    });
    let cells = lines.iter().filter(|line| !line.is_dense()).filter_map(|line| {
        let curve = line.cell.loss_curve.as_ref()?;
        Some(Training { line: Some(line), seed: line.cell.seed, stage: &line.cell.id, curve })
    });
    dense.chain(cells).collect()
}

/// Every point of every curve; `None` if no stage has one.
pub(super) fn losses(study: &StudyRecord, lines: &[Line]) -> Result<Option<Table>, TableError> {
    let trainings = trainings(study, lines);
    let points: Vec<Point> = trainings
        .iter()
        .flat_map(|of| of.curve.points().map(move |(step, loss)| Point { of, step, loss }))
        .collect();
    if points.is_empty() {
        return Ok(None);
    }
    let mut columns: Vec<Column> = variant_column(study, &points, |p| p.of.variant()).into_iter().collect();
    columns.extend([
        column("training", &points, |p| p.of.training()),
        column("method", &points, |p| p.of.method()),
        column("keep_rate", &points, |p| p.of.keep_rate()),
        column("seed", &points, |p| p.of.seed),
        column("step", &points, |p| p.step),
        column("steps", &points, |p| p.of.curve.steps),
        column("train_loss", &points, |p| p.loss),
        column("experiment", &points, |_| study.name.as_str()),
        column("dataset", &points, |_| study.dataset.as_str()),
        column("net", &points, |_| study.net.as_str()),
        column("stage", &points, |p| p.of.stage),
    ]);
    Ok(Some(Table {
        name: format!("{}{LOSSES}", study.table),
        title: format!("Training losses on {}, {}", study.dataset, study.net),
        frame: DataFrame::new(points.len(), columns)?,
        grids: vec![grid(study, &trainings)],
        notes: notes(study),
        attachments: Vec::new(),
    }))
}

/// A row for each net of a study, its loss after quarters of the training as the mean over seeds.
fn grid(study: &StudyRecord, trainings: &[Training]) -> Grid {
    const QUARTERS: [(&str, f64); 5] =
        [("start", 0.0), ("1/4", 0.25), ("1/2", 0.5), ("3/4", 0.75), ("end", 1.0)];
    let of_variant: &[&str] = if study.variants.is_empty() { &[] } else { &["<variant"] };
    let mut headings = [of_variant, &["<method", "keep rate", "n", "steps"]].concat();
    headings.extend(QUARTERS.iter().map(|(name, _)| *name));
    let mut grid = Grid::new("Mean training loss over seeds, nats", &headings);
    let key = |t: &Training| (t.variant(), t.method().to_owned(), t.keep_rate().map(f64::to_bits));
    for (i, first) in trainings.iter().enumerate() {
        if trainings[..i].iter().any(|before| key(before) == key(first)) {
            continue;
        }
        let nets: Vec<&Training> = trainings.iter().filter(|t| key(t) == key(first)).collect();
        let mut row: Vec<String> = match study.variants.is_empty() {
            true => Vec::new(),
            false => vec![first.variant().unwrap_or_default()],
        };
        let keep_rate = first.keep_rate().map(|rate| rate.to_string()).unwrap_or_default();
        row.extend([
            first.method().to_owned(),
            keep_rate,
            nets.len().to_string(),
            first.curve.steps.to_string(),
        ]);
        row.extend(QUARTERS.iter().map(|(_, part)| {
            let at = |t: &&Training| loss_at(t.curve, *part);
            let mean = SeedStats::of(&nets.iter().filter_map(at).collect::<Vec<_>>()).mean;
            mean.map_or_else(|| "not measured".to_owned(), |mean| format!("{mean:.3}"))
        }));
        grid.rows.push(row);
    }
    grid
}

/// The loss of the window that a part of the training ends in, from 0 (its first window) to 1 (its last); `None` if a training that diverged
/// ended before.
fn loss_at(curve: &LossCurve, part: f64) -> Option<f64> {
    let step = (curve.steps as f64 * part).ceil() as u64;
    curve.points().find(|(end, _)| *end >= step).map(|(_, loss)| loss)
}

fn notes(study: &StudyRecord) -> Vec<String> {
    let mut notes = vec![
        origin(study),
        "Training loss: mean cross-entropy of the batches of a window of steps, in nats, with the weights of each step; a window is one \
         twentieth of a training. dense: the dense nets; the methods: the tuning after the last cut; from scratch: the control's training."
            .to_owned(),
        "Every window of every seed is in the CSV and Parquet files; `step` is the number of steps at its end. Stages stored by versions that \
         recorded no curve are left out."
            .to_owned(),
    ];
    notes.extend(variants_note(study));
    notes.extend(study.left_out());
    notes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tables::lines::lines;
    use crate::tables::sample::{study, with_variants};

    fn table(study: &StudyRecord) -> Option<Table> {
        losses(study, &lines(study, &study.cells).unwrap()).unwrap()
    }

    #[test]
    fn the_markdown_is_pinned() {
        insta::assert_snapshot!("losses", table(&study()).unwrap().markdown());
    }

    #[test]
    fn a_study_without_curves_has_no_such_table() {
        let mut study = study();
        study.dense.iter_mut().for_each(|dense| dense.loss_curve = None);
        study.cells.iter_mut().for_each(|cell| cell.loss_curve = None);
        assert!(table(&study).is_none());
    }

    #[test]
    fn every_window_of_every_stage_is_a_row() {
        let study = study();
        let frame = table(&study).unwrap().frame;
        let with_curve = study.cells.iter().filter(|cell| cell.loss_curve.is_some()).count();
        assert_eq!(frame.height(), 4 * (study.dense.len() + with_curve));
        let steps = frame.column("step").unwrap().u64().unwrap();
        assert_eq!(steps.iter().take(5).collect::<Vec<_>>(), [Some(2), Some(4), Some(6), Some(7), Some(2)]);
        let trainings = frame.column("training").unwrap().str().unwrap();
        assert_eq!((trainings.get(0), trainings.get(8)), (Some("dense"), Some("tuning")));
    }

    #[test]
    fn a_training_that_diverged_has_the_windows_before() {
        let mut study = study();
        let cell = &mut study.cells[0];
        cell.loss_curve.as_mut().unwrap().losses.truncate(1);
        let of_cell = [cell.method.clone(), cell.keep_rate.to_string()];
        study.cells.retain(|cell| cell.seed == 0);
        let grid = &table(&study).unwrap().grids[0];
        let row = grid.rows.iter().find(|row| row[..2] == of_cell).unwrap();
        assert_eq!(row[2..], ["1", "7", "2.000", "2.000", "not measured", "not measured", "not measured"]);
    }

    #[test]
    fn means_are_over_the_seeds_of_a_variant() {
        let mut study = with_variants();
        for cell in study.cells.iter_mut().filter(|cell| cell.variant.as_deref() == Some("at once")) {
            cell.loss_curve.iter_mut().for_each(|curve| curve.losses[3] = 4.0);
        }
        let rows = &table(&study).unwrap().grids[0].rows;
        let last = |variant: &str| &rows.iter().find(|row| row[0] == variant).unwrap()[9];
        assert_eq!(
            (last("plain").as_str(), last("at once").as_str(), last("").as_str()),
            ("0.562", "4.000", "0.250")
        );
    }
}
