//! Where results come from: the program's commit and the spec's, the processor, and what `verify` prints when cells differ.

use std::fs;
use std::process::Command;

use crate::fixture::{Fixture, SPEC};

/// What git prints in a folder, if it succeeds there.
fn git(folder: &std::path::Path, arguments: &[&str]) -> Option<String> {
    let identity = ["-c", "user.name=test", "-c", "user.email=test@localhost"];
    let output = Command::new("git").arg("-C").arg(folder).args(identity).args(arguments).output().unwrap();
    output.status.success().then(|| String::from_utf8(output.stdout).unwrap().trim().to_owned())
}

#[test]
fn the_environment_records_the_commits_of_program_and_spec_and_what_chooses_kernels() {
    let fixture = Fixture::with_study();
    let here = fixture.path("");
    for arguments in [&["init", "-q"][..], &["add", "small.toml"], &["commit", "-q", "-m", "spec"]] {
        git(&here, arguments).unwrap();
    }
    let run = |results: &str| {
        let arguments = ["run", "small.toml", "--data", "images", "--jobs", "1", "--results", results];
        let output = fixture.command(&arguments).env("MKL_CBWR", "COMPATIBLE").output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = fs::read(fixture.path(results).join("tables/small.env.json")).unwrap();
        serde_json::from_slice::<serde_json::Value>(&text).unwrap()
    };
    let environment = run("results");
    assert_eq!(environment["spec-commit"].as_str(), git(&here, &["rev-parse", "HEAD"]).as_deref());
    assert_eq!(environment["spec-dirty"], false);
    // Not compared with git's present commit: a commit during the tests would change it, but not the program.
    let project = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let is_checkout = git(project, &["ls-files", "--error-unmatch", "Cargo.toml"]).is_some();
    let commit = environment["program-commit"].as_str();
    assert_eq!(commit.is_some(), is_checkout, "{environment}");
    if let Some(commit) = commit {
        assert_eq!(git(project, &["cat-file", "-t", commit]).as_deref(), Some("commit"));
        assert_ne!(environment["program-commit"], environment["spec-commit"]);
    }
    assert_eq!(environment["program-dirty"].is_boolean(), is_checkout);
    assert!(environment["cpu-capability"].is_string(), "{environment}");
    assert!(environment["processor"]["family"].is_string(), "{environment}");
    assert_eq!(environment["variables"], serde_json::json!({ "MKL_CBWR": "COMPATIBLE" }));

    fixture.write("small.toml", &format!("# changed\n{SPEC}"));
    assert_eq!(run("changed")["spec-dirty"], true);
}

#[test]
fn verify_compares_numbers_and_lists_differences_of_the_environments() {
    let fixture = Fixture::with_study();
    assert_eq!(fixture.run(&["run", "small.toml", "--data", "images", "--jobs", "1"]).code, 0);
    let table = fixture.path("results/tables/small.csv");
    let csv = fs::read_to_string(&table).unwrap();
    let verify = || fixture.run(&["verify", "small", "--data", "images", "--all"]);

    // As an older version left them: without checksums, which would show that the files have changed.
    fs::remove_file(fixture.path("results/tables/small.sums.json")).unwrap();
    // The same numbers written in another way are the same numbers.
    fs::write(&table, csv.replace(",0.5,", ",0.500,")).unwrap();
    assert_ne!(fs::read_to_string(&table).unwrap(), csv);
    let same = verify();
    assert_eq!(same.code, 0, "{}{}", same.out, same.err);
    assert!(same.out.ends_with("2 of 2 cells agree to the last digit\n"), "{}", same.out);

    fs::write(&table, csv.replace(",0.5,", ",0.501,")).unwrap();
    let nothing = verify();
    assert_eq!(nothing.code, 1);
    let text = "nothing differs between the environment of the table and this one";
    assert!(nothing.out.contains("keep_rate: 0.501 in the table, 0.5 now") && nothing.out.contains(text));
    let promise = "the same numbers, with the same libtorch, threads and instruction set";
    assert!(nothing.out.contains(promise), "{}", nothing.out);

    let file = fixture.path("results/tables/small.env.json");
    let mut environment: serde_json::Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    environment.as_object_mut().unwrap().remove("checksum").unwrap();
    environment["cpu-capability"] = "INVENTED".into();
    environment["variables"] = serde_json::json!({ "ONEDNN_MAX_CPU_ISA": "AVX2" });
    fs::write(&file, environment.to_string()).unwrap();
    let named = verify();
    for line in ["cpu-capability: INVENTED -> ", "variables.ONEDNN_MAX_CPU_ISA: AVX2 -> not recorded"] {
        assert!(named.out.contains(line), "{}", named.out);
    }
    fs::remove_file(&file).unwrap();
    assert!(verify().out.contains("the table has no environment beside it"));
}
