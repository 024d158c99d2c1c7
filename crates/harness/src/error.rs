//! Errors of a study. The kind of an error decides the exit code; the text names file, key, layer or stage.

mod spec;

use std::path::PathBuf;

use thinet_files::FileError;
use thinet_report::tables::TableError;
use thiserror::Error;

pub use self::spec::SpecError;

fn of_layer(layer: Option<&str>) -> String {
    layer.map(|layer| format!(", layer {layer}")).unwrap_or_default()
}

/// What decides the size of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BatchSize {
    /// A key of the spec: trainings.
    OfSpec,
    /// A constant of the program, by the kind of device and the size of images: tests and calibrations.
    Fixed,
}

fn fitting(fits: Option<i64>, size: BatchSize) -> String {
    let advice = match (fits, size) {
        (Some(0), BatchSize::OfSpec) => "a single image does not fit either: use a smaller net",
        (Some(0), BatchSize::Fixed) => {
            "a single image does not fit either: run fewer processes on it (--jobs)"
        }
        (Some(fits), BatchSize::OfSpec) => return format!("a batch of {fits} fits: use that"),
        (Some(fits), BatchSize::Fixed) => {
            return format!(
                "a batch of {fits} fits, but that of tests and calibrations is fixed: run fewer processes on it (--jobs)"
            );
        }
        (None, BatchSize::OfSpec) => "use a smaller batch",
        (None, BatchSize::Fixed) => {
            "the batch of tests and calibrations is fixed: run fewer processes on it (--jobs)"
        }
    };
    advice.to_owned()
}

