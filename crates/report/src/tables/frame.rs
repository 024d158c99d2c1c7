//! Typed columns from rows, and rows of JSON from typed columns.

use std::io::Cursor;

use polars::frame::DataFrame;
use polars::prelude::{
    AnyValue, Column, CsvReadOptions, CsvWriter, IntoColumn, NamedFrom, ParquetWriter, PolarsResult,
    SerReader, SerWriter, Series,
};
use serde_json::{Map, Value};

use super::TableError;

/// A column with one value per row.
pub(super) fn column<R, T, P: ?Sized>(name: &str, rows: &[R], value: impl Fn(&R) -> T) -> Column
where
    Series: NamedFrom<Vec<T>, P>,
{
    let values: Vec<T> = rows.iter().map(value).collect();
    Series::new(name.into(), values).into_column()
}

/// Parses a CSV file with every field as text.
pub(super) fn text_frame(csv: Vec<u8>) -> PolarsResult<DataFrame> {
    let as_text = CsvReadOptions::default().with_infer_schema_length(Some(0));
    as_text.into_reader_with_file_handle(Cursor::new(csv)).finish()
}

/// Formats a frame as CSV.
pub(super) fn csv_bytes(frame: &mut DataFrame) -> Result<Vec<u8>, TableError> {
    let mut bytes = Vec::new();
    CsvWriter::new(&mut bytes).finish(frame)?;
    Ok(bytes)
}

/// Formats a frame as a Parquet file; the same frame gives the same bytes.
///
/// # Errors
/// If Polars cannot write it.
pub fn parquet_bytes(frame: &DataFrame) -> Result<Vec<u8>, TableError> {
    let mut bytes = Vec::new();
    ParquetWriter::new(&mut bytes).finish(&mut frame.clone())?;
    Ok(bytes)
}

/// Rows as JSON objects; empty values are null, and so are NaN and infinities, which JSON does not have.
pub(super) fn json_rows(frame: &DataFrame) -> Result<Vec<Map<String, Value>>, TableError> {
    let mut rows = vec![Map::new(); frame.height()];
    for column in frame.columns() {
        for (at, row) in rows.iter_mut().enumerate() {
            row.insert(column.name().to_string(), json(column.get(at)?)?);
        }
    }
    Ok(rows)
}

fn json(value: AnyValue) -> Result<Value, TableError> {
    match value {
        AnyValue::Null => Ok(Value::Null),
        AnyValue::Boolean(value) => Ok(value.into()),
        AnyValue::UInt64(value) => Ok(value.into()),
        AnyValue::Float64(value) => Ok(value.into()),
        AnyValue::String(value) => Ok(value.into()),
        other => Err(TableError::NotJson(other.dtype().to_string())),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// The values of a column of numbers.
    pub(in crate::tables) fn floats(frame: &DataFrame, name: &str) -> Vec<Option<f64>> {
        frame.column(name).unwrap().f64().unwrap().iter().collect()
    }

    /// The values of a column of texts, none of them empty.
    pub(in crate::tables) fn texts(frame: &DataFrame, name: &str) -> Vec<String> {
        frame.column(name).unwrap().str().unwrap().iter().map(|t| t.unwrap().to_owned()).collect()
    }

    #[test]
    fn rows_keep_types_and_nulls() {
        let rows = [(Some(1_u64), 0.5, "a", Some(true)), (None, f64::NAN, "b", None)];
        let columns = vec![
            column("count", &rows, |r| r.0),
            column("value", &rows, |r| r.1),
            column("name", &rows, |r| r.2),
            column("equal", &rows, |r| r.3),
        ];
        let rows = json_rows(&DataFrame::new(2, columns).unwrap()).unwrap();
        let expected = serde_json::json!([
            { "count": 1, "value": 0.5, "name": "a", "equal": true },
            { "count": null, "value": null, "name": "b", "equal": null },
        ]);
        assert_eq!(serde_json::to_value(&rows).unwrap(), expected);
    }

    #[test]
    fn an_unsupported_type_is_an_error_that_names_it() {
        let frame = DataFrame::new(1, vec![column("x", &[1_i32], |&x| x)]).unwrap();
        assert!(json_rows(&frame).unwrap_err().to_string().contains("i32"));
    }
}
