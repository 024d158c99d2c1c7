//! Ablation of the calibration sample: top-1 against images per class and positions per image, a field for each variant of a study.

use serde_json::{Value, json};

use super::samples::{VariantSample, is_any_drawn_again};
use super::spec::{About, Figure, figure};
use super::study::{Group, Study, index_of};
use super::style::{DARK, HEAT, INK};
use crate::records::Phase;

/// At most so many keep rates.
const RATES: usize = 2;
/// Width and height of a field, pixels.
const FIELD: [f64; 2] = [66.0, 46.0];

/// The figure of a study whose variants differ in images and positions; `None` for other studies, and for those of several draws, which
/// have a figure of their own. Variants that differ from the first
/// one in something else as well are left out.
pub(super) fn ablation(study: &Study, all: &[VariantSample]) -> Option<Figure> {
    let first = all.first()?;
    let is_here = |sample: &&VariantSample| study.variants.contains(&sample.variant);
    let samples: Vec<&VariantSample> =
        all.iter().filter(|sample| sample.others == first.others).filter(is_here).collect();
    let phase = study.last_phase()?;
    let size = |sample: &VariantSample| (sample.images, sample.positions);
    if is_any_drawn_again(&samples) || samples.iter().all(|sample| size(sample) == size(samples[0])) {
        return None;
    }
    let of_variant = |name: &str| samples.iter().find(|sample| sample.variant == name);
    let groups: Vec<&Group> =
        study.groups.iter().filter(|group| of_variant(&group.variant).is_some()).collect();
    let sorted = |of: fn(&VariantSample) -> u64| {
        let mut values: Vec<u64> = samples.iter().map(|sample| of(sample)).collect();
        values.sort_unstable();
        values.dedup();
        values
    };
    let (images, positions) = (sorted(|sample| sample.images), sorted(|sample| sample.positions));
    let means = groups.iter().filter_map(|group| group.at(phase)).map(|stat| stat.mean);
    let (low, high) = means.fold((100.0_f64, 0.0_f64), |(low, high), v| (low.min(v), high.max(v)));
    let rates = study.some_rates(&samples[0].variant, RATES);
    let mut methods = study.methods.clone();
    methods.retain(|method| samples.iter().any(|sample| study.is_measured(method, &sample.variant, phase)));
    let columns = methods.len().clamp(1, 3);
    let mut views = Vec::new();
    for &rate in &rates {
        for method in &methods {
            let mut rows = Vec::new();
            for group in groups.iter().filter(|group| group.keep_rate == rate) {
                let (Some(sample), Some(stat)) = (of_variant(&group.variant), group.at(phase)) else {
                    continue;
                };
                if study.methods[group.method] != *method {
                    continue;
                }
                let spread = stat.std.map(|std| format!("\n± {std:.1}")).unwrap_or_default();
                rows.push(json!({
                    "images": sample.images, "positions": sample.positions, "top1": stat.mean, "std": stat.std, "n": stat.n,
                    "text": format!("{:.1}{spread}", stat.mean),
                }));
            }
            let title = format!("{}, keep rate {rate}", method.label);
            views.push(panel(&title, &rows, &images, &positions, [low, high]));
        }
    }
    let mut modes: Vec<&str> = Vec::new();
    for sample in &samples {
        index_of(&mut modes, study.mode_of(&sample.variant));
    }
    let left_out: Vec<&str> =
        study.variants.iter().map(String::as_str).filter(|name| of_variant(name).is_none()).collect();
    let left_out = match left_out.is_empty() {
        true => String::new(),
        false => format!(" Not shown, as they differ in more than the sample: {}.", left_out.join("; ")),
    };
    let tuned = if phase == Phase::AfterFineTune { "tuned" } else { "not tuned" };
    let spread = if study.seeds < 2 { "one seed, no deviation" } else { "mean ± sample standard deviation" };
    let caption = format!(
        "{}, {}{}, {}, {tuned}, {}: top-1, %, {spread}. Each seed has a dense net and calibration images of its own, so the deviation \
         holds that of the draw. One colour scale, {low:.1} to {high:.1}.{left_out}{}{}",
        study.dataset,
        study.net,
        study.training(),
        modes.join(" and "),
        study.n(),
        study.rates_not_drawn(&samples[0].variant, RATES),
        study.gaps(phase)
    );
    let about = About {
        name: format!("{}-samples", study.table),
        title: format!("Accuracy against the size of the calibration sample on {}", study.dataset),
        caption,
        tables: vec![format!("{}-summary", study.table)],
        width: columns as f64 * (FIELD[0] * positions.len() as f64 + 70.0) + 30.0,
    };
    Some(figure(about, json!({ "concat": views, "columns": columns })))
}

fn panel(title: &str, rows: &[Value], images: &[u64], positions: &[u64], [low, high]: [f64; 2]) -> Value {
    let dark = low + DARK * (high - low);
    let axis = |field: &str, title: &str, values: &[u64]| {
        json!({
            "field": field, "type": "ordinal", "scale": { "domain": values },
            "axis": { "title": title, "labelAngle": 0, "domain": false, "ticks": false, "grid": false },
        })
    };
    json!({
        "title": { "text": title, "fontSize": 14, "anchor": "start", "frame": "group", "color": INK, "offset": 8 },
        "width": FIELD[0] * positions.len() as f64, "height": FIELD[1] * images.len() as f64, "data": { "values": rows },
        "encoding": {
            "x": axis("positions", "positions per image", positions), "y": axis("images", "images per class", images),
        },
        "layer": [
            { "mark": { "type": "rect", "stroke": "white", "strokeWidth": 1.5 },
              "encoding": {
                  "color": {
                      "field": "top1", "type": "quantitative", "legend": null, "scale": { "domain": [low, high], "range": HEAT },
                  },
                  "tooltip": [
                      { "field": "images", "title": "images per class" }, { "field": "positions", "title": "positions per image" },
                      { "field": "top1", "title": "top-1, %", "format": ".2f" }, { "field": "std", "title": "± sd", "format": ".2f" },
                      { "field": "n" },
                  ],
              } },
            { "mark": { "type": "text", "fontSize": 13, "lineBreak": "\n", "lineHeight": 15, "dy": -7 },
              "encoding": {
                  "text": { "field": "text" },
                  "color": { "condition": { "test": format!("datum.top1 > {dark}"), "value": "white" }, "value": INK },
              } },
        ],
    })
}
