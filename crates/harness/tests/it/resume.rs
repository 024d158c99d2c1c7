//! A study that dies at any moment and is started again ends with the same bytes as an unbroken one.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::AtomicUsize;

use thinet_harness::HarnessError;
use thinet_harness::progress::{Event, Reporter, Silent};
use thinet_harness::records::Status;

use crate::fixture::{DiesAt, Fixture, SPEC};

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
    assert_eq!(fixture.weights("broken"), fixture.weights("unbroken"));
    assert_eq!(fixture.tables("broken"), fixture.tables("unbroken"));
}

#[test]
fn a_damaged_stage_is_set_aside_and_made_again() {
    let fixture = Fixture::new();
    let whole = fixture.run(SPEC, "results", &Silent);
    let (weights, tables) = (fixture.weights("results"), fixture.tables("results"));
    let dense = &whole.study.dense[0].id;
    let store = fixture.path("results").join("store");
    // A changed weight file that is read, a record that is cut off, and cells to be made from them.
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
    let notes = notes.0.into_inner().unwrap();
    let named = |id: &str| notes.iter().any(|note| note.contains(id) && note.contains("set aside as"));
    assert!(named(dense) && named(cut), "{notes:?}");
    assert!(store.join("damaged").join(format!("{dense}.1")).is_dir());
    assert_eq!(fixture.weights("results"), weights);
    assert_eq!(fixture.tables("results"), tables);
}

#[test]
fn a_cell_that_fails_costs_itself_alone() {
    let fixture = Fixture::new();
    let whole = fixture.run(SPEC, "whole", &Silent);
    // A folder where the weight file has to go: the stage cannot be stored.
    let cell = &whole.study.cells[2];
    let blocked = fixture.path("results/store").join(&cell.id).join("weights.safetensors/x");
    std::fs::create_dir_all(blocked).unwrap();
    let outcome = fixture.run(SPEC, "results", &Silent);
    let failure = outcome.failure.unwrap();
    assert!(matches!(failure, HarnessError::StagesFailed { failed: 1, total: 6, .. }), "{failure}");
    let states: Vec<Status> = outcome.study.cells.iter().map(|cell| cell.status).collect();
    let mut expected = vec![Status::Done; 6];
    expected[2] = Status::NotRun;
    assert_eq!(states, expected);
    assert!(fixture.path("results/tables/small.csv").is_file());
}

#[derive(Default)]
struct Notes(Mutex<Vec<String>>);

impl Reporter for Notes {
    fn event(&self, event: &Event) {
        if let Event::Note { text, .. } = event {
            self.0.lock().unwrap().push(text.clone());
        }
    }
}
