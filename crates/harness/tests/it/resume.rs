//! A study that dies at any moment and is restarted ends with the same bytes as an uninterrupted one.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tch::Device;
use thinet_graph::ChannelSet;
use thinet_harness::events::{Event, Reporter, Silent};
use thinet_harness::run::{RunOptions, run};
use thinet_harness::{HarnessError, Stop};
use thinet_models::{load_tensors, save_tensors};
use thinet_report::records::Status;

use crate::fixture::{DiesAt, Fixture, Notes, SPEC, one_shot};

#[test]
fn dying_at_any_event_and_starting_again_gives_the_same_weights_and_tables() {
    let fixture = Fixture::new();
    fixture.run(SPEC, "unbroken", &Silent);
    let mut deaths = 0;
    for event in [0, 3, 11, 40, 90, 150, 210] {
        let reporter = DiesAt { left: AtomicUsize::new(event) };
        let died = catch_unwind(AssertUnwindSafe(|| fixture.run(SPEC, "broken", &reporter))).is_err();
        deaths += usize::from(died);
    }
    assert!(deaths >= 5, "the study died {deaths} times");
    fixture.run(SPEC, "broken", &Silent);
    fixture.assert_same_stages("unbroken", "broken");
    assert_eq!(fixture.tables("broken"), fixture.tables("unbroken"));
}

/// The spec of the other tests on a net with dropout, whose masks come from libtorch's own generator.
fn with_dropout() -> String {
    SPEC.replace("arch = \"tiny\"", "arch = \"vgg16\"\nwidth = 0.0625\n[input]\nsize = 32")
        .replace("batch-norm = true\n", "")
        .replace("keep-rates = [0.5, 0.75]", "keep-rates = [0.5]\nlayers = [\"conv1_1\", \"conv2_1\"]")
}

