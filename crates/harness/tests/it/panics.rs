//! A panic: its message reaches the parent of a worker and the stage's stored failure.

use std::fs;
use std::sync::Mutex;

use thinet_harness::events::{Event, Reporter};
use thinet_harness::run::{RunOptions, StageRunner, WorkerMessage, keep_panics, serve};

use crate::fixture::{Fixture, SPEC};

struct Faulty;

impl Reporter for Faulty {
    fn event(&self, event: &Event) {
        if matches!(event, Event::Progress { .. }) {
            std::panic::panic_any("no luck today".to_owned());
        }
    }
}

#[test]
fn a_panic_of_a_worker_is_reported_with_its_location_and_stored_with_the_stage() {
    let fixture = Fixture::new();
    let plan = fixture.plan(SPEC, "results").unwrap();
    let runner = StageRunner::new(&plan, &RunOptions::default()).unwrap();
    keep_panics();
    let said = Mutex::new(Vec::new());
    let ids = [plan.dense[0].id.to_string(), plan.cells[0].id.to_string()];
    serve(&runner, ids, &Faulty, &|message| said.lock().unwrap().push(message));
    let said = said.into_inner().unwrap();
    // The worker ends, as its state after the panic is unknown.
    let [WorkerMessage::Ended { ended, error: Some(error), stopped: false, panicked: true }] = &said[..]
    else {
        panic!("{said:?}")
    };
    assert_eq!(*ended, plan.dense[0].id.to_string());
    assert!(error.contains("panics.rs:") && error.ends_with(": no luck today"), "{error}");
    let folder = fixture.path("results/store").join(ended);
    let noted = fs::read_to_string(folder.join("failure.json")).unwrap();
    assert!(noted.contains("dense net, seed 0") && noted.contains("no luck today"), "{noted}");
    // Another run resumes from there.
    runner.run_stage(ended, &thinet_harness::events::Silent).unwrap();
    assert!(!folder.join("failure.json").exists());
}
