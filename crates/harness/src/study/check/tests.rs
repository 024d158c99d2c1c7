//! Each condition of the checks at its bounds: the last value that is allowed, and the first that is not with its key.

use std::sync::Arc;

use thinet_data::MemoryDataset;
use thinet_nets::{Arch, NetSpec};

use super::*;

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

/// Each recipe of the spec, by a piece of text that is in it alone.
const RECIPES: [(&str, &str); 5] = [
    ("from-scratch = { epochs = 1, batch = 2, lr = 0.1", "from-scratch"),
    ("[dense.train]\nepochs = 1\nbatch = 2\nlr = 0.1", "dense.train"),
    ("after-layer = { steps = 1, batch = 2, lr = 0.1", "prune.after-layer"),
    ("after-last = { steps = 2, batch = 2, lr = 0.1", "prune.after-last"),
    ("recipe = { steps = 3, batch = 2, lr = 0.1", "prune.exceptions[0].recipe"),
];

#[test]
fn every_recipe_is_checked_under_its_own_key() {
    for (recipe, key) in RECIPES {
        check_each(&[(recipe, &recipe.replace("batch = 2", "batch = 0"), &format!("{key}.batch"))]);
    }
}

#[test]
fn every_number_of_a_recipe_has_its_bounds() {
    let recipe = "after-last = { steps = 2, batch = 2, lr = 0.1";
    let lr = |value: &str| format!("after-last = {{ steps = 2, batch = 2, lr = {value}");
    let and = |more: &str| format!("{recipe}, {more}");
    let exponential =
        |from: usize| format!("schedule = {{ kind = \"exponential\", gamma = 0.95, from-epoch = {from} }}");
    for (changed, key) in [
        (recipe.replace("steps = 2, ", ""), "prune.after-last"),
        (recipe.replace("steps = 2", "steps = 2, epochs = 2"), "prune.after-last"),
        (recipe.replace("steps = 2", "steps = 0"), "prune.after-last.steps"),
        (recipe.replace("steps = 2", "epochs = 0"), "prune.after-last.epochs"),
        (recipe.replace("steps = 2", "epochs = 1"), ""),
        (recipe.replace("steps = 2", "epochs = 1000000"), ""),
        (recipe.replace("steps = 2", "epochs = 1000001"), "prune.after-last.epochs"),
        (recipe.replace("steps = 2", "steps = 1000000000"), ""),
        (recipe.replace("steps = 2", "steps = 1000000001"), "prune.after-last.steps"),
        (recipe.replace("batch = 2", "batch = 1000000"), ""),
        (recipe.replace("batch = 2", "batch = 1000001"), "prune.after-last.batch"),
        (recipe.replace("batch = 2", "batch = 1"), ""),
        (lr("1e-30"), ""),
        (lr("0.0"), "prune.after-last.lr"),
        (lr("-0.1"), "prune.after-last.lr"),
        (lr("inf"), "prune.after-last.lr"),
        (lr("nan"), "prune.after-last.lr"),
        (and("momentum = 0.0"), ""),
        (and("momentum = 0.999"), ""),
        (and("momentum = 1.0"), "prune.after-last.momentum"),
        (and("momentum = -0.1"), "prune.after-last.momentum"),
        (and("momentum = nan"), "prune.after-last.momentum"),
        (and("nesterov = true"), ""),
        (and("nesterov = true, momentum = 0.0"), "prune.after-last.nesterov"),
        (and("nesterov = false, momentum = 0.0"), ""),
        (and("warm-up = 0.0"), ""),
        (and("warm-up = 0.99"), ""),
        (and("warm-up = 1.0"), "prune.after-last.warm-up"),
        (and("warm-up = -0.1"), "prune.after-last.warm-up"),
        (and("warm-up = nan"), "prune.after-last.warm-up"),
        (and("init = \"fan-out\""), ""),
        (and("init = \"fan-in\""), "prune.after-last.init"),
        (and("schedule = { kind = \"step\", at = [0.5] }"), ""),
        (and("schedule = { kind = \"step\", at = [1.5] }"), "prune.after-last.schedule"),
        (and(&exponential(0)), "prune.after-last.schedule"),
        (and(&exponential(9)), ""),
        (and(&exponential(3)).replace("steps = 2", "epochs = 4"), ""),
        (and(&exponential(4)).replace("steps = 2", "epochs = 4"), "prune.after-last.schedule.from-epoch"),
    ] {
        check_each(&[(recipe, &changed, key)]);
    }
    for name in ["weight-decay", "bias-lr", "bias-decay", "layer-lr", "layer-decay"] {
        let key = format!("prune.after-last.{name}");
        for (value, is_allowed) in
            [("0.0", true), ("10.0", true), ("-1e-9", false), ("inf", false), ("nan", false)]
        {
            let value =
                if name.starts_with("layer") { format!("{{ conv1 = {value} }}") } else { value.to_owned() };
            check_each(&[(recipe, &and(&format!("{name} = {value}")), if is_allowed { "" } else { &key })]);
        }
    }
}

