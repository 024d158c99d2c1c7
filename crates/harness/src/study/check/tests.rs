//! Each condition of the checks at its bounds: the last value that is allowed, and the first that is not with its key.

use thinet_nets::{Arch, NetSpec};

use super::*;

mod data;
mod recipes;

/// A layer-by-layer spec with every recipe, so that each can be broken alone.
const SPEC: &str = r#"
name = "x"
table = "x"
paper-table = "x"
seeds = 1
dataset = { kind = "cifar10" }
compute = { threads = 1 }
net = { arch = "tiny", batch-norm = true }
calibration = { images-per-class = 1, positions-per-image = 1 }
from-scratch = { epochs = 1, batch = 2, lr = 0.1 }
[dense.train]
epochs = 1
batch = 2
lr = 0.1
[prune]
keep-rates = [0.5]
after-layer = { steps = 1, batch = 2, lr = 0.1 }
after-last = { steps = 2, batch = 2, lr = 0.1 }
exceptions = [{ layers = ["conv1"], recipe = { steps = 3, batch = 2, lr = 0.1 } }]
[[methods]]
selector = "thinet"
reconstruction = "channel-scale"
[[methods]]
selector = "random"
"#;

fn with(replacements: &[(&str, &str)]) -> Spec {
    let mut text = SPEC.to_owned();
    for (from, to) in replacements {
        assert!(text.contains(from), "{from:?} is not in the spec");
        text = text.replacen(from, to, 1);
    }
    Spec::parse(&text, Path::new("x.toml")).unwrap_or_else(|error| panic!("{replacements:?}: {error}"))
}

/// Each recipe of the spec, by a piece of text that is in it alone.
const RECIPES: [(&str, &str); 5] = [
    ("from-scratch = { epochs = 1, batch = 2, lr = 0.1", "from-scratch"),
    ("[dense.train]\nepochs = 1\nbatch = 2\nlr = 0.1", "dense.train"),
    ("after-layer = { steps = 1, batch = 2, lr = 0.1", "prune.after-layer"),
    ("after-last = { steps = 2, batch = 2, lr = 0.1", "prune.after-last"),
    ("recipe = { steps = 3, batch = 2, lr = 0.1", "prune.exceptions[0].recipe"),
];

/// The key that is refused; none if the value is allowed. The problem is never empty.
fn refused(outcome: Result<(), HarnessError>) -> Option<String> {
    match outcome {
        Ok(()) => None,
        Err(HarnessError::Spec(SpecError::Value { path, key, problem })) => {
            assert_eq!(path, Path::new("x.toml"));
            assert!(!problem.is_empty(), "{key}");
            Some(key)
        }
        Err(other) => panic!("{other}"),
    }
}

/// Checks `(from, to, refused key or "")` of the spec, one replacement at a time.
fn check_each(cases: &[(&str, &str, &str)]) {
    for &(from, to, key) in cases {
        let found = refused(values(&with(&[(from, to)]), Path::new("x.toml")));
        assert_eq!(found.as_deref().unwrap_or_default(), key, "{to:?} for {from:?}");
    }
}

#[test]
fn the_spec_that_the_cases_change_is_allowed() {
    assert_eq!(refused(values(&with(&[]), Path::new("x.toml"))), None);
}

#[test]
fn names_are_lower_case_letters_digits_and_dashes_that_do_not_begin_with_one() {
    for (line, key) in
        [("\nname = \"x\"", "name"), ("\ntable = \"x\"", "table"), ("\npaper-table = \"x\"", "paper-table")]
    {
        for (value, is_allowed) in [
            ("a-0z9", true),
            ("9", true),
            ("a-", true),
            ("", false),
            ("-a", false),
            ("a_b", false),
            ("a b", false),
            ("Ab", false),
            ("ä", false),
            ("a/b", false),
        ] {
            let changed = line.replace("\"x\"", &format!("{value:?}"));
            check_each(&[(line, &changed, if is_allowed { "" } else { key })]);
        }
    }
}

