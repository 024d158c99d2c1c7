//! Widths: how many channels each layer keeps at each keep rate, with what remains of the whole net.

use serde_json::{Value, json};

use super::kept::{KeptCell, natural_order};
use super::spec::{About, Figure, figure};
use super::study::{Group, Study};
use super::style::{DARK, HEAT, INK, layer_angle};
use crate::tables::LAYERS;

/// Height of a row, pixels.
const ROW: f64 = 30.0;

/// How many channels a variant keeps.
#[derive(PartialEq)]
struct Widths {
    layers: Vec<String>,
    /// Channels before, by layer.
    whole: Vec<usize>,
    /// By keep rate, high to low: the rate, the fraction of FLOPs, and channels kept by layer.
    rates: Vec<(f64, f64, Vec<Option<usize>>)>,
}

/// The widths of a variant; `Err`: why there are none.
fn widths_of(study: &Study, cells: &[KeptCell], variant: &str) -> Result<Widths, String> {
    let cells: Vec<&KeptCell> = cells.iter().filter(|cell| cell.variant == variant).collect();
    let mut layers: Vec<String> = cells.iter().flat_map(|cell| cell.kept.keys().cloned()).collect();
    natural_order(&mut layers);
    layers.dedup();
    if layers.is_empty() {
        return Err(format!("{} has no kept channels", study.table));
    }
    let whole =
        |layer: &String| cells.iter().find_map(|cell| cell.kept.get(layer)).map_or(0, |set| set.width());
    let whole = layers.iter().map(whole).collect();
    let mut keep_rates = study.keep_rates.clone();
    keep_rates.sort_by(|a, b| b.total_cmp(a));
    let mut rates = Vec::new();
    for rate in keep_rates {
        let is_it = |group: &&Group| group.keep_rate == rate && group.variant == variant;
        let Some(group) = study.groups.iter().find(is_it) else { continue };
        let of_rate: Vec<&&KeptCell> = cells.iter().filter(|cell| cell.keep_rate == rate).collect();
        if of_rate.is_empty() {
            continue;
        }
        let mut kept = Vec::new();
        for layer in &layers {
            let mut counts =
                of_rate.iter().filter_map(|cell| cell.kept.get(layer)).map(|set| set.kept().len());
            let first = counts.next();
            if counts.any(|other| Some(other) != first) {
                return Err(format!("the methods of {} keep different numbers of channels", study.table));
            }
            kept.push(first);
        }
        rates.push((rate, group.flops_fraction, kept));
    }
    Ok(Widths { layers, whole, rates })
}

/// The figure of a study; `Err`: why there is none. Where variants have other layers or rates, it shows the first one.
pub(super) fn widths(study: &Study, cells: &[KeptCell]) -> Result<Figure, String> {
    let shown = widths_of(study, cells, study.first())?;
    // Variants of which nothing is stored say nothing else.
    let is_stored = |name: &&String| cells.iter().any(|cell| cell.variant == **name && !cell.kept.is_empty());
    let (mut not_shown, mut without) = (String::new(), Vec::new());
    for name in study.variants.iter().skip(1).filter(is_stored) {
        match widths_of(study, cells, name) {
            Ok(other) if other == shown => {}
            Ok(_) => not_shown = " Other variants have other layers or rates.".to_owned(),
            // A ranking of all layers gives each method and seed widths of its own.
            Err(_) => without.push(format!("\u{201c}{name}\u{201d}")),
        }
    }
    if !without.is_empty() {
        not_shown += &format!(
            " Not shown: {}, whose widths differ between methods or seeds (table {}{LAYERS}).",
            without.join(", "),
            study.table
        );
    }
    let how = if not_shown.is_empty() { study.modes() } else { study.first_variant() };
    let Widths { layers, whole: channels, rates } = shown;
    let whole = "dense net".to_owned();
    let (mut rows, mut labels) = (Vec::new(), vec![whole.clone()]);
    for (layer, width) in layers.iter().zip(&channels) {
        rows.push(json!({ "layer": layer, "label": whole, "channels": width, "of": width }));
    }
    for (rate, flops_fraction, kept) in rates {
        let label = format!("{rate}  ({:.0} % of FLOPs)", 100.0 * flops_fraction);
        for ((layer, kept), width) in layers.iter().zip(kept).zip(&channels) {
            let Some(kept) = kept else { continue };
            rows.push(json!({ "layer": layer, "label": label, "channels": kept, "of": width }));
        }
        labels.push(label);
    }
    let column = if layers.len() > 14 { 44.0 } else { 62.0 };
    let size = [column * layers.len() as f64, ROW * labels.len() as f64];
    let caption = format!(
        "{}, {}, {how}, {}: channels kept in each pruned layer, the same for all methods and seeds. First row: before \
         pruning.{not_shown}",
        study.dataset,
        study.net,
        study.n(),
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
                    "title": "pruned layer", "orient": "bottom", "labelAngle": layer_angle(layers, size[0] / layers.len() as f64),
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

#[cfg(test)]
mod tests {
    use super::super::tests::{draw, find, folder, rows};
    use crate::tables::sample::with_variants;

    #[test]
    fn widths_are_those_of_the_first_variant_where_variants_differ() {
        let mut variants = with_variants();
        let drawn = draw(&folder(&variants));
        let same = find(&drawn, "widths");
        assert!(
            same.caption.contains("layer-by-layer and one-shot, n = 2 seeds: channels kept"),
            "{}",
            same.caption
        );
        for cell in variants.cells.iter_mut().filter(|cell| cell.variant.as_deref() == Some("at once")) {
            cell.kept.remove("conv1");
            cell.keep_rate += 0.125;
        }
        let drawn = draw(&folder(&variants));
        let first = find(&drawn, "widths");
        assert!(
            first.caption.contains("layer-by-layer, variant \u{201c}plain\u{201d}, n = "),
            "{}",
            first.caption
        );
        assert!(first.caption.ends_with(" Other variants have other layers or rates."), "{}", first.caption);
        assert_eq!(rows(&first.spec, "channels"), rows(&same.spec, "channels"));
    }

    #[test]
    fn widths_that_differ_between_methods_are_said_to_be_in_the_table_of_layers() {
        let mut study = with_variants();
        let of_variant = |variant: &Option<String>| variant.as_deref() == Some("at once");
        let cell = study.cells.iter_mut().find(|cell| of_variant(&cell.variant)).unwrap();
        let fewer = thinet_graph::ChannelSet::new(cell.kept["conv1"].width(), vec![0]).unwrap();
        cell.kept.insert("conv1".to_owned(), fewer);
        let drawn = draw(&folder(&study));
        let caption = &find(&drawn, "widths").caption;
        let expected = "before pruning. Not shown: \u{201c}at once\u{201d}, whose widths differ between methods or seeds (table \
                        selectors-invented-layers).";
        assert!(caption.ends_with(expected), "{caption}");
    }
}
