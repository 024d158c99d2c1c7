//! Recipes of training at their bounds, and the layers that recipes and rates name.

use super::*;

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
