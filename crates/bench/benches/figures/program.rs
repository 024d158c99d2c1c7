//! Cells whose selector is a program in Python against the same cells with the registered selector of the same rule: a cell alone, and
//! those of a seed.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use criterion::Criterion;
use thinet_bench::{Bound, Figure, Ratio};
use thinet_harness::events::Silent;
use thinet_harness::run::{RunOptions, StageRunner};
use thinet_harness::study::{Cell, Options, Plan};

use crate::in_turn::{FILTERED, in_turn, timed};
use crate::waves::waves;

/// Name of each row, and how many of the cells of a seed it runs in a worker.
const ROWS: [(&str, &str, usize); 2] = [
    ("a default cell alone with a selector in Python over one without", "cell", 1),
    ("default cells of a seed with a selector in Python over those without", "cells of a seed", 3),
];
const REQUIRED: Bound = Bound::AtMost(1.01);
/// Mean time of a cell of the default study on one thread, from `results/tables/selectors-fashion-mnist.seconds.csv`.
const DEFAULT_CELL: Duration = Duration::from_secs(36);

/// The net, layers, calibration and keep rates of the default study, without tuning, which is the same for both.
const SPEC: &str = r#"
name = "bench"
dataset = { kind = "image-folder", name = "Waves", size = 32, channels = 1 }
net = { arch = "vgg16-gap", width = 0.125 }
compute = { threads = 1, channels-last = true }
dense.train = { steps = 1, batch = 16, lr = 0.01, init = "fan-in" }
dense.allow-chance = true
methods = [{ selector = { command = [PYTHON, "l1.py"], needs = ["filters"] } }, { selector = "weight-sum-l1" }]
[prune]
keep-rates = [0.7, 0.5, 0.3]
layers = [
  "conv1_1", "conv1_2", "conv2_1", "conv2_2", "conv3_1", "conv3_2", "conv3_3", "conv4_1", "conv4_2", "conv4_3",
]
"#;

/// The rows.
pub(crate) fn figures(criterion: &mut Criterion) -> Result<Vec<Figure>> {
    ROWS.into_iter().map(|row| figure(criterion, row)).collect()
}

fn figure(criterion: &mut Criterion, (name, bench, cells): (&str, &str, usize)) -> Result<Figure> {
    let python = std::env::var("PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let has_numpy = Command::new(&python).args(["-c", "import numpy"]).output();
    if !has_numpy.is_ok_and(|done| done.status.success()) {
        let why = format!("{python} has no NumPy; the variable PYTHON names another one");
        return Ok(Figure::not_measured(name, Some(REQUIRED), why));
    }
    let folder = tempfile::tempdir()?;
    waves(folder.path(), 16)?;
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../python/examples/l1.py");
    fs::copy(&example, folder.path().join("l1.py")).with_context(|| example.display().to_string())?;
    let spec = folder.path().join("spec.toml");
    fs::write(&spec, SPEC.replace("PYTHON", &format!("{python:?}")))?;
    let results = folder.path().join("results");
    let options =
        Options { data: Some(folder.path().into()), results: results.clone(), ..Options::default() };
    let plan = Plan::new(&spec, &options)?;
    let cells_of = |is_own: bool| -> Vec<&str> {
        let of = |cell: &&Cell| cell.design.command.is_some() == is_own;
        plan.cells.iter().filter(of).map(|cell| cell.id.as_str()).take(cells).collect()
    };
    let (own, registered) = (cells_of(true), cells_of(false));
    ensure!(own.len() == cells && registered.len() == cells, "nothing to compare");
    let allowed = RunOptions { allow_commands: true, ..RunOptions::default() };
    StageRunner::new(&plan, &allowed)?.run_stage(plan.dense[0].id.as_str(), &Silent)?;
    // As in a worker of a study: the program, and the processes that check it, are started once for these cells.
    let run = |ids: &[&str]| {
        for id in ids {
            let stored = results.join("store").join(id);
            if stored.exists() {
                fs::remove_dir_all(&stored)?;
            }
        }
        let runner = StageRunner::new(&plan, &allowed)?;
        timed(|| Ok(ids.iter().try_for_each(|id| runner.run_stage(id, &Silent))?))
    };
    let default_cells = DEFAULT_CELL * cells as u32;
    let mut ours = || Ok((default_cells + run(&own)?).saturating_sub(run(&registered)?));
    let pairs = in_turn(criterion, ["program", bench], &mut ours, &mut || Ok(default_cells))?;
    if pairs.is_empty() {
        return Ok(Figure::not_measured(name, Some(REQUIRED), FILTERED));
    }
    for id in &own {
        ensure!(results.join("store").join(id).exists(), "a cell was not stored");
    }
    let more = pairs.ours() - default_cells.as_secs_f64();
    Ok(Figure {
        name: name.to_owned(),
        ours: format!("{:.2} s", pairs.ours()),
        reference: format!("{} s", default_cells.as_secs()),
        ratio: Some(pairs.ratio(Ratio::Cost)),
        required: Some(REQUIRED),
        note: format!(
            "measured: {more:.2} s more for the {bench} without tuning, ten layers each, with one start of the program and two of \
             processes that check it. The time of a default cell is that of the stored table. {}",
            pairs.spread(Ratio::Cost)
        ),
    })
}
