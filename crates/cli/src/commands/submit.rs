//! `thinet submit`: submits the missing stages of a study as Slurm job arrays.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use thinet_harness::run::slurm::{SlurmOptions, submit};
use thinet_harness::study::Plan;
use thinet_models::Device;

use crate::options::{Pace, Place, Study, program_file};
use crate::permission::may_run_commands;

/// Submit a study's missing stages to Slurm: dense nets, then an array of cells, then the tables
#[derive(Debug, Args)]
#[command(after_help = "\
Each task runs one stage. A task that is pre-empted or reaches its time limit is queued again and
continues where it stopped. A second submit sends what is neither stored nor in the queue. All nodes
must see the results folder. Options for sbatch go after `--`.

Examples:
  thinet submit experiments/imagenet/vgg16-conv.toml --data /data/ILSVRC2012 --partition gpu \\
      --gpus-per-task 1 --time 24:00:00 -- --account=lab --constraint=a100
  thinet submit experiments/cifar10-selectors.toml --time 1:00:00 --dry-run")]
pub(crate) struct Arguments {
    /// The study's TOML file
    #[arg(value_name = "SPEC")]
    spec: PathBuf,
    /// Number of root seeds, in place of the spec's
    #[arg(long, value_name = "N")]
    seeds: Option<u64>,
    /// Device of a task: cpu or cuda [default: cuda if --gpus-per-task is given, else cpu]
    #[arg(long, value_name = "DEVICE")]
    device: Option<Device>,
    /// Folder of the dataset [default: data/<dataset>]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Folder of files made by `thinet data prepare` [default: prepared/ in the folder of the dataset]
    #[arg(long, value_name = "DIR")]
    prepared: Option<PathBuf>,
    /// Results folder
    #[arg(long, value_name = "DIR", default_value = "results")]
    results: PathBuf,
    /// Partition
    #[arg(long, value_name = "NAME")]
    partition: Option<String>,
    /// GPUs per task
    #[arg(long, value_name = "N")]
    gpus_per_task: Option<u16>,
    /// CPU cores per task [default: compute.threads]
    #[arg(long, value_name = "N")]
    cpus_per_task: Option<u16>,
    /// Memory per task, such as 16G
    #[arg(long, value_name = "SIZE")]
    mem: Option<String>,
    /// Time limit per task, such as 8:00:00; a task that needs more is queued again
    #[arg(long, value_name = "TIME")]
    time: Option<String>,
    /// Largest number of tasks that run at a time
    #[arg(long, value_name = "N")]
    max_running: Option<u32>,
    /// Write the batch scripts only, submit nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    pace: Pace,
    /// Further options for sbatch
    #[arg(last = true, value_name = "SBATCH-OPTION")]
    sbatch: Vec<String>,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let gpus = arguments.gpus_per_task.unwrap_or(0);
    let device = arguments.device.unwrap_or(if gpus > 0 { Device::Cuda(0) } else { Device::Cpu });
    let place = Place {
        device,
        data: arguments.data.clone(),
        prepared: arguments.prepared.clone(),
        results: arguments.results.clone(),
    };
    let study = Study { spec: arguments.spec.clone(), seeds: arguments.seeds, place };
    let plan = study.plan_elsewhere()?;
    // Tasks cannot be asked, so they inherit the permission.
    let allow_commands = may_run_commands(&plan, arguments.pace.allow_commands)?;
    let pace = Pace { allow_commands, ..arguments.pace.clone() };
    let jobs = submit(&plan, &slurm_options(arguments, &study, &plan, &pace)?, arguments.dry_run)?;
    if jobs.is_empty() {
        eprintln!("{}: nothing to submit: every stage is stored or in the queue", plan.spec.name);
        return Ok(());
    }
    for job in &jobs {
        let tasks = match job.tasks.len() {
            0 => "the tables, when all have ended".to_owned(),
            1 => "1 task".to_owned(),
            n => format!("{n} tasks"),
        };
        let number = job.job.map_or_else(|| "not submitted".to_owned(), |job| format!("job {job}"));
        println!("{number}: {tasks} ({})", job.script.display());
    }
    eprintln!("follow them with: thinet status {}", study.spec.display());
    Ok(())
}

fn slurm_options(
    arguments: &Arguments,
    study: &Study,
    plan: &Plan,
    pace: &Pace,
) -> anyhow::Result<SlurmOptions> {
    let program = program_file()?;
    let threads = u16::try_from(plan.spec.compute.threads).unwrap_or(u16::MAX);
    let mut sbatch = vec!["--ntasks=1".to_owned()];
    sbatch.push(format!("--cpus-per-task={}", arguments.cpus_per_task.unwrap_or(threads)));
    let mut option =
        |name: &str, value: Option<String>| sbatch.extend(value.map(|value| format!("--{name}={value}")));
    option("partition", arguments.partition.clone());
    option("time", arguments.time.clone());
    option("mem", arguments.mem.clone());
    option("gpus-per-task", arguments.gpus_per_task.map(|n| n.to_string()));
    sbatch.extend(arguments.sbatch.iter().cloned());
    let words = |command: &str, pace: &Pace| -> anyhow::Result<Vec<String>> {
        let mut words = vec![program.display().to_string()];
        for argument in study.command_line(command, pace) {
            let word =
                argument.into_string().ok().context("a path is not valid UTF-8, which batch scripts need")?;
            words.push(word);
        }
        Ok(words)
    };
    Ok(SlurmOptions {
        sbatch,
        max_running: arguments.max_running,
        task: words("task", pace)?,
        tables: words("table", &Pace::default())?,
    })
}
