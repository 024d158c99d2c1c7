//! `thinet merge`: two results folders become one; what is damaged or in conflict is named.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::fixture::{Fixture, files, other_spec, tables};

/// Results `ours` of the study, and `theirs` of another one with the same dense net and first cell.
fn two_machines() -> Fixture {
    let fixture = Fixture::with_study();
    fixture.write("other.toml", &other_spec());
    for (spec, results) in [("small.toml", "ours"), ("other.toml", "theirs")] {
        let ran = fixture.run(&["run", spec, "--data", "images", "--results", results]);
        assert_eq!(ran.code, 0, "{}", ran.err);
    }
    fixture
}

/// Every file below a folder with its bytes.
fn contents(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let read = |path: PathBuf| (path.strip_prefix(folder).unwrap().to_owned(), fs::read(&path).unwrap());
    files(folder).into_iter().map(read).collect()
}

/// The record of a stage as a record of an old version, without a checksum, after a change.
fn rewrite(record: &Path, change: impl FnOnce(&mut serde_json::Value)) {
    let mut value: serde_json::Value = serde_json::from_str(&fs::read_to_string(record).unwrap()).unwrap();
    value.as_object_mut().unwrap().remove("checksum");
    change(&mut value);
    fs::write(record, value.to_string()).unwrap();
}

/// The one cell that only the other study has.
fn their_cell(fixture: &Fixture) -> String {
    let stages = |results: &str| {
        let entries = fs::read_dir(fixture.path(results).join("store")).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect::<Vec<_>>()
    };
    let ours = stages("ours");
    stages("theirs").into_iter().find(|id| id.starts_with("cell-") && !ours.contains(id)).unwrap()
}

#[test]
fn stages_and_runs_are_joined_and_nothing_is_computed_again() {
    let fixture = two_machines();
    let merge = |more: &[&str]| {
        let ran = fixture.run(&[&["merge", "theirs", "--results", "ours"], more].concat());
        assert_eq!(ran.code, 0, "{}{}", ran.out, ran.err);
        ran.err.lines().last().unwrap().to_owned()
    };
    let before = contents(&fixture.path("ours"));
    let said = merge(&["--dry-run"]);
    assert!(said.starts_with("1 stage to copy (") && said.ends_with("; nothing was changed"), "{said}");
    assert_eq!(contents(&fixture.path("ours")), before);

    // As a merge leaves it that was killed: a whole file, an unfinished one, and no record.
    let cell = their_cell(&fixture);
    let (theirs, ours) = (fixture.path("theirs/store").join(&cell), fixture.path("ours/store").join(&cell));
    fs::create_dir(&ours).unwrap();
    fs::copy(theirs.join("weights.safetensors"), ours.join("weights.safetensors")).unwrap();
    fs::write(ours.join(".x.tmp"), "part").unwrap();
    let said = merge(&[]);
    assert!(said.contains(", 2 stored already, 1 run copied, 0 joined"), "{said}");
    assert_eq!(contents(&ours), contents(&theirs), "byte for byte, and nothing else");

    let ran = fixture.run(&["run", "other.toml", "--data", "images", "--results", "ours"]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert!(!ran.err.contains("done "), "{}", ran.err);
    let (merged, alone) = (tables(&fixture.path("ours")), tables(&fixture.path("theirs")));
    assert!(alone.iter().all(|(name, bytes)| merged.get(name) == Some(bytes)));

    // Again, and with the runs of both: nothing is doubled.
    let before = contents(&fixture.path("ours"));
    let said = merge(&[]);
    assert!(said.starts_with("0 stages copied (0 B), 3 stored already, 0 runs copied, 1 joined"), "{said}");
    assert_eq!(contents(&fixture.path("ours")), before);

    // A stage that is damaged here is replaced.
    fs::write(ours.join("weights.safetensors"), "x").unwrap();
    let ran = fixture.run(&["merge", "theirs", "--results", "ours"]);
    assert!(
        ran.code == 0 && ran.out.starts_with(&format!("replaced  {cell}: damaged here (")),
        "{}",
        ran.out
    );
    assert_eq!(contents(&ours), contents(&theirs));
}

#[test]
fn what_is_damaged_there_is_named_and_left_out() {
    let fixture = two_machines();
    let cell = their_cell(&fixture);
    let folder = fixture.path("theirs/store").join(&cell);
    let weights = folder.join("weights.safetensors");
    let whole = fs::read(&weights).unwrap();
    let merge = |into: &str, problem: &str, name: &str| {
        let ran = fixture.run(&["merge", "theirs", "--results", into]);
        assert_eq!(ran.code, 1, "{}", ran.out);
        assert!(ran.out.contains(&format!("damaged   {name}: {problem}")), "{}", ran.out);
        assert!(
            ran.err.ends_with(&format!("error: left out, as damaged in theirs: {name}\n")),
            "{}",
            ran.err
        );
    };
    let mut changed = whole.clone();
    *changed.last_mut().unwrap() ^= 1;
    fs::write(&weights, changed).unwrap();
    merge("first", "weights.safetensors has changed", &cell);
    assert_eq!(fs::read_dir(fixture.path("first/store")).unwrap().count(), 3, "two stages and the claims");
    fs::write(&weights, &whole).unwrap();

    // A record of another machine leads nowhere else.
    let record = folder.join("result.json");
    let text = fs::read(&record).unwrap();
    rewrite(&record, |value| value["files"]["../../../small.toml"] = "00".into());
    merge("second", "\"../../../small.toml\" is not the name of a file in its folder", &cell);
    fs::write(&record, text).unwrap();

    let run = fixture.entry("theirs/runs", "other-");
    let resolved = fs::read_to_string(run.join("resolved.toml")).unwrap();
    fs::write(run.join("resolved.toml"), resolved.replace("steps = 4", "steps = 5")).unwrap();
    let name = run.file_name().unwrap().to_str().unwrap();
    merge("third", "resolved.toml has changed since it was written", name);
    assert!(!fixture.path("third/runs").join(name).exists());
}

#[test]
fn a_conflict_is_named_and_nothing_is_merged() {
    let fixture = two_machines();
    let dense = fixture.entry("theirs/store", "dense-");
    let name = dense.file_name().unwrap().to_str().unwrap().to_owned();
    rewrite(&dense.join("result.json"), |value| value["rows"][0]["value"] = 0.25.into());
    let before = contents(&fixture.path("ours"));
    for more in [&["--dry-run"][..], &[]] {
        let ran = fixture.run(&[&["merge", "theirs", "--results", "ours"], more].concat());
        assert_eq!(ran.code, 1);
        assert_eq!(ran.out, format!("conflict  {name}: measured values differ\n"));
        assert!(ran.err.contains(&name), "{}", ran.err);
        assert_eq!(contents(&fixture.path("ours")), before);
    }
    for (other, problem) in [
        ("images", "images is no results folder: it has no store/ and no runs/"),
        ("nowhere", "nowhere is no results folder"),
        ("./ours", "./ours and ours are the same folder"),
    ] {
        let ran = fixture.run(&["merge", other, "--results", "ours"]);
        assert!(ran.code == 2 && ran.err.contains(problem), "{other}: {}", ran.err);
    }
}
