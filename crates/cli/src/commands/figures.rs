//! `thinet figures`: draws figures from written tables, as Vega-Lite specifications.

use std::path::PathBuf;

use clap::Args;
use thinet_harness::store::paths;
use thinet_report::figures::{self, FigureError};

use crate::exit::BadArgument;

/// Draw the figures of written tables as Vega-Lite specifications
#[derive(Debug, Args)]
#[command(after_help = "\
Reads the files in <results>/tables and nothing else. `make figures` also turns the
specifications into SVG and PNG. A figure whose table is missing is skipped with a line.

Examples:
  thinet figures
  thinet figures selectors-fashion-mnist latency --out /tmp/figures")]
pub(crate) struct Arguments {
    /// Tables to draw figures of, such as selectors-fashion-mnist; all if none is given
    #[arg(value_name = "TABLE")]
    tables: Vec<String>,
    /// Results folder
    #[arg(long, value_name = "DIR", default_value = "results")]
    results: PathBuf,
    /// Folder of the figures [default: <results>/figures]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let Arguments { tables, results, out } = arguments;
    let out = out.clone().unwrap_or_else(|| paths::figures(results));
    let figures = figures::figures(&paths::tables(results), tables).map_err(bad_argument)?;
    for changed in &figures.changed {
        eprintln!("note: {changed}; drawn as it is");
    }
    for skipped in &figures.skipped {
        eprintln!("skipped: {}: {}", skipped.name, skipped.why);
    }
    for file in figures::write(&out, &figures)? {
        println!("{}", file.display());
    }
    let mut failed = figures.failed.into_iter().map(anyhow::Error::from);
    let Some(first) = failed.next() else { return Ok(()) };
    for other in failed {
        eprintln!("failed: {}", crate::exit::line(&other));
    }
    Err(first.context("some tables cannot be drawn, the others are"))
}

/// A table that is named and does not exist is a wrong argument.
fn bad_argument(error: FigureError) -> anyhow::Error {
    match error {
        FigureError::UnknownTable { .. } => BadArgument(error.to_string()).into(),
        error => error.into(),
    }
}
