//! `thinet export`: a stored net as a file that PyTorch loads.

use std::path::{Path, PathBuf};

use thinet_harness::HarnessError;
use thinet_harness::store::Store;
use thinet_models::{Layout, export_weights, load_net};

use crate::args::{Export, ExportLayout};
use crate::exit::BadArgument;

pub(crate) fn export(arguments: &Export) -> anyhow::Result<()> {
    let source = source(&arguments.what, &arguments.results)?;
    let (net, metadata) = load_net(&source, tch::Device::Cpu).map_err(HarnessError::from)?;
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
    export_weights(&arguments.output, &net, layout, &metadata).map_err(HarnessError::from)?;
    let tensors = net.graph.tensors().len();
    println!(
        "{}: {} with {tensors} tensors, {} names",
        arguments.output.display(),
        net.graph.name(),
        layout.name()
    );
    println!("load it with safetensors.torch.load_file; scripts/load_exported.py shows how");
    Ok(())
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
            results.join("store").display()
        ))
        .into()),
    }
}
