//! Texts that carry their own checksum, which is compared when they are read back. Texts of old versions have none and are accepted
//! unchecked.

/// The first key of a sealed JSON object.
const KEY: &str = "checksum";
/// The beginning of the first line of a sealed text of lines.
const LINE: &str = "# blake3 of what follows: ";
/// Digits of a checksum.
const DIGITS: usize = 64;
/// The problem of a text with a wrong checksum.
const CHANGED: &str = "has changed since it was written";

/// Inserts a checksum before the keys of a JSON object in the text of serde_json, compact or indented.
#[must_use]
pub fn seal(json: &str) -> String {
    let rest = json.strip_prefix('{').unwrap_or(json);
    let (indent, space) = if rest.starts_with('\n') { ("\n  ", " ") } else { ("", "") };
    let around = |checksum: &str| format!("{{{indent}\"{KEY}\":{space}\"{checksum}\",{rest}");
    around(&hash(&around("")))
}

/// Compares a JSON object's text with the checksum in it.
///
/// # Errors
/// If it has changed; the text continues a sentence that starts with the file's name.
pub fn check(json: &str) -> Result<(), String> {
    let Some((key, value)) = first_pair(json) else { return Ok(()) };
    if key == KEY {
        let (before, after) = (&json[..json.len() - value.len()], &value[end_of(value)..]);
        return match hash(&format!("{before}{after}")) == value[..end_of(value)] {
            true => Ok(()),
            false => Err(CHANGED.to_owned()),
        };
    }
    // The key of the checksum has changed.
    match is_checksum(&value[..end_of(value)]) {
        true => Err(CHANGED.to_owned()),
        false => Ok(()),
    }
}

/// The checked text without its checksum.
///
/// # Errors
/// If it has changed; the text continues a sentence that starts with the file's name.
pub fn open(json: &str) -> Result<String, String> {
    check(json)?;
    match first_pair(json) {
        Some((KEY, value)) => {
            let after = &value[end_of(value)..];
            let after = after.strip_prefix("\",").unwrap_or(after);
            Ok(format!("{{{after}"))
        }
        _ => Ok(json.to_owned()),
    }
}

/// Inserts a line with a checksum before a text in which lines that begin with `#` are comments.
#[must_use]
pub fn seal_lines(text: &str) -> String {
    format!("{LINE}{}\n{text}", hash(text))
}

/// The checked text without the line.
///
/// # Errors
/// If it has changed; the text continues a sentence that starts with the file's name.
pub fn open_lines(text: &str) -> Result<&str, String> {
    let (line, rest) = text.split_once('\n').unwrap_or((text, ""));
    if line.strip_prefix(LINE).is_some_and(|checksum| checksum == hash(rest)) {
        return Ok(rest);
    }
    // Texts of old versions have no comments.
    match text.starts_with('#') || text.contains(&LINE[1..]) {
        true => Err(CHANGED.to_owned()),
        false => Ok(text),
    }
}

fn hash(text: &str) -> String {
    blake3::hash(text.as_bytes()).to_hex().to_string()
}

fn is_checksum(value: &str) -> bool {
    value.len() == DIGITS && value.bytes().all(|b| b.is_ascii_hexdigit())
}

/// The first key of an object, and the text from the first character of its value if that is a string.
fn first_pair(json: &str) -> Option<(&str, &str)> {
    let rest = json.trim_start().strip_prefix('{')?.trim_start().strip_prefix('"')?;
    let (key, rest) = rest.split_once('"')?;
    Some((key, rest.trim_start().strip_prefix(':')?.trim_start().strip_prefix('"')?))
}

/// The end of a string's value; checksums contain no escapes.
fn end_of(value: &str) -> usize {
    value.find('"').unwrap_or(value.len())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn a_sealed_object_is_the_same_object_with_a_checksum_first() {
        let value = json!({ "a": 1.5, "b": { "checksum": "x" } });
        for text in [serde_json::to_string(&value).unwrap(), serde_json::to_string_pretty(&value).unwrap()] {
            let sealed = seal(&text);
            assert_eq!(check(&sealed), Ok(()));
            assert_eq!(open(&sealed), Ok(text.clone()));
            let mut read: Value = serde_json::from_str(&sealed).unwrap();
            assert!(is_checksum(read.as_object_mut().unwrap().remove("checksum").unwrap().as_str().unwrap()));
            assert_eq!(read, value);
            assert_eq!((check(&text), open(&text)), (Ok(()), Ok(text.clone())), "of an old version");
        }
    }

    #[test]
    fn every_changed_byte_is_detected() {
        let sealed = seal(&serde_json::to_string_pretty(&json!({ "id": "a-1", "value": 0.25 })).unwrap());
        let lines = seal_lines("name = \"a\"\nrate = 0.25\n");
        for at in 0..sealed.len() {
            for byte in (0..=255_u8).filter(|byte| *byte != sealed.as_bytes()[at]) {
                let mut bytes = sealed.clone().into_bytes();
                bytes[at] = byte;
                let Ok(text) = String::from_utf8(bytes) else { continue };
                let is_detected = check(&text).is_err() || serde_json::from_str::<Value>(&text).is_err();
                assert!(is_detected, "byte {at}: {text}");
            }
        }
        for at in 0..lines.len() {
            for byte in (0..=255_u8).filter(|byte| *byte != lines.as_bytes()[at]) {
                let mut bytes = lines.clone().into_bytes();
                bytes[at] = byte;
                let Ok(text) = String::from_utf8(bytes) else { continue };
                assert!(open_lines(&text).is_err(), "byte {at}: {text}");
            }
        }
        assert_eq!(open_lines(&lines), Ok("name = \"a\"\nrate = 0.25\n"));
        assert_eq!(open_lines("name = \"a\"\n"), Ok("name = \"a\"\n"));
    }

    #[test]
    fn a_truncated_text_is_detected() {
        let sealed = seal(&serde_json::to_string(&json!({ "id": "a-1" })).unwrap());
        for end in 0..sealed.len() {
            let text = &sealed[..end];
            assert!(check(text).is_err() || serde_json::from_str::<Value>(text).is_err(), "{text}");
        }
    }
}
