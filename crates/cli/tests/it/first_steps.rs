//! Failing early: the pre-flight of a run, and `--fail-fast`.

use std::fs;

use crate::fixture::{Fixture, SPEC, tables};

fn stages(fixture: &Fixture, results: &str) -> usize {
    let entries = fs::read_dir(fixture.path(results).join("store")).unwrap();
    entries.filter(|entry| entry.as_ref().unwrap().path().join("result.json").is_file()).count()
}

#[test]
fn each_kind_of_missing_stage_takes_a_step_first_and_nothing_of_it_stays() {
    let (fixture, expected) = Fixture::with_unbroken_run();
    let run = |spec: &str, results: &str| {
        fixture.run(&["run", spec, "--data", "images", "--results", results, "--preflight", "always"])
    };
    let tried = run("small.toml", "tried");
    assert_eq!(tried.code, 0, "{}", tried.err);
    assert!(tried.err.contains("small: pre-flight: a first step of 3 stages works ("), "{}", tried.err);
    assert_eq!((tables(&fixture.path("tried")), stages(&fixture, "tried")), (expected, 3));
    let left: Vec<_> = fs::read_dir(fixture.path("tried")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(left.iter().all(|name| !name.to_string_lossy().starts_with("preflight-")), "{left:?}");
    assert!(!run("small.toml", "tried").err.contains("pre-flight"), "nothing is missing");

    // What is stored takes no step: the dense net is loaded, and one method is new.
    fixture.write("more.toml", &SPEC.replace("\"random\"", "\"apoz\""));
    let more = run("more.toml", "tried");
    assert!(more.err.contains("pre-flight: a first step of 2 stages works"), "{}", more.err);
    // Every kind of a one-shot study, with the control.
    let one_shot = SPEC.replace("name = \"small\"\ntable = \"small\"", "name = \"once\"").replace(
        "prune.keep-rates = [0.5]",
        "from-scratch = { epochs = 1, batch = 8, lr = 0.05 }\nprune.mode = \"one-shot\"\nprune.keep-rates = [0.5, 0.75]",
    );
    fixture.write("once.toml", &one_shot);
    let once = run("once.toml", "tried");
    assert_eq!(once.code, 0, "{}", once.err);
    // The stored net, its moments, two methods and the control at one rate.
    assert!(once.err.contains("pre-flight: a first step of 5 stages works"), "{}", once.err);
    // A short study takes no pre-flight by itself.
    let plain = fixture.run(&["run", "small.toml", "--data", "images", "--results", "plain"]);
    assert!(plain.code == 0 && !plain.err.contains("pre-flight"), "{}", plain.err);
}

#[test]
fn a_first_step_that_fails_ends_the_run_with_its_own_error() {
    let fixture = Fixture::with_study();
    // Its weights are infinite after a step; without the pre-flight the whole training is spent.
    fixture.write("wild.toml", &SPEC.replace("lr = 0.05", "lr = 1e38"));
    let ran = fixture.run(&["run", "wild.toml", "--data", "images", "--preflight", "always"]);
    assert_eq!((ran.code, ran.out.as_str()), (1, ""));
    let last = ran.err.lines().last().unwrap();
    let expected = "error: pre-flight, dense net, seed 0: dense net, seed 0, diverged: ";
    assert!(last.starts_with(expected) && last.ends_with("; nothing was started"), "{last}");
    assert!(!fixture.path("results/store").exists());
}

#[test]
fn a_run_that_fails_fast_starts_nothing_after_a_failure() {
    let fixture = Fixture::with_study();
    let planned = fixture.run(&["plan", "small.toml", "--data", "images", "--json"]).json();
    let first = planned["cells"][0]["id"].as_str().unwrap();
    // A folder in the place of a file that the stage writes.
    fs::create_dir_all(fixture.path("results/store").join(first).join("weights.safetensors")).unwrap();
    let run = |more: &[&str]| {
        fixture.run(&[&["run", "small.toml", "--data", "images", "--jobs", "1"], more].concat())
    };
    let fast = run(&["--fail-fast"]);
    let last = fast.err.lines().last().unwrap();
    assert_eq!(fast.code, 1, "{}", fast.err);
    let expected =
        "error: 1 of 3 stages failed, 1 was not run as the run fails fast, the others are stored; ";
    assert!(last.starts_with(expected), "{last}");
    assert_eq!(stages(&fixture, "results"), 1, "the dense net");
    let others = run(&[]);
    assert_eq!((others.code, stages(&fixture, "results")), (1, 2), "{}", others.err);
}
