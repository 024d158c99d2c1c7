//! The command line as typed.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use thinet_harness::study::Options;
use thinet_models::Device;
use thinet_report::records::Program;

/// Reproducible filter pruning: a TOML spec in, a table out.
#[derive(Debug, Parser)]
#[command(name = "thinet", version, propagate_version = true, arg_required_else_help = true)]
#[command(after_help = "\
Start here:
  thinet plan experiments/smoke.toml     what would run, and how long it would take
  thinet run experiments/smoke.toml      run what is missing, then print the tables
  thinet count --all                     the paper's eight models, ours beside published

Exit codes: 0 done, 1 the run failed, 2 the spec or the arguments are wrong (nothing was started),
3 the data cannot be had, 4 the same experiment is running already, 130 stopped on request.")]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run an experiment: only what is not stored yet, then write and print its tables
    #[command(after_help = "\
A run can be stopped at any time, by any means; the same command continues it. Ctrl-C keeps what a
training has come to and ends; a second Ctrl-C ends at once. Results do not depend on --jobs.

Examples:
  thinet run experiments/fashion-mnist-selectors.toml
  thinet run experiments/cub200/selectors.toml --data ~/CUB_200_2011 --devices cuda:0,cuda:1
  thinet run experiments/cifar10-selectors.toml --data ~/cifar-10-batches-bin --seeds 3")]
    Run {
        #[command(flatten)]
        study: Study,
        #[command(flatten)]
        workers: Workers,
        /// Print the records as JSON instead of tables
        #[arg(long)]
        json: bool,
    },
    /// Say what an experiment would run, what is stored already and what it costs; touches nothing
    Plan {
        #[command(flatten)]
        study: Study,
        /// Processes to assume for the time estimate [default: cores / compute.threads]
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
        jobs: Option<u16>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Say what is stored, running, queued and failed of an experiment, or a line for each run
    #[command(after_help = "\
Needs neither the data nor the device, and may be asked on another machine that sees the results.
Records are compared with their checksums and files with their sizes; --check reads every file.

Examples:
  thinet status
  thinet status experiments/fashion-mnist-selectors.toml")]
    Status(StatusOf),
    /// Submit what is missing of an experiment to Slurm: dense nets, then an array of cells, then the tables
    #[command(after_help = "\
Each task is one stage; a task that is pre-empted, or whose time is over, is queued again and goes on
where it was. A second submit sends what is neither stored nor in the queue. The results folder must be
seen by all nodes. Options of sbatch go behind `--`.

Examples:
  thinet submit experiments/imagenet/vgg16-conv.toml --data /data/ILSVRC2012 --partition gpu \\
      --gpus-per-task 1 --time 24:00:00 -- --account=lab --constraint=a100
  thinet submit experiments/cifar10-selectors.toml --time 1:00:00 --dry-run")]
    Submit(Submit),
    /// Make tables again from what is stored, or the tables that need no run
    #[command(after_help = "\
Examples:
  thinet table compression figure4-flops latency
  thinet table experiments/fashion-mnist-selectors.toml")]
    Table {
        /// `compression`, `figure4-flops`, `latency` (once measured), spec files of experiments
        /// that were run, or runs
        #[arg(required = true, value_name = "TABLE|SPEC")]
        names: Vec<String>,
        /// Number of root seeds, where `run` was given another than the spec's
        #[arg(long, value_name = "N")]
        seeds: Option<u64>,
        #[command(flatten)]
        place: Place,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Count parameters, FLOPs and multiply-adds of a network
    #[command(after_help = "\
FLOPs = 2 x multiply-adds of convolutions and fully connected layers, for one image.
  paper           weights without biases, two values per batch-norm channel
  all-parameters  every value that is trained

Examples:
  thinet count --all
  thinet count resnet50 --stride 3x3
  thinet count vgg16-gap --keep-rate 0.5 --layers")]
    Count(Count),
    /// Time the paper's eight models forward and backward, ratios beside the published ones
    #[command(after_help = "\
Random weights, images of 224x224. The table is kept in results/tables; the same device, batch and
threads a second time print it again, unless --force is given.

Examples:
  thinet latency
  thinet latency --device cuda:0
  thinet latency --models vgg16,thinet-gap --batch 8 --threads 1 --force")]
    Latency(Latency),
    /// Get or check a dataset
    #[command(subcommand)]
    Data(Data),
    /// List the keys of a spec, what it can name, or the runs that are stored
    #[command(after_help = "\
experiments/one-shot-example.toml is a spec to copy, with a line about each key.")]
    List {
        /// What to list
        what: Listed,
        /// Results folder (for runs)
        #[arg(long, value_name = "DIR", default_value = "results")]
        results: PathBuf,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Run the experiments at the paper's scale whose data is given; set all of them beside the paper's numbers
    #[command(after_help = "\
Without --imagenet and --cub nothing runs: the tables say \"not run\" beside the published numbers.
The last lines tell where every table is, and what was not run.

Example:
  thinet paper experiments/imagenet/*.toml experiments/cub200/*.toml --imagenet /data/ILSVRC2012 --device cuda:0")]
    Paper(Paper),
    /// Write a stored net as safetensors that PyTorch loads into an ordinary module of its widths
    #[command(after_help = "\
Examples:
  thinet export cell-0123456789abcdef --layout torchvision -o thinet-conv.safetensors
  thinet export results/store/dense-0123456789abcdef/weights.safetensors -o dense.safetensors")]
    Export(Export),
    /// Say what differs between two runs: spec, environment, kept channels, metrics
    #[command(after_help = "\
Examples:
  thinet diff selectors-0123 selectors-4567
  thinet diff smoke smoke --second-results /mnt/copy/results --exact")]
    Diff(Diff),
    /// Make cells of a table again and compare every number with it
    #[command(after_help = "\
What is promised: on a CPU the same numbers, with the same libtorch, threads and instruction set; on a GPU
with compute.deterministic the same numbers, on the same model of card with the same libraries; on a GPU
without it accuracies within the tolerance. Where cells differ, it is said what differs between the
environment of the table and this one. The spec is the one that lies beside the table. The dense net is
taken from the store if it is there.

Examples:
  thinet verify selectors-fashion-mnist
  thinet verify selectors-fashion-mnist --cells 5 --dense
  thinet verify cub200-selectors --device cuda:0 --data ~/CUB_200_2011 --tolerance 0.3")]
    Verify(Verify),
    /// Remove what the results folder can do without; lists it and asks first
    #[command(after_help = "\
Without options: stages that no run lists, damaged stages that were set aside, leftovers of processes
that were killed. Tables are never touched.

Examples:
  thinet clean
  thinet clean --run smoke --yes")]
    Clean(Clean),
    /// Show a stored run, a stage of a table, or the network in a weight file
    Show {
        /// A run (its name or id or the beginning of one, its folder, its spec or a table of it), a stage's id (the
        /// column `cell` of a table) or a .safetensors file
        what: String,
        /// Results folder
        #[arg(long, value_name = "DIR", default_value = "results")]
        results: PathBuf,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Make the named stages of an experiment; what a Slurm task runs
    #[command(hide = true)]
    Task {
        #[command(flatten)]
        study: Study,
        #[command(flatten)]
        pace: Pace,
        /// The stages' ids
        #[arg(required = true)]
        ids: Vec<String>,
    },
    /// Make the stages named on standard input and print what happens; started by `thinet run`
    #[command(hide = true)]
    Worker {
        #[command(flatten)]
        study: Study,
        #[command(flatten)]
        pace: Pace,
    },
}

/// An experiment and what the command line may change in it.
#[derive(Clone, Debug, Args)]
pub(crate) struct Study {
    /// The experiment's TOML file
    #[arg(value_name = "SPEC")]
    pub(crate) spec: PathBuf,
    /// Number of root seeds, instead of the spec's
    #[arg(long, value_name = "N")]
    pub(crate) seeds: Option<u64>,
    #[command(flatten)]
    pub(crate) place: Place,
}

/// Who does the work.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct Workers {
    /// Stages that run at a time, each in its own process [default: cores / compute.threads, one for each GPU]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) jobs: Option<u16>,
    /// Devices to spread the processes over, such as cuda:0,cuda:1; instead of --device
    #[arg(long, value_name = "DEVICE,…", value_delimiter = ',', conflicts_with = "device")]
    pub(crate) devices: Vec<Device>,
    /// Compare all stored files with their checksums first; what has changed is made again
    #[arg(long)]
    pub(crate) check: bool,
    #[command(flatten)]
    pub(crate) pace: Pace,
}

/// How often work in progress is kept.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct Pace {
    /// Keep the state of a training so often, less where writing it takes long; 0: after every step [default: 15]
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub(crate) checkpoint_every: Option<f64>,
    /// Take over what another machine has claimed and not touched for so long [default: 90]
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub(crate) claim_expiry: Option<f64>,
}

fn seconds(text: &str) -> Result<f64, String> {
    let seconds: f64 = text.parse().map_err(|e| format!("{e}"))?;
    if (0.0..=1e6).contains(&seconds) { Ok(seconds) } else { Err("allowed: 0 to 1000000".to_owned()) }
}

/// What this program was built from, as the build script found it.
pub(crate) fn program() -> Program {
    Program {
        commit: option_env!("THINET_COMMIT").map(str::to_owned),
        dirty: option_env!("THINET_DIRTY").and_then(|dirty| dirty.parse().ok()),
    }
}

/// Where things are and where to compute.
#[derive(Clone, Debug, Args)]
pub(crate) struct Place {
    /// Device: cpu, cuda or cuda:N
    #[arg(long, value_name = "DEVICE", default_value = "cpu")]
    pub(crate) device: Device,
    /// Folder of the dataset [default: data/<dataset>]
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// Folder of all results
    #[arg(long, value_name = "DIR", default_value = "results")]
    pub(crate) results: PathBuf,
}

impl Place {
    /// The same with another device.
    pub(crate) fn on(&self, device: Device) -> Self {
        Self { device, ..self.clone() }
    }

    pub(crate) fn options(&self, seeds: Option<u64>) -> Options {
        Options {
            seeds,
            device: self.device,
            data: self.data.clone(),
            results: self.results.clone(),
            is_elsewhere: false,
            program: program(),
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct Count {
    /// The network, see `thinet list models`
    #[arg(value_name = "MODEL", required_unless_present = "all", conflicts_with = "all")]
    pub(crate) model: Option<String>,
    /// The paper's eight models, ours beside published
    #[arg(long)]
    pub(crate) all: bool,
    /// Where a ResNet's down-sampling blocks stride
    #[arg(long, value_name = "1x1|3x3")]
    pub(crate) stride: Option<String>,
    /// Width multiplier
    #[arg(long, value_name = "W", default_value_t = 1.0)]
    pub(crate) width: f64,
    /// Keep this fraction of the channels of each pruned layer
    #[arg(long, value_name = "R")]
    pub(crate) keep_rate: Option<f64>,
    /// Layers that --keep-rate prunes [default: the paper's choice, else every prunable one]
    #[arg(long, value_name = "LAYER,…", value_delimiter = ',', requires = "keep_rate")]
    pub(crate) prune: Vec<String>,
    /// Channels, height and width of the input [default: the network's own]
    #[arg(long, value_name = "CxHxW")]
    pub(crate) input: Option<String>,
    /// Number of classes [default: the network's own]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) classes: Option<u32>,
    /// A line for each layer
    #[arg(long, conflicts_with = "all")]
    pub(crate) layers: bool,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Latency {
    /// Device: cpu, cuda or cuda:N
    #[arg(long, value_name = "DEVICE", default_value = "cpu")]
    pub(crate) device: Device,
    /// Images in a batch [default: 32, as the paper's]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=4096))]
    pub(crate) batch: Option<u16>,
    /// Timings of each model [default: 3 on a CPU, else 50]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=10_000))]
    pub(crate) repeats: Option<u16>,
    /// libtorch threads [default: cores]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) threads: Option<u16>,
    /// Which models, such as vgg16 or thinet-gap [default: all eight]
    #[arg(long, value_name = "MODEL,…", value_delimiter = ',')]
    pub(crate) models: Vec<String>,
    /// Measure again and replace the stored table
    #[arg(long)]
    pub(crate) force: bool,
    /// Folder of all results
    #[arg(long, value_name = "DIR", default_value = "results")]
    pub(crate) results: PathBuf,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Paper {
    /// The experiments, such as experiments/imagenet/*.toml
    #[arg(required = true, value_name = "SPEC")]
    pub(crate) specs: Vec<PathBuf>,
    /// A study that was run, whose result the closing lines begin with
    #[arg(long, value_name = "SPEC")]
    pub(crate) study: Option<PathBuf>,
    /// Folder of ILSVRC-2012 (see `thinet data check imagenet`)
    #[arg(long, value_name = "DIR")]
    pub(crate) imagenet: Option<PathBuf>,
    /// Folder of CUB-200-2011
    #[arg(long, value_name = "DIR")]
    pub(crate) cub: Option<PathBuf>,
    /// Device: cpu, cuda or cuda:N
    #[arg(long, value_name = "DEVICE", default_value = "cpu")]
    pub(crate) device: Device,
    /// Folder of all results
    #[arg(long, value_name = "DIR", default_value = "results")]
    pub(crate) results: PathBuf,
    #[command(flatten)]
    pub(crate) workers: Workers,
}

#[derive(Debug, Args)]
pub(crate) struct StatusOf {
    /// An experiment's TOML file, or a run: its name or id or the beginning of one, its folder or a table of it
    /// [default: all runs]
    #[arg(value_name = "SPEC|RUN")]
    pub(crate) what: Option<String>,
    /// Number of root seeds, where `run` was given another than the spec's
    #[arg(long, value_name = "N")]
    pub(crate) seeds: Option<u64>,
    /// Folder of all results
    #[arg(long, value_name = "DIR", default_value = "results")]
    pub(crate) results: PathBuf,
    /// Compare every stored file with its checksum, too; reads all that is stored of the run
    #[arg(long)]
    pub(crate) check: bool,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Diff {
    /// A run: its name or id or the beginning of one, its folder, its spec or a table of it
    pub(crate) first: String,
    /// Another run
    pub(crate) second: String,
    /// Folder of all results
    #[arg(long, value_name = "DIR", default_value = "results")]
    pub(crate) results: PathBuf,
    /// Folder of the results that hold the second run, if it is another one
    #[arg(long, value_name = "DIR")]
    pub(crate) second_results: Option<PathBuf>,
    /// Compare the stored tensors, too, bit by bit, and fail if a stage differs or is stored of one run only
    #[arg(long)]
    pub(crate) exact: bool,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Verify {
    /// The table, such as selectors-fashion-mnist, or the run that made it
    pub(crate) table: String,
    /// How many cells, spread over the table
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) cells: u16,
    /// These cells, by the table's last column
    #[arg(long, value_name = "ID", conflicts_with = "cells")]
    pub(crate) cell: Vec<String>,
    /// Every cell
    #[arg(long, conflicts_with_all = ["cells", "cell"])]
    pub(crate) all: bool,
    /// Train the dense net again, too
    #[arg(long)]
    pub(crate) dense: bool,
    /// Points of top-1 or top-5 that may lie between [default: 0; on a GPU without compute.deterministic 0.5, which is an
    /// assumption]
    #[arg(long, value_name = "D")]
    pub(crate) tolerance: Option<f64>,
    /// The spec, where the one beside the table does not find the dense net's weights
    #[arg(long, value_name = "SPEC")]
    pub(crate) spec: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) place: Place,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Clean {
    /// Remove this run, too, with the stages that only it lists (name, id or the beginning of one)
    #[arg(long = "run", value_name = "RUN")]
    pub(crate) runs: Vec<String>,
    /// Remove calibration images, too; they are made again when needed
    #[arg(long)]
    pub(crate) crops: bool,
    /// Do not ask
    #[arg(long)]
    pub(crate) yes: bool,
    /// Only list
    #[arg(long, conflicts_with = "yes")]
    pub(crate) dry_run: bool,
    /// Folder of all results
    #[arg(long, value_name = "DIR", default_value = "results")]
    pub(crate) results: PathBuf,
    /// Print JSON, remove nothing
    #[arg(long, conflicts_with = "yes")]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Submit {
    /// The experiment's TOML file
    #[arg(value_name = "SPEC")]
    pub(crate) spec: PathBuf,
    /// Number of root seeds, instead of the spec's
    #[arg(long, value_name = "N")]
    pub(crate) seeds: Option<u64>,
    /// Device of a task: cpu or cuda [default: cuda where --gpus-per-task is given, else cpu]
    #[arg(long, value_name = "DEVICE")]
    pub(crate) device: Option<Device>,
    /// Folder of the dataset [default: data/<dataset>]
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// Folder of all results
    #[arg(long, value_name = "DIR", default_value = "results")]
    pub(crate) results: PathBuf,
    /// Partition
    #[arg(long, value_name = "NAME")]
    pub(crate) partition: Option<String>,
    /// GPUs of a task
    #[arg(long, value_name = "N")]
    pub(crate) gpus_per_task: Option<u16>,
    /// CPU cores of a task [default: compute.threads]
    #[arg(long, value_name = "N")]
    pub(crate) cpus_per_task: Option<u16>,
    /// Memory of a task, such as 16G
    #[arg(long, value_name = "SIZE")]
    pub(crate) mem: Option<String>,
    /// Time limit of a task, such as 8:00:00; one that needs more is queued again
    #[arg(long, value_name = "TIME")]
    pub(crate) time: Option<String>,
    /// Tasks that run at a time
    #[arg(long, value_name = "N")]
    pub(crate) max_running: Option<u32>,
    /// Write the batch scripts, submit nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    #[command(flatten)]
    pub(crate) pace: Pace,
    /// Options for sbatch
    #[arg(last = true, value_name = "SBATCH-OPTION")]
    pub(crate) sbatch: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Export {
    /// A stage's id (the column `cell` of a table) or a .safetensors file of this program
    pub(crate) what: String,
    /// Whose tensor names to use
    #[arg(long, value_enum, default_value_t = ExportLayout::Torchvision)]
    pub(crate) layout: ExportLayout,
    /// The file to write
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: PathBuf,
    /// Replace the file if it exists
    #[arg(long)]
    pub(crate) force: bool,
    /// Results folder
    #[arg(long, value_name = "DIR", default_value = "results")]
    pub(crate) results: PathBuf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ExportLayout {
    /// This program's: conv1_1, fc6
    Own,
    /// torchvision's: features.0, classifier.0
    Torchvision,
    /// timm's: features.0, pre_logits.fc1, head.fc
    Timm,
    /// torchvision's names for a ResNet-50 that strides in the first 1x1 convolution
    Caffe,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Data {
    /// Get a dataset: from the folder itself, a system package or its official address
    #[command(after_help = "\
What is there is checked and kept. A download that was cut off goes on where it was, and nothing
gets its name before its checksum is right. Proxies (HTTPS_PROXY, NO_PROXY) and the certificates
of the system are used.

Examples:
  thinet data fetch cifar10
  thinet data fetch --for experiments/cub200/selectors.toml --data /data/CUB_200_2011
  thinet data fetch cifar100 --mirror https://example.org/datasets")]
    Fetch {
        #[command(flatten)]
        source: DataSource,
        /// A folder that holds the official archives and is asked instead of their own
        #[arg(long, value_name = "URL", env = "THINET_MIRROR", hide_env_values = true)]
        mirror: Option<String>,
    },
    /// Look a dataset over: layout, labels, counts, files that cannot be decoded
    #[command(after_help = "\
Finds in seconds what costs days later: flat or numbered class folders, a wrong number of classes,
labels in another order, images under a wrong class, files that are cut off.

Examples:
  thinet data check imagenet --data /data/ILSVRC2012
  thinet data check --for experiments/cub200/selectors.toml --data /data/CUB_200_2011 --all")]
    Check {
        #[command(flatten)]
        source: DataSource,
        /// Decode every photograph instead of a sample of 1000
        #[arg(long)]
        all: bool,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Args)]
pub(crate) struct DataSource {
    #[arg(value_name = "DATASET", required_unless_present = "spec", conflicts_with = "spec", help = dataset_names())]
    pub(crate) dataset: Option<String>,
    /// The dataset of this experiment
    #[arg(long = "for", value_name = "SPEC")]
    pub(crate) spec: Option<PathBuf>,
    /// Its folder [default: data/<dataset>]
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
}

/// The datasets that can be named without a spec.
fn dataset_names() -> String {
    let known = thinet_data::DatasetSpec::kinds().into_iter().filter(|kind| kind.by_name.is_some());
    let mut names: Vec<&str> = known.map(|kind| kind.name).collect();
    let last = names.pop().unwrap_or_default();
    format!("{} or {last}", names.join(", "))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Listed {
    /// Networks for `net.arch`
    Models,
    /// Datasets for `dataset.kind`
    Datasets,
    /// Selectors for `methods.selector`
    Selectors,
    /// Reconstructions for `methods.reconstruction`
    Reconstructions,
    /// Every key of a spec, with type and default
    Keys,
    /// Runs in the results folder
    Runs,
}
