//! Agreement of the kept channels: the Jaccard index |A ∩ B| / |A ∪ B| between the methods of a study, and between its seeds.

use serde_json::{Value, json};

use super::kept::KeptCell;
use super::spec::{About, Figure, figure};
use super::study::Study;
use super::style::{DARK, HEAT, INK};

/// At most so many keep rates, a panel each.
const PANELS: usize = 3;
/// Side of a field, pixels.
const FIELD: f64 = 36.0;

/// The mean of some values.
fn mean(values: &[f64]) -> Option<f64> {
    thinet_metrics::mean(values)
}

/// The Jaccard index of two cells, the mean over the layers that both pruned.
fn jaccard(a: &KeptCell, b: &KeptCell) -> Option<f64> {
    let of_layers = a.kept.iter().filter_map(|(layer, a)| {
        let b = b.kept.get(layer).filter(|b| b.width() == a.width())?;
        let common = a.kept().iter().filter(|channel| b.kept().contains(channel)).count();
        let all = a.kept().len() + b.kept().len() - common;
        Some(common as f64 / all as f64)
    });
    mean(&of_layers.collect::<Vec<_>>())
}

/// What two independent random choices of a cell's numbers of channels would agree in, the mean over its layers.
fn chance(cell: &KeptCell) -> Option<f64> {
    mean(&cell.kept.values().map(|set| expected(set.width(), set.kept().len())).collect::<Vec<_>>())
}

/// The expected Jaccard index of two random sets of `k` out of `n` channels: the common ones are hypergeometric.
fn expected(n: usize, k: usize) -> f64 {
    let ln_choose =
        |n: usize, k: usize| (0..k).map(|i| ((n - i) as f64).ln() - ((i + 1) as f64).ln()).sum::<f64>();
    let whole = ln_choose(n, k);
    ((2 * k).saturating_sub(n)..=k)
        .map(|common| {
            let weight = (ln_choose(k, common) + ln_choose(n - k, k - common) - whole).exp();
            weight * common as f64 / (2 * k - common) as f64
        })
        .sum()
}

/// The figure of a study; `Err`: why there is none.
pub(super) fn agreement(study: &Study, cells: &[KeptCell]) -> Result<Figure, String> {
    let first = study.first();
    let cells: Vec<&KeptCell> = cells.iter().filter(|cell| cell.variant == first).collect();
    let labels = study.methods.iter().map(|method| method.label.as_str());
    let labels: Vec<&str> = labels.filter(|label| cells.iter().any(|cell| cell.method == *label)).collect();
    let mut seeds: Vec<u64> = cells.iter().map(|cell| cell.seed).collect();
    seeds.sort_unstable();
    seeds.dedup();
    let between_seeds = seeds.len() > 1;
    if labels.len() < 2 {
        return Err(format!("{} has kept channels of fewer than two methods", study.table));
    }
    let find = |method: &str, rate: f64, seed: u64| {
        cells
            .iter()
            .find(|cell| (cell.method.as_str(), cell.keep_rate, cell.seed) == (method, rate, seed))
            .copied()
    };
    let (mut views, mut chances) = (Vec::new(), Vec::new());
    let (down, across) =
        if between_seeds { (&labels[..], &labels[..]) } else { (&labels[1..], &labels[..labels.len() - 1]) };
    for rate in study.some_rates(first, PANELS) {
        let mut rows = Vec::new();
        for (at, a) in labels.iter().enumerate() {
            for b in &labels[..=at] {
                let mut values = Vec::new();
                for (i, &one) in seeds.iter().enumerate() {
                    // Between methods the same seed, which is the same dense net; within a method two seeds.
                    let others = if a == b { &seeds[i + 1..] } else { &seeds[i..=i] };
                    for &other in others {
                        let pair = find(a, rate, one).zip(find(b, rate, other));
                        values.extend(pair.and_then(|(a, b)| jaccard(a, b)));
                    }
                }
                let value = mean(&values);
                rows.extend(value.map(|value| {
                    json!({ "a": a, "b": b, "jaccard": value, "text": format!("{value:.2}"), "n": values.len() })
                }));
            }
        }
        if rows.is_empty() {
            continue;
        }
        let by_chance = cells.iter().find(|cell| cell.keep_rate == rate).and_then(|cell| chance(cell));
        chances.extend(by_chance.map(|value| format!("{value:.2} at {rate}")));
        views.push(panel(rate, &rows, down, across, views.is_empty()));
    }
    let count = views.len() as f64;
    let diagonal = match between_seeds {
        true => {
            " Diagonal: the same method with two seeds; each seed has a dense net of its own, whose channels do not correspond, \
             so chance is what to expect there."
        }
        false => "",
    };
    let caption = format!(
        "{}, {}{}, {}, {}: Jaccard index of the channels that two methods keep, mean over layers and seeds; 1 is the same \
         channels. Two random choices would have {}.{diagonal}{}",
        study.dataset,
        study.net,
        study.training(),
        study.first_variant(),
        study.n(),
        chances.join(", "),
        study.rates_not_drawn(first, PANELS),
    );
    let about = About {
        name: format!("{}-agreement", study.table),
        title: format!("Agreement of the kept channels on {}", study.dataset),
        caption,
        tables: vec![format!("{}.kept.json", study.table)],
        width: count * (FIELD * across.len() as f64 + 26.0) + 130.0,
    };
    Ok(figure(about, json!({ "hconcat": views })))
}

