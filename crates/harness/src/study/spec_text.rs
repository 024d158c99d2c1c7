//! Error messages about the text of a spec: the key with its table, expected and found values, suggestions, and the specs that
//! exist.

use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use thinet_graph::nearest;

use crate::error::SpecError;

/// Reads a value from TOML.
pub(crate) fn parse<T: DeserializeOwned>(text: &str, path: &Path) -> Result<T, SpecError> {
    let syntax = |error: &toml::de::Error, message, hint| SpecError::Syntax {
        path: path.to_owned(),
        line: error.span().map(|span| text[..span.start.min(text.len())].matches('\n').count() + 1),
        message,
        hint,
    };
    let reader = toml::Deserializer::parse(text).map_err(|e| syntax(&e, one_line(e.message()), None))?;
    serde_path_to_error::deserialize(reader).map_err(|error| {
        let key: Vec<String> = error.path().iter().filter_map(segment).collect();
        let message = one_line(error.inner().message());
        let value = error.inner().span().and_then(|span| text.get(span)).unwrap_or_default();
        let message = match message.as_str() {
            // Numbers beyond every integer type are not passed on to the visitor.
            "integer number overflowed" => beyond_integers(&key, value, "any value"),
            message => explained(message, key, &text.parse().unwrap_or_default()),
        };
        let hint = did_you_mean(&message);
        syntax(error.inner(), message, hint)
    })
}

/// Reads a value from a table that was made from TOML; the error is a message that names the key, and the key or value that was
/// probably meant.
pub(crate) fn read_table<T: DeserializeOwned>(table: toml::Table) -> Result<T, (String, Option<String>)> {
    let spec = table.clone();
    serde_path_to_error::deserialize(toml::Value::Table(table)).map_err(|error| {
        let key: Vec<String> = error.path().iter().filter_map(segment).collect();
        let place = dotted(&key);
        let mut message = explained(&one_line(error.inner().message()), key, &spec);
        if message.starts_with("unknown field ") && !place.is_empty() {
            message = format!("{place}: {message}");
        }
        let hint = did_you_mean(&message);
        (message, hint)
    })
}

fn one_line(message: &str) -> String {
    message.trim().replace('\n', "; ")
}

/// A segment of a path: a key, or a position as `[i]`. Unknown segments are omitted.
fn segment(segment: &serde_path_to_error::Segment) -> Option<String> {
    use serde_path_to_error::Segment;
    match segment {
        Segment::Map { key } => Some(key.clone()),
        Segment::Seq { index } => Some(format!("[{index}]")),
        Segment::Enum { .. } | Segment::Unknown => None,
    }
}

fn dotted(segments: &[String]) -> String {
    segments.join(".").replace(".[", "[")
}

/// Adds the key to serde's message. `key` is the path of the value that was being read: the table for missing keys, and for any
/// error in a table whose form depends on another key (`kind`).
fn explained(message: &str, mut key: Vec<String>, spec: &toml::Table) -> String {
    if let Some(rest) = message.strip_prefix("missing field ") {
        let place = if key.is_empty() { "the top level".to_owned() } else { format!("[{}]", dotted(&key)) };
        return format!("missing key {rest} in {place}");
    }
    if message.starts_with("unknown variant ") {
        return match &key[..] {
            [] => message.to_owned(),
            key => format!("{}: {message}", dotted(key)),
        };
    }
    let found =
        ["invalid type: ", "invalid value: "].into_iter().find_map(|start| message.strip_prefix(start));
    let Some((found, expected)) = found.and_then(|rest| rest.split_once(", expected ")) else {
        return message.to_owned();
    };
    if let Some(toml::Value::Table(table)) = at(spec, &key)
        && found != "map"
    {
        let is_it = |value: &toml::Value| unexpected(value) == found;
        let holds =
            |value: &toml::Value| is_it(value) || value.as_array().is_some_and(|list| list.iter().any(is_it));
        key.extend(table.iter().find(|(_, value)| holds(value)).map(|(name, _)| name.clone()));
    }
    if let Some(number) = beyond_64_bits(found)
        && (expected == "any value" || plain_expected(expected).ends_with("number") || is_count(expected))
    {
        return beyond_integers(&key, number, expected);
    }
    let key = if key.is_empty() { String::new() } else { format!("{}: ", dotted(&key)) };
    format!("{key}expected {}, found {}", plain_expected(expected), plain_found(found))
}

/// The number in serde's description of an integer that does not fit into 64 bits.
fn beyond_64_bits(found: &str) -> Option<&str> {
    let number = found.strip_prefix("integer `")?;
    number.strip_suffix("` as i128").or_else(|| number.strip_suffix("` as u128"))
}

