//! The `latency` table: forward and backward time of the paper's eight models, ratios beside those of the printed times
//! (Luo et al. 2017, tables 1 and 3, "f./b.").

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use polars::frame::DataFrame;
use serde_json::{Map, Value};
use thinet_files::FileError;
use thinet_metrics::Spread;
use thinet_nets::{Arch, ResNetStride, paper_models};

use super::frame::column;
use super::latency_grids::{measured, notes, printed, ratios};
use super::{Attachment, ENVIRONMENT, StoredTable, Table, TableError, environment_text, read_table_file};
use crate::published::{Figure, Latency, Published};
use crate::records::{CpuIdentity, Environment};

/// Name of the table and of its files.
const NAME: &str = "latency";

/// What was timed on one machine, with one batch size and number of threads.
#[derive(Clone, Debug, PartialEq)]
pub struct LatencyRecord {
    /// Where: device, processor, threads, versions.
    pub environment: Environment,
    /// The processor; on a GPU that of its host.
    pub cpu: CpuIdentity,
    /// Whether a GPU might round the factors of 32-bit products to TF32.
    pub tf32: bool,
    /// Images in a batch.
    pub batch: usize,
    /// Timings of each model that were thrown away before the first that counts.
    pub warm_up: usize,
    /// Timings of each model that count.
    pub repeats: usize,
    /// The models that were timed, in any order.
    pub models: Vec<ModelTimes>,
}

/// The timings of one model, milliseconds for a batch.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelTimes {
    /// Its name in [`paper_models`].
    pub model: String,
    /// Forward pass in evaluation mode, no gradients recorded.
    pub forward_ms: Vec<f64>,
    /// Forward pass in training mode, loss, and the gradients of all trained tensors.
    pub both_ms: Vec<f64>,
}

impl LatencyRecord {
    /// The run's id in files, see [`latency_run`].
    #[must_use]
    pub fn run(&self) -> String {
        let Environment { device, threads, libtorch, gpu, .. } = &self.environment;
        let card = gpu.as_ref().map(|gpu| gpu.model.clone().unwrap_or_default());
        let machine = Machine { cpu: self.cpu.clone(), libtorch: libtorch.clone(), card };
        latency_run(device, &machine, self.batch, *threads)
    }
}

/// The parts of a machine that a time depends on.
#[derive(Clone, Debug, PartialEq)]
pub struct Machine {
    /// The processor; on a GPU that of its host.
    pub cpu: CpuIdentity,
    /// Version of libtorch.
    pub libtorch: String,
    /// Model of the GPU, empty if unknown; none where the device is the CPU.
    pub card: Option<String>,
}

/// The id of the run that times a batch on a device: `latency-cuda0-1f2e3d4c-b32-t8`. The eight digits stand for the processor
/// (its generation, instruction set and cores, not only its name), for libtorch and on a GPU for the model of the card, so that the
/// times of one machine are not taken for another's. Tables of old versions have six digits for the name alone.
#[must_use]
pub fn latency_run(device: &str, machine: &Machine, batch: usize, threads: usize) -> String {
    let Machine { cpu, libtorch, card } = machine;
    let card = card.as_ref().map(|card| format!("|{card}")).unwrap_or_default();
    let machine = format!("{}|{libtorch}{card}", cpu.key());
    let machine = &blake3::hash(machine.as_bytes()).to_hex()[..8];
    format!("{NAME}-{}-{machine}-b{batch}-t{threads}", device.replace(':', ""))
}

/// One line of the table.
pub(super) struct Line<'a> {
    /// The paper's name.
    pub(super) model: &'a str,
    pub(super) ours: Option<Ours>,
    dense: Option<Ours>,
    pub(super) is_dense: bool,
    pub(super) published: &'a Latency,
    published_dense: &'a Latency,
}

/// What was measured of a model, milliseconds for a batch.
#[derive(Clone, Copy)]
pub(super) struct Ours {
    pub(super) forward: Spread,
    pub(super) both: Spread,
}

impl Ours {
    fn of(times: &ModelTimes) -> Option<Self> {
        Some(Self { forward: Spread::of(&times.forward_ms)?, both: Spread::of(&times.both_ms)? })
    }

    pub(super) fn backward(&self) -> f64 {
        self.both.median - self.forward.median
    }
}

/// How many times faster than the dense net.
#[derive(Clone, Copy)]
pub(super) struct Faster {
    pub(super) forward: f64,
    /// `None` if a backward time, being a difference of medians, is not positive.
    pub(super) backward: Option<f64>,
}

impl Line<'_> {
    pub(super) fn faster(&self) -> Option<Faster> {
        let (ours, dense) = (self.ours?, self.dense?);
        let positive = ours.backward() > 0.0 && dense.backward() > 0.0;
        Some(Faster {
            forward: dense.forward.median / ours.forward.median,
            backward: positive.then(|| dense.backward() / ours.backward()),
        })
    }

    /// Of the published forward and backward times.
    pub(super) fn published_faster(&self) -> [f64; 2] {
        let ratio = |dense: &Figure, pruned: &Figure| dense.printed.value() / pruned.printed.value();
        [
            ratio(&self.published_dense.forward_ms, &self.published.forward_ms),
            ratio(&self.published_dense.backward_ms, &self.published.backward_ms),
        ]
    }

    pub(super) fn published_faster_verified(&self) -> bool {
        is_verified(self.published) && is_verified(self.published_dense)
    }
}

pub(super) fn is_verified(published: &Latency) -> bool {
    published.forward_ms.verified && published.backward_ms.verified
}

/// Times of the eight models and how they compare with the dense net of their family; a model that was not timed
/// says so.
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

