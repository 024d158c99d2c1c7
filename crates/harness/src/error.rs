//! What can go wrong in a study. The kind of an error decides the exit code; the text names file, key, layer or stage.

use std::path::PathBuf;

use thinet_files::FileError;
use thinet_report::tables::TableError;
use thiserror::Error;

/// A spec that cannot be read or makes no sense. Found before any work.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SpecError {
    /// The file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Unreadable {
        /// The spec file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// There is no such file.
    #[error("{}", no_such_spec(path, known, hint.as_deref()))]
    NotThere {
        /// What was asked for.
        path: PathBuf,
        /// Spec files that there are.
        known: Vec<String>,
        /// The one that was probably meant.
        hint: Option<String>,
    },
    /// Not TOML, or not the form of a spec.
    #[error("{}{}: {message}{}", path.display(), at(*line), hint_text(hint.as_deref()))]
    Syntax {
        /// The spec file.
        path: PathBuf,
        /// Line, from 1.
        line: Option<usize>,
        /// What is wrong.
        message: String,
        /// The key or value that was probably meant.
        hint: Option<String>,
    },
    /// A key whose value makes no sense.
    #[error("{}: {key}: {problem}", path.display())]
    Value {
        /// The spec file.
        path: PathBuf,
        /// The key, dotted.
        key: String,
        /// What is wrong and what is allowed.
        problem: String,
    },
    /// The filled-in spec cannot be written.
    #[error("the spec cannot be written as TOML: {0}")]
    Unwritable(String),
}

fn no_such_spec(path: &std::path::Path, known: &[String], hint: Option<&str>) -> String {
    let what = match path.is_dir() {
        true => format!("{} is a folder, not a spec", path.display()),
        false => format!("no such spec: {}", path.display()),
    };
    let known = if known.is_empty() {
        "there is none in experiments/ either".to_owned()
    } else {
        format!("there are {}", known.join(", "))
    };
    format!("{what}; {known}{}", hint_text(hint))
}

fn at(line: Option<usize>) -> String {
    line.map(|line| format!(":{line}")).unwrap_or_default()
}

fn hint_text(hint: Option<&str>) -> String {
    hint.map(|hint| format!(" — did you mean `{hint}`?")).unwrap_or_default()
}

fn how_stages_ended(failed: usize, blocked: usize, total: usize) -> String {
    let mut text = format!("{failed} of {total} stages failed");
    match blocked {
        0 => {}
        1 => text.push_str(", 1 was not run as it needs one that failed"),
        n => text.push_str(&format!(", {n} were not run as they need one that failed")),
    }
    if failed + blocked < total {
        text.push_str(", the others are stored");
    }
    text
}

