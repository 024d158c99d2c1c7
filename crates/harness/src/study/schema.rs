//! JSON Schema of a spec, made from the types that read it, for editors and other programs.

use schemars::generate::SchemaSettings;
use schemars::{Schema, SchemaGenerator, json_schema};
use serde_json::{Map, Value, json};
use thinet_data::DatasetSpec;

use super::spec::Spec;

/// Tables of a spec with keys that a variant can override, and the definitions of their keys.
const OVERRIDDEN: [(&str, &str); 3] =
    [("calibration", "SamplingSpec"), ("prune", "PruneSpec"), ("from-scratch", "Recipe")];

/// The schema of a spec, draft 7, which editors for TOML know. It has every key with its type, its description and the values that
/// can be listed; ranges and rules between keys are left to [`Plan::new`](super::Plan::new), which names them in its errors.
///
/// Bytes depend on this program alone.
#[must_use]
pub fn schema() -> Value {
    let generator = SchemaSettings::draft07().into_generator();
    let mut schema = generator.into_root_schema_for::<Spec>().to_value();
    schema["title"] = json!("Study of thinet");
    plain(&mut schema);
    let definitions = &mut schema["definitions"];
    let mut datasets = definitions["DatasetSpec"].take();
    name_datasets(&mut datasets, definitions);
    definitions["DatasetSpec"] = datasets;
    let selectors = thinet_selectors::all().into_iter().map(|s| (s.name(), s.about()));
    // Of the two forms of a selector the first is a name.
    list_names(&mut definitions["SelectorSpec"]["anyOf"][0], selectors.collect());
    let reconstructions = thinet_reconstruction::all().iter().map(|r| (r.name(), r.about()));
    list_names(&mut definitions["MethodSpec"]["properties"]["reconstruction"], reconstructions.collect());
    add_overrides(definitions);
    remove_unused(&mut schema);
    schema
}

/// [`schema`] as indented text with a line end, as `experiments/schema.json` holds it.
///
/// # Errors
/// If it cannot be written as JSON.
pub fn schema_text() -> Result<String, serde_json::Error> {
    Ok(serde_json::to_string_pretty(&schema())? + "\n")
}

/// The schema of `prune.layers`.
pub(super) fn layers(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "anyOf": [
            { "const": "all", "description": "Every prunable convolution." },
            { "type": "array", "items": { "type": "string" }, "minItems": 1 },
        ],
        "default": "all",
    })
}

/// Removes what TOML has no form for (`null`) and what names Rust's types (`format`), and joins the lines of descriptions.
fn plain(schema: &mut Value) {
    match schema {
        Value::Array(list) => list.iter_mut().for_each(plain),
        Value::Object(object) => {
            // A key can be called `format`, but its value is then a schema and no text.
            if object.get("format").is_some_and(Value::is_string) {
                object.remove("format");
            }
            if let Some(Value::String(text)) = object.get_mut("description") {
                *text = text.split_whitespace().collect::<Vec<_>>().join(" ");
            }
            without_null(object);
            object.values_mut().for_each(plain);
        }
        _ => {}
    }
}

/// An optional key is left out, never `null`.
fn without_null(object: &mut Map<String, Value>) {
    if object.get("default").is_some_and(Value::is_null) {
        object.remove("default");
    }
    if let Some(Value::Array(kinds)) = object.get_mut("type") {
        kinds.retain(|kind| kind != "null");
        if let [kind] = &kinds[..] {
            object["type"] = kind.clone();
        }
    }
    let Some(Value::Array(choices)) = object.get_mut("anyOf") else { return };
    choices.retain(|choice| choice["type"] != "null");
    if choices.len() == 1 {
        // Draft 7 ignores what stands beside `$ref`, so it stays in a list of its own.
        if let Some(only) = object.remove("anyOf") {
            object.insert("allOf".to_owned(), only);
        }
    }
}

/// Describes each dataset as lists do, with all keys in one table: a definition that allows no other keys cannot stand beside `kind`.
fn name_datasets(schema: &mut Value, definitions: &Value) {
    let kinds = DatasetSpec::kinds();
    for choice in schema["oneOf"].as_array_mut().into_iter().flatten() {
        let shared = choice.as_object_mut().and_then(|choice| choice.remove("allOf"));
        let mut shared = shared.as_ref().map_or(&Value::Null, |shared| &shared[0]);
        while let Some(name) = shared["$ref"].as_str().and_then(|name| name.rsplit('/').next()) {
            shared = &definitions[name];
            // The definition of a newtype is a reference as well.
            shared = shared.pointer("/allOf/0").unwrap_or(shared);
        }
        if let (Some(shared), Some(own)) =
            (shared["properties"].as_object(), choice["properties"].as_object_mut())
        {
            own.extend(shared.clone());
            choice["additionalProperties"] = json!(false);
        }
        if let Some(kind) = kinds.iter().find(|kind| choice["properties"]["kind"]["const"] == kind.name) {
            choice["description"] = json!(kind.about);
            choice["properties"]["kind"]["description"] = json!("Which dataset. Required.");
        }
    }
}

/// Removes definitions that nothing refers to.
fn remove_unused(schema: &mut Value) {
    loop {
        let text = schema.to_string();
        let Some(definitions) = schema["definitions"].as_object_mut() else { return };
        let before = definitions.len();
        definitions.retain(|name, _| text.contains(&format!("\"#/definitions/{name}\"")));
        if definitions.len() == before {
            return;
        }
    }
}

/// Lists the registered names that a text can be.
fn list_names(schema: &mut Value, names: Vec<(&str, &str)>) {
    let names = names.into_iter().map(|(name, about)| json!({ "const": name, "description": about }));
    schema["oneOf"] = names.collect();
}

/// Adds the dotted keys that a variant can override, each with the schema of the key that it stands for.
fn add_overrides(definitions: &mut Value) {
    let mut keys = Map::new();
    for (table, definition) in OVERRIDDEN {
        let of_table = definitions[definition]["properties"].as_object().into_iter().flatten();
        for (key, schema) in of_table {
            let mut schema = schema.clone();
            // Without the override the spec's value holds.
            if let Some(object) = schema.as_object_mut() {
                object.remove("default");
            }
            keys.insert(format!("{table}.{key}"), schema);
        }
    }
    keys.insert(
        "from-scratch".to_owned(),
        json!({ "allOf": [{ "$ref": "#/definitions/Recipe" }], "description": "A control of this variant." }),
    );
    let variant = &mut definitions["VariantSpec"];
    if let Some(properties) = variant["properties"].as_object_mut() {
        properties.extend(keys);
    }
    // Keys of tables in these tables, such as `prune.after-last.lr`, and of single layers.
    variant["patternProperties"] = json!({ r"^(prune|from-scratch)\.[^.]+\..+$": true });
    variant["additionalProperties"] = json!(false);
}
