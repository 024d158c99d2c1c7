//! Paired differences of top-1 to a reference method with their intervals, as a forest plot.

use serde_json::{Value, json};

use super::FigureError;
use super::source::{Sheet, Tables};
use super::spec::{About, Figure, figure, method_scales};
use super::study::{Method, PHASES, Study, VARIANT, index_of};
use super::style::{INK, REFERENCE};

const NEEDED: [&str; 10] =
    ["run", "keep_rate", "stage", "method", "against", "n", "top1_difference", "low", "high", "verdict"];
/// The variant of the reference, in studies with variants.
const AGAINST_VARIANT: &str = "against_variant";
/// At most so many keep rates, a column of panels each.
const COLUMNS: usize = 4;
/// Height of a method's row, pixels.
const ROW: f64 = 24.0;

/// The differences of a study; `None` if there is no such table.
pub(super) fn difference_rows(tables: &mut Tables, study: &Study) -> Result<Option<Sheet>, FigureError> {
    let Some(sheet) = tables.sheet(&format!("{}-differences", study.table), &NEEDED)? else {
        return Ok(None);
    };
    study.check_run(&sheet)?;
    Ok(Some(sheet))
}

/// The figure of a study, at the last phase that was compared.
pub(super) fn differences(study: &Study, sheet: &Sheet) -> Result<Result<Figure, String>, FigureError> {
    let first = study.first();
    let is_first = |row: usize, column: &str| sheet.text(row, column).unwrap_or_default() == first;
    let of_variant: Vec<usize> =
        sheet.rows().filter(|&row| is_first(row, VARIANT) && is_first(row, AGAINST_VARIANT)).collect();
    // A phase in which nothing but the control was measured has rows without a difference.
    let mut compared: Vec<String> = Vec::new();
    for &row in &of_variant {
        if sheet.count(row, "n")? > 0 {
            index_of(&mut compared, sheet.label(row, "stage"));
        }
    }
    let Some(phase) = PHASES.into_iter().rfind(|phase| compared.iter().any(|name| name == phase.name()))
    else {
        return Ok(Err(format!("{}-differences holds no comparison", study.table)));
    };
    let rows: Vec<usize> =
        of_variant.into_iter().filter(|&row| sheet.text(row, "stage") == Some(phase.name())).collect();
    let mut references: Vec<String> = Vec::new();
    for &row in &rows {
        index_of(&mut references, sheet.label(row, "against"));
    }
    let mut methods = study.methods.clone();
    methods.retain(|method| study.is_measured(method, first, phase));
    let rates = study.some_rates(first, COLUMNS);
    let (mut views, mut has_interval, mut most) = (Vec::new(), false, 0);
    for against in &references {
        for &rate in &rates {
            let mut values = Vec::new();
            for &row in &rows {
                if sheet.text(row, "against") != Some(against) || sheet.required(row, "keep_rate")? != rate {
                    continue;
                }
                let Some(difference) = sheet.number(row, "top1_difference")? else { continue };
                let (low, high) = (sheet.number(row, "low")?, sheet.number(row, "high")?);
                has_interval |= low.is_some();
                let n = sheet.count(row, "n")?;
                most = most.max(n);
                let verdict = sheet.label(row, "verdict");
                let is_shown = ["above", "below"].contains(&verdict.as_str());
                values.push(json!({
                    "method": sheet.label(row, "method"), "difference": difference, "low": low, "high": high,
                    "n": n, "verdict": verdict, "shown": is_shown,
                }));
            }
            views.push(panel(study, &methods, against, rate, &values, rate == rates[0]));
        }
    }
    let interval = match (has_interval, most) {
        (true, _) => {
            "mean paired difference of top-1 over seeds with its 95 % t-interval (one comparison each, not corrected). Filled: shown \
             after Holm's correction, p < 0.05; open: no difference shown"
        }
        (false, 2..) => {
            "mean paired difference of top-1 over seeds; no intervals, as each is the same in all seeds, so nothing is shown to differ \
             (open marks)"
        }
        (false, _) => {
            "paired difference of top-1; no intervals, which need two seeds, so nothing is shown to differ (open marks)"
        }
    };
    let word = match phase {
        crate::records::Phase::AfterFineTune => "after tuning",
        crate::records::Phase::AfterBatchNormEstimate => {
            "with batch-norm statistics estimated again, not tuned"
        }
        _ => "after the reconstruction, not tuned",
    };
    let caption = format!(
        "{}, {}, {}, {word}, {}: {interval}. To the right of 0 the method is better than the reference. The panels' scales differ.{}",
        study.dataset,
        study.net,
        study.first_variant(),
        study.n(),
        study.rates_not_drawn(first, COLUMNS),
    );
    let about = About {
        name: format!("{}-differences", study.table),
        title: format!("Differences between methods on {}", study.dataset),
        caption,
        tables: vec![format!("{}-differences", study.table)],
        width: rates.len() as f64 * 186.0 + 130.0,
    };
    let body = json!({
        "concat": views, "columns": rates.len(),
        "resolve": { "scale": { "color": "independent", "shape": "independent" } },
    });
    Ok(Ok(figure(about, body)))
}