/// The models as the paper lists them.
fn lines<'a>(record: &LatencyRecord, published: &'a Published) -> Result<Vec<Line<'a>>, TableError> {
    let ours = |model: &str| record.models.iter().find(|times| times.model == model).and_then(Ours::of);
    let mut lines = Vec::new();
    for model in paper_models(ResNetStride::First1x1)? {
        let dense = if model.spec.arch == Arch::Resnet50 { "resnet50" } else { "vgg16" };
        lines.push(Line {
            model: &published.compression(model.name)?.name,
            ours: ours(model.name),
            dense: ours(dense),
            is_dense: model.name == dense,
            published: published.latency(model.name)?,
            published_dense: published.latency(dense)?,
        });
    }
    Ok(lines)
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

/// A `latency` table that lies in a folder of tables.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredLatency {
    /// The id of its run, see [`latency_run`].
    pub run: String,
    /// The table for people.
    pub markdown: String,
    /// The rows at full precision.
    pub rows: Vec<Map<String, Value>>,
    /// The file with the Markdown.
    pub path: PathBuf,
    /// Whether its files were compared with checksums; old versions wrote none.
    pub is_checked: bool,
}

impl StoredLatency {
    /// The models that were timed, under their names in [`paper_models`].
    ///
    /// # Errors
    /// If the published numbers, which know the models' names, are inconsistent.
    pub fn models(&self) -> Result<Vec<String>, TableError> {
        let published = Published::load()?;
        let names: Vec<&Value> =
            self.rows.iter().filter(|row| !row["repeats"].is_null()).map(|row| &row["model"]).collect();
        let timed = published.compression.iter().filter(|c| names.iter().any(|name| **name == *c.name));
        Ok(timed.map(|c| c.model.clone()).collect())
    }

    /// Whether it was measured on this machine; `machine` describes it for a device. Tables of old versions hold the processor's
    /// name alone, which does not identify it.
    #[must_use]
    pub fn is_of(&self, machine: &dyn Fn(&str) -> Machine) -> bool {
        let Some(row) = self.rows.first() else { return false };
        let size = |key: &str| usize::try_from(row.get(key)?.as_u64()?).ok();
        let here = || {
            let device = row.get("device")?.as_str()?;
            Some(latency_run(device, &machine(device), size("batch")?, size("threads")?))
        };
        here().is_some_and(|here| here == self.run)
    }

    /// Timings of each model that count.
    #[must_use]
    pub fn repeats(&self) -> Option<u64> {
        self.rows.iter().find_map(|row| row["repeats"].as_u64())
    }
}

/// The table of a run, also if another run's table has taken its place; without a run, the table in place.
///
/// # Errors
/// If its files cannot be read, or are no `latency` table; the message names the file.
pub fn stored_latency(dir: &Path, run: Option<&str>) -> Result<Option<StoredLatency>, TableError> {
    let in_place = read_stored(dir, NAME)?;
    match run {
        None => Ok(in_place),
        Some(run) if in_place.as_ref().is_some_and(|table| table.run == run) => Ok(in_place),
        Some(run) => Ok(read_stored(dir, &format!("{NAME}.{run}"))?.filter(|table| table.run == run)),
    }
}

/// Read from the CSV file: a Parquet file that is not what Polars wrote may end the process.
fn read_stored(dir: &Path, stem: &str) -> Result<Option<StoredLatency>, TableError> {
    let (csv, path) = (dir.join(format!("{stem}.csv")), dir.join(format!("{stem}.md")));
    let Some(file) = read_table_file(dir, stem, "csv")? else { return Ok(None) };
    let foreign = || unreadable(&csv, std::io::Error::other("it is no `latency` table"));
    let table = StoredTable::with_columns(file.bytes, &["run", "model", "repeats"]).map_err(|_| foreign())?;
    let Some(run) = table.run().map(str::to_owned) else { return Err(foreign()) };
    let rows = (0..table.height()).map(|row| typed(&table, row)).collect();
    let markdown = read_table_file(dir, stem, "md")?.map(|file| String::from_utf8(file.bytes));
    let markdown = match markdown {
        Some(Ok(markdown)) => markdown,
        Some(Err(e)) => return Err(unreadable(&path, std::io::Error::other(e))),
        None => return Err(unreadable(&path, ErrorKind::NotFound.into())),
    };
    Ok(Some(StoredLatency { run, markdown, rows, path, is_checked: file.is_checked }))
}

/// A row with the types of its columns: text where a name says so, else numbers and truth values; empty values are null.
fn typed(table: &StoredTable, row: usize) -> Map<String, Value> {
    const TEXT: [&str; 9] = [
        "run",
        "model",
        "device",
        "processor",
        "cpu_family",
        "cpu_model",
        "cpu_stepping",
        "instruction_set",
        "libtorch",
    ];
    let value = |column: &str| {
        let text = table.text(column, row).unwrap_or_default();
        if text.is_empty() {
            return Value::Null;
        }
        let number = || {
            let whole = text.parse::<u64>().ok().map(Value::from);
            whole
                .or_else(|| text.parse::<f64>().ok().map(Value::from))
                .or_else(|| Some(text.parse::<bool>().ok()?.into()))
        };
        let typed = if TEXT.contains(&column) { None } else { number() };
        typed.unwrap_or_else(|| text.into())
    };
    table.columns().into_iter().map(|column| (column.to_owned(), value(column))).collect()
}

fn unreadable(path: &Path, source: std::io::Error) -> TableError {
    FileError::at("read", path)(source).into()
}

#[cfg(test)]
mod tests;
