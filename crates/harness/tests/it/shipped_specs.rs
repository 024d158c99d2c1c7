//! Every shipped spec parses, plans and takes its first training step, on the data it names.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use thinet_harness::plan::{Options, Plan};
use thinet_harness::progress::{Event, Reporter};
use thinet_harness::spec::Spec;
use thinet_harness::{RunOptions, run};

fn project() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn experiments() -> Vec<PathBuf> {
    let files = fs::read_dir(project().join("experiments")).unwrap().map(|entry| entry.unwrap().path());
    let mut specs: Vec<PathBuf> =
        files.filter(|file| file.extension().is_some_and(|e| e == "toml")).collect();
    specs.sort();
    specs
}

#[test]
fn every_shipped_spec_parses_and_opens_with_question_command_and_time() {
    let files = experiments();
    assert!(files.len() >= 3);
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        for needed in ["# Question:", "# Command:", "# Data:", "# Time:", "# Follows:"] {
            assert!(text.contains(needed), "{}: no {needed}", file.display());
        }
        let spec = Spec::read(&file).unwrap();
        assert_eq!(Some(spec.name.as_str()), file.file_stem().and_then(|s| s.to_str()));
    }
}

#[test]
fn every_shipped_spec_plans_and_takes_its_first_step() {
    let scratch = tempfile::tempdir().unwrap();
    for file in experiments() {
        let spec = Spec::read(&file).unwrap();
        let data = data_of(&spec, scratch.path());
        let results = scratch.path().join(&spec.name);
        let options = Options { data: Some(data), results, ..Options::default() };
        let plan = Plan::new(&file, &options).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        assert_eq!(plan.cells.len(), spec.methods.len() * spec.prune.keep_rates.len());
        let reporter = StopsAtFirstStep::default();
        let options = RunOptions { jobs: 1, worker: None };
        let stopped = catch_unwind(AssertUnwindSafe(|| run(&plan, &options, &reporter))).is_err();
        let loss = reporter.loss.into_inner().unwrap();
        // Of ten classes at random weights: about ln 10.
        assert!(stopped && loss.is_some_and(|l| (1.5..4.0).contains(&l)), "{}: {loss:?}", file.display());
    }
}

/// The folder of the data a spec names: Fashion-MNIST itself, and for CIFAR-10 images of its format, since it cannot be
/// fetched by a program that asks nobody.
fn data_of(spec: &Spec, scratch: &Path) -> PathBuf {
    let kind = serde_json::to_value(&spec.dataset).unwrap()["kind"].as_str().unwrap().to_owned();
    match kind.as_str() {
        "fashion-mnist" => {
            let folder = project().join("data/fashion-mnist");
            thinet_data::fetch(&spec.dataset, &folder, &mut |_| {}).unwrap();
            folder
        }
        "cifar10" => {
            let folder = scratch.join("cifar10");
            write_cifar10_of_stripes(&folder);
            folder
        }
        other => panic!("no test data for the dataset kind {other}"),
    }
}

/// Six files of 10,000 records in CIFAR-10's binary format.
fn write_cifar10_of_stripes(folder: &Path) {
    if folder.is_dir() {
        return;
    }
    fs::create_dir_all(folder).unwrap();
    let files =
        ["data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5", "test_batch"];
    for (number, name) in files.into_iter().enumerate() {
        let mut bytes = Vec::with_capacity(10_000 * 3073);
        for record in 0..10_000_usize {
            let class = record % 10;
            bytes.push(class as u8);
            bytes.extend((0..3072).map(|pixel| ((pixel * (class + 1) + record + number) % 256) as u8));
        }
        fs::write(folder.join(format!("{name}.bin")), bytes).unwrap();
    }
}

/// Panics after the first training step and keeps its loss.
#[derive(Default)]
struct StopsAtFirstStep {
    loss: Mutex<Option<f64>>,
}

impl Reporter for StopsAtFirstStep {
    fn event(&self, event: &Event) {
        if let Event::Progress { loss: Some(loss), .. } = event {
            *self.loss.lock().unwrap() = Some(*loss);
            std::panic::panic_any("stopped by the test");
        }
    }
}
