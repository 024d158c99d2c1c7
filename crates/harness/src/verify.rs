//! A committed table put to the test: cells of it are made anew and their rows compared, bit by bit or within a tolerance.

use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::compare::differing_tensors;
use crate::error::HarnessError;
use crate::plan::{Options, Plan};
use crate::progress::{Event, Reporter};
use crate::run::RunOptions;
use crate::runner::Runner;
use crate::stages::WEIGHTS;
use crate::store::{Depth, StageId, Store};
use crate::study::study;
use crate::tables::{self, StoredTable};

/// How the names of scratch folders begin.
pub(crate) const SCRATCH: &str = "verify-";

/// Which cells are made again, and how exactly they must agree.
#[derive(Clone, Debug)]
pub struct VerifyOptions {
    /// Ids of cells; empty: `count` of them, spread over the table.
    pub cells: Vec<String>,
    /// How many.
    pub count: usize,
    /// Whether the dense net is trained again, too, although it is stored.
    pub with_dense: bool,
    /// Largest difference of a number; none: the text must be the same.
    pub tolerance: Option<f64>,
}

/// A cell that was made again.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Verified {
    /// Its id.
    pub cell: String,
    /// What it is, for people.
    pub label: String,
    /// Columns that differ: name, value in the table, value now.
    pub differences: Vec<(String, String, String)>,
    /// Whether the weights are those that are stored, bit by bit; none if nothing whole is stored.
    pub same_weights: Option<bool>,
}

/// Makes cells of `<results>/tables/<table>.csv` again in a scratch folder and compares their rows.
///
/// # Errors
/// If the table or its spec is not there, spec, data, device or version would make another run, or a cell fails.
pub fn verify(
    table: &str,
    spec: Option<&Path>,
    options: &Options,
    verify: &VerifyOptions,
    reporter: &dyn Reporter,
) -> Result<Vec<Verified>, HarnessError> {
    let folder = options.results.join("tables");
    let path = folder.join(format!("{table}.csv"));
    let spec = spec.map_or_else(|| folder.join(format!("{table}.resolved.toml")), Path::to_owned);
    let unfit = |problem: String| HarnessError::Unverifiable { path: path.clone(), problem };
    fs::metadata(&path).map_err(HarnessError::io("read", &path))?;
    let file = tables::read_table_file(&folder, table, "csv")?;
    let file = file.ok_or_else(|| unfit("it is not there any more".to_owned()))?;
    if !file.is_checked {
        let text = format!("{} has no checksums (an older version wrote it): taken as it is", path.display());
        reporter.event(&Event::Note { id: String::new(), text });
    }
    let stored = StoredTable::parse(file.bytes).map_err(|error| unfit(error.to_string()))?;
    if !spec.is_file() {
        return Err(unfit(format!("its spec {} is not there", spec.display())));
    }

    let scratch = tempfile::Builder::new().prefix(SCRATCH).tempdir_in(&options.results);
    let scratch = scratch.map_err(HarnessError::io("create a folder in", &options.results))?;
    let plan = Plan::new(&spec, &Options { results: scratch.path().to_owned(), ..options.clone() })?;
    if let Some(run) = stored.run()
        && run != plan.run
    {
        let here = &plan.run;
        return Err(unfit(format!(
            "it is of run {run}; this spec, data, device and version make run {here}"
        )));
    }
    let chosen = choose(&plan, &stored, verify).map_err(unfit)?;

    let (old, runner) = (Store::at(&options.results), Runner::new(&plan, &RunOptions::default())?);
    for &index in &chosen {
        let (cell, dense) = (&plan.cells[index], &plan.dense[plan.cells[index].dense]);
        if !cell.outline.is_from_scratch {
            let is_copied = !verify.with_dense && copy_stage(&old, &Store::at(scratch.path()), &dense.id)?;
            if !is_copied {
                runner.run_stage(dense.id.as_str(), reporter)?;
            }
            for stage in plan.evidence_of(cell) {
                runner.run_stage(stage.id.as_str(), reporter)?;
            }
        }
        runner.run_stage(cell.id.as_str(), reporter)?;
    }

    let made = study(&plan)?;
    let frame = tables::selectors(&made)?.swap_remove(0).frame;
    let made = StoredTable::parse(tables::csv_text(&frame, &plan.run)?.into_bytes())?;
    let mut verified = Vec::new();
    for index in chosen {
        let cell = &plan.cells[index];
        let id = cell.id.to_string();
        let differences = differences(&stored, &made, &id, verify.tolerance);
        let same_weights = has_same_weights(&old, &Store::at(scratch.path()), &cell.id)?;
        verified.push(Verified { cell: id, label: cell.outline.label(), differences, same_weights });
    }
    Ok(verified)
}