#[test]
fn no_study_takes_the_name_of_a_table_that_none_makes() {
    check_each(&[
        ("\ntable = \"x\"", "\ntable = \"latency\"", "table"),
        ("\npaper-table = \"x\"", "\npaper-table = \"compression\"", "paper-table"),
        ("\nname = \"x\"", "\nname = \"latency\"", ""),
    ]);
    // Without the key, the table has the study's name.
    let named = with(&[("\nname = \"x\"", "\nname = \"latency\""), ("\ntable = \"x\"", "")]);
    assert_eq!(refused(values(&named, Path::new("x.toml"))).as_deref(), Some("table"));
}

#[test]
fn counts_have_their_bounds() {
    check_each(&[
        ("seeds = 1", "seeds = 0", "seeds"),
        ("seeds = 1", "seeds = 1000", ""),
        ("seeds = 1", "seeds = 1001", "seeds"),
        ("threads = 1", "threads = 0", "compute.threads"),
        ("threads = 1", "threads = 1024", ""),
        ("threads = 1", "threads = 1025", "compute.threads"),
        ("images-per-class = 1", "images-per-class = 0", "calibration.images-per-class"),
        ("positions-per-image = 1", "positions-per-image = 0", "calibration.positions-per-image"),
        ("images-per-class = 1", "images-per-class = 1000000", ""),
        ("images-per-class = 1", "images-per-class = 1000001", "calibration.images-per-class"),
        ("positions-per-image = 1", "positions-per-image = 1000000", ""),
        ("positions-per-image = 1", "positions-per-image = 1000001", "calibration.positions-per-image"),
        ("compute =", "input.size = 4096\ncompute =", ""),
        ("compute =", "input.size = 4097\ncompute =", "input.size"),
        ("lr = 0.1\n[prune]", "lr = 0.1\naugment.crop-padding = 4096\n[prune]", ""),
        (
            "lr = 0.1\n[prune]",
            "lr = 0.1\naugment.crop-padding = 4097\n[prune]",
            "dense.train.augment.crop-padding",
        ),
        ("\"cifar10\"", "\"cifar10\", train-limit = 9", "dataset.train-limit"),
        ("\"cifar10\"", "\"cifar10\", train-limit = 10", ""),
    ]);
}

#[test]
fn the_number_of_cells_is_limited() {
    // One method and the control from a random start with 1000 seeds: 2000 cells at each keep rate.
    let at = |rates: u32| {
        let rates: Vec<f64> = (1..=rates).map(|i| f64::from(i) / 100.0).collect();
        let changes = [
            ("seeds = 1", "seeds = 1000"),
            ("[[methods]]\nselector = \"random\"\n", ""),
            ("[0.5]", &format!("{rates:?}")),
        ];
        refused(values(&with(&changes), Path::new("x.toml")))
    };
    assert_eq!(at(50), None);
    assert_eq!(at(51).as_deref(), Some("methods"));
}

#[test]
fn the_error_about_too_many_cells_mentions_variants_if_there_are_several() {
    let rates = format!("{:?}", (1..=51).map(|i| f64::from(i) / 100.0).collect::<Vec<_>>());
    let spec = with(&[("seeds = 1", "seeds = 1000"), ("[0.5]", &rates)]);
    let problem = |variants: &[&Spec]| {
        cell_count(variants.iter().copied(), "x", Path::new("x.toml")).unwrap_err().to_string()
    };
    let one = problem(&[&spec]);
    assert!(one.contains("methods × keep-rates × seeds are 153000 cells"), "{one}");
    let two = problem(&[&spec, &spec]);
    assert!(two.contains("methods × keep-rates × seeds, of all variants, are 306000 cells"), "{two}");
}