fn panel(
    study: &Study,
    methods: &[Method],
    against: &str,
    rate: f64,
    values: &[Value],
    is_first: bool,
) -> Value {
    let methods: Vec<&str> =
        methods.iter().map(|method| method.label.as_str()).filter(|label| *label != against).collect();
    let scales = method_scales(&study.methods);
    let numbers =
        values.iter().flat_map(|row| ["difference", "low", "high"].map(|key| row[key].as_f64())).flatten();
    let (low, high) = numbers.fold((0.0_f64, 0.0_f64), |(low, high), v| (low.min(v), high.max(v)));
    // Where all are alike, a point to either side.
    let room = if high > low { 0.08 * (high - low) } else { 1.0 };
    let span = [low - room, high + room];
    let labels = match is_first {
        true => json!({ "title": null, "ticks": false, "domain": false, "grid": false, "labelLimit": 200 }),
        false => Value::Null,
    };
    let x = |field: &str| {
        json!({
            "field": field, "type": "quantitative", "title": format!("less {against}, points"),
            "scale": { "domain": span, "nice": false, "zero": false }, "axis": { "tickCount": 4 },
        })
    };
    json!({
        "title": {
            "text": format!("keep rate {rate}"), "fontSize": 14, "anchor": "start", "frame": "group", "color": INK, "offset": 6,
        },
        "width": 160, "height": ROW * methods.len() as f64, "data": { "values": values },
        "encoding": { "y": { "field": "method", "type": "nominal", "scale": { "domain": methods }, "axis": labels } },
        "layer": [
            { "data": { "values": [{ "zero": 0 }] }, "mark": { "type": "rule", "color": REFERENCE, "strokeWidth": 1 },
              "encoding": { "x": x("zero"), "y": null } },
            { "transform": [{ "filter": "isValid(datum.low)" }], "mark": { "type": "rule", "strokeWidth": 2 },
              "encoding": { "x": x("low"), "x2": { "field": "high" }, "color": scales.colour } },
            { "transform": [{ "filter": "!datum.shown" }],
              "mark": { "type": "point", "filled": true, "fill": "white", "size": 75, "strokeWidth": 1.8, "opacity": 1 },
              "encoding": { "x": x("difference"), "stroke": scales.colour, "shape": scales.shape, "tooltip": tooltip() } },
            { "transform": [{ "filter": "datum.shown" }], "mark": { "type": "point", "filled": true, "size": 90, "opacity": 1 },
              "encoding": { "x": x("difference"), "color": scales.colour, "shape": scales.shape, "tooltip": tooltip() } },
        ],
    })
}

fn tooltip() -> Value {
    json!([
        { "field": "method" }, { "field": "difference", "format": "+.2f" }, { "field": "low", "format": "+.2f" },
        { "field": "high", "format": "+.2f" }, { "field": "n" }, { "field": "verdict" },
    ])
}
