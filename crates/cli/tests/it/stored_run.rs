//! The folder of a stored run in place of a spec, wherever it lies.

use std::fs;
use std::path::Path;

use crate::fixture::{Fixture, SPEC, tables};

/// Copies a run's folder to `elsewhere/copy`.
fn copied(fixture: &Fixture, run: &Path) {
    fs::create_dir_all(fixture.path("elsewhere/copy")).unwrap();
    for name in ["resolved.toml", "stages.json"] {
        fs::copy(run.join(name), fixture.path("elsewhere/copy").join(name)).unwrap();
    }
}

#[test]
fn a_copied_run_folder_runs_again_with_the_same_ids_and_tables() {
    let (fixture, expected) = Fixture::with_unbroken_run();
    let run = fixture.entry("unbroken/runs", "small-");
    copied(&fixture, &run);
    let plan = |spec: &str| fixture.run(&["plan", spec, "--data", "images", "--json"]).json();
    assert_eq!(plan("elsewhere/copy"), plan("small.toml"));
    fs::remove_file(fixture.path("small.toml")).unwrap();
    let again = fixture.run(&["run", "elsewhere/copy", "--data", "images"]);
    assert_eq!(again.code, 0, "{}", again.err);
    assert_eq!(tables(&fixture.path("results")), expected);
    // The new run knows the spec that the first one was started with, as `status` looks for it.
    let name = run.file_name().unwrap();
    let manifest = |folder: &Path| fs::read_to_string(folder.join("stages.json")).unwrap();
    assert_eq!(manifest(&fixture.path("results/runs").join(name)), manifest(&run));

    let resolved = fixture.path("elsewhere/copy/resolved.toml");
    let text = fs::read_to_string(&resolved).unwrap();
    fs::write(&resolved, text.replace("steps = 4", "steps = 5")).unwrap();
    let changed = fixture.run(&["run", "elsewhere/copy", "--data", "images"]);
    assert_eq!(changed.code, 2);
    assert!(changed.err.contains("resolved.toml: has changed since it was written"), "{}", changed.err);
}

#[test]
fn a_file_that_a_run_names_is_found_or_named() {
    let (fixture, _) = Fixture::with_unbroken_run();
    let weights = fixture.entry("unbroken/store", "dense-").join("weights.safetensors");
    fs::create_dir(fixture.path("specs")).unwrap();
    fs::create_dir(fixture.path("nets")).unwrap();
    fs::copy(&weights, fixture.path("nets/net.safetensors")).unwrap();
    let spec = SPEC
        .replace(
            "dense.train = { epochs = 1, batch = 8, lr = 0.05 }",
            "dense.weights = \"../nets/net.safetensors\"",
        )
        .replace("\"small\"", "\"loaded\"");
    fixture.write("specs/loaded.toml", &spec);
    let run = |spec: &str| fixture.run(&["run", spec, "--data", "images"]);
    let first = run("specs/loaded.toml");
    assert_eq!(first.code, 0, "{}", first.err);
    copied(&fixture, &fixture.entry("results/runs", "loaded-"));
    let again = run("elsewhere/copy");
    assert_eq!(again.code, 0, "{}", again.err);

    // Without the spec's folder the run's own is looked at.
    fs::rename(fixture.path("specs"), fixture.path("gone")).unwrap();
    fs::rename(fixture.path("nets"), fixture.path("elsewhere/nets")).unwrap();
    let moved = run("elsewhere/copy");
    assert_eq!(moved.code, 0, "{}", moved.err);
    fs::remove_file(fixture.path("elsewhere/nets/net.safetensors")).unwrap();
    let missing = run("elsewhere/copy");
    assert_eq!(missing.code, 2);
    let problem = "dense.weights: ../nets/net.safetensors is missing: it is neither below specs nor below elsewhere/copy";
    assert!(missing.err.contains(problem), "{}", missing.err);
}
