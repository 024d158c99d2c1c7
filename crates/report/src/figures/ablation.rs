//! Ablation of the calibration sample: top-1 against images per class and positions per image, a field for each variant of a study.

use serde_json::{Value, json};

use super::spec::{About, Figure, figure};
use super::study::Study;
use super::style::{DARK, HEAT, INK};
use crate::records::Phase;

/// At most so many keep rates.
const RATES: usize = 2;
/// Width and height of a field, pixels.
const FIELD: [f64; 2] = [66.0, 46.0];

/// Images per class and positions per image in a variant's name, such as `3 images, 10 positions` or `images-3-positions-10`.
fn sample(name: &str) -> Option<(u64, u64)> {
    let words: Vec<&str> =
        name.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty()).collect();
    let number_first = words.first()?.bytes().all(|b| b.is_ascii_digit());
    let of = |start: &str| {
        let at = words.iter().position(|word| word.starts_with(start))?;
        let number = if number_first { words.get(at.checked_sub(1)?)? } else { words.get(at + 1)? };
        number.parse().ok()
    };
    Some((of("image")?, of("position")?))
}

/// The figure of a study whose variants differ in images and positions; `None` for other studies.
pub(super) fn ablation(study: &Study) -> Option<Figure> {
    let samples: Vec<(&str, (u64, u64))> =
        study.variants.iter().filter_map(|name| Some((name.as_str(), sample(name)?))).collect();
    let phase = study.phases().pop()?;
    if samples.len() < 2 {
        return None;
    }
    let sorted = |of: fn(&(u64, u64)) -> u64| {
        let mut values: Vec<u64> = samples.iter().map(|(_, sample)| of(sample)).collect();
        values.sort_unstable();
        values.dedup();
        values
    };
    let (images, positions) = (sorted(|sample| sample.0), sorted(|sample| sample.1));
    let means = study.groups.iter().filter_map(|group| group.at(phase)).map(|stat| stat.mean);
    let (low, high) = means.fold((100.0_f64, 0.0_f64), |(low, high), v| (low.min(v), high.max(v)));
    let rates = study.some_rates(RATES);
    let methods = study.measured_methods();
    let columns = methods.len().clamp(1, 3);
    let mut views = Vec::new();
    for &rate in &rates {
        for method in &methods {
            let mut rows = Vec::new();
            for group in study.groups.iter().filter(|group| group.keep_rate == rate) {
                let sample =
                    samples.iter().find(|(name, _)| *name == group.variant).map(|(_, sample)| sample);
                let (Some((images, positions)), Some(stat)) = (sample, group.at(phase)) else { continue };
                if study.methods[group.method] != *method {
                    continue;
                }
                let spread = stat.std.map(|std| format!("\n± {std:.1}")).unwrap_or_default();
                rows.push(json!({
                    "images": images, "positions": positions, "top1": stat.mean, "std": stat.std, "n": stat.n,
                    "text": format!("{:.1}{spread}", stat.mean),
                }));
            }
            let title = format!("{}, keep rate {rate}", method.label);
            views.push(panel(&title, &rows, &images, &positions, [low, high]));
        }
    }
    let tuned = if phase == Phase::AfterFineTune { "tuned" } else { "not tuned" };
    let spread = if study.seeds < 2 { "one seed, no deviation" } else { "mean ± sample standard deviation" };
    let caption = format!(
        "{}, {}, {}, {tuned}, {}: top-1, %, {spread}. Each seed has a dense net and calibration images of its own, so the deviation \
         holds that of the draw. One colour scale, {low:.1} to {high:.1}.{}",
        study.dataset,
        study.net,
        study.mode,
        study.n(),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_read_from_names_of_variants() {
        assert_eq!(sample("10 images, 3 positions"), Some((10, 3)));
        assert_eq!(sample("1 image, 30 positions"), Some((1, 30)));
        assert_eq!(sample("images-10-positions-3"), Some((10, 3)));
        for other in ["layer by layer", "", "10 images", "images", "all at once"] {
            assert_eq!(sample(other), None, "{other}");
        }
    }
}
