//! What the program writes about itself: the schema of specs, completions, man pages.

use std::fs;

use crate::fixture::{Fixture, SPEC};

#[test]
fn the_schema_is_the_committed_one() {
    let ran = Fixture::new().run(&["schema"]);
    assert_eq!((ran.code, ran.err.as_str()), (0, ""));
    let committed = concat!(env!("CARGO_MANIFEST_DIR"), "/../../experiments/schema.json");
    assert!(ran.out == fs::read_to_string(committed).unwrap(), "thinet schema > experiments/schema.json");
}

#[test]
fn a_spec_that_names_the_schema_has_the_ids_of_one_that_does_not() {
    let fixture = Fixture::with_study();
    fixture.write("named.toml", &format!("#:schema ./schema.json\n{SPEC}"));
    let plan = |spec: &str| fixture.run(&["plan", spec, "--data", "images", "--json"]);
    let (plain, named) = (plan("small.toml"), plan("named.toml"));
    assert_eq!((plain.code, named.code), (0, 0), "{}{}", plain.err, named.err);
    assert!(plain.json()["run"].is_string());
    assert_eq!(plain.json(), named.json());
}

#[test]
fn shells_get_every_command_but_the_internal_ones() {
    let fixture = Fixture::new();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let ran = fixture.run(&["completions", shell]);
        assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{shell}");
        for part in ["plan", "merge", "checkpoint-every", "completions"] {
            assert!(ran.out.contains(part), "{shell}: {part}");
        }
        assert!(!ran.out.contains("worker"), "{shell}");
    }
    // bash itself reads the script and completes with it.
    let script = "eval \"$($thinet completions bash)\"; COMP_WORDS=(thinet pl); COMP_CWORD=1; _thinet thinet pl thinet; \
                  echo \"${COMPREPLY[*]}\"";
    let bash = fixture.script(&["bash", "-c"], script);
    assert_eq!(String::from_utf8_lossy(&bash.stdout).trim(), "plan", "{bash:?}");
    let unknown = fixture.run(&["completions", "tcsh"]);
    assert_eq!(unknown.code, 2);
    assert!(unknown.err.contains("possible values: bash"), "{}", unknown.err);
}

#[test]
fn man_pages_are_written_for_every_command_but_the_internal_ones() {
    let fixture = Fixture::new();
    let ran = fixture.run(&["man", "--out", "share/man1"]);
    assert_eq!((ran.code, ran.err.as_str()), (0, "written: share/man1/thinet.1\n"));
    let page = |name: &str| fs::read_to_string(fixture.path("share/man1").join(name));
    let run = page("thinet-run.1").unwrap();
    assert!(run.starts_with(".ie") || run.starts_with(".TH"), "{run}");
    assert!(run.contains("checkpoint") && run.contains("A run can be stopped at any time"), "{run}");
    assert!(page("thinet.1").unwrap().contains("Exit codes"));
    assert!(page("thinet-data-fetch.1").is_ok() && page("thinet-worker.1").is_err());
    fixture.write("taken", "");
    let failed = fixture.run(&["man", "--out", "taken"]);
    assert_eq!(failed.code, 1);
    assert!(failed.err.starts_with("error: cannot create taken: "), "{}", failed.err);
    assert_eq!(fixture.run(&["man"]).code, 2);
}
