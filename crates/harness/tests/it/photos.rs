//! Whole studies on photographs in ImageNet's layout: kept calibration images, damaged files, layers tuned apart, the
//! control from a random start, a dense net that starts from a file.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use tch::Device;
use thinet_harness::HarnessError;
use thinet_harness::events::{Reporter, Silent};
use thinet_harness::run::{Outcome, RunOptions, run};
use thinet_harness::study::{Options, Plan};
use thinet_models::{Net, Weights, load_net, save_net};
use thinet_nets::{Arch, NetSpec};
use thinet_report::records::{Metric, Phase, Status};
use thinet_seed::Seed;

use crate::fixture::Notes;
use crate::small;

const SPEC: &str = r#"
name = "photos"
table = "photos"
[dataset]
kind = "imagenet"
classes = 10
protocol = "caffe-short"
calibration-protocol = "caffe-squash"
side = 36
crop = 32
[net]
arch = "tiny"
[dense]
allow-chance = true
[dense.train]
epochs = 1
batch = 5
lr = 0.01
augment = { random-crop = true, mirror = true }
[prune]
keep-rates = [0.5]
layer-rates = { conv3 = 0.75 }
[prune.after-layer]
steps = 2
batch = 5
lr = 0.01
[[prune.exceptions]]
layers = ["conv2"]
[prune.after-last]
steps = 2
batch = 5
lr = 0.01
augment = { random-crop = true }
[calibration]
images-per-class = 2
positions-per-image = 2
[[methods]]
selector = "thinet"
reconstruction = "channel-scale"
[[methods]]
selector = "apoz"
[from-scratch]
epochs = 1
batch = 5
lr = 0.01
"#;

struct Study {
    folder: tempfile::TempDir,
    data: PathBuf,
}

impl Study {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let data = small::imagenet(&folder.path().join("imagenet"));
        Self { folder, data }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn plan(&self, spec: &str, results: &str) -> Plan {
        let file = self.path("spec.toml");
        fs::write(&file, spec).unwrap();
        let options =
            Options { data: Some(self.data.clone()), results: self.path(results), ..Options::default() };
        Plan::new(&file, &options).unwrap()
    }

    fn run(&self, spec: &str, results: &str, reporter: &dyn Reporter) -> Result<Outcome, HarnessError> {
        run(&self.plan(spec, results), &RunOptions::default(), reporter)
    }

    /// Files of kept calibration images with their contents.
    fn crops(&self, results: &str) -> BTreeMap<String, Vec<u8>> {
        let files =
            fs::read_dir(self.path(results).join("crops")).unwrap().map(|entry| entry.unwrap().path());
        files
            .filter(|path| path.extension().is_some_and(|e| e == "u8"))
            .map(|path| (path.file_name().unwrap().to_string_lossy().into_owned(), fs::read(&path).unwrap()))
            .collect()
    }
}

#[test]
fn layers_are_tuned_apart_and_the_control_has_the_same_widths() {
    let study = Study::new();
    let outcome = study.run(SPEC, "results", &Silent).unwrap();
    let [thinet, apoz, control] = &outcome.study.cells[..] else { panic!("{:?}", outcome.study.cells) };
    for cell in [thinet, apoz] {
        let tuned: Vec<&str> = cell
            .rows
            .iter()
            .filter(|row| row.metric == Metric::TrainLoss)
            .map(|row| row.layer.as_str())
            .collect();
        // conv1 is tuned after, conv2 not, and the last one's is the long tuning.
        assert_eq!(tuned, ["conv1", ""], "{}", cell.method);
        let widths: Vec<usize> = cell.kept.values().map(thinet_graph::ChannelSet::len).collect();
        let full = outcome.study.cells[0].kept.values().map(|kept| kept.width());
        let expected: Vec<usize> =
            full.zip([0.5, 0.5, 0.75]).map(|(channels, rate)| (channels as f64 * rate) as usize).collect();
        assert_eq!(widths, expected);
    }
    assert_eq!((control.method.as_str(), control.status), ("From scratch", Status::Done));
    assert_eq!((control.size, control.kept.len()), (thinet.size, 0));
    assert!(control.rows.iter().all(|row| row.phase == Phase::AfterFineTune));
    assert!(control.rows.iter().any(|row| row.metric == Metric::Top1));

    // The control depends on nothing that is compared.
    let fewer = SPEC.replace("[[methods]]\nselector = \"apoz\"\n", "").replace("steps = 2", "steps = 3");
    assert_eq!(study.plan(&fewer, "results").cells[1].id.as_str(), control.id);
}

