//! A table read back from its CSV file, every field as text.

use polars::frame::DataFrame;

use super::TableError;
use super::frame::text_frame;

/// Column that names the cell of a row.
const CELL: &str = "cell";
/// Column that names the run.
const RUN: &str = "run";

/// A table as text.
pub struct StoredTable(DataFrame);

impl StoredTable {
    /// A `selectors` table.
    ///
    /// # Errors
    /// If the text is no CSV, or its rows are no cells.
    pub fn parse(csv: Vec<u8>) -> Result<Self, TableError> {
        Self::with_columns(csv, &[RUN, CELL])
    }

    /// A table that has these columns among others.
    ///
    /// # Errors
    /// If the text is no CSV, or a column is missing.
    pub(crate) fn with_columns(csv: Vec<u8>, needed: &[&str]) -> Result<Self, TableError> {
        let frame = text_frame(csv)?;
        for needed in needed {
            frame.column(needed)?.str()?;
        }
        Ok(Self(frame))
    }

    /// Number of rows.
    pub(crate) fn height(&self) -> usize {
        self.0.height()
    }

    /// The run that wrote it; `None` without rows.
    pub fn run(&self) -> Option<&str> {
        self.text(RUN, 0)
    }

    /// Names of the columns in their order.
    pub fn columns(&self) -> Vec<&str> {
        self.0.get_column_names().into_iter().map(|name| name.as_str()).collect()
    }

    /// The row of a cell.
    pub fn row(&self, cell: &str) -> Option<usize> {
        (0..self.0.height()).find(|&row| self.text(CELL, row) == Some(cell))
    }

    /// A field; `None` if there is no such column or row, empty if it has no value.
    pub fn text(&self, column: &str, row: usize) -> Option<&str> {
        let column = self.0.column(column).ok()?.str().ok()?;
        (row < column.len()).then(|| column.get(row).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tables::csv_text;
    use crate::tables::sample::study;
    use crate::tables::selectors;

    #[test]
    fn a_written_table_is_read_back() {
        let frame = selectors(&study()).unwrap().remove(0).frame;
        let text = csv_text(&frame, "aa").unwrap();
        let stored = StoredTable::parse(text.clone().into_bytes()).unwrap();
        assert_eq!(stored.run(), Some("aa"));
        assert_eq!(stored.columns().join(","), text.lines().next().unwrap());
        for (row, line) in text.lines().skip(1).enumerate() {
            let cell = line.rsplit(',').next().unwrap();
            assert_eq!(stored.row(cell), Some(row));
            let label = stored.text("method", row).unwrap();
            assert!(line.contains(label), "{label}");
            let values = line.rsplit(',').take(5).collect::<Vec<_>>();
            let columns = stored.columns();
            for (value, column) in values.iter().zip(columns.iter().rev()) {
                assert_eq!(stored.text(column, row), Some(*value), "{column}");
            }
        }
        assert_eq!((stored.row("cell-other"), stored.text("other", 0)), (None, None));
        assert_eq!((stored.text("method", frame.height()), stored.height()), (None, frame.height()));
    }

    #[test]
    fn other_texts_are_no_table_of_cells() {
        for text in ["", "a,b\n1,2\n", "run,method\naa,random\n"] {
            assert!(StoredTable::parse(text.into()).is_err(), "{text}");
        }
    }
}
