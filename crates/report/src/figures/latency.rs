//! Latency against FLOPs: what remains of a model's time beside what remains of its FLOPs, measured here and published.

use serde_json::{Value, json};

use super::FigureError;
use super::source::{Sheet, Tables};
use super::spec::{About, Figure, figure};
use super::style::{INK, REFERENCE};

const LATENCY: &str = "latency";
const COMPRESSION: &str = "compression";
const NEEDED: [&str; 15] = [
    "model",
    "device",
    "processor",
    "threads",
    "batch",
    "repeats",
    "forward_ms",
    "forward_ms_min",
    "forward_ms_max",
    "forward_backward_ms",
    "forward_backward_ms_min",
    "forward_backward_ms_max",
    "published_forward_ms",
    "published_backward_ms",
    "published_ms_verified",
];
/// The original of each family, its models, their colour and mark.
const FAMILIES: [(&str, &[&str], &str, &str); 2] = [
    ("VGG-16", &["VGG-16", "ThiNet-Conv", "ThiNet-GAP", "ThiNet-Tiny"], "#0072B2", "circle"),
    ("ResNet-50", &["ResNet-50", "ThiNet-70", "ThiNet-50", "ThiNet-30"], "#D55E00", "square"),
];

/// A time with its range.
#[derive(Clone, Copy)]
struct Time {
    median: f64,
    range: Option<[f64; 2]>,
}

/// The time in a row of the table, if it holds one.
type TimeOf<'a> = dyn Fn(usize) -> Result<Option<Time>, FigureError> + 'a;

/// The figure; `Err`: why there is none.
pub(super) fn latency(tables: &mut Tables) -> Result<Result<Figure, String>, FigureError> {
    let Some(times) = tables.sheet(LATENCY, &NEEDED)? else {
        return Ok(Err(super::missing(LATENCY, "csv")));
    };
    let Some(sizes) = tables.sheet(COMPRESSION, &["model", "convention", "flops"])? else {
        return Ok(Err(super::missing(COMPRESSION, "csv")));
    };
    let mut views = Vec::new();
    let panels: [(&str, &TimeOf); 4] = [
        ("Forward, measured here", &|row| measured(&times, row, "forward")),
        ("Forward and backward, measured here", &|row| measured(&times, row, "forward_backward")),
        ("Forward, published", &|row| {
            Ok(times.number(row, "published_forward_ms")?.map(|median| Time { median, range: None }))
        }),
        ("Forward and backward, published", &|row| {
            let (forward, backward) =
                (times.number(row, "published_forward_ms")?, times.number(row, "published_backward_ms")?);
            Ok(forward.zip(backward).map(|(a, b)| Time { median: a + b, range: None }))
        }),
    ];
    for ((title, time), letter) in panels.iter().zip('a'..) {
        let rows = points(&times, &sizes, *time)?;
        if !rows.is_empty() {
            views.push(panel(&format!("{letter}\u{2002}{title}"), &rows));
        }
    }
    if views.is_empty() {
        return Ok(Err("the latency table holds no times of the eight models".to_owned()));
    }
    let row = 0;
    let base = |model: &str| -> Result<String, FigureError> {
        let found = times.rows().find(|&row| times.text(row, "model") == Some(model));
        let time = found.map(|row| times.number(row, "forward_ms")).transpose()?.flatten();
        Ok(time.map(|ms| format!("{model} {ms:.0} ms")).unwrap_or_default())
    };
    let processor = times.text(row, "processor").unwrap_or("unknown processor");
    let threads = match times.text(row, "threads") {
        Some("1") => ", 1 thread".to_owned(),
        Some(threads) => format!(", {threads} threads"),
        None => String::new(),
    };
    let mut is_verified = true;
    for row in times.rows() {
        is_verified &= times.flag(row, "published_ms_verified")?;
    }
    let source = if is_verified { "" } else { " (in part recalled, not checked in the source)" };
    let caption = format!(
        "Images 3×224×224, batches of {}. Measured: {} ({processor}{threads}), median of {} repeats, bars: fastest and slowest; originals \
         forward: {}, {}. Published: Luo et al. 2017, one M40 GPU{source}. Circles: VGG-16 and its pruned models; squares: ResNet-50 and its. Dotted: time \
         in proportion to FLOPs.",
        times.text(row, "batch").unwrap_or("unknown size"),
        times.text(row, "device").unwrap_or("unknown device"),
        times.text(row, "repeats").unwrap_or("some"),
        base(FAMILIES[0].0)?,
        base(FAMILIES[1].0)?,
    );
    let about = About {
        name: "latency-flops".to_owned(),
        title: "Latency against FLOPs of the paper's eight models".to_owned(),
        caption,
        tables: vec![LATENCY.to_owned(), COMPRESSION.to_owned()],
        width: 790.0,
    };
    Ok(Ok(figure(about, json!({ "concat": views, "columns": 2 }))))
}