/// The message for an integer that a spec cannot hold.
fn beyond_integers(key: &[String], number: &str, expected: &str) -> String {
    let least = if is_count(expected) { 0 } else { i64::MIN };
    let key = if key.is_empty() { String::new() } else { format!("{}: ", dotted(key)) };
    format!("{key}{number} is outside the whole numbers that can stand here, {least} to {}", i64::MAX)
}

/// Whether a Rust type is that of a count.
fn is_count(expected: &str) -> bool {
    ["usize", "u64", "u32", "u16"].contains(&expected)
}

/// The value at a path.
fn at<'a>(spec: &'a toml::Table, key: &[String]) -> Option<&'a toml::Value> {
    let (first, rest) = key.split_first()?;
    rest.iter().try_fold(spec.get(first)?, |value, step| match value {
        toml::Value::Table(table) => table.get(step),
        toml::Value::Array(list) => list.get(step.trim_matches(['[', ']']).parse::<usize>().ok()?),
        _ => None,
    })
}

/// serde's description of an unexpected value.
fn unexpected(value: &toml::Value) -> String {
    match value {
        toml::Value::String(text) => format!("string {text:?}"),
        toml::Value::Integer(number) => format!("integer `{number}`"),
        toml::Value::Float(number) if number.fract() == 0.0 => format!("floating point `{number:.1}`"),
        toml::Value::Float(number) => format!("floating point `{number}`"),
        toml::Value::Boolean(value) => format!("boolean `{value}`"),
        toml::Value::Array(_) => "sequence".to_owned(),
        toml::Value::Table(_) | toml::Value::Datetime(_) => "map".to_owned(),
    }
}

/// Rust types in the terms of TOML.
fn plain_expected(expected: &str) -> String {
    match expected {
        count if is_count(count) => "a whole number of at least 0".to_owned(),
        "f64" | "f32" => "a number".to_owned(),
        "a boolean" => "true or false".to_owned(),
        "a string" | "path string" | "string or map" => "text in quotes".to_owned(),
        "a sequence" => "a list in brackets".to_owned(),
        "a map" => "a table".to_owned(),
        other if other.starts_with("struct ") || other.contains("tagged enum") => "a table".to_owned(),
        other => other.to_owned(),
    }
}

fn plain_found(found: &str) -> String {
    match found.split_once(' ') {
        Some(("string", text)) => format!("the text {text}"),
        Some(("integer", number)) => {
            format!("the number {}", beyond_64_bits(found).unwrap_or(number).trim_matches('`'))
        }
        Some(("floating", number)) => {
            format!("the number {}", number.trim_start_matches("point ").trim_matches('`'))
        }
        Some(("boolean", value)) => value.trim_matches('`').to_owned(),
        _ if found == "sequence" => "a list".to_owned(),
        _ if found == "map" => "a table".to_owned(),
        _ => found.to_owned(),
    }
}

/// The nearest of the names that serde lists after an unknown one.
fn did_you_mean(message: &str) -> Option<String> {
    let at = message.find("unknown field ").or_else(|| message.find("unknown variant "))?;
    let mut quoted = message[at..].split('`').skip(1).step_by(2);
    let wrong = quoted.next()?;
    nearest(wrong, quoted).map(str::to_owned)
}

/// The error for a spec that does not exist, with those that do.
pub(crate) fn not_there(path: &Path) -> SpecError {
    let folder = if path.is_dir() { Some(path) } else { path.parent() };
    let known: Vec<String> = spec_files(folder).iter().map(|file| file.display().to_string()).collect();
    let stem =
        |path: &Path| path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    let wrong = stem(path);
    let hint = known.iter().find(|file| {
        let name = stem(Path::new(file));
        name == wrong || nearest(&wrong, [name.as_str()]).is_some()
    });
    SpecError::NotThere { path: path.to_owned(), hint: hint.cloned(), known }
}

/// The spec files below `experiments` and in a folder, sorted.
#[must_use]
pub fn spec_files(folder: Option<&Path>) -> Vec<PathBuf> {
    let mut found = Vec::new();
    gather(Path::new("experiments"), true, &mut found);
    let here = folder.filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    gather(here, false, &mut found);
    found.sort();
    found.dedup();
    found
}

