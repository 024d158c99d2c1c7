//! The chart that a study is explored with: every measured value of its cells by phase and measure, means and single seeds, and the
//! specification that shows a choice of them.

use serde_json::{Map, Value, json};

use super::FigureError;
use crate::figures::source::Sheet;
use crate::figures::spec::method_scales;
use crate::figures::study::{Method, PHASES, Study, VARIANT, index_of};
use crate::figures::style::REFERENCE;
use crate::records::Phase;

/// Measures of a cell: column ending, and title with its unit.
const MEASURES: [(&str, &str); 3] =
    [("top1", "top-1, %"), ("top5", "top-5, %"), ("loss", "cross-entropy loss, nats")];

/// The cells of a method at a keep rate.
struct Group {
    method: String,
    variant: String,
    keep_rate: f64,
    rows: Vec<usize>,
}

/// The words for a phase.
pub(super) fn phase_words(phase: Phase) -> &'static str {
    match phase {
        Phase::Dense => "dense",
        Phase::AfterCut => "after the cut",
        Phase::AfterReconstruction => "after the refit",
        Phase::AfterBatchNormEstimate => "batch norm estimated again",
        Phase::AfterFineTune => "after tuning",
    }
}

fn column_of(phase: Phase, measure: &str) -> String {
    format!("{}_{measure}", phase.name().replace('-', "_"))
}

/// Mean, sample deviation (null for one seed) and n.
fn stat(values: &[f64]) -> Value {
    match thinet_metrics::mean(values) {
        Some(mean) => json!([mean, thinet_metrics::sample_std(values), values.len()]),
        None => Value::Null,
    }
}

/// The chart's data and specification; `None` where the study has nothing to compare.
pub(super) fn explorer(study: &Study, cells: &Sheet) -> Result<Option<Value>, FigureError> {
    if study.keep_rates.len() < 2 && study.variants.len() < 2 {
        return Ok(None);
    }
    let mut groups: Vec<Group> = Vec::new();
    for row in cells.rows().filter(|&row| cells.text(row, "selector").is_some()) {
        let (method, variant) = (cells.label(row, "method"), cells.label(row, VARIANT));
        let keep_rate = cells.required(row, "keep_rate")?;
        let is_it = |group: &&mut Group| {
            (&group.method, &group.variant, group.keep_rate) == (&method, &variant, keep_rate)
        };
        match groups.iter_mut().find(is_it) {
            Some(group) => group.rows.push(row),
            None => groups.push(Group { method, variant, keep_rate, rows: vec![row] }),
        }
    }
    let (mut points, mut phases, mut measures) = (Vec::new(), Vec::new(), Vec::new());
    for group in &groups {
        let mut values = Map::new();
        for phase in PHASES {
            for (measure, _) in MEASURES {
                let column = column_of(phase, measure);
                let mut seeds = Vec::new();
                for &row in &group.rows {
                    seeds.extend(
                        cells
                            .number(row, &column)?
                            .map(|value| (value, cells.label(row, "cell"), cells.label(row, "seed"))),
                    );
                }
                if seeds.is_empty() {
                    continue;
                }
                index_of(&mut phases, phase);
                index_of(&mut measures, measure);
                let numbers: Vec<f64> = seeds.iter().map(|(value, ..)| *value).collect();
                values.insert(column, json!({ "stat": stat(&numbers), "seeds": seeds }));
            }
        }
        let mut known = Vec::new();
        for &row in &group.rows {
            // No widths are known before a global allocation is stored.
            known.extend(cells.number(row, "flops_fraction")?.map(|_| row));
        }
        let Some(&first) = known.first() else { continue };
        points.push(json!({
            "method": group.method, "variant": group.variant, "keep_rate": group.keep_rate,
            "flops": 100.0 * cells.required(first, "flops_fraction")?, "params": 100.0 * cells.required(first, "params_fraction")?,
            "values": values,
        }));
    }
    if phases.is_empty() {
        return Ok(None);
    }
    phases.sort_by_key(|phase| PHASES.iter().position(|known| known == phase));
    let measures: Vec<Value> = MEASURES
        .iter()
        .filter(|(name, _)| measures.contains(name))
        .map(|(name, title)| json!({ "key": name, "title": title }))
        .collect();
    let named_phases: Vec<Value> = phases
        .iter()
        .map(|phase| json!({ "key": phase.name().replace('-', "_"), "title": phase_words(*phase) }))
        .collect();
    Ok(Some(json!({
        "table": study.table, "phases": named_phases, "measures": measures, "variants": study.variants, "points": points,
        "dense": dense(cells)?, "seeds": study.seeds, "spec": spec(&study.measured_methods()),
    })))
}

