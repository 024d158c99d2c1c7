//! A cell whose selector is a program in Python against the same cell with the registered selector of the same rule.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use criterion::Criterion;
use thinet_bench::{Bound, Figure, Ratio};
use thinet_harness::events::Silent;
use thinet_harness::run::{RunOptions, StageRunner};
use thinet_harness::study::{Options, Plan};

use crate::in_turn::{FILTERED, in_turn, timed};
use crate::waves::waves;

const NAME: &str = "a default cell with a selector in Python over one without";
const REQUIRED: Bound = Bound::AtMost(1.01);
/// Mean time of a cell of the default study on one thread, from `results/tables/selectors-fashion-mnist.seconds.csv`.
const DEFAULT_CELL: Duration = Duration::from_secs(36);

/// The net, layers and calibration of the default study, without tuning, which is the same for both.
const SPEC: &str = r#"
name = "bench"
dataset = { kind = "image-folder", name = "Waves", size = 32, channels = 1 }
net = { arch = "vgg16-gap", width = 0.125 }
compute = { threads = 1, channels-last = true }
dense.train = { steps = 1, batch = 16, lr = 0.01, init = "fan-in" }
dense.allow-chance = true
methods = [{ selector = { command = [PYTHON, "l1.py"], needs = ["filters"] } }, { selector = "weight-sum-l1" }]
[prune]
keep-rates = [0.5]
layers = [
  "conv1_1", "conv1_2", "conv2_1", "conv2_2", "conv3_1", "conv3_2", "conv3_3", "conv4_1", "conv4_2", "conv4_3",
]
"#;

/// The row.
pub(crate) fn figure(criterion: &mut Criterion) -> Result<Figure> {
    let python = std::env::var("PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let has_numpy = Command::new(&python).args(["-c", "import numpy"]).output();
    if !has_numpy.is_ok_and(|done| done.status.success()) {
        let why = format!("{python} has no NumPy; the variable PYTHON names another one");
        return Ok(Figure::not_measured(NAME, Some(REQUIRED), why));
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
    let [own, registered] = [&plan.cells[0].id, &plan.cells[1].id].map(|id| id.as_str());
    let allowed = RunOptions { allow_commands: true, ..RunOptions::default() };
    StageRunner::new(&plan, &allowed)?.run_stage(plan.dense[0].id.as_str(), &Silent)?;
    // With the start of the program, and of the second process that checks it.
    let cell = |id: &str| {
        let stored = results.join("store").join(id);
        if stored.exists() {
            fs::remove_dir_all(&stored)?;
        }
        let runner = StageRunner::new(&plan, &allowed)?;
        timed(|| Ok(runner.run_stage(id, &Silent)?))
    };
    let mut ours = || Ok((DEFAULT_CELL + cell(own)?).saturating_sub(cell(registered)?));
    let pairs = in_turn(criterion, ["program", "selector"], &mut ours, &mut || Ok(DEFAULT_CELL))?;
    if pairs.is_empty() {
        return Ok(Figure::not_measured(NAME, Some(REQUIRED), FILTERED));
    }
    ensure!(results.join("store").join(own).exists(), "the cell was not stored");
    let more = pairs.ours() - DEFAULT_CELL.as_secs_f64();
    Ok(Figure {
        name: NAME.to_owned(),
        ours: format!("{:.2} s", pairs.ours()),
        reference: format!("{} s", DEFAULT_CELL.as_secs()),
        ratio: Some(pairs.ratio(Ratio::Cost)),
        required: Some(REQUIRED),
        note: format!(
            "measured: {more:.2} s more for a cell of ten layers without tuning, program and second process started anew for it; a \
             worker starts them once for all its cells. The default cell is that of the stored table. {}",
            pairs.spread(Ratio::Cost)
        ),
    })
}
