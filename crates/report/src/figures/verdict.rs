//! A method's paired differences to each of the others, before and after tuning, as a forest plot of the table of its verdict.

use serde_json::{Value, json};

use super::FigureError;
use super::source::Tables;
use super::spec::{About, Figure, figure};
use super::study::{PHASES, VARIANT, index_of};
use super::style::{INK, REFERENCE};
use crate::tables::VERDICT;

const NEEDED: [&str; 9] =
    ["keep_rate", "stage", "method", "against", "n", "top1_difference", "low", "high", "verdict"];
/// Colour of the method's differences.
const COLOUR: &str = "#0072B2";
/// Height of a row, pixels.
const ROW: f64 = 24.0;
/// At most so many keep rates, a column of panels each.
const COLUMNS: usize = 4;

/// The figure of a table's verdict; `None` if it has no such table, or nothing is compared.
pub(super) fn verdict(tables: &mut Tables, table: &str) -> Result<Option<Figure>, FigureError> {
    let name = format!("{table}{VERDICT}");
    let Some(sheet) = tables.sheet(&name, &NEEDED)? else { return Ok(None) };
    let first = sheet.rows().next().and_then(|row| sheet.text(row, VARIANT)).map(str::to_owned);
    let rows: Vec<usize> = sheet.rows().filter(|&row| sheet.text(row, VARIANT) == first.as_deref()).collect();
    let (mut rates, mut others) = (Vec::new(), Vec::new());
    for &row in &rows {
        index_of(&mut rates, sheet.label(row, "keep_rate"));
        index_of(&mut others, sheet.label(row, "against"));
    }
    let left_out = rates.len().saturating_sub(COLUMNS);
    rates.truncate(COLUMNS);
    let mut views = Vec::new();
    for phase in PHASES {
        let of_phase: Vec<usize> =
            rows.iter().copied().filter(|&row| sheet.text(row, "stage") == Some(phase.name())).collect();
        if of_phase.is_empty() {
            continue;
        }
        for rate in &rates {
            let mut values = Vec::new();
            for &row in of_phase.iter().filter(|&&row| sheet.label(row, "keep_rate") == *rate) {
                let Some(difference) = sheet.number(row, "top1_difference")? else { continue };
                let verdict = sheet.label(row, "verdict");
                let is_shown = ["above", "below"].contains(&verdict.as_str());
                values.push(json!({
                    "against": sheet.label(row, "against"), "difference": difference, "low": sheet.number(row, "low")?,
                    "high": sheet.number(row, "high")?, "n": sheet.count(row, "n")?, "verdict": verdict,
                    "shown": is_shown,
                }));
            }
            let word = match phase {
                crate::records::Phase::AfterFineTune => "after tuning",
                crate::records::Phase::AfterBatchNormEstimate => "batch norm estimated",
                _ => "before tuning",
            };
            views.push(panel(&format!("{word}, keep rate {rate}"), &others, &values, *rate == rates[0]));
        }
    }
    let Some(&row) = rows.first().filter(|_| !views.is_empty()) else { return Ok(None) };
    let method = sheet.label(row, "method");
    let more =
        if left_out == 0 { String::new() } else { format!(" {left_out} more keep rates are in the table.") };
    let variant = first.map(|variant| format!("Variant {variant}. ")).unwrap_or_default();
    let caption = format!(
        "{variant}Mean paired difference of top-1 over seeds between {method} and each other method at the same widths, with its 95 % \
         t-interval (one comparison each, not corrected). Filled: shown after Holm's correction, p < 0.05; open: no difference shown. \
         To the right of 0 {method} is better. The panels' scales differ.{more}"
    );
    let about = About {
        title: format!("{method} against the other methods"),
        caption,
        tables: vec![name.clone()],
        name,
        width: (rates.len() as f64 * 186.0 + 130.0).max(420.0),
    };
    Ok(Some(figure(about, json!({ "concat": views, "columns": rates.len() }))))
}

fn panel(title: &str, others: &[String], values: &[Value], is_first: bool) -> Value {
    let numbers =
        values.iter().flat_map(|row| ["difference", "low", "high"].map(|key| row[key].as_f64())).flatten();
    let (low, high) = numbers.fold((0.0_f64, 0.0_f64), |(low, high), v| (low.min(v), high.max(v)));
    // Where all are alike, a point to either side.
    let room = if high > low { 0.08 * (high - low) } else { 1.0 };
    let labels = match is_first {
        true => json!({ "title": null, "ticks": false, "domain": false, "grid": false, "labelLimit": 200 }),
        false => Value::Null,
    };
    let x = |field: &str| {
        json!({
            "field": field, "type": "quantitative", "title": "difference, points",
            "scale": { "domain": [low - room, high + room], "nice": false, "zero": false }, "axis": { "tickCount": 4 },
        })
    };
    let tooltip = json!([
        { "field": "against" }, { "field": "difference", "format": "+.2f" }, { "field": "low", "format": "+.2f" },
        { "field": "high", "format": "+.2f" }, { "field": "n" }, { "field": "verdict" },
    ]);
    json!({
        "title": { "text": title, "fontSize": 14, "anchor": "start", "frame": "group", "color": INK, "offset": 6 },
        "width": 160, "height": ROW * others.len() as f64, "data": { "values": values },
        "encoding": { "y": { "field": "against", "type": "nominal", "scale": { "domain": others }, "axis": labels } },
        "layer": [
            { "data": { "values": [{ "zero": 0 }] }, "mark": { "type": "rule", "color": REFERENCE, "strokeWidth": 1 },
              "encoding": { "x": x("zero"), "y": null } },
            { "transform": [{ "filter": "isValid(datum.low)" }], "mark": { "type": "rule", "strokeWidth": 2, "color": COLOUR },
              "encoding": { "x": x("low"), "x2": { "field": "high" } } },
            { "transform": [{ "filter": "!datum.shown" }],
              "mark": { "type": "point", "filled": true, "fill": "white", "stroke": COLOUR, "size": 75, "strokeWidth": 1.8, "opacity": 1 },
              "encoding": { "x": x("difference"), "tooltip": tooltip } },
            { "transform": [{ "filter": "datum.shown" }],
              "mark": { "type": "point", "filled": true, "color": COLOUR, "size": 90, "opacity": 1 },
              "encoding": { "x": x("difference"), "tooltip": tooltip } },
        ],
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tables::{sample, verdict as verdict_table, write};

    #[test]
    fn the_figure_shows_the_rows_of_its_table() {
        let folder = tempfile::tempdir().unwrap();
        let table = verdict_table(&sample::study(), "thinet").unwrap();
        write(folder.path(), &table, "run").unwrap();
        let mut tables = Tables::of(folder.path());
        assert_eq!(verdict(&mut tables, "other").unwrap(), None);
        let figure = verdict(&mut tables, "selectors-invented").unwrap().unwrap();
        assert_eq!(figure.name, "selectors-invented-verdict");
        let views = figure.spec["concat"].as_array().unwrap();
        let shown: usize = views.iter().map(|view| view["data"]["values"].as_array().unwrap().len()).sum();
        let rows = table.rows().unwrap();
        assert_eq!(shown, rows.iter().filter(|row| !row["top1_difference"].is_null()).count());
        assert!(shown > 3, "{shown}");
        assert!(figure.caption.contains("between thinet and each other method"), "{}", figure.caption);
    }
}
