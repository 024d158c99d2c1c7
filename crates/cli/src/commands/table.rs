//! `thinet table`: tables that need no run, and tables of experiments made again from what is stored.

use std::path::Path;

use thinet_harness::tables::{self, Table, Written};
use thinet_harness::{HarnessError, study, unwritten_tables, write_tables};

use super::{plan_elsewhere, print_json};
use crate::args::Place;
use crate::exit::BadArgument;

pub(crate) fn table(names: &[String], seeds: Option<u64>, place: &Place, json: bool) -> anyhow::Result<()> {
    for name in names {
        let (all, run) = match name.as_str() {
            "compression" => (vec![tables::compression()?], tables::DERIVED.to_owned()),
            "figure4-flops" => (vec![tables::figure4_flops()?], tables::DERIVED.to_owned()),
            "latency" => {
                super::latency::show_stored(&place.results.join("tables"), json)?;
                continue;
            }
            spec if spec.ends_with(".toml") => {
                let plan = plan_elsewhere(Path::new(spec), &place.options(seeds))?;
                let study = study(&plan)?;
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
                super::run::show(&outcome);
                continue;
            }
            other => {
                let known = "compression, figure4-flops, latency, or a spec file (*.toml)";
                return Err(BadArgument(format!("there is no table {other:?}; allowed: {known}")).into());
            }
        };
        emit(&all, &place.results.join("tables"), &run, json)?;
    }
    Ok(())
}

fn emit(all: &[Table], folder: &Path, run: &str, json: bool) -> anyhow::Result<()> {
    for table in all {
        let written = match tables::write(folder, table, run).map_err(HarnessError::from) {
            Err(error) if error.is_read_only() => {
                not_written(&error);
                Written::default()
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

/// A results folder that may only be read is no reason not to print.
fn not_written(error: &HarnessError) {
    eprintln!("not written: {error}");
}

/// Says where a table lies, and where a table of another run went.
pub(crate) fn report_written(written: &Written) {
    if let Some(first) = written.files.first() {
        let others: Vec<String> = written.files[1..]
            .iter()
            .filter_map(|file| file.extension().map(|extension| extension.to_string_lossy().into_owned()))
            .collect();
        eprintln!("written: {} (and {})", first.display(), others.join(", "));
    }
    for file in &written.set_aside {
        eprintln!("kept:    {} (of another run)", file.display());
    }
}
