//! `thinet export`: writes a stored net as a file that PyTorch loads.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use thinet_harness::HarnessError;
use thinet_harness::stages::{PREPROCESSING, Preprocessing};
use thinet_harness::store::{Store, paths};
use thinet_models::{Layout, Metadata, export_weights, load_net};

use crate::exit::BadArgument;

/// Write a stored net as a safetensors file that PyTorch loads into an ordinary module
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  thinet export cell-0123456789abcdef --layout torchvision -o thinet-conv.safetensors
  thinet export results/store/dense-0123456789abcdef/weights.safetensors -o dense.safetensors")]
pub(crate) struct Arguments {
    /// A stage's id (the column `cell` of a table) or a .safetensors file of this program
    what: String,
    /// Library whose tensor names to use
    #[arg(long, value_enum, default_value_t = ExportLayout::Torchvision)]
    layout: ExportLayout,
    /// The file to write
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Replace the file if it exists
    #[arg(long)]
    force: bool,
    /// Results folder
    #[arg(long, value_name = "DIR", default_value = "results")]
    results: PathBuf,
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

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let source = source(&arguments.what, &arguments.results)?;
    let (net, mut metadata) = load_net(&source, tch::Device::Cpu).map_err(HarnessError::from)?;
    let layout = match arguments.layout {
        ExportLayout::Own => Layout::Own,
        ExportLayout::Torchvision => Layout::Torchvision,
        ExportLayout::Timm => Layout::Timm,
        ExportLayout::Caffe => Layout::Caffe,
    };
    if arguments.output.exists() && !arguments.force {
        let problem = format!("{} exists already; --force replaces it", arguments.output.display());
        return Err(BadArgument(problem).into());
    }
    let preprocessing = preprocessing(&metadata, &Store::at(&arguments.results))?;
    if let Some(preprocessing) = &preprocessing {
        metadata.insert(PREPROCESSING.to_owned(), serde_json::to_string(preprocessing)?);
    }
    export_weights(&arguments.output, &net, layout, &metadata).map_err(HarnessError::from)?;
    let tensors = net.graph.tensors().len();
    println!(
        "{}: {} with {tensors} tensors, {} names",
        arguments.output.display(),
        net.graph.name(),
        layout.name()
    );
    match preprocessing {
        Some(preprocessing) => println!("its inputs: {}", preprocessing.line()),
        None => println!(
            "its inputs: not known, neither the file nor a record of its stage says how images were prepared"
        ),
    }
    println!("next: python scripts/load_exported.py {}", arguments.output.display());
    println!(
        "      builds the module with torch alone and prints how images are prepared; see its first lines for an example"
    );
    Ok(())
}

/// How images were prepared: from the file or, for stages of older versions, from the records of the store.
fn preprocessing(metadata: &Metadata, store: &Store) -> anyhow::Result<Option<Preprocessing>> {
    if let Some(text) = metadata.get(PREPROCESSING) {
        return serde_json::from_str(text).map(Some).context("the file's entry `preprocessing`");
    }
    match metadata.get("stage") {
        Some(stage) => Ok(Preprocessing::of_stage(store, stage)?),
        None => Ok(None),
    }
}

/// A weight file, or that of a stored stage.
fn source(what: &str, results: &Path) -> anyhow::Result<PathBuf> {
    if what.ends_with(".safetensors") {
        return Ok(what.into());
    }
    match Store::at(results).find_weights(what)? {
        Some(path) => Ok(path),
        None => Err(BadArgument(format!(
            "{what:?} is neither a .safetensors file nor a stage in {} (the column `cell` of a table, or `dense-…`)",
            paths::store(results).display()
        ))
        .into()),
    }
}
