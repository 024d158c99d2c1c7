//! Writes tables as CSV, Parquet and Markdown with the run's id. Files of another run are set aside, never lost.

use std::fs;
use std::path::{Path, PathBuf};

use polars::frame::DataFrame;
use polars::prelude::{IntoColumn, NamedFrom, Series};
use thinet_files::{FileError, read_if_exists, write_atomically};

use super::frame::{csv_bytes, parquet_bytes};
use super::{Table, TableError, sums};

/// Files of a written table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TableFiles {
    /// The table's files.
    pub files: Vec<PathBuf>,
    /// Files of another run under their new names.
    pub set_aside: Vec<PathBuf>,
}

/// In place of a run's id in a table without measurements.
pub const NOT_RUN: &str = "not-run";

/// In place of a run's id for files that name none.
const UNKNOWN_RUN: &str = "unknown";

/// Writes `<name>.csv`, `.parquet`, `.md`, the table's attachments and their checksums (`.sums.json`) to a folder, which is created if it
/// does not exist.
///
/// The CSV and Parquet files get `run` as their first column. If the existing CSV file belongs to another run, all files of
/// that table are first renamed to `<name>.<other run>.<…>`. The same table of the same run gives the same bytes.
///
/// # Errors
/// If the folder or a file cannot be read, renamed or written; the message names it.
pub fn write(dir: &Path, table: &Table, run: &str) -> Result<TableFiles, TableError> {
    let mut frame = with_run(&table.frame, run)?;
    // The CSV file comes first: it identifies the run of the others if writing is interrupted.
    let mut contents = vec![
        ("csv", csv_bytes(&mut frame)?),
        ("parquet", parquet_bytes(&frame)?),
        ("md", table.markdown().into_bytes()),
    ];
    contents.extend(table.attachments.iter().map(|a| (a.suffix, a.text.clone().into_bytes())));
    contents.push((sums::SUFFIX, sums::text(&contents)?.into_bytes()));

    fs::create_dir_all(dir).map_err(FileError::at("create", dir))?;
    let suffixes: Vec<&str> = contents.iter().map(|(suffix, _)| *suffix).collect();
    let mut written =
        TableFiles { files: Vec::new(), set_aside: set_aside(dir, &table.name, &suffixes, run)? };
    for (suffix, bytes) in contents {
        let path = dir.join(format!("{}.{suffix}", table.name));
        write_atomically(&path, &bytes)?;
        written.files.push(path);
    }
    Ok(written)
}

/// Renames the table's files if they belong to another run than `run`; returns their new names.
fn set_aside(dir: &Path, name: &str, suffixes: &[&str], run: &str) -> Result<Vec<PathBuf>, TableError> {
    let present = |suffix: &&&str| dir.join(format!("{name}.{suffix}")).exists();
    let existing: Vec<&str> = suffixes.iter().filter(present).copied().collect();
    if existing.is_empty() {
        return Ok(Vec::new());
    }
    let old_run = run_of(&dir.join(format!("{name}.csv")))?;
    // A table without measurements need not be kept.
    if old_run == run || old_run == NOT_RUN {
        return Ok(Vec::new());
    }
    let stem = free_stem(dir, name, &old_run, &existing)?;
    let mut renamed = Vec::new();
    // The CSV file goes last: until then it identifies the run of the others.
    for suffix in existing.iter().rev() {
        let (from, to) = (dir.join(format!("{name}.{suffix}")), dir.join(format!("{stem}.{suffix}")));
        fs::rename(&from, &to).map_err(FileError::at("rename", &from))?;
        renamed.push(to);
    }
    renamed.reverse();
    Ok(renamed)
}

/// The run in a CSV file's first column, [`UNKNOWN_RUN`] if there is none or it is unusable in a file name.
fn run_of(csv: &Path) -> Result<String, TableError> {
    let bytes = read_if_exists(csv)?.unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let mut first_fields = text.lines().map(|line| line.split(',').next().unwrap_or_default());
    let (heading, run) = (first_fields.next(), first_fields.next().unwrap_or_default());
    let in_file_name = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    let usable = heading == Some("run") && (1..=64).contains(&run.len()) && run.chars().all(in_file_name);
    Ok(if usable { run.to_owned() } else { UNKNOWN_RUN.to_owned() })
}

/// `<name>.<run>`, followed by a number if files with other contents have that name already.
fn free_stem(dir: &Path, name: &str, run: &str, suffixes: &[&str]) -> Result<String, TableError> {
    for number in 1.. {
        let stem = if number == 1 { format!("{name}.{run}") } else { format!("{name}.{run}.{number}") };
        let mut free = true;
        for suffix in suffixes {
            let (old, target) = (dir.join(format!("{name}.{suffix}")), dir.join(format!("{stem}.{suffix}")));
            if target.exists() {
                let read = |path: &Path| fs::read(path).map_err(FileError::at("read", path));
                free &= read(&old)? == read(&target)?;
            }
        }
        if free {
            return Ok(stem);
        }
    }
    unreachable!("a folder holds finitely many files")
}

fn with_run(frame: &DataFrame, run: &str) -> Result<DataFrame, TableError> {
    let mut frame = frame.clone();
    let ids = Series::new("run".into(), vec![run; frame.height()]);
    frame.insert_column(0, ids.into_column())?;
    Ok(frame)
}