#[test]
fn calibration_images_are_decoded_once_and_again_when_lost() {
    let study = Study::new();
    let first = study.run(SPEC, "results", &Silent).unwrap();
    let crops = study.crops("results");
    // One draw for each of three layers, shared by both methods: 10 classes, 2 images, 3·32·32 bytes and a flag,
    // and a checksum.
    assert_eq!(crops.len(), 3);
    assert!(crops.values().all(|bytes| bytes.len() == 20 * (3 * 32 * 32 + 1) + 32));

    // A truncated or changed file is written again.
    let forget_cells = || {
        for cell in &first.study.cells[..2] {
            fs::remove_dir_all(study.path("results/store").join(&cell.id)).unwrap();
        }
    };
    forget_cells();
    for (i, (name, bytes)) in crops.iter().enumerate() {
        let mut bytes = bytes.clone();
        if i == 0 {
            bytes.pop();
        } else {
            bytes[7] ^= 1;
        }
        fs::write(study.path("results/crops").join(name), bytes).unwrap();
    }
    let again = study.run(SPEC, "results", &Silent).unwrap();
    assert_eq!(study.crops("results"), crops);
    assert_eq!(again.study, first.study);

    // An intact one is read, and no photograph is decoded.
    forget_cells();
    let before = modified(&study.path("results/crops"));
    study.run(SPEC, "results", &Silent).unwrap();
    assert_eq!(modified(&study.path("results/crops")), before);
}

/// When each file of kept images was written.
fn modified(folder: &Path) -> BTreeMap<PathBuf, std::time::SystemTime> {
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let images = files.filter(|path| path.extension().is_some_and(|e| e == "u8"));
    images.map(|path| (path.clone(), fs::metadata(path).unwrap().modified().unwrap())).collect()
}

#[test]
fn damaged_photographs_are_left_out_and_named_up_to_the_limit() {
    let study = Study::new();
    let file = study.data.join("train/n01440764/n01440764_0.JPEG");
    fs::write(&file, &fs::read(&file).unwrap()[..300]).unwrap();
    let error = study.run(SPEC, "strict", &Silent).unwrap_err().to_string();
    assert!(error.contains("n01440764_0.JPEG") && error.contains("cannot decode"), "{error}");

    let notes = Notes::default();
    let tolerant = SPEC.replace("side = 36", "side = 36\nbad-files = 1");
    let outcome = study.run(&tolerant, "results", &notes).unwrap();
    assert!(outcome.study.cells.iter().all(|cell| cell.status == Status::Done));
    let notes = notes.into_texts();
    let named = notes.iter().filter(|note| note.starts_with("left out as damaged: ")).count();
    assert!(named >= 1 && notes.iter().any(|note| note.contains("n01440764_0.JPEG")), "{notes:?}");

    let second = study.data.join("train/n01440765/n01440765_1.JPEG");
    fs::write(&second, "nothing").unwrap();
    let error = study.run(&tolerant, "more", &Silent).unwrap_err().to_string();
    assert!(error.contains("more than 1 file cannot be decoded"), "{error}");
}

