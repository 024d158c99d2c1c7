//! Accuracy after each draw of a calibration sample on the same dense nets: what the draw alone changes, against the size of the sample.

use serde_json::{Value, json};

use super::FigureError;
use super::samples::{VariantSample, is_any_drawn_again};
use super::source::{Sheet, Tables};
use super::spec::{About, Figure, figure, percent_axis};
use super::study::{Method, Study, VARIANT, index_of};
use super::style::INK;
use crate::records::{FROM_SCRATCH, Phase};
use crate::tables::DRAWS;

/// At most so many methods, a column of panels each, and so many keep rates and last phases, a row for each pair.
const METHODS: usize = 3;
const RATES: usize = 2;
const PHASES: usize = 2;
/// Marks of the nets, in the order of their seeds.
const SHAPES: [&str; 5] = ["circle", "square", "triangle-up", "diamond", "cross"];
/// Width of a sample's strip and height of a panel, pixels.
const STRIP: f64 = 52.0;
const HEIGHT: f64 = 170.0;

const NEEDED: [&str; 5] = ["run", "method", "keep_rate", "seed", VARIANT];

/// The cells of a study with variants; `None` if there is no such table.
pub(super) fn cell_rows(tables: &mut Tables, study: &Study) -> Result<Option<Sheet>, FigureError> {
    let Some(sheet) = tables.sheet(&study.table, &NEEDED)? else { return Ok(None) };
    study.check_run(&sheet)?;
    Ok(Some(sheet))
}

/// The value of a cell after a phase.
struct Point {
    method: String,
    keep_rate: f64,
    phase: Phase,
    /// Index of its sample.
    sample: usize,
    seed: u64,
    draw: u64,
    top1: f64,
}

impl Point {
    /// Whether both are of the same net, but for the draw of its sample.
    fn is_same_net(&self, other: &Self) -> bool {
        (&self.method, self.keep_rate, self.phase, self.sample, self.seed)
            == (&other.method, other.keep_rate, other.phase, other.sample, other.seed)
    }

    fn is_same_cell(&self, other: &Self) -> bool {
        self.is_same_net(other) && self.draw == other.draw
    }
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
    let mut phases = study.phases_of_cuts();
    phases.retain(|&phase| phase != Phase::AfterCut);
    let phases = &phases[phases.len().saturating_sub(PHASES)..];
    let Some(&last) = phases.last().filter(|_| is_any_drawn_again(&samples)) else {
        return Ok(None);
    };
    let mut sizes: Vec<(u64, u64)> = samples.iter().map(|sample| (sample.images, sample.positions)).collect();
    sizes.sort_unstable();
    sizes.dedup();
    let mut methods: Vec<&Method> =
        study.methods.iter().filter(|method| method.selector != FROM_SCRATCH).collect();
    let points = points(&samples, &sizes, &methods, sheet, phases)?;
    let mut seeds: Vec<u64> = Vec::new();
    for point in &points {
        index_of(&mut seeds, point.seed);
    }
    methods.retain(|method| points.iter().any(|point| point.method == method.label));
    let left_out = methods.len().saturating_sub(METHODS);
    methods.truncate(METHODS);
    let rates = study.some_rates(&first.variant, RATES);
    let is_drawn =
        |point: &&Point| rates.contains(&point.keep_rate) && methods.iter().any(|m| m.label == point.method);
    let drawn: Vec<&Point> = points.iter().filter(is_drawn).collect();
    let axis = percent_axis(drawn.iter().map(|point| point.top1));
    let width = STRIP * sizes.len() as f64;
    let names: Vec<String> =
        sizes.iter().map(|(images, positions)| format!("{images}×{positions}")).collect();
    let mut views = Vec::new();
    for (&rate, &phase) in rates.iter().flat_map(|rate| phases.iter().map(move |phase| (rate, phase))) {
        for method in &methods {
            let is_here =
                |p: &&Point| (p.method.as_str(), p.keep_rate, p.phase) == (&method.label, rate, phase);
            let row = |point: &Point| {
                json!({
                    "sample": names[point.sample], "net": format!("seed {}", point.seed), "draw": point.draw,
                    "top1": point.top1,
                })
            };
            let rows: Vec<Value> = points.iter().filter(is_here).map(row).collect();
            let of_rate = if rates.len() > 1 { format!(", keep rate {rate}") } else { String::new() };
            let title = format!("{}, {}{of_rate}", method.label, word(phase));
            views.push(panel(&title, &rows, &names, &seeds, method, &axis, width));
        }
    }
    let left_out = match left_out {
        0 => String::new(),
        1 => " One more method is in the table.".to_owned(),
        count => format!(" {count} more methods are in the table."),
    };
    let nets = match seeds.len() {
        1 => "one dense net".to_owned(),
        nets => format!("each of {nets} dense nets"),
    };
    let omitted: Vec<&str> =
        all.iter().filter(|sample| sample.others != first.others).map(|s| s.variant.as_str()).collect();
    let omitted = match omitted.is_empty() {
        true => String::new(),
        false => format!(" Not shown, as they differ in more than the sample: {}.", omitted.join("; ")),
    };
    let listed: Vec<String> = rates.iter().map(f64::to_string).collect();
    let caption = format!(
        "{}, {}{}, {}, keep rate {}: top-1, %, after {} of each sample on {} (a mark each, nets side by side; bar: mean of a \
         net). A sample of images×positions has so many images of each class and so many positions of each image. Refit: \
         after the method's reconstruction{}.{left_out}{}{}{}",
        study.dataset,
        study.net,
        study.training(),
        study.mode_of(&first.variant),
        listed.join(" and "),
        draws_of(&drawn),
        nets,
        if phases.contains(&Phase::AfterBatchNormEstimate) {
            "; BN: with the statistics of batch norm measured again on the sample's images"
        } else {
            ""
        },
        omitted,
        study.rates_not_drawn(&first.variant, RATES),
        study.gaps(last)
    );
    let about = About {
        name: format!("{}-draws", study.table),
        title: format!("Accuracy over draws of the calibration sample on {}", study.dataset),
        caption,
        tables: vec![study.table.clone(), format!("{}{DRAWS}", study.table)],
        width: methods.len() as f64 * (width + 62.0) + 10.0,
    };
    Ok(Some(figure(about, json!({ "concat": views, "columns": methods.len().max(1) }))))
}

