//! Variants of a study: the same study with single keys of its spec overridden, for ablations.

use std::collections::BTreeSet;
use std::path::Path;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use thinet_report::tables;

use super::{Spec, check, spec_text};
use crate::error::{HarnessError, SpecError};

/// A variant as written in a spec. It cannot remove a key: one that only some variants have is given in those.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct VariantSpec {
    /// Its name in tables. Required.
    pub name: String,
    /// Dotted keys of the spec, such as `calibration.images-per-class`, each with the value that replaces the spec's.
    #[serde(flatten)]
    #[schemars(skip)]
    pub overrides: toml::Table,
}

impl VariantSpec {
    /// The overrides on one line, such as `calibration.images-per-class = 3, prune.mode = "one-shot"`.
    #[must_use]
    pub fn words(&self) -> String {
        self.words_but(|_| false)
    }

    /// The overrides but those of the calibration sample, on one line.
    #[must_use]
    pub fn words_without_sample(&self) -> String {
        self.words_but(|key| key.starts_with("calibration."))
    }

    fn words_but(&self, is_left_out: impl Fn(&str) -> bool) -> String {
        let overrides = self.overrides.iter().filter(|(key, _)| !is_left_out(key));
        let words = overrides.map(|(key, value)| format!("{key} = {value}"));
        words.collect::<Vec<_>>().join(", ")
    }
}

/// What a part of a study's cells follows: one of its variants, or the spec itself in a study without variants.
#[derive(Clone, Debug, PartialEq)]
pub struct Variant {
    /// Its name; `None` in a study without variants.
    pub name: Option<String>,
    /// The spec with the overrides applied, without the list of variants.
    pub spec: Spec,
}

impl Variant {
    /// Stands before the labels of its stages.
    pub(crate) fn prefix(&self) -> String {
        self.name.as_ref().map_or_else(String::new, |name| format!("{name}: "))
    }

    /// Names the variant in an error about a key of its spec.
    pub(crate) fn named(&self, error: HarnessError) -> HarnessError {
        match (&self.name, error) {
            (Some(name), HarnessError::Spec(SpecError::Value { path, key, problem })) => {
                SpecError::Value { path, key: format!("variant {name:?}: {key}"), problem }.into()
            }
            (_, error) => error,
        }
    }
}

/// The tables with keys that a variant can override: no key in them changes a dense net.
const TABLES: [&str; 3] = ["calibration", "prune", "from-scratch"];

/// The variants of a checked spec, each with checked values; of a spec without variants the spec itself.
///
/// # Errors
/// If a name or a key of a variant is invalid; the message names both.
pub(crate) fn variants(spec: &Spec, path: &Path) -> Result<Vec<Variant>, HarnessError> {
    let shared = Spec { variants: Vec::new(), ..spec.clone() };
    if spec.variants.is_empty() {
        return Ok(vec![Variant { name: None, spec: shared }]);
    }
    if spec.paper_table.is_some() {
        let problem = "compares single studies; a study with variants has no row in it";
        return Err(check::value(path, "paper-table", &problem));
    }
    check_names(&spec.variants, path)?;
    let mut variants = Vec::new();
    for variant in &spec.variants {
        let variant = Variant { name: Some(variant.name.clone()), spec: overridden(&shared, variant, path)? };
        check::values(&variant.spec, path).map_err(|error| variant.named(error))?;
        variants.push(variant);
    }
    check::cell_count(variants.iter().map(|variant| &variant.spec), "variants", path)?;
    Ok(variants)
}

fn check_names(variants: &[VariantSpec], path: &Path) -> Result<(), HarnessError> {
    let mut names = BTreeSet::new();
    for (i, VariantSpec { name, .. }) in variants.iter().enumerate() {
        let wrong = |problem: &str| Err(check::value(path, &format!("variants[{i}].name"), &problem));
        if name.trim().is_empty() {
            return wrong("is empty");
        }
        if name.contains(tables::breaks_line) {
            return wrong(&format!("{name:?} holds a line end, a tab or another control character"));
        }
        if !names.insert(name) {
            return wrong(&format!("two variants are called {name:?}"));
        }
    }
    Ok(())
}

