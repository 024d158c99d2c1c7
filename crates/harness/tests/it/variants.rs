//! Variants of a study: single keys of its spec overridden, on shared dense nets.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::AtomicUsize;

use thinet_harness::events::Silent;
use thinet_harness::inspect::status::RunStatus;
use thinet_harness::inspect::{VerifyOptions, verify};
use thinet_harness::store::StageKind;
use thinet_harness::study::{Plan, ResolvedStudy, manifest};
use thinet_report::records::{CellRecord, Status};
use thinet_report::tables::{StoredTable, read_table_file};

use crate::fixture::{DiesAt, Fixture, SPEC, one_shot};

/// One variant as the spec, and one each with another sample, another tuning and another mode.
const VARIANTS: &str = r#"
[[variants]]
name = "plain"
[[variants]]
name = "one image, 2 positions"
"calibration.images-per-class" = 1
"calibration.positions-per-image" = 2
[[variants]]
name = "short tuning"
"prune.after-last.epochs" = 1
[[variants]]
name = "layer by layer"
"prune.mode" = "layer-by-layer"
"prune.after-layer" = { steps = 2, batch = 16, lr = 0.01 }
"#;

/// A one-shot study with variants, of one keep rate.
fn with_variants() -> String {
    format!("{}{VARIANTS}", single())
}

fn single() -> String {
    one_shot(SPEC).replace("keep-rates = [0.5, 0.75]", "keep-rates = [0.5]")
}

