//! Checksums of a table's files, in a file beside them. Tables are compared with them when they are read back.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};
use thinet_files::{read_if_exists, sealed};

use super::{ENVIRONMENT, TableError, seconds};

/// Suffix of the file after the table's name and a dot.
pub(super) const SUFFIX: &str = "sums.json";

/// The file's contents; a checksum of its own comes first.
#[derive(Serialize, Deserialize)]
struct Sums {
    /// blake3 of each file by its suffix.
    files: BTreeMap<String, String>,
}

/// The checksum file of these contents by suffix. The same table gives the same file on every machine, so it excludes what differs: the
/// environment, which carries its own checksum, and times, which are never read back.
pub(super) fn text(contents: &[(&str, Vec<u8>)]) -> Result<String, TableError> {
    let listed = contents.iter().filter(|(suffix, _)| ![ENVIRONMENT, seconds::SUFFIX].contains(suffix));
    let files = listed.map(|(suffix, bytes)| ((*suffix).to_owned(), hash(bytes))).collect();
    Ok(sealed::seal(&(serde_json::to_string_pretty(&Sums { files })? + "\n")))
}

/// The contents of a table's file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableFile {
    pub bytes: Vec<u8>,
    /// Whether checksums were compared; false for tables of old versions, which have none.
    pub is_checked: bool,
}

/// Reads `<name>.<suffix>` and compares all existing files of the table with their checksums; `None` if there is no such file.
///
/// # Errors
/// If a file cannot be read, or has changed since it was written; the message names it.
pub fn read_table_file(folder: &Path, name: &str, suffix: &str) -> Result<Option<TableFile>, TableError> {
    let Some(bytes) = read(folder, name, suffix)? else { return Ok(None) };
    let damaged = |suffix: &str, problem: String| TableError::Damaged {
        path: folder.join(format!("{name}.{suffix}")),
        problem,
    };
    if suffix == ENVIRONMENT {
        let text = String::from_utf8(bytes).map_err(|e| damaged(suffix, e.to_string()))?;
        let bytes = sealed::open(&text).map_err(|problem| damaged(suffix, problem))?.into_bytes();
        let is_checked = bytes.len() < text.len();
        return Ok(Some(TableFile { bytes, is_checked }));
    }
    let Some(sums) = read(folder, name, SUFFIX)? else {
        return Ok(Some(TableFile { bytes, is_checked: false }));
    };
    let sums = String::from_utf8(sums).map_err(|e| damaged(SUFFIX, e.to_string()))?;
    sealed::check(&sums).map_err(|problem| damaged(SUFFIX, problem))?;
    let Sums { files } =
        serde_json::from_str(&sums).map_err(|e| damaged(SUFFIX, format!("cannot be read: {e}")))?;
    if !files.contains_key(suffix) {
        return Err(damaged(SUFFIX, format!("has no checksum of {name}.{suffix}")));
    }
    for (other, checksum) in &files {
        let found = if other == suffix { Some(hash(&bytes)) } else { hash_of(folder, name, other)? };
        if found.is_some_and(|found| found != *checksum) {
            return Err(damaged(other, "has changed since it was written".to_owned()));
        }
    }
    Ok(Some(TableFile { bytes, is_checked: true }))
}

fn hash_of(folder: &Path, name: &str, suffix: &str) -> Result<Option<String>, TableError> {
    Ok(read(folder, name, suffix)?.as_deref().map(hash))
}

fn read(folder: &Path, name: &str, suffix: &str) -> Result<Option<Vec<u8>>, TableError> {
    Ok(read_if_exists(&folder.join(format!("{name}.{suffix}")))?)
}

fn hash(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_hex().to_string()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::tables::sample::study;
    use crate::tables::{Attachment, Table, selectors, write};

    fn table() -> Table {
        let mut table = selectors(&study()).unwrap().remove(0);
        let environment = sealed::seal("{\n  \"version\": \"0.1.0\"\n}\n");
        table.attachments.push(Attachment { suffix: ENVIRONMENT, text: environment });
        table
    }

    #[test]
    fn a_byte_that_changed_in_any_file_of_a_table_is_an_error_that_names_it() {
        let dir = tempfile::tempdir().unwrap();
        let written = write(dir.path(), &table(), "aa").unwrap();
        let name = table().name;
        let read = |suffix: &str| read_table_file(dir.path(), &name, suffix);
        assert!(read("csv").unwrap().unwrap().is_checked);
        for path in &written.files {
            let file = path.file_name().unwrap().to_str().unwrap();
            let suffix = file.strip_prefix(&format!("{name}.")).unwrap();
            let asked = if suffix == ENVIRONMENT { ENVIRONMENT } else { "csv" };
            let bytes = fs::read(path).unwrap();
            // All of a small file, a thousand places of a large one.
            for at in (0..bytes.len()).step_by(1 + bytes.len() / 1000) {
                let mut changed = bytes.clone();
                changed[at] ^= 1 << (at % 8);
                fs::write(path, &changed).unwrap();
                // A damaged key of the environment leaves invalid JSON, which parsing detects.
                let error = match read(asked) {
                    Err(error) => error.to_string(),
                    Ok(read) if suffix == ENVIRONMENT => {
                        let text = read.unwrap().bytes;
                        assert!(serde_json::from_slice::<serde_json::Value>(&text).is_err(), "byte {at}");
                        continue;
                    }
                    Ok(_) => panic!("{file}: byte {at} changed unseen"),
                };
                assert!(error.contains(file), "{file}, byte {at}: {error}");
            }
            fs::write(path, &bytes).unwrap();
        }
        assert!(read("csv").unwrap().unwrap().is_checked);
    }

    #[test]
    fn a_table_of_an_old_version_is_read_and_not_called_checked() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), &table(), "aa").unwrap();
        let name = table().name;
        fs::remove_file(dir.path().join(format!("{name}.{SUFFIX}"))).unwrap();
        let file = read_table_file(dir.path(), &name, "csv").unwrap().unwrap();
        assert!(!file.is_checked && file.bytes.starts_with(b"run,"));
        assert_eq!(read_table_file(dir.path(), "other", "csv").unwrap(), None);
    }

    #[test]
    fn an_environment_is_checked_by_its_own_checksum_and_one_without_it_is_not_called_checked() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), &table(), "aa").unwrap();
        let name = table().name;
        let read = || read_table_file(dir.path(), &name, ENVIRONMENT).unwrap().unwrap();
        let plain = "{\n  \"version\": \"0.1.0\"\n}\n";
        assert_eq!(read(), TableFile { bytes: plain.as_bytes().to_vec(), is_checked: true });
        fs::write(dir.path().join(format!("{name}.{ENVIRONMENT}")), plain).unwrap();
        assert_eq!(read(), TableFile { bytes: plain.as_bytes().to_vec(), is_checked: false });
    }
}
