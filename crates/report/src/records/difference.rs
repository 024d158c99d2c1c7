//! Differences between two JSON values, leaf by leaf.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

/// A value that differs between two runs; `None` where a run lacks it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Difference {
    /// Its dotted key, such as `prune.keep-rates[0]`.
    pub key: String,
    pub first: Option<String>,
    pub second: Option<String>,
}

/// The leaves of a value by their dotted keys.
#[must_use]
pub fn leaves(value: &serde_json::Value) -> BTreeMap<String, String> {
    let mut out = BTreeMap::new();
    flatten("", value, &mut out);
    out
}

fn flatten(key: &str, value: &serde_json::Value, out: &mut BTreeMap<String, String>) {
    match value {
        serde_json::Value::Object(map) => {
            for (name, value) in map {
                let key = if key.is_empty() { name.clone() } else { format!("{key}.{name}") };
                flatten(&key, value, out);
            }
        }
        serde_json::Value::Array(values)
            if values.iter().any(|value| value.is_object() || value.is_array()) =>
        {
            for (i, value) in values.iter().enumerate() {
                flatten(&format!("{key}[{i}]"), value, out);
            }
        }
        serde_json::Value::Null => {}
        serde_json::Value::String(text) => {
            out.insert(key.to_owned(), text.clone());
        }
        other => {
            out.insert(key.to_owned(), other.to_string());
        }
    }
}

/// The keys with different values.
#[must_use]
pub fn differences(first: &BTreeMap<String, String>, second: &BTreeMap<String, String>) -> Vec<Difference> {
    let keys: BTreeSet<&String> = first.keys().chain(second.keys()).collect();
    let pair = |key: &String| Difference {
        key: key.clone(),
        first: first.get(key).cloned(),
        second: second.get(key).cloned(),
    };
    keys.into_iter().filter(|key| first.get(*key) != second.get(*key)).map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_named_by_dotted_keys() {
        let value = serde_json::json!({
            "net": { "arch": "tiny" }, "rates": [0.5, 0.2], "methods": [{ "selector": "a" }, { "selector": "b" }], "none": null,
        });
        let other = serde_json::json!({ "net": { "arch": "tiny" }, "rates": [0.5], "methods": [{ "selector": "a" }] });
        let found = differences(&leaves(&value), &leaves(&other));
        let keys: Vec<&str> = found.iter().map(|d| d.key.as_str()).collect();
        assert_eq!(keys, ["methods[1].selector", "rates"]);
        assert_eq!(found[0].second, None);
        assert_eq!(found[1].first.as_deref(), Some("[0.5,0.2]"));
    }
}
