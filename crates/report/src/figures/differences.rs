//! Paired differences of top-1 with their intervals, as a forest plot: of methods to a reference method, and of variants to the first one.

use serde_json::{Value, json};

use super::FigureError;
use super::source::{Sheet, Tables};
use super::spec::{About, Figure, figure, method_scales};
use super::study::{PHASES, Study, VARIANT, index_of};
use super::style::{INK, REFERENCE};

const NEEDED: [&str; 10] =
    ["run", "keep_rate", "stage", "method", "against", "n", "top1_difference", "low", "high", "verdict"];
/// The variant of the reference, in studies with variants.
const AGAINST_VARIANT: &str = "against_variant";
/// At most so many keep rates, a column of panels each.
const COLUMNS: usize = 4;
/// Other variants than the first whose differences to it are drawn, a row of panels each. Of more of them a figure of its own is legible:
/// see `ablation`.
const OTHERS: usize = 3;
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

/// What the panels of a figure hold together.
#[derive(Default)]
struct Drawn {
    has_interval: bool,
    /// The most seeds of a difference.
    most: u64,
}

impl Drawn {
    /// The differences in these rows.
    fn values(
        &mut self,
        sheet: &Sheet,
        rows: impl Iterator<Item = usize>,
    ) -> Result<Vec<Value>, FigureError> {
        let mut values = Vec::new();
        for row in rows {
            let Some(difference) = sheet.number(row, "top1_difference")? else { continue };
            let (low, high) = (sheet.number(row, "low")?, sheet.number(row, "high")?);
            self.has_interval |= low.is_some();
            let n = sheet.count(row, "n")?;
            self.most = self.most.max(n);
            let verdict = sheet.label(row, "verdict");
            let is_shown = ["above", "below"].contains(&verdict.as_str());
            values.push(json!({
                "method": sheet.label(row, "method"), "difference": difference, "low": low, "high": high,
                "n": n, "verdict": verdict, "shown": is_shown,
            }));
        }
        Ok(values)
    }
}

