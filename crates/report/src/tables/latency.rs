//! The `latency` table: forward and backward time of the paper's eight models, ratios beside those of the printed times
//! (Luo et al. 2017, tables 1 and 3, "f./b.").

use polars::frame::DataFrame;
use thinet_metrics::Spread;

use super::frame::column;
use super::latency_grids::{measured, notes, printed, ratios};
use super::latency_lines::{Line, is_verified, lines};
use super::latency_record::{LatencyRecord, NAME};
use super::{Attachment, ENVIRONMENT, Table, TableError, environment_text};
use crate::published::Published;

/// Times of the eight models and ratios to the dense net of their family; models that were not timed are marked.
///
/// # Errors
/// If the published numbers are inconsistent, a model cannot be built, or the environment cannot be written as JSON.
pub fn latency(record: &LatencyRecord) -> Result<Table, TableError> {
    let published = Published::load()?;
    let lines = lines(record, &published)?;
    let environment = environment_text(&record.environment)?;
    Ok(Table {
        name: NAME.to_owned(),
        title: "Forward and backward time of the paper's models, 224×224 images".to_owned(),
        frame: frame(record, &lines)?,
        grids: vec![measured(record, &lines), ratios(&lines), printed(&lines)],
        notes: notes(record, &lines, &published),
        attachments: vec![Attachment { suffix: ENVIRONMENT, text: environment }],
    })
}

fn frame(record: &LatencyRecord, lines: &[Line]) -> Result<DataFrame, TableError> {
    let environment = &record.environment;
    let forward = |get: fn(&Spread) -> f64| move |l: &Line| l.ours.map(|o| get(&o.forward));
    let both = |get: fn(&Spread) -> f64| move |l: &Line| l.ours.map(|o| get(&o.both));
    let columns = vec![
        column("model", lines, |l| l.model),
        column("device", lines, |_| environment.device.as_str()),
        column("processor", lines, |_| environment.cpu.as_deref()),
        column("threads", lines, |_| environment.threads as u64),
        column("batch", lines, |_| record.batch as u64),
        column("repeats", lines, |l| l.ours.map(|_| record.repeats as u64)),
        column("forward_ms", lines, forward(|s| s.median)),
        column("forward_ms_min", lines, forward(|s| s.min)),
        column("forward_ms_max", lines, forward(|s| s.max)),
        column("forward_ms_mad", lines, forward(|s| s.mad)),
        column("forward_backward_ms", lines, both(|s| s.median)),
        column("forward_backward_ms_min", lines, both(|s| s.min)),
        column("forward_backward_ms_max", lines, both(|s| s.max)),
        column("forward_backward_ms_mad", lines, both(|s| s.mad)),
        column("backward_ms", lines, |l| l.ours.map(|o| o.backward())),
        column("forward_times_faster", lines, |l| l.faster().map(|f| f.forward)),
        column("backward_times_faster", lines, |l| l.faster().and_then(|f| f.backward)),
        column("published_forward_ms", lines, |l| l.published.forward_ms.printed.value()),
        column("published_backward_ms", lines, |l| l.published.backward_ms.printed.value()),
        column("published_ms_verified", lines, |l| is_verified(l.published)),
        column("published_forward_times_faster", lines, |l| l.published_faster()[0]),
        column("published_backward_times_faster", lines, |l| l.published_faster()[1]),
        column("published_times_faster_verified", lines, Line::published_faster_verified),
        column("cpu_family", lines, |_| record.cpu.family.as_deref()),
        column("cpu_model", lines, |_| record.cpu.model.as_deref()),
        column("cpu_stepping", lines, |_| record.cpu.stepping.as_deref()),
        column("instruction_set", lines, |_| record.cpu.instruction_set.as_str()),
        column("cores", lines, |_| record.cpu.cores as u64),
        column("libtorch", lines, |_| environment.libtorch.as_str()),
        column("tf32", lines, |_| record.tf32),
    ];
    Ok(DataFrame::new(lines.len(), columns)?)
}

#[cfg(test)]
mod tests;
