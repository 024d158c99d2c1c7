//! Times that `thinet plan` gives a training against the time that it then takes: by the rates assumed of a CPU, and with a stored
//! training of the same study.

use std::fs;
use std::time::Duration;

use anyhow::{Result, ensure};
use criterion::Criterion;
use thinet_bench::{Figure, Ratio};
use thinet_harness::events::Silent;
use thinet_harness::run::{RunOptions, StageRunner};
use thinet_harness::study::{Options, Plan, estimate};

use crate::in_turn::{FILTERED, duration, in_turn, timed};
use crate::waves::waves;

/// The net of the default study; two trainings.
const SPEC: &str = r#"
name = "bench"
seeds = 2
dataset = { kind = "image-folder", name = "Waves", size = 32, channels = 1 }
net = { arch = "vgg16-gap", width = 0.125 }
compute = { threads = 1, channels-last = true }
dense.train = { steps = 40, batch = 64, lr = 0.01, init = "fan-in" }
dense.allow-chance = true
methods = [{ selector = "weight-sum-l1" }]
[prune]
keep-rates = [0.5]
layers = ["conv1_1"]
"#;

/// A row without and one with a stored training.
pub(crate) fn figures(criterion: &mut Criterion) -> Result<Vec<Figure>> {
    let cases = [(false, "by assumed rates"), (true, "by a stored training")];
    cases.into_iter().map(|(is_stored, basis)| figure(criterion, is_stored, basis)).collect()
}

fn figure(criterion: &mut Criterion, is_stored: bool, basis: &str) -> Result<Figure> {
    let name = format!("planned time of a training {basis}, over the time it takes");
    let folder = tempfile::tempdir()?;
    waves(folder.path(), 32)?;
    let spec = folder.path().join("spec.toml");
    fs::write(&spec, SPEC)?;
    let results = folder.path().join("results");
    let options =
        Options { data: Some(folder.path().into()), results: results.clone(), ..Options::default() };
    let plan = Plan::new(&spec, &options)?;
    let run_options = RunOptions::default();
    let train = |seed: usize| -> Result<()> {
        StageRunner::new(&plan, &run_options)?.run_stage(plan.dense[seed].id.as_str(), &Silent)?;
        Ok(())
    };
    let remove =
        |seed: usize| match fs::remove_dir_all(results.join("store").join(plan.dense[seed].id.as_str())) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        };
    if is_stored {
        train(0)?;
    }
    let mut ours = || {
        remove(1)?;
        let dense = estimate(&plan, 1)?.by_kind[0];
        ensure!(dense.missing == if is_stored { 1 } else { 2 }, "{} trainings are missing", dense.missing);
        Ok(Duration::from_secs_f64(dense.seconds / dense.missing as f64))
    };
    let mut reference = || {
        remove(1)?;
        timed(|| train(1))
    };
    let pairs = in_turn(criterion, ["estimates", basis], &mut ours, &mut reference)?;
    if pairs.is_empty() {
        return Ok(Figure::not_measured(name, None, FILTERED));
    }
    Ok(Figure {
        name,
        ours: duration(pairs.ours()),
        reference: duration(pairs.reference()),
        ratio: Some(pairs.ratio(Ratio::Cost)),
        required: None,
        note: format!(
            "measured: a training of 40 steps of 64 images, its test included. Rates are assumed of no processor in particular, so what \
             they say of this one is shown, not required. {}",
            pairs.spread(Ratio::Cost)
        ),
    })
}
