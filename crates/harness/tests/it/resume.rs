//! A study that dies at any moment and is started again ends with the same bytes as an unbroken one.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::AtomicUsize;

use thinet_harness::progress::Silent;
use thinet_harness::{HarnessError, RunOptions, run};

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
fn a_changed_weight_file_is_refused_by_name() {
    let fixture = Fixture::new();
    let only_dense = fixture.run(SPEC, "results", &Silent);
    let dense = &only_dense.study.dense[0].id;
    let store = fixture.path("results").join("store");
    let weights = store.join(dense).join("weights.safetensors");
    let mut bytes = std::fs::read(&weights).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    std::fs::write(&weights, bytes).unwrap();
    for cell in &only_dense.study.cells {
        std::fs::remove_dir_all(store.join(&cell.id)).unwrap();
    }
    let plan = fixture.plan(SPEC, "results").unwrap();
    let error = run(&plan, &RunOptions { jobs: 1, worker: None }, &Silent).unwrap_err();
    assert!(matches!(error, HarnessError::Damaged { .. }), "{error}");
    assert!(error.to_string().contains(dense.as_str()), "{error}");
}
