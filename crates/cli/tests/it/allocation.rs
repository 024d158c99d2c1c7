//! A global allocation on the command line: what the plan says before and after, workers, verification, another machine's results, and
//! a new method at the same target of FLOPs.

use crate::fixture::{Fixture, SPEC, tables};

/// The study with a global allocation, two seeds, and a control.
fn spec() -> String {
    let methods = "methods = [{ selector = \"weight-sum-l1\", reconstruction = \"channel-scale\" }, { selector = \"apoz\" }]\n\
                   from-scratch = { steps = 4, batch = 8, lr = 0.01 }\n";
    let asked = "prune.flops = [0.5]\nprune.mode = \"one-shot\"\nprune.allocation = \"global\"\nseeds = 2";
    format!("{}{methods}", &SPEC[..SPEC.find("methods").unwrap()]).replace("prune.keep-rates = [0.5]", asked)
}

fn fixture() -> Fixture {
    let fixture = Fixture::with_study();
    fixture.write("small.toml", &spec());
    fixture
}

const STUDY: [&str; 3] = ["small.toml", "--data", "images"];

// At 0.7 the net has 174,816 of 374,928 FLOPs (see `flops.rs`): the keep rate under which the target stands.
#[test]
fn widths_are_known_after_the_calibration_and_hold_in_workers_verification_and_a_merge() {
    let fixture = fixture();
    let run = |words: &[&str]| {
        let ran = fixture.run(words);
        assert_eq!(ran.code, 0, "{words:?}: {}{}", ran.out, ran.err);
        ran
    };
    let plan = || run(&[&["plan"], &STUDY[..]].concat()).out;
    let before = plan();
    assert!(
        before.contains(
            "FLOPs       at most 50.00 % asked: widths of each net's own; in tables under keep rate 0.7\n"
        ),
        "{before}"
    );
    assert_eq!(before.matches("known after calibration").count(), 8, "{before}");
    let json = run(&[&["plan"], &STUDY[..], &["--json"]].concat()).json();
    assert!(json["cells"][0]["widths"].is_null() && json["cells"][0]["flops"].is_null(), "{json}");

    run(&[&["run"], &STUDY[..], &["--jobs", "1", "--results", "alone"]].concat());
    run(&[&["run"], &STUDY[..], &["--jobs", "2"]].concat());
    assert_eq!(tables(&fixture.path("results")), tables(&fixture.path("alone")));
    let after = plan();
    assert!(!after.contains("known after calibration") && !after.contains("\nto do"), "{after}");
    let json = run(&[&["plan"], &STUDY[..], &["--json"]].concat()).json();
    for cell in json["cells"].as_array().unwrap() {
        let flops = cell["flops"].as_u64().unwrap();
        assert!(flops <= 187_464 && cell["widths"].as_array().unwrap().len() == 3, "{cell}");
    }

    let verified = run(&[&["verify", "small", "--all", "--spec"], &STUDY[..]].concat());
    assert_eq!(verified.out.matches("From scratch as").count(), 4, "{}", verified.out);

    // On another machine nothing is left to do.
    run(&["merge", "alone", "--results", "joined"]);
    let ran = run(&[&["run"], &STUDY[..], &["--results", "joined"]].concat());
    assert_eq!(tables(&fixture.path("joined")), tables(&fixture.path("alone")), "{}", ran.err);
}

#[test]
fn a_new_method_is_compared_at_the_same_target_and_one_without_scores_is_refused() {
    let fixture = fixture();
    let ran = fixture.run(&[&["run"], &STUDY[..]].concat());
    assert_eq!(ran.code, 0, "{}", ran.err);
    let compare =
        |selector: &str| fixture.run(&[&["compare"], &STUDY[..], &["--selector", selector]].concat());
    let refused = compare("thinet");
    assert!(refused.code == 2 && refused.err.contains("no scores that could be compared"), "{}", refused.err);
    let ran = compare("fpgm");
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert!(ran.out.contains("at most 50.0 % of the dense net's FLOPs each"), "{}", ran.out);
    assert!(ran.out.contains("apoz"), "{}", ran.out);
}
