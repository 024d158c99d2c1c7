//! A folder with a small generated dataset, a spec and a results folder, and functions to run studies and read their tables.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use image::{Rgb, RgbImage};
use rand::Rng;
use thinet_harness::HarnessError;
use thinet_harness::events::{Event, Reporter};
use thinet_harness::inspect::{all_runs, diff};
use thinet_harness::run::{Outcome, RunOptions, run};
use thinet_harness::study::{Options, Plan};
use thinet_seed::Seed;

/// Classes of the generated images.
pub(crate) const CLASSES: usize = 6;
/// Side of the generated images.
const SIDE: u32 = 16;

/// A spec on the generated images that runs for about a second, too short for its dense net to be better than guessing.
pub(crate) const SPEC: &str = r#"
name = "small"
table = "small"
[dataset]
kind = "image-folder"
name = "Stripes"
size = 16
[net]
arch = "tiny"
batch-norm = true
[dense]
allow-chance = true
[dense.train]
epochs = 2
batch = 16
lr = 0.05
augment = { crop-padding = 2, mirror = true }
[prune]
keep-rates = [0.5, 0.75]
[prune.after-layer]
steps = 2
batch = 16
lr = 0.01
[prune.after-last]
epochs = 2
batch = 16
lr = 0.01
[calibration]
images-per-class = 3
positions-per-image = 4
[[methods]]
selector = "thinet"
reconstruction = "channel-scale"
[[methods]]
selector = "apoz"
[[methods]]
selector = "random"
"#;

pub(crate) struct Fixture {
    pub(crate) folder: tempfile::TempDir,
}

impl Fixture {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        for (split, images) in [("train", 16), ("test", 8)] {
            for class in 0..CLASSES {
                let of_class = folder.path().join("images").join(split).join(format!("class{class}"));
                fs::create_dir_all(&of_class).unwrap();
                for i in 0..images {
                    stripes(class, split, i).save(of_class.join(format!("{i:02}.png"))).unwrap();
                }
            }
        }
        Self { folder }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn options(&self, results: &str) -> Options {
        Options { data: Some(self.path("images")), results: self.path(results), ..Options::default() }
    }

    pub(crate) fn plan(&self, spec: &str, results: &str) -> Result<Plan, HarnessError> {
        let file = self.path("spec.toml");
        fs::write(&file, spec).unwrap();
        Plan::new(&file, &self.options(results))
    }

    /// Runs a spec in this process.
    pub(crate) fn run(&self, spec: &str, results: &str, reporter: &dyn Reporter) -> Outcome {
        let plan = self.plan(spec, results).unwrap();
        let options = RunOptions { checkpoint_every: Duration::ZERO, ..RunOptions::default() };
        run(&plan, &options, reporter).unwrap()
    }

    /// Every file below `results/tables` with its bytes, except environments and times.
    pub(crate) fn tables(&self, results: &str) -> BTreeMap<String, Vec<u8>> {
        let is_table = |name: &str| !name.ends_with("env.json") && !name.ends_with("seconds.csv");
        files(&self.path(results).join("tables")).filter(|(name, _)| is_table(name)).collect()
    }

    /// Checks that the stages in two results folders of one spec agree in status, rows, channels and tensors. Seconds, checksums of
    /// records, host and environment may differ.
    pub(crate) fn assert_same_stages(&self, first: &str, second: &str) {
        let (first, second) = (self.path(first), self.path(second));
        let run = |results: &Path| all_runs(results).unwrap().pop().unwrap();
        let found = diff(&run(&first), &run(&second), true).unwrap();
        assert!(found.has_same_stages() && found.same > 0, "{found:#?}");
    }

    /// Checksums of the weight files of all finished stages.
    pub(crate) fn weights(&self, results: &str) -> BTreeMap<String, String> {
        let stages = fs::read_dir(self.path(results).join("store")).unwrap().map(|e| e.unwrap().path());
        stages
            .filter(|stage| stage.join("weights.safetensors").exists())
            .map(|stage| {
                let name = stage.file_name().unwrap().to_string_lossy().into_owned();
                let bytes = fs::read(stage.join("weights.safetensors")).unwrap();
                (name, blake3::hash(&bytes).to_hex().to_string())
            })
            .collect()
    }
}

fn files(folder: &Path) -> impl Iterator<Item = (String, Vec<u8>)> {
    fs::read_dir(folder).unwrap().map(|entry| {
        let path = entry.unwrap().path();
        (path.file_name().unwrap().to_string_lossy().into_owned(), fs::read(&path).unwrap())
    })
}

/// Diagonal stripes with noise; direction and period depend on the class.
fn stripes(class: usize, split: &str, i: u64) -> RgbImage {
    let mut rng = Seed::root(7).child(split).index(class as u64).index(i).rng();
    let phase = rng.next_u32() % 16;
    let (period, slope) = (2 + class as u32 / 2, class as u32 % 2);
    RgbImage::from_fn(SIDE, SIDE, |x, y| {
        let along = if slope == 0 { x + y } else { x + SIDE - y } + phase;
        let light = if (along / period).is_multiple_of(2) { 200 } else { 40 };
        let mut value = || (light + rng.next_u32() % 50) as u8;
        Rgb([value(), value(), value()])
    })
}

/// Records the texts of all notes.
#[derive(Default)]
pub(crate) struct Notes(Mutex<Vec<String>>);

impl Notes {
    pub(crate) fn into_texts(self) -> Vec<String> {
        self.0.into_inner().unwrap()
    }
}

impl Reporter for Notes {
    fn event(&self, event: &Event) {
        if let Event::Note { text, .. } = event {
            self.0.lock().unwrap().push(text.clone());
        }
    }
}

/// The spec in one-shot mode, which has no tuning between layers.
pub(crate) fn one_shot(spec: &str) -> String {
    let from = spec.find("[prune.after-layer]").unwrap();
    let to = spec.find("[prune.after-last]").unwrap();
    format!("{}{}", &spec[..from], &spec[to..]).replace("[prune]", "[prune]\nmode = \"one-shot\"")
}

/// Panics at the n-th event, like a process that dies.
pub(crate) struct DiesAt {
    pub(crate) left: std::sync::atomic::AtomicUsize,
}

impl Reporter for DiesAt {
    fn event(&self, _: &Event) {
        use std::sync::atomic::Ordering;
        if self.left.fetch_sub(1, Ordering::SeqCst) == 0 {
            std::panic::panic_any("killed by the test");
        }
    }
}
