//! Parts that the specifications share: title and caption, the scales of methods, the legend, the text of the file.

use serde_json::{Map, Value, json};

use super::study::Method;
use super::style::{self, SCHEMA};

/// A finished figure: a Vega-Lite specification with its data.
#[derive(Clone, Debug, PartialEq)]
pub struct Figure {
    /// File name without extension.
    pub name: String,
    pub title: String,
    /// What is shown, in which unit, over how many seeds, and what is not shown.
    pub caption: String,
    /// The tables that it shows.
    pub tables: Vec<String>,
    /// The specification.
    pub spec: Value,
}

/// What a figure says about itself.
pub(crate) struct About {
    pub(crate) name: String,
    pub(crate) title: String,
    pub(crate) caption: String,
    pub(crate) tables: Vec<String>,
    /// Width of the picture, pixels: the caption's lines are broken for it.
    pub(crate) width: f64,
}

/// Completes a specification: schema, title, caption, configuration.
pub(crate) fn figure(about: About, body: Value) -> Figure {
    let About { name, title, caption, tables, width } = about;
    let mut spec = json!({
        "$schema": SCHEMA,
        "description": format!("{title}. {caption}"),
        "title": { "text": wrap(&title, (width / 8.6) as usize), "subtitle": wrap(&caption, (width / 6.25) as usize) },
        "config": style::config(),
        "usermeta": { "figure": name, "caption": caption, "tables": tables },
    });
    if let (Value::Object(spec), Value::Object(body)) = (&mut spec, body) {
        spec.extend(body);
    }
    Figure { name, title, caption, tables, spec }
}

/// Breaks a text into lines of about so many characters.
pub(crate) fn wrap(text: &str, most: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= most => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

/// Encodings that show a method by colour, dash and mark, in the order of the study. Without legends: see [`legend`].
pub(crate) struct MethodScales {
    pub(crate) colour: Value,
    pub(crate) dash: Value,
    pub(crate) shape: Value,
}

pub(crate) fn method_scales(methods: &[Method]) -> MethodScales {
    let labels: Vec<&str> = methods.iter().map(|method| method.label.as_str()).collect();
    let scale = |range: Vec<Value>| {
        json!({
            "field": "method", "type": "nominal", "legend": null, "scale": { "domain": labels, "range": range },
        })
    };
    MethodScales {
        colour: scale(methods.iter().map(|method| method.style().colour.into()).collect()),
        dash: scale(methods.iter().map(|method| json!(method.style().dash)).collect()),
        shape: scale(methods.iter().map(|method| method.style().shape.into()).collect()),
    }
}

/// What a legend shows of a method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sample {
    /// Its line with its mark.
    Line,
    /// Its mark alone.
    Mark,
}

/// A row of entries, each the line and mark of a method with its name, as a view of its own: Vega's legend shows either lines or marks.
pub(crate) fn legend(methods: &[Method], width: f64, sample: Sample) -> Value {
    let (line, height) = (if sample == Sample::Line { 38.0 } else { 10.0 }, 22.0);
    let longest = methods.iter().map(|method| method.label.chars().count()).max().unwrap_or(0);
    let gap = if sample == Sample::Line { 14.0 } else { 22.0 };
    let column = line + 8.0 + 6.6 * longest as f64 + gap;
    let columns = ((width / column) as usize).max(1);
    let place_of = |at: usize| ((at % columns) as f64 * column, (at / columns) as f64 * height);
    let rows: Vec<Value> = methods
        .iter()
        .enumerate()
        .map(|(at, method)| {
            let (x, y) = place_of(at);
            json!({
                "method": method.label, "from": x, "to": x + line, "middle": x + line / 2.0, "text": x + line + 8.0, "y": y,
            })
        })
        .collect();
    let y = place_of(methods.len().saturating_sub(1)).1;
    let place = |field: &str, domain: f64| {
        json!({
            "field": field, "type": "quantitative", "axis": null,
            "scale": { "domain": [0, domain], "nice": false, "zero": false },
        })
    };
    let down = json!({
        "field": "y", "type": "quantitative", "axis": null,
        "scale": { "domain": [-height / 2.0, y + height / 2.0], "reverse": true, "nice": false, "zero": false },
    });
    let MethodScales { colour, dash, shape } = method_scales(methods);
    let mut layers = vec![
        json!({
            "mark": { "type": "point", "filled": true, "size": 70, "opacity": 1 },
            "encoding": { "x": place("middle", width), "color": colour, "shape": shape },
        }),
        json!({
            "mark": { "type": "text", "align": "left", "baseline": "middle", "fontSize": 13, "color": style::INK },
            "encoding": { "x": place("text", width), "text": { "field": "method" } },
        }),
    ];
    if sample == Sample::Line {
        layers.insert(
            0,
            json!({
                "mark": { "type": "rule", "strokeWidth": 2.2 },
                "encoding": { "x": place("from", width), "x2": { "field": "to" }, "color": colour, "strokeDash": dash },
            }),
        );
    }
    json!({
        "width": width, "height": y + height, "data": { "values": rows }, "encoding": { "y": down }, "layer": layers,
    })
}