/// `6 draws`, or `1 to 6 draws` where some of these have fewer.
fn draws_of(points: &[&Point]) -> String {
    let count = |point: &&Point| points.iter().filter(|other| other.is_same_net(point)).count();
    let counts: Vec<usize> = points.iter().map(count).collect();
    match (counts.iter().min().copied().unwrap_or(0), counts.iter().max().copied().unwrap_or(0)) {
        (least, most) if least == most => format!("{most} draws"),
        (least, most) => format!("{least} to {most} draws"),
    }
}

/// As in the headings of tables.
fn word(phase: Phase) -> &'static str {
    match phase {
        Phase::AfterFineTune => "tuned",
        Phase::AfterBatchNormEstimate => "BN",
        _ => "refit",
    }
}

fn points(
    samples: &[&VariantSample],
    sizes: &[(u64, u64)],
    methods: &[&Method],
    sheet: &Sheet,
    phases: &[Phase],
) -> Result<Vec<Point>, FigureError> {
    let mut points: Vec<Point> = Vec::new();
    for row in sheet.rows() {
        let variant = sheet.text(row, VARIANT).unwrap_or_default();
        let Some(of) = samples.iter().find(|sample| sample.variant == variant) else { continue };
        let Some(sample) = sizes.iter().position(|size| *size == (of.images, of.positions)) else { continue };
        let method = sheet.label(row, "method");
        if !methods.iter().any(|known| known.label == method) {
            continue;
        }
        for &phase in phases {
            let column = format!("{}_top1", phase.name().replace('-', "_"));
            let Some(top1) = sheet.number(row, &column)? else { continue };
            let (keep_rate, seed) = (sheet.required(row, "keep_rate")?, sheet.count(row, "seed")?);
            let point = Point { method: method.clone(), keep_rate, phase, sample, seed, draw: of.draw, top1 };
            // A draw that two variants name is shown once.
            if !points.iter().any(|known| known.is_same_cell(&point)) {
                points.push(point);
            }
        }
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
            views.iter().filter(|v| v["title"]["text"] == "thinet, tuned, keep rate 0.5").collect();
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
            rows.iter().map(value).filter(|row| row.0 == "10×10" && row.1.contains("seed 1")).collect();
        // Tuned to 89, and two points more with each draw.
        assert_eq!(
            of_ten.iter().map(|row| (row.2, row.3)).collect::<Vec<_>>(),
            [(0, 89.0), (1, 91.0), (2, 93.0)]
        );
        assert_eq!(rows.len(), 8, "four samples of two nets");
        assert!(
            figure.caption.contains("after 1 to 3 draws of each sample on each of 2 dense nets"),
            "{}",
            figure.caption
        );
    }

    #[test]
    fn samples_and_draws_of_nets_trained_in_bfloat16_say_so() {
        for (study, name) in [(with_draws(), "draws"), (with_sizes(), "samples")] {
            let dir = folder_with_spec(&study);
            assert!(!find(&draw(&dir), name).caption.contains("bfloat16"), "{name}");
            let path = dir.path().join(format!("{}.resolved.toml", study.table));
            let spec = fs::read_to_string(&path).unwrap();
            fs::write(&path, format!("[compute]\nprecision = \"bf16\"\n{spec}")).unwrap();
            let caption = find(&draw(&dir), name).caption.clone();
            assert!(caption.contains("tiny, 1×8×8, trained in bfloat16, "), "{name}: {caption}");
        }
    }

    /// Two variants that differ in the size of their samples.
    fn with_sizes() -> StudyRecord {
        let mut study = with_variants();
        study.variants[1].sample.images_per_class = 5;
        study
    }

    #[test]
    fn a_study_of_single_draws_has_no_such_figure_and_one_of_several_no_heat_map() {
        let names = |study: StudyRecord| -> Vec<String> {
            draw(&folder_with_spec(&study)).drawn.iter().map(|figure| figure.name.clone()).collect()
        };
        let ends = |names: &[String], suffix: &str| names.iter().any(|name| name.ends_with(suffix));
        let several = names(with_draws());
        assert!(ends(&several, "-draws") && !ends(&several, "-samples"), "{several:?}");
        let mut other_sizes = with_draws();
        other_sizes.variants.retain(|variant| !variant.name.ends_with("draw 2"));
        other_sizes.cells.retain(|cell| !cell.variant.as_deref().unwrap().ends_with("draw 2"));
        other_sizes.variants[1].sample.images_per_class = 5;
        assert!(!ends(&names(other_sizes), "-draws"), "no sample is drawn again");
        let single = names(with_variants());
        assert!(!ends(&single, "-draws"), "{single:?}");
    }
}
