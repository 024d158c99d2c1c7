//! A selector's program as a plan holds it: where it runs, and the contents of its files.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};
use thinet_files::hash_file;
use thinet_selectors::Needs;

use super::selector_spec::{CommandSpec, SelectorSpec};

/// Version of the protocol between a stage and a selector's program; raised when a message gets another meaning. Part of ids.
pub(crate) const PROTOCOL: u32 = 1;

/// A selector's program with the contents of its files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SelectorCommand {
    /// The program and its arguments.
    pub argv: Vec<String>,
    /// The folder in which it runs.
    pub folder: PathBuf,
    /// Hashes of the files that are part of the method, by their names as written.
    pub files: BTreeMap<String, String>,
    /// The kinds of evidence that the spec names for it.
    pub(crate) needs: Option<Needs>,
    /// The longest time for an answer.
    pub(crate) timeout: Duration,
}

impl SelectorCommand {
    /// The program of a selector, if it is one, with the hashes of its files.
    ///
    /// # Errors
    /// If a file cannot be read or the folder does not exist; the message names it.
    pub(crate) fn of(selector: &SelectorSpec, spec: &Path) -> Result<Option<Self>, String> {
        let SelectorSpec::Command(command) = selector else { return Ok(None) };
        let folder = folder_of(command, spec)?;
        let mut files = BTreeMap::new();
        for name in &command.files {
            files.insert(name.clone(), hash_of(&folder, name)?);
        }
        // An absolute path names an interpreter or a library of the machine, which differ from one to the next.
        let own = command
            .command
            .iter()
            .filter(|word| Path::new(word).is_relative() && folder.join(word).is_file());
        for name in own {
            files.insert(name.clone(), hash_of(&folder, name)?);
        }
        let needs = command.declared_needs()?;
        Ok(Some(Self { argv: command.command.clone(), folder, files, needs, timeout: command.timeout() }))
    }

    /// What enters the ids of its cells.
    pub(crate) fn identity(&self) -> Value {
        json!({ "command": self.argv, "files": self.files, "protocol": PROTOCOL })
    }

    /// The command with its arguments, for messages.
    #[must_use]
    pub fn words(&self) -> String {
        self.argv.join(" ")
    }

    /// The name of a file whose contents are not those of the plan any more, if there is one.
    pub(crate) fn changed_file(&self) -> Option<&str> {
        let is_changed =
            |(name, hash): &(&String, &String)| hash_of(&self.folder, name).as_ref() != Ok(*hash);
        self.files.iter().find(is_changed).map(|(name, _)| name.as_str())
    }
}

/// The absolute path of the folder in which a command runs.
fn folder_of(command: &CommandSpec, spec: &Path) -> Result<PathBuf, String> {
    let beside = match spec.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let folder = command.folder.as_ref().map_or_else(|| beside.to_owned(), |folder| beside.join(folder));
    folder.canonicalize().map_err(|e| format!("cannot open the folder {}: {e}", folder.display()))
}

fn hash_of(folder: &Path, name: &str) -> Result<String, String> {
    let path = folder.join(name);
    if path.is_dir() {
        return Err(format!("{} is a folder; list its files", path.display()));
    }
    hash_file(&path).map_err(|e| format!("cannot read {}: {e}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(argv: &[&str], files: &[&str], spec: &Path) -> Result<SelectorCommand, String> {
        let command = CommandSpec {
            command: argv.iter().map(ToString::to_string).collect(),
            files: files.iter().map(ToString::to_string).collect(),
            folder: None,
            needs: None,
            timeout: 1,
        };
        SelectorCommand::of(&SelectorSpec::Command(command), spec).map(Option::unwrap)
    }

    #[test]
    fn files_among_the_arguments_and_listed_ones_are_part_of_the_identity_by_their_contents() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        write("own.py", "1");
        write("lib.py", "2");
        let spec = folder.path().join("x.toml");
        let of = |argv: &[&str], files: &[&str]| command(argv, files, &spec).unwrap();
        let first = of(&["python3", "own.py"], &["lib.py"]);
        assert_eq!(first.files.keys().collect::<Vec<_>>(), ["lib.py", "own.py"]);
        assert_eq!(first.changed_file(), None);

        // The program's folder and its time limit change no answer.
        let elsewhere = tempfile::tempdir().unwrap();
        for name in ["own.py", "lib.py"] {
            std::fs::copy(folder.path().join(name), elsewhere.path().join(name)).unwrap();
        }
        let copied = command(&["python3", "own.py"], &["lib.py"], &elsewhere.path().join("x.toml")).unwrap();
        assert_eq!(copied.identity(), first.identity());

        assert_ne!(of(&["python3", "own.py"], &[]).identity(), first.identity());
        assert_ne!(of(&["python3", "own.py", "0.5"], &["lib.py"]).identity(), first.identity());
        write("lib.py", "3");
        assert_eq!(first.changed_file(), Some("lib.py"));
        assert_ne!(of(&["python3", "own.py"], &["lib.py"]).identity(), first.identity());
    }

    #[test]
    fn files_that_cannot_be_read_are_named() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("lib")).unwrap();
        let spec = folder.path().join("x.toml");
        let problem = |files: &[&str]| command(&["python3"], files, &spec).unwrap_err();
        assert!(problem(&["none.py"]).contains("none.py: "), "{}", problem(&["none.py"]));
        assert!(problem(&["lib"]).ends_with("lib is a folder; list its files"));
    }
}
