//! `thinet export`: a stored net as a file that PyTorch loads.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use thinet_harness::HarnessError;
use thinet_harness::stages::{PREPROCESSING, Preprocessing};
use thinet_harness::store::{Store, paths};
use thinet_models::{Layout, Metadata, export_weights, load_net};

use crate::args::{Export, ExportLayout};
use crate::exit::BadArgument;

pub(crate) fn export(arguments: &Export) -> anyhow::Result<()> {
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
        "      builds the PyTorch module with torch alone and tells how images are prepared; its first lines show the use"
    );
    Ok(())
}

/// How images were prepared: as the file says, or for stages of older versions as the records of their store say.
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
