//! Reads committed tables for figures: columns by name, numbers checked, changed files reported.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use thinet_files::{FileError, read_if_exists};

use super::FigureError;
use crate::tables::{StoredTable, TableError, read_table_file};

/// The file beside a table with the spec of its study, defaults filled in.
pub(crate) const SPEC: &str = "resolved.toml";

/// The folder of the tables, and what was noticed while they were read.
pub(crate) struct Tables<'a> {
    folder: &'a Path,
    /// Files that have changed since they were written, a sentence each.
    pub(crate) changed: BTreeSet<String>,
}

impl<'a> Tables<'a> {
    pub(crate) fn of(folder: &'a Path) -> Self {
        Self { folder, changed: BTreeSet::new() }
    }

    pub(crate) fn path(&self, name: &str, suffix: &str) -> PathBuf {
        self.folder.join(format!("{name}.{suffix}"))
    }

    /// Names of all tables: CSV files whose name holds no further dot (those were set aside, or lie beside a table), in the order of
    /// their names.
    pub(crate) fn names(&self) -> Result<BTreeSet<String>, FigureError> {
        let mut names = BTreeSet::new();
        if !self.folder.is_dir() {
            return Ok(names);
        }
        for entry in std::fs::read_dir(self.folder).map_err(FileError::at("read", self.folder))? {
            let file = entry.map_err(FileError::at("read", self.folder))?.file_name();
            let name = file.to_str().and_then(|file| file.strip_suffix(".csv"));
            names.extend(name.filter(|name| !name.contains('.')).map(str::to_owned));
        }
        Ok(names)
    }

    /// The bytes of `<name>.<suffix>`, `None` if there is no such file. A file that has changed since it was written is read all the
    /// same and reported in `changed`.
    pub(crate) fn bytes(&mut self, name: &str, suffix: &str) -> Result<Option<Vec<u8>>, FigureError> {
        match read_table_file(self.folder, name, suffix) {
            Ok(file) => Ok(file.map(|file| file.bytes)),
            Err(error @ TableError::Damaged { .. }) => {
                self.changed.insert(error.to_string());
                Ok(read_if_exists(&self.path(name, suffix))?)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// The spec beside a table; `None` if there is no such file.
    pub(super) fn spec(&mut self, name: &str) -> Result<Option<toml::Table>, FigureError> {
        let Some(bytes) = self.bytes(name, SPEC)? else { return Ok(None) };
        let text = String::from_utf8(bytes).map_err(|error| self.bad_spec(name, error.to_string()))?;
        let spec =
            text.parse().map_err(|error: toml::de::Error| self.bad_spec(name, error.message().to_owned()))?;
        Ok(Some(spec))
    }

    /// The error of the spec beside a table.
    pub(super) fn bad_spec(&self, name: &str, problem: String) -> FigureError {
        FigureError::BadSpec { path: self.path(name, SPEC), problem }
    }

    /// A table that must have these columns; `None` if there is no such file.
    pub(crate) fn sheet(&mut self, name: &str, needed: &[&str]) -> Result<Option<Sheet>, FigureError> {
        let Some(bytes) = self.bytes(name, "csv")? else { return Ok(None) };
        let path = self.path(name, "csv");
        let table = StoredTable::with_columns(bytes, &[])
            .map_err(|error| FigureError::NoTable { path: path.clone(), problem: error.to_string() })?;
        let sheet = Sheet { path, table };
        for column in needed {
            if !sheet.has(column) {
                return Err(FigureError::NoColumn { path: sheet.path, column: (*column).to_owned() });
            }
        }
        Ok(Some(sheet))
    }
}

/// A table as text with checked access.
pub(crate) struct Sheet {
    pub(crate) path: PathBuf,
    table: StoredTable,
}

impl Sheet {
    pub(crate) fn rows(&self) -> std::ops::Range<usize> {
        0..self.table.height()
    }

    pub(crate) fn has(&self, column: &str) -> bool {
        self.table.columns().contains(&column)
    }

    /// Names of the columns in their order.
    pub(crate) fn columns(&self) -> Vec<&str> {
        self.table.columns()
    }

    /// A field that is not empty; `None` too where the table has no such column.
    pub(crate) fn text(&self, row: usize, column: &str) -> Option<&str> {
        self.table.text(column, row).filter(|text| !text.is_empty())
    }

    /// A field, empty if it has no value.
    pub(crate) fn label(&self, row: usize, column: &str) -> String {
        self.text(row, column).unwrap_or_default().to_owned()
    }

    /// A finite number; `None` where the field is empty.
    pub(crate) fn number(&self, row: usize, column: &str) -> Result<Option<f64>, FigureError> {
        let Some(text) = self.text(row, column) else { return Ok(None) };
        match text.parse::<f64>() {
            Ok(value) if value.is_finite() => Ok(Some(value)),
            _ => Err(self.bad(row, column, text, "number")),
        }
    }

    /// A finite number that every row has.
    pub(crate) fn required(&self, row: usize, column: &str) -> Result<f64, FigureError> {
        self.number(row, column)?.ok_or_else(|| self.bad(row, column, "", "number"))
    }

    /// A count, 0 where the field is empty.
    pub(crate) fn count(&self, row: usize, column: &str) -> Result<u64, FigureError> {
        let Some(text) = self.text(row, column) else { return Ok(0) };
        text.parse().map_err(|_| self.bad(row, column, text, "count"))
    }

    /// A truth value, false where the field is empty.
    pub(crate) fn flag(&self, row: usize, column: &str) -> Result<bool, FigureError> {
        let Some(text) = self.text(row, column) else { return Ok(false) };
        text.parse().map_err(|_| self.bad(row, column, text, "truth value"))
    }

    /// The one value that a column has in all rows in which it has any.
    pub(crate) fn only(&self, column: &str) -> Result<String, FigureError> {
        let mut values = self.rows().filter_map(|row| self.text(row, column));
        let first = values.next().unwrap_or_default();
        match values.find(|value| *value != first) {
            Some(second) => Err(FigureError::Mixed {
                path: self.path.clone(),
                column: column.to_owned(),
                first: first.to_owned(),
                second: second.to_owned(),
            }),
            None => Ok(first.to_owned()),
        }
    }

    fn bad(&self, row: usize, column: &str, text: &str, kind: &'static str) -> FigureError {
        FigureError::BadField {
            path: self.path.clone(),
            row: row + 1,
            column: column.to_owned(),
            text: text.to_owned(),
            kind,
        }
    }
}
