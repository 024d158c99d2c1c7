//! Rows of the report: a figure, and what it is judged by.

use serde_json::{Value, json};

/// Noise below this is that of a single rounding, which another batch would show.
pub(crate) const LEAST_NOISE: f64 = 1e-6;

/// A figure that is shown and not judged; one that is true or false has to be true.
pub(crate) fn row(name: &str, metric: &str, value: impl Into<Value>, note: &str) -> Value {
    json!({ "name": name, "metric": metric, "value": value.into(), "note": note })
}

/// A difference that may be some times the noise, a difference that the CPU has from itself.
pub(crate) fn judged(name: &str, metric: &str, value: f64, noise: f64, note: &str) -> Value {
    let mut row = row(name, metric, value, note);
    row["noise"] = noise.max(LEAST_NOISE).into();
    row
}

/// A difference that may be as large as the bound.
pub(crate) fn bounded(name: &str, metric: &str, value: f64, bound: f64, note: &str) -> Value {
    let mut row = row(name, metric, value, note);
    row["bound"] = bound.into();
    row
}
