//! `thinet data`: fetches a dataset, prepares its photographs, or reads it and reports what is in it.

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use thinet_data::{DataError, DatasetSpec, Examination, FetchEvent};
use thinet_harness::HarnessError;
use thinet_harness::study::{Options, Spec};
use thinet_report::tables::one_line;

use crate::exit::{BadArgument, BadData};
use crate::output::print_json;

/// Fetch, check or prepare a dataset
#[derive(Debug, Subcommand)]
pub(crate) enum Arguments {
    /// Fetch a dataset: from its folder, a system package or its official address
    #[command(after_help = "\
Files that are there are checked and kept. An interrupted download is resumed, and nothing gets its
name before its checksum is right. Proxies (HTTPS_PROXY, NO_PROXY) and the system's certificates are
used.

Examples:
  thinet data fetch cifar10
  thinet data fetch --for experiments/cub200/selectors.toml --data /data/CUB_200_2011
  thinet data fetch cifar100 --mirror https://example.org/datasets")]
    Fetch {
        #[command(flatten)]
        source: DataSource,
        /// Address of a folder with the official archives, used instead of their own
        #[arg(long, value_name = "URL", env = "THINET_MIRROR", hide_env_values = true)]
        mirror: Option<String>,
    },
    /// Check a dataset: layout, labels, counts, files that cannot be decoded
    #[command(after_help = "\
Catches in seconds mistakes that would otherwise appear days into a run: flat or numbered class
folders, a wrong number of classes, labels in another order, images under a wrong class, truncated
files.

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
    /// Decode and resize photographs once, into files that runs read them from
    #[command(after_help = "\
A study decodes each photograph in every epoch, which can keep a GPU waiting. Where the protocol
resizes all images in one way (caffe-squash, caffe-short) this is done once: a file for the training
and one for the test images hold the resized pixels (197 KB an image for caffe-squash at 256, 262 GB
for ImageNet). Crops and mirroring are still drawn anew, and every value is the same to the bit, so
results and stored stages do not change.

The size is printed and the free space compared before anything is written. An interrupted call is
continued by the same command. Every run, plan and verify finds the files in prepared/ in the folder
of the dataset; where that cannot be written to, give --prepared DIR here and there. They can be
removed at any time. A file that is damaged, or whose images have changed, stops a run with its name;
the same command makes it again.

Examples:
  thinet data prepare --for experiments/cub200/selectors.toml --data /data/CUB_200_2011
  thinet data prepare imagenet --data /data/ILSVRC2012 --prepared /scratch/prepared")]
    Prepare {
        #[command(flatten)]
        source: DataSource,
        /// Folder of the files [default: prepared/ in the folder of the dataset]
        #[arg(long, value_name = "DIR")]
        prepared: Option<PathBuf>,
    },
}

#[derive(Debug, Args)]
pub(crate) struct DataSource {
    #[arg(value_name = "DATASET", required_unless_present = "spec", conflicts_with = "spec", help = dataset_help())]
    dataset: Option<String>,
    /// Use the dataset of this study
    #[arg(long = "for", value_name = "SPEC")]
    spec: Option<PathBuf>,
    /// Folder of the dataset [default: data/<dataset>]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
}

/// The datasets that can be named without a spec.
fn dataset_names() -> Vec<&'static str> {
    let kinds = DatasetSpec::kinds().into_iter();
    kinds.filter(|kind| kind.by_name.is_some()).map(|kind| kind.name).collect()
}

