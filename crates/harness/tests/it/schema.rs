//! The schema of specs: current, complete, as strict as the reader, and named by every shipped spec.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use thinet_harness::study::{Spec, keys, schema, schema_text};

use crate::shipped_specs::{experiments, project};

const MINIMAL: &str = r#"
name = "x"
dataset = { kind = "fashion-mnist" }
net = { arch = "tiny" }
dense.train = { epochs = 1, lr = 0.1 }
prune.keep-rates = [0.5]
methods = [{ selector = "random" }]
"#;

#[test]
fn the_committed_schema_is_that_of_the_types() {
    let (path, text) = (project().join("experiments/schema.json"), schema_text().unwrap());
    // As for snapshots.
    if std::env::var("INSTA_UPDATE").is_ok_and(|value| value == "always") {
        fs::write(&path, &text).unwrap();
    }
    let committed = fs::read_to_string(&path).unwrap_or_default();
    assert!(committed == text, "write it again: thinet schema > experiments/schema.json");
}

#[test]
fn every_shipped_spec_names_the_schema_and_follows_it() {
    let schema = schema();
    for file in experiments() {
        let text = fs::read_to_string(&file).unwrap();
        let named = text.lines().next().and_then(|line| line.strip_prefix("#:schema "));
        let named: PathBuf = named.unwrap_or_else(|| panic!("{}: no #:schema line", file.display())).into();
        let resolved = file.parent().unwrap().join(named).canonicalize().unwrap();
        assert_eq!(resolved, project().join("experiments/schema.json").canonicalize().unwrap());
        assert_eq!(problems(&schema, &text), [""; 0], "{}", file.display());
        // As runs store it, with every default.
        let resolved = Spec::read(&file).unwrap().to_toml().unwrap();
        assert_eq!(problems(&schema, &resolved), [""; 0], "{}", file.display());
    }
}

#[test]
fn the_schema_refuses_what_the_reader_refuses() {
    let schema = schema();
    assert_eq!(problems(&schema, MINIMAL), [""; 0]);
    for (from, to) in [
        ("name = \"x\"", ""),
        ("name = \"x\"", "name = 3"),
        ("name = ", "stray = 1\nname = "),
        ("name = ", "seeds = -1\nname = "),
        ("name = ", "seeds = 1.5\nname = "),
        ("name = ", "input.order = \"grb\"\nname = "),
        ("name = ", "compute.tf32 = 1\nname = "),
        ("name = ", "calibration.images-per-clas = 3\nname = "),
        ("fashion-mnist", "fashon-mnist"),
        ("\"fashion-mnist\"", "\"fashion-mnist\", size = 3"),
        ("kind = \"fashion-mnist\"", "kind = \"image-folder\", size = 3"),
        ("kind = \"fashion-mnist\"", "train-limit = 3"),
        ("\"tiny\"", "\"tinny\""),
        ("\"tiny\"", "\"tiny\", stride = \"2x2\""),
        ("epochs = 1", "epoch = 1"),
        ("epochs = 1, lr = 0.1", "epochs = 1"),
        ("lr = 0.1", "lr = \"0.1\""),
        ("lr = 0.1", "lr = 0.1, schedule = { kind = \"constant\", at = [0.5] }"),
        ("lr = 0.1", "lr = 0.1, schedule = { kind = \"step\" }"),
        ("lr = 0.1", "lr = 0.1, augment = { mirror = 1 }"),
        ("lr = 0.1", "lr = 0.1, layer-lr = { fc = \"x\" }"),
        ("[0.5]", "0.5"),
        ("[0.5]", "[\"0.5\"]"),
        ("prune.", "prune.layers = []\nprune."),
        ("prune.", "prune.layers = \"none\"\nprune."),
        ("prune.", "prune.exceptions = [{ recipe = { epochs = 1, lr = 0.1 } }]\nprune."),
        ("selector = \"random\"", "selector = \"random\", reconstruct = \"none\""),
        ("methods = [{ selector = \"random\" }]", "methods = [{ label = \"x\" }]"),
        ("methods = ", "variants = [{ \"prune.mode\" = \"one-shot\" }]\nmethods = "),
    ] {
        let text = MINIMAL.replacen(from, to, 1);
        assert_ne!(text, MINIMAL, "{from}");
        assert!(Spec::parse(&text, Path::new("x.toml")).is_err(), "the reader accepts {to}");
        assert_ne!(problems(&schema, &text), [""; 0], "the schema accepts {to}");
    }
    // Refused by the plan, which knows the registries and the keys of variants.
    for (from, to) in [
        ("prune.keep-rates = [0.5]", "prune.mode = \"one-shot\""),
        ("\"random\"", "\"randon\""),
        ("\"random\"", "\"random\", reconstruction = \"nothing\""),
        ("methods = ", "variants = [{ name = \"v\", seeds = 3 }]\nmethods = "),
        ("methods = ", "variants = [{ name = \"v\", \"prune.mod\" = \"one-shot\" }]\nmethods = "),
        ("methods = ", "variants = [{ name = \"v\", \"prune.mode\" = \"one-shoot\" }]\nmethods = "),
    ] {
        assert_ne!(problems(&schema, &MINIMAL.replacen(from, to, 1)), [""; 0], "the schema accepts {to}");
    }
    for accepted in [
        "\"prune.mode\" = \"one-shot\"",
        "\"prune.after-last.lr\" = 0.2",
        "\"from-scratch\" = { steps = 7, lr = 0.25 }",
        "\"prune.layers\" = \"all\"",
    ] {
        let text = MINIMAL
            .replace("methods = ", &format!("variants = [{{ name = \"v\", {accepted} }}]\nmethods = "));
        assert_eq!(problems(&schema, &text), [""; 0], "{accepted}");
    }
}

