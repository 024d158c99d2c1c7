//! Ablation of the calibration sample: top-1 against images per class and positions per image, a field for each variant of a study.

use serde_json::{Value, json};

use super::FigureError;
use super::source::Tables;
use super::spec::{About, Figure, figure};
use super::study::{Group, Study, index_of};
use super::style::{DARK, HEAT, INK};
use crate::records::Phase;

/// At most so many keep rates.
const RATES: usize = 2;
/// Width and height of a field, pixels.
const FIELD: [f64; 2] = [66.0, 46.0];

/// The file beside a table with the spec of its study, defaults filled in.
pub(super) const SPEC: &str = "resolved.toml";
/// The keys that a variant of the ablation overrides, each with its name in the table `[calibration]`.
const KEYS: [(&str, &str); 2] = [
    ("calibration.images-per-class", "images-per-class"),
    ("calibration.positions-per-image", "positions-per-image"),
];

/// The calibration sample of a variant.
pub(super) struct VariantSample {
    variant: String,
    images: u64,
    positions: u64,
    /// What the variant overrides besides, as text.
    others: String,
}

/// The samples of a study's variants, from the spec beside its table; `None` if there is no such file.
pub(super) fn variant_samples(
    tables: &mut Tables,
    study: &Study,
) -> Result<Option<Vec<VariantSample>>, FigureError> {
    let Some(bytes) = tables.bytes(&study.table, SPEC)? else { return Ok(None) };
    let bad = |problem: String| FigureError::BadSpec { path: tables.path(&study.table, SPEC), problem };
    let text = String::from_utf8(bytes).map_err(|error| bad(error.to_string()))?;
    samples_of(&text).map(Some).map_err(bad)
}

/// The samples of the variants of a spec; the error names the value that is missing or no count.
fn samples_of(spec: &str) -> Result<Vec<VariantSample>, String> {
    let spec: toml::Table = spec.parse().map_err(|error: toml::de::Error| error.message().to_owned())?;
    let list = |value: &toml::Value| value.as_array().cloned().unwrap_or_default();
    let mut samples = Vec::new();
    for variant in spec.get("variants").map(list).unwrap_or_default() {
        let name = variant.get("name").and_then(toml::Value::as_str).ok_or("a variant has no name")?;
        let mut numbers = [0; 2];
        for (number, (dotted, key)) in numbers.iter_mut().zip(KEYS) {
            let own = variant.get(dotted);
            let value = own.or_else(|| spec.get("calibration")?.get(key));
            let count = value.and_then(toml::Value::as_integer).and_then(|count| u64::try_from(count).ok());
            *number = count.ok_or_else(|| format!("variant {name:?} has no count {dotted}"))?;
        }
        let mut others = variant.as_table().cloned().unwrap_or_default();
        others.remove("name");
        KEYS.iter().for_each(|(dotted, _)| drop(others.remove(*dotted)));
        let [images, positions] = numbers;
        samples.push(VariantSample {
            variant: name.to_owned(),
            images,
            positions,
            others: others.to_string(),
        });
    }
    Ok(samples)
}

/// The figure of a study whose variants differ in images and positions; `None` for other studies. Variants that differ from the first
/// one in something else as well are left out.
pub(super) fn ablation(study: &Study, all: &[VariantSample]) -> Option<Figure> {
    let first = all.first()?;
    let is_here = |sample: &&VariantSample| study.variants.contains(&sample.variant);
    let samples: Vec<&VariantSample> =
        all.iter().filter(|sample| sample.others == first.others).filter(is_here).collect();
    let phase = study.last_phase()?;
    let size = |sample: &VariantSample| (sample.images, sample.positions);
    if samples.iter().all(|sample| size(sample) == size(samples[0])) {
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
        "{}, {}, {}, {tuned}, {}: top-1, %, {spread}. Each seed has a dense net and calibration images of its own, so the deviation \
         holds that of the draw. One colour scale, {low:.1} to {high:.1}.{left_out}{}{}",
        study.dataset,
        study.net,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_is_the_variants_override_or_the_specs() {
        let spec = "[calibration]\nimages-per-class = 10\npositions-per-image = 5\n\
                    [[variants]]\nname = \"plain\"\n\
                    [[variants]]\nname = \"few\"\n\"calibration.images-per-class\" = 1\n\
                    [[variants]]\nname = \"both\"\n\"calibration.positions-per-image\" = 2\n\"prune.mode\" = \"one-shot\"\n";
        let samples = samples_of(spec).unwrap();
        let found: Vec<_> = samples.iter().map(|s| (s.variant.as_str(), s.images, s.positions)).collect();
        assert_eq!(found, [("plain", 10, 5), ("few", 1, 5), ("both", 10, 2)]);
        assert!(samples[0].others == samples[1].others && samples[0].others != samples[2].others);
        assert!(samples_of("name = \"x\"").unwrap().is_empty());
        let error = samples_of("[[variants]]\nname = \"few\"").err().unwrap();
        assert_eq!(error, "variant \"few\" has no count calibration.images-per-class");
    }
}
