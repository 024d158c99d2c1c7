//! Cells and dense nets that diverge or guess: which stages they affect, and how tables and errors report them.

use std::fs;
use std::path::Path;
use std::sync::Mutex;

use thinet_harness::HarnessError;
use thinet_harness::events::{Event, Reporter, Silent};
use thinet_harness::inspect::status::RunStatus;
use thinet_harness::run::{RunOptions, StageRunner, run, write_tables};
use thinet_harness::study::{estimate, gather};
use thinet_report::records::{Metric, Phase, Status, Unfit};

use crate::fixture::{Fixture, SPEC};

/// How stages ended.
#[derive(Default)]
struct Ends(Mutex<Vec<&'static str>>);

impl Reporter for Ends {
    fn event(&self, event: &Event) {
        match event {
            Event::StageFinished { .. } => self.0.lock().unwrap().push("done"),
            Event::StageFailed { .. } => self.0.lock().unwrap().push("failed"),
            _ => {}
        }
    }
}

/// The stage of a results folder whose id starts with `id`.
fn record(results: &Path, id: &str) -> std::path::PathBuf {
    results.join("store").join(id).join("result.json")
}

/// A spec with a tuning of one step, whose loss is that of the net before it, so that only the tuned net shows the divergence.
fn tuned_to_nan() -> String {
    let from = SPEC.find("[prune.after-last]").unwrap();
    let to = SPEC.find("[calibration]").unwrap();
    format!("{}[prune.after-last]\nsteps = 1\nbatch = 16\nlr = 1e30\n{}", &SPEC[..from], &SPEC[to..])
}

#[test]
fn a_net_that_is_not_finite_after_its_tuning_makes_the_cell_diverged_and_the_study_ends() {
    let fixture = Fixture::new();
    let spec = tuned_to_nan();
    let first = fixture.run(&spec, "results", &Silent);
    assert!(first.failure.is_none(), "{:?}", first.failure);
    for cell in &first.study.cells {
        assert_eq!(cell.status, Status::Diverged);
        let has = |phase| cell.rows.iter().any(|row| row.phase == phase && row.metric == Metric::Top1);
        assert!(has(Phase::AfterCut) && !has(Phase::AfterFineTune), "{:?}", cell.rows);
    }
    assert!(fixture.path("results/tables/small.csv").is_file());
    let second = fixture.run(&spec, "results", &Silent);
    assert_eq!((second.stages_run, &second.study), (0, &first.study));
}

#[test]
fn a_tuning_between_layers_that_leaves_no_numbers_makes_the_cell_diverged() {
    let fixture = Fixture::new();
    let spec = SPEC.replace("steps = 2\nbatch = 16\nlr = 0.01", "steps = 1\nbatch = 16\nlr = 1e30");
    let cells = fixture.run(&spec, "results", &Silent).study.cells;
    for cell in &cells {
        assert_eq!((cell.status, cell.kept.len()), (Status::Diverged, 1), "{}", cell.method);
    }
}

#[test]
fn a_diverged_dense_net_is_named_by_all_stages_that_need_it() {
    let fixture = Fixture::new();
    let spec = SPEC.replace("lr = 0.05", "lr = 1e30");
    for _ in 0..2 {
        let ends = Ends::default();
        let outcome = fixture.run(&spec, "results", &ends);
        assert_eq!(*ends.0.lock().unwrap(), ["failed"], "a stage ends once");
        let failure = outcome.failure.unwrap();
        assert!(matches!(failure, HarnessError::DenseDiverged { seed: 0 }), "{failure}");
        assert!(failure.to_string().starts_with("dense net, seed 0, diverged"), "{failure}");
        assert_eq!(outcome.study.dense[0].status, Status::Diverged);
        assert!(outcome.study.cells.iter().all(|cell| cell.status == Status::NotRun));
        assert!(outcome.tables[0].markdown().contains("- seed 0 left out: its dense net diverged."));
    }
    let plan = fixture.plan(&spec, "results").unwrap();
    let runner = StageRunner::new(&plan, &RunOptions::default()).unwrap();
    let error = runner.run_stage(plan.cells[0].id.as_str(), &Silent).unwrap_err();
    assert!(matches!(error, HarnessError::DenseDiverged { seed: 0 }), "{error}");
}

#[test]
fn an_unreadable_record_affects_its_own_cell_only() {
    let fixture = Fixture::new();
    let whole = fixture.run(SPEC, "results", &Silent).study;
    let cell = &whole.cells[3].id;
    // What an old version wrote for NaN.
    let path = record(&fixture.path("results"), cell);
    let text = fs::read_to_string(&path).unwrap();
    let at = text.find("\"value\": ").unwrap() + "\"value\": ".len();
    let end = at + text[at..].find('\n').unwrap();
    fs::write(&path, format!("{}null{}", &text[..at], &text[end..])).unwrap();

    let plan = fixture.plan(SPEC, "results").unwrap();
    let read = gather(&plan).unwrap();
    let statuses: Vec<Status> = read.cells.iter().map(|cell| cell.status).collect();
    let mut expected = vec![Status::Done; 6];
    expected[3] = Status::NotRun;
    assert_eq!(statuses, expected);
    assert!(read.unreadable.len() == 1 && read.unreadable[0].contains(cell), "{:?}", read.unreadable);
    let tables = write_tables(&plan, read).unwrap().tables;
    assert!(tables[0].markdown().contains(&format!("({cell}): result.json")));

    let again = fixture.run(SPEC, "results", &Silent);
    assert_eq!((again.stages_run, &again.study), (1, &whole));
}

/// Two seeds whose dense nets are better than guessing.
fn two_seeds() -> String {
    SPEC.replacen("epochs = 2", "epochs = 40", 1)
        .replace("allow-chance = true\n", "")
        .replace("keep-rates = [0.5, 0.75]", "keep-rates = [0.5]")
        .replace("table = \"small\"", "table = \"small\"\nseeds = 2")
}

/// Makes a stored dense net one that guesses, as a version without checksums would have recorded it.
fn let_it_guess(fixture: &Fixture, dense: &str) {
    let path = record(&fixture.path("results"), dense);
    let mut value: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    value.as_object_mut().unwrap().remove("checksum");
    value.as_object_mut().unwrap().remove("test_images");
    let rows = value["rows"].as_array_mut().unwrap();
    rows.iter_mut().find(|row| row["metric"] == "top1").unwrap()["value"] = 16.75.into();
    fs::write(&path, serde_json::to_string(&value).unwrap()).unwrap();
}

#[test]
fn a_dense_net_near_chance_affects_its_own_seed_only_and_is_named_under_the_tables() {
    let fixture = Fixture::new();
    let spec = two_seeds();
    let whole = fixture.run(&spec, "results", &Silent);
    assert!(whole.failure.is_none(), "{:?}", whole.failure);
    let_it_guess(&fixture, &whole.study.dense[1].id);

    // Stored cells of the seed are left out, and nothing is trained again.
    let outcome = fixture.run(&spec, "results", &Silent);
    let failure = outcome.failure.unwrap();
    assert!(matches!(failure, HarnessError::NearChance { seed: 1, .. }), "{failure}");
    let text = failure.to_string();
    assert!(text.contains("near chance (16.67 %)") && text.contains("learning rate"), "{text}");
    assert_eq!(outcome.stages_run, 0);
    assert!(matches!(outcome.study.dense[1].unfit, Some(Unfit::NearChance { .. })));
    for (cell, before) in outcome.study.cells.iter().zip(&whole.study.cells) {
        if cell.seed == 0 {
            assert_eq!(cell, before);
        } else {
            assert_eq!((cell.status, cell.rows.len()), (Status::NotRun, 0));
        }
    }
    let note = "- seed 1 left out: its dense net has 16.75 % top-1, chance is 16.67 %.";
    for table in &outcome.tables {
        assert!(table.markdown().contains(note), "{}", table.markdown());
    }
    let seeds = outcome.tables[1].frame.column("after_fine_tune_top1_n").unwrap().u64().unwrap();
    assert!(seeds.iter().all(|n| n == Some(1)), "a mean over the other seed alone");

    // Missing stages of the seed fail, those of the other one run.
    for cell in &whole.study.cells {
        fs::remove_dir_all(fixture.path("results/store").join(&cell.id)).unwrap();
    }
    let outcome = fixture.run(&spec, "results", &Silent);
    assert_eq!(outcome.stages_run, 3);
    let text = outcome.failure.unwrap().to_string();
    let expected =
        "1 of 7 stages failed, 3 were not run as they need one that failed, the others are stored; ";
    assert!(text.starts_with(expected) && text.contains("near chance"), "{text}");
    let plan = fixture.plan(&spec, "results").unwrap();
    let folder = plan.run_folder();
    let name = folder.file_name().unwrap().to_str().unwrap();
    let status = RunStatus::of(&fixture.path("results"), name).unwrap().unwrap();
    let tally = status.tally(None);
    assert_eq!((tally.done, tally.failed, tally.missing), (4, 4, 0), "{status:#?}");
    assert_eq!(status.seconds_left, Some(0.0), "what cannot be made takes no time");
    let runner = StageRunner::new(&plan, &RunOptions::default()).unwrap();
    let cell = plan.cells.iter().find(|cell| cell.design.seed == 1).unwrap();
    let error = runner.run_stage(cell.id.as_str(), &Silent).unwrap_err();
    assert!(matches!(error, HarnessError::NearChance { seed: 1, .. }), "{error}");

    // With `allow-chance` the study continues, with the same stages.
    let allowed = spec.replace("[dense]\n", "[dense]\nallow-chance = true\n");
    assert_eq!(fixture.plan(&allowed, "results").unwrap().run, plan.run);
    let outcome = fixture.run(&allowed, "results", &Silent);
    assert!(outcome.failure.is_none() && outcome.study.cells.iter().all(|cell| cell.status == Status::Done));
}

#[test]
fn the_time_left_of_a_run_without_a_stored_stage_is_that_of_the_plan() {
    let fixture = Fixture::new();
    fixture.run(SPEC, "results", &Silent);
    let plan = fixture.plan(SPEC, "results").unwrap();
    fs::remove_dir_all(fixture.path("results/store")).unwrap();
    let folder = plan.run_folder();
    let name = folder.file_name().unwrap().to_str().unwrap();
    let status = RunStatus::of(&fixture.path("results"), name).unwrap().unwrap();
    assert_eq!(status.tally(None).missing, status.stages.len());
    let (left, planned) = (status.seconds_left.unwrap(), estimate(&plan, 1).unwrap().seconds);
    assert!(planned > 0.0 && (left / planned - 1.0).abs() < 1e-9, "{left} is not {planned}");
}

#[test]
fn a_net_that_learns_nothing_is_stored_and_fails_with_the_likely_causes() {
    let fixture = Fixture::new();
    let spec = SPEC.replace("lr = 0.05", "lr = 1e-12").replace("allow-chance = true\n", "");
    let plan = fixture.plan(&spec, "results").unwrap();
    let ends = Ends::default();
    let outcome = run(&plan, &RunOptions::default(), &ends).unwrap();
    let failure = outcome.failure.unwrap();
    assert!(matches!(failure, HarnessError::NearChance { seed: 0, .. }), "{failure}");
    assert_eq!(outcome.study.dense[0].status, Status::Done);
    assert_eq!(*ends.0.lock().unwrap(), ["failed"], "a stage ends once");
    let stored = fs::metadata(record(&fixture.path("results"), &outcome.study.dense[0].id)).unwrap();
    // Nothing is trained again on a restart.
    run(&plan, &RunOptions::default(), &Silent).unwrap();
    let again = fs::metadata(record(&fixture.path("results"), &outcome.study.dense[0].id)).unwrap();
    assert_eq!(again.modified().unwrap(), stored.modified().unwrap());
}