#[test]
fn every_key_is_in_the_schema_with_a_description_that_says_its_default() {
    let schema = schema();
    let mut tables = 0;
    for table in keys::tables() {
        // A value with this key and no other place for it.
        let definition = match table.table {
            "" => &schema,
            "dataset" => &schema["definitions"]["DatasetSpec"],
            "input" => &schema["definitions"]["InputSpec"],
            "net" => &schema["definitions"]["NetSpec"],
            "compute" => &schema["definitions"]["ComputeSpec"],
            "dense" => &schema["definitions"]["DenseSpec"],
            "dense.import" => &schema["definitions"]["ImportRules"],
            "dense.train" => &schema["definitions"]["Recipe"],
            "dense.train.schedule" => &schema["definitions"]["Schedule"],
            "dense.train.augment" => &schema["definitions"]["Augment"],
            "prune" => &schema["definitions"]["PruneSpec"],
            "prune.exceptions" => &schema["definitions"]["Exception"],
            "calibration" => &schema["definitions"]["SamplingSpec"],
            "methods" => &schema["definitions"]["MethodSpec"],
            "methods.selector" => &schema["definitions"]["CommandSpec"],
            "variants" => &schema["definitions"]["VariantSpec"],
            other => panic!("no definition for [{other}]"),
        };
        tables += 1;
        let alone = std::slice::from_ref(definition);
        let forms = definition["oneOf"].as_array().map_or(alone, Vec::as_slice);
        for key in table.keys.iter().filter(|key| !key.name.starts_with('"')) {
            let found: Vec<&Value> =
                forms.iter().map(|form| &form["properties"][key.name]).filter(|key| !key.is_null()).collect();
            assert!(!found.is_empty(), "[{}] {} is not in the schema", table.table, key.name);
            if key.name == "kind" {
                continue;
            }
            for schema in found {
                let text = schema["description"].as_str().unwrap_or_default();
                let says_default = text.contains("Default: ") || text.contains("equired");
                assert!(says_default, "[{}] {}: no default in {text:?}", table.table, key.name);
                assert!(!text.contains("[`"), "[{}] {}: a link of rustdoc: {text}", table.table, key.name);
            }
        }
    }
    assert_eq!(tables, keys::tables().len());
}

/// Where a spec does not follow the schema.
fn problems(schema: &Value, text: &str) -> Vec<String> {
    let table: toml::Table = text.parse().unwrap();
    let mut problems = Vec::new();
    check(schema, schema, &serde_json::to_value(table).unwrap(), "", &mut problems);
    problems
}

