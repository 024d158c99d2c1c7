//! A results folder over time: files that changed on the disk, permissions, and the count of finished stages.

use std::fs;
use std::path::Path;

use crate::fixture::{Fixture, SPEC, files, tables};

#[test]
fn changed_files_of_the_store_are_reported_and_computed_again() {
    let (fixture, expected) = Fixture::with_unbroken_run();
    fs::rename(fixture.path("unbroken"), fixture.path("results")).unwrap();
    let cell = fixture.entry("results/store", "cell-");
    let (weights, record) = (cell.join("weights.safetensors"), cell.join("result.json"));
    let whole = fs::read(&weights).unwrap();
    let status = |check: &[&str]| {
        let all = fixture.run(&["status"]);
        let one = fixture.run(&[&["status", "small.toml"], check].concat());
        assert_eq!((all.code, one.code), (0, 0), "{}{}", all.err, one.err);
        if check.is_empty() {
            // The list of runs says the same.
            let line = one.out.lines().next().unwrap().split_once(": ").unwrap().1;
            let listed = fixture.run(&["list", "runs"]);
            assert!(all.out.contains(line) && listed.out.contains(line), "{}{}", all.out, listed.out);
        }
        one.out
    };
    let run = |arguments: &[&str]| {
        let run = fixture.run(&[&["run", "small.toml", "--data", "images"], arguments].concat());
        assert_eq!(run.code, 0, "{}", run.err);
        assert_eq!(tables(&fixture.path("results")), expected);
        run.err
    };
    let set_aside = "set aside as results/store/damaged/";

    // An emptied file and a changed digit of a record are found without --check.
    fs::write(&weights, "").unwrap();
    let text = status(&[]);
    assert!(text.contains("2 of 3 stages done, 1 missing, 1 of these damaged"), "{text}");
    assert!(text.contains("weights.safetensors has 0 bytes, not "), "{text}");
    let submitted = fixture.run(&["submit", "small.toml", "--data", "images", "--dry-run"]);
    assert!(submitted.out.starts_with("not submitted: 1 task ("), "{}{}", submitted.out, submitted.err);
    let text = run(&[]);
    assert!(text.contains("weights.safetensors has 0 bytes, not ") && text.contains(set_aside), "{text}");
    assert_eq!(fs::read(&weights).unwrap(), whole);
    let text = fs::read_to_string(&record).unwrap();
    fs::write(&record, text.replacen("\"seconds\": ", "\"seconds\": 1", 1)).unwrap();
    let text = status(&[]);
    assert!(text.contains("2 of 3 stages done") && text.contains("result.json has changed"), "{text}");
    assert!(run(&[]).contains(set_aside));

    // A changed bit of weights that nobody reads is found with --check.
    let mut changed = whole.clone();
    *changed.last_mut().unwrap() ^= 1;
    fs::write(&weights, changed).unwrap();
    assert!(status(&[]).contains("3 of 3 stages done"));
    assert!(!run(&[]).contains(set_aside));
    let text = status(&["--check"]);
    assert!(
        text.contains("2 of 3 stages done") && text.contains("weights.safetensors has changed"),
        "{text}"
    );
    assert!(run(&["--check"]).contains(set_aside));
    assert_eq!(fs::read(&weights).unwrap(), whole);
    assert!(status(&["--check"]).contains("3 of 3 stages done"));
}

#[test]
fn every_file_follows_the_umask() {
    use std::os::unix::fs::PermissionsExt as _;
    let fixture = Fixture::with_study();
    let script = "umask 0007 && exec \"$thinet\" run small.toml --data images --jobs 1 --checkpoint-every 0";
    let output = fixture.script(&["sh", "-c"], script);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let found = files(&fixture.path("results"));
    assert!(found.len() > 15, "{found:?}");
    for path in found {
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&path), 0o660, "{}", path.display());
        assert_eq!(mode(path.parent().unwrap()), 0o770, "{}", path.display());
    }
}

#[test]
fn progress_never_counts_beyond_its_total() {
    let fixture = Fixture::new();
    fixture.images(3, 16, 8);
    // The shared calibration is a stage, too; two labels of one stage are one.
    let spec = SPEC.replace("prune.keep-rates", "prune.mode = \"one-shot\"\nprune.keep-rates").replace(
        "{ selector = \"random\" }",
        "{ selector = \"random\" }, { selector = \"random\", label = \"again\" }",
    );
    fixture.write("small.toml", &spec);
    let run = fixture.run(&["run", "small.toml", "--data", "images", "--jobs", "1"]);
    assert_eq!(run.code, 0, "{}", run.err);
    let counts: Vec<&str> =
        run.err.lines().filter_map(|line| line.strip_prefix("done   ")?.split(' ').next()).collect();
    assert_eq!(counts, ["1/4", "2/4", "3/4", "4/4"], "{}", run.err);
}