fn measured(times: &Sheet, row: usize, kind: &str) -> Result<Option<Time>, FigureError> {
    let bound = |ending: &str| times.number(row, &format!("{kind}_ms_{ending}"));
    let range = bound("min")?.zip(bound("max")?).map(|(low, high)| [low, high]);
    Ok(times.number(row, &format!("{kind}_ms"))?.map(|median| Time { median, range }))
}

/// Each model's FLOPs and time in per cent of its original's.
fn points(times: &Sheet, sizes: &Sheet, time: &TimeOf) -> Result<Vec<Value>, FigureError> {
    let time_of = |model: &str| -> Result<Option<Time>, FigureError> {
        let row = times.rows().find(|&row| times.text(row, "model") == Some(model));
        Ok(row.map(time).transpose()?.flatten())
    };
    let flops_of = |model: &str| -> Result<Option<f64>, FigureError> {
        let is_it = |&row: &usize| {
            sizes.text(row, "model") == Some(model) && sizes.text(row, "convention") == Some("paper")
        };
        sizes.rows().find(is_it).map(|row| sizes.required(row, "flops")).transpose()
    };
    let mut rows = Vec::new();
    for (original, models, ..) in FAMILIES {
        let Some((whole, flops)) = time_of(original)?.zip(flops_of(original)?) else { continue };
        for model in models {
            let Some((time, of_model)) = time_of(model)?.zip(flops_of(model)?) else { continue };
            let percent = |ms: f64| 100.0 * ms / whole.median;
            rows.push(json!({
                "model": model, "family": original, "x": 100.0 * of_model / flops, "y": percent(time.median),
                "low": time.range.map(|[low, _]| percent(low)), "high": time.range.map(|[_, high]| percent(high)),
                "ms": time.median, "label": if *model == original { "originals" } else { *model },
            }));
        }
    }
    Ok(rows)
}

fn panel(title: &str, rows: &[Value]) -> Value {
    let scale = |range: Vec<&str>| json!({ "domain": FAMILIES.map(|(name, ..)| name), "range": range });
    let colour = json!({
        "field": "family", "type": "nominal", "scale": scale(FAMILIES.map(|(.., colour, _)| colour).to_vec()), "legend": null,
    });
    let shape = json!({
        "field": "family", "type": "nominal", "scale": scale(FAMILIES.map(|(.., shape)| shape).to_vec()), "legend": null,
    });
    let axis = |field: &str, title: &str| {
        json!({
            "field": field, "type": "quantitative", "title": title, "scale": { "domain": [0, 105], "nice": false },
            "axis": { "values": [0, 20, 40, 60, 80, 100] },
        })
    };
    let (x, y) = (axis("x", "FLOPs, % of the original"), axis("y", "time, % of the original"));
    // Beside the marks, where no other one is.
    let label = |align: &str, [dx, dy]: [i32; 2], models: &[&str]| {
        json!({
            "transform": [{ "filter": { "field": "model", "oneOf": models } }],
            "mark": { "type": "text", "align": align, "baseline": "middle", "dx": dx, "dy": dy, "fontSize": 12 },
            "encoding": { "x": x, "y": y, "text": { "field": "label" } },
        })
    };
    json!({
        "title": { "text": title, "fontSize": 14, "anchor": "start", "frame": "group", "color": INK, "offset": 8 },
        "width": 320, "height": 250, "data": { "values": rows },
        "layer": [
            { "data": { "values": [{ "x": 0, "y": 0 }, { "x": 100, "y": 100 }] },
              "mark": { "type": "line", "color": REFERENCE, "strokeDash": [2, 3], "strokeWidth": 1.2 }, "encoding": { "x": x, "y": y } },
            { "transform": [{ "filter": "isValid(datum.low)" }], "mark": { "type": "rule", "strokeWidth": 1.5 },
              "encoding": { "x": x, "y": axis("low", "time, % of the original"), "y2": { "field": "high" }, "color": colour } },
            { "mark": { "type": "point", "filled": true, "size": 75, "opacity": 1 },
              "encoding": {
                  "x": x, "y": y, "color": colour, "shape": shape,
                  "tooltip": [
                      { "field": "model" }, { "field": "x", "title": "FLOPs, %", "format": ".1f" },
                      { "field": "y", "title": "time, %", "format": ".1f" }, { "field": "ms", "format": ",.1f" },
                  ],
              } },
            label("left", [9, 0], &["ThiNet-Conv"]), label("left", [9, 6], &["ThiNet-Tiny"]),
            label("right", [-9, 0], &["ThiNet-GAP", "ThiNet-70", "ThiNet-30"]), label("center", [0, 14], &["ThiNet-50"]),
            label("right", [-9, -4], &["ResNet-50"]),
        ],
    })
}
