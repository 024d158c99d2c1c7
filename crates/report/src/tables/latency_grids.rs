//! Grids and notes of the `latency` table: measured times, and their ratios beside those of the printed times.

use thinet_metrics::Spread;

use super::latency_lines::{Line, Speedup, is_verified};
use super::latency_record::LatencyRecord;
use super::markdown::Grid;
use super::notes::sources_note;
use crate::published::{Figure, Latency, Published};
use crate::records::Environment;

/// Text of cells that were not measured.
const NOT_RUN: &str = "not run";
/// Text in place of a ratio of times that are not positive.
const IN_NOISE: &str = "lost in noise";
/// Batch size of the published times.
const PUBLISHED_BATCH: usize = 32;

pub(super) fn measured(record: &LatencyRecord, lines: &[Line]) -> Grid {
    let Environment { device, threads, .. } = &record.environment;
    let processor = record.cpu.describe();
    let host = if record.environment.gpu.is_some() { "host: " } else { "" };
    let plural = |n: usize| if n == 1 { "" } else { "s" };
    let caption = format!(
        "Measured: {device} ({host}{processor}), {threads} thread{}, batch of {}, median of {} repeat{}",
        plural(*threads),
        record.batch,
        record.repeats,
        plural(record.repeats)
    );
    let headings =
        ["<model", "forward, ms", "min to max", "forward + backward, ms", "min to max", "backward, ms"];
    let mut grid = Grid::new(caption, &headings);
    for line in lines {
        let mut row = vec![line.model.to_owned()];
        match line.ours {
            Some(ours) => row.extend([
                ms(ours.forward.median),
                range(&ours.forward),
                ms(ours.both.median),
                range(&ours.both),
                ms(ours.backward()),
            ]),
            None => row.extend(std::iter::repeat_n(NOT_RUN.to_owned(), headings.len() - 1)),
        }
        grid.rows.push(row);
    }
    grid
}

pub(super) fn ratios(lines: &[Line]) -> Grid {
    let headings = ["<model", "forward, ours", "forward, M40", "backward, ours", "backward, M40"];
    let mut grid = Grid::new("Times faster than the dense net of the family", &headings);
    for line in lines.iter().filter(|line| !line.is_dense) {
        let (ours, [forward, backward]) = (line.faster(), line.published_faster());
        let shown = |times: f64| format!("{times:.2}");
        let our_backward = |f: Speedup| f.backward.map_or(IN_NOISE.to_owned(), shown);
        let label = labelled(line.published_faster_verified());
        grid.rows.push(vec![
            line.model.to_owned(),
            ours.map_or(NOT_RUN.to_owned(), |f| shown(f.forward)),
            label(shown(forward)),
            ours.map_or(NOT_RUN.to_owned(), our_backward),
            label(shown(backward)),
        ]);
    }
    grid
}

pub(super) fn printed(lines: &[Line]) -> Grid {
    let caption = format!("Published: batch of {PUBLISHED_BATCH} on one M40");
    let mut grid = Grid::new(caption, &["<model", "forward, ms", "backward, ms"]);
    for line in lines {
        let shown = |figure: &Figure| labelled(figure.verified)(figure.printed.printed().to_owned());
        let Latency { forward_ms, backward_ms, .. } = line.published;
        grid.rows.push(vec![line.model.to_owned(), shown(forward_ms), shown(backward_ms)]);
    }
    grid
}

fn labelled(verified: bool) -> impl Fn(String) -> String {
    move |text| if verified { text } else { format!("{text} (unverified)") }
}

fn range(spread: &Spread) -> String {
    format!("{} to {}", ms(spread.min), ms(spread.max))
}

/// Formats milliseconds with about four digits; more would be noise.
fn ms(value: f64) -> String {
    let decimals = if value.abs() < 100.0 { 2 } else { 1 };
    format!("{value:.decimals$}")
}

pub(super) fn notes(record: &LatencyRecord, lines: &[Line], published: &Published) -> Vec<String> {
    let warm_up = record.warm_up;
    let mut notes = vec![
        "Random weights and images, 32-bit floats, batch norm not folded, ResNet-50 with its stride in the first 1×1. \
         The clock is read when the device is idle."
            .to_owned(),
        format!(
            "Each model is run {warm_up} time{} before the timings. Repeats go round the models in turn, so that a \
             machine that slows down slows down all of them.",
            if warm_up == 1 { "" } else { "s" }
        ),
        "Forward: evaluation mode, no gradients recorded. Forward + backward: training mode, loss and the gradients of \
         all weights. Backward is the difference of the two medians; the paper's two columns were timed apart, in \
         Caffe."
            .to_owned(),
        "Times faster: time of the dense VGG-16 or ResNet-50 / time of the model. Compare ratios, not times, across \
         devices; and with care where the batch is smaller: the gradients of VGG-16's fully connected layers are as \
         large for any batch."
            .to_owned(),
    ];
    if record.environment.gpu.is_some() {
        let tf32 = if record.tf32 { "allowed" } else { "off" };
        notes.push(format!(
            "TF32 is {tf32} for convolutions and matrix products; which of its 32-bit kernels run is libtorch's own choice."
        ));
    }
    let figures = lines.iter().flat_map(|l| [&l.published.forward_ms, &l.published.backward_ms]);
    notes.extend(sources_note(published, figures.filter(|figure| figure.verified)));
    if !lines.iter().all(|line| is_verified(line.published)) {
        notes.push(
            "Unverified: recalled from the paper, no source opened; so is a ratio of which either time is."
                .to_owned(),
        );
    }
    notes
}
