//! The key `methods.selector`: the name of a registered selector, or a program that answers in its place.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use schemars::JsonSchema;
use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use thinet_sampling::{Pass, gathered_kinds};
use thinet_selectors::{EvidenceKind, Needs, SelectorError};

/// How the channels of a method are chosen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum SelectorSpec {
    /// A registered selector (`thinet list selectors`).
    Registered(String),
    /// A program.
    Command(CommandSpec),
}

/// A program that ranks the channels of a layer (`docs/your-own-selector.md` holds the protocol).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct CommandSpec {
    /// The program and its arguments. Arguments that name files in `folder` are read with the spec: their contents are part of
    /// the method. Required.
    pub command: Vec<String>,
    /// Further files that the program reads; their contents are part of the method. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<String>,
    /// The folder in which it runs, relative to the spec file. Default: the folder of the spec file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub folder: Option<PathBuf>,
    /// The kinds of evidence to gather for it, such as `filters`. Default: every kind that a calibration gathers without gradients, and
    /// filters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub needs: Option<Vec<String>>,
    /// The longest time that it may take for an answer, seconds. Default: 600.
    #[serde(default = "ten_minutes", skip_serializing_if = "is_ten_minutes")]
    pub timeout: u64,
}

fn ten_minutes() -> u64 {
    CommandSpec::TEN_MINUTES
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_ten_minutes(seconds: &u64) -> bool {
    *seconds == ten_minutes()
}

impl SelectorSpec {
    /// The name in records: that of the registered selector, or the command with its arguments.
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            Self::Registered(name) => name.clone(),
            Self::Command(command) => command.words(),
        }
    }

    /// The name in tables of a method without a label.
    #[must_use]
    pub(crate) fn short_name(&self) -> String {
        match self {
            Self::Registered(name) => name.clone(),
            Self::Command(command) => command.short_name(),
        }
    }

    /// The kinds of evidence to gather.
    ///
    /// # Errors
    /// If no selector has this name, or a kind is unknown.
    pub(crate) fn needs(&self) -> Result<Needs, SelectorNeedsError> {
        match self {
            Self::Registered(name) => Ok(thinet_selectors::find(name)?.needs()),
            Self::Command(command) => {
                // A backward pass is for those that ask for it, and ids of runs without one stay.
                let forward = gathered_kinds().iter().filter(|gathered| gathered.pass() == Pass::Forward);
                let usual = forward.fold(Needs::FILTERS, |needs, kind| needs | Needs::only(kind.kind()));
                Ok(command.declared_needs()?.unwrap_or(usual))
            }
        }
    }
}

/// Why the evidence to gather for a selector is unknown.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SelectorNeedsError {
    #[error(transparent)]
    Selector(#[from] SelectorError),
    #[error("{0}")]
    Kind(String),
}

impl From<String> for SelectorNeedsError {
    fn from(problem: String) -> Self {
        Self::Kind(problem)
    }
}

impl CommandSpec {
    /// The time that a program has for an answer by default, seconds.
    pub const TEN_MINUTES: u64 = 600;

    /// The command with its arguments, for messages.
    #[must_use]
    pub fn words(&self) -> String {
        self.command.join(" ")
    }

    /// The stem of the first argument that is not an option, else of the program: `my_selector` for `python3 my_selector.py`.
    fn short_name(&self) -> String {
        let argument = self.command.iter().skip(1).find(|word| !word.starts_with('-'));
        let word = argument.or(self.command.first()).map_or("", String::as_str);
        Path::new(word)
            .file_stem()
            .map_or_else(|| word.to_owned(), |stem| stem.to_string_lossy().into_owned())
    }

    /// The kinds in `needs`, if the key is given.
    ///
    /// # Errors
    /// If a kind is unknown; the message lists those that exist.
    pub(crate) fn declared_needs(&self) -> Result<Option<Needs>, String> {
        let Some(keys) = &self.needs else { return Ok(None) };
        keys.iter()
            .try_fold(Needs::NONE, |needs, key| Ok(needs | Needs::only(EvidenceKind::of_key(key)?)))
            .map(Some)
    }