/// Formats a table's CSV file as [`write()`] does.
pub fn csv_text(frame: &DataFrame, run: &str) -> Result<String, TableError> {
    Ok(String::from_utf8_lossy(&csv_bytes(&mut with_run(frame, run)?)?).into_owned())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::io::Cursor;

    use polars::prelude::{ParquetReader, SerReader};

    use super::*;
    use crate::tables::sample::study;
    use crate::tables::selectors;

    fn main_table() -> Table {
        selectors(&study()).unwrap().remove(0)
    }

    fn folder(dir: &Path) -> BTreeMap<String, Vec<u8>> {
        let entries = fs::read_dir(dir).unwrap().map(|e| e.unwrap().path());
        entries.map(|p| (p.file_name().unwrap().to_str().unwrap().to_owned(), fs::read(p).unwrap())).collect()
    }

    #[test]
    fn the_same_run_gives_the_same_bytes_and_sets_nothing_aside() {
        let dir = tempfile::tempdir().unwrap();
        let first = write(dir.path(), &main_table(), "aa").unwrap();
        let bytes = folder(dir.path());
        let second = write(dir.path(), &main_table(), "aa").unwrap();
        assert_eq!(first, second);
        assert_eq!(first.set_aside, Vec::<PathBuf>::new());
        assert_eq!(folder(dir.path()), bytes);
        let names: Vec<&str> = bytes.keys().map(String::as_str).collect();
        let table = "selectors-invented";
        assert_eq!(
            names,
            ["csv", "kept.json", "md", "parquet", "sums.json"].map(|suffix| format!("{table}.{suffix}"))
        );
    }

    #[test]
    fn another_run_is_set_aside_and_nothing_is_ever_lost() {
        let dir = tempfile::tempdir().unwrap();
        let name = |suffix: &str| format!("selectors-invented.{suffix}");
        write(dir.path(), &main_table(), "aa").unwrap();
        let of_aa = folder(dir.path());
        let written = write(dir.path(), &main_table(), "bb").unwrap();
        assert_eq!(written.set_aside.len(), 5);
        let now = folder(dir.path());
        for (file, bytes) in &of_aa {
            let suffix = file.strip_prefix("selectors-invented.").unwrap();
            assert_eq!(&now[&name(&format!("aa.{suffix}"))], bytes, "{suffix}");
        }
        assert!(now[&name("csv")].starts_with(b"run,method,"));

        // Other contents of a run that was set aside before get a number; equal contents do not.
        write(dir.path(), &main_table(), "aa").unwrap();
        write(dir.path(), &main_table(), "bb").unwrap();
        assert_eq!(folder(dir.path()).len(), 5 + 5 + 5, "aa and bb aside, bb current");
        let mut other = main_table();
        other.title.push_str(" again");
        write(dir.path(), &other, "aa").unwrap();
        let written = write(dir.path(), &main_table(), "cc").unwrap();
        assert!(written.set_aside[0].ends_with(name("aa.2.csv")), "{:?}", written.set_aside);
        assert_eq!(folder(dir.path())[&name("aa.csv")], of_aa[&name("csv")]);
    }

    #[test]
    fn files_without_a_run_are_set_aside_too() {
        let dir = tempfile::tempdir().unwrap();
        for foreign in ["a,b\n1,2\n", "run,b\n../up,2\n", ""] {
            fs::write(dir.path().join("selectors-invented.csv"), foreign).unwrap();
            let written = write(dir.path(), &main_table(), "aa").unwrap();
            let aside = written.set_aside.iter().find(|p| p.extension().is_some_and(|e| e == "csv")).unwrap();
            assert!(aside.to_str().unwrap().contains(".unknown."), "{aside:?}");
            assert_eq!(fs::read_to_string(aside).unwrap(), foreign);
        }
    }

    #[test]
    fn parquet_and_csv_keep_every_digit_and_missing_values() {
        let dir = tempfile::tempdir().unwrap();
        let mut table = main_table();
        let exact = [0.1 + 0.2, 1e-7, 91.0, 0.0];
        let values: Vec<Option<f64>> = (0..table.frame.height()).map(|r| exact.get(r).copied()).collect();
        table.frame =
            DataFrame::new(values.len(), vec![Series::new("v".into(), values.clone()).into_column()])
                .unwrap();
        write(dir.path(), &table, "aa").unwrap();

        let csv = fs::read_to_string(dir.path().join("selectors-invented.csv")).unwrap();
        let read = csv.lines().skip(1).map(|line| line.strip_prefix("aa,").unwrap().parse::<f64>().ok());
        assert_eq!(read.collect::<Vec<_>>(), values);

        let parquet = fs::read(dir.path().join("selectors-invented.parquet")).unwrap();
        let frame = ParquetReader::new(Cursor::new(parquet)).finish().unwrap();
        assert_eq!(frame.column("v").unwrap().f64().unwrap().iter().collect::<Vec<_>>(), values);
        assert_eq!(frame.column("run").unwrap().str().unwrap().get(0), Some("aa"));
    }

    #[test]
    fn a_folder_that_cannot_be_written_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("taken");
        fs::write(&file, "x").unwrap();
        let error = write(&file.join("tables"), &main_table(), "aa").unwrap_err().to_string();
        assert!(error.contains("cannot create") && error.contains("taken"), "{error}");

        // A folder where the table's file should be.
        fs::create_dir_all(dir.path().join("selectors-invented.csv/inside")).unwrap();
        let error = write(dir.path(), &main_table(), "aa").unwrap_err().to_string();
        assert!(error.contains("selectors-invented.csv"), "{error}");
    }
}
