//! Criteria beyond the paper's comparison: each chooses the channels of a whole study, layer by layer and all at once.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::AtomicUsize;

use thinet_harness::events::Silent;
use thinet_harness::study::Plan;
use thinet_report::records::Status;

use crate::fixture::{DiesAt, Fixture, SPEC, one_shot};

const CRITERIA: [&str; 5] = ["fpgm", "bn-scale", "activation-mean", "taylor", "lasso"];

/// The small study with these selectors at one keep rate.
fn study_of(selectors: &[&str]) -> String {
    let start = SPEC.find("[[methods]]").unwrap();
    let methods = selectors.iter().map(|selector| format!("[[methods]]\nselector = {selector:?}\n"));
    SPEC[..start].replace("[0.5, 0.75]", "[0.5]") + &methods.collect::<String>()
}

#[test]
fn every_criterion_prunes_a_net_layer_by_layer_and_at_once() {
    let fixture = Fixture::new();
    for (name, spec) in [("layers", study_of(&CRITERIA)), ("one-shot", one_shot(&study_of(&CRITERIA)))] {
        let study = fixture.run(&spec, name, &Silent).study;
        assert_eq!(study.cells.len(), CRITERIA.len());
        let widths = fixture.plan(&spec, name).unwrap().cells[0].design.keep.clone();
        for cell in &study.cells {
            assert_eq!(cell.status, Status::Done, "{name}: {}", cell.method);
            for (layer, keep) in &*widths {
                assert_eq!(cell.kept[layer].kept().len(), *keep, "{name}: {layer} of {}", cell.method);
            }
        }
        // Each is a criterion of its own: no two keep the same channels of every layer.
        for (at, cell) in study.cells.iter().enumerate() {
            let same = study.cells[..at].iter().find(|other| other.kept == cell.kept);
            assert!(same.is_none(), "{name}: {} keeps what {:?} keeps", cell.method, same.map(|c| &c.method));
        }
    }
}

#[test]
fn scales_of_a_net_without_batch_norm_are_refused_before_any_work() {
    let fixture = Fixture::new();
    let spec = study_of(&CRITERIA).replace("batch-norm = true", "batch-norm = false");
    for spec in [spec.clone(), one_shot(&spec)] {
        let error = fixture.plan(&spec, "results").err().unwrap();
        assert!(error.is_bad_spec());
        let expected = "methods[1].selector: layer \"conv1\" has no batch-norm scales: no batch norm lies between it and the \
                        next layer";
        assert!(error.to_string().ends_with(expected), "{error}");
        assert!(!fixture.path("results").exists());
    }
}

#[test]
fn gradients_are_a_stage_of_their_own_and_change_nothing_of_the_other_methods() {
    let fixture = Fixture::new();
    let alone = fixture.plan(&one_shot(&study_of(&["thinet", "apoz"])), "results").unwrap();
    let plan = fixture.plan(&one_shot(&study_of(&["thinet", "apoz", "taylor"])), "results").unwrap();
    let kinds = |plan: &Plan| {
        let ids = plan.dense[0].evidence.iter().map(|stage| stage.id.to_string());
        ids.map(|id| id.split('-').next().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(kinds(&alone), ["zeros", "moments"]);
    assert_eq!(kinds(&plan), ["zeros", "moments", "gradients"]);
    for (cell, with_gradients) in alone.cells.iter().zip(&plan.cells) {
        assert_eq!(cell.id, with_gradients.id);
    }
}

#[test]
fn a_study_by_gradients_that_dies_ends_as_the_unbroken_one() {
    for spec in [study_of(&["taylor"]), one_shot(&study_of(&["taylor"]))] {
        let fixture = Fixture::new();
        fixture.run(&spec, "unbroken", &Silent);
        for event in [14, 4] {
            let reporter = DiesAt { left: AtomicUsize::new(event) };
            let run = catch_unwind(AssertUnwindSafe(|| fixture.run(&spec, "broken", &reporter)));
            assert!(run.is_err(), "the study ended before event {event}");
        }
        fixture.run(&spec, "broken", &Silent);
        fixture.assert_same_stages("unbroken", "broken");
        assert_eq!(fixture.tables("broken"), fixture.tables("unbroken"));
    }
}
