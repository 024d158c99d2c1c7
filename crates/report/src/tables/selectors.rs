//! The tables of a study: one line per method, keep rate and seed.

use std::collections::BTreeMap;

use polars::frame::DataFrame;
use polars::prelude::Column;
use serde::Serialize;
use thinet_graph::ChannelSet;

use super::asked::AskedColumns;
use super::checklist::checklist;
use super::differences::differences;
use super::draws::draws;
use super::frame::column;
use super::groups::groups;
use super::layers::layers;
use super::lines::{
    Line, Quality, all_uncut_rates, heading, in_order, lines, phases_in_files, phases_shown, shown, sizes,
    status_name, tested, variant_column, with_dense_nets,
};
use super::losses::losses;
use super::markdown::{Grid, short_count};
use super::notes::{last_word, origin, phases_note, test_images, uncut_note, variants_note};
use super::summary::summary;
use super::tau::tau;
use super::{Attachment, Table, TableError};
use crate::published::Published;
use crate::records::{CellRecord, Phase, Status, StudyRecord};

/// The tables of a study: every cell (with the kept channels as JSON), means over seeds, rank agreement with the paper, differences
/// between methods, the spread over calibration draws, the layers of each cell, loss curves, the checklist.
///
/// # Errors
/// If a cell has no dense net of its seed, a value is recorded twice, or the published numbers are inconsistent.
pub fn selectors(study: &StudyRecord) -> Result<Vec<Table>, TableError> {
    let published = Published::load()?;
    let cells = with_dense_nets(study);
    let lines = lines(study, &cells)?;
    let main = Table {
        name: study.table.clone(),
        title: format!("Selection methods on {}, {}", study.dataset, study.net),
        frame: frame(study, &lines)?,
        grids: grids(study, &lines)?,
        notes: notes(study, &lines),
        attachments: vec![Attachment { suffix: "kept.json", text: kept_json(study, &lines)? }],
    };
    let mut tables = vec![main, summary(study, &lines, &published)?, tau(study, &lines, &published)?];
    tables.extend(differences(study, &lines)?);
    tables.extend(draws(study, &lines)?);
    tables.extend(layers(study, &lines)?);
    tables.extend(losses(study, &lines)?);
    tables.extend(checklist(study, &lines, &groups(&lines, &published))?);
    Ok(tables)
}

fn frame(study: &StudyRecord, lines: &[Line]) -> Result<DataFrame, TableError> {
    let mut columns: Vec<Column> =
        variant_column(study, lines, |l| l.cell.variant.clone()).into_iter().collect();
    columns.extend([
        column("method", lines, |l| l.cell.method.as_str()),
        column("selector", lines, |l| l.cell.selector.as_str()),
        column("reconstruction", lines, |l| l.cell.reconstruction.as_str()),
        column("keep_rate", lines, |l| l.cell.keep_rate),
        column("seed", lines, |l| l.cell.seed),
        column("status", lines, |l| status_name(l.cell.status)),
        column("dense_status", lines, |l| status_name(l.dense.status)),
    ]);
    for phase in [Phase::Dense].into_iter().chain(phases_in_files(lines)) {
        let name = |metric: &str| format!("{}_{metric}", phase.name().replace('-', "_"));
        columns.push(column(&name("top1"), lines, |l| l.at(phase).top1));
        columns.push(column(&name("top5"), lines, |l| l.at(phase).top5));
        columns.push(column(&name("loss"), lines, |l| l.at(phase).loss));
    }
    columns.extend([
        column("top1_drop", lines, Line::drop),
        column("params", lines, |l| l.cell.size.map(|size| size.paper.params)),
        column("flops", lines, |l| l.cell.size.map(|size| size.paper.flops)),
        column("macs", lines, |l| l.cell.size.map(|size| size.paper.macs)),
        column("all_parameters", lines, |l| l.cell.size.map(|size| size.all_parameters.params)),
        column("times_fewer_params", lines, Line::fewer_params),
        column("times_fewer_flops", lines, Line::fewer_flops),
        column("experiment", lines, |_| study.name.as_str()),
        column("dataset", lines, |_| study.dataset.as_str()),
        column("net", lines, |_| study.net.as_str()),
        column("mode", lines, |l| study.mode_of(l.cell.variant.as_deref()).name()),
        column("tuning_steps", lines, |l| l.cell.tuning_steps),
        column("train_loss", lines, |l| l.train_loss),
        column("dense_params", lines, |l| l.dense.size.paper.params),
        column("dense_flops", lines, |l| l.dense.size.paper.flops),
        column("params_fraction", lines, Line::params_fraction),
        column("flops_fraction", lines, Line::flops_fraction),
    ]);
    let asked = AskedColumns::of(lines);
    if asked.has_targets {
        columns.push(column("flops_target", lines, |l| l.cell.flops_target));
    }
    if asked.is_allocated {
        columns.push(column("channels_fraction", lines, |l| l.cell.channels_fraction));
    }
    columns.extend([
        column("dense_test_images", lines, |l| l.dense.test_images),
        column("test_images", lines, |l| l.cell.test_images),
        column("cell", lines, |l| l.cell.id.as_str()),
    ]);
    Ok(DataFrame::new(lines.len(), columns)?)
}

