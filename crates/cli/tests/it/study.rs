//! A small study through the binary: worker processes, plan, a second start, a start while it runs.

use std::path::Path;
use std::process::Stdio;

use crate::fixture::{Fixture, long_spec, wait_until};

#[test]
fn a_study_runs_in_workers_and_a_second_run_has_no_work() {
    let fixture = Fixture::with_study();
    let arguments = ["run", "small.toml", "--data", "images", "--jobs", "2"];
    let plan = fixture.run(&["plan", "small.toml", "--data", "images", "--json"]);
    let before = plan.json();
    assert_eq!((&before["cost"]["stages"], &before["cost"]["done"]), (&3.into(), &0.into()));
    let work = before["cost"]["work"].as_array().unwrap();
    assert!(
        work.iter().all(|kind| kind["basis"] == "assumed rates" && kind["bounded-by"].is_string()),
        "{before}"
    );
    assert_eq!(work.iter().map(|kind| kind["missing"].as_u64().unwrap()).sum::<u64>(), 3);
    assert!(!fixture.path("results").exists(), "plan touches nothing");

    let first = fixture.run(&arguments);
    assert_eq!(first.code, 0, "{}", first.err);
    assert!(first.out.contains("random"), "{}", first.out);
    let csv = std::fs::read(fixture.path("results/tables/small.csv")).unwrap();
    let again = fixture.run(&arguments);
    assert_eq!((again.code, &again.out), (0, &first.out));
    assert_eq!(std::fs::read(fixture.path("results/tables/small.csv")).unwrap(), csv);

    // One process, two, and one for each device: the same bytes.
    for (results, workers) in [("alone", ["--jobs", "1"]), ("spread", ["--devices", "cpu,cpu"])] {
        let mut arguments = vec!["run", "small.toml", "--data", "images", "--results", results];
        arguments.extend(workers);
        let other = fixture.run(&arguments);
        assert_eq!(other.code, 0, "{}", other.err);
        assert_eq!(std::fs::read(fixture.path(results).join("tables/small.csv")).unwrap(), csv);
    }

    let plan = fixture.run(&["plan", "small.toml", "--data", "images", "--json"]);
    let after = plan.json();
    assert_eq!((&after["cost"]["done"], &after["cost"]["work"]), (&3.into(), &serde_json::json!([])));
    let table = fixture.run(&["table", "small.toml", "--data", "images"]);
    assert_eq!(table.out, first.out);

    let runs = fixture.run(&["list", "runs"]);
    let run = runs.out.split(" ").next().unwrap();
    assert!(run.starts_with("small-"), "{run}");
    let shown = fixture.run(&["show", run]);
    assert!(shown.out.contains("momentum = 0.9") && shown.out.contains("\"libtorch\""), "{}", shown.out);
}

#[test]
fn the_smoke_study_from_nothing_gives_the_same_bytes_twice() {
    let fixture = Fixture::new();
    let project = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let (spec, data) = (project.join("experiments/smoke.toml"), project.join("data/fashion-mnist"));
    let (spec, data) = (spec.to_str().unwrap(), data.to_str().unwrap());
    let fetched = fixture.run(&["data", "fetch", "--for", spec, "--data", data]);
    assert_eq!(fetched.code, 0, "{}", fetched.err);
    let tables = ["first", "second"].map(|results| {
        let ran = fixture.run(&["run", spec, "--data", data, "--results", results]);
        assert_eq!(ran.code, 0, "{}", ran.err);
        ["smoke.csv", "smoke-summary.csv", "smoke-tau.csv", "smoke.parquet"]
            .map(|name| std::fs::read(fixture.path(results).join("tables").join(name)).unwrap())
    });
    assert!(tables[0] == tables[1], "two runs of the smoke study differ");
}

#[test]
fn a_closed_pipe_causes_no_panic() {
    let fixture = Fixture::new();
    let mut child = fixture
        .command(&["count", "resnet50", "--layers"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let ended = child.wait_with_output().unwrap();
    assert_eq!((ended.status.code(), String::from_utf8_lossy(&ended.stderr).as_ref()), (Some(0), ""));
}

#[test]
fn a_second_start_while_the_first_runs_is_refused() {
    let fixture = Fixture::new();
    fixture.images(3, 16, 8);
    fixture.write("long.toml", &long_spec());
    let arguments = ["run", "long.toml", "--data", "images", "--jobs", "1"];
    let mut first = fixture.command(&arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let locked = || {
        let runs = std::fs::read_dir(fixture.path("results/runs")).ok()?;
        let claim = runs.filter_map(Result::ok).next()?.path().join("claim");
        std::fs::read_to_string(claim).ok().filter(|holder| !holder.is_empty())
    };
    wait_until(|| locked().is_some());
    let second = fixture.run(&arguments);
    first.kill().unwrap();
    first.wait().unwrap();
    assert_eq!(second.code, 4, "{}", second.err);
    let expected = format!("is running already (process {} on ", first.id());
    assert!(second.err.contains(&expected), "{}", second.err);
}
