//! Owners of a stored table: the studies that its files name.

use std::collections::BTreeSet;
use std::path::Path;

use thinet_files::read_if_exists;

use super::TableError;
use super::frame::text_frame;

/// Column with the study's name.
const EXPERIMENT: &str = "experiment";
/// Prefix of the study's name in the notes of a table.
const NOTE: &str = "- Experiment `";

/// The studies whose results `<name>.csv` and the files beside it hold; empty if there are no such files, or if they name none.
///
/// # Errors
/// If a file exists and cannot be read; the message names it.
pub fn owners(dir: &Path, name: &str) -> Result<BTreeSet<String>, TableError> {
    let read = |suffix: &str| -> Result<Vec<u8>, TableError> {
        Ok(read_if_exists(&dir.join(format!("{name}.{suffix}")))?.unwrap_or_default())
    };
    let named = of_rows(read("csv")?);
    if !named.is_empty() {
        return Ok(named);
    }
    // Tables of old versions name it in the spec beside them, or in their notes.
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    let spec: Option<toml::Table> = text(read("resolved.toml")?).parse().ok();
    let of_spec = spec.as_ref().and_then(|spec| spec.get("name")?.as_str()).map(str::to_owned);
    let notes = text(read("md")?);
    let of_notes = || {
        let note = notes.lines().find_map(|line| line.strip_prefix(NOTE))?;
        Some(note.split_once('`')?.0.to_owned())
    };
    Ok(of_spec.or_else(of_notes).into_iter().collect())
}

/// The values of the column; empty if the text is no table with it.
fn of_rows(csv: Vec<u8>) -> BTreeSet<String> {
    let frame = text_frame(csv).ok();
    let column = frame.as_ref().and_then(|frame| frame.column(EXPERIMENT).ok()?.str().ok());
    column.into_iter().flat_map(|column| column.iter().flatten()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::tables::sample::study;
    use crate::tables::{selectors, write};

    #[test]
    fn every_table_of_a_study_names_its_owner() {
        let dir = tempfile::tempdir().unwrap();
        for table in selectors(&study()).unwrap() {
            assert!(owners(dir.path(), &table.name).unwrap().is_empty());
            write(dir.path(), &table, "aa").unwrap();
            assert_eq!(owners(dir.path(), &table.name).unwrap(), BTreeSet::from(["invented".to_owned()]));
        }
    }

    #[test]
    fn owners_of_old_tables_are_read_from_the_files_beside_them() {
        let dir = tempfile::tempdir().unwrap();
        let file =
            |suffix: &str, text: &str| fs::write(dir.path().join(format!("old.{suffix}")), text).unwrap();
        file("csv", "run,method\naa,random\n");
        assert!(owners(dir.path(), "old").unwrap().is_empty());
        file("md", "# Title\n\n- Experiment `by-note`, run `aa`: data; net.\n");
        assert_eq!(owners(dir.path(), "old").unwrap(), BTreeSet::from(["by-note".to_owned()]));
        file("resolved.toml", "name = \"by-spec\"\nseeds = 1\n");
        assert_eq!(owners(dir.path(), "old").unwrap(), BTreeSet::from(["by-spec".to_owned()]));
    }

    #[test]
    fn a_table_of_several_studies_has_them_all_as_owners() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("both.csv"), "run,experiment\naa,one\naa,two\naa,one\n").unwrap();
        let expected = BTreeSet::from(["one".to_owned(), "two".to_owned()]);
        assert_eq!(owners(dir.path(), "both").unwrap(), expected);
    }
}
