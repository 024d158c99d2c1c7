//! `thinet latency`: times the paper's models once and stores the table (Luo et al. 2017, tables 1 and 3, "f./b.").

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::Args;
use thinet_harness::HarnessError;
use thinet_harness::stages::{
    LatencyError, LatencyOptions, LatencyStep, check_latency_models, latency as measure,
};
use thinet_harness::store::{machine, paths};
use thinet_models::Device;
use thinet_report::tables::{self, StoredLatency};

use crate::exit::BadArgument;
use crate::options::program;
use crate::output::{print_json, report_written};
use crate::words::duration;

/// Time the paper's eight models forward and backward, with ratios beside the published ones
#[derive(Debug, Args)]
#[command(after_help = "\
Random weights, images of 224x224. The table is stored in results/tables; a second call with the
same device, batch and threads prints it again, unless --force is given.

Examples:
  thinet latency
  thinet latency --device cuda:0
  thinet latency --models vgg16,thinet-gap --batch 8 --threads 1 --force")]
pub(crate) struct Arguments {
    /// Device: cpu, cuda or cuda:N
    #[arg(long, value_name = "DEVICE", default_value = "cpu")]
    device: Device,
    /// Images in a batch [default: 32, as in the paper]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=4096))]
    batch: Option<u16>,
    /// Timings of each model [default: 3 on a CPU, else 50]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=10_000))]
    repeats: Option<u16>,
    /// libtorch threads [default: cores]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
    /// Models to time, such as vgg16 or thinet-gap [default: all eight]
    #[arg(long, value_name = "MODEL,…", value_delimiter = ',')]
    models: Vec<String>,
    /// Measure again and replace the stored table
    #[arg(long)]
    force: bool,
    /// Results folder
    #[arg(long, value_name = "DIR", default_value = "results")]
    results: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Default images in a batch, as in the paper, and timings of each model on a CPU: seven minutes for all models on two
/// cores.
const ON_CPU: (usize, usize) = (32, 3);
/// The same on a GPU, where a timing takes a fraction of a second.
const ON_GPU: (usize, usize) = (32, 50);
/// Rounds are reported at most this often.
const LINE_EVERY: Duration = Duration::from_secs(10);

pub(crate) fn run(asked: &Arguments) -> anyhow::Result<()> {
    let options = options(asked)?;
    let folder = paths::tables(&asked.results);
    let device = options.device.to_string();
    let run = tables::latency_run(&device, &machine(&device), options.batch, options.threads);
    if !asked.force
        && let Some(stored) = stored(&folder, Some(&run))?
    {
        check_same(&stored, asked)?;
        eprintln!("stored:  {} (--force measures again and replaces it)", stored.path.display());
        return print(&stored, asked.json);
    }
    // Fails now rather than after minutes of work.
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let record = measure(&options, &mut progress(options.repeats))?;
    let table = tables::latency(&record).map_err(HarnessError::from)?;
    let written = tables::write(&folder, &table, &run).map_err(HarnessError::from)?;
    if let Some(stored) = stored(&folder, Some(&run))? {
        print(&stored, asked.json)?;
    }
    report_written(&written);
    Ok(())
}

/// Prints the table that was measured last, or that there is none.
pub(crate) fn show_stored(folder: &Path, json: bool) -> anyhow::Result<()> {
    match stored(folder, None)? {
        Some(table) => print(&table, json),
        None if json => print_json(&serde_json::json!({ "table": "latency", "run": null, "rows": [] })),
        None => {
            println!("not run: thinet latency");
            Ok(())
        }
    }
}

fn options(asked: &Arguments) -> anyhow::Result<LatencyOptions> {
    check_latency_models(&asked.models).map_err(|error| match error {
        LatencyError::UnknownModel { .. } => anyhow::Error::from(BadArgument(error.to_string())),
        other => other.into(),
    })?;
    let device = asked.device;
    device.check_available().map_err(HarnessError::Device)?;
    let (batch, repeats) = if device.is_gpu() { ON_GPU } else { ON_CPU };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    Ok(LatencyOptions {
        device,
        batch: asked.batch.map_or(batch, usize::from),
        repeats: asked.repeats.map_or(repeats, usize::from),
        threads: asked.threads.map_or(cores, usize::from),
        models: asked.models.clone(),
        program: program(),
    })
}

fn stored(folder: &Path, run: Option<&str>) -> anyhow::Result<Option<StoredLatency>> {
    Ok(tables::stored_latency(folder, run).map_err(HarnessError::from)?)
}

/// Refuses a stored table that holds another measurement than asked for; --force replaces it.
fn check_same(stored: &StoredLatency, asked: &Arguments) -> anyhow::Result<()> {
    let models = stored.models().map_err(HarnessError::from)?;
    let repeats = stored.repeats().unwrap_or_default();
    let complete = models.len() == stored.rows.len();
    let has_models =
        complete || (!asked.models.is_empty() && asked.models.iter().all(|m| models.contains(m)));
    if has_models && asked.repeats.is_none_or(|asked| u64::from(asked) == repeats) {
        return Ok(());
    }
    let holds = if complete { "all models".to_owned() } else { models.join(", ") };
    Err(BadArgument(format!(
        "{} holds another measurement ({holds}; repeats: {repeats}); --force measures again and replaces it",
        stored.path.display()
    ))
    .into())
}

fn print(stored: &StoredLatency, json: bool) -> anyhow::Result<()> {
    let is_here = stored.is_of(&machine);
    if !stored.is_checked {
        let path = stored.path.display();
        eprintln!("note: {path} has no checksums (an older version wrote it): shown as it is");
    }
    if json {
        let StoredLatency { run, rows, .. } = stored;
        return print_json(
            &serde_json::json!({ "table": "latency", "run": run, "this-machine": is_here, "rows": rows }),
        );
    }
    if !is_here {
        println!("Measured on another machine, not on this one; `thinet latency` measures here.\n");
    }
    println!("{}", stored.markdown);
    Ok(())
}

/// Prints a line for each model that is ready, then rounds from time to time.
fn progress(repeats: usize) -> impl FnMut(LatencyStep<'_>) {
    let (mut round_ms, mut last_line) = (0.0, Instant::now());
    move |step| match step {
        LatencyStep::Ready { model, done, of, ms } => {
            round_ms += ms;
            eprintln!("ready    {model} ({done}/{of}): {ms:.0} ms forward and forward + backward");
            if done == of {
                let left = duration(round_ms / 1e3 * repeats as f64);
                eprintln!("timing   {repeats} rounds over {of} models, about {left}");
            }
            last_line = Instant::now();
        }
        LatencyStep::Round { done, of, .. } if last_line.elapsed() >= LINE_EVERY || done == of => {
            eprintln!("timing   round {done}/{of}");
            last_line = Instant::now();
        }
        LatencyStep::Round { .. } => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn help_states_the_defaults() {
        let latency = Arguments::augment_args(clap::Command::new("latency"));
        let help = |name: &str| {
            let argument = latency.get_arguments().find(|argument| argument.get_id() == name);
            argument.unwrap().get_help().unwrap().to_string()
        };
        let repeats = format!("[default: {} on a CPU, else {}]", ON_CPU.1, ON_GPU.1);
        assert!(help("repeats").contains(&repeats), "{}", help("repeats"));
        assert_eq!(ON_CPU.0, ON_GPU.0);
        assert!(help("batch").contains(&format!("[default: {}, as in the paper]", ON_CPU.0)));
    }
}