#[test]
fn dying_within_an_epoch_of_a_net_with_dropout_changes_no_bit() {
    let alone = ["resume::dropout_alone", "--exact", "--ignored"];
    let output = std::process::Command::new(std::env::current_exe().unwrap()).args(alone).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

#[test]
#[ignore = "libtorch has one generator for all threads: run in a process of its own by the test above"]
fn dropout_alone() {
    let fixture = Fixture::new();
    let spec = with_dropout();
    fixture.run(&spec, "unbroken", &Silent);
    let mut deaths = 0;
    // Twice in the dense net's twelve steps, then in short and long tunings.
    for event in [3, 5, 20, 9, 14] {
        let reporter = DiesAt { left: AtomicUsize::new(event) };
        deaths +=
            usize::from(catch_unwind(AssertUnwindSafe(|| fixture.run(&spec, "broken", &reporter))).is_err());
    }
    assert_eq!(deaths, 5);
    fixture.run(&spec, "broken", &Silent);
    fixture.assert_same_stages("unbroken", "broken");
    assert_eq!(fixture.tables("broken"), fixture.tables("unbroken"));
}

#[test]
fn a_run_that_is_asked_to_stop_stores_its_progress() {
    let fixture = Fixture::new();
    let spec = SPEC;
    fixture.run(spec, "unbroken", &Silent);
    let mut stops = 0;
    for event in [4, 30, 60] {
        // Checkpoints are saved at a stop only.
        let options = RunOptions { checkpoint_every: Duration::from_secs(1000), ..RunOptions::default() };
        let reporter = StopsAt { left: AtomicUsize::new(event), stop: options.stop.clone() };
        let error = run(&fixture.plan(spec, "broken").unwrap(), &options, &reporter).unwrap_err();
        assert!(matches!(error, HarnessError::Stopped), "{error}");
        stops += 1;
    }
    assert_eq!(stops, 3);
    let log = std::fs::read_dir(fixture.path("broken/runs"))
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path()
        .join("log.jsonl");
    let starts = std::fs::read_to_string(log).unwrap().matches("dense net, seed 0").count();
    assert_eq!(starts, 2, "stopped once, then continued");
    fixture.run(spec, "broken", &Silent);
    fixture.assert_same_stages("unbroken", "broken");
    assert_eq!(fixture.tables("broken"), fixture.tables("unbroken"));
}

/// A spec with every kind of training, and a one-shot one.
fn specs_with_every_training() -> [(String, Vec<(&'static str, &'static str)>); 2] {
    let apart = SPEC.find("[[methods]]\nselector = \"apoz\"").unwrap();
    let spec = SPEC[..apart]
        .replace("keep-rates = [0.5, 0.75]", "keep-rates = [0.5]\nlayers = [\"conv1\", \"conv2\"]");
    let scratch = "[from-scratch]\nepochs = 2\nbatch = 16\nlr = 0.01\n";
    let one_shot = one_shot(&spec);
    [
        (
            format!("{spec}{scratch}"),
            vec![
                ("dense-", "train"),
                ("cell-", "conv1: tune"),
                ("cell-", "fine-tune"),
                ("scratch-", "train"),
            ],
        ),
        (one_shot, vec![("dense-", "train"), ("cell-", "fine-tune")]),
    ]
}

#[test]
fn an_end_between_the_last_step_and_the_end_of_a_stage_changes_no_stored_value() {
    let fixture = Fixture::new();
    for (i, (spec, trainings)) in specs_with_every_training().into_iter().enumerate() {
        let (unbroken, stopped, died) = (format!("unbroken{i}"), format!("stopped{i}"), format!("died{i}"));
        fixture.run(&spec, &unbroken, &Silent);
        for training in &trainings {
            // Checkpoints are saved at a stop only.
            let options = RunOptions { checkpoint_every: Duration::from_secs(1000), ..RunOptions::default() };
            let reporter = AfterLastStep::of(training, Some(options.stop.clone()));
            let error = run(&fixture.plan(&spec, &stopped).unwrap(), &options, &reporter).unwrap_err();
            assert!(matches!(error, HarnessError::Stopped), "{error}");
            let reporter = AfterLastStep::of(training, None);
            let ended = catch_unwind(AssertUnwindSafe(|| fixture.run(&spec, &died, &reporter)));
            assert!(ended.is_err(), "{training:?}");
        }
        for broken in [&stopped, &died] {
            fixture.run(&spec, broken, &Silent);
            fixture.assert_same_stages(&unbroken, broken);
            assert_eq!(fixture.tables(broken), fixture.tables(&unbroken));
        }
    }
}

/// Ends a run after the last step of a training: asks it to stop at that step, or panics at the next event.
struct AfterLastStep<'a> {
    training: &'a (&'static str, &'static str),
    stop: Option<Stop>,
    is_after: AtomicBool,
}

impl<'a> AfterLastStep<'a> {
    fn of(training: &'a (&'static str, &'static str), stop: Option<Stop>) -> Self {
        Self { training, stop, is_after: AtomicBool::new(false) }
    }
}

impl Reporter for AfterLastStep<'_> {
    fn event(&self, event: &Event) {
        if self.stop.is_none() && self.is_after.load(Ordering::SeqCst) {
            std::panic::panic_any("killed by the test");
        }
        if let Event::Progress { id, step, done, total, loss: Some(_), .. } = event
            && (id.starts_with(self.training.0) && step == self.training.1 && done == total)
        {
            self.is_after.store(true, Ordering::SeqCst);
            if let Some(stop) = &self.stop {
                stop.set();
            }
        }
    }
}