fn how_stages_ended(failed: usize, blocked: usize, left: usize, total: usize) -> String {
    let mut text = format!("{failed} of {total} stages failed");
    match blocked {
        0 => {}
        1 => text.push_str(", 1 was not run as it needs one that failed"),
        n => text.push_str(&format!(", {n} were not run as they need one that failed")),
    }
    match left {
        0 => {}
        1 => text.push_str(", 1 was not run as the run fails fast"),
        n => text.push_str(&format!(", {n} were not run as the run fails fast")),
    }
    if failed + blocked + left < total {
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
    /// The data cannot be read.
    #[error(transparent)]
    Data(#[from] thinet_data::DataError),
    /// The data is absent.
    #[error("{source}; {advice}")]
    NoData {
        source: thinet_data::DataError,
        /// How to get it, or how to name its folder.
        advice: String,
    },
    /// No stored run matches, or several do.
    #[error("{0}")]
    NoSuchRun(String),
    /// The requested device is unavailable.
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
    /// A table cannot be built or written.
    #[error(transparent)]
    Table(#[from] TableError),
    /// libtorch refused an operation.
    #[error("libtorch: {0}")]
    Torch(#[from] tch::TchError),
    /// A file or folder of the results cannot be read or written.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// The operation, such as `write`.
        action: &'static str,
        path: PathBuf,
        source: std::io::Error,
    },
    /// A stored stage does not match its record.
    #[error("stored stage {} is damaged: {problem}; `thinet run` sets it aside and runs it again", path.display())]
    Damaged { path: PathBuf, problem: String },
    /// A file of a run's folder has changed since it was written.
    #[error("{} {problem}; the next `thinet run` of its study writes it again", path.display())]
    DamagedFile { path: PathBuf, problem: String },
    /// Stages of two results folders have one id and different results.
    #[error(
        "nothing was merged, as these stages are stored in both folders with different results: {stages}; see what differs \
         (--dry-run), and remove them from one of the folders with what was computed from them"
    )]
    Conflict {
        /// Their ids.
        stages: String,
    },
    /// Another process works on the same study.
    #[error("{} is in use: the same study is running already ({holder})", path.display())]
    Busy {
        path: PathBuf,
        /// The process that holds it.
        holder: String,
    },
    /// The work was taken over while this process was frozen for longer than claims last.
    #[error(
        "another process took {} over while this one was frozen ({holder}); its files were left alone, and the same \
         command continues from what is stored", path.display()
    )]
    LostClaim {
        path: PathBuf,
        /// The new holder.
        holder: String,
    },
    /// A required stage is not stored.
    #[error("nothing is stored for {what}; run the study first: {command}")]
    NotRun {
        /// The study or stage.
        what: String,
        /// The command that runs the study.
        command: String,
    },
    /// The pre-flight failed: a stage failed at its first step.
    #[error("pre-flight, {stage}: {source}; nothing was started")]
    Preflight {
        /// Label of the stage.
        stage: String,
        source: Box<HarnessError>,
    },
    /// Stages failed; those that do not depend on them are stored.
    #[error("{}; the first failure: {first}", how_stages_ended(*failed, *blocked, *left, *total))]
    StagesFailed {
        /// Stages that failed by themselves.
        failed: usize,
        /// Stages that were not run because they need one that failed.
        blocked: usize,
        /// Stages that were not run because the run ends at its first failure.
        left: usize,
        /// Stages that were missing at the start.
        total: usize,
        /// Label and error of the first failure.
        first: String,
    },
    /// The work was asked to stop.
    #[error("stopped; the same command continues from here")]
    Stopped,
    /// A stage needs another one, which failed.
    #[error("needs {needed}, which failed")]
    Needs {
        /// Label of the other stage.
        needed: String,
    },
    /// Stages need results that are neither stored nor computed before them.
    #[error("these stages can never start, as nothing computes what they need: {stages}")]
    NeverReady { stages: String },
    /// A table cannot be verified.
    #[error("{} cannot be verified: {problem}", path.display())]
    Unverifiable { path: PathBuf, problem: String },
    /// Repeated cells differ from their table.
    #[error("{differ} of {cells} cells differ from {}", path.display())]
    Unlike {
        path: PathBuf,
        differ: usize,
        /// Cells that were run again.
        cells: usize,
    },
    /// A program of Slurm is missing or failed.
    #[error("{program}: {problem}")]
    Slurm {
        program: String,
        /// Its message.
        problem: String,
    },
    /// The spec names programs, and nobody has allowed them to run.
    #[error(
        "the spec runs programs to select channels: {commands}; nothing was started — look at them first, then add \
         --allow-commands"
    )]
    CommandsNotAllowed {
        /// The commands, comma separated.
        commands: String,
    },
    /// A program that selects channels failed or gave no valid answer.
    #[error("the selector's program `{command}`{}: {problem}", of_layer(layer.as_deref()))]
    Program {
        /// The command with its arguments.
        command: String,
        /// The layer that it was asked about.
        layer: Option<String>,
        /// What it did, and its last lines on standard error.
        problem: String,
    },
    /// A worker process failed.
    #[error("worker for {stage}: {problem}")]
    Worker {
        /// The stage's id.
        stage: String,
        problem: String,
    },
    /// The program panicked: a bug.
    #[error("the program has a fault: {message}")]
    Panicked {
        /// Place and message of the panic.
        message: String,
    },
    /// A batch does not fit into the memory of the device.
    #[error(
        "{device} has not enough memory for a batch of {batch}, {place}: {message}; {}, or use another device", fitting(*fits, *size)
    )]
    OutOfMemory {
        device: String,
        /// Images in the batch.
        batch: i64,
        /// The layer, or the part of the step.
        place: String,
        /// libtorch's message.
        message: String,
        /// A batch that was tried and fits, 0 if a single image does not; `None` if that was not tried.
        fits: Option<i64>,
        size: BatchSize,
    },
    /// A dense net diverged, so nothing can be pruned from it.
    #[error(
        "dense net, seed {seed}, diverged: its loss, a weight or its test became NaN or infinite; a lower learning rate may help"
    )]
    DenseDiverged { seed: u64 },
    /// A dense net is no better than guessing.
    #[error(
        "dense net, seed {seed}, has {top1:.2} % top-1 on {images} test images, near chance ({chance:.2} %): {problem}; likely \
         causes: {causes}; dense.allow-chance = true goes on with it"
    )]
    NearChance {
        seed: u64,
        /// Its top-1 accuracy, per cent.
        top1: f64,
        /// Test images that were evaluated.
        images: u64,
        /// Top-1 of guessing, per cent.
        chance: f64,
        problem: &'static str,
        /// Likely causes.
        causes: String,
    },
    /// A record cannot be written as JSON.
    #[error("a record cannot be written as JSON: {0}")]
    Json(#[source] serde_json::Error),
}