/// The specs that the variants stand for, written out.
fn written_out() -> [(&'static str, String); 4] {
    let spec = single();
    let (at, last) = (spec.find("[prune.after-last]").unwrap(), spec.find("[calibration]").unwrap());
    let short =
        format!("{}{}{}", &spec[..at], spec[at..last].replace("epochs = 2", "epochs = 1"), &spec[last..]);
    let layers = SPEC.replace("keep-rates = [0.5, 0.75]", "keep-rates = [0.5]");
    let sample = spec.replace("images-per-class = 3", "images-per-class = 1");
    [
        ("plain", spec),
        ("one image, 2 positions", sample.replace("positions-per-image = 4", "positions-per-image = 2")),
        ("short tuning", short),
        ("layer by layer", layers),
    ]
}

#[test]
fn a_variant_gives_the_cells_of_the_spec_that_it_stands_for() {
    let fixture = Fixture::new();
    let outcome = fixture.run(&with_variants(), "variants", &Silent);
    let study = outcome.study;
    assert_eq!(study.cells.len(), 4 * 3);
    let mut ids = BTreeSet::new();
    for (name, spec) in written_out() {
        // In a results folder of its own, so that nothing is shared.
        let alone = fixture.run(&spec, &name.replace(' ', "-"), &Silent).study;
        assert_eq!(study.dense, alone.dense);
        let of_variant = study.cells.iter().filter(|cell| cell.variant.as_deref() == Some(name));
        let of_variant: Vec<CellRecord> =
            of_variant.map(|cell| CellRecord { variant: None, ..cell.clone() }).collect();
        assert!(alone.cells.iter().all(|cell| cell.status == Status::Done));
        assert_eq!(of_variant, alone.cells, "{name}");
        assert_eq!(study.mode_of(Some(name)), alone.mode);
        ids.extend(alone.cells.into_iter().map(|cell| cell.id));
    }
    assert_eq!(ids.len(), study.cells.len(), "every variant has cells of its own");
    let folder = fixture.path("variants/tables");
    let file = read_table_file(&folder, "small", "csv").unwrap().unwrap();
    let table = StoredTable::parse(file.bytes).unwrap();
    assert_eq!(table.columns()[..3], ["run", "variant", "method"]);
    for cell in &study.cells {
        let row = table.row(&cell.id).unwrap();
        assert_eq!(table.text("variant", row), cell.variant.as_deref());
        assert_eq!(table.text("mode", row), Some(study.mode_of(cell.variant.as_deref()).name()));
    }
}

#[test]
fn variants_share_dense_nets_and_the_calibrations_that_they_do_not_change() {
    let fixture = Fixture::new();
    let (plain, plan) =
        (fixture.plan(&single(), "results").unwrap(), fixture.plan(&with_variants(), "results").unwrap());
    let of_kind = |plan: &Plan, kind: StageKind| {
        let stages = manifest(plan).stages.into_iter().filter(|stage| stage.kind == kind);
        stages.map(|stage| stage.id).collect::<Vec<_>>()
    };
    assert_eq!(of_kind(&plain, StageKind::Dense), of_kind(&plan, StageKind::Dense));
    let (own, all) = (of_kind(&plain, StageKind::Evidence), of_kind(&plan, StageKind::Evidence));
    assert_eq!(all.len(), 2 * own.len(), "those of the spec and those of the other sample");
    assert!(own.iter().all(|id| all.contains(id)));
    for (written, variant) in written_out().iter().zip(&plan.variants) {
        assert_eq!(variant.name.as_deref(), Some(written.0));
        let alone = fixture.plan(&written.1, "results").unwrap();
        let of_variant = plan.cells.iter().filter(|cell| cell.design.variant.name == variant.name);
        for (cell, expected) in of_variant.zip(&alone.cells) {
            assert_eq!(cell.id, expected.id);
            let evidence =
                |plan: &Plan, cell| plan.evidence_of(cell).map(|e| e.id.clone()).collect::<Vec<_>>();
            assert_eq!(evidence(&plan, cell), evidence(&alone, expected));
        }
    }
    let labels: Vec<String> = manifest(&plan).stages.into_iter().map(|stage| stage.label).collect();
    assert_eq!(labels.iter().collect::<BTreeSet<_>>().len(), labels.len(), "{labels:#?}");
    assert!(labels.contains(&"short tuning: apoz r=0.5 seed 0".to_owned()), "{labels:#?}");
}

#[test]
fn another_draw_is_another_sample_of_the_same_dense_net() {
    let fixture = Fixture::new();
    let first = r#"
[[variants]]
name = "first"
"calibration.draw" = 0
"#;
    let draws = format!("{first}{}", first.replace("first", "again").replace("= 0", "= 1"));
    for (mode, spec) in [("one-shot", single()), ("layers", SPEC.replace("[0.5, 0.75]", "[0.5]"))] {
        let study = fixture.run(&format!("{spec}{draws}"), mode, &Silent).study;
        let alone = fixture.plan(&spec, "results").unwrap();
        let of = |name: &str| -> Vec<&CellRecord> {
            study.cells.iter().filter(|cell| cell.variant.as_deref() == Some(name)).collect()
        };
        // A draw that is written out is the one of specs that name none.
        let ids: Vec<&str> = of("first").iter().map(|cell| cell.id.as_str()).collect();
        assert_eq!(ids, alone.cells.iter().map(|cell| cell.id.as_str()).collect::<Vec<_>>());
        for (first, again) in of("first").into_iter().zip(of("again")) {
            assert_ne!(first.id, again.id);
            assert_ne!(first.rows, again.rows, "{mode}: {}", first.method);
        }
        let folder = fixture.path(&format!("{mode}/tables"));
        let file = read_table_file(&folder, "small-draws", "csv").unwrap().unwrap();
        let text = String::from_utf8(file.bytes).unwrap();
        let rows: Vec<Vec<&str>> = text.lines().map(|line| line.split(',').collect()).collect();
        let draws = rows[0].iter().position(|name| *name == "draws_least").unwrap();
        assert!(rows.len() > 3 && rows[1..].iter().all(|row| row[draws] == "2"), "{mode}: {text}");
    }
}

#[test]
fn a_study_of_variants_that_died_is_resumed_and_its_state_is_known() {
    let fixture = Fixture::new();
    let spec = with_variants();
    fixture.run(&spec, "unbroken", &Silent);
    let mut deaths = 0;
    for event in [30, 20, 25, 30, 30, 40] {
        let reporter = DiesAt { left: AtomicUsize::new(event) };
        let died = catch_unwind(AssertUnwindSafe(|| fixture.run(&spec, "broken", &reporter))).is_err();
        deaths += usize::from(died);
    }
    assert!(deaths >= 4, "the study died {deaths} times");
    let plan = fixture.plan(&spec, "broken").unwrap();
    let state = || {
        let name = plan.run_folder().file_name().unwrap().to_string_lossy().into_owned();
        let status = RunStatus::of(&plan.results, &name).unwrap().unwrap();
        (status.tally(None).done, status.stages.len())
    };
    let (done, all) = state();
    assert_eq!(all, manifest(&plan).stages.len());
    assert!((1..all).contains(&done), "{done} of {all}");
    fixture.run(&spec, "broken", &Silent);
    assert_eq!(state(), (all, all));
    fixture.assert_same_stages("unbroken", "broken");
    assert_eq!(fixture.tables("broken"), fixture.tables("unbroken"));
}

#[test]
fn a_cell_of_a_variant_is_verified_from_the_spec_beside_the_table() {
    let fixture = Fixture::new();
    let study = fixture.run(&with_variants(), "results", &Silent).study;
    let of_variants = |name: &str| {
        let cell = study.cells.iter().find(|cell| cell.variant.as_deref() == Some(name));
        cell.unwrap().id.clone()
    };
    let cells = ["one image, 2 positions", "layer by layer"].map(of_variants).to_vec();
    let options =
        VerifyOptions { cells, count: 0, with_dense: false, allow_commands: false, tolerance: None };
    let found = verify("small", None, &fixture.options("results"), &options, &Silent).unwrap();
    assert_eq!(found.cells.len(), 2);
    for cell in found.cells {
        assert!(cell.differences.is_empty() && cell.same_weights == Some(true), "{cell:?}");
    }
}

fn error_of(variants: &str) -> String {
    let spec = format!("{SPEC}\n{variants}");
    let fixture = Fixture::new();
    let error = fixture.plan(&spec, "results").err().unwrap_or_else(|| panic!("{variants} is accepted"));
    let text = error.to_string();
    text.split_once("spec.toml: ").unwrap_or_else(|| panic!("{text}")).1.to_owned()
}

fn error_of_key(line: &str) -> String {
    error_of(&format!("[[variants]]\nname = \"few\"\n{line}"))
}

#[test]
fn a_wrong_override_is_named_with_its_variant_and_key() {
    for (line, expected) in [
        (
            "\"calibration.images-per-clas\" = 1",
            "variant \"few\": calibration.images-per-clas: unknown field `images-per-clas`, expected one of \
             `images-per-class`, `positions-per-image`, `draw` — did you mean `images-per-class`?",
        ),
        (
            "\"calibration.draw\" = -1",
            "variant \"few\": calibration.draw: expected a whole number of at least 0, found the number -1",
        ),
        (
            "\"calibration.draw\" = 1000001",
            "variant \"few\": calibration.draw: 1000001 is outside 0 to 1000000",
        ),
        (
            "\"calibration.images-per-class\" = \"three\"",
            "variant \"few\": calibration.images-per-class: expected a whole number of at least 0, found the text \"three\"",
        ),
        (
            "\"prune.mode\" = \"oneshot\"",
            "variant \"few\": prune.mode: unknown variant `oneshot`, expected `layer-by-layer` or `one-shot` — did you \
             mean `one-shot`?",
        ),
        (
            "calibration.images-per-class = 1",
            "variant \"few\": calibration: names a whole table; write single keys in quotes, such as \
             \"calibration.images-per-class\" = …",
        ),
        ("\"prune.mode.x\" = 1", "variant \"few\": prune.mode.x: prune.mode is not a table"),
        ("\"prune.keep-rates\" = [2.0]", "variant \"few\": prune.keep-rates: 2 is outside (0, 1]"),
        (
            "\"prune.mode\" = \"one-shot\"",
            "variant \"few\": prune.after-layer: has no meaning with mode = \"one-shot\", where all layers are cut at \
             once; use after-last",
        ),
        ("\"from-scratch.epochs\" = 1", "variant \"few\": missing key `lr` in [from-scratch]"),
        (
            "\"prune.after-last.steps\" = 1",
            "variant \"few\": prune.after-last: exactly one of `epochs` and `steps` is needed",
        ),
        (
            "\"calibration.images-per-class\" = 17",
            "variant \"few\": calibration.images-per-class: 17 asked for, class 0 has 16 training images",
        ),
        (
            "\"prune.layer-rates\" = { conv9 = 0.5 }",
            "variant \"few\": prune.layer-rates: \"conv9\" is not among the pruned layers; did you mean \"conv1\"?",
        ),
    ] {
        let error = error_of_key(line);
        assert!(error.starts_with(expected), "{line}\n  {error}\n  {expected}");
    }
}

#[test]
fn what_variants_share_cannot_be_overridden() {
    for key in [
        "table",
        "paper-table",
        "seeds",
        "dataset.size",
        "input.size",
        "net.width",
        "compute.threads",
        "dense.train.lr",
        "variants",
        "stray",
    ] {
        let error = error_of_key(&format!("\"{key}\" = 1"));
        let expected = format!(
            "variant \"few\": {key}: cannot be overridden, as all variants share the rest of the spec"
        );
        assert!(error.starts_with(&expected), "{error}");
    }
    let error = error_of_key("\"methods\" = [{ selector = \"apoz\" }]");
    assert_eq!(
        error,
        "variant \"few\": methods: all variants compare the same methods; keys of [calibration], [prune], [from-scratch] \
         can be"
    );
}

#[test]
fn names_of_variants_are_plain_and_differ() {
    for (names, expected) in [
        (&["\"a\"", "\"b\"", "\"a\""][..], "variants[2].name: two variants are called \"a\""),
        (&["\" \""], "variants[0].name: is empty"),
        (&["\"a\\tb\""], "variants[0].name: \"a\\tb\" holds a line end, a tab or another control character"),
    ] {
        let variants: String = names.iter().map(|name| format!("[[variants]]\nname = {name}\n")).collect();
        assert_eq!(error_of(&variants), expected);
    }
    let fixture = Fixture::new();
    let error_of = |spec: &str| fixture.plan(spec, "results").err().unwrap().to_string();
    let error = error_of(&format!("{SPEC}\n[[variants]]\n\"prune.mode\" = \"one-shot\"\n"));
    assert!(error.ends_with("missing key `name` in [variants[0]]"), "{error}");
    let error = error_of(&format!("paper-table = \"birds\"\n{SPEC}{VARIANTS}"));
    assert!(error.contains("paper-table: compares single studies"), "{error}");
}

#[test]
fn a_resolved_spec_gives_the_same_run() {
    let fixture = Fixture::new();
    let plan = fixture.plan(&with_variants(), "results").unwrap();
    let resolved = fixture.plan(&plan.spec.to_toml().unwrap(), "results").unwrap();
    assert_eq!((&resolved.run, &resolved.variants), (&plan.run, &plan.variants));
    assert_ne!(plan.run, fixture.plan(&single(), "results").unwrap().run);
    // The command line's number of seeds holds for all variants.
    let options = thinet_harness::study::Options { seeds: Some(2), ..fixture.options("results") };
    let spec = fixture.path("spec.toml");
    std::fs::write(&spec, with_variants()).unwrap();
    let seeds = Plan::new(&spec, &options).unwrap();
    assert_eq!(seeds.cells.len(), 2 * plan.cells.len());
    assert!(
        ResolvedStudy::without_data(&spec, &options)
            .unwrap()
            .is_none_or(|r| r.cells.len() == seeds.cells.len())
    );
}
