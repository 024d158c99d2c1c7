//! Training loss against the share of the training that is done: the dense nets, and the last tuning of the cells.

use serde_json::{Value, json};

use super::FigureError;
use super::source::{Sheet, Tables};
use super::spec::{About, Figure, MethodScales, Sample, figure, legend, method_scales};
use super::study::{Method, Study, VARIANT};
use super::style::{INK, REFERENCE};
use crate::tables::LOSSES;

const NEEDED: [&str; 8] = ["run", "training", "method", "keep_rate", "seed", "step", "steps", "train_loss"];
/// At most so many keep rates, a panel each beside that of the dense nets.
const PANELS: usize = 3;
const DENSE: &str = "dense";

/// The loss curves of a study; `None` if there is no such table.
pub(crate) fn loss_rows(tables: &mut Tables, study: &Study) -> Result<Option<Sheet>, FigureError> {
    let Some(sheet) = tables.sheet(&format!("{}{LOSSES}", study.table), &NEEDED)? else { return Ok(None) };
    study.check_run(&sheet)?;
    Ok(Some(sheet))
}

/// The losses of one net at one point of its training, of all seeds.
struct Point {
    /// `None` for the dense nets.
    keep_rate: Option<f64>,
    method: String,
    /// Steps done, per cent of the training.
    done: f64,
    losses: Vec<f64>,
}

impl Point {
    /// A row of data: mean and range over seeds.
    fn row(&self) -> Option<Value> {
        let mean = thinet_metrics::mean(&self.losses)?;
        let low = self.losses.iter().copied().fold(f64::INFINITY, f64::min);
        let high = self.losses.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let (method, done, n) = (&self.method, self.done, self.losses.len());
        Some(json!({ "method": method, "done": done, "loss": mean, "low": low, "high": high, "n": n }))
    }
}

/// Points of the dense nets and of the first variant.
fn points(study: &Study, sheet: &Sheet) -> Result<Vec<Point>, FigureError> {
    let mut all: Vec<Point> = Vec::new();
    let first = study.first();
    for row in sheet.rows() {
        let is_dense = sheet.label(row, "training") == DENSE;
        if !is_dense && sheet.text(row, VARIANT).unwrap_or_default() != first {
            continue;
        }
        let keep_rate = if is_dense { None } else { Some(sheet.required(row, "keep_rate")?) };
        let method = sheet.label(row, "method");
        let done = 100.0 * sheet.required(row, "step")? / sheet.required(row, "steps")?;
        let loss = sheet.required(row, "train_loss")?;
        let is_it = |p: &&mut Point| (p.keep_rate, &p.method, p.done) == (keep_rate, &method, done);
        match all.iter_mut().find(is_it) {
            Some(known) => known.losses.push(loss),
            None => all.push(Point { keep_rate, method, done, losses: vec![loss] }),
        }
    }
    Ok(all)
}

