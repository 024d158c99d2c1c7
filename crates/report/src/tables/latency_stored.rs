//! A `latency` table read back from a folder of tables.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};
use thinet_files::FileError;

use super::latency_record::{Machine, NAME, latency_run};
use super::{StoredTable, TableError, read_table_file};
use crate::published::Published;

/// A `latency` table read from a folder of tables.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredLatency {
    /// The id of its run, see [`latency_run`].
    pub run: String,
    /// The table as Markdown.
    pub markdown: String,
    /// The rows at full precision.
    pub rows: Vec<Map<String, Value>>,
    /// The file with the Markdown.
    pub path: PathBuf,
    /// Whether checksums were compared; old versions wrote none.
    pub is_checked: bool,
}

impl StoredLatency {
    /// The timed models under their names in [`paper_models`](thinet_nets::paper_models).
    ///
    /// # Errors
    /// If the published numbers, which list the models' names, are inconsistent.
    pub fn models(&self) -> Result<Vec<String>, TableError> {
        let published = Published::load()?;
        let names: Vec<&Value> =
            self.rows.iter().filter(|row| !row["repeats"].is_null()).map(|row| &row["model"]).collect();
        let timed = published.compression.iter().filter(|c| names.iter().any(|name| **name == *c.name));
        Ok(timed.map(|c| c.model.clone()).collect())
    }

    /// Whether it was measured on this machine; `machine` describes it for a device. Tables of old versions hold the processor's
    /// name alone, which does not identify it.
    #[must_use]
    pub fn is_of(&self, machine: &dyn Fn(&str) -> Machine) -> bool {
        let Some(row) = self.rows.first() else { return false };
        let size = |key: &str| usize::try_from(row.get(key)?.as_u64()?).ok();
        let here = || {
            let device = row.get("device")?.as_str()?;
            Some(latency_run(device, &machine(device), size("batch")?, size("threads")?))
        };
        here().is_some_and(|here| here == self.run)
    }

    /// Measured timings of each model.
    #[must_use]
    pub fn repeats(&self) -> Option<u64> {
        self.rows.iter().find_map(|row| row["repeats"].as_u64())
    }
}

/// The table of a run, in place or set aside; without a run, the table in place.
///
/// # Errors
/// If its files cannot be read or hold another table; the message names the file.
pub fn stored_latency(dir: &Path, run: Option<&str>) -> Result<Option<StoredLatency>, TableError> {
    let in_place = read_stored(dir, NAME)?;
    match run {
        None => Ok(in_place),
        Some(run) if in_place.as_ref().is_some_and(|table| table.run == run) => Ok(in_place),
        Some(run) => Ok(read_stored(dir, &format!("{NAME}.{run}"))?.filter(|table| table.run == run)),
    }
}

/// Reads the CSV file, as Polars may abort the process on a damaged Parquet file.
fn read_stored(dir: &Path, stem: &str) -> Result<Option<StoredLatency>, TableError> {
    let (csv, path) = (dir.join(format!("{stem}.csv")), dir.join(format!("{stem}.md")));
    let Some(file) = read_table_file(dir, stem, "csv")? else { return Ok(None) };
    let foreign = || unreadable(&csv, std::io::Error::other("it is no `latency` table"));
    let table = StoredTable::with_columns(file.bytes, &["run", "model", "repeats"]).map_err(|_| foreign())?;
    let Some(run) = table.run().map(str::to_owned) else { return Err(foreign()) };
    let rows = (0..table.height()).map(|row| typed(&table, row)).collect();
    let markdown = read_table_file(dir, stem, "md")?.map(|file| String::from_utf8(file.bytes));
    let markdown = match markdown {
        Some(Ok(markdown)) => markdown,
        Some(Err(e)) => return Err(unreadable(&path, std::io::Error::other(e))),
        None => return Err(unreadable(&path, ErrorKind::NotFound.into())),
    };
    Ok(Some(StoredLatency { run, markdown, rows, path, is_checked: file.is_checked }))
}

/// A row with typed values: text for the columns in `TEXT`, else numbers and Booleans; empty values are null.
fn typed(table: &StoredTable, row: usize) -> Map<String, Value> {
    const TEXT: [&str; 9] = [
        "run",
        "model",
        "device",
        "processor",
        "cpu_family",
        "cpu_model",
        "cpu_stepping",
        "instruction_set",
        "libtorch",
    ];
    let value = |column: &str| {
        let text = table.text(column, row).unwrap_or_default();
        if text.is_empty() {
            return Value::Null;
        }
        let number = || {
            let whole = text.parse::<u64>().ok().map(Value::from);
            whole
                .or_else(|| text.parse::<f64>().ok().map(Value::from))
                .or_else(|| Some(text.parse::<bool>().ok()?.into()))
        };
        let typed = if TEXT.contains(&column) { None } else { number() };
        typed.unwrap_or_else(|| text.into())
    };
    table.columns().into_iter().map(|column| (column.to_owned(), value(column))).collect()
}

fn unreadable(path: &Path, source: std::io::Error) -> TableError {
    FileError::at("read", path)(source).into()
}