impl HarnessError {
    /// Whether the spec or the arguments are wrong, so that nothing was started, rather than a run that failed.
    #[must_use]
    pub fn is_bad_spec(&self) -> bool {
        matches!(self, Self::Spec(_) | Self::Device(_) | Self::NoSuchRun(_) | Self::CommandsNotAllowed { .. })
    }

    /// Whether a file or folder could not be written because it is read-only for this user.
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

    /// Wraps an error of a spec's dataset; an invalid value is reported with the spec's path and key.
    #[must_use]
    pub fn of_dataset(spec: &std::path::Path, error: thinet_data::DataError) -> Self {
        match error {
            thinet_data::DataError::Value { key, problem } => {
                SpecError::Value { path: spec.to_owned(), key: format!("dataset.{key}"), problem }.into()
            }
            other => Self::Data(other),
        }
    }

    /// Wraps an error of a pass over a batch; running out of memory is reported with device, layer and batch.
    pub(crate) fn of_model(
        error: thinet_models::ModelError,
        device: thinet_models::Device,
        batch: i64,
        size: BatchSize,
    ) -> Self {
        match &error {
            thinet_models::ModelError::Torch { context, message } if is_out_of_memory(message) => {
                let device = if device.is_gpu() { device.to_string() } else { "the CPU".to_owned() };
                let (place, message) = (context.clone(), message.clone());
                Self::OutOfMemory { device, batch, place, message, fits: None, size }
            }
            _ => Self::Model(error),
        }
    }

    /// As [`HarnessError::of_model`], with the batch that would fit: on a GPU half of the images are tried, then a quarter, and so on.
    /// `fits` does the same work on fewer images. A CPU would rather fill its memory than refuse, so it is not tried there.
    pub(crate) fn of_batch(
        error: thinet_models::ModelError,
        device: thinet_models::Device,
        batch: i64,
        size: BatchSize,
        fits: &mut dyn FnMut(i64) -> bool,
    ) -> Self {
        match Self::of_model(error, device, batch, size) {
            Self::OutOfMemory { device: name, batch, place, message, .. } if device.is_gpu() => {
                let mut fewer = batch / 2;
                while fewer > 0 && !fits(fewer) {
                    fewer /= 2;
                }
                Self::OutOfMemory { device: name, batch, place, message, fits: Some(fewer), size }
            }
            other => other,
        }
    }

    /// The same for an error that has been wrapped already.
    pub(crate) fn in_batch(
        self,
        device: thinet_models::Device,
        batch: i64,
        size: BatchSize,
        fits: &mut dyn FnMut(i64) -> bool,
    ) -> Self {
        match self {
            Self::Model(error) => Self::of_batch(error, device, batch, size, fits),
            Self::Sampling(thinet_sampling::SamplingError::Torch { layer, source })
                if is_out_of_memory(&source.to_string()) =>
            {
                let context = format!("calibration of layer {layer:?}");
                let message = torch_message(&source);
                let error = thinet_models::ModelError::Torch { context, message };
                Self::of_batch(error, device, batch, size, fits)
            }
            other => other,
        }
    }

    pub(crate) fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { action, path, source }
    }
}

/// The first line of libtorch's message: behind it comes its own backtrace.
pub(crate) fn torch_message(error: &tch::TchError) -> String {
    let message = match error {
        tch::TchError::Torch(message) => message.clone(),
        other => other.to_string(),
    };
    message.lines().next().unwrap_or_default().to_owned()
}

