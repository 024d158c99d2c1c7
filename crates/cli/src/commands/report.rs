//! `thinet report`: writes the page of figures to explore and tables to sort, from written tables.

use std::path::{Path, PathBuf};

use clap::Args;
use thinet_harness::inspect::all_runs;
use thinet_harness::store::paths;
use thinet_report::html::{self, RunFolder, Source};

/// Write the report, a page with every figure and table that opens in a browser
#[derive(Debug, Args)]
#[command(after_help = "\
Reads the files in <results>/tables and nothing else; where the folder of a run is there, its
cells link to it. The page needs no network. Its figures are drawn by Vega, a script beside it
that `make report` takes from a pinned wheel; without it the tables work and figures say so.
A table that cannot be shown is named on the page; all others are shown, and the exit code is 1.

Examples:
  thinet report
  thinet report --results /mnt/results --out /tmp/report")]
pub(crate) struct Arguments {
    /// Results folder
    #[arg(long, value_name = "DIR", default_value = "results")]
    results: PathBuf,
    /// Folder of the report [default: <results>/report]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let Arguments { results, out } = arguments;
    // Links lead out of the report's folder; from a folder elsewhere only whole paths do.
    let (out, up) = match out {
        Some(out) => (out.clone(), absolute(results)?),
        None => (paths::report(results), "..".to_owned()),
    };
    let link = |path: &Path| match path.strip_prefix(results) {
        Ok(below) => Ok(format!("{up}/{}", below.display())),
        Err(_) => absolute(path),
    };
    let mut runs = Vec::new();
    for run in all_runs(results)? {
        runs.push(RunFolder { link: format!("{}/", link(&run.folder())?), id: run.id });
    }
    let pictures = link(&paths::figures(results))?;
    let source = Source { tables: &paths::tables(results), pictures: &pictures, runs: &runs };
    let report = html::report(&source)?;
    for changed in &report.changed {
        eprintln!("note: {changed}; shown as it is");
    }
    for file in html::write(&out, &report)? {
        println!("{}", file.display());
    }
    if !out.join(html::VEGA).is_file() {
        eprintln!(
            "note: {} does not exist; `make report` writes it, until then the page has tables alone",
            out.join(html::VEGA).display()
        );
    }
    let mut failed = report.failed.into_iter().map(anyhow::Error::from);
    let Some(first) = failed.next() else { return Ok(()) };
    for other in failed {
        eprintln!("failed: {}", crate::exit::line(&other));
    }
    Err(first.context("some tables cannot be shown, the others are"))
}

fn absolute(path: &Path) -> anyhow::Result<String> {
    Ok(std::path::absolute(path)?.display().to_string())
}