fn grids(study: &StudyRecord, lines: &[Line]) -> Result<Vec<Grid>, TableError> {
    let mut grids = vec![dense_grid(study)?];
    let phases = phases_shown(lines);
    let last = phases.last().copied().unwrap_or(Phase::AfterFineTune);
    let asked = AskedColumns::of(lines);
    for rate in in_order(lines, |l| l.cell.keep_rate) {
        let of_rate = |l: &&Line| l.cell.keep_rate == rate && !l.is_dense();
        let of_rate: Vec<&Line> = lines.iter().filter(of_rate).collect();
        if of_rate.is_empty() {
            continue;
        }
        let word = last_word(lines);
        let (top5, loss) = (format!("{word} top-5, %"), format!("{word} loss"));
        let of_variant: &[&str] = if study.variants.is_empty() { &[] } else { &["<variant"] };
        let mut headings = [of_variant, &["<method", "seed"], &asked.headings()].concat();
        headings.extend(phases.iter().map(|&phase| heading(phase)));
        headings.extend(["drop, points", top5.as_str(), loss.as_str()]);
        let mut grid = Grid::new(format!("Keep rate {rate}: {}", sizes(&of_rate)), &headings);
        for line in of_rate {
            let mut row: Vec<String> = line.cell.variant.iter().cloned().collect();
            row.extend([line.cell.method.clone(), line.cell.seed.to_string()]);
            row.extend(asked.shown(line.got()));
            row.extend(phases.iter().map(|&phase| line.shown(line.at(phase).top1, 2)));
            let Quality { top5, loss, .. } = line.at(last);
            row.extend([line.shown(line.drop_at(last), 2), line.shown(top5, 2), line.shown(loss, 4)]);
            grid.rows.push(row);
        }
        grids.push(grid);
    }
    Ok(grids)
}

