//! Testing cut nets with the running statistics of batch normalisation estimated again.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::AtomicUsize;

use thinet_harness::events::Silent;
use thinet_report::records::{CellRecord, Metric, Phase, Row, Status};

use crate::fixture::{DiesAt, Fixture, SPEC, one_shot};

fn of_phase(cell: &CellRecord, phase: Phase) -> Vec<&Row> {
    cell.rows.iter().filter(|row| row.layer.is_empty() && row.phase == phase).collect()
}

#[test]
fn estimated_statistics_are_a_test_of_their_own_and_change_nothing_else() {
    for (name, spec) in [("layers", SPEC.to_owned()), ("one-shot", one_shot(SPEC))] {
        let fixture = Fixture::new();
        let asked = spec.replace("[prune]", "[prune]\nestimate-batch-norm = true");
        let plain = fixture.run(&spec, "plain", &Silent).study;
        let study = fixture.run(&asked, "estimated", &Silent).study;
        assert_eq!(plain.dense, study.dense, "{name}: the dense nets are shared");
        let mut differs = 0;
        for (before, cell) in plain.cells.iter().zip(&study.cells) {
            assert_eq!(cell.status, Status::Done);
            assert_ne!(before.id, cell.id);
            let estimated = of_phase(cell, Phase::AfterBatchNormEstimate);
            let metrics: Vec<Metric> = estimated.iter().map(|row| row.metric).collect();
            assert_eq!(metrics, [Metric::Top1, Metric::Top5, Metric::Loss], "{name}");
            let others = cell.rows.iter().filter(|row| row.phase != Phase::AfterBatchNormEstimate);
            assert_eq!(others.collect::<Vec<_>>(), before.rows.iter().collect::<Vec<_>>(), "{name}");
            assert_eq!(before.kept, cell.kept);
            let losses = [Phase::AfterReconstruction, Phase::AfterBatchNormEstimate]
                .map(|phase| of_phase(cell, phase)[2].value);
            differs += usize::from(losses[0] != losses[1]);
        }
        assert_eq!(differs, study.cells.len(), "{name}: other statistics give other answers");
    }
}

#[test]
fn the_estimate_of_another_draw_is_of_other_images_and_is_all_that_changes_where_a_method_sees_none() {
    let methods = "[[methods]]\nselector = \"weight-sum-l1\"\n[[methods]]\nselector = \"random\"\n";
    let draw =
        |name: &str, draw: u64| format!("[[variants]]\nname = \"{name}\"\n\"calibration.draw\" = {draw}\n");
    let draws = format!("{}{}", draw("first", 0), draw("again", 1));
    for (mode, spec) in [("layers", SPEC.to_owned()), ("one-shot", one_shot(SPEC))] {
        let (common, _) = spec.split_once("[[methods]]").unwrap();
        let common = common.replace("[prune]", "[prune]\nestimate-batch-norm = true");
        let spec = format!("{common}{methods}{draws}");
        let fixture = Fixture::new();
        let study = fixture.run(&spec, "results", &Silent).study;
        let of =
            |name: &'static str| study.cells.iter().filter(move |cell| cell.variant.as_deref() == Some(name));
        assert_eq!(of("first").count(), 4);
        for (first, again) in of("first").zip(of("again")) {
            let about = format!("{mode}: {}", first.method);
            assert_eq!(first.kept, again.kept, "{about}");
            let others = |cell: &CellRecord| -> Vec<Row> {
                let is_other = |row: &&Row| {
                    row.phase != Phase::AfterBatchNormEstimate && row.metric != Metric::ReconstructionError
                };
                cell.rows.iter().filter(is_other).cloned().collect()
            };
            assert_eq!(others(first), others(again), "{about}");
            let losses = [first, again].map(|cell| of_phase(cell, Phase::AfterBatchNormEstimate)[2].value);
            assert_ne!(losses[0], losses[1], "{about}");
        }
    }
}

#[test]
fn dying_and_starting_again_keeps_the_estimates() {
    let fixture = Fixture::new();
    let spec = one_shot(SPEC).replace("[prune]", "[prune]\nestimate-batch-norm = true");
    fixture.run(&spec, "unbroken", &Silent);
    let mut deaths = 0;
    // In the dense net, then in cuts, estimates and tunings of the cells.
    for event in [20, 8, 15, 22, 29, 36] {
        let reporter = DiesAt { left: AtomicUsize::new(event) };
        let died = catch_unwind(AssertUnwindSafe(|| fixture.run(&spec, "broken", &reporter))).is_err();
        deaths += usize::from(died);
    }
    assert!(deaths >= 5, "the study died {deaths} times");
    fixture.run(&spec, "broken", &Silent);
    fixture.assert_same_stages("unbroken", "broken");
    assert_eq!(fixture.tables("broken"), fixture.tables("unbroken"));
}

#[test]
fn a_net_without_batch_normalisation_is_refused() {
    let spec = SPEC
        .replace("batch-norm = true", "batch-norm = false")
        .replace("[prune]", "[prune]\nestimate-batch-norm = true");
    let error = Fixture::new().plan(&spec, "results").err().unwrap().to_string();
    let expected = "prune.estimate-batch-norm: tiny has no batch normalisation (key net.batch-norm)";
    assert!(error.ends_with(expected), "{error}");
}
