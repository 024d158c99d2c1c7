//! Accuracy after each draw of a calibration sample on the same dense nets: what the draw alone changes, against the size of the sample.

use serde_json::{Value, json};

use super::FigureError;
use super::samples::VariantSample;
use super::source::{Sheet, Tables};
use super::spec::{About, Figure, figure, percent_axis};
use super::study::{Method, Study, VARIANT, index_of};
use super::style::INK;
use crate::records::Phase;

/// At most so many methods, a column of panels each, and so many keep rates, a row each.
const METHODS: usize = 3;
const RATES: usize = 2;
/// Marks of the nets, in the order of their seeds.
const SHAPES: [&str; 5] = ["circle", "square", "triangle-up", "diamond", "cross"];
/// Width of a sample's strip and height of a panel, pixels.
const STRIP: f64 = 46.0;
const HEIGHT: f64 = 210.0;

const NEEDED: [&str; 5] = ["run", "method", "keep_rate", "seed", VARIANT];

/// The cells of a study with variants; `None` if there is no such table.
pub(super) fn cell_rows(tables: &mut Tables, study: &Study) -> Result<Option<Sheet>, FigureError> {
    let Some(sheet) = tables.sheet(&study.table, &NEEDED)? else { return Ok(None) };
    study.check_run(&sheet)?;
    Ok(Some(sheet))
}

/// A cell with a value.
struct Point {
    method: String,
    keep_rate: f64,
    /// Index of its sample.
    sample: usize,
    seed: u64,
    draw: u64,
    top1: f64,
}

/// The figure of a study whose variants repeat a sample with other draws; `None` for other studies. Variants that differ from the first
/// one in more than the sample are left out.
pub(super) fn draws(
    study: &Study,
    all: &[VariantSample],
    sheet: &Sheet,
) -> Result<Option<Figure>, FigureError> {
    let Some(first) = all.first() else { return Ok(None) };
    let samples: Vec<&VariantSample> = all.iter().filter(|sample| sample.others == first.others).collect();
    let Some(phase) = study.last_phase().filter(|_| samples.iter().any(|s| s.draw != first.draw)) else {
        return Ok(None);
    };
    let mut sizes: Vec<(u64, u64)> = samples.iter().map(|sample| (sample.images, sample.positions)).collect();
    sizes.sort_unstable();
    sizes.dedup();
    let points = points(&samples, &sizes, sheet, phase)?;
    let mut seeds: Vec<u64> = Vec::new();
    for point in &points {
        index_of(&mut seeds, point.seed);
    }
    let methods: Vec<&Method> = study
        .methods
        .iter()
        .filter(|method| points.iter().any(|point| point.method == method.label))
        .take(METHODS)
        .collect();
    let rates = study.some_rates(&first.variant, RATES);
    let is_drawn =
        |point: &&Point| rates.contains(&point.keep_rate) && methods.iter().any(|m| m.label == point.method);
    let axis = percent_axis(points.iter().filter(is_drawn).map(|point| point.top1));
    let width = STRIP * sizes.len() as f64;
    let names: Vec<String> =
        sizes.iter().map(|(images, positions)| format!("{images} × {positions}")).collect();
    let mut views = Vec::new();
    for &rate in &rates {
        for method in &methods {
            let here = points.iter().filter(|p| p.method == method.label && p.keep_rate == rate);
            let rows: Vec<Value> = here
                .map(|point| {
                    json!({
                        "sample": names[point.sample], "net": format!("seed {}", point.seed), "draw": point.draw,
                        "top1": point.top1,
                    })
                })
                .collect();
            let title = format!("{}, keep rate {rate}", method.label);
            views.push(panel(&title, &rows, &names, &seeds, method, &axis, width));
        }
    }
    let (draws, nets) = (draws_of(&samples), seeds.len());
    let left_out = study.methods.len().saturating_sub(METHODS);
    let left_out = match left_out {
        0 => String::new(),
        count => format!(" {count} more methods are in the table."),
    };
    let caption = format!(
        "{}, {}, {}, {}: top-1, %, after {draws} draws of a sample of each size on each of {nets} dense nets (n = {nets} seeds, a mark \
         each; bar: mean of a net). A sample of images × positions has so many images of each class and so many positions of an \
         image.{left_out}{}{}",
        study.dataset,
        study.net,
        study.mode_of(&first.variant),
        words(phase),
        study.rates_not_drawn(&first.variant, RATES),
        study.gaps(phase)
    );
    let about = About {
        name: format!("{}-draws", study.table),
        title: format!("Accuracy over draws of the calibration sample on {}", study.dataset),
        caption,
        tables: vec![study.table.clone()],
        width: methods.len() as f64 * (width + 62.0) + 10.0,
    };
    Ok(Some(figure(about, json!({ "concat": views, "columns": methods.len().max(1) }))))
}

