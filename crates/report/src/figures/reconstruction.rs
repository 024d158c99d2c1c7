//! Reconstruction error of each pruned layer, without and with the refitted scale w.

use serde_json::{Value, json};

use super::FigureError;
use super::source::{Sheet, Tables};
use super::spec::{About, Figure, MethodScales, Sample, figure, legend, method_scales};
use super::study::{Study, VARIANT, index_of};
use super::style::{INK, layer_angle};
use crate::records::Mode;
use crate::tables::LAYERS;

const NEEDED: [&str; 8] = ["run", "method", "reconstruction", "keep_rate", "seed", "layer", BEFORE, AFTER];
const BEFORE: &str = "after_cut_reconstruction_error";
const AFTER: &str = "after_reconstruction_reconstruction_error";
/// At most so many keep rates, a panel each.
const PANELS: usize = 3;

/// The per-layer rows of a study; `None` if there is no such table.
pub(super) fn layer_rows(tables: &mut Tables, study: &Study) -> Result<Option<Sheet>, FigureError> {
    let Some(sheet) = tables.sheet(&format!("{}{LAYERS}", study.table), &NEEDED)? else { return Ok(None) };
    study.check_run(&sheet)?;
    Ok(Some(sheet))
}

/// Errors of a method in a layer at a keep rate, of all seeds.
struct Errors {
    method: String,
    layer: String,
    keep_rate: f64,
    is_refitted: bool,
    before: Vec<f64>,
    after: Vec<f64>,
}

fn errors(study: &Study, sheet: &Sheet) -> Result<Vec<Errors>, FigureError> {
    let mut all: Vec<Errors> = Vec::new();
    let first = study.first();
    for row in sheet.rows().filter(|&row| sheet.text(row, VARIANT).unwrap_or_default() == first) {
        let (method, layer) = (sheet.label(row, "method"), sheet.label(row, "layer"));
        let keep_rate = sheet.required(row, "keep_rate")?;
        let is_it = |known: &&mut Errors| {
            (&known.method, &known.layer, known.keep_rate) == (&method, &layer, keep_rate)
        };
        let (before, after) = (sheet.number(row, BEFORE)?, sheet.number(row, AFTER)?);
        match all.iter_mut().find(is_it) {
            Some(known) => {
                known.before.extend(before);
                known.after.extend(after);
            }
            None => all.push(Errors {
                method,
                layer,
                keep_rate,
                is_refitted: sheet.text(row, "reconstruction").is_some_and(|name| name != "none"),
                before: before.into_iter().collect(),
                after: after.into_iter().collect(),
            }),
        }
    }
    Ok(all)
}

/// The figure of a study.
pub(super) fn reconstruction(study: &Study, sheet: &Sheet) -> Result<Result<Figure, String>, FigureError> {
    let all = errors(study, sheet)?;
    let mut layers: Vec<String> = Vec::new();
    for errors in &all {
        index_of(&mut layers, errors.layer.clone());
    }
    let width = (layers.len() as f64 * (9.0 * study.methods.len() as f64 + 12.0)).clamp(420.0, 900.0);
    let scales = method_scales(&study.methods);
    let mean = |values: &[f64]| thinet_metrics::mean(values);
    let rates = study.some_rates(study.first(), PANELS);
    let shown = all.iter().filter(|errors| rates.contains(&errors.keep_rate));
    let most = shown.flat_map(|e| e.before.iter().chain(&e.after)).copied().fold(0.0, f64::max);
    let span = [0.0, (most * 10.0).ceil().max(1.0) / 10.0];
    let mut views = Vec::new();
    for rate in rates {
        let mut rows = Vec::new();
        for errors in all.iter().filter(|errors| errors.keep_rate == rate) {
            let Some(before) = mean(&errors.before) else { continue };
            let after = mean(&errors.after).filter(|_| errors.is_refitted);
            let (method, layer, n) = (&errors.method, &errors.layer, errors.before.len());
            let (shown, open) = (after.unwrap_or(before), after.map(|_| before));
            rows.push(json!({ "method": method, "layer": layer, "shown": shown, "without": open, "n": n }));
        }
        if !rows.is_empty() {
            views.push(panel(study, rate, &rows, &layers, span, &scales, width));
        }
    }
    if views.is_empty() {
        return Ok(Err(format!("{}{LAYERS} holds no reconstruction errors", study.table)));
    }
    views.push(legend(&study.methods, width, Sample::Mark));
    let net = if study.mode_of(study.first()) == Mode::OneShot.name() {
        "of the dense net"
    } else {
        "at the layer's turn, earlier layers cut, refitted and tuned"
    };
    let caption = format!(
        "{}, {}{}, {}, {}: ‖y − X·w‖ / ‖y‖ of the next layer's sampled inputs {net}; mean over seeds. Filled: as the method leaves the \
         layer. Open, joined by a line: the same channels with w = 1, before the refit of w.{}",
        study.dataset,
        study.net,
        study.training(),
        study.first_variant(),
        study.n(),
        study.rates_not_drawn(study.first(), PANELS),
    );
    let about = About {
        name: format!("{}-reconstruction", study.table),
        title: format!("Reconstruction error per layer on {}", study.dataset),
        caption,
        tables: vec![format!("{}{LAYERS}", study.table)],
        width: width + 70.0,
    };
    let body = json!({
        "vconcat": views,
        "resolve": { "scale": { "color": "independent", "shape": "independent", "strokeDash": "independent" } },
    });
    Ok(Ok(figure(about, body)))
}

fn panel(
    study: &Study,
    rate: f64,
    rows: &[Value],
    layers: &[String],
    span: [f64; 2],
    scales: &MethodScales,
    width: f64,
) -> Value {
    let labels: Vec<&str> = study.methods.iter().map(|method| method.label.as_str()).collect();
    let offset = json!({ "field": "method", "type": "nominal", "scale": { "domain": labels } });
    let y = |field: &str| {
        json!({
            "field": field, "type": "quantitative", "title": "relative error", "scale": { "domain": span, "nice": false },
            "axis": { "tickCount": 5 },
        })
    };
    let tooltip = json!([
        { "field": "method" }, { "field": "layer" }, { "field": "shown", "title": "error", "format": ".3f" },
        { "field": "without", "title": "with w = 1", "format": ".3f" }, { "field": "n" },
    ]);
    json!({
        "title": {
            "text": format!("keep rate {rate}"), "fontSize": 14, "anchor": "start", "frame": "group", "color": INK, "offset": 6,
        },
        "width": width, "height": 150, "data": { "values": rows },
        "encoding": {
            "x": {
                "field": "layer", "type": "nominal", "scale": { "domain": layers, "paddingInner": 0.28, "paddingOuter": 0.14 },
                "axis": { "title": null, "labelAngle": layer_angle(layers, width / layers.len() as f64), "ticks": false },
            },
            "xOffset": offset,
            "color": scales.colour,
        },
        "layer": [
            { "transform": [{ "filter": "isValid(datum.without)" }], "mark": { "type": "rule", "strokeWidth": 1.5 },
              "encoding": { "y": y("shown"), "y2": { "field": "without" } } },
            { "transform": [{ "filter": "isValid(datum.without)" }],
              "mark": { "type": "point", "filled": true, "fill": "white", "size": 38, "strokeWidth": 1.5, "opacity": 1 },
              "encoding": { "y": y("without"), "shape": scales.shape, "stroke": scales.colour } },
            { "mark": { "type": "point", "filled": true, "size": 48, "opacity": 1 },
              "encoding": { "y": y("shown"), "shape": scales.shape, "tooltip": tooltip } },
        ],
    })
}
