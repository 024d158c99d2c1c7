//! The names of files and folders below a results folder that several files know; other names lie beside their only user.
//!
//! ```text
//! results/
//!   store/<stage>/        result.json (the record, last), weights.safetensors, evidence.safetensors, failure.json, checkpoints
//!   store/claims/<stage>  claims on stages
//!   store/damaged/        damaged stages that were set aside
//!   crops/                calibration images of photographs
//!   runs/<name>-<run>/    resolved.toml, stages.json, env.json, log.jsonl, metrics.csv, rows.parquet, claim, tensorboard/, slurm/
//!   tables/<table>.*      tables and what belongs to them
//!   figures/<figure>.*    figures of the tables
//!   report/               a page of the tables and figures
//! ```

use std::path::{Path, PathBuf};

/// Record that makes a stage complete.
pub const RESULT: &str = "result.json";
/// Why a stage failed last.
pub const FAILURE: &str = "failure.json";
/// Net of a stage.
pub const WEIGHTS: &str = "weights.safetensors";
/// One-shot evidence of a stage.
pub const EVIDENCE: &str = "evidence.safetensors";

/// Folder of the claims on stages, outside the folders of stages, so that a finished stage holds nothing else.
pub const CLAIMS: &str = "claims";
/// Folder of damaged stages that were set aside.
pub const DAMAGED: &str = "damaged";

/// Spec of a run with every default filled in. A folder with this file is a run.
pub const SPEC: &str = "resolved.toml";
/// Stages of a run.
pub const MANIFEST: &str = "stages.json";
/// Events of a run, one JSON object per line.
pub const LOG: &str = "log.jsonl";
/// Curves and measured values of a run with their steps, one per line.
pub const METRICS: &str = "metrics.csv";
/// Measured values of a run in long form.
pub const ROWS: &str = "rows.parquet";
/// Claim on a run.
pub const CLAIM: &str = "claim";
/// Event files of a run for TensorBoard.
pub const TENSORBOARD: &str = "tensorboard";
/// Batch scripts and jobs of a run.
pub const SLURM: &str = "slurm";

/// All stages.
#[must_use]
pub fn store(results: &Path) -> PathBuf {
    results.join("store")
}

/// Calibration images of photographs.
#[must_use]
pub fn crops(results: &Path) -> PathBuf {
    results.join("crops")
}

/// Folders of runs.
#[must_use]
pub fn runs(results: &Path) -> PathBuf {
    results.join("runs")
}

/// Tables.
#[must_use]
pub fn tables(results: &Path) -> PathBuf {
    results.join("tables")
}

/// Figures.
#[must_use]
pub fn figures(results: &Path) -> PathBuf {
    results.join("figures")
}

/// The report.
#[must_use]
pub fn report(results: &Path) -> PathBuf {
    results.join("report")
}
