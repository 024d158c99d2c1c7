//! Targets of FLOPs: the same stages as the keep rates that meet them, and columns for what was asked and found.

use thinet_harness::events::Silent;
use thinet_harness::run::{RunOptions, preflight};
use thinet_harness::study::Plan;

use crate::fixture::{Fixture, SPEC, one_shot};

/// The spec with targets in place of its keep rates, and a control.
fn with_targets(targets: &str) -> String {
    SPEC.replace("keep-rates = [0.5, 0.75]", targets)
        .replace("[dense]\n", "[from-scratch]\nsteps = 2\nbatch = 16\nlr = 0.01\n[dense]\n")
}

fn cell_ids(plan: &Plan) -> Vec<&str> {
    plan.cells.iter().map(|cell| cell.id.as_str()).collect()
}

// FLOPs of the net on 3×16×16 images with six classes, at widths a, b, c: conv1 9·3·256·a = 6,912·a multiply-adds, conv2 576·a·b,
// conv3 576·b·c, fc 6·64·c = 384·c; batch norms 4·(a + b + c). The dense net has 8, 12 and 16: 227,328 multiply-adds, 454,800 FLOPs.
// At 0.7 it has 5, 8 and 11: 112,512 and 225,120, 0.495 of that; at 0.75 6, 9 and 12: 139,392 and 278,892, 0.613.
// At 0.5 it has 4, 6 and 8: 72,192 and 144,456, 0.318; below, at 0.44, 3, 5 and 7: 52,224 and 104,508, 0.230.
#[test]
fn a_target_has_the_stages_of_the_keep_rate_that_meets_it() {
    let fixture = Fixture::new();
    for (targets, rates) in [("[0.5]", "[0.7]"), ("[0.32, 0.25]", "[0.5, 0.44]")] {
        let asked = fixture.plan(&with_targets(&format!("flops = {targets}")), "results").unwrap();
        let listed = fixture.plan(&with_targets(&format!("keep-rates = {rates}")), "results").unwrap();
        assert_eq!((cell_ids(&asked), &asked.run), (cell_ids(&listed), &listed.run), "{targets}");
        assert_ne!(asked.spec_hash, listed.spec_hash);
    }
    let half = fixture.plan(&with_targets("flops = [0.5]"), "results").unwrap();
    assert_eq!((half.cells[0].design.size.paper.flops, half.size.paper.flops), (225_120, 454_800));
}

#[test]
fn tables_have_target_and_flops_of_a_study_with_targets_and_other_tables_are_as_before() {
    let fixture = Fixture::new();
    let spec = one_shot(&with_targets("keep-rates = [0.75]\nflops = [0.5]"));
    let asked = fixture.run(&spec, "results", &Silent);
    let frame = &asked.tables[0].frame;
    let values =
        |name: &str| -> Vec<Option<f64>> { frame.column(name).unwrap().f64().unwrap().iter().collect() };
    let (rates, targets, kept) = (values("keep_rate"), values("flops_target"), values("flops_fraction"));
    assert_eq!(rates.len(), 8, "three methods and the control at two rates");
    for ((rate, target), kept) in rates.iter().zip(&targets).zip(&kept) {
        let expected = match rate {
            Some(0.7) => (Some(0.5), Some(225_120.0 / 454_800.0)),
            _ => (None, Some(278_892.0 / 454_800.0)),
        };
        assert_eq!((*target, *kept), expected, "{rate:?}");
    }
    let summary = &asked.tables[1];
    assert_eq!(summary.frame.column("flops_target").unwrap().f64().unwrap().iter().flatten().count(), 4);
    let text = summary.markdown();
    assert!(text.contains("| FLOPs target, % | FLOPs kept, % |") && text.contains("  50.00 |"), "{text}");

    // The folder of the run, and the rates typed by hand, find everything stored.
    let run = fixture.path("results/runs").join(format!("small-{}", asked.study.run));
    let again = Plan::new(&run, &fixture.options("results")).unwrap();
    assert_eq!((again.run.as_str(), &again.spec.prune.flops), (asked.study.run.as_str(), &vec![0.5]));
    let listed = one_shot(&with_targets("keep-rates = [0.75, 0.7]"));
    let listed = fixture.run(&listed.replace("table = \"small\"", "table = \"listed\""), "results", &Silent);
    assert_eq!(listed.stages_run, 0);
    for table in &listed.tables {
        assert!(table.frame.column("flops_target").is_err() && !table.markdown().contains("FLOPs target"));
    }
}

#[test]
fn a_preflight_takes_its_steps_at_the_lowest_rate_found_whatever_fewer_layers_would_cost() {
    let fixture = Fixture::new();
    // With the first and the last layer alone, one channel in each costs more than a tenth.
    let plan = fixture.plan(&with_targets("flops = [0.1]"), "results").unwrap();
    let stages = preflight(&plan, &RunOptions::default(), &Silent).unwrap();
    assert_eq!(stages, 5, "the dense net, three methods and the control");
}