/// Whether a view is a [`legend`]: a page that has a legend of its own leaves it out.
pub(crate) fn is_legend(view: &Value) -> bool {
    let entry = &view["data"]["values"][0];
    ["method", "from", "to", "middle", "text"].iter().all(|key| entry.get(key).is_some())
}

/// A scale of accuracies: it begins and ends at ticks, so that panels side by side have their titles at one height.
pub(crate) fn percent_axis(values: impl IntoIterator<Item = f64>) -> ([f64; 2], Vec<f64>) {
    let (low, high) = values
        .into_iter()
        .fold((100.0_f64, 0.0_f64), |(low, high), v| (low.min(v.max(0.0)), high.max(v.min(100.0))));
    let (low, high) = (low.min(high), high);
    let bounds = |step: f64| ((low / step).floor(), (high / step).ceil());
    let is_few = |step: &f64| bounds(*step).1 - bounds(*step).0 <= 7.0;
    let step = [1.0, 2.0, 5.0, 10.0].into_iter().find(is_few).unwrap_or(20.0);
    let (from, to) = bounds(step);
    let to = if to > from { to } else { from + 1.0 };
    let ticks: Vec<f64> = (from as u32..=to as u32).map(|tick| f64::from(tick) * step).collect();
    ([from * step, to * step], ticks)
}

/// The text of a specification: indented, but with each innermost list and object, such as a row of data, on a line of its own, so
/// that a change of one value changes one line.
pub(crate) fn text(spec: &Value) -> String {
    let mut text = String::new();
    append(&mut text, spec, 0);
    text.push('\n');
    text
}

fn append(text: &mut String, value: &Value, depth: usize) {
    let is_plain = |value: &Value| !(value.is_array() || value.is_object());
    let indent = |text: &mut String, depth: usize| {
        text.push('\n');
        text.extend(std::iter::repeat_n("  ", depth));
    };
    match value {
        Value::Array(items) if !items.iter().all(is_plain) => {
            text.push('[');
            for (at, item) in items.iter().enumerate() {
                text.push_str(if at == 0 { "" } else { "," });
                indent(text, depth + 1);
                append(text, item, depth + 1);
            }
            indent(text, depth);
            text.push(']');
        }
        Value::Object(items) if !items.values().all(is_plain) => {
            text.push('{');
            for (at, (key, item)) in sorted(items).into_iter().enumerate() {
                text.push_str(if at == 0 { "" } else { "," });
                indent(text, depth + 1);
                text.push_str(&format!("{}: ", Value::from(key)));
                append(text, item, depth + 1);
            }
            indent(text, depth);
            text.push('}');
        }
        Value::Object(items) => {
            let items: Vec<String> = sorted(items)
                .into_iter()
                .map(|(key, item)| format!("{}: {item}", Value::from(key)))
                .collect();
            text.push_str(&format!("{{{}}}", items.join(", ")));
        }
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(Value::to_string).collect();
            text.push_str(&format!("[{}]", items.join(", ")));
        }
        plain => text.push_str(&plain.to_string()),
    }
}

/// By key: the order of a JSON map depends on the features that some other crate of a build asks of serde_json.
fn sorted(items: &Map<String, Value>) -> Vec<(&str, &Value)> {
    let mut items: Vec<(&str, &Value)> = items.iter().map(|(key, item)| (key.as_str(), item)).collect();
    items.sort_by_key(|(key, _)| *key);
    items
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_broken_between_words() {
        assert_eq!(wrap("one two three", 7), ["one two", "three"]);
        assert_eq!(wrap("incomprehensible word", 4), ["incomprehensible", "word"]);
    }

    #[test]
    fn the_text_is_json_with_a_row_on_a_line() {
        let spec =
            json!({ "b": [{ "y": 1.5, "x": "a" }, { "x": "b", "y": 2 }], "a": [], "c": { "d": [1, 2] } });
        let text = text(&spec);
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), spec);
        assert!(text.contains("\n    {\"x\": \"a\", \"y\": 1.5},\n    {\"x\": \"b\", \"y\": 2}\n"), "{text}");
    }

    #[test]
    fn scales_begin_and_end_at_ticks_and_are_never_empty() {
        let axis = |values: &[f64]| percent_axis(values.iter().copied());
        assert_eq!(axis(&[80.6, 91.3]), ([80.0, 92.0], vec![80.0, 82.0, 84.0, 86.0, 88.0, 90.0, 92.0]));
        assert_eq!(axis(&[-3.0, 91.3]), ([0.0, 100.0], vec![0.0, 20.0, 40.0, 60.0, 80.0, 100.0]));
        assert_eq!(axis(&[49.0, 104.0]).0, [40.0, 100.0]);
        assert_eq!(axis(&[10.0]), ([10.0, 11.0], vec![10.0, 11.0]));
        assert_eq!(axis(&[]).0, [0.0, 1.0]);
    }
}
