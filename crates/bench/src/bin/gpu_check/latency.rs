//! The latencies of the paper's eight models, measured and tabled as `thinet latency` does.

use std::path::Path;

use anyhow::{Context as _, Result};
use tch::Device;
use thinet_harness::{LatencyOptions, latency, tables};
use thinet_metrics::Spread;
use thinet_models::{ResNetStride, paper_models};

use crate::child::Message;
use crate::nets::Scale;
use crate::report::Row;
use crate::run::threads;

pub(crate) const SECTION: &str = "latency";
/// The batch of the paper's times.
const BATCH: usize = 32;

/// The models that are timed.
pub(crate) fn models(scale: Scale) -> Result<Vec<String>> {
    let names = paper_models(ResNetStride::First1x1)?.into_iter().map(|model| model.name.to_owned());
    // The tables take ratios to the dense net: one pair is enough to see that they work.
    Ok(names.filter(|name| !scale.tiny || name.starts_with("resnet") || name == "thinet-30").collect())
}

/// The child process: writes the table, then sends a row for each figure.
pub(crate) fn serve(out: &Path, device: Device, scale: Scale) -> Result<()> {
    let (batch, repeats) = if scale.tiny { (1, 1) } else { (BATCH, 10) };
    let options = LatencyOptions { device, batch, repeats, threads: threads(), models: models(scale)? };
    let record = latency(&options, &mut |_| ())?;
    tables::write(out, &tables::latency(&record)?, &record.run())?;
    for model in &record.models {
        for (metric, times) in [("forward", &model.forward_ms), ("forward + backward", &model.both_ms)] {
            let spread = Spread::of(times).context("no times")?;
            Message::Row(Row::number(SECTION, &model.model, metric, spread.median, "ms")).send();
        }
    }
    Ok(())
}
