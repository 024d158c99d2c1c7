//! Floats in JSON: finite values are numbers, the others the strings `"NaN"`, `"inf"` and `"-inf"`.
//!
//! For `#[serde(with = "crate::records::number")]`. serde_json itself writes `null` for them, which it cannot read as a float.

use std::fmt;

use serde::de::{Deserializer, Error, Unexpected, Visitor};
use serde::ser::Serializer;

const NAN: &str = "NaN";
const INFINITE: &str = "inf";
const MINUS_INFINITE: &str = "-inf";

/// Writes a float.
///
/// # Errors
/// If the serializer fails.
pub fn serialize<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    match *value {
        value if value.is_finite() => serializer.serialize_f64(value),
        value if value.is_nan() => serializer.serialize_str(NAN),
        value if value > 0.0 => serializer.serialize_str(INFINITE),
        _ => serializer.serialize_str(MINUS_INFINITE),
    }
}

/// Reads a float.
///
/// # Errors
/// If it is neither a number nor one of the three strings.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    deserializer.deserialize_any(Number)
}

struct Number;

impl Visitor<'_> for Number {
    type Value = f64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a number, {NAN:?}, {INFINITE:?} or {MINUS_INFINITE:?}")
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<f64, E> {
        Ok(value)
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<f64, E> {
        Ok(value as f64)
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<f64, E> {
        Ok(value as f64)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<f64, E> {
        match text {
            NAN => Ok(f64::NAN),
            INFINITE => Ok(f64::INFINITY),
            MINUS_INFINITE => Ok(f64::NEG_INFINITY),
            _ => Err(E::invalid_value(Unexpected::Str(text), &self)),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde::{Deserialize, Serialize};

    #[derive(Debug, Serialize, Deserialize)]
    struct Value(#[serde(with = "crate::records::number")] f64);

    #[test]
    fn values_that_are_not_finite_survive_a_round_trip() {
        for (value, text) in
            [(f64::NAN, r#""NaN""#), (f64::INFINITY, r#""inf""#), (f64::NEG_INFINITY, r#""-inf""#)]
        {
            assert_eq!(serde_json::to_string(&Value(value)).unwrap(), text);
            let Value(read) = serde_json::from_str(text).unwrap();
            assert_eq!(read.is_nan(), value.is_nan());
            assert!(value.is_nan() || read == value, "{read}");
        }
        for text in ["null", r#""nan""#, r#""1""#, "true", "[]"] {
            assert!(serde_json::from_str::<Value>(text).is_err(), "{text}");
        }
    }

    #[test]
    fn finite_values_are_written_as_serde_json_writes_them() {
        for value in [0.0, -0.0, 1.0, -3.0, 72.9, 0.1 + 0.2, 1e-320, 1e16, f64::MAX, f64::MIN_POSITIVE] {
            let text = serde_json::to_string(&Value(value)).unwrap();
            assert_eq!(text, serde_json::to_string(&value).unwrap());
            let Value(read) = serde_json::from_str(&text).unwrap();
            assert_eq!(read.to_bits(), value.to_bits(), "{text}");
        }
        // Whole numbers without a point, as other programs may write them.
        for (text, value) in [("3", 3.0), ("-3", -3.0)] {
            assert_eq!(serde_json::from_str::<Value>(text).unwrap().0, value);
        }
    }
}
