//! Accuracy against FLOPs or parameters kept: one line a method, mean and deviation over seeds, before and after tuning, beside the
//! published figure on CUB-200 (Luo et al. 2017, figure 4).

use serde_json::{Value, json};

use super::published::Published;
use super::spec::{About, Figure, MethodScales, Sample, figure, legend, method_scales, percent_axis};
use super::study::{Group, Method, Stat, Study, index_of};
use super::style::{INK, REFERENCE};
use crate::records::{Mode, Phase};
use crate::tables::grouped;

/// What lies on the x axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Axis {
    Flops,
    Params,
}

impl Axis {
    /// End of the figure's name.
    pub(super) fn ending(self) -> &'static str {
        match self {
            Self::Flops => "flops",
            Self::Params => "params",
        }
    }
}

/// One point of a panel.
struct Point {
    method: String,
    keep_rate: f64,
    /// Per cent of the dense net.
    x: f64,
    top1: Stat,
}

/// One panel.
struct Panel {
    title: String,
    points: Vec<Point>,
    /// Top-1 of the dense nets.
    dense: Option<f64>,
}

impl Panel {
    /// A study's nets in a phase.
    fn of(study: &Study, phase: Phase, axis: Axis, variant: &str, title: String) -> Self {
        let x = |group: &Group| {
            100.0
                * match axis {
                    Axis::Flops => group.flops_fraction,
                    Axis::Params => group.params_fraction,
                }
        };
        let points = study.groups.iter().filter(|group| group.variant == variant).filter_map(|group| {
            Some(Point {
                method: study.methods[group.method].label.clone(),
                keep_rate: group.keep_rate,
                x: x(group),
                top1: group.at(phase)?,
            })
        });
        Self { title, points: points.collect(), dense: study.dense.map(|dense| dense.mean) }
    }

    /// The published nets.
    fn published(published: &Published, methods: &[Method], axis: Axis) -> Self {
        let label = |method: &Method| {
            let own = methods.iter().find(|own| {
                (&own.selector, &own.reconstruction) == (&method.selector, &method.reconstruction)
            });
            own.map_or(&method.label, |own| &own.label).clone()
        };
        let points = published.points.iter().map(|point| Point {
            method: label(&point.method),
            keep_rate: point.keep_rate,
            x: 100.0
                * match axis {
                    Axis::Flops => point.flops_fraction,
                    Axis::Params => point.params_fraction,
                },
            top1: Stat { mean: point.top1, std: None, n: 1 },
        });
        let title = format!("Published: {}, tuned", published.data);
        Self { title, points: points.collect(), dense: published.dense }
    }

    fn view(&self, letter: &str, axis: Axis, scales: &MethodScales, [width, height]: [f64; 2]) -> Value {
        let bounds = |point: &Point| {
            let std = point.top1.std.unwrap_or(0.0);
            [point.top1.mean - std, point.top1.mean + std]
        };
        let (span, ticks) = percent_axis(self.points.iter().flat_map(bounds).chain(self.dense));
        let most = self.points.iter().map(|point| point.x).fold(0.0, f64::max);
        let to = (most / 20.0).ceil().max(1.0) * 20.0;
        let unit = match axis {
            Axis::Flops => "FLOPs kept, % of the dense net",
            Axis::Params => "parameters kept, % of the dense net",
        };
        let rows: Vec<Value> = self.points.iter().map(Self::row).collect();
        let x = json!({
            "field": "x", "type": "quantitative", "title": unit, "scale": { "domain": [0, to], "nice": false },
            "axis": { "tickCount": 6 },
        });
        let y = json!({
            "field": "top1", "type": "quantitative", "title": "top-1, %", "scale": { "domain": span, "nice": false, "zero": false },
            "axis": { "values": ticks, "tickCount": 10 },
        });
        let mut layers = Vec::new();
        if let Some(dense) = self.dense {
            layers.push(json!({
                "data": { "values": [{ "dense": dense }] }, "mark": { "type": "rule", "color": REFERENCE, "strokeWidth": 1 },
                "encoding": { "y": { "field": "dense", "type": "quantitative" } },
            }));
            layers.push(json!({
                "data": { "values": [{ "dense": dense, "x": to, "text": format!("dense {dense:.1}") }] },
                "mark": { "type": "text", "align": "right", "baseline": "bottom", "dy": -3, "fontSize": 12, "color": REFERENCE },
                "encoding": {
                    "x": { "field": "x", "type": "quantitative" }, "y": { "field": "dense", "type": "quantitative" },
                    "text": { "field": "text" },
                },
            }));
        }
        if self.points.iter().any(|point| point.top1.std.is_some()) {
            layers.push(json!({
                "mark": { "type": "area", "opacity": 0.16 },
                "encoding": {
                    "x": x, "y": { "field": "low", "type": "quantitative", "title": "top-1, %" }, "y2": { "field": "high" },
                    "color": scales.colour,
                },
            }));
        }
        layers.push(json!({
            "mark": { "type": "line", "strokeWidth": 2 },
            "encoding": { "x": x, "y": y, "color": scales.colour, "strokeDash": scales.dash },
        }));
        layers.push(json!({
            "mark": { "type": "point", "filled": true, "size": 60, "opacity": 1 },
            "encoding": {
                "x": x, "y": y, "color": scales.colour, "shape": scales.shape,
                "tooltip": [
                    { "field": "method" }, { "field": "keep_rate", "title": "keep rate" },
                    { "field": "x", "title": unit, "format": ".1f" }, { "field": "top1", "title": "top-1, %", "format": ".2f" },
                    { "field": "std", "title": "± sd", "format": ".2f" }, { "field": "n" },
                ],
            },
        }));
        json!({
            "width": width, "height": height, "data": { "values": rows }, "layer": layers,
            "title": {
                "text": format!("{letter}{}", self.title), "fontSize": 14, "anchor": "start", "frame": "group", "offset": 8,
                "color": INK,
            },
        })
    }

