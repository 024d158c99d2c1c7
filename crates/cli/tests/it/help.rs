//! Help texts and lists, as snapshots: every change of a word shows here.

use std::fs;
use std::path::Path;

use crate::fixture::Fixture;

#[test]
fn help_of_every_command() {
    let fixture = Fixture::new();
    let mut text = String::new();
    let top = fixture.run(&["--help"]).out;
    let named =
        top.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    // Further lines of a description are indented more.
    let named = named.filter_map(|line| line.strip_prefix("  ")?.split(' ').next());
    let named = named.filter(|name| !["", "help"].contains(name));
    let commands = [""].into_iter().chain(named).chain(["data fetch", "data check"]);
    for command in commands {
        let mut arguments: Vec<&str> = command.split_whitespace().collect();
        arguments.push("--help");
        let ran = fixture.run(&arguments);
        assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{command}");
        text.push_str(&format!("$ thinet {}\n{}\n", arguments.join(" "), ran.out));
    }
    insta::assert_snapshot!(text);
}

#[test]
fn lists_name_everything_a_spec_can_name() {
    let fixture = Fixture::new();
    let mut text = String::new();
    for what in ["models", "datasets", "selectors", "reconstructions", "keys"] {
        let ran = fixture.run(&["list", what]);
        assert_eq!(ran.code, 0);
        text.push_str(&format!("$ thinet list {what}\n{}\n", ran.out));
    }
    insta::assert_snapshot!(text);
}

#[test]
fn the_reference_of_keys_in_the_book_is_that_of_the_program() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/spec-reference.md");
    let ran = Fixture::new().run(&["list", "keys", "--markdown"]);
    // As for snapshots.
    if std::env::var("INSTA_UPDATE").is_ok_and(|value| value == "always") {
        fs::write(&page, &ran.out).unwrap();
    }
    let committed = fs::read_to_string(&page).unwrap();
    assert!(committed == ran.out, "write it again: thinet list keys --markdown > docs/spec-reference.md");
    let refused = Fixture::new().run(&["list", "models", "--markdown"]);
    assert_eq!((refused.code, refused.err.as_str()), (2, "error: --markdown is for `thinet list keys`\n"));
}

#[test]
fn counts_of_the_papers_models_need_no_data() {
    let fixture = Fixture::new();
    let all = fixture.run(&["count", "--all"]);
    assert_eq!(all.code, 0, "{}", all.err);
    insta::assert_snapshot!(all.out);
    let torch = fixture.run(&["count", "resnet50", "--stride", "3x3"]);
    assert!(torch.out.contains("4,089,184,256"), "{}", torch.out);
    let json = fixture.run(&["count", "vgg16-gap", "--keep-rate", "0.5", "--json"]);
    let value = json.json();
    assert_eq!(value["counts"][1]["params"], 8_322_696);
}