/// An error of a study.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum HarnessError {
    /// The spec is wrong.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// The data cannot be had.
    #[error(transparent)]
    Data(#[from] thinet_data::DataError),
    /// The data is not there.
    #[error("{source}; {advice}")]
    NoData {
        /// What was looked for.
        source: thinet_data::DataError,
        /// How to get it, or where to say that it lies.
        advice: String,
    },
    /// No stored run is what was asked for.
    #[error("{0}")]
    NoSuchRun(String),
    /// The device asked for is not there.
    #[error("device: {0}")]
    Device(#[source] thinet_models::ModelError),
    /// A net cannot be built.
    #[error(transparent)]
    Net(#[from] thinet_nets::NetError),
    /// A net cannot be run, saved or loaded.
    #[error(transparent)]
    Model(#[from] thinet_models::ModelError),
    /// A layer cannot be pruned.
    #[error(transparent)]
    Graph(#[from] thinet_graph::GraphError),
    /// The calibration sample cannot be drawn or gathered.
    #[error(transparent)]
    Sampling(#[from] thinet_sampling::SamplingError),
    /// A selector cannot work on its evidence.
    #[error(transparent)]
    Selector(#[from] thinet_selectors::SelectorError),
    /// A reconstruction cannot work on its evidence.
    #[error(transparent)]
    Reconstruction(#[from] thinet_reconstruction::RefitError),
    /// An evaluation failed.
    #[error(transparent)]
    Metrics(#[from] thinet_metrics::MetricsError),
    /// A table cannot be made or written.
    #[error(transparent)]
    Table(#[from] TableError),
    /// libtorch refused an operation.
    #[error("libtorch: {0}")]
    Torch(#[from] tch::TchError),
    /// A file or folder of the results cannot be read or written.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried, such as `write`.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// Why it failed.
        source: std::io::Error,
    },
    /// A stored stage is not what its record says.
    #[error("stored stage {} is damaged: {problem}; `thinet run` sets it aside and makes it again", path.display())]
    Damaged {
        /// The stage's folder.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// A file of a run's folder is not as it was written.
    #[error("{} {problem}; the next `thinet run` of its experiment writes it again", path.display())]
    DamagedFile {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// Another process works on the same experiment.
    #[error("{} is in use: the same experiment is running already ({holder})", path.display())]
    Busy {
        /// The run folder.
        path: PathBuf,
        /// The process that holds it.
        holder: String,
    },
    /// The work was taken over while this process was frozen for longer than claims last.
    #[error(
        "another process took {} over while this one was frozen ({holder}); nothing of it was touched, and the same \
         command goes on from what it has stored", path.display()
    )]
    LostClaim {
        /// The claim file.
        path: PathBuf,
        /// The new holder.
        holder: String,
    },
    /// A stage that the caller asked for is not in the store.
    #[error("nothing is stored for {what}; run the experiment first: thinet run {}", spec.display())]
    NotRun {
        /// The experiment or stage.
        what: String,
        /// Its spec file.
        spec: PathBuf,
    },
    /// Stages failed; those that need none of them are stored.
    #[error("{}; the first failure: {first}", how_stages_ended(*failed, *blocked, *total))]
    StagesFailed {
        /// Stages that failed themselves.
        failed: usize,
        /// Stages that were not run, as they need one that failed.
        blocked: usize,
        /// Stages that were missing.
        total: usize,
        /// Label and error of the first failure.
        first: String,
    },
    /// Somebody asked the work to end.
    #[error("stopped; the same command goes on from here")]
    Stopped,
    /// A stage needs another one, which failed.
    #[error("needs {needed}, which failed")]
    Needs {
        /// Label of the other stage.
        needed: String,
    },
    /// What stages need is neither stored nor made before them.
    #[error("these stages can never start, as nothing makes what they need: {stages}")]
    NeverReady {
        /// Their labels.
        stages: String,
    },
    /// A table cannot be put to the test.
    #[error("{} cannot be verified: {problem}", path.display())]
    Unverifiable {
        /// The table.
        path: PathBuf,
        /// Why.
        problem: String,
    },
    /// Cells that were made again differ from their table.
    #[error("{differ} of {cells} cells differ from {}", path.display())]
    Unlike {
        /// The table.
        path: PathBuf,
        /// Cells that differ.
        differ: usize,
        /// Cells that were made again.
        cells: usize,
    },
    /// Slurm is not there, or refuses.
    #[error("{program}: {problem}")]
    Slurm {
        /// The program that was called.
        program: String,
        /// What it said.
        problem: String,
    },
    /// A worker process failed.
    #[error("worker for {stage}: {problem}")]
    Worker {
        /// The stage's id.
        stage: String,
        /// What happened.
        problem: String,
    },
    /// The program has a fault.
    #[error("the program has a fault: {message}")]
    Panicked {
        /// Place and message of the panic.
        message: String,
    },
    /// A GPU's memory does not hold a batch.
    #[error(
        "{device} has not enough memory for a batch of {batch}: {message}; use a smaller batch, or another device"
    )]
    OutOfMemory {
        /// The device.
        device: String,
        /// Images in the batch.
        batch: i64,
        /// libtorch's words.
        message: String,
    },
    /// A dense net that diverged, of which nothing can be pruned.
    #[error(
        "dense net, seed {seed}, diverged: its loss, a weight or its test became NaN or infinite; a lower learning rate may help"
    )]
    DenseDiverged {
        /// Its root seed.
        seed: u64,
    },
    /// A dense net that guesses.
    #[error(
        "dense net, seed {seed}, has {top1:.2} % top-1 on {images} test images, near chance ({chance:.2} %): {problem}; likely \
         causes: {causes}; dense.allow-chance = true goes on with it"
    )]
    NearChance {
        /// Its root seed.
        seed: u64,
        /// Its top-1 accuracy, per cent.
        top1: f64,
        /// Test images looked at.
        images: u64,
        /// Top-1 of guessing, per cent.
        chance: f64,
        /// What went wrong.
        problem: &'static str,
        /// What to look at.
        causes: String,
    },
    /// A record cannot be written as JSON.
    #[error("a record cannot be written as JSON: {0}")]
    Json(#[source] serde_json::Error),
}

impl HarnessError {
    /// Whether the user's spec or arguments are wrong (nothing was started), rather than a run that failed.
    #[must_use]
    pub fn is_bad_spec(&self) -> bool {
        matches!(self, Self::Spec(_) | Self::Device(_) | Self::NoSuchRun(_))
    }

    /// Whether a file or folder could not be written because this user may only read it.
    #[must_use]
    pub fn is_read_only(&self) -> bool {
        use std::io::ErrorKind::{PermissionDenied, ReadOnlyFilesystem};
        match self {
            Self::Io { source, .. } | Self::Table(TableError::File(FileError { source, .. })) => {
                matches!(source.kind(), PermissionDenied | ReadOnlyFilesystem)
            }
            _ => false,
        }
    }

    /// An error of the dataset of a spec: a key with a wrong value is named with the spec's file.
    #[must_use]
    pub fn of_dataset(spec: &std::path::Path, error: thinet_data::DataError) -> Self {
        match error {
            thinet_data::DataError::Value { key, problem } => {
                SpecError::Value { path: spec.to_owned(), key: format!("dataset.{key}"), problem }.into()
            }
            other => Self::Data(other),
        }
    }

    /// An error of a pass over a batch: running out of memory names device and batch.
    pub(crate) fn of_model(
        error: thinet_models::ModelError,
        device: thinet_models::Device,
        batch: i64,
    ) -> Self {
        match &error {
            thinet_models::ModelError::Torch { message, .. } if message.contains("out of memory") => {
                let device = if device.is_gpu() { device.to_string() } else { "the CPU".to_owned() };
                Self::OutOfMemory { device, batch, message: message.clone() }
            }
            _ => Self::Model(error),
        }
    }

    pub(crate) fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { action, path, source }
    }
}

impl From<FileError> for HarnessError {
    fn from(FileError { action, path, source }: FileError) -> Self {
        Self::Io { action, path, source }
    }
}

#[cfg(test)]
mod tests {
    use thinet_models::{Device, ModelError};

    use super::*;

    #[test]
    fn a_gpu_without_memory_is_told_with_batch_and_device() {
        let torch = |message: &str| ModelError::Torch { context: "x".into(), message: message.into() };
        let full = torch("CUDA out of memory. Tried to allocate 20.00 MiB.");
        let text = HarnessError::of_model(full, Device::Cuda(1), 128).to_string();
        let start = "cuda:1 has not enough memory for a batch of 128: CUDA out of memory.";
        assert!(
            text.starts_with(start) && text.ends_with("use a smaller batch, or another device"),
            "{text}"
        );
        let other = HarnessError::of_model(torch("shapes differ"), Device::Cuda(1), 128);
        assert!(matches!(other, HarnessError::Model(_)), "{other}");
    }
}
