//! A holder that is frozen for longer than claims last: another process takes its stage over, and neither damages the other's files.

use std::collections::BTreeMap;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use thinet_harness::events::{Event, Reporter, Silent};
use thinet_harness::run::{RunOptions, StageRunner};

use crate::fixture::{Fixture, SPEC};

/// Files of a folder with their bytes and when they were written.
type Snapshot = BTreeMap<String, (Vec<u8>, std::time::SystemTime)>;

fn snapshot(folder: &Path) -> Snapshot {
    let of_file = |path: std::path::PathBuf| {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        (name, (fs::read(&path).unwrap(), fs::metadata(&path).unwrap().modified().unwrap()))
    };
    fs::read_dir(folder).unwrap().map(|entry| of_file(entry.unwrap().path())).collect()
}

/// Where the first holder is frozen.
#[derive(Clone, Copy, Debug)]
enum Moment {
    /// After so many training steps.
    Step(usize),
    /// When its last values are measured, before its weights are written.
    Measured(usize),
}

/// A holder that is frozen at a moment: meanwhile something else runs. Keeps the notes.
struct FrozenHolder<'a> {
    left: AtomicUsize,
    moment: Moment,
    meanwhile: &'a (dyn Fn() + Sync),
    /// Called when the holder has noticed.
    noticed: &'a (dyn Fn() + Sync),
    notes: Mutex<Vec<String>>,
}

impl Reporter for FrozenHolder<'_> {
    fn event(&self, event: &Event) {
        let counts = match (self.moment, event) {
            (Moment::Step(_), Event::Progress { loss, .. }) => loss.is_some(),
            (Moment::Measured(_), Event::Measured { .. }) => true,
            _ => false,
        };
        if counts && self.left.fetch_sub(1, Ordering::SeqCst) == 1 {
            (self.meanwhile)();
        }
        if let Event::Note { text, .. } = event {
            if text.contains("over while this one was frozen") {
                (self.noticed)();
            }
            self.notes.lock().unwrap().push(text.clone());
        }
    }
}

impl<'a> FrozenHolder<'a> {
    fn new(moment: Moment, meanwhile: &'a (dyn Fn() + Sync), noticed: &'a (dyn Fn() + Sync)) -> Self {
        let (Moment::Step(n) | Moment::Measured(n)) = moment;
        Self { left: AtomicUsize::new(n), moment, meanwhile, noticed, notes: Mutex::default() }
    }

    fn has_noticed(&self) -> bool {
        let notes = self.notes.lock().unwrap();
        notes.iter().any(|note| note.contains("over while this one was frozen"))
    }
}

/// A fixture, and the weights of an uninterrupted run in it.
struct Study {
    fixture: Fixture,
    dense: String,
    cell: String,
    weights: BTreeMap<String, String>,
}

impl Study {
    fn new() -> Self {
        let fixture = Fixture::new();
        let outcome = fixture.run(SPEC, "unbroken", &Silent);
        let (dense, cell) = (outcome.study.dense[0].id.clone(), outcome.study.cells[0].id.clone());
        let weights = fixture.weights("unbroken");
        Self { fixture, dense, cell, weights }
    }

    fn run_stage(&self, id: &str, results: &str, reporter: &dyn Reporter) {
        let plan = self.fixture.plan(SPEC, results).unwrap();
        let options = RunOptions {
            checkpoint_every: Duration::ZERO,
            claim_expiry: Duration::from_millis(500),
            ..RunOptions::default()
        };
        StageRunner::new(&plan, &options).unwrap().run_stage(id, reporter).unwrap();
    }

    /// Checks that a stage's folder holds what an uninterrupted run stores, and nothing else.
    fn assert_whole(&self, id: &str, results: &str) {
        assert_eq!(self.fixture.weights(results)[id], self.weights[id]);
        let folder = self.fixture.path(results).join("store").join(id);
        let names: Vec<String> = snapshot(&folder).into_keys().collect();
        assert_eq!(names, ["result.json", "weights.safetensors"]);
    }
}

#[test]
fn a_stage_that_was_taken_over_and_finished_is_left_alone_by_the_one_that_wakes() {
    let study = Study::new();
    let mut case = 0;
    for (id, moments) in [
        (&study.dense, [Moment::Step(1), Moment::Step(3), Moment::Measured(1)]),
        (&study.cell, [Moment::Step(1), Moment::Step(7), Moment::Measured(5)]),
    ] {
        for moment in moments {
            case += 1;
            let results = format!("finished{case}");
            if *id == study.cell {
                study.run_stage(&study.dense, &results, &Silent);
            }
            let store = study.fixture.path(&results).join("store");
            let finished = Mutex::new(Snapshot::new());
            let meanwhile = || {
                fs::remove_file(store.join("claims").join(id)).unwrap();
                study.run_stage(id, &results, &Silent);
                *finished.lock().unwrap() = snapshot(&store.join(id));
            };
            let first = FrozenHolder::new(moment, &meanwhile, &|| ());
            study.run_stage(id, &results, &first);
            let finished = finished.lock().unwrap().clone();
            assert!(finished.contains_key("result.json"), "{moment:?} was not reached");
            assert!(first.has_noticed(), "{moment:?}");
            assert!(snapshot(&store.join(id)) == finished, "{moment:?}: the second's files were touched");
            study.assert_whole(id, &results);
        }
    }
}

/// Dies at a training step.
struct Dies(AtomicUsize);

impl Reporter for Dies {
    fn event(&self, event: &Event) {
        if matches!(event, Event::Progress { loss: Some(_), .. })
            && self.0.fetch_sub(1, Ordering::SeqCst) == 1
        {
            std::panic::panic_any("killed by the test");
        }
    }
}

#[test]
fn what_a_new_holder_has_written_so_far_is_left_alone_by_the_one_that_wakes() {
    let study = Study::new();
    for (case, (id, first, second)) in
        [(&study.dense, 1, 5), (&study.dense, 5, 2), (&study.cell, 3, 9), (&study.cell, 9, 1)]
            .into_iter()
            .enumerate()
    {
        let results = format!("half{case}");
        if *id == study.cell {
            study.run_stage(&study.dense, &results, &Silent);
        }
        let store = study.fixture.path(&results).join("store");
        let claim = store.join("claims").join(id);
        let (half, noticed) = (Mutex::new(Snapshot::new()), AtomicBool::new(false));
        let meanwhile = || {
            // A holder on another machine, which disappears after the time that claims last.
            let mut holder: serde_json::Value = serde_json::from_slice(&fs::read(&claim).unwrap()).unwrap();
            holder["host"] = "node-17".into();
            fs::remove_file(&claim).unwrap();
            let dies = Dies(AtomicUsize::new(second));
            assert!(catch_unwind(AssertUnwindSafe(|| study.run_stage(id, &results, &dies))).is_err());
            fs::write(&claim, holder.to_string()).unwrap();
            *half.lock().unwrap() = snapshot(&store.join(id));
        };
        let look = || {
            noticed.store(true, Ordering::SeqCst);
            assert!(snapshot(&store.join(id)) == *half.lock().unwrap(), "case {case}");
        };
        study.run_stage(id, &results, &FrozenHolder::new(Moment::Step(first), &meanwhile, &look));
        assert!(noticed.load(Ordering::SeqCst), "case {case}");
        study.assert_whole(id, &results);
    }
}
