//! Targets of FLOPs on the command line.

use crate::fixture::{Fixture, SPEC};

// FLOPs of the net on 1×16×16 images with three classes, at widths a, b, c: conv1 9·256·a = 2,304·a multiply-adds, conv2 576·a·b,
// conv3 576·b·c, fc 3·64·c = 192·c; batch norms 4·(a + b + c). The dense net has 8, 12 and 16: 187,392 multiply-adds, 374,928 FLOPs.
// At 0.7 it has 5, 8 and 11: 87,360 and 174,816; at 0.75 218,988, more than half. At 0.44 it has 3, 5 and 7: 37,056 and 74,172; at
// 0.5 104,520, more than a quarter. At 0.13 it has 1, 1 and 2: 4,416 and 8,848.
#[test]
fn plan_shows_for_each_target_the_keep_rate_and_what_it_leaves() {
    let fixture = Fixture::with_study();
    let plan = |targets: &str, more: &[&str]| {
        fixture.write("small.toml", &SPEC.replace("prune.keep-rates = [0.5]", targets));
        fixture.run(&[&["plan", "small.toml", "--data", "images"], more].concat())
    };
    let lines = "\
FLOPs       at most 50.00 % asked: keep rate 0.7 leaves 46.63 %
FLOPs       at most 25.00 % asked: keep rate 0.44 leaves 19.78 %
";
    let targets = "prune.flops = [0.5, 0.25]";
    assert!(plan(targets, &[]).out.contains(lines), "{}", plan(targets, &[]).out);
    let json = plan(targets, &["--json"]).json();
    let first = serde_json::json!({
        "target": 0.5, "keep-rate": 0.7, "flops": 174_816, "flops-fraction": 174_816.0 / 374_928.0,
    });
    assert_eq!((&json["targets"][0], json["cells"].as_array().unwrap().len()), (&first, 4));
    assert!(plan("prune.keep-rates = [0.5]", &["--json"]).json().get("targets").is_none());

    let variants =
        "prune.flops = [0.5]\nvariants = [{ name = \"all\" }, { name = \"low\", \"prune.flops\" = [0.25] }]";
    let text = plan(variants, &[]).out;
    assert!(
        text.contains("FLOPs       all: at most 50.00 % asked: keep rate 0.7 leaves 46.63 %\n"),
        "{text}"
    );
    assert!(
        text.contains("FLOPs       low: at most 25.00 % asked: keep rate 0.44 leaves 19.78 %\n"),
        "{text}"
    );

    let error = plan("prune.flops = [0.01]", &[]);
    assert_eq!(error.code, 2);
    assert!(
        error.err.contains(
            "small.toml: prune.flops: 0.01 of the dense net's FLOPs cannot be reached: the least is 0.0236 (rounded up), \
             at keep rate 0.13"
        ),
        "{}",
        error.err
    );
}