    fn row(point: &Point) -> Value {
        let Point { method, keep_rate, x, top1: Stat { mean, std, n } } = point;
        let mut row = json!({ "method": method, "keep_rate": keep_rate, "x": x, "top1": mean, "n": n });
        if let (Some(std), Value::Object(row)) = (std, &mut row) {
            row.insert("std".to_owned(), json!(std));
            row.insert("low".to_owned(), json!((mean - std).max(0.0)));
            row.insert("high".to_owned(), json!((mean + std).min(100.0)));
        }
        row
    }
}

/// The figure of a study. `alone`: its nets cut at once without tuning, where such a study of the same nets exists; `published`: the
/// paper's figure, where its table exists. `Err`: why there is none.
pub(super) fn accuracy(
    study: &Study,
    alone: Option<&Study>,
    published: Option<&Published>,
    axis: Axis,
) -> Result<Figure, String> {
    if study.keep_rates.len() < 2 {
        return Err(format!("{} has one keep rate, which makes no line", study.table));
    }
    let mut panels = Vec::new();
    // What the panels do not show; often the same in several.
    let mut gaps: Vec<String> = Vec::new();
    if let (Some(alone), Some(phase)) = (alone, alone.and_then(Study::last_phase)) {
        panels.push(Panel::of(alone, phase, axis, "", "Cut at once, not tuned".to_owned()));
        index_of(&mut gaps, alone.gaps(phase));
    }
    let variants = if study.variants.is_empty() { vec![String::new()] } else { study.variants.clone() };
    for phase in study.phases().into_iter().filter(|&phase| phase != Phase::AfterCut) {
        for variant in &variants {
            let title = phase_title(study, variant, phase);
            let is_said = variant.is_empty() || is_name_of(study.mode_of(variant), variant);
            let title = if is_said { title.to_owned() } else { format!("{variant}: {title}") };
            let panel = Panel::of(study, phase, axis, variant, title);
            // Some variants are tuned and some are not.
            if !panel.points.is_empty() {
                panels.push(panel);
            }
        }
        index_of(&mut gaps, study.gaps(phase));
    }
    if panels.len() > 8 {
        return Err(format!("{} has {} variants, too many panels", study.table, variants.len()));
    }
    let mut methods = study.measured_methods();
    for method in alone.map(Study::measured_methods).into_iter().flatten() {
        index_of(&mut methods, method);
    }
    if let Some(published) = published.filter(|_| !study.is_untuned()) {
        let panel = Panel::published(published, &methods, axis);
        for method in published.points.iter().map(|point| &point.method) {
            let is_it = |own: &Method| {
                (&own.selector, &own.reconstruction) == (&method.selector, &method.reconstruction)
            };
            if !methods.iter().any(is_it) {
                methods.push(method.clone());
            }
        }
        gaps.push(published.note.clone());
        panels.push(panel);
    }
    let (columns, size) = layout(panels.len());
    let scales = method_scales(&methods);
    let letter = |letter: char| if panels.len() > 1 { format!("{letter}\u{2002}") } else { String::new() };
    let views: Vec<Value> = panels
        .iter()
        .zip('a'..='z')
        .map(|(panel, at)| panel.view(&letter(at), axis, &scales, size))
        .collect();
    let total = size[0] * columns as f64 + 85.0 * (columns as f64 - 1.0);
    let body = json!({
        "vconcat": [{ "concat": views, "columns": columns }, legend(&methods, total, Sample::Line)],
        "resolve": { "scale": { "color": "independent", "shape": "independent", "strokeDash": "independent" } },
    });
    let what = match axis {
        Axis::Flops => "FLOPs",
        Axis::Params => "parameters",
    };
    let spread =
        if study.seeds < 2 { "one seed, no deviation" } else { "mean, band: ± 1 sample standard deviation" };
    let of = match axis {
        Axis::Flops => format!("{} FLOPs", short(study.dense_flops)),
        Axis::Params => format!("{} parameters", short(study.dense_params)),
    };
    let caption = format!(
        "{}, {} ({of}){}, {}: {spread}; {} test images.{}",
        study.dataset,
        study.net,
        study.training(),
        study.n(),
        grouped(study.test_images),
        gaps.concat(),
    );
    let mut tables = vec![format!("{}-summary", study.table)];
    tables.extend(alone.map(|alone| format!("{}-summary", alone.table)));
    tables.extend(published.filter(|_| !study.is_untuned()).map(|published| published.table.clone()));
    let about = About {
        name: format!("{}-accuracy-{}", study.table, axis.ending()),
        title: format!("Accuracy against {what} kept on {}", study.dataset),
        caption,
        tables,
        width: total + 60.0,
    };
    Ok(figure(about, body))
}

