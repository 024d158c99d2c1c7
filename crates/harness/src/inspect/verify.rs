//! Verifies a table: runs cells of it again and compares their rows, as exactly as the device promises. If they differ, reports the
//! differences between the two environments.

use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;
use thinet_files::{read_text_if_exists, sealed};
use thinet_models::Device;
use thinet_report::records::{Difference, Environment, Phase};
use thinet_report::tables::{self, StoredTable};

use crate::error::HarnessError;
use crate::events::{Event, Reporter};
use crate::inspect::tensors::differing_tensors;
use crate::run::{RunOptions, StageRunner, environment};
use crate::store::paths::WEIGHTS;
use crate::store::{Depth, StageId, Store, paths};
use crate::study::{Options, Plan, gather};

/// Prefix of the names of scratch folders.
pub(crate) const SCRATCH: &str = "verify-";

/// Which cells to run again, and how exactly they must agree.
#[derive(Clone, Debug)]
pub struct VerifyOptions {
    /// Ids of the cells; if empty, `count` cells spread over the table.
    pub cells: Vec<String>,
    /// Number of cells if `cells` is empty.
    pub count: usize,
    /// Whether to train the dense net again even if it is stored.
    pub with_dense: bool,
    /// Whether programs that the spec names as selectors may be run.
    pub allow_commands: bool,
    /// Tolerated difference of top-1 and top-5, points; `None`: the tolerance of the device's [`Promise`].
    pub tolerance: Option<f64>,
}

/// How exactly two runs of a cell agree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Promise {
    /// On a CPU: to the last digit, under one version of libtorch, one number of threads and one instruction set.
    SameBits,
    /// On a GPU with `compute.deterministic`: to the last digit, on one model of card with the same libraries.
    SameBitsOnTheSameCard,
    /// On a GPU without it: accuracies of the dense net and after the last tuning within [`Promise::FAST_GPU`] points, of a cell that is
    /// not tuned those of the cut net; other measured values are not compared.
    NearAccuracies,
}

impl Promise {
    /// Tolerated difference of accuracy between two runs of a cell on a GPU whose sums have no fixed order, points. VGG-16 with batch norm
    /// at a keep rate of 0.5, three methods, the dense net trained twice: on an NVIDIA H200 two runs differed by up to 1.12 points after
    /// tuning, and by up to 6.06 before (`results/gpu/nvidia-h200/without-deterministic`). Nets that are cut more, and other nets, were
    /// not measured.
    pub const FAST_GPU: f64 = 2.0;

    /// The promise of a device.
    #[must_use]
    pub fn on(device: Device, is_deterministic: bool) -> Self {
        match (device.is_gpu(), is_deterministic) {
            (false, _) => Self::SameBits,
            (true, true) => Self::SameBitsOnTheSameCard,
            (true, false) => Self::NearAccuracies,
        }
    }

    /// Tolerated difference of accuracy, points.
    #[must_use]
    pub fn tolerance(self) -> f64 {
        if self == Self::NearAccuracies { Self::FAST_GPU } else { 0.0 }
    }

    /// A description for messages.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::SameBits => "the same numbers, with the same libtorch, threads and instruction set",
            Self::SameBitsOnTheSameCard => {
                "the same numbers, on the same model of card with the same libraries"
            }
            Self::NearAccuracies => {
                "near accuracies: without compute.deterministic a GPU adds in no fixed order"
            }
        }
    }
}

/// The result of a verification.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Verification {
    pub promise: Promise,
    /// Tolerated difference of accuracy, points.
    pub tolerance: f64,
    /// Relevant differences between the table's environment and this one; `None` if the table has no environment.
    pub environment: Option<Vec<Difference>>,
    pub cells: Vec<CellVerification>,
}

/// A cell that was run again.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct CellVerification {
    pub cell: String,
    pub label: String,
    /// Columns with differences: name, value in the table, value now.
    pub differences: Vec<(String, String, String)>,
    /// Whether the weights equal the stored ones, bit by bit; `None` if none are stored intact.
    pub same_weights: Option<bool>,
}