/// A study that was stopped in the tuning of its first layer; the checkpoint of that tuning.
fn stopped_in_a_layer(fixture: &Fixture, spec: &str, results: &str) -> PathBuf {
    let options = RunOptions::default();
    let reporter = AfterLastStep::of(&("cell-", "conv1: tune"), Some(options.stop.clone()));
    let error = run(&fixture.plan(spec, results).unwrap(), &options, &reporter).unwrap_err();
    assert!(matches!(error, HarnessError::Stopped), "{error}");
    let stages = std::fs::read_dir(fixture.path(results).join("store")).unwrap();
    let mut files = stages
        .map(|stage| stage.unwrap().path())
        .filter(|stage| stage.is_dir())
        .flat_map(|stage| std::fs::read_dir(stage).unwrap().map(|file| file.unwrap().path()));
    files.find(|file| file.file_name().unwrap().to_string_lossy().starts_with("train-conv1-")).unwrap()
}

/// Changes a checkpoint's metadata.
fn change_metadata(checkpoint: &PathBuf, change: impl FnOnce(&mut BTreeMap<String, String>)) {
    let (tensors, mut metadata) = load_tensors(checkpoint, Device::Cpu).unwrap();
    change(&mut metadata);
    let tensors: Vec<_> = tensors.into_iter().collect();
    save_tensors(checkpoint, &tensors, &metadata).unwrap();
    // Its name holds its checksum.
    let hash = blake3::hash(&std::fs::read(checkpoint).unwrap()).to_hex();
    let name = checkpoint.file_name().unwrap().to_string_lossy().into_owned();
    let (start, _) = name.rsplit_once('-').unwrap();
    std::fs::rename(checkpoint, checkpoint.with_file_name(format!("{start}-{}.safetensors", &hash[..16])))
        .unwrap();
}

#[test]
fn a_resumed_layer_keeps_the_selection_under_which_its_weights_were_cut() {
    let fixture = Fixture::new();
    let [(spec, _), _] = specs_with_every_training();
    let checkpoint = stopped_in_a_layer(&fixture, &spec, "results");
    // As if the selector answered otherwise now: the weights in the checkpoint belong to what is stored with them.
    let mut stored = BTreeMap::new();
    change_metadata(&checkpoint, |metadata| {
        stored = serde_json::from_str::<BTreeMap<String, ChannelSet>>(&metadata["kept"]).unwrap();
        let kept = stored.get_mut("conv1").unwrap();
        let others = (0..kept.width()).filter(|channel| !kept.kept().contains(channel));
        *kept = ChannelSet::new(kept.width(), others.take(kept.len()).collect()).unwrap();
        metadata.insert("kept".into(), serde_json::to_string(&stored).unwrap());
    });
    let calibrated = Steps::default();
    let outcome = fixture.run(&spec, "results", &calibrated);
    let cell = outcome.study.cells.iter().find(|cell| cell.id.starts_with("cell-")).unwrap();
    assert_eq!(cell.kept["conv1"], stored["conv1"]);
    let calibrated = calibrated.0.into_inner().unwrap();
    let is_of = |layer: &str| calibrated.iter().any(|step| *step == format!("{layer}: calibrate"));
    assert!(is_of("conv2") && !is_of("conv1"), "{calibrated:?}");
}

#[test]
fn a_tuning_in_progress_without_its_selection_is_ignored() {
    let fixture = Fixture::new();
    let [(spec, _), _] = specs_with_every_training();
    fixture.run(&spec, "unbroken", &Silent);
    let checkpoint = stopped_in_a_layer(&fixture, &spec, "broken");
    change_metadata(&checkpoint, BTreeMap::clear);
    let notes = Notes::default();
    fixture.run(&spec, "broken", &notes);
    let notes = notes.into_texts();
    assert!(notes.iter().any(|note| note.contains("the tuning of conv1 in progress")), "{notes:?}");
    fixture.assert_same_stages("unbroken", "broken");
}

/// The steps of all progress.
#[derive(Default)]
struct Steps(Mutex<Vec<String>>);

impl Reporter for Steps {
    fn event(&self, event: &Event) {
        if let Event::Progress { step, .. } = event {
            self.0.lock().unwrap().push(step.clone());
        }
    }
}

