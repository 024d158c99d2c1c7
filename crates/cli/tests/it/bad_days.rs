//! Accidents of long runs: full disks, read-only folders, clocks, two starts at once, copies, old versions, ten thousand cells.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant, SystemTime};

use crate::fixture::{Fixture, SPEC, files, long_spec, other_spec, tables, wait_until};

/// Runs a script in a namespace where it may mount file systems, as `$thinet` the program.
fn with_mounts(fixture: &Fixture, script: &str) -> String {
    // Of util-linux.
    let unshare = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-euc"];
    let output = fixture.script(&unshare, script);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

#[test]
fn a_full_disk_costs_only_the_work_since_the_last_write() {
    let (fixture, expected) = Fixture::with_unbroken_run();
    // The disk is full on every start, a little later each time, until it is large enough.
    let text = with_mounts(
        &fixture,
        r#"
        mkdir full
        mount -t tmpfs -o size=16k tmpfs full
        size=16
        while ! "$thinet" run small.toml --data images --results full/results --jobs 1 --checkpoint-every 0 >out 2>err; do
            echo "full at $size: $(tail -n 1 err)"
            size=$((size + 36))
            [ "$size" -lt 4000 ]
            mount -o "remount,size=${size}k" full
        done
        cp -r full/results results
        "#,
    );
    let full: Vec<&str> = text.lines().collect();
    assert!(full.len() >= 4, "{text}");
    assert!(full.iter().all(|line| line.contains("o space left on device")), "{text}");
    assert_eq!(tables(&fixture.path("results")), expected);
    let left: Vec<_> = files(&fixture.path("results/store"))
        .into_iter()
        .filter(|path| {
            !["result.json", "weights.safetensors", ".guard"]
                .contains(&path.file_name().unwrap().to_str().unwrap())
        })
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn a_read_only_results_folder_is_read_by_every_command() {
    let (fixture, expected) = Fixture::with_unbroken_run();
    let text = with_mounts(
        &fixture,
        r#"
        mkdir ro
        mount -t tmpfs -o size=64m tmpfs ro
        cp -r unbroken ro/results
        mount -o remount,ro ro
        if "$thinet" run small.toml --data images --results ro/results 2>&1; then echo "exit 0"; else echo "exit $?"; fi
        "$thinet" status small.toml --results ro/results
        "$thinet" list runs --results ro/results
        "$thinet" plan small.toml --data images --results ro/results | tail -n 3
        run=$(ls ro/results/runs)
        cell=$(ls ro/results/store | grep cell- | head -n 1)
        "$thinet" show "$run" --results ro/results >out && grep -q "every default filled in" out
        "$thinet" show "$cell" --results ro/results >out && grep -q "$cell" out
        "$thinet" diff "$run" "$run" --results ro/results >out && grep -q "3 stages have the same outcome in both" out
        "$thinet" export "$cell" -o exported.safetensors --results ro/results >out && test -s exported.safetensors
        "$thinet" clean --dry-run --results ro/results
        "$thinet" table small.toml --data images --results ro/results >out 2>err
        grep -q "not written: cannot .*Read-only file system" err && grep "ThiNet\|thinet" out | head -n 1
        "$thinet" table compression latency --results ro/results >out 2>err
        grep -q "not written: " err && grep -q "not run: thinet latency" out && grep -q "ThiNet-Conv" out
        mount -o remount,rw ro
        "$thinet" run small.toml --data images --results ro/results >/dev/null 2>&1
        cp -r ro/results results
        "#,
    );
    assert!(text.contains("error: cannot write to ro/results/runs: Read-only file system"), "{text}");
    assert!(text.contains("exit 1\n"), "{text}");
    assert_eq!(text.matches("3 of 3 stages done").count(), 2, "{text}");
    assert_eq!(tables(&fixture.path("results")), expected);
}

/// Starts the study and kills it as soon as a stage is stored.
fn killed_halfway(fixture: &Fixture) {
    let arguments = ["run", "small.toml", "--data", "images", "--jobs", "1"];
    let mut child = fixture.command(&arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let stored = || {
        let Ok(stages) = fs::read_dir(fixture.path("results/store")) else { return false };
        stages.filter_map(Result::ok).any(|stage| stage.path().join("result.json").exists())
    };
    let is_stored = wait_until(stored);
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(is_stored);
}

#[test]
fn a_clock_that_was_set_back_changes_nothing() {
    let (fixture, expected) = Fixture::with_unbroken_run();
    killed_halfway(&fixture);
    // All files were written in the future.
    let future = SystemTime::now() + Duration::from_secs(400 * 24 * 3600);
    for file in files(&fixture.path("results")) {
        fs::File::options().append(true).open(file).unwrap().set_modified(future).unwrap();
    }
    let status = fixture.run(&["status", "small.toml"]);
    assert!(status.out.contains("of 3 stages done"), "{}", status.out);
    let again = fixture.run(&["run", "small.toml", "--data", "images"]);
    assert_eq!(again.code, 0, "{}", again.err);
    assert_eq!(tables(&fixture.path("results")), expected);
}

#[test]
fn of_two_starts_at_once_one_runs_and_one_is_refused() {
    let (fixture, expected) = Fixture::with_unbroken_run();
    let start = || {
        let mut command = fixture.command(&["run", "small.toml", "--data", "images"]);
        command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let outputs = [start(), start()].map(|child| child.wait_with_output().unwrap());
    let mut codes = outputs.each_ref().map(|output| output.status.code());
    codes.sort();
    let errors = outputs.map(|output| String::from_utf8_lossy(&output.stderr).into_owned()).join("\n");
    assert_eq!(codes, [Some(0), Some(4)], "{errors}");
    assert_eq!(tables(&fixture.path("results")), expected);
}

#[test]
fn two_studies_at_once_share_what_they_have_in_common() {
    let (fixture, expected) = Fixture::with_unbroken_run();
    fixture.write("other.toml", &other_spec());
    let start = |spec: &str| {
        let mut command = fixture.command(&["run", spec, "--data", "images", "--jobs", "1"]);
        command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let outputs = [start("small.toml"), start("other.toml")].map(|child| child.wait_with_output().unwrap());
    for output in &outputs {
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    assert_eq!(
        tables(&fixture.path("results")).keys().filter(|name| name.starts_with("other")).count(),
        expected.len()
    );
    let small: BTreeMap<_, _> =
        tables(&fixture.path("results")).into_iter().filter(|(name, _)| name.starts_with("small")).collect();
    assert_eq!(small, expected);
    // The dense net and the cell of ThiNet are each computed once, whichever study was first.
    let mut finished: Vec<String> = Vec::new();
    for log in files(&fixture.path("results/runs")).iter().filter(|file| file.ends_with("log.jsonl")) {
        for line in fs::read_to_string(log).unwrap().lines() {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            if line["what"]["event"] == "stage-finished" {
                finished.push(line["what"]["id"].as_str().unwrap().to_owned());
            }
        }
    }
    finished.sort();
    let computed = finished.len();
    finished.dedup();
    assert_eq!((computed, finished.len()), (4, 4));
}

#[test]
fn a_folder_copied_from_another_machine_in_the_middle_of_a_run_goes_on() {
    let (fixture, expected) = Fixture::with_unbroken_run();
    killed_halfway(&fixture);
    // The claims that the kill left behind are those of another machine.
    let mut claims = vec![fixture.path("results/store/claims/cell-of-nobody")];
    claims.extend(files(&fixture.path("results")).into_iter().filter(|file| file.ends_with("claim")));
    let text = fs::read_to_string(claims.last().unwrap()).unwrap();
    let mut holder: serde_json::Value = serde_json::from_str(&text).unwrap();
    holder["host"] = "node-17".into();
    for claim in &claims {
        fs::create_dir_all(claim.parent().unwrap()).unwrap();
        fs::write(claim, holder.to_string()).unwrap();
    }
    fs::rename(fixture.path("results"), fixture.path("copied")).unwrap();
    let arguments = ["run", "small.toml", "--data", "images", "--results", "copied", "--claim-expiry", "1"];
    let again = fixture.run(&arguments);
    assert_eq!(again.code, 0, "{}", again.err);
    assert!(
        again.err.contains("3 stages, 1 stored") || again.err.contains("3 stages, 2 stored"),
        "{}",
        again.err
    );
    assert_eq!(tables(&fixture.path("copied")), expected);
}

#[test]
fn a_run_of_an_older_version_is_read_and_used() {
    let (fixture, expected) = Fixture::with_unbroken_run();
    // As version 0.1 left it: no list of stages, locks instead of claims, records without an environment, and the
    // checkpoint of a training under its old name.
    fs::rename(fixture.path("unbroken"), fixture.path("results")).unwrap();
    let results = fixture.path("results");
    fs::remove_dir_all(results.join("store/claims")).unwrap();
    for file in files(&results) {
        let name = file.file_name().unwrap().to_str().unwrap();
        if name == "stages.json" {
            fs::remove_file(&file).unwrap();
        } else if name == "result.json" {
            let mut record: serde_json::Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
            for key in ["checksum", "environment", "busy_seconds", "waited_seconds", "sizes"] {
                assert!(record.as_object_mut().unwrap().remove(key).is_some(), "{key}");
            }
            fs::write(&file, record.to_string()).unwrap();
        }
    }
    fs::create_dir(results.join("store/locks")).unwrap();
    let cell = fixture.entry("results/store", "cell-");
    fs::remove_file(cell.join("result.json")).unwrap();
    fs::write(cell.join("train-checkpoint.safetensors"), "old").unwrap();

    let listed = fixture.run(&["list", "runs"]);
    assert!(listed.out.contains("of an older version"), "{}", listed.out);
    let run = listed.out.split(' ').next().unwrap().to_owned();
    assert_eq!(fixture.run(&["show", &run]).code, 0);
    assert_eq!(fixture.run(&["diff", &run, &run]).code, 0);
    let status = fixture.run(&["status", &run]);
    assert!(status.err.contains("older version"), "{}", status.err);
    let clean = fixture.run(&["clean", "--dry-run"]);
    assert!(
        clean.err.contains("runs of older versions have no list of stages") && !clean.out.contains("cell-"),
        "{}",
        clean.out
    );

    let again = fixture.run(&["run", "small.toml", "--data", "images"]);
    assert!(again.err.contains("3 stages, 2 stored"), "{}", again.err);
    assert_eq!(tables(&results), expected);
    let shown = fixture.run(&["show", &run]);
    assert!(
        shown.out.contains("2 × an older version") && shown.out.contains("1 × version 0.1.0"),
        "{}",
        shown.out
    );
}

#[test]
fn the_status_of_ten_thousand_cells_needs_only_the_store() {
    let fixture = Fixture::new();
    fixture.images(3, 16, 8);
    let rates: Vec<String> = (0..100).map(|i| format!("{:.3}", 0.5 + f64::from(i) * 0.004)).collect();
    let spec = SPEC.replace("[0.5]", &format!("[{}]", rates.join(", ")));
    fixture.write("large.toml", &spec.replace("name = \"small\"", "name = \"large\"\nseeds = 50"));
    // A dry submission writes the folder of a run and the list of its stages.
    let listed = fixture.run(&["submit", "large.toml", "--data", "images", "--dry-run"]);
    assert_eq!(listed.code, 0, "{}", listed.err);
    assert!(listed.out.contains("1000 tasks"), "{}", listed.out);
    fs::remove_dir_all(fixture.path("images")).unwrap();
    let list =
        files(&fixture.path("results/runs")).into_iter().find(|file| file.ends_with("stages.json")).unwrap();
    let list: serde_json::Value = serde_json::from_slice(&fs::read(list).unwrap()).unwrap();
    let stages = list["stages"].as_array().unwrap();
    assert_eq!(stages.len(), 10_050);
    for (i, stage) in stages.iter().enumerate() {
        let id = stage["id"].as_str().unwrap();
        let status = if i == 10_049 { "diverged" } else { "done" };
        let record = serde_json::json!({
            "id": id, "inputs": null, "status": status, "rows": [], "kept": {}, "files": {}, "seconds": 1.5,
        });
        let folder = fixture.path("results/store").join(id);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("result.json"), record.to_string()).unwrap();
    }
    let status = fixture.run(&["status", "large.toml"]);
    assert!(status.out.contains("10050 of 10050 stages done, 1 diverged"), "{}{}", status.out, status.err);
    assert!(status.out.contains("cells: 10000 of 10000"), "{}", status.out);
}

#[test]
fn ctrl_c_saves_the_state_of_a_training_and_a_second_one_ends_at_once() {
    let fixture = Fixture::new();
    fixture.images(3, 16, 8);
    fixture.write("long.toml", &long_spec());
    let arguments = ["run", "long.toml", "--data", "images", "--jobs", "1", "--checkpoint-every", "1000"];
    let checkpoint = || {
        let Ok(stages) = fs::read_dir(fixture.path("results/store")) else { return false };
        let is_checkpoint =
            |path: &PathBuf| path.file_name().unwrap().to_string_lossy().starts_with("train-dense-");
        stages
            .filter_map(Result::ok)
            .any(|stage| stage.path().is_dir() && files(&stage.path()).iter().any(is_checkpoint))
    };
    let interrupt = |pid: u32| {
        let status = std::process::Command::new("kill").args(["-INT", &pid.to_string()]).status().unwrap();
        assert!(status.success());
    };
    let mut child = fixture.command(&arguments).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let until_it_trains = || {
        wait_until(|| fixture.run(&["status", "long.toml"]).out.contains("train "));
    };
    until_it_trains();
    assert!(!checkpoint());
    interrupt(child.id());
    let ended = child.wait().unwrap();
    assert_eq!(ended.code(), Some(130));
    assert!(checkpoint());
    let status = fixture.run(&["status", "long.toml"]);
    assert!(status.out.contains("0 of 3 stages done, 3 missing"), "{}", status.out);

    // Two in a row, the second before the first has any effect, as if a worker did not react.
    let mut child = fixture.command(&arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    until_it_trains();
    interrupt(child.id());
    std::thread::sleep(Duration::from_millis(20));
    let _ = std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status();
    let asked = Instant::now();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(asked.elapsed() < Duration::from_secs(20));
}

#[test]
fn cleaning_removes_what_no_run_needs_and_nothing_else() {
    let (fixture, expected) = Fixture::with_unbroken_run();
    fs::rename(fixture.path("unbroken"), fixture.path("results")).unwrap();
    fixture.write("other.toml", &other_spec());
    assert_eq!(fixture.run(&["run", "other.toml", "--data", "images"]).code, 0);
    let of_both = tables(&fixture.path("results"));
    let stored = || fs::read_dir(fixture.path("results/store")).unwrap().count();
    // A dense net and three cells, one of which both have, and the folder of claims.
    assert_eq!(stored(), 5);
    // What killed and frozen processes leave behind.
    let stage = fixture.entry("results/store", "dense-");
    let run = fixture.entry("results/runs", "small-");
    let mut left: Vec<PathBuf> = ["tables/.a.tmp", "store/.b.tmp", "verify-x/store/claims/gone"]
        .map(|name| fixture.path("results").join(name))
        .into();
    left.extend(
        [".c.tmp", ".weights.safetensors.x.partial", "failure.json", "train-last-0-0.safetensors"]
            .map(|name| stage.join(name)),
    );
    left.extend([".d.tmp", "tensorboard/.e.tmp"].map(|name| run.join(name)));
    for path in &left {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "half").unwrap();
    }

    let clean = fixture.run(&["clean", "--run", "other", "--yes"]);
    assert_eq!(clean.code, 0, "{}", clean.err);
    assert_eq!(stored(), 4);
    for path in &left {
        assert!(!path.exists(), "{}", path.display());
    }
    assert!(!fixture.path("results/verify-x").exists());
    assert_eq!(tables(&fixture.path("results")), of_both);
    assert!(fixture.path("results/store/claims/.guard").exists(), "others may have it locked");
    let again = fixture.run(&["clean", "--dry-run"]);
    assert!(!again.out.contains("cell-") && !again.out.contains("claims"), "{}", again.out);

    fs::remove_dir_all(fixture.path("results/tables")).unwrap();
    let run = fixture.run(&["run", "small.toml", "--data", "images"]);
    assert!(run.code == 0 && !run.err.contains("start "), "{}", run.err);
    assert_eq!(tables(&fixture.path("results")), expected);
}