fn gather(folder: &Path, below: bool, found: &mut Vec<PathBuf>) {
    // Unreadable entries are skipped.
    for entry in std::fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok) {
        let path = entry.path();
        if path.is_dir() {
            if below {
                gather(&path, true, found);
            }
            continue;
        }
        // Every spec has one of these keys, and no other TOML file has any.
        let is_spec = |path: &Path| {
            std::fs::read_to_string(path)
                .is_ok_and(|text| ["keep-rates", "flops"].iter().any(|key| text.contains(key)))
        };
        if path.extension().is_some_and(|extension| extension == "toml") && is_spec(&path) {
            found.push(path.strip_prefix(".").map(Path::to_owned).unwrap_or(path));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::study::Spec;
    use crate::study::spec::MINIMAL;

    /// The error of the minimal spec with a replacement.
    fn message(from: &str, to: &str) -> String {
        let text = MINIMAL.replacen(from, to, 1);
        assert_ne!(text, MINIMAL, "{from}");
        Spec::parse(&text, Path::new("x.toml")).unwrap_err().to_string()
    }

    #[test]
    fn a_value_of_another_type_is_reported_with_its_key() {
        for (from, to, expected) in [
            ("[0.5]", "0.5", "prune.keep-rates: expected a list in brackets, found the number 0.5"),
            ("[0.5]", "[0.5, \"x\"]", "prune.keep-rates[1]: expected a number, found the text \"x\""),
            (
                "epochs = 1",
                "epochs = -1",
                "dense.train.epochs: expected a whole number of at least 0, found the number -1",
            ),
            (
                "epochs = 1",
                "epochs = 1.5",
                "dense.train.epochs: expected a whole number of at least 0, found the number 1.5",
            ),
            ("\"random\"", "3", "methods[0].selector: expected text in quotes, found the number 3"),
            (
                "{ kind = \"fashion-mnist\" }",
                "\"cifar10\"",
                "dataset: expected a table, found the text \"cifar10\"",
            ),
            (
                "\"fashion-mnist\" }",
                "\"fashion-mnist\", train-limit = \"all\" }",
                "dataset.train-limit: expected a whole number of at least 0, found the text \"all\"",
            ),
            (
                "lr = 0.1",
                "lr = 0.1, schedule = { kind = \"step\", at = [\"half\"] }",
                "dense.train.schedule.at: expected a number, found the text \"half\"",
            ),
        ] {
            let message = message(from, to);
            assert!(message.ends_with(expected) && message.starts_with("x.toml:"), "{expected}\n{message}");
        }
    }

    #[test]
    fn a_number_beyond_64_bits_is_reported_with_key_and_bounds() {
        let huge = "9".repeat(60);
        for number in ["100000000000000000000000", "-100000000000000000000000", &huge] {
            for (from, to, key) in [
                ("epochs = 1", format!("epochs = {number}"), "dense.train.epochs"),
                ("name = \"x\"", format!("name = \"x\"\nseeds = {number}"), "seeds"),
                (
                    "\"fashion-mnist\" }",
                    format!("\"fashion-mnist\", train-limit = {number} }}"),
                    "dataset.train-limit",
                ),
                ("[0.5]", format!("[{number}]"), "prune.keep-rates[0]"),
            ] {
                let message = message(from, &to);
                let start = format!(": {key}: {number} is outside the whole numbers that can stand here, ");
                assert!(
                    message.contains(&start) && message.ends_with(" to 9223372036854775807"),
                    "{message}"
                );
                assert!(!message.contains("128") && !message.contains("overflow"), "{message}");
            }
        }
        let message = message("\"random\"", "100000000000000000000000");
        let expected =
            ": methods[0].selector: expected text in quotes, found the number 100000000000000000000000";
        assert!(message.ends_with(expected), "{message}");
    }

    #[test]
    fn a_missing_key_is_reported_with_its_table() {
        for (from, to, expected) in [
            ("name = \"x\"", "", "missing key `name` in the top level"),
            ("\"fashion-mnist\" }", "\"image-folder\", size = 8 }", "missing key `name` in [dataset]"),
            ("{ epochs = 1, lr = 0.1 }", "{ epochs = 1 }", "missing key `lr` in [dense.train]"),
            ("selector = \"random\"", "label = \"x\"", "missing key `selector` in [methods[0]]"),
        ] {
            let message = message(from, to);
            assert!(message.ends_with(expected), "{expected}\n{message}");
        }
    }

    #[test]
    fn another_net_is_not_suggested_for_one_with_another_number() {
        let message = message("\"tiny\"", "\"resnet18\"");
        assert!(
            message.contains("net.arch: unknown variant `resnet18`, expected one of `vgg16`, "),
            "{message}"
        );
        assert!(!message.contains("did you mean"), "{message}");
    }

    #[test]
    fn a_missing_spec_is_reported_with_those_that_exist() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        std::fs::write(path("birds.toml"), MINIMAL).unwrap();
        std::fs::write(path("other.toml"), "a = 1").unwrap();
        let error = Spec::read(&path("brids.toml")).unwrap_err().to_string();
        assert!(error.contains("no such spec: ") && error.contains("birds.toml — did you mean"), "{error}");
        assert!(!error.contains("os error") && !error.contains("other.toml"), "{error}");
        let error = Spec::read(&path("fish.toml")).unwrap_err().to_string();
        assert!(error.contains("birds.toml") && !error.contains("did you mean"), "{error}");
        let error = Spec::read(folder.path()).unwrap_err().to_string();
        assert!(error.contains("is a folder") && error.contains("birds.toml"), "{error}");
    }
}
