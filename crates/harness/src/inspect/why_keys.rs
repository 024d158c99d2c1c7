//! The keys of a spec that the inputs of a stage come from.

use std::collections::BTreeMap;

use serde_json::Value;
use thinet_report::records::{Difference, differences, leaves};

/// The inputs of a stored stage and those of a stage that would run.
pub(super) struct Inputs<'a> {
    pub(super) old: &'a Value,
    pub(super) new: &'a Value,
}

/// Inputs whose values come from more than one key, and where from.
const NAMED: [(&str, &str); 13] = [
    ("train-data", "dataset (training images)"),
    ("test-data", "dataset (test images)"),
    ("data", "dataset (images as selectors see them)"),
    ("calibration-data", "dataset (images as selectors see them)"),
    ("device", "--device"),
    ("libtorch", "libtorch of the program"),
    ("weights", "dense.weights (checksum of the file)"),
    ("import", "dense.import"),
    ("seed", "seeds"),
    ("evidence", "calibration (the evidence that scores are computed from)"),
    ("selector", "methods.selector"),
    ("reconstruction", "methods.reconstruction"),
    ("selector-version", "version of the selector"),
];

/// Inputs that are keys of `[prune]`.
const OF_PRUNE: [&str; 10] = [
    "keep-rate",
    "flops",
    "normalisation",
    "layers",
    "mode",
    "after-layer",
    "after-last",
    "layer-rates",
    "exceptions",
    "estimate-batch-norm",
];

/// The differing inputs of two stages of a kind by the keys of a spec that they come from.
pub(super) fn described(kind: &str, Inputs { old, new }: Inputs<'_>) -> Vec<Difference> {
    let mut found = Vec::new();
    let (of_net, rest) = (net(old), without_net(old));
    let (new_net, new_rest) = (net(new), without_net(new));
    found.extend(differences(&of_net, &new_net));
    for Difference { key, first, second } in differences(&rest, &new_rest) {
        // The dense net of an allocation is that of its cell.
        if key.starts_with("allocation.dense") {
            continue;
        }
        let (of_dense, own) = match (key.strip_prefix("dense."), key.strip_prefix("allocation.")) {
            (Some(key), _) => ("dense", key),
            (None, Some(key)) => ("allocation", key),
            (None, None) => (kind, key.as_str()),
        };
        found.push(Difference { key: spec_key(of_dense, own), first, second });
    }
    found.sort_by(|a, b| a.key.cmp(&b.key));
    found.dedup();
    found
}

/// The key of a spec that an input of a kind of stage comes from.
fn spec_key(kind: &str, input: &str) -> String {
    let (first, rest) = input.find(['.', '[']).map_or((input, ""), |end| input.split_at(end));
    if let Some((_, key)) = NAMED.iter().find(|(input, _)| *input == first) {
        return format!("{key}{rest}");
    }
    match first {
        "train" if kind == "scratch" => format!("from-scratch{rest}"),
        "train" => format!("dense.train{rest}"),
        "keep-rate" => "prune.keep-rates".to_owned(),
        "dense" => "dense (a dense net that is no longer stored)".to_owned(),
        "allocation" => "prune.allocation".to_owned(),
        "floor" => "least share of a layer's channels (of the program)".to_owned(),
        "reconstruction-version" => "version of the reconstruction".to_owned(),
        _ if OF_PRUNE.contains(&first) => format!("prune.{input}"),
        // `input.…`, `compute.…` and `calibration.…` have the names of their tables.
        _ => input.to_owned(),
    }
}

/// The graphs in some inputs, their own or that of their dense net.
fn graph(inputs: &Value) -> &Value {
    if inputs["graph"].is_object() { &inputs["graph"] } else { &inputs["dense"]["graph"] }
}

/// The leaves of the inputs besides the graph.
fn without_net(inputs: &Value) -> BTreeMap<String, String> {
    let mut rest = inputs.clone();
    if let Some(inputs) = rest.as_object_mut() {
        inputs.remove("graph");
        if let Some(dense) = inputs.get_mut("dense").and_then(Value::as_object_mut) {
            dense.remove("graph");
        }
    }
    leaves(&rest)
}