fn dataset_help() -> String {
    let mut names = dataset_names();
    let last = names.pop().unwrap_or_default();
    format!("{} or {last}", names.join(", "))
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Report {
    dataset: String,
    /// As text, though a path need not be valid UTF-8.
    folder: String,
    classes: usize,
    shape: [usize; 3],
    train: Part,
    test: Part,
    /// Files that were decoded one by one; 0 where opening reads everything.
    decoded: usize,
    damaged: Vec<String>,
    problems: Vec<String>,
    unusual: Vec<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Part {
    images: usize,
    /// Fewest and most images of a class.
    per_class: [usize; 2],
    fingerprint: String,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    match arguments {
        Arguments::Fetch { source, mirror } => {
            let (spec, folder) = resolve(source)?;
            // A variable that is set to nothing is not set.
            let mirror = mirror.as_deref().filter(|mirror| !mirror.is_empty());
            fetch(mirror, &spec, &folder)
        }
        Arguments::Check { source, all, json } => {
            let (spec, folder) = resolve(source)?;
            check(source, &spec, &folder, *all, *json)
        }
        Arguments::Prepare { source, prepared } => {
            let (spec, folder) = resolve(source)?;
            prepare(source, &spec, &folder, prepared.as_deref())
        }
    }
}

fn prepare(
    source: &DataSource,
    spec: &DatasetSpec,
    folder: &Path,
    prepared: Option<&Path>,
) -> anyhow::Result<()> {
    let mut progress = FetchProgress::new();
    let outcome = thinet_data::prepare(spec, folder, prepared, &mut |event| progress.show(event));
    progress.close();
    outcome.map(|_| ()).map_err(|error| of_source(source, error))
}

/// An error of the dataset; names the spec where that is wrong.
fn of_source(source: &DataSource, error: DataError) -> anyhow::Error {
    let error = match &source.spec {
        Some(path) => HarnessError::of_dataset(path, error),
        None => error.into(),
    };
    error.into()
}

fn fetch(mirror: Option<&str>, spec: &DatasetSpec, folder: &Path) -> anyhow::Result<()> {
    let mut progress = FetchProgress::new();
    let outcome = thinet_data::fetch_from(mirror, spec, folder, &mut |event| progress.show(event));
    progress.close();
    outcome.map_err(|error| match error {
        DataError::Value { key: "mirror", problem } => {
            BadArgument(format!("--mirror (or THINET_MIRROR) {problem}")).into()
        }
        other => HarnessError::from(other).into(),
    })
}

/// In a log, a long download says how far it is this often.
const LINE_EVERY: Duration = Duration::from_secs(30);

/// Shows on standard error what happens while a dataset is fetched or prepared: steps as lines, long ones also as a bar on a terminal
/// and as a line from time to time in a log.
struct FetchProgress {
    is_terminal: bool,
    /// The step that is going on, and its bar.
    step: String,
    bar: Option<ProgressBar>,
    last_line: Instant,
}

impl FetchProgress {
    fn new() -> Self {
        let is_terminal = std::io::stderr().is_terminal();
        Self { is_terminal, step: String::new(), bar: None, last_line: Instant::now() }
    }

    fn show(&mut self, event: FetchEvent<'_>) {
        match event {
            FetchEvent::Line(line) => {
                self.close();
                eprintln!("{}", one_line(line));
            }
            FetchEvent::Progress { step, done, total } if self.is_terminal => {
                if self.step != step {
                    self.close();
                    step.clone_into(&mut self.step);
                }
                let bar = self.bar.get_or_insert_with(|| bar(step, done, total));
                bar.set_position(done);
            }
            FetchEvent::Progress { step, done, total } if self.last_line.elapsed() >= LINE_EVERY => {
                self.last_line = Instant::now();
                eprintln!("       {step}: {}", how_far(done, total));
            }
            _ => {}
        }
    }

    /// Removes the bar.
    fn close(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
        self.step.clear();
    }
}

fn bar(step: &str, done: u64, total: Option<u64>) -> ProgressBar {
    let (bar, template) = match total {
        Some(total) => (
            ProgressBar::new(total),
            "{msg} {wide_bar} {decimal_bytes}/{decimal_total_bytes} {decimal_bytes_per_sec} {eta} left",
        ),
        None => (ProgressBar::no_length(), "{msg} {decimal_bytes} {decimal_bytes_per_sec}"),
    };
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar.set_message(step.to_owned());
    // What was there before says nothing about the speed.
    bar.set_position(done);
    bar.reset_eta();
    bar
}

/// Megabytes that are done, of all if that is known.
fn how_far(done: u64, total: Option<u64>) -> String {
    let megabytes = |bytes: u64| bytes / 1_000_000;
    match total {
        Some(total) => format!(
            "{} of {} MB, {} %",
            megabytes(done),
            megabytes(total),
            u128::from(done) * 100 / u128::from(total.max(1))
        ),
        None => format!("{} MB", megabytes(done)),
    }
}

/// The dataset and its folder.
fn resolve(source: &DataSource) -> anyhow::Result<(DatasetSpec, PathBuf)> {
    let options = Options { data: source.data.clone(), ..Options::default() };
    match (&source.spec, &source.dataset) {
        (Some(path), _) => {
            let spec = Spec::read(path).map_err(HarnessError::from)?;
            let folder = options.data_folder(&spec.dataset);
            Ok((spec.dataset, folder))
        }
        (None, Some(name)) => {
            let spec = DatasetSpec::named(name).ok_or_else(|| {
                let names = dataset_names();
                BadArgument(format!("there is no dataset {name:?} to fetch; allowed: {}", names.join(", ")))
            })?;
            let folder = options.data_folder(&spec);
            Ok((spec, folder))
        }
        (None, None) => Err(BadArgument("name a dataset or --for SPEC".into()).into()),
    }
}

/// How many damaged files are printed; JSON lists all.
const NAMED: usize = 20;

/// Photographs to decode unless `--all` is given; takes seconds.
const SAMPLE: usize = 1000;

fn check(
    source: &DataSource,
    spec: &DatasetSpec,
    folder: &Path,
    all: bool,
    json: bool,
) -> anyhow::Result<()> {
    let most = if all { None } else { Some(SAMPLE) };
    let Examination { split, decoded, damaged, problems, unusual } =
        thinet_data::examine(spec, folder, most).map_err(|error| of_source(source, error))?;
    let part = |set: &dyn thinet_data::Dataset| {
        let mut counts = vec![0; set.classes()];
        for image in 0..set.len() {
            counts[set.label(image)] += 1;
        }
        let per_class =
            [counts.iter().copied().min().unwrap_or(0), counts.iter().copied().max().unwrap_or(0)];
        Part { images: set.len(), per_class, fingerprint: set.fingerprint().to_owned() }
    };
    let report = Report {
        dataset: split.train.name().to_owned(),
        folder: folder.display().to_string(),
        classes: split.train.classes(),
        shape: split.train.shape(),
        train: part(&*split.train),
        test: part(&*split.test),
        decoded,
        damaged,
        problems,
        unusual,
    };
    if json {
        print_json(&report)?;
        return verdict(&report);
    }
    let [c, h, w] = report.shape;
    println!("{} in {}: {} classes, images {c}×{h}×{w}", report.dataset, report.folder, report.classes);
    for (name, part) in [("training", &report.train), ("test", &report.test)] {
        let [fewest, most] = part.per_class;
        println!(
            "  {name:<8} {:>7} images, {fewest} to {most} a class, {}",
            part.images,
            &part.fingerprint[..16]
        );
    }
    for line in &report.unusual {
        println!("unusual: {line}");
    }
    for line in &report.problems {
        println!("problem: {line}");
    }
    for line in report.damaged.iter().take(NAMED) {
        println!("damaged: {line}");
    }
    if report.damaged.len() > NAMED {
        println!("damaged: and {} more; --json names all", report.damaged.len() - NAMED);
    }
    if report.decoded > 0 {
        let of = report.train.images + report.test.images;
        let hint = if report.decoded < of { "; --all decodes every one" } else { "" };
        println!("{} of {of} files decoded, {} damaged{hint}", report.decoded, report.damaged.len());
    }
    verdict(&report)
}

/// An error if files are damaged or a study could not use the images.
fn verdict(report: &Report) -> anyhow::Result<()> {
    let damaged = match report.damaged.len() {
        0 => None,
        1 => Some("1 file cannot be decoded".to_owned()),
        n => Some(format!("{n} files cannot be decoded")),
    };
    let wrong: Vec<String> = report.problems.iter().cloned().chain(damaged).collect();
    if wrong.is_empty() { Ok(()) } else { Err(BadData(wrong.join("; ")).into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_says_how_far_a_download_is() {
        assert_eq!(how_far(85_000_000, Some(170_052_171)), "85 of 170 MB, 49 %");
        assert_eq!(how_far(85_999_999, None), "85 MB");
        assert_eq!(how_far(0, Some(0)), "0 of 0 MB, 0 %");
    }
}
