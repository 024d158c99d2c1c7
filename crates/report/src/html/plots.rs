//! Figures made ready for the page: the same specifications without title, caption, colours of the page and drawn legend, which the page
//! has as text and buttons.

use serde_json::{Value, json};

use crate::figures::Figure;
use crate::figures::spec::is_legend;

/// The specification for the page.
pub(super) fn interactive(figure: &Figure) -> Value {
    let mut spec = figure.spec.clone();
    if let Value::Object(spec) = &mut spec {
        for key in ["$schema", "title", "usermeta", "config", "description"] {
            spec.remove(key);
        }
        for key in ["vconcat", "hconcat", "concat"] {
            if let Some(Value::Array(views)) = spec.get_mut(key) {
                views.retain(|view| !is_legend(view));
            }
        }
    }
    spec
}

/// The methods that a specification draws with scales of their own: label, colour, dash and mark, in the order of the first scale.
pub(super) fn methods(spec: &Value) -> Value {
    let mut found = [None, None, None];
    collect(spec, &mut found);
    let [colour, dash, shape] = found;
    let Some(colour) = colour else { return json!([]) };
    let domain = colour["domain"].as_array().cloned().unwrap_or_default();
    let of = |scale: Option<&Value>, label: &Value| -> Value {
        let Some(scale) = scale else { return Value::Null };
        let at = scale["domain"].as_array().and_then(|labels| labels.iter().position(|known| known == label));
        at.map_or(Value::Null, |at| scale["range"][at].clone())
    };
    let method = |label: &Value| json!({ "label": label, "colour": of(Some(colour), label), "dash": of(dash, label), "shape": of(shape, label) });
    domain.iter().map(method).collect()
}

/// Finds the scales of the field `method` for colour, dash and mark.
fn collect<'a>(value: &'a Value, found: &mut [Option<&'a Value>; 3]) {
    match value {
        Value::Object(items) => {
            for (slot, keys) in
                [&["color", "stroke"][..], &["strokeDash"], &["shape"]].into_iter().enumerate()
            {
                for key in keys {
                    let encoding = &items.get(*key).unwrap_or(&Value::Null);
                    if found[slot].is_none()
                        && encoding["field"] == "method"
                        && encoding["scale"]["range"].is_array()
                    {
                        found[slot] = Some(&encoding["scale"]);
                    }
                }
            }
            items.values().for_each(|item| collect(item, found));
        }
        Value::Array(items) => items.iter().for_each(|item| collect(item, found)),
        _ => {}
    }
}
