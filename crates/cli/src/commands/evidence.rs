//! `thinet evidence`: writes the evidence of a study's dense nets for notebooks.

use std::path::PathBuf;

use clap::Args;
use thinet_harness::run::{RunOptions, export_evidence};

use crate::bars::Progress;
use crate::options::Study;
use crate::signals;

/// Write the evidence of a study's dense nets as files for notebooks
#[derive(Debug, Args)]
#[command(after_help = "\
Writes seed-<seed>.safetensors for each seed, with every kind of evidence of every pruned layer, and
thinet_selector.py, which reads them:

  from thinet_selector import Evidence, layers
  for layer in layers(\"seed-0.safetensors\"):
      print(layer, Evidence(\"seed-0.safetensors\", layer).filters.shape)

The evidence is that of the dense net, as selectors see it in one-shot mode; a study that prunes layer
by layer gathers its own after each cut. The dense nets must be stored. Kinds of evidence that are
not are gathered and stored.

Example:
  thinet evidence experiments/one-shot-example.toml --out evidence")]
pub(crate) struct Arguments {
    #[command(flatten)]
    study: Study,
    /// Folder of the files
    #[arg(long, value_name = "FOLDER")]
    out: PathBuf,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let Arguments { study, out } = arguments;
    let options = RunOptions { stop: signals::stop_when_asked()?, ..RunOptions::default() };
    let progress = Progress::new(0);
    let written = export_evidence(&study.spec, &study.options(), &options, out, &progress);
    progress.close();
    for file in written? {
        println!("{}", file.display());
    }
    Ok(())
}
