//! `thinet data`: fetches a dataset, or reads it and reports what is in it.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde::Serialize;
use thinet_data::{DatasetSpec, Examination};
use thinet_harness::HarnessError;
use thinet_harness::study::{Options, Spec};

use crate::exit::{BadArgument, BadData};
use crate::output::print_json;

/// Fetch or check a dataset
#[derive(Debug, Subcommand)]
pub(crate) enum Arguments {
    /// Fetch a dataset: from its folder, a system package or its official address
    Fetch(DataSource),
    /// Check a dataset: layout, labels, counts, files that cannot be decoded
    #[command(after_help = "\
Finds in seconds what would cost days later: flat or numbered class folders, a wrong number of
classes, labels in another order, images under a wrong class, truncated files.

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
    #[arg(value_name = "DATASET", required_unless_present = "spec", conflicts_with = "spec", help = dataset_help())]
    dataset: Option<String>,
    /// Use the dataset of this experiment
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
        Arguments::Fetch(source) => {
            let (spec, folder) = resolve(source)?;
            thinet_data::fetch(&spec, &folder, &mut |line| eprintln!("{line}"))
                .map_err(HarnessError::from)?;
            Ok(())
        }
        Arguments::Check { source, all, json } => {
            let (spec, folder) = resolve(source)?;
            check(source, &spec, &folder, *all, *json)
        }
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
    let Examination { split, decoded, damaged, problems, unusual } = thinet_data::examine(spec, folder, most)
        .map_err(|error| match &source.spec {
            Some(path) => HarnessError::of_dataset(path, error),
            None => error.into(),
        })?;
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