/// The spec with the overrides of a variant.
fn overridden(spec: &Spec, variant: &VariantSpec, path: &Path) -> Result<Spec, HarnessError> {
    let unwritable = |e: toml::ser::Error| SpecError::Unwritable(e.to_string());
    let mut table = toml::Table::try_from(spec).map_err(unwritable)?;
    for (key, value) in &variant.overrides {
        set(&mut table, key, value)
            .map_err(|problem| check::value(path, &format!("variant {:?}: {key}", variant.name), &problem))?;
    }
    let read = spec_text::read_table(table).map_err(|(message, hint)| {
        let message = format!("variant {:?}: {message}", variant.name);
        SpecError::Syntax { path: path.to_owned(), line: None, message, hint }
    });
    Ok(read?)
}

/// Sets the value at a dotted key; tables on the way are made if they do not exist.
fn set(spec: &mut toml::Table, key: &str, value: &toml::Value) -> Result<(), String> {
    let segments: Vec<&str> = key.split('.').collect();
    let Some((last, parents)) = segments.split_last() else { unreachable!("a split has a part") };
    let first = segments[0];
    if !TABLES.contains(&first) {
        let why = match first {
            "methods" => "all variants compare the same methods",
            _ => "cannot be overridden, as all variants share the rest of the spec and its dense nets",
        };
        return Err(format!("{why}; keys of {} can be", TABLES.map(|table| format!("[{table}]")).join(", ")));
    }
    if segments.len() == 1 && (first != "from-scratch" || !value.is_table()) {
        return Err(format!(
            "names a whole table; write single keys in quotes, such as \"{first}.{}\" = …",
            if first == "calibration" {
                "images-per-class"
            } else if first == "prune" {
                "mode"
            } else {
                "epochs"
            }
        ));
    }
    let mut table = spec;
    for (depth, segment) in parents.iter().enumerate() {
        let next = table.entry(*segment).or_insert_with(|| toml::Value::Table(toml::Table::new()));
        let toml::Value::Table(next) = next else {
            return Err(format!("{} is not a table", segments[..=depth].join(".")));
        };
        table = next;
    }
    table.insert((*last).to_owned(), value.clone());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::study::spec::MINIMAL;

    /// The variants of a minimal spec with one variant `v` of these overrides, or the error.
    fn with(overrides: &str) -> Result<Vec<Variant>, String> {
        let text = format!("{MINIMAL}\n[[variants]]\nname = \"v\"\n{overrides}");
        let path = Path::new("x.toml");
        variants(&Spec::parse(&text, path).unwrap(), path).map_err(|error| error.to_string())
    }

    #[test]
    fn overrides_are_written_on_one_line() {
        let text = "name = \"v\"\n\"calibration.images-per-class\" = 3\n\"prune.mode\" = \"one-shot\"";
        let variant: VariantSpec = toml::from_str(text).unwrap();
        assert_eq!(variant.words(), "calibration.images-per-class = 3, prune.mode = \"one-shot\"");
        let plain: VariantSpec = toml::from_str("name = \"v\"").unwrap();
        assert_eq!(plain.words(), "");
    }

    #[test]
    fn the_control_alone_is_given_as_a_whole_table() {
        let [variant] = &with("\"from-scratch\" = { steps = 7, batch = 4, lr = 0.25 }").unwrap()[..] else {
            panic!("one variant is one")
        };
        let control = variant.spec.from_scratch.as_ref().unwrap();
        assert_eq!((control.steps, control.batch, control.lr), (Some(7), 4, 0.25));
        for (overrides, example) in [
            ("\"from-scratch\" = 7", "from-scratch.epochs"),
            ("\"prune\" = { mode = \"one-shot\" }", "prune.mode"),
            ("\"calibration\" = 7", "calibration.images-per-class"),
        ] {
            let error = with(overrides).unwrap_err();
            let expected =
                format!("names a whole table; write single keys in quotes, such as \"{example}\" = …");
            assert!(error.ends_with(&expected), "{overrides}: {error}");
        }
    }
}
