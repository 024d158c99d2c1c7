//! Per-layer rows of a study: channels kept and the reconstruction error before and after the refit, for each cell and pruned layer.

use polars::frame::DataFrame;
use polars::prelude::Column;

use super::frame::column;
use super::groups::SeedStats;
use super::lines::{Line, in_order, variant_column};
use super::markdown::Grid;
use super::notes::{modes, origin, variants_note};
use super::{LAYERS, Table, TableError};
use crate::records::{Metric, Mode, Phase, StudyRecord};

/// One pruned layer of a cell.
struct LayerLine<'a> {
    line: &'a Line<'a>,
    layer: &'a str,
    /// Channels before the cut.
    channels: u64,
    /// Channels kept.
    kept: u64,
    /// Relative error of the next layer's inputs with w = 1.
    before: Option<f64>,
    /// The same with the refitted w; without a reconstruction the same value.
    after: Option<f64>,
}

/// Every pruned layer of every stored cell: cells in the order of the study, layers in the order in which they were pruned.
fn layer_lines<'a>(lines: &'a [Line<'a>]) -> Vec<LayerLine<'a>> {
    let mut all = Vec::new();
    for line in lines {
        let cell = line.cell;
        let mut layers: Vec<&str> = Vec::new();
        let measured = cell.rows.iter().map(|row| row.layer.as_str()).filter(|layer| !layer.is_empty());
        for layer in measured.chain(cell.kept.keys().map(String::as_str)) {
            if !layers.contains(&layer) {
                layers.push(layer);
            }
        }
        for layer in layers {
            let Some(channels) = cell.kept.get(layer) else { continue };
            let error = |phase| {
                let is_it = |row: &&crate::records::Row| {
                    (row.layer.as_str(), row.phase, row.metric) == (layer, phase, Metric::ReconstructionError)
                };
                cell.rows.iter().find(is_it).map(|row| row.value)
            };
            all.push(LayerLine {
                line,
                layer,
                channels: channels.width() as u64,
                kept: channels.kept().len() as u64,
                before: error(Phase::AfterCut),
                after: error(Phase::AfterReconstruction),
            });
        }
    }
    all
}

/// Channels and reconstruction errors of each pruned layer; `None` if no cell with a pruned layer is stored.
pub(super) fn layers(study: &StudyRecord, lines: &[Line]) -> Result<Option<Table>, TableError> {
    let all = layer_lines(lines);
    if all.is_empty() {
        return Ok(None);
    }
    let mut columns: Vec<Column> =
        variant_column(study, &all, |l| l.line.cell.variant.clone()).into_iter().collect();
    columns.extend([
        column("method", &all, |l| l.line.cell.method.as_str()),
        column("selector", &all, |l| l.line.cell.selector.as_str()),
        column("reconstruction", &all, |l| l.line.cell.reconstruction.as_str()),
        column("keep_rate", &all, |l| l.line.cell.keep_rate),
        column("seed", &all, |l| l.line.cell.seed),
        column("layer", &all, |l| l.layer),
        column("channels", &all, |l| l.channels),
        column("kept", &all, |l| l.kept),
        column("after_cut_reconstruction_error", &all, |l| l.before),
        column("after_reconstruction_reconstruction_error", &all, |l| l.after),
        column("experiment", &all, |_| study.name.as_str()),
        column("dataset", &all, |_| study.dataset.as_str()),
        column("net", &all, |_| study.net.as_str()),
        column("mode", &all, |l| study.mode_of(l.line.cell.variant.as_deref()).name()),
        column("cell", &all, |l| l.line.cell.id.as_str()),
    ]);
    Ok(Some(Table {
        name: format!("{}{LAYERS}", study.table),
        title: format!("Pruned layers on {}, {}", study.dataset, study.net),
        frame: DataFrame::new(all.len(), columns)?,
        grids: grids(lines, &all),
        notes: notes(study),
        attachments: Vec::new(),
    }))
}

/// One grid for each keep rate: layers of each variant down, methods across, means over seeds.
fn grids(lines: &[Line], all: &[LayerLine]) -> Vec<Grid> {
    let mut grids = Vec::new();
    for rate in in_order(lines, |l| l.cell.keep_rate) {
        let of_rate: Vec<&LayerLine> = all.iter().filter(|l| l.line.cell.keep_rate == rate).collect();
        let methods: Vec<&str> = in_order(lines, |l| l.cell.method.as_str())
            .into_iter()
            .filter(|method| of_rate.iter().any(|l| l.line.cell.method == *method))
            .collect();
        if methods.is_empty() {
            continue;
        }
        let variants = in_order(lines, |l| l.cell.variant.as_deref());
        let of_variant: &[&str] = if variants == [None] { &[] } else { &["<variant"] };
        let mut headings = [of_variant, &["<layer", "channels", "kept"]].concat();
        headings.extend(&methods);
        let mut grid = Grid::new(format!("Keep rate {rate}"), &headings);
        // Ordered by variant, as the lines are.
        let place = |l: &LayerLine| (l.line.cell.variant.clone(), l.layer.to_owned());
        let mut layers: Vec<&LayerLine> = Vec::new();
        for line in &of_rate {
            if !layers.iter().any(|other| place(other) == place(line)) {
                layers.push(line);
            }
        }
        for first in layers {
            let mut row: Vec<String> = first.line.cell.variant.iter().cloned().collect();
            row.extend([first.layer.to_owned(), first.channels.to_string(), first.kept.to_string()]);
            row.extend(methods.iter().map(|method| {
                let here = |l: &&&LayerLine| place(l) == place(first) && l.line.cell.method == *method;
                shown(&of_rate.iter().filter(here).copied().collect::<Vec<_>>())
            }));
            grid.rows.push(row);
        }
        grids.push(grid);
    }
    grids
}

/// `0.512 → 0.478`, or one number where nothing is refitted; mean over seeds.
fn shown(of_seeds: &[&LayerLine]) -> String {
    let mean = |value: &dyn Fn(&LayerLine) -> Option<f64>| {
        SeedStats::of(&of_seeds.iter().filter_map(|l| value(l)).collect::<Vec<_>>()).mean
    };
    let is_refitted = of_seeds.iter().any(|l| l.line.cell.reconstruction != "none");
    match (mean(&|l| l.before), mean(&|l| l.after)) {
        (Some(before), Some(after)) if is_refitted => format!("{before:.3} → {after:.3}"),
        (Some(before), _) => format!("{before:.3}"),
        (None, _) => "not measured".to_owned(),
    }
}

fn notes(study: &StudyRecord) -> Vec<String> {
    let of_mode = |mode: Mode| match mode {
        Mode::OneShot => "the dense net",
        Mode::LayerByLayer => "the net at the layer's turn (earlier layers cut, refitted and tuned)",
    };
    let net = match modes(study)[..] {
        [mode] => of_mode(mode).to_owned(),
        ref several => {
            let each: Vec<String> =
                several.iter().map(|mode| format!("{} in {mode} variants", of_mode(*mode))).collect();
            each.join(", of ")
        }
    };
    let mut notes = vec![
        origin(study),
        format!(
            "Reconstruction error ‖y − X_S·w‖₂ / ‖y‖₂ on the calibration sample of {net}: with w = 1 after the cut, → with \
             the refitted w; one number where a method refits nothing. Mean over seeds; each seed is in the CSV and Parquet \
             files."
        ),
        "Kept: channels of the layer after the cut. Which ones is in the main table's `kept.json`."
            .to_owned(),
    ];
    if study.cells.iter().any(|cell| cell.reconstruction == "full-kernel") {
        notes.push(
            "full-kernel: of all outputs at the sampled places, not of one filter at each; after → with the refitted kernels.".to_owned(),
        );
    }
    notes.extend(variants_note(study));
    notes.extend(study.left_out());
    notes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::Status;
    use crate::tables::lines::lines;
    use crate::tables::sample::{study, with_variants};

    fn table(study: &StudyRecord) -> Option<Table> {
        layers(study, &lines(study, &study.cells).unwrap()).unwrap()
    }

    #[test]
    fn the_markdown_is_pinned() {
        insta::assert_snapshot!("layers", table(&study()).unwrap().markdown());
    }

    #[test]
    fn every_layer_of_a_stored_cell_is_a_row_in_the_order_of_pruning() {
        let mut study = study();
        for cell in &mut study.cells {
            // Pruned from the back, so not in the order of names.
            cell.rows.reverse();
        }
        let frame = table(&study).unwrap().frame;
        let stored = study.cells.iter().filter(|cell| cell.status != Status::NotRun).count();
        assert_eq!(frame.height(), 2 * stored);
        let texts = frame.column("layer").unwrap().str().unwrap();
        assert_eq!((texts.get(0), texts.get(1)), (Some("conv2"), Some("conv1")));
        let numbers = |name: &str| frame.column(name).unwrap().u64().unwrap().get(0);
        assert_eq!((numbers("channels"), numbers("kept")), (Some(8), Some(4)));
        let errors = |name: &str| frame.column(name).unwrap().f64().unwrap().get(0);
        assert_eq!(errors("after_cut_reconstruction_error"), Some(0.25));
        assert_eq!(errors("after_reconstruction_reconstruction_error"), None, "not recorded in this study");
    }

    #[test]
    fn a_study_that_was_not_run_has_no_such_table() {
        let mut study = study();
        for cell in &mut study.cells {
            (cell.status, cell.rows) = (Status::NotRun, Vec::new());
            cell.kept.clear();
        }
        assert!(table(&study).is_none());
    }

    #[test]
    fn means_are_over_the_seeds_of_a_variant_not_over_variants() {
        let mut of_variants = with_variants();
        for cell in of_variants.cells.iter_mut().filter(|cell| cell.variant.as_deref() == Some("at once")) {
            let errors = |row: &&mut crate::records::Row| row.metric == Metric::ReconstructionError;
            cell.rows.iter_mut().filter(errors).for_each(|row| row.value *= 3.0);
        }
        let table = table(&of_variants).unwrap();
        let rows = &table.grids[0].rows;
        let error = |variant: &str| {
            let row = rows.iter().find(|row| row[0] == variant && row[1] == "conv1").unwrap();
            row[5].parse::<f64>().unwrap()
        };
        assert_eq!((error("plain"), error("at once")), (0.125, 0.375), "{rows:#?}");
        let modes = table.frame.column("mode").unwrap().str().unwrap();
        let variants = table.frame.column("variant").unwrap().str().unwrap();
        for (variant, mode) in variants.iter().zip(modes.iter()) {
            assert_eq!(mode, Some(of_variants.mode_of(variant).name()));
        }
    }
}
