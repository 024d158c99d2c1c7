//! Bad input: one line on standard error, the right exit code, no panic, nothing written.

use crate::fixture::{Fixture, SPEC};

#[test]
fn bad_input_ends_in_one_line_and_its_exit_code() {
    let fixture = Fixture::new();
    fixture.write("typo.toml", &SPEC.replace("epochs", "epoch"));
    fixture.write("selector.toml", &SPEC.replace("\"random\"", "\"randon\""));
    fixture.write("not-toml.toml", "name = ");
    fixture.write("good.toml", SPEC);
    fixture.write("type.toml", &SPEC.replace("[0.5]", "0.5"));
    fixture.write("table.toml", &SPEC.replace("name = \"Waves\", ", ""));
    let cases: [(&[&str], i32); 23] = [
        (&["run", "typo.toml"], 2),
        (&["plan", "selector.toml"], 2),
        (&["run", "not-toml.toml"], 2),
        (&["run", "nowhere.toml"], 2),
        (&["run", "good.toml", "--data", "nowhere"], 3),
        (&["run", "good.toml", "--seeds", "0"], 2),
        (&["table", "compresion"], 2),
        (&["count", "vgg17"], 2),
        (&["count", "resnet50", "--stride", "2x2"], 2),
        (&["latency", "--models", "vgg16,vgg19"], 2),
        (&["show", "nothing"], 2),
        (&["show", "nothing.safetensors"], 1),
        (&["run", "good.toml", "--devices", "cpu,cuda:0"], 2),
        (&["status", "good.toml"], 2),
        (&["status", "nothing"], 2),
        (&["submit", "good.toml", "--data", "nowhere", "--dry-run"], 3),
        (&["diff", "nothing", "nowhere"], 2),
        (&["verify", "nothing"], 2),
        (&["plan", "type.toml"], 2),
        (&["plan", "table.toml"], 2),
        (&["run", "god.toml"], 2),
        (&["show", "resnet18.pth"], 2),
        (&["count", "vgg16", "--width", "1e300"], 2),
    ];
    let mut text = String::new();
    for (arguments, code) in cases {
        let ran = fixture.run(arguments);
        assert_eq!(ran.code, code, "{arguments:?}: {}", ran.err);
        assert_eq!(ran.err.lines().count(), 1, "{arguments:?}: {}", ran.err);
        assert!(ran.err.starts_with("error: ") && !ran.err.contains("panicked"), "{}", ran.err);
        assert_eq!(ran.out, "");
        text.push_str(&format!("$ thinet {}  → {code}\n{}", arguments.join(" "), ran.err));
    }
    assert!(!fixture.path("results").exists(), "something was written");
    insta::assert_snapshot!(text);
}

#[test]
fn unknown_devices_are_refused_with_the_allowed_ones() {
    let fixture = Fixture::new();
    fixture.write("good.toml", SPEC);
    for arguments in [
        &["run", "good.toml", "--device", "tpu"][..],
        &["run", "good.toml", "--devices", "cpu,tpu"],
        &["latency", "--device", "tpu"],
    ] {
        let ran = fixture.run(arguments);
        assert_eq!((ran.code, ran.out.as_str()), (2, ""), "{arguments:?}");
        let refusal = "device \"tpu\" is not a device; allowed: cpu, cuda, cuda:<index>";
        assert!(ran.err.starts_with("error: ") && ran.err.contains(refusal), "{}", ran.err);
    }
}

#[test]
fn a_missing_spec_is_an_error_that_lists_the_specs_here() {
    let fixture = Fixture::new();
    std::fs::create_dir_all(fixture.path("experiments/birds")).unwrap();
    fixture.write("experiments/birds/all.toml", SPEC);
    fixture.write("own.toml", SPEC);
    fixture.write("Cargo.toml", "[package]\n");
    for command in ["run", "plan"] {
        let ran = fixture.run(&[command]);
        assert_eq!(ran.code, 2);
        assert!(ran.err.ends_with("specs here:\n  experiments/birds/all.toml\n  own.toml\n"), "{}", ran.err);
    }
    // Other missing arguments are not specs.
    let ran = fixture.run(&["diff"]);
    assert!(ran.code == 2 && !ran.err.contains("specs here"), "{}", ran.err);
    assert_eq!((fixture.run(&["--help"]).code, fixture.run(&["--version"]).code), (0, 0));
}

#[cfg(unix)]
#[test]
fn a_results_folder_that_cannot_be_written_is_reported_before_any_work() {
    let fixture = Fixture::new();
    fixture.images(3, 8, 4);
    fixture.write("good.toml", SPEC);
    // A file where the folder should be cannot be written into, not even by root.
    fixture.write("blocked", "");
    let ran = fixture.run(&["run", "good.toml", "--data", "images", "--results", "blocked"]);
    assert_eq!(ran.code, 1);
    assert!(ran.err.lines().any(|l| l.starts_with("error: cannot create blocked")), "{}", ran.err);
}

#[test]
fn a_task_of_another_plan_is_refused_before_a_file_is_touched() {
    let fixture = Fixture::with_study();
    let run = fixture.run(&["submit", "small.toml", "--data", "images", "--dry-run"]);
    assert_eq!(run.code, 0, "{}", run.err);
    let refused = fixture.run(&["task", "--data", "images", "--", "small.toml", "../escape"]);
    assert_eq!(refused.code, 1, "{}", refused.err);
    assert!(refused.err.contains("the plan has no such stage"), "{}", refused.err);
    assert!(!fixture.path("results/store").exists() && !fixture.path("results/escape").exists());
}