/// Each measure of the dense nets, one a seed.
fn dense(cells: &Sheet) -> Result<Value, FigureError> {
    let mut stats = Map::new();
    for (measure, _) in MEASURES {
        let column = format!("dense_{measure}");
        let (mut seeds, mut values) = (Vec::new(), Vec::new());
        for row in cells.rows() {
            let Some(value) = cells.number(row, &column)? else { continue };
            let known = seeds.len();
            if index_of(&mut seeds, cells.label(row, "seed")) == known {
                values.push(value);
            }
        }
        stats.insert(measure.to_owned(), stat(&values));
    }
    Ok(stats.into())
}

/// A line a method with the band of its deviation, the single seeds faint; the page fills in data and titles.
fn spec(methods: &[Method]) -> Value {
    let scales = method_scales(methods);
    let y = json!({ "field": "mean", "type": "quantitative", "scale": { "zero": false } });
    json!({
        "width": "container", "height": 340, "data": { "name": "means" },
        "encoding": { "x": { "field": "x", "type": "quantitative", "scale": { "nice": true } } },
        "layer": [
            { "data": { "name": "dense" }, "mark": { "type": "rule", "color": REFERENCE, "strokeWidth": 1, "aria": false },
              "encoding": { "y": { "field": "dense", "type": "quantitative" }, "x": null } },
            { "data": { "name": "dense" },
              "mark": { "type": "text", "align": "left", "baseline": "bottom", "dx": 4, "dy": -3, "fontSize": 12, "color": REFERENCE },
              "encoding": { "y": { "field": "dense", "type": "quantitative" }, "x": { "value": 0 }, "text": { "field": "text" } } },
            { "transform": [{ "filter": "isValid(datum.low)" }], "mark": { "type": "area", "opacity": 0.14, "aria": false },
              "encoding": { "y": { "field": "low", "type": "quantitative" }, "y2": { "field": "high" }, "color": scales.colour } },
            { "mark": { "type": "line", "strokeWidth": 2, "aria": false },
              "encoding": { "y": y, "color": scales.colour, "strokeDash": scales.dash } },
            { "data": { "name": "seeds" }, "mark": { "type": "point", "filled": true, "size": 22, "opacity": 0.4, "cursor": "pointer" },
              "encoding": {
                  "y": { "field": "value", "type": "quantitative" }, "color": scales.colour,
                  "tooltip": [
                      { "field": "method" }, { "field": "keep_rate", "title": "keep rate" }, { "field": "seed" },
                      { "field": "value", "title": "value", "format": ".3f" },
                  ],
              } },
            { "mark": { "type": "point", "filled": true, "size": 75, "opacity": 1, "cursor": "pointer" },
              "encoding": {
                  "y": y, "color": scales.colour, "shape": scales.shape,
                  "tooltip": [
                      { "field": "method" }, { "field": "keep_rate", "title": "keep rate" }, { "field": "shown", "title": "mean ± sd" },
                      { "field": "n" }, { "field": "flops", "title": "FLOPs kept, %", "format": ".1f" },
                      { "field": "params", "title": "params kept, %", "format": ".1f" },
                  ],
              } },
        ],
    })
}
