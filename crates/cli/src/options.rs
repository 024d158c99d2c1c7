//! Options that several commands share: which study, where it runs, with how many processes.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use thinet_harness::run::RunOptions;
use thinet_harness::study::{Options, Plan};
use thinet_harness::{HarnessError, Stop};
use thinet_models::Device;
use thinet_report::records::Program;

/// A study and what the command line may change in it.
#[derive(Clone, Debug, Args)]
pub(crate) struct Study {
    /// The study's TOML file
    #[arg(value_name = "SPEC")]
    pub(crate) spec: PathBuf,
    /// Number of root seeds, in place of the spec's
    #[arg(long, value_name = "N")]
    pub(crate) seeds: Option<u64>,
    #[command(flatten)]
    pub(crate) place: Place,
}

impl Study {
    pub(crate) fn options(&self) -> Options {
        self.place.options(self.seeds)
    }

    /// Reads the spec and checks everything; writes nothing.
    pub(crate) fn plan(&self) -> Result<Plan, HarnessError> {
        Plan::new(&self.spec, &self.options())
    }

    /// The same for work on other machines: the device need not be available here.
    pub(crate) fn plan_elsewhere(&self) -> Result<Plan, HarnessError> {
        Plan::new(&self.spec, &Options { is_elsewhere: true, ..self.options() })
    }

    /// The same study on another device.
    pub(crate) fn on(&self, device: Device) -> Self {
        Self { place: Place { device, ..self.place.clone() }, ..self.clone() }
    }

    /// The command line, after the program's name, of a process that runs `command` for the same stages.
    pub(crate) fn command_line(&self, command: &str, pace: &Pace) -> Vec<OsString> {
        let mut arguments: Vec<OsString> = vec![command.into()];
        let mut option = |name: &str, value: OsString| arguments.extend([name.into(), value]);
        option("--device", self.place.device.to_string().into());
        option("--results", self.place.results.clone().into());
        if let Some(data) = &self.place.data {
            option("--data", data.clone().into());
        }
        if let Some(prepared) = &self.place.prepared {
            option("--prepared", prepared.clone().into());
        }
        if let Some(seeds) = self.seeds {
            option("--seeds", seeds.to_string().into());
        }
        let paces = [("--checkpoint-every", pace.checkpoint_every), ("--claim-expiry", pace.claim_expiry)];
        for (name, seconds) in paces {
            if let Some(seconds) = seconds {
                option(name, seconds.to_string().into());
            }
        }
        if pace.allow_commands {
            arguments.push("--allow-commands".into());
        }
        arguments.extend(["--".into(), self.spec.clone().into()]);
        arguments
    }
}

/// The folders, and the device to compute on.
#[derive(Clone, Debug, Args)]
pub(crate) struct Place {
    /// Device: cpu, cuda or cuda:N
    #[arg(long, value_name = "DEVICE", default_value = "cpu")]
    pub(crate) device: Device,
    /// Folder of the dataset [default: data/<dataset>]
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// Folder of files made by `thinet data prepare` [default: prepared/ in the folder of the dataset]
    #[arg(long, value_name = "DIR")]
    pub(crate) prepared: Option<PathBuf>,
    /// Results folder
    #[arg(long, value_name = "DIR", default_value = "results")]
    pub(crate) results: PathBuf,
}

impl Place {
    pub(crate) fn options(&self, seeds: Option<u64>) -> Options {
        Options {
            seeds,
            device: self.device,
            data: self.data.clone(),
            prepared: self.prepared.clone(),
            results: self.results.clone(),
            is_elsewhere: false,
            program: program(),
        }
    }
}

/// The processes that do the work.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct Workers {
    /// Number of stages that run at a time, each in its own process [default: cores / compute.threads, one for each GPU]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) jobs: Option<u16>,
    /// Devices to spread the processes over, such as cuda:0,cuda:1; instead of --device
    #[arg(long, value_name = "DEVICE,…", value_delimiter = ',', conflicts_with = "device")]
    pub(crate) devices: Vec<Device>,
    /// Compare all stored files with their checksums first, and compute again what has changed
    #[arg(long)]
    pub(crate) check: bool,
    /// End at the first failure: nothing further starts, and what runs saves its state and stops [default: other cells go on]
    #[arg(long)]
    pub(crate) fail_fast: bool,
    /// Whether to take one step of each kind of missing stage first, so that what would fail after hours fails at once: one batch
    /// of each recipe, one calibration image of each class, 256 test images. auto: where more than ten minutes of work are left
    #[arg(long, value_name = "WHEN", default_value = "auto")]
    pub(crate) preflight: Preflight,
    #[command(flatten)]
    pub(crate) pace: Pace,
}

/// When the first step of each kind of stage is tried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Preflight {
    #[default]
    Auto,
    Always,
    Never,
}

/// When the state of running work is saved, when abandoned work is taken over, and which programs it may run.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct Pace {
    /// Seconds between checkpoints of a training, more where writing one takes long; 0: after every step [default: 15]
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub(crate) checkpoint_every: Option<f64>,
    /// Take over a stage whose claim another machine has not renewed for this many seconds [default: 90]
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub(crate) claim_expiry: Option<f64>,
    /// Run the programs that the spec names as selectors; without it, a question on a terminal, and else an error
    #[arg(long)]
    pub(crate) allow_commands: bool,
}

/// The study whose stages a process of `thinet run` or a batch job runs.
#[derive(Debug, Args)]
pub(crate) struct StudyStages {
    #[command(flatten)]
    pub(crate) study: Study,
    #[command(flatten)]
    pub(crate) pace: Pace,
}

impl Pace {
    /// How this process runs single stages.
    pub(crate) fn options(&self, stop: Stop) -> RunOptions {
        let usual = RunOptions::default();
        let seconds = |asked: Option<f64>, usual| asked.map_or(usual, Duration::from_secs_f64);
        RunOptions {
            checkpoint_every: seconds(self.checkpoint_every, usual.checkpoint_every),
            claim_expiry: seconds(self.claim_expiry, usual.claim_expiry),
            allow_commands: self.allow_commands,
            stop,
            ..usual
        }
    }
}

fn seconds(text: &str) -> Result<f64, String> {
    let seconds: f64 = text.parse().map_err(|e| format!("{e}"))?;
    if (0.0..=1e6).contains(&seconds) { Ok(seconds) } else { Err("allowed: 0 to 1000000".to_owned()) }
}

/// The number of processes: as asked, else as many as fill the cores; one on a GPU, which they would share.
pub(crate) fn jobs(asked: Option<u16>, threads: usize, device: Device) -> usize {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let fill = if device.is_gpu() { 1 } else { (cores / threads.max(1)).max(1) };
    asked.map_or(fill, usize::from)
}

/// What this program was built from, as the build script found it.
pub(crate) fn program() -> Program {
    Program {
        commit: option_env!("THINET_COMMIT").map(str::to_owned),
        dirty: option_env!("THINET_DIRTY").and_then(|dirty| dirty.parse().ok()),
    }
}

/// The file of this program, for further processes of it.
pub(crate) fn program_file() -> anyhow::Result<PathBuf> {
    std::env::current_exe().context("cannot find this program's own file")
}