/// `3`, or `1 to 3` where sizes differ.
fn draws_of(samples: &[&VariantSample]) -> String {
    let mut counts: Vec<((u64, u64), u64)> = Vec::new();
    for sample in samples {
        let size = (sample.images, sample.positions);
        match counts.iter_mut().find(|(known, _)| *known == size) {
            Some((_, count)) => *count += 1,
            None => counts.push((size, 1)),
        }
    }
    let counts = counts.iter().map(|(_, count)| *count);
    match (counts.clone().min().unwrap_or(0), counts.max().unwrap_or(0)) {
        (least, most) if least == most => most.to_string(),
        (least, most) => format!("{least} to {most}"),
    }
}

fn words(phase: Phase) -> &'static str {
    match phase {
        Phase::AfterFineTune => "tuned",
        Phase::AfterBatchNormEstimate => "not tuned, batch norm estimated again",
        _ => "not tuned",
    }
}

fn points(
    samples: &[&VariantSample],
    sizes: &[(u64, u64)],
    sheet: &Sheet,
    phase: Phase,
) -> Result<Vec<Point>, FigureError> {
    let column = format!("{}_top1", phase.name().replace('-', "_"));
    let mut points = Vec::new();
    for row in sheet.rows() {
        let variant = sheet.text(row, VARIANT).unwrap_or_default();
        let Some(of) = samples.iter().find(|sample| sample.variant == variant) else { continue };
        let Some(top1) = sheet.number(row, &column)? else { continue };
        let Some(sample) = sizes.iter().position(|size| *size == (of.images, of.positions)) else { continue };
        points.push(Point {
            method: sheet.label(row, "method"),
            keep_rate: sheet.required(row, "keep_rate")?,
            sample,
            seed: sheet.count(row, "seed")?,
            draw: of.draw,
            top1,
        });
    }
    Ok(points)
}