/// Whether a cell's tensors are those that are stored; none if none are stored, or they are damaged. The files themselves may differ:
/// those of old versions hold the name of the run that made them.
fn has_same_weights(old: &Store, new: &Store, cell: &StageId) -> Result<Option<bool>, HarnessError> {
    let (Some(before), Some(now)) = (old.intact(cell, Depth::Sizes, &mut |_| ())?, new.result(cell)?) else {
        return Ok(None);
    };
    if before.files == now.files {
        return Ok(Some(true));
    }
    if old.intact(cell, Depth::Checksums, &mut |_| ())?.is_none() {
        return Ok(None);
    }
    let file = |store: &Store| store.folder(cell).join(WEIGHTS);
    Ok(Some(differing_tensors(&file(old), &file(new))?.is_empty()))
}

/// Columns of a cell that differ: name, value in the table, value now. What a table does not have is empty.
fn differences(
    stored: &StoredTable,
    made: &StoredTable,
    cell: &str,
    tolerance: Option<f64>,
) -> Vec<(String, String, String)> {
    let value = |table: &StoredTable, column: &str| {
        let row = table.row(cell);
        row.and_then(|row| table.text(column, row)).unwrap_or_default().to_owned()
    };
    let columns = stored.columns().into_iter();
    let columns = columns.chain(made.columns().into_iter().filter(|name| !stored.columns().contains(name)));
    columns
        .map(|name| (name.to_owned(), value(stored, name), value(made, name)))
        .filter(|(_, before, now)| !agree(before, now, tolerance))
        .collect()
}

/// Positions in the plan of the cells to make.
fn choose(plan: &Plan, stored: &StoredTable, verify: &VerifyOptions) -> Result<Vec<usize>, String> {
    let known = |id: &str| plan.cells.iter().position(|cell| cell.id.as_str() == id);
    if !verify.cells.is_empty() {
        return verify
            .cells
            .iter()
            .map(|id| known(id).ok_or_else(|| format!("it has no cell {id}")))
            .collect();
    }
    let run: Vec<usize> = (0..plan.cells.len())
        .filter(|&index| {
            let row = stored.row(plan.cells[index].id.as_str());
            row.and_then(|row| stored.text("status", row)).is_some_and(|status| status != "not-run")
        })
        .collect();
    if run.is_empty() {
        return Err("none of its cells was run".into());
    }
    let count = verify.count.clamp(1, run.len());
    Ok((0..count).map(|i| run[i * run.len() / count]).collect())
}

/// Copies a stage that is stored as its record says; false if there is none.
fn copy_stage(from: &Store, to: &Store, id: &StageId) -> Result<bool, HarnessError> {
    if to.is_done(id) {
        return Ok(true);
    }
    let Some(result) = from.intact(id, Depth::Checksums, &mut |_| ())? else { return Ok(false) };
    let folder = to.begin(id)?;
    let names = result.files.keys().map(String::as_str).chain([crate::store::RESULT]);
    for name in names {
        let (old, new): (PathBuf, PathBuf) = (from.folder(id).join(name), folder.join(name));
        fs::copy(&old, &new).map_err(HarnessError::io("copy", old))?;
    }
    Ok(true)
}

/// The same text, or numbers that are near.
fn agree(before: &str, now: &str, tolerance: Option<f64>) -> bool {
    match (tolerance, before.parse::<f64>(), now.parse::<f64>()) {
        (Some(tolerance), Ok(before), Ok(now)) => (before - now).abs() <= tolerance,
        _ => before == now,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_agree_within_a_tolerance_and_else_as_text() {
        assert!(agree("72.9", "72.9", None) && !agree("72.9", "72.90", None));
        assert!(agree("72.9", "73.1", Some(0.25)) && !agree("72.9", "73.2", Some(0.25)));
        assert!(agree("done", "done", Some(0.5)) && !agree("done", "diverged", Some(0.5)));
    }
}
