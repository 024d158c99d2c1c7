//! Typed columns from rows, in the rows' order.

use polars::prelude::{Column, IntoColumn, NamedFrom, Series};

/// A column with one value per row.
pub(super) fn column<R, T, P: ?Sized>(name: &str, rows: &[R], value: impl Fn(&R) -> T) -> Column
where
    Series: NamedFrom<Vec<T>, P>,
{
    let values: Vec<T> = rows.iter().map(value).collect();
    Series::new(name.into(), values).into_column()
}