fn layer_key(replacements: &[(&str, &str)]) -> Option<String> {
    let (spec, path) = (with(replacements), Path::new("x.toml"));
    let transform = transform(&spec, path, [3, 32, 32]).unwrap();
    let graph = build(&spec, path, &transform, 10).unwrap();
    let pruned = ["conv1", "conv2"].map(str::to_owned);
    refused(layer_names(&spec, path, &graph, &pruned))
}

#[test]
fn layers_that_rates_exceptions_and_recipes_name_exist_and_are_pruned_where_they_must_be() {
    assert_eq!(layer_key(&[]), None);
    let rates = |layer: &str| format!("[0.5]\nlayer-rates = {{ conv1 = 0.5, {layer} = 0.5 }}");
    assert_eq!(layer_key(&[("[0.5]", &rates("conv2"))]), None);
    assert_eq!(layer_key(&[("[0.5]", &rates("conv3"))]).as_deref(), Some("prune.layer-rates"));

    // The tuning after the last pruned layer is `after-last`: an exception for it alone can never be used.
    let exceptions = |layers: &str| layer_key(&[("layers = [\"conv1\"]", &format!("layers = {layers}"))]);
    let key = Some("prune.exceptions[0].layers");
    assert_eq!(exceptions("[\"conv1\", \"conv2\"]"), None);
    assert_eq!(exceptions("[\"conv2\"]").as_deref(), key);
    assert_eq!(exceptions("[\"conv1\", \"conv3\"]").as_deref(), key);

    for (recipe, key) in RECIPES {
        for name in ["layer-lr", "layer-decay"] {
            let named =
                |layer: &str| layer_key(&[(recipe, &format!("{recipe}, {name} = {{ \"{layer}\" = 2.0 }}"))]);
            // A table of its own cannot go on behind a comma.
            let named = |layer: &str| match recipe.starts_with('[') {
                true => layer_key(&[(recipe, &format!("{recipe}\n{name} = {{ \"{layer}\" = 2.0 }}"))]),
                false => named(layer),
            };
            for layer in ["conv3", "bn1", "fc", "fc.bias", "bn1.weight"] {
                assert_eq!(named(layer), None, "{key} {layer}");
            }
            for layer in ["conv4", "relu1", "fc.other", "bn1.running_mean"] {
                assert_eq!(named(layer), Some(format!("{key}.{name}")), "{layer}");
            }
        }
    }

    let fresh = |layer: &str| {
        let weights =
            format!("[dense]\nweights = \"w.pth\"\nimport = {{ fresh = [\"{layer}\"] }}\n[dense.train]");
        layer_key(&[("[dense.train]", &weights)])
    };
    assert_eq!(fresh("fc"), None);
    assert_eq!(fresh("fc.weight").as_deref(), Some("dense.import.fresh"));
    assert_eq!(fresh("head").as_deref(), Some("dense.import.fresh"));
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

#[test]
fn images_are_padded_evenly_or_cropped_to_the_size_that_is_asked_for() {
    for (size, shape, expected) in [
        (28, [1, 28, 28], Some((0, None))),
        (32, [1, 28, 28], Some((2, None))),
        (24, [1, 28, 28], Some((0, Some(24)))),
        (1, [1, 28, 28], Some((0, Some(1)))),
        (29, [1, 28, 28], None),
        (0, [1, 28, 28], None),
        // The shorter side is padded as far as needed, the longer one cut.
        (24, [3, 24, 30], Some((0, Some(24)))),
        (28, [3, 30, 24], Some((2, Some(28)))),
        (40, [3, 24, 30], Some((8, Some(40)))),
    ] {
        let found = placed(size, shape);
        assert_eq!(found.as_ref().ok(), expected.as_ref(), "{size} from {shape:?}: {found:?}");
    }
}

#[test]
fn inputs_have_a_mean_and_a_deviation_for_each_channel() {
    let key = |lines: &str| {
        let spec = with(&[("[dense.train]", &format!("[input]\n{lines}\n[dense.train]"))]);
        refused(transform(&spec, Path::new("x.toml"), [3, 32, 32]).map(drop))
    };
    assert_eq!(key("mean = [0.5, 0.5, 0.5]\nstd = [1.0, 1.0, 1.0]\nsize = 40"), None);
    assert_eq!(key("mean = [0.5, 0.5]").as_deref(), Some("input.mean"));
    assert_eq!(key("std = [0.5, 0.5, 0.5, 0.5]").as_deref(), Some("input.std"));
    assert_eq!(key("size = 33").as_deref(), Some("input.size"));
    assert_eq!(key("std = [1.0, 0.0, 1.0]").as_deref(), Some("input"));
}

#[test]
fn what_is_written_replaces_the_usual_normalisation_and_nothing_else() {
    let path = Path::new("x.toml");
    let usual = with(&[]).dataset.normalisation();
    let lines = "[input]\nmean = [1.0, 2.0, 3.0]\norder = \"bgr\"\nrange = 255.0\n[dense.train]";
    let changed = transform(&with(&[("[dense.train]", lines)]), path, [3, 32, 32]).unwrap().normalisation;
    assert_eq!((changed.mean, changed.std), (vec![1.0, 2.0, 3.0], usual.std.clone()));
    assert_ne!((changed.order, changed.range), (usual.order, usual.range));
    let other = "[input]\nstd = [1.0, 2.0, 3.0]\n[dense.train]";
    let changed = transform(&with(&[("[dense.train]", other)]), path, [3, 32, 32]).unwrap().normalisation;
    assert_eq!((changed.mean, changed.std), (usual.mean, vec![1.0, 2.0, 3.0]));
    assert_eq!((changed.order, changed.range), (usual.order, usual.range));
}

/// Classes 0 and 1 with these many training images of 1×4×4.
fn split(images: [usize; 2]) -> Split {
    let labels: Vec<usize> = [vec![0; images[0]], vec![1; images[1]]].concat();
    let set = MemoryDataset::new("two", 2, [1, 4, 4], vec![0; labels.len() * 16], labels).unwrap();
    let set: Arc<dyn thinet_data::Dataset> = Arc::new(set);
    Split { train: Arc::clone(&set), calibration: Arc::clone(&set), test: set }
}

#[test]
fn batches_and_samples_are_as_large_as_the_data_at_most() {
    let key = |replacements: &[(&str, &str)], images| {
        refused(against_data(&with(replacements), Path::new("x.toml"), &split(images)))
    };
    assert_eq!(key(&[], [1, 1]), None);
    for (recipe, name) in RECIPES {
        let three = recipe.replace("batch = 2", "batch = 3");
        assert_eq!(key(&[(recipe, &three)], [1, 2]), None, "{name}");
        assert_eq!(key(&[(recipe, &three)], [1, 1]), Some(format!("{name}.batch")));
    }
    let five = ("images-per-class = 1", "images-per-class = 5");
    assert_eq!(key(&[five], [5, 5]), None);
    for images in [[4, 9], [9, 4]] {
        assert_eq!(key(&[five], images).as_deref(), Some("calibration.images-per-class"), "{images:?}");
    }
    let (recipe, name) = RECIPES[0];
    let crop = format!("{recipe}, augment = {{ random-crop = true }}");
    assert_eq!(key(&[(recipe, &crop)], [1, 1]), Some(format!("{name}.augment.random-crop")));
}