#[test]
fn methods_are_known_and_have_labels_of_their_own() {
    let second = "[[methods]]\nselector = \"random\"\n";
    check_each(&[
        ("selector = \"thinet\"", "selector = \"thinnet\"", "methods[0].selector"),
        ("selector = \"random\"", "selector = \"rand\"", "methods[1].selector"),
        ("\"channel-scale\"", "\"lasso\"", "methods[0].reconstruction"),
        (second, "[[methods]]\nselector = \"thinet\"\n", ""),
        (
            second,
            "[[methods]]\nselector = \"thinet\"\nreconstruction = \"channel-scale\"\n",
            "methods[1].label",
        ),
        (
            second,
            "[[methods]]\nselector = \"random\"\nlabel = \"thinet + channel-scale\"\n",
            "methods[1].label",
        ),
        (second, "[[methods]]\nselector = \"random\"\nlabel = \"a | b, ä\"\n", ""),
        (second, "[[methods]]\nselector = \"random\"\nlabel = \"a\\nb\"\n", "methods[1].label"),
        (second, "[[methods]]\nselector = \"random\"\nlabel = \"a\\rb\"\n", "methods[1].label"),
        (second, "[[methods]]\nselector = \"random\"\nlabel = \"a\\tb\"\n", "methods[1].label"),
        (second, "[[methods]]\nselector = \"random\"\nlabel = \"a\\u2028b\"\n", "methods[1].label"),
        ("\"cifar10\"", "\"image-folder\", size = 8, name = \"a\\nb\"", "dataset.name"),
    ]);
    let none = Spec { methods: Vec::new(), ..with(&[]) };
    assert_eq!(refused(values(&none, Path::new("x.toml"))).as_deref(), Some("methods"));
}

#[test]
fn rates_lie_above_0_and_up_to_1_each_once() {
    for (rates, is_allowed) in [
        ("[1.0]", true),
        ("[1e-9, 0.25, 1.0]", true),
        ("[]", false),
        ("[0.0]", false),
        ("[-0.5]", false),
        ("[1.0000001]", false),
        ("[nan]", false),
        ("[inf]", false),
        ("[0.5, 0.25, 0.5]", false),
    ] {
        check_each(&[("[0.5]", rates, if is_allowed { "" } else { "prune.keep-rates" })]);
    }
    for (targets, is_allowed) in [
        ("[0.999]", true),
        ("[1e-9, 0.5]", true),
        ("[0.0]", false),
        ("[1.0]", false),
        ("[-0.5]", false),
        ("[nan]", false),
        ("[0.5, 0.25, 0.5]", false),
    ] {
        let key = if is_allowed { "" } else { "prune.flops" };
        check_each(&[("keep-rates = [0.5]", &format!("flops = {targets}"), key)]);
        check_each(&[("[0.5]", &format!("[0.5]\nflops = {targets}"), key)]);
    }
    check_each(&[
        ("keep-rates = [0.5]", "", "prune.keep-rates"),
        ("[0.5]", "[]\nflops = [0.5]", ""),
        ("[0.5]", "[]\nflops = []", "prune.keep-rates"),
    ]);
    for (rate, is_allowed) in
        [("1.0", true), ("1e-9", true), ("0.0", false), ("1.5", false), ("nan", false), ("-1.0", false)]
    {
        let rates = format!("[0.5]\nlayer-rates = {{ conv1 = 0.5, conv2 = {rate} }}");
        check_each(&[("[0.5]", &rates, if is_allowed { "" } else { "prune.layer-rates" })]);
    }
    check_each(&[
        ("[prune]", "[prune]\nlayers = [\"conv1\", \"conv2\"]", ""),
        ("[prune]", "[prune]\nlayers = [\"conv1\", \"conv2\", \"conv1\"]", "prune.layers"),
    ]);
}