/// libtorch's words for it, of a GPU and of a CPU.
fn is_out_of_memory(message: &str) -> bool {
    message.contains("out of memory") || message.contains("can't allocate memory")
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
    fn running_out_of_memory_is_reported_with_batch_and_device() {
        let torch =
            |message: &str| ModelError::Torch { context: "layer \"conv1\"".into(), message: message.into() };
        let full = || torch("CUDA out of memory. Tried to allocate 20.00 MiB.");
        let text = HarnessError::of_model(full(), Device::Cuda(1), 128, BatchSize::OfSpec).to_string();
        assert_eq!(
            text,
            "cuda:1 has not enough memory for a batch of 128, layer \"conv1\": CUDA out of memory. Tried to allocate 20.00 \
             MiB.; use a smaller batch, or use another device"
        );
        let other = HarnessError::of_model(torch("shapes differ"), Device::Cuda(1), 128, BatchSize::OfSpec);
        assert!(matches!(other, HarnessError::Model(_)), "{other}");
        let fixed = |error: HarnessError, most: i64| {
            error.in_batch(Device::Cuda(1), 128, BatchSize::Fixed, &mut |fewer| fewer <= most).to_string()
        };
        let wrapped = fixed(HarnessError::Model(full()), 100);
        let advice = "a batch of 64 fits, but that of tests and calibrations is fixed: run fewer processes on it (--jobs), or use \
                      another device";
        assert!(wrapped.starts_with("cuda:1 has") && wrapped.ends_with(advice), "{wrapped}");
        let source = tch::TchError::Torch("CUDA out of memory.\nException raised from x".into());
        let gathering = thinet_sampling::SamplingError::Torch { layer: "conv1".into(), source };
        let text = fixed(HarnessError::Sampling(gathering), 0);
        assert!(
            text.contains(
                "batch of 128, calibration of layer \"conv1\": CUDA out of memory.; a single image does not fit either: run fewer"
            ),
            "{text}"
        );
    }

    #[test]
    fn the_batch_that_fits_is_found_by_trying_on_a_gpu_alone() {
        let full = || ModelError::Torch { context: "x".into(), message: "CUDA out of memory.".into() };
        for (most, expected, advice) in [
            (100, vec![64], "a batch of 64 fits: use that, or use another device"),
            (17, vec![64, 32, 16], "a batch of 16 fits"),
            (0, vec![64, 32, 16, 8, 4, 2, 1], "a single image does not fit either"),
        ] {
            let mut tried = Vec::new();
            let mut fits = |fewer| {
                tried.push(fewer);
                fewer <= most
            };
            let text = HarnessError::of_batch(full(), Device::Cuda(0), 128, BatchSize::OfSpec, &mut fits)
                .to_string();
            assert!(text.contains(advice), "{text}");
            assert_eq!(tried, expected);
        }
        let mut never = |_| panic!("tried");
        let text =
            HarnessError::of_batch(full(), Device::Cpu, 128, BatchSize::OfSpec, &mut never).to_string();
        assert!(text.ends_with("use a smaller batch, or use another device"), "{text}");
        let text = HarnessError::of_batch(full(), Device::Cpu, 128, BatchSize::Fixed, &mut never).to_string();
        assert!(text.contains("is fixed: run fewer processes on it (--jobs), or"), "{text}");
        let other = ModelError::Torch { context: "x".into(), message: "shapes differ".into() };
        assert!(matches!(
            HarnessError::of_batch(other, Device::Cuda(0), 128, BatchSize::OfSpec, &mut never),
            HarnessError::Model(_)
        ));
    }

    #[test]
    fn a_cpu_that_runs_out_of_memory_says_so_in_its_own_words() {
        // More than any address space: libtorch's allocator refuses at once.
        let Err(error) = tch::Tensor::f_empty([1 << 55], (tch::Kind::Float, tch::Device::Cpu)) else {
            panic!("an array of 2⁵⁷ bytes")
        };
        let message = torch_message(&error);
        let error = ModelError::Torch { context: "layer \"conv1\"".into(), message };
        let text = HarnessError::of_model(error, Device::Cpu, 7, BatchSize::OfSpec).to_string();
        assert!(
            text.starts_with("the CPU has not enough memory for a batch of 7, layer \"conv1\": "),
            "{text}"
        );
    }
}