#[test]
fn a_photograph_that_cannot_be_read_stops_the_study_whatever_is_tolerated() {
    let study = Study::new();
    let tolerant = SPEC.replace("side = 36", "side = 36\nbad-files = 5");
    let plan = study.plan(&tolerant, "results");
    let file = study.data.join("train/n01440764/n01440764_0.JPEG");
    fs::remove_file(&file).unwrap();
    fs::create_dir(&file).unwrap();
    let error = run(&plan, &RunOptions::default(), &Silent).unwrap_err().to_string();
    assert!(error.contains("n01440764_0.JPEG: cannot read"), "{error}");
}

#[test]
fn calibration_images_that_were_left_out_are_judged_again() {
    let study = Study::new();
    let file = study.data.join("train/n01440764/n01440764_0.JPEG");
    let whole = fs::read(&file).unwrap();
    // Decoding fails, and the size, which the images' fingerprint holds, is the same.
    fs::write(&file, vec![0; whole.len()]).unwrap();
    let tolerant = SPEC.replace("side = 36", "side = 36\nbad-files = 1");
    study.run(&tolerant, "results", &Silent).unwrap();
    let kept = study.crops("results");
    // The dense net of the strict study is the tolerant one's; its calibration is not.
    for entry in fs::read_dir(study.path("results/store")).unwrap() {
        let folder = entry.unwrap().path();
        if folder.file_name().unwrap().to_string_lossy().starts_with("cell-") {
            fs::remove_dir_all(folder).unwrap();
        }
    }
    let strict = study.run(SPEC, "results", &Silent).unwrap();
    let failure = format!("{:?}", strict.failure.unwrap());
    assert!(failure.contains("n01440764_0.JPEG: cannot decode"), "{failure}");
    fs::write(&file, whole).unwrap();
    let mended = study.run(SPEC, "results", &Silent).unwrap();
    assert!(mended.failure.is_none(), "{:?}", mended.failure);
    assert_ne!(study.crops("results"), kept);
}

#[test]
fn the_number_of_test_images_is_recorded() {
    let study = Study::new();
    let file = study.data.join("val/n01440764/ILSVRC2012_val_00000001.JPEG");
    let images = study.plan(SPEC, "results").data.test.len() as u64;
    fs::write(&file, &fs::read(&file).unwrap()[..300]).unwrap();
    let tolerant = SPEC.replace("side = 36", "side = 36\nbad-files = 1");
    let study = study.run(&tolerant, "results", &Silent).unwrap().study;
    let counts = study.dense.iter().map(|d| d.test_images).chain(study.cells.iter().map(|c| c.test_images));
    // The dense net, two cells and their control; the damaged image is no part of any.
    assert_eq!(counts.collect::<Vec<_>>(), [Some(images - 1); 4]);
}

#[test]
fn a_dense_net_starts_from_a_file_with_new_layers() {
    let study = Study::new();
    let graph = NetSpec::new(Arch::Tiny).build([3, 32, 32], 10).unwrap();
    let weights = Weights::init(&graph, Seed::root(9), Device::Cpu).unwrap();
    let net = Net { graph, weights };
    save_net(&study.path("start.safetensors"), &net, &BTreeMap::new()).unwrap();
    let spec = SPEC.replace(
        "[dense.train]",
        "weights = \"start.safetensors\"\nimport = { fresh = [\"fc\"] }\n[dense.train]\nlayer-lr = { conv1 = 0.0, conv2 = 0.0, conv3 = 0.0 }\nweight-decay = 0.0",
    );
    let outcome = study.run(&spec, "results", &Silent).unwrap();
    let dense = study.path("results/store").join(&outcome.study.dense[0].id).join("weights.safetensors");
    let (trained, _) = load_net(&dense, Device::Cpu).unwrap();
    for (name, tensor) in trained.weights.iter().filter(|(name, _)| name.ends_with(".weight")) {
        let is_same = tensor == net.weights.get(name).unwrap();
        assert_eq!(is_same, name.starts_with("conv"), "{name}");
    }
}
