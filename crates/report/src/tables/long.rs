//! The long form of a study: one row per measured value.

use std::cmp::Ordering;

use polars::frame::DataFrame;

use super::TableError;
use super::frame::column;
use super::lines::variant_column;
use crate::records::{Row, StudyRecord};

/// One value of the long form.
struct LongRow<'a> {
    variant: Option<&'a str>,
    seed: u64,
    id: &'a str,
    method: &'a str,
    keep_rate: Option<f64>,
    row: &'a Row,
}

/// Every recorded value in long form: run, variant (if there are any), seed, cell, method, keep_rate, layer, phase, metric, value.
///
/// The dense nets' rows have the method `dense`, no variant and no keep rate; values of the whole net have an empty layer. Sorted
/// by seed, method, keep rate, cell, layer, phase and metric.
///
/// # Errors
/// If Polars cannot build the columns.
pub fn rows_frame(study: &StudyRecord) -> Result<DataFrame, TableError> {
    let mut rows: Vec<LongRow> = Vec::new();
    for dense in &study.dense {
        let (seed, id) = (dense.seed, dense.id.as_str());
        let long = |row| LongRow { variant: None, seed, id, method: "dense", keep_rate: None, row };
        rows.extend(dense.rows.iter().map(long));
    }
    for cell in &study.cells {
        let (seed, id, method, keep_rate) =
            (cell.seed, cell.id.as_str(), cell.method.as_str(), Some(cell.keep_rate));
        let variant = cell.variant.as_deref();
        rows.extend(cell.rows.iter().map(|row| LongRow { variant, seed, id, method, keep_rate, row }));
    }
    rows.sort_by(compare);
    let mut columns = vec![column("run", &rows, |_| study.run.as_str())];
    columns.extend(variant_column(study, &rows, |r| r.variant.map(str::to_owned)));
    columns.extend([
        column("seed", &rows, |r| r.seed),
        column("cell", &rows, |r| r.id),
        column("method", &rows, |r| r.method),
        column("keep_rate", &rows, |r| r.keep_rate),
        column("layer", &rows, |r| r.row.layer.as_str()),
        column("stage", &rows, |r| r.row.phase.name()),
        column("metric", &rows, |r| r.row.metric.name()),
        column("value", &rows, |r| r.row.value),
    ]);
    Ok(DataFrame::new(rows.len(), columns)?)
}

/// A total order of rows.
fn compare(a: &LongRow, b: &LongRow) -> Ordering {
    let rate = |row: &LongRow| row.keep_rate.unwrap_or(f64::INFINITY);
    let place = |row: &LongRow| (row.row.phase, row.row.metric);
    (a.seed.cmp(&b.seed))
        .then_with(|| a.method.cmp(b.method))
        .then_with(|| rate(a).total_cmp(&rate(b)))
        .then_with(|| a.id.cmp(b.id))
        .then_with(|| a.variant.cmp(&b.variant))
        .then_with(|| a.row.layer.cmp(&b.row.layer))
        .then_with(|| place(a).cmp(&place(b)))
        .then_with(|| a.row.value.total_cmp(&b.row.value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tables::frame::tests::{floats, texts};
    use crate::tables::sample::{study, with_variants};

    #[test]
    fn rows_of_variants_name_them() {
        let of_variants = with_variants();
        let frame = rows_frame(&of_variants).unwrap();
        let variants = frame.column("variant").unwrap().str().unwrap();
        let rows = |name: &str| variants.iter().filter(|variant| *variant == Some(name)).count();
        let dense: usize = of_variants.dense.iter().map(|dense| dense.rows.len()).sum();
        assert_eq!((rows("plain"), variants.null_count()), (rows("at once"), dense));
        assert_eq!(2 * rows("plain") + dense, frame.height());
        assert!(rows_frame(&study()).unwrap().column("variant").is_err());
    }

    #[test]
    fn the_long_form_holds_every_row_in_one_order() {
        let (first, mut turned) = (study(), study());
        turned.cells.reverse();
        for cell in &mut turned.cells {
            cell.rows.reverse();
        }
        let (a, b) = (rows_frame(&first).unwrap(), rows_frame(&turned).unwrap());
        assert!(a.equals_missing(&b));
        let rows = first.dense.iter().map(|d| d.rows.len()).chain(first.cells.iter().map(|c| c.rows.len()));
        assert_eq!(a.height(), rows.sum::<usize>());
        assert_eq!(a.get_column_names()[0].as_str(), "run");
        assert!(texts(&a, "layer").contains(&"conv2".to_owned()));
        let dense_rates = floats(&a, "keep_rate");
        for (method, rate) in texts(&a, "method").iter().zip(dense_rates) {
            assert_eq!(method == "dense", rate.is_none());
        }
    }
}