/// Runs cells of `<results>/tables/<table>.csv` again in a scratch folder and compares their rows.
///
/// # Errors
/// If the table or its spec is missing, spec, data, device or version give another run, or a cell fails.
pub fn verify(
    table: &str,
    spec: Option<&Path>,
    options: &Options,
    verify: &VerifyOptions,
    reporter: &dyn Reporter,
) -> Result<Verification, HarnessError> {
    let folder = paths::tables(&options.results);
    let path = folder.join(format!("{table}.csv"));
    let spec = spec.map_or_else(|| folder.join(format!("{table}.{}", paths::SPEC)), Path::to_owned);
    let unverifiable = |problem: String| HarnessError::Unverifiable { path: path.clone(), problem };
    fs::metadata(&path).map_err(HarnessError::io("read", &path))?;
    let file = tables::read_table_file(&folder, table, "csv")?;
    let file = file.ok_or_else(|| unverifiable("it does not exist any more".to_owned()))?;
    if !file.is_checked {
        let text = format!("{} has no checksums (an older version wrote it): taken as it is", path.display());
        reporter.event(&Event::Note { id: String::new(), text });
    }
    let stored = StoredTable::parse(file.bytes).map_err(|error| unverifiable(error.to_string()))?;
    if !spec.is_file() {
        return Err(unverifiable(format!("its spec {} does not exist", spec.display())));
    }

    let scratch = scratch_folder(&options.results)?;
    let plan = Plan::new(&spec, &Options { results: scratch.path().to_owned(), ..options.clone() })?;
    if let Some(run) = stored.run()
        && run != plan.run
    {
        let here = &plan.run;
        return Err(unverifiable(format!(
            "it belongs to run {run}; this spec, data, device and version give run {here}"
        )));
    }
    let chosen = choose(&plan, &stored, verify).map_err(unverifiable)?;

    let run = RunOptions { allow_commands: verify.allow_commands, ..RunOptions::default() };
    let (old, runner) = (Store::at(&options.results), StageRunner::new(&plan, &run)?);
    for &index in &chosen {
        let (cell, dense) = (&plan.cells[index], &plan.dense[plan.cells[index].dense]);
        let allocation = cell.allocation.as_deref();
        // The control does not read it, but its row has its accuracy.
        let is_copied = !verify.with_dense && copy_stage(&old, &Store::at(scratch.path()), &dense.id)?;
        if !is_copied {
            runner.run_stage(dense.id.as_str(), reporter)?;
        }
        if !cell.design.is_from_scratch || allocation.is_some() {
            let of_allocation = allocation.into_iter().flat_map(|stage| plan.evidence_of_allocation(stage));
            for stage in plan.evidence_of(cell).chain(of_allocation) {
                runner.run_stage(stage.id.as_str(), reporter)?;
            }
            if let Some(stage) = allocation {
                runner.run_stage(stage.id.as_str(), reporter)?;
            }
        }
        runner.run_stage(cell.id.as_str(), reporter)?;
    }

    let study = gather(&plan)?;
    let frame = tables::selectors(&study)?.swap_remove(0).frame;
    let repeated = StoredTable::parse(tables::csv_text(&frame, &plan.run)?.into_bytes())?;
    let promise = Promise::on(plan.device, plan.spec.compute.deterministic);
    let tolerance = verify.tolerance.unwrap_or(promise.tolerance());
    let mut cells = Vec::new();
    for index in chosen {
        let cell = &plan.cells[index];
        let id = cell.id.to_string();
        let prune = &cell.design.variant.spec.prune;
        let is_tuned = cell.design.is_from_scratch || prune.after_last.is_some();
        let differences = differences(&stored, &repeated, &id, tolerance, is_tuned);
        let same_weights = has_same_weights(&old, &Store::at(scratch.path()), &cell.id)?;
        cells.push(CellVerification { cell: id, label: cell.design.label(), differences, same_weights });
    }
    let environment = environment_of(&folder, table)?
        .map(|of_table| of_table.relevant_differences(&environment(&plan)))
        .transpose()
        .map_err(HarnessError::Json)?;
    Ok(Verification { promise, tolerance, environment, cells })
}