/// The figure of a study.
pub(super) fn losses(study: &Study, sheet: &Sheet) -> Result<Result<Figure, String>, FigureError> {
    let all = points(study, sheet)?;
    let of = |keep_rate: Option<f64>| -> Vec<Value> {
        all.iter().filter(|point| point.keep_rate == keep_rate).filter_map(Point::row).collect()
    };
    let is_tuned = |method: &&Method| all.iter().any(|p| p.keep_rate.is_some() && p.method == method.label);
    let methods: Vec<Method> = study.methods.iter().filter(is_tuned).cloned().collect();
    let scales = method_scales(&methods);
    let mut panels = Vec::new();
    if all.iter().any(|point| point.keep_rate.is_none()) {
        panels.push(("Dense nets".to_owned(), dense_layers(), of(None)));
    }
    let rates = study.some_rates(study.first(), study.keep_rates.len());
    let tuned: Vec<f64> = rates.into_iter().filter(|&rate| !of(Some(rate)).is_empty()).collect();
    let (shown, left_out) = tuned.split_at(tuned.len().min(PANELS));
    for &rate in shown {
        panels.push((format!("Keep rate {rate}"), method_layers(&scales), of(Some(rate))));
    }
    if panels.is_empty() {
        return Ok(Err(format!("{}{LOSSES} holds no losses", study.table)));
    }
    let columns = panels.len().min(2);
    let size = if columns == 1 { [520.0, 260.0] } else { [340.0, 200.0] };
    let has_several = panels.len() > 1;
    let views: Vec<Value> = panels
        .into_iter()
        .zip('a'..='z')
        .map(|((title, layers, rows), letter)| {
            let title = if has_several { format!("{letter}\u{2002}{title}") } else { title };
            panel(&title, &layers, &rows, size)
        })
        .collect();
    let total = size[0] * columns as f64 + 85.0 * (columns as f64 - 1.0);
    let mut rows = vec![json!({ "concat": views, "columns": columns })];
    if !methods.is_empty() {
        rows.push(legend(&methods, total, Sample::Line));
    }
    let left_out = match left_out {
        [] => String::new(),
        rates => {
            let rates: Vec<String> = rates.iter().map(f64::to_string).collect();
            format!(" Not drawn: keep rates {}.", rates.join(", "))
        }
    };
    let of_cells = match methods.is_empty() {
        true => "",
        false => " Of the cells: the tuning after the last cut, of the control its training.",
    };
    let caption = format!(
        "{}, {}{}, {}, {}: mean cross-entropy of training batches in windows of one twentieth of a training; mean over seeds, band of the \
         dense nets: smallest to largest.{of_cells}{left_out}",
        study.dataset,
        study.net,
        study.training(),
        study.first_variant(),
        study.n()
    );
    let about = About {
        name: format!("{}{LOSSES}", study.table),
        title: format!("Training loss on {}", study.dataset),
        caption,
        tables: vec![format!("{}{LOSSES}", study.table)],
        width: total + 60.0,
    };
    let body = json!({
        "vconcat": rows,
        "resolve": { "scale": { "color": "independent", "shape": "independent", "strokeDash": "independent" } },
    });
    Ok(Ok(figure(about, body)))
}

fn x() -> Value {
    json!({
        "field": "done", "type": "quantitative", "title": "steps done, % of the training",
        "scale": { "domain": [0, 100], "nice": false }, "axis": { "tickCount": 5 },
    })
}

fn y(field: &str) -> Value {
    json!({
        "field": field, "type": "quantitative", "title": "training loss, nats", "scale": { "zero": false },
        "axis": { "tickCount": 5 },
    })
}

fn tooltip() -> Value {
    json!([
        { "field": "method" }, { "field": "done", "title": "steps done, %", "format": ".0f" },
        { "field": "loss", "title": "training loss, nats", "format": ".3f" }, { "field": "n" },
    ])
}

fn dense_layers() -> Vec<Value> {
    vec![
        json!({
            "mark": { "type": "area", "opacity": 0.16, "color": REFERENCE },
            "encoding": { "x": x(), "y": y("low"), "y2": { "field": "high" } },
        }),
        json!({
            "mark": { "type": "line", "strokeWidth": 2, "color": INK },
            "encoding": { "x": x(), "y": y("loss"), "tooltip": tooltip() },
        }),
    ]
}

fn method_layers(scales: &MethodScales) -> Vec<Value> {
    vec![
        json!({
            "mark": { "type": "line", "strokeWidth": 2 },
            "encoding": { "x": x(), "y": y("loss"), "color": scales.colour, "strokeDash": scales.dash },
        }),
        json!({
            "mark": { "type": "point", "filled": true, "size": 30, "opacity": 1 },
            "encoding": {
                "x": x(), "y": y("loss"), "color": scales.colour, "shape": scales.shape, "tooltip": tooltip(),
            },
        }),
    ]
}

fn panel(title: &str, layers: &[Value], rows: &[Value], [width, height]: [f64; 2]) -> Value {
    json!({
        "width": width, "height": height, "data": { "values": rows }, "layer": layers,
        "title": {
            "text": title, "fontSize": 14, "anchor": "start", "frame": "group", "offset": 8, "color": INK,
        },
    })
}

#[cfg(test)]
mod tests {
    use crate::figures::tests::{draw, find, folder};
    use crate::tables::sample::study;

    #[test]
    fn losses_of_cells_are_explained_only_where_a_cell_was_trained() {
        let mut untuned = study();
        assert!(find(&draw(&folder(&untuned)), "losses").caption.contains("Of the cells: "));
        untuned.cells.iter_mut().for_each(|cell| cell.loss_curve = None);
        let drawn = draw(&folder(&untuned));
        let caption = &find(&drawn, "losses").caption;
        assert!(caption.ends_with("smallest to largest."), "{caption}");
    }
}