/// Compares a value with a schema. Knows the keywords of this schema and panics at any other, so that none is ignored.
fn check(root: &Value, schema: &Value, value: &Value, at: &str, problems: &mut Vec<String>) {
    let Some(keywords) = schema.as_object() else {
        assert_eq!(*schema, json!(true), "{at}");
        return;
    };
    let mut found = Vec::new();
    let mut wrong = |problem: String| found.push(format!("{at}: {problem}"));
    let holds = |schema: &Value| {
        let mut problems = Vec::new();
        check(root, schema, value, at, &mut problems);
        problems.is_empty()
    };
    // Draft 7 ignores what stands beside it.
    if let Some(name) = keywords.get("$ref") {
        let pointer = name.as_str().unwrap().strip_prefix('#').unwrap();
        return check(root, root.pointer(pointer).unwrap(), value, at, problems);
    }
    for (keyword, asked) in keywords {
        match keyword.as_str() {
            "$schema" | "title" | "description" | "default" | "definitions" => {}
            "type" => {
                let is = match asked.as_str().unwrap() {
                    "object" => value.is_object(),
                    "array" => value.is_array(),
                    "string" => value.is_string(),
                    "boolean" => value.is_boolean(),
                    "integer" => value.is_i64() || value.is_u64(),
                    "number" => value.is_number(),
                    other => panic!("{at}: type {other}"),
                };
                if !is {
                    wrong(format!("{value} is not of type {asked}"));
                }
            }
            "const" if value != asked => wrong(format!("{value} is not {asked}")),
            "enum" if !asked.as_array().unwrap().contains(value) => wrong(format!("{value} is not listed")),
            "minimum" if value.as_f64() < asked.as_f64() => wrong(format!("{value} is less than {asked}")),
            "minItems"
                if value.as_array().is_some_and(|list| (list.len() as u64) < asked.as_u64().unwrap()) =>
            {
                wrong("too few".to_owned());
            }
            "const" | "enum" | "minimum" | "minItems" => {}
            "oneOf" if asked.as_array().unwrap().iter().filter(|form| holds(form)).count() != 1 => {
                wrong(format!("{value} has not exactly one of the forms"));
            }
            "anyOf" if !asked.as_array().unwrap().iter().any(holds) => wrong(format!("{value} has no form")),
            "allOf" if !asked.as_array().unwrap().iter().all(holds) => wrong(format!("{value} lacks a form")),
            "oneOf" | "anyOf" | "allOf" => {}
            "required" => {
                let missing = |key: &&Value| value.get(key.as_str().unwrap()).is_none();
                if let Some(key) = asked.as_array().unwrap().iter().find(missing) {
                    wrong(format!("no {key}"));
                }
            }
            "items" => {
                for (i, item) in value.as_array().into_iter().flatten().enumerate() {
                    check(root, asked, item, &format!("{at}[{i}]"), problems);
                }
            }
            "properties" | "patternProperties" => {}
            "additionalProperties" => {
                for (key, item) in value.as_object().into_iter().flatten() {
                    let named = keywords.get("properties").is_some_and(|known| known.get(key).is_some());
                    let is_deep =
                        |first: &str| key.strip_prefix(first).is_some_and(|rest| rest.contains('.'));
                    let is_pattern = keywords.contains_key("patternProperties")
                        && (is_deep("prune.") || is_deep("from-scratch."));
                    if named || is_pattern {
                        continue;
                    }
                    match asked {
                        Value::Bool(false) => wrong(format!("{key} is unknown")),
                        schema => check(root, schema, item, &format!("{at}.{key}"), problems),
                    }
                }
            }
            other => panic!("{at}: the keyword {other} is not checked"),
        }
    }
    problems.append(&mut found);
    for (key, schema) in keywords.get("properties").and_then(Value::as_object).into_iter().flatten() {
        if let Some(item) = value.get(key) {
            check(root, schema, item, &format!("{at}.{key}"), problems);
        }
    }
}