#[test]
fn a_damaged_checkpoint_is_reported_and_an_older_state_continued() {
    let fixture = Fixture::new();
    fixture.run(SPEC, "unbroken", &Silent);
    let reporter = DiesAt { left: AtomicUsize::new(6) };
    assert!(catch_unwind(AssertUnwindSafe(|| fixture.run(SPEC, "broken", &reporter))).is_err());
    let checkpoint = std::fs::read_dir(fixture.path("broken/store"))
        .unwrap()
        .map(|stage| stage.unwrap().path())
        .filter(|stage| stage.file_name().unwrap().to_string_lossy().starts_with("dense-"))
        .flat_map(|stage| std::fs::read_dir(stage).unwrap())
        .map(|file| file.unwrap().path())
        .find(|file| file.file_name().unwrap().to_string_lossy().starts_with("train-dense-"))
        .unwrap();
    let mut bytes = std::fs::read(&checkpoint).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&checkpoint, bytes).unwrap();
    let notes = Notes::default();
    fixture.run(SPEC, "broken", &notes);
    let notes = notes.into_texts();
    assert!(
        notes.iter().any(|note| note.contains("train-dense-") && note.contains("is damaged")),
        "{notes:?}"
    );
    fixture.assert_same_stages("unbroken", "broken");
}

/// Asks the run to stop at the n-th event.
struct StopsAt {
    left: AtomicUsize,
    stop: Stop,
}

impl Reporter for StopsAt {
    fn event(&self, _: &Event) {
        if self.left.fetch_sub(1, Ordering::SeqCst) == 0 {
            self.stop.set();
        }
    }
}

#[test]
fn a_damaged_stage_is_set_aside_and_run_again() {
    let fixture = Fixture::new();
    let whole = fixture.run(SPEC, "results", &Silent);
    let (weights, tables) = (fixture.weights("results"), fixture.tables("results"));
    let dense = &whole.study.dense[0].id;
    let store = fixture.path("results").join("store");
    // A damaged weight file that is read, a truncated record, and a missing cell that needs them.
    let file = store.join(dense).join("weights.safetensors");
    let mut bytes = std::fs::read(&file).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    let cut = &whole.study.cells[1].id;
    std::fs::write(store.join(cut).join("result.json"), "{").unwrap();
    std::fs::remove_dir_all(store.join(&whole.study.cells[0].id)).unwrap();

    let notes = Notes::default();
    let again = fixture.run(SPEC, "results", &notes);
    assert_eq!(again.stages_run, 3);
    let notes = notes.into_texts();
    let named = |id: &str| notes.iter().any(|note| note.contains(id) && note.contains("set aside as"));
    assert!(named(dense) && named(cut), "{notes:?}");
    assert!(store.join("damaged").join(format!("{dense}.1")).is_dir());
    assert_eq!(fixture.weights("results"), weights);
    assert_eq!(fixture.tables("results"), tables);
}

#[test]
fn a_cell_that_fails_affects_no_other_cell() {
    let fixture = Fixture::new();
    let whole = fixture.run(SPEC, "whole", &Silent);
    // A folder where the weight file has to go: the stage cannot be stored.
    let cell = &whole.study.cells[2];
    let blocked = fixture.path("results/store").join(&cell.id).join("weights.safetensors/x");
    std::fs::create_dir_all(blocked).unwrap();
    let outcome = fixture.run(SPEC, "results", &Silent);
    let failure = outcome.failure.unwrap();
    assert!(matches!(failure, HarnessError::StagesFailed { failed: 1, total: 7, .. }), "{failure}");
    let states: Vec<Status> = outcome.study.cells.iter().map(|cell| cell.status).collect();
    let mut expected = vec![Status::Done; 6];
    expected[2] = Status::NotRun;
    assert_eq!(states, expected);
    assert!(fixture.path("results/tables/small.csv").is_file());
}