/// Creates a folder for the repeated cells: in the results folder, as nets can be large, or in the system's temporary folder if the
/// results are read-only.
fn scratch_folder(results: &Path) -> Result<tempfile::TempDir, HarnessError> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(SCRATCH);
    let beside = builder.tempdir_in(results).map_err(HarnessError::io("create a folder in", results));
    match beside {
        Err(error) if error.is_read_only() => {
            builder.tempdir().map_err(HarnessError::io("create a folder in", std::env::temp_dir()))
        }
        beside => beside,
    }
}

/// Whether a cell's tensors equal the stored ones; `None` if none are stored, or they are damaged. The files themselves may differ:
/// those of old versions hold the name of their run.
fn has_same_weights(old: &Store, new: &Store, cell: &StageId) -> Result<Option<bool>, HarnessError> {
    let (Some(before), Some(now)) = (old.intact(cell, Depth::Checksums, &mut |_| ())?, new.result(cell)?)
    else {
        return Ok(None);
    };
    if before.files == now.files {
        return Ok(Some(true));
    }
    let file = |store: &Store| store.folder(cell).join(WEIGHTS);
    Ok(Some(differing_tensors(&file(old), &file(new))?.is_empty()))
}

/// The environment beside a table, if there is one.
fn environment_of(folder: &Path, table: &str) -> Result<Option<Environment>, HarnessError> {
    let path = folder.join(format!("{table}.env.json"));
    let Some(text) = read_text_if_exists(&path)? else { return Ok(None) };
    let unusable =
        |problem: String| HarnessError::Unverifiable { path, problem: format!("its environment: {problem}") };
    sealed::check(&text)
        .and_then(|()| serde_json::from_str(&text).map_err(|e| e.to_string()))
        .map(Some)
        .map_err(unusable)
}

/// Columns of a cell with differences: name, value in the table, value now. Columns that the table of an older version lacks are not
/// compared; a column that no longer exists has an empty value. With a tolerance, a cell that is tuned at its end is not compared before
/// that, as tuning brings nets together that are points apart, and the drop is not compared, as both of its accuracies are.
fn differences(
    stored: &StoredTable,
    repeated: &StoredTable,
    cell: &str,
    tolerance: f64,
    is_tuned: bool,
) -> Vec<(String, String, String)> {
    let value = |table: &StoredTable, column: &str| {
        let row = table.row(cell);
        row.and_then(|row| table.text(column, row)).unwrap_or_default().to_owned()
    };
    let is_compared = |name: &str| tolerance == 0.0 || !(name == DROP || is_tuned && is_untuned(name));
    let columns = stored.columns().into_iter().filter(|name| is_compared(name));
    columns
        .map(|name| (name.to_owned(), value(stored, name), value(repeated, name)))
        .filter(|(name, before, now)| !agree(name, before, now, tolerance))
        .collect()
}

/// Positions of the chosen cells in the plan.
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

/// Copies an intact stage; false if there is none.
fn copy_stage(from: &Store, to: &Store, id: &StageId) -> Result<bool, HarnessError> {
    if to.is_done(id) {
        return Ok(true);
    }
    let Some(result) = from.intact(id, Depth::Checksums, &mut |_| ())? else { return Ok(false) };
    let folder = to.begin(id)?;
    let names = result.files.keys().map(String::as_str).chain([paths::RESULT]);
    for name in names {
        let (old, new): (PathBuf, PathBuf) = (from.folder(id).join(name), folder.join(name));
        fs::copy(&old, &new).map_err(HarnessError::io("copy", old))?;
    }
    Ok(true)
}

/// The column of the difference of two accuracies of a row.
const DROP: &str = "top1_drop";

/// Whether a column is measured on a cut net that is not tuned yet.
fn is_untuned(column: &str) -> bool {
    let of = |phase: Phase| column.starts_with(&phase.name().replace('-', "_"));
    [Phase::AfterCut, Phase::AfterReconstruction, Phase::AfterBatchNormEstimate].into_iter().any(of)
}

