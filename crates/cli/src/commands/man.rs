//! `thinet man`: writes man pages.

use std::fs;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;

use crate::cli;

/// Write man pages: one of the program, and one of each command
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  thinet man --out ~/.local/share/man/man1 && man thinet-run
  thinet man --out /tmp/man && man -l /tmp/man/thinet.1")]
pub(crate) struct Arguments {
    /// Folder for the pages; made if it does not exist
    #[arg(long, value_name = "FOLDER")]
    out: PathBuf,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let folder = &arguments.out;
    fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let written = clap_mangen::generate_to(cli::visible(), folder);
    written.with_context(|| format!("cannot write to {}", folder.display()))?;
    eprintln!("written: {}", folder.join("thinet.1").display());
    Ok(())
}