/// Columns of panels, and the size of one, pixels.
fn layout(panels: usize) -> (usize, [f64; 2]) {
    match panels {
        1 => (1, [520.0, 320.0]),
        2 | 4 => (2, [330.0, 240.0]),
        3 => (3, [270.0, 240.0]),
        _ => (3, [270.0, 220.0]),
    }
}

/// Whether a variant is named after its mode, which the titles of phases name, too.
fn is_name_of(mode: &str, variant: &str) -> bool {
    let names: &[&str] =
        if mode == Mode::OneShot.name() { &["all at once", "cut at once"] } else { &["layer by layer"] };
    names.contains(&variant.to_lowercase().as_str())
}

fn phase_title(study: &Study, variant: &str, phase: Phase) -> &'static str {
    let is_one_shot = study.mode_of(variant) == Mode::OneShot.name();
    match (phase, is_one_shot, study.is_untuned_in(variant)) {
        (Phase::AfterBatchNormEstimate, true, true) => "Cut at once, BN estimated again",
        (Phase::AfterBatchNormEstimate, false, true) => "Layer by layer, BN estimated again",
        (Phase::AfterBatchNormEstimate, ..) => "BN estimated again, before tuning",
        (Phase::AfterFineTune, _, true) => "Control from a random start",
        (Phase::AfterFineTune, true, _) => "Cut at once, tuned",
        (Phase::AfterFineTune, false, _) => "Layer by layer, tuned",
        (_, true, true) => "Cut at once, not tuned",
        (_, true, false) => "Cut at once, before tuning",
        (_, false, true) => "Layer by layer, not tuned at the end",
        (_, false, false) => "Layer by layer, before the last tuning",
    }
}

/// `4.94 M`.
fn short(count: f64) -> String {
    let [value, unit] = match count {
        c if c >= 1e9 => return format!("{:.2} G", c / 1e9),
        c if c >= 1e6 => [c / 1e6, 2.0],
        c => [c / 1e3, 1.0],
    };
    format!("{value:.2} {}", if unit == 2.0 { "M" } else { "k" })
}

#[cfg(test)]
mod tests {
    use super::super::tests::{draw, find, folder, name_variants};
    use crate::tables::sample::with_variants;

    #[test]
    fn a_variant_that_is_named_after_its_mode_is_named_once() {
        let mut study = with_variants();
        name_variants(&mut study, ["layer by layer", "all at once"]);
        let drawn = draw(&folder(&study));
        let panels = find(&drawn, "accuracy-flops").spec["vconcat"][0]["concat"].as_array().unwrap().clone();
        let titles: Vec<&str> = panels.iter().map(|panel| panel["title"]["text"].as_str().unwrap()).collect();
        assert!(titles.iter().any(|title| title.ends_with("\u{2002}Layer by layer, tuned")), "{titles:?}");
        assert!(titles.iter().any(|title| title.ends_with("\u{2002}Cut at once, tuned")), "{titles:?}");
        assert!(titles.iter().all(|title| !title.contains(": ")), "{titles:?}");
    }
}