#[test]
fn the_dense_net_comes_from_somewhere_and_import_needs_a_file() {
    let train = "[dense.train]\nepochs = 1\nbatch = 2\nlr = 0.1\n";
    check_each(&[
        (train, "[dense]\n", "dense"),
        (train, "[dense]\nweights = \"w.pth\"\n", ""),
        (train, "[dense]\nweights = \"w.pth\"\nimport = { fresh = [\"fc\"] }\n", "dense.import.fresh"),
        (train, "[dense]\nweights = \"w.pth\"\nimport = { ignore = [\"fc\"] }\n", ""),
        (
            train,
            "[dense]\nweights = \"w.pth\"\nimport = { fresh = [\"fc\"] }\ntrain = { epochs = 1, lr = 0.1 }\n",
            "",
        ),
        (
            train,
            "[dense]\nimport = { ignore = [\"fc\"] }\ntrain = { epochs = 1, lr = 0.1 }\n",
            "dense.import",
        ),
    ]);
}

#[test]
fn a_variance_of_starting_weights_needs_layers_that_start_at_random() {
    let train = "[dense.train]\nepochs = 1\nbatch = 2\nlr = 0.1\n";
    let imported = |import: &str| {
        format!(
            "[dense]\nweights = \"w.pth\"\n{import}train = {{ epochs = 1, lr = 0.1, init = \"fan-in\" }}\n"
        )
    };
    check_each(&[
        (train, &format!("{train}init = \"fan-in\"\n"), ""),
        (train, &imported(""), "dense.train.init"),
        (train, &imported("import = { fresh = [\"fc\"] }\n"), ""),
    ]);
}

#[test]
fn batch_normalisation_is_estimated_only_where_the_net_has_some() {
    let estimate = ("[prune]", "[prune]\nestimate-batch-norm = true");
    let without = ("batch-norm = true", "batch-norm = false");
    let key = |replacements: &[(&str, &str)]| {
        let (spec, path) = (with(replacements), Path::new("x.toml"));
        let transform = transform(&spec, path, [3, 32, 32]).unwrap();
        let graph = build(&spec, path, &transform, 10).unwrap();
        refused(batch_norm(&spec, path, &graph))
    };
    assert_eq!(key(&[]), None);
    assert_eq!(key(&[without]), None);
    assert_eq!(key(&[estimate]), None);
    assert_eq!(key(&[estimate, without]).as_deref(), Some("prune.estimate-batch-norm"));
}

#[test]
fn one_shot_mode_has_no_tuning_between_layers() {
    let after_layer = "after-layer = { steps = 1, batch = 2, lr = 0.1 }\n";
    let exceptions = "exceptions = [{ layers = [\"conv1\"], recipe = { steps = 3, batch = 2, lr = 0.1 } }]\n";
    let one_shot = ("[prune]", "[prune]\nmode = \"one-shot\"");
    let found = |more: &[(&str, &str)]| {
        let all: Vec<_> = [one_shot].iter().chain(more).copied().collect();
        refused(values(&with(&all), Path::new("x.toml")))
    };
    assert_eq!(found(&[]).as_deref(), Some("prune.after-layer"));
    assert_eq!(found(&[(after_layer, "")]).as_deref(), Some("prune.exceptions"));
    assert_eq!(found(&[(exceptions, "")]).as_deref(), Some("prune.after-layer"));
    assert_eq!(found(&[(after_layer, ""), (exceptions, "")]), None);
}

#[test]
fn a_selector_gets_only_layers_that_can_provide_its_evidence() {
    let layers = ["conv1", "conv2"].map(str::to_owned);
    let key = |batch_norm, needs: &[Needs]| {
        let net = NetSpec { batch_norm: Some(batch_norm), ..NetSpec::new(Arch::Tiny) };
        let graph = net.build([3, 32, 32], 10).unwrap();
        refused(evidence(needs, Path::new("x.toml"), &graph, &layers))
    };
    let needs = [Needs::MOMENTS, Needs::BATCH_NORM_SCALES];
    assert_eq!(key(true, &needs), None);
    assert_eq!(key(false, &needs).as_deref(), Some("methods[1].selector"));
    assert_eq!(key(false, &needs[..1]), None);
}
