//! Widths: how many channels each layer keeps at each keep rate, with what remains of the whole net.

use serde_json::{Value, json};

use super::kept::{KeptCell, natural_order};
use super::spec::{About, Figure, figure};
use super::study::Study;
use super::style::{DARK, HEAT, INK};

/// Height of a row, pixels.
const ROW: f64 = 30.0;

/// The figure of a study; `Err`: why there is none.
pub(super) fn widths(study: &Study, cells: &[KeptCell]) -> Result<Figure, String> {
    let mut layers: Vec<String> = cells.iter().flat_map(|cell| cell.kept.keys().cloned()).collect();
    natural_order(&mut layers);
    layers.dedup();
    if layers.is_empty() {
        return Err(format!("{} has no kept channels", study.table));
    }
    let mut rates = study.keep_rates.clone();
    rates.sort_by(|a, b| b.total_cmp(a));
    let whole = "dense net".to_owned();
    let (mut rows, mut labels) = (Vec::new(), vec![whole.clone()]);
    for layer in &layers {
        let width = cells.iter().find_map(|cell| cell.kept.get(layer)).map_or(0, |set| set.width());
        rows.push(json!({ "layer": layer, "label": whole, "channels": width, "of": width }));
    }
    for rate in rates {
        let Some(group) = study.groups.iter().find(|group| group.keep_rate == rate) else { continue };
        let of_rate: Vec<&KeptCell> = cells.iter().filter(|cell| cell.keep_rate == rate).collect();
        if of_rate.is_empty() {
            continue;
        }
        let label = format!("{rate}  ({:.0} % of FLOPs)", 100.0 * group.flops_fraction);
        for layer in &layers {
            let mut counts = of_rate.iter().filter_map(|cell| cell.kept.get(layer));
            let Some(first) = counts.next() else { continue };
            if counts.any(|other| other.kept().len() != first.kept().len()) {
                return Err(format!("the methods of {} keep different numbers of channels", study.table));
            }
            rows.push(json!({ "layer": layer, "label": label, "channels": first.kept().len(), "of": first.width() }));
        }
        labels.push(label);
    }
    let column = if layers.len() > 14 { 44.0 } else { 62.0 };
    let size = [column * layers.len() as f64, ROW * labels.len() as f64];
    let caption = format!(
        "{}, {}, {}: channels kept in each pruned layer, the same for all methods and seeds. First row: before pruning.",
        study.dataset, study.net, study.mode
    );
    let about = About {
        name: format!("{}-widths", study.table),
        title: "Channels kept per layer".to_owned(),
        caption,
        tables: vec![format!("{}.kept.json", study.table), format!("{}-summary", study.table)],
        width: size[0] + 150.0,
    };
    Ok(figure(about, body(&layers, &labels, &rows, size)))
}

fn body(layers: &[String], labels: &[String], rows: &[Value], size: [f64; 2]) -> Value {
    let most = rows.iter().filter_map(|row| row["channels"].as_f64()).fold(2.0, f64::max);
    let dark = most.powf(DARK);
    json!({
        "width": size[0], "height": size[1], "data": { "values": rows },
        "encoding": {
            "x": {
                "field": "layer", "type": "nominal", "scale": { "domain": layers },
                "axis": {
                    "title": "pruned layer", "orient": "bottom", "labelAngle": if size[0] / (layers.len() as f64) < 60.0 { -45 } else { 0 },
                    "domain": false, "ticks": false, "grid": false,
                },
            },
            "y": {
                "field": "label", "type": "nominal", "scale": { "domain": labels },
                "axis": { "title": "keep rate", "domain": false, "ticks": false, "grid": false },
            },
        },
        "layer": [
            { "mark": { "type": "rect", "stroke": "white", "strokeWidth": 1.5 },
              "encoding": {
                  "color": {
                      "field": "channels", "type": "quantitative", "legend": null,
                      "scale": { "type": "log", "domain": [1, most], "range": HEAT },
                  },
                  "tooltip": [
                      { "field": "layer" }, { "field": "label", "title": "keep rate" },
                      { "field": "channels", "title": "channels kept" }, { "field": "of", "title": "channels before" },
                  ],
              } },
            { "mark": { "type": "text", "fontSize": 13 },
              "encoding": {
                  "text": { "field": "channels", "type": "quantitative" },
                  "color": { "condition": { "test": format!("datum.channels > {dark}"), "value": "white" }, "value": INK },
              } },
        ],
    })
}