    pub(crate) fn timeout(&self) -> Duration {
        Duration::from_secs(self.timeout)
    }
}

impl<'de> Deserialize<'de> for SelectorSpec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NameOrTable;
        impl<'de> Visitor<'de> for NameOrTable {
            type Value = SelectorSpec;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("string or map")
            }

            fn visit_str<E: serde::de::Error>(self, name: &str) -> Result<Self::Value, E> {
                Ok(SelectorSpec::Registered(name.to_owned()))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                CommandSpec::deserialize(MapAccessDeserializer::new(map)).map(SelectorSpec::Command)
            }
        }
        deserializer.deserialize_any(NameOrTable)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::study::Spec;
    use crate::study::spec::MINIMAL;

    fn spec(selector: &str) -> Result<Spec, String> {
        let text = MINIMAL.replace("\"random\"", selector);
        assert_ne!(text, MINIMAL);
        Spec::parse(&text, Path::new("x.toml")).map_err(|error| error.to_string())
    }

    #[test]
    fn a_selector_is_a_name_or_a_table_with_a_command_and_both_survive_a_round_trip() {
        for selector in [
            "\"thinet\"",
            "{ command = [\"python3\", \"-u\", \"my/own.py\"], files = [\"lib.py\"], needs = [\"filters\"], timeout = 5 }",
        ] {
            let spec = spec(selector).unwrap();
            let again = Spec::parse(&spec.to_toml().unwrap(), Path::new("resolved.toml")).unwrap();
            assert_eq!(again, spec);
        }
        let spec = spec("{ command = [\"python3\", \"-u\", \"my/own.py\"] }").unwrap();
        assert_eq!(spec.methods[0].label(), "own");
        assert_eq!(spec.methods[0].selector.name(), "python3 -u my/own.py");
        let SelectorSpec::Command(command) = &spec.methods[0].selector else { panic!("{spec:?}") };
        assert_eq!(command.timeout(), Duration::from_secs(600));
    }

    #[test]
    fn keys_of_a_command_that_do_not_exist_or_have_another_type_are_reported_with_their_place() {
        for (selector, expected) in [
            ("{ command = [\"a\"], file = [\"b\"] }", "unknown field `file`"),
            ("{ files = [\"b\"] }", "missing key `command` in [methods[0].selector]"),
            (
                "{ command = \"a b\" }",
                "methods[0].selector.command: expected a list in brackets, found the text \"a b\"",
            ),
            ("3", "methods[0].selector: expected text in quotes, found the number 3"),
        ] {
            let error = spec(selector).unwrap_err();
            assert!(error.contains(expected), "{expected}\n{error}");
        }
    }

    #[test]
    fn a_command_gets_every_kind_that_is_gathered_without_gradients_unless_it_names_its_own() {
        let needs = |selector: &str| spec(selector).unwrap().methods[0].selector.needs();
        let all = Needs::FILTERS | Needs::ZEROS | Needs::ACTIVATIONS | Needs::MOMENTS;
        assert_eq!(needs("{ command = [\"a\"] }").unwrap(), all);
        assert_eq!(needs("{ command = [\"a\"], needs = [\"gradients\"] }").unwrap(), Needs::GRADIENTS);
        assert_eq!(
            needs("{ command = [\"a\"], needs = [\"batch-norm-scales\"] }").unwrap(),
            Needs::BATCH_NORM_SCALES
        );
        assert_eq!(needs("{ command = [\"a\"], needs = [] }").unwrap(), Needs::NONE);
        let error = needs("{ command = [\"a\"], needs = [\"zero\"] }").unwrap_err().to_string();
        assert!(error.contains("did you mean \"zeros\"?"), "{error}");
    }
}