fn panel(rate: f64, rows: &[Value], down: &[&str], across: &[&str], is_first: bool) -> Value {
    let labels = if is_first {
        json!({ "title": null, "domain": false, "ticks": false, "grid": false })
    } else {
        Value::Null
    };
    json!({
        "title": { "text": format!("keep rate {rate}"), "fontSize": 14, "anchor": "start", "frame": "group", "color": INK, "offset": 8 },
        "width": FIELD * across.len() as f64, "height": FIELD * down.len() as f64, "data": { "values": rows },
        "encoding": {
            "x": {
                "field": "b", "type": "nominal", "scale": { "domain": across },
                "axis": { "title": null, "labelAngle": -40, "domain": false, "ticks": false, "grid": false },
            },
            "y": { "field": "a", "type": "nominal", "scale": { "domain": down }, "axis": labels },
        },
        "layer": [
            { "mark": { "type": "rect", "stroke": "white", "strokeWidth": 1.5 },
              "encoding": {
                  "color": {
                      "field": "jaccard", "type": "quantitative", "legend": null,
                      "scale": { "domain": [0, 1], "range": HEAT },
                  },
                  "tooltip": [
                      { "field": "a", "title": "method" }, { "field": "b", "title": "method" },
                      { "field": "jaccard", "title": "Jaccard index", "format": ".3f" }, { "field": "n", "title": "pairs" },
                  ],
              } },
            { "mark": { "type": "text", "fontSize": 13 },
              "encoding": {
                  "text": { "field": "text" },
                  "color": { "condition": { "test": format!("datum.jaccard > {DARK}"), "value": "white" }, "value": INK },
              } },
        ],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chance_is_that_of_two_random_sets() {
        // Two of four: common 0, 1, 2 in 1, 4, 1 of 6 cases; Jaccard 0, 1/3, 1.
        assert!((expected(4, 2) - (4.0 / 3.0 + 1.0) / 6.0).abs() < 1e-12, "{}", expected(4, 2));
        // Three of four: common 2 in 3 of 4 cases, 3 in one; Jaccard 1/2, 1.
        assert!((expected(4, 3) - (3.0 * 0.5 + 1.0) / 4.0).abs() < 1e-12, "{}", expected(4, 3));
        assert!((expected(5, 5) - 1.0).abs() < 1e-12);
        assert!((expected(8, 1) - 1.0 / 8.0).abs() < 1e-12);
    }
}
