//! JSON inside scripts.

use serde_json::Value;

/// JSON that can stand in a `<script>` of an HTML page and in a JavaScript file: nothing in it ends the script or starts a comment.
pub(super) fn script_text(value: &Value) -> String {
    let mut text = String::new();
    for character in sorted(value).to_string().chars() {
        match character {
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                text.push_str(&format!("\\u{:04x}", character as u32));
            }
            other => text.push(other),
        }
    }
    text
}

/// With the keys of objects in their order: the order of a JSON map depends on the features that some other crate of a build asks of
/// serde_json.
fn sorted(value: &Value) -> Value {
    match value {
        Value::Object(items) => {
            let mut items: Vec<(String, Value)> =
                items.iter().map(|(key, item)| (key.clone(), sorted(item))).collect();
            items.sort_by(|a, b| a.0.cmp(&b.0));
            Value::Object(items.into_iter().collect())
        }
        Value::Array(items) => items.iter().map(sorted).collect(),
        plain => plain.clone(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn nothing_in_a_value_ends_the_script_and_the_value_is_the_same() {
        let value = json!({ "z": "</script><!-- & \u{2028}", "a": [1.5, null, "é"] });
        let text = script_text(&value);
        assert!(!text.contains(['<', '>', '&', '\u{2028}']), "{text}");
        assert!(text.starts_with("{\"a\":"), "{text}");
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), value);
    }
}