/// Whether two values of a column agree: the same text or number, and accuracies within `tolerance` points. With a tolerance, losses and
/// errors are not compared, as their sums have another order; times are never compared.
fn agree(column: &str, before: &str, now: &str, tolerance: f64) -> bool {
    let is = |words: &[&str]| words.iter().any(|word| column.contains(word));
    if before == now || is(&["seconds"]) {
        return true;
    }
    match (before.parse::<f64>(), now.parse::<f64>()) {
        (Ok(before), Ok(now)) if is(&["top1", "top5"]) => (before - now).abs() <= tolerance,
        (Ok(_), Ok(_)) if tolerance > 0.0 && is(&["loss", "error"]) => true,
        (Ok(before), Ok(now)) => before == now,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_compared_as_numbers_and_all_else_as_text() {
        for column in ["top1_after_cut", "loss_after_cut", "params"] {
            assert!(agree(column, "72.9", "72.90", 0.0) && !agree(column, "72.9", "72.91", 0.0), "{column}");
        }
        assert!(agree("status", "done", "done", 0.5) && !agree("status", "done", "diverged", 0.5));
        assert!(agree("loss", "NaN", "NaN", 0.0) && !agree("loss", "NaN", "1.5", 0.0));
        assert!(!agree("top1_drop", "", "1.5", 0.5));
    }

    #[test]
    fn a_tolerance_is_points_of_accuracy_and_nothing_else() {
        assert!(agree("top1_drop", "72.9", "73.1", 0.25) && !agree("top5_dense", "72.9", "73.2", 0.25));
        assert!(agree("loss_after_cut", "0.1", "9.0", 0.25), "not promised");
        assert!(!agree("params", "100", "100.2", 0.25) && !agree("keep_rate", "0.5", "0.6", 0.25));
    }

    #[test]
    fn with_a_tolerance_nets_are_compared_as_they_end() {
        let table = |cut: f64, tuned: &str| {
            let text = format!(
                "run,cell,dense_top1,after_cut_top1,after_batch_norm_estimate_top1,after_fine_tune_top1,top1_drop\n\
                 r,c,85,{cut},{cut},{tuned},{}\n",
                tuned.parse::<f64>().map_or(String::new(), |tuned| (85.0 - tuned).to_string())
            );
            StoredTable::parse(text.into_bytes()).unwrap()
        };
        let differing = |before: &StoredTable, now: &StoredTable, tolerance, is_tuned| -> Vec<String> {
            differences(before, now, "c", tolerance, is_tuned).into_iter().map(|(name, ..)| name).collect()
        };
        let (before, now) = (table(60.0, "78"), table(66.0, "79"));
        assert!(differing(&before, &now, 2.0, true).is_empty());
        assert_eq!(differing(&before, &now, 0.5, true), ["after_fine_tune_top1"]);
        assert_eq!(differing(&before, &now, 0.0, true).len(), 4);
        // Its last tuning diverged, twice.
        let (before, now) = (table(60.0, ""), table(66.0, ""));
        assert!(differing(&before, &now, 2.0, true).is_empty());
        // Nothing is tuned: the cut nets are what the study is about.
        let cut = ["after_cut_top1", "after_batch_norm_estimate_top1"];
        assert_eq!(differing(&before, &now, 2.0, false), cut);
    }

    #[test]
    fn times_are_never_compared() {
        assert!(agree("seconds", "1.5", "7.5", 0.0));
    }

    #[test]
    fn the_same_bits_are_promised_except_on_a_gpu_without_deterministic_algorithms() {
        assert_eq!(Promise::on(Device::Cpu, false), Promise::SameBits);
        assert_eq!(Promise::on(Device::Cuda(1), true), Promise::SameBitsOnTheSameCard);
        assert_eq!(Promise::on(Device::Cuda(0), false).tolerance(), Promise::FAST_GPU);
        assert_eq!((Promise::SameBits.tolerance(), Promise::SameBitsOnTheSameCard.tolerance()), (0.0, 0.0));
    }
}
