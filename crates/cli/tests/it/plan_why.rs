//! `thinet plan --why`: each missing stage with what differs from the nearest stored one.

use std::fs;

use crate::fixture::{Fixture, SPEC};

#[test]
fn what_differs_is_named_by_the_key_of_the_spec() {
    let fixture = Fixture::with_study();
    let ran = fixture.run(&["run", "small.toml", "--data", "images"]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    let why = |spec: &str| {
        fixture.write("changed.toml", spec);
        let ran = fixture.run(&["plan", "changed.toml", "--data", "images", "--why"]);
        assert_eq!(ran.code, 0, "{}", ran.err);
        ran.out
    };
    assert!(why(SPEC).ends_with("nothing would run: every stage is stored\n"));

    let cells = "  thinet + channel-scale r=0.5 seed 0; random r=0.5 seed 0\n";
    let all = cells.replacen("  ", "  dense net, seed 0; ", 1);
    for (from, to, stages, lines) in [
        ("steps = 4", "steps = 5", cells, "    prune.after-last.steps: 4 -> 5\n"),
        (
            "lr = 0.05",
            "lr = 0.1, nesterov = true",
            &all,
            "    dense.train.lr: 0.05 -> 0.1\n    dense.train.nesterov: none -> true\n",
        ),
        ("images-per-class = 2", "images-per-class = 3", cells, "    calibration.images-per-class: 2 -> 3\n"),
        ("size = 16,", "size = 16, train-limit = 30,", &all, "    dataset (training images): "),
        ("arch = \"tiny\"", "arch = \"tiny\", width = 2", &all, "    net.widths."),
        (
            "[0.5]",
            "[0.75]",
            &cells.replace("0.5", "0.75"),
            "    new: nothing of this method, keep rate and seed is stored\n",
        ),
        ("\"random\"", "\"apoz\"", "  apoz r=0.5 seed 0\n", "    new: "),
    ] {
        let text = why(&SPEC.replacen(from, to, 1));
        let (_, reasons) =
            text.split_once("why stages would run, each compared with the nearest stored one:\n").unwrap();
        assert!(reasons.starts_with(&format!("{stages}{lines}")), "{to}: {reasons}");
    }

    let seeds =
        fixture.run(&["plan", "small.toml", "--data", "images", "--seeds", "2", "--why", "--json"]).json();
    let reasons = seeds["why"].as_array().unwrap();
    assert_eq!(reasons.len(), 3);
    assert!(reasons.iter().all(|stage| stage["why"] == "new"), "{reasons:?}");
    fixture.write("changed.toml", &SPEC.replace("steps = 4", "steps = 5"));
    let differs = fixture.run(&["plan", "changed.toml", "--data", "images", "--why", "--json"]).json();
    assert_eq!(differs["why"][0]["inputs"][0]["key"], "prune.after-last.steps");
    assert!(differs["why"][0]["nearest"].as_str().unwrap().starts_with("cell-"));
    assert!(fixture.run(&["plan", "small.toml", "--data", "images", "--json"]).json().get("why").is_none());

    // Damaged, failed and begun stages are of this spec itself.
    let cell = fixture.entry("results/store", "cell-");
    fs::write(cell.join("weights.safetensors"), "").unwrap();
    assert!(why(SPEC).contains("    stored, but damaged: weights.safetensors has 0 bytes, not "));
    fs::remove_file(cell.join("result.json")).unwrap();
    assert!(why(SPEC).contains("    begun, not finished: it goes on from its checkpoint\n"));
    let no_data = fixture.run(&["plan", "small.toml", "--data", "nowhere", "--why"]);
    assert_eq!((no_data.code, no_data.out.as_str()), (3, ""), "{}", no_data.err);
}