fn panel(
    title: &str,
    rows: &[Value],
    samples: &[String],
    seeds: &[u64],
    method: &Method,
    (domain, ticks): &([f64; 2], Vec<f64>),
    width: f64,
) -> Value {
    let nets: Vec<String> = seeds.iter().map(|seed| format!("seed {seed}")).collect();
    let shapes: Vec<&str> = SHAPES.into_iter().cycle().take(nets.len()).collect();
    let colour = method.style().colour;
    let beside = json!({ "field": "net", "type": "nominal", "scale": { "domain": nets } });
    let y = |aggregate: Option<&str>| {
        let mut y = json!({
            "field": "top1", "type": "quantitative", "title": "top-1, %", "scale": { "domain": domain, "nice": false },
            "axis": { "values": ticks },
        });
        if let Some(aggregate) = aggregate {
            y["aggregate"] = aggregate.into();
        }
        y
    };
    json!({
        "title": { "text": title, "fontSize": 14, "anchor": "start", "frame": "group", "color": INK, "offset": 8 },
        "width": width, "height": HEIGHT, "data": { "values": rows },
        "encoding": {
            "x": {
                "field": "sample", "type": "ordinal", "scale": { "domain": samples, "paddingInner": 0.25 },
                "axis": { "title": "images × positions", "labelAngle": 0, "grid": false },
            },
            "xOffset": beside,
        },
        "layer": [
            { "mark": { "type": "tick", "orient": "horizontal", "thickness": 2, "bandSize": 11, "color": INK },
              "encoding": { "y": y(Some("mean")) } },
            { "mark": { "type": "point", "filled": true, "size": 34, "opacity": 0.75, "color": colour },
              "encoding": {
                  "y": y(None),
                  "shape": { "field": "net", "type": "nominal", "legend": null, "scale": { "domain": nets, "range": shapes } },
                  "tooltip": [
                      { "field": "sample", "title": "images × positions" }, { "field": "net" }, { "field": "draw" },
                      { "field": "top1", "title": "top-1, %", "format": ".2f" },
                  ],
              } },
        ],
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tempfile::TempDir;

    use crate::figures::tests::{draw, find, folder};
    use crate::records::StudyRecord;
    use crate::tables::sample::{with_draws, with_variants};

    /// The tables of a study with the spec of its variants beside them.
    fn folder_with_spec(study: &StudyRecord) -> TempDir {
        let dir = folder(study);
        let mut spec = String::new();
        for variant in &study.variants {
            let sample = variant.sample;
            spec.push_str(&format!(
                "[[variants]]\nname = \"{}\"\n\"calibration.images-per-class\" = {}\n\"calibration.positions-per-image\" = {}\n\
                 \"calibration.draw\" = {}\n",
                variant.name, sample.images_per_class, sample.positions_per_image, sample.draw
            ));
        }
        fs::write(dir.path().join(format!("{}.resolved.toml", study.table)), spec).unwrap();
        dir
    }

    #[test]
    fn every_draw_of_a_net_is_a_mark_of_its_sample() {
        let study = with_draws();
        let drawn = draw(&folder_with_spec(&study));
        let figure = find(&drawn, "draws");
        let views = figure.spec["concat"].as_array().unwrap();
        let of_both: Vec<_> =
            views.iter().filter(|v| v["title"]["text"] == "thinet, keep rate 0.5").collect();
        let rows = of_both[0]["data"]["values"].as_array().unwrap();
        let value = |row: &serde_json::Value| {
            (
                row["sample"].as_str().unwrap().to_owned(),
                row["net"].to_string(),
                row["draw"].as_u64().unwrap(),
                row["top1"].as_f64().unwrap(),
            )
        };
        let of_ten: Vec<_> =
            rows.iter().map(value).filter(|row| row.0 == "10 × 10" && row.1.contains("seed 1")).collect();
        // Tuned to 89, and two points more with each draw.
        assert_eq!(
            of_ten.iter().map(|row| (row.2, row.3)).collect::<Vec<_>>(),
            [(0, 89.0), (1, 91.0), (2, 93.0)]
        );
        assert_eq!(rows.len(), 8, "four samples of two nets");
        assert!(
            figure.caption.contains("after 1 to 3 draws of a sample of each size on each of 2 dense nets"),
            "{}",
            figure.caption
        );
    }

    #[test]
    fn a_study_of_single_draws_has_no_such_figure_and_one_of_several_no_heat_map() {
        let names = |study: StudyRecord| -> Vec<String> {
            draw(&folder_with_spec(&study)).drawn.iter().map(|figure| figure.name.clone()).collect()
        };
        let ends = |names: &[String], suffix: &str| names.iter().any(|name| name.ends_with(suffix));
        let several = names(with_draws());
        assert!(ends(&several, "-draws") && !ends(&several, "-samples"), "{several:?}");
        let single = names(with_variants());
        assert!(!ends(&single, "-draws"), "{single:?}");
    }
}