/// The figure of a study, at the last phase that was compared.
pub(super) fn differences(study: &Study, sheet: &Sheet) -> Result<Result<Figure, String>, FigureError> {
    let first = study.first();
    let is_of = |row: usize, variant: &str, against: &str| {
        sheet.text(row, VARIANT).unwrap_or_default() == variant
            && sheet.text(row, AGAINST_VARIANT).unwrap_or_default() == against
    };
    let of_variant: Vec<usize> = sheet.rows().filter(|&row| is_of(row, first, first)).collect();
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
    let is_in_phase = |row: usize| sheet.text(row, "stage") == Some(phase.name());
    let rows: Vec<usize> = of_variant.into_iter().filter(|&row| is_in_phase(row)).collect();
    let mut references: Vec<String> = Vec::new();
    for &row in &rows {
        index_of(&mut references, sheet.label(row, "against"));
    }
    let mut methods = study.methods.clone();
    methods.retain(|method| study.is_measured(method, first, phase));
    let labels: Vec<&str> = methods.iter().map(|method| method.label.as_str()).collect();
    let rates = study.some_rates(first, COLUMNS);
    let (mut views, mut drawn) = (Vec::new(), Drawn::default());
    for against in &references {
        let others: Vec<&str> = labels.iter().copied().filter(|label| label != against).collect();
        for &rate in &rates {
            let at_rate = at_rate(sheet, &rows, rate)?;
            let those = at_rate.into_iter().filter(|&row| sheet.text(row, "against") == Some(against));
            let values = drawn.values(sheet, those)?;
            let less = json!(format!("less {against}, points"));
            views.push(panel(study, &others, &less, rate, &values, rate == rates[0]));
        }
    }
    let mut others: Vec<(&str, Vec<usize>)> = Vec::new();
    for variant in study.variants.iter().skip(1) {
        let of_other: Vec<usize> =
            sheet.rows().filter(|&row| is_of(row, variant, first) && is_in_phase(row)).collect();
        // Another draw of a sample is compared with none.
        if !of_other.is_empty() {
            others.push((variant, of_other));
        }
    }
    if others.len() > OTHERS {
        others.clear();
    }
    for (variant, of_other) in &others {
        for &rate in &rates {
            let values = drawn.values(sheet, at_rate(sheet, of_other, rate)?.into_iter())?;
            let less = json!([variant, format!("less {first},"), "points"]);
            views.push(panel(study, &labels, &less, rate, &values, rate == rates[0]));
        }
    }
    let interval = match (drawn.has_interval, drawn.most) {
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
        "{}, {}{}, {}, {word}, {}: {interval}. To the right of 0 the method is better than the reference. {}The panels' scales differ.{}",
        study.dataset,
        study.net,
        study.training(),
        study.first_variant(),
        study.n(),
        if others.is_empty() {
            String::new()
        } else {
            format!("Last: the same method in another variant less \u{201c}{first}\u{201d}. ")
        },
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

/// Those of the rows at a keep rate.
fn at_rate(sheet: &Sheet, rows: &[usize], rate: f64) -> Result<Vec<usize>, FigureError> {
    let mut found = Vec::new();
    for &row in rows {
        if sheet.required(row, "keep_rate")? == rate {
            found.push(row);
        }
    }
    Ok(found)
}

/// The differences at a keep rate, a method in each line; `less` is the axis's title.
fn panel(
    study: &Study,
    methods: &[&str],
    less: &Value,
    rate: f64,
    values: &[Value],
    is_first: bool,
) -> Value {
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
    let mut axis = json!({ "tickCount": 4 });
    if less.is_array() {
        axis["titleFontSize"] = json!(12);
    }
    let x = |field: &str| {
        json!({
            "field": field, "type": "quantitative", "title": less,
            "scale": { "domain": span, "nice": false, "zero": false },
            "axis": axis,
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

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::super::tests::{draw, find, folder};
    use crate::tables::sample::{study, with_variants};

    /// Title of the horizontal axis and the differences by method, of each panel.
    fn panels(spec: &Value) -> Vec<(String, Vec<(String, f64)>)> {
        let of_panel = |panel: &Value| {
            let title = panel["layer"][0]["encoding"]["x"]["title"].to_string();
            let values = panel["data"]["values"].as_array().unwrap().iter();
            let values =
                values.map(|v| (v["method"].as_str().unwrap().to_owned(), v["difference"].as_f64().unwrap()));
            (title, values.collect())
        };
        spec["concat"].as_array().unwrap().iter().map(of_panel).collect()
    }

    #[test]
    fn each_other_variant_is_a_row_of_panels_with_every_method() {
        let drawn = draw(&folder(&with_variants()));
        let figure = find(&drawn, "differences");
        let all = panels(&figure.spec);
        let of_variants: Vec<_> = all.iter().filter(|(title, _)| title.contains("at once")).collect();
        // A panel for each keep rate. In the sample `at once` is better by half a point in seed 0, and by an eighth of that more in
        // each further seed.
        assert_eq!(of_variants.len(), 2);
        for (title, values) in of_variants {
            assert_eq!(title, r#"["at once","less plain,","points"]"#);
            assert!(!values.is_empty());
            for (method, difference) in values {
                assert!((0.5..0.7).contains(difference), "{method}: {difference}");
            }
        }
        let plain = draw(&folder(&study()));
        let plain = panels(&find(&plain, "differences").spec);
        assert_eq!(all.len(), plain.len() + 2);
        let first: Vec<_> = all.iter().take(plain.len()).collect();
        assert_eq!(first, plain.iter().collect::<Vec<_>>());
        assert!(
            figure.caption.contains("Last: the same method in another variant less \u{201c}plain\u{201d}."),
            "{}",
            figure.caption
        );
    }

    #[test]
    fn more_variants_than_fit_are_left_to_the_heat_map() {
        let mut study = with_variants();
        let at_once: Vec<_> =
            study.cells.iter().filter(|c| c.variant.as_deref() == Some("at once")).cloned().collect();
        for name in ["third", "fourth", "fifth"] {
            let mut variant = study.variants[1].clone();
            variant.name = name.to_owned();
            study.variants.push(variant);
            study.cells.extend(at_once.iter().cloned().map(|mut cell| {
                (cell.id, cell.variant) = (format!("{}-{name}", cell.id), Some(name.to_owned()));
                cell
            }));
        }
        let drawn = draw(&folder(&study));
        let figure = find(&drawn, "differences");
        assert!(panels(&figure.spec).iter().all(|(title, _)| !title.contains("less plain")));
        assert!(!figure.caption.contains("another variant"), "{}", figure.caption);
    }
}