/// A graph by the keys that it is built from: architecture, input, and the settings of each layer by its name.
fn net(inputs: &Value) -> BTreeMap<String, String> {
    let graph = graph(inputs);
    let mut keys = BTreeMap::new();
    if let Some(name) = graph["name"].as_str() {
        keys.insert("net.arch".to_owned(), name.to_owned());
    }
    for node in graph["nodes"].as_array().into_iter().flatten() {
        let (name, op) = (node["name"].as_str().unwrap_or_default(), &node["op"]);
        let mut add = |key: String, value: &Value| {
            keys.insert(key, value.as_str().map_or_else(|| value.to_string(), str::to_owned));
        };
        match op["kind"].as_str().unwrap_or_default() {
            "input" => add(
                "input.size".to_owned(),
                &Value::String(format!("{}×{}×{}", op["channels"], op["height"], op["width"])),
            ),
            "conv" => {
                add(format!("net.widths.{name}"), &op["out_channels"]);
                add(format!("net.stride ({name})"), &op["stride"]);
            }
            "linear" => add(format!("net.widths.{name}"), &op["out_features"]),
            "batch-norm" => add("net.batch-norm".to_owned(), &Value::Bool(true)),
            "dropout" => add("net.dropout".to_owned(), &op["p"]),
            _ => {}
        }
    }
    keys
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn keys(kind: &str, old: &Value, new: &Value) -> Vec<String> {
        let word = |value: Option<String>| value.unwrap_or_else(|| "none".to_owned());
        let differing = described(kind, Inputs { old, new });
        differing.into_iter().map(|d| format!("{}: {} -> {}", d.key, word(d.first), word(d.second))).collect()
    }

    #[test]
    fn inputs_are_named_by_the_keys_of_a_spec() {
        let old = json!({ "dense": { "train": { "lr": 0.05 }, "seed": 0 }, "keep-rate": 0.5, "after-last": { "steps": 4 },
            "calibration": { "images-per-class": 10 }, "layers": ["a"] });
        let new = json!({ "dense": { "train": { "lr": 0.1 }, "seed": 0 }, "keep-rate": 0.5, "after-last": { "steps": 5 },
            "calibration": { "images-per-class": 3 }, "layers": ["a", "b"], "exceptions": [{ "layers": ["a"] }],
            "selector-version": 2 });
        assert_eq!(
            keys("cell", &old, &new),
            [
                "calibration.images-per-class: 10 -> 3",
                "dense.train.lr: 0.05 -> 0.1",
                "prune.after-last.steps: 4 -> 5",
                "prune.exceptions[0].layers: none -> [\"a\"]",
                "prune.layers: [\"a\"] -> [\"a\",\"b\"]",
                "version of the selector: none -> 2",
            ]
        );
        let train = |lr: f64| json!({ "train": { "lr": lr }, "train-data": "x", "device": "cpu" });
        assert_eq!(keys("scratch", &train(0.1), &train(0.2)), ["from-scratch.lr: 0.1 -> 0.2"]);
        assert_eq!(keys("dense", &train(0.1), &train(0.2)), ["dense.train.lr: 0.1 -> 0.2"]);
    }

    #[test]
    fn a_net_is_described_by_its_layers() {
        let graph = |filters: usize, side: usize| {
            json!({ "graph": { "name": "tiny", "nodes": [
                { "name": "input", "op": { "kind": "input", "channels": 1, "height": side, "width": side } },
                { "name": "conv1", "op": { "kind": "conv", "out_channels": filters, "stride": 1 } },
            ] } })
        };
        assert_eq!(keys("dense", &graph(8, 16), &graph(4, 16)), ["net.widths.conv1: 8 -> 4"]);
        assert_eq!(keys("dense", &graph(8, 16), &graph(8, 32)), ["input.size: 1×16×16 -> 1×32×32"]);
        let of_cell = |filters| json!({ "dense": graph(filters, 16) });
        assert_eq!(keys("cell", &of_cell(8), &of_cell(4)), ["net.widths.conv1: 8 -> 4"]);
    }
}
