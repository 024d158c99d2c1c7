//! `thinet table`: writes tables that need no run, and tables of studies from what is stored.

use std::path::{Path, PathBuf};

use clap::Args;
use thinet_harness::HarnessError;
use thinet_harness::inspect::find_run;
use thinet_harness::run::{unwritten_tables, write_tables};
use thinet_harness::store::{Manifest, paths};
use thinet_harness::study::{Spec, gather};
use thinet_report::tables::{self, Table, TableFiles};

use crate::exit::BadArgument;
use crate::options::{Place, Study};
use crate::output::{print_json, print_tables, report_written};

/// Write and print tables from what is stored, or the tables that need no run
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  thinet table compression figure4-flops latency
  thinet table experiments/fashion-mnist-selectors.toml")]
pub(crate) struct Arguments {
    /// `compression`, `figure4-flops`, `latency` (once measured), spec files of studies
    /// that were run, or runs
    #[arg(required = true, value_name = "TABLE|SPEC")]
    names: Vec<String>,
    /// Number of root seeds, as passed to `run` if it differs from the spec's
    #[arg(long, value_name = "N")]
    seeds: Option<u64>,
    #[command(flatten)]
    place: Place,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let Arguments { names, seeds, place, json } = arguments;
    let json = *json;
    for name in names {
        let (all, run) = match name.as_str() {
            "compression" => (vec![tables::compression()?], tables::DERIVED.to_owned()),
            "figure4-flops" => (vec![tables::figure4_flops()?], tables::DERIVED.to_owned()),
            "latency" => {
                super::latency::show_stored(&paths::tables(&place.results), json)?;
                continue;
            }
            what => {
                let (spec, seeds) = spec_of(what, *seeds, &place.results)?;
                let plan = Study { spec, seeds, place: place.clone() }.plan_elsewhere()?;
                let study = gather(&plan)?;
                if json {
                    print_json(&study)?;
                    continue;
                }
                let outcome = match write_tables(&plan, study.clone()) {
                    Err(error) if error.is_read_only() => {
                        not_written(&error);
                        unwritten_tables(study)?
                    }
                    outcome => outcome?,
                };
                print_tables(&outcome);
                continue;
            }
        };
        emit(&all, &paths::tables(&place.results), &run, json)?;
    }
    Ok(())
}

/// The spec file `what`, or that of the run it names; with the run's number of seeds unless `seeds` says otherwise.
fn spec_of(what: &str, seeds: Option<u64>, results: &Path) -> anyhow::Result<(PathBuf, Option<u64>)> {
    if Path::new(what).extension().is_some_and(|extension| extension == "toml") {
        return Ok((what.into(), seeds));
    }
    let run = find_run(results, what).map_err(|error| {
        let known = "compression, figure4-flops, latency, a spec file (*.toml) or a run";
        BadArgument(format!("there is no table {what:?}; allowed: {known}; {error}"))
    })?;
    let resolved = run.folder().join(paths::SPEC);
    let of_run = Spec::read(&resolved).map_err(HarnessError::from)?.seeds;
    // Paths in a spec are relative to its folder, so the file that was run comes first.
    let given = Manifest::read(&run.folder())?.map(|list| list.spec).filter(|spec| spec.is_file());
    Ok((given.unwrap_or(resolved), seeds.or(Some(of_run))))
}

fn emit(all: &[Table], folder: &Path, run: &str, json: bool) -> anyhow::Result<()> {
    for table in all {
        let written = match tables::write(folder, table, run).map_err(HarnessError::from) {
            Err(error) if error.is_read_only() => {
                not_written(&error);
                TableFiles::default()
            }
            written => written?,
        };
        if json {
            print_json(&serde_json::json!({ "table": table.name, "markdown": table.markdown() }))?;
        } else {
            println!("{}", table.markdown());
            report_written(&written);
        }
    }
    Ok(())
}

/// Reports that a table was not written; it is printed all the same.
fn not_written(error: &HarnessError) {
    eprintln!("not written: {error}");
}