fn dense_grid(study: &StudyRecord) -> Result<Grid, TableError> {
    let headings = ["<net", "seed", "top-1, %", "top-5, %", "loss", "params", "FLOPs"];
    let rates: String = all_uncut_rates(study).iter().map(|rate| format!(": keep rate {rate}")).collect();
    let mut grid = Grid::new(format!("Before pruning{rates}"), &headings);
    for dense in &study.dense {
        let quality = Quality::read(&dense.id, &dense.rows, Phase::Dense)?;
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

fn notes(study: &StudyRecord, lines: &[Line]) -> Vec<String> {
    let mut notes = vec![
        origin(study),
        format!(
            "Top-1 and top-5 are per cent of the {}, losses mean cross-entropy in nats; drop: top-1 of the seed's own \
             dense net less the {} top-1.",
            test_images(tested(lines)),
            last_word(lines)
        ),
        phases_note(study, lines),
        "Params and FLOPs follow the convention `paper`: weights without biases, 2·C values per batch norm; FLOPs \
         are 2 × multiply-adds plus 4·C per batch norm."
            .to_owned(),
        "diverged: a loss, a weight or a test became NaN or infinite, values from there on do not exist; not run: \
         nothing is stored."
            .to_owned(),
        format!(
            "Top-5 and loss of every stage, training losses, multiply-adds and fractions of the dense net are in the CSV \
             and Parquet files, the kept channels in `{0}.kept.json`, how long each stage took in `{0}.seconds.csv` (which \
             differs from run to run).",
            study.table
        ),
    ];
    notes.extend(variants_note(study));
    notes.extend(AskedColumns::of(lines).notes());
    notes.extend(uncut_note(study));
    notes.extend(study.left_out());
    notes
}

/// A cell's kept channels, one line of the JSON file.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct KeptChannels<'a> {
    cell: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    variant: &'a Option<String>,
    method: &'a str,
    keep_rate: f64,
    seed: u64,
    status: Status,
    kept: &'a BTreeMap<String, ChannelSet>,
}

/// Kept channels of every cell as JSON, a line per cell.
fn kept_json(study: &StudyRecord, lines: &[Line]) -> Result<String, TableError> {
    let mut cells = Vec::new();
    for cell in lines.iter().filter(|line| !line.is_dense()).map(|line| line.cell) {
        let CellRecord { id, variant, method, keep_rate, seed, status, kept, .. } = cell;
        let (keep_rate, seed, status) = (*keep_rate, *seed, *status);
        let kept = KeptChannels { cell: id, variant, method, keep_rate, seed, status, kept };
        cells.push(serde_json::to_string(&kept)?);
    }
    let run = serde_json::to_string(&study.run)?;
    Ok(format!("{{\"run\":{run},\"cells\":[\n{}\n]}}\n", cells.join(",\n")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::{Mode, Row, Unfit};
    use crate::tables::CHECKLIST;
    use crate::tables::frame::tests::{floats, texts};
    use crate::tables::sample::{study, with_variants};

    #[test]
    fn the_markdown_is_pinned() {
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
    fn seeds_of_an_unfit_dense_net_are_marked_in_their_cells_and_empty_in_the_file() {
        let mut study = study();
        study.dense[1].unfit = Some(Unfit::NearChance { top1: 10.0, chance: 10.0 });
        for cell in study.cells.iter_mut().filter(|cell| cell.seed == 1 || cell.method == "thinet") {
            (cell.status, cell.rows) = (Status::NotRun, Vec::new());
        }
        let tables = selectors(&study).unwrap();
        let rows: Vec<&Vec<String>> = tables[0].grids[1..].iter().flat_map(|grid| &grid.rows).collect();
        for row in &rows {
            let expected = match (row[1].as_str(), row[0].as_str()) {
                ("1", _) => "dense net failed",
                (_, "thinet") => "not run",
                _ => continue,
            };
            assert_eq!(row[2..], [expected; 6], "{row:?}");
        }
        let (status, seed) = (texts(&tables[0].frame, "status"), tables[0].frame.column("seed").unwrap());
        let tuned = floats(&tables[0].frame, "after_fine_tune_top1");
        for (at, seed) in seed.u64().unwrap().iter().enumerate().filter(|(_, seed)| *seed == Some(1)) {
            assert_eq!((status[at].as_str(), tuned[at]), ("not-run", None), "{seed:?}");
        }
        let summary = tables[1].markdown();
        assert!(summary.contains("| n = 1, 1 dense net failed "), "{summary}");
        assert!(summary.contains("| n = 0, 1 not run, 1 dense net failed "), "{summary}");
        study.dense[0].unfit = Some(Unfit::Diverged);
        for cell in &mut study.cells {
            (cell.status, cell.rows) = (Status::NotRun, Vec::new());
        }
        let summary = selectors(&study).unwrap()[1].markdown();
        assert!(summary.contains(" dense net failed |") && !summary.contains("not run"), "{summary}");
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
    fn a_keep_rate_that_cuts_nothing_is_the_dense_net_once() {
        let study = StudyRecord { uncut_rates: vec![1.0], ..study() };
        let tables = selectors(&study).unwrap();
        let frame = &tables[0].frame;
        let (methods, rates) = (texts(frame, "method"), floats(frame, "keep_rate"));
        let whole: Vec<usize> = (0..frame.height()).filter(|&row| rates[row] == Some(1.0)).collect();
        assert_eq!(whole, [0, 1], "a row for each seed");
        assert!(whole.iter().all(|&row| methods[row] == "dense"));
        let value = |name: &str| floats(frame, name)[0];
        assert_eq!(
            (value("dense_top1"), value("after_fine_tune_top1"), value("top1_drop")),
            (Some(91.5), None, None)
        );
        assert_eq!((value("params_fraction"), value("flops_fraction")), (Some(1.0), Some(1.0)));
        let text = tables[0].markdown();
        assert!(
            text.contains("## Before pruning: keep rate 1\n") && !text.contains("## Keep rate 1:"),
            "{text}"
        );
        assert!(!tables[0].attachments[0].text.contains("dense"), "nothing was kept or cut");
        insta::assert_snapshot!("selectors_uncut_summary", tables[1].markdown());
        assert_eq!(
            floats(&tables[2].frame, "keep_rate"),
            [Some(0.5), Some(0.25)],
            "no rank at a rate that cuts nothing"
        );
    }

    #[test]
    fn the_number_of_test_images_is_a_column_and_given_only_if_stored() {
        let mut study = study();
        let note = |study: &StudyRecord| selectors(study).unwrap()[0].notes[1].clone();
        assert!(note(&study).contains("per cent of the 1,000 test images, losses"), "{}", note(&study));
        study.cells[0].test_images = Some(998);
        assert!(note(&study).contains("test images, 998 to 1,000 of them (column"), "{}", note(&study));
        let table = selectors(&study).unwrap().remove(0);
        let images = table.frame.column("test_images").unwrap().u64().unwrap();
        assert_eq!((images.get(0), images.get(1)), (Some(998), Some(1000)));
        for cell in &mut study.cells {
            cell.test_images = None;
        }
        assert!(
            note(&study).contains("1,000 test images (of some nets their number is not stored), losses"),
            "{}",
            note(&study)
        );
        for dense in &mut study.dense {
            dense.test_images = None;
        }
        assert!(note(&study).contains("per cent of the test images, losses"), "{}", note(&study));
    }

    /// The invented study as selection alone: nothing is tuned, and cut nets are tested with estimated batch-norm statistics.
    fn selection_alone() -> StudyRecord {
        let mut study = study();
        study.mode = Mode::OneShot;
        for cell in &mut study.cells {
            cell.rows.retain(|row| row.phase != Phase::AfterFineTune);
            cell.tuning_steps = cell.tuning_steps.map(|_| 0);
            let refitted = cell
                .rows
                .iter()
                .filter(|row| row.phase == Phase::AfterReconstruction && row.layer.is_empty());
            let estimated: Vec<_> = refitted
                .map(|row| Row {
                    phase: Phase::AfterBatchNormEstimate,
                    value: row.value + 20.0,
                    ..row.clone()
                })
                .collect();
            cell.rows.extend(estimated);
        }
        study
    }

    #[test]
    fn selection_alone_shows_what_was_measured_and_no_tuning() {
        let tables = selectors(&selection_alone()).unwrap();
        insta::assert_snapshot!("selection_alone_main", tables[0].markdown());
        insta::assert_snapshot!("selection_alone_summary", tables[1].markdown());
        let (refit, estimated) = (
            floats(&tables[0].frame, "after_reconstruction_top1"),
            floats(&tables[0].frame, "after_batch_norm_estimate_top1"),
        );
        for (refit, estimated) in refit.iter().zip(&estimated) {
            assert_eq!(refit.map(|top1| top1 + 20.0), *estimated);
        }
        assert!(tables[1].frame.column("after_batch_norm_estimate_top1_mean").is_ok());
        // Without either the refitted nets are the last ones.
        assert!(tables[2].notes[1].contains("mean BN top-1"), "{:?}", tables[2].notes);
        let mut refitted = selection_alone();
        for cell in &mut refitted.cells {
            cell.rows.retain(|row| row.phase != Phase::AfterBatchNormEstimate);
        }
        let tau = selectors(&refitted).unwrap().remove(2);
        assert!(tau.notes[1].contains("mean refit top-1"), "{:?}", tau.notes);
        // Files of other studies keep their columns.
        let plain = selectors(&study()).unwrap();
        assert!(plain[0].frame.column("after_batch_norm_estimate_top1").is_err());
    }

    #[test]
    fn variants_are_a_column_and_each_has_the_tables_of_a_study() {
        let mut tables = selectors(&with_variants()).unwrap();
        // The checklist is about the study as a whole.
        tables.retain(|table| !table.name.ends_with(CHECKLIST));
        for table in &tables {
            insta::assert_snapshot!(table.name.replace("selectors-invented", "variants"), table.markdown());
            assert_eq!(table.frame.get_column_names()[0].as_str(), "variant", "{}", table.name);
        }
        for (table, alone) in tables.iter().zip(&selectors(&study()).unwrap()) {
            let mut of_first = Vec::new();
            for mut row in table.rows().unwrap() {
                let variant = row.remove("variant").unwrap();
                let against = row.remove("against_variant");
                // The dense nets are those of all variants.
                if (variant == "plain" || variant.is_null())
                    && against.is_none_or(|against| against == "plain")
                {
                    row.retain(|column, _| !["cell", "stage"].contains(&column.as_str()));
                    of_first.push(row);
                }
            }
            let mut expected = alone.rows().unwrap();
            expected
                .iter_mut()
                .for_each(|row| row.retain(|column, _| !["cell", "stage"].contains(&column.as_str())));
            assert!(of_first == expected, "{}", table.name);
        }
        let kept: serde_json::Value = serde_json::from_str(&tables[0].attachments[0].text).unwrap();
        assert_eq!(kept["cells"][0]["variant"], "plain");
    }

    #[test]
    fn a_keep_rate_that_some_variants_do_not_cut_is_the_dense_net_in_those() {
        let mut study = with_variants();
        study.variants[1].uncut_rates = vec![1.0];
        let tables = selectors(&study).unwrap();
        let frame = &tables[0].frame;
        let (variants, methods) = (texts(frame, "variant"), texts(frame, "method"));
        let dense: Vec<&str> =
            variants.iter().zip(&methods).filter(|(_, m)| *m == "dense").map(|(v, _)| v.as_str()).collect();
        assert_eq!(dense, ["at once", "at once"], "one for each seed");
        assert!(tables[0].markdown().contains("Before pruning: keep rate 1"));
    }
}
