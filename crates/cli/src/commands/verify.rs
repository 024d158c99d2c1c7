//! `thinet verify`: computes cells of a table again and compares them with it.

use std::path::{Path, PathBuf};

use clap::Args;
use thinet_harness::HarnessError;
use thinet_harness::inspect::{
    CellVerification, Verification, VerifyOptions, find_run, table_of_file, tables_of, verify,
};
use thinet_harness::store::paths;

use crate::bars::Progress;
use crate::exit::BadArgument;
use crate::options::Place;
use crate::output::print_json;

/// Compute cells of a table again and compare every number with it
#[derive(Debug, Args)]
#[command(after_help = "\
What is promised: on a CPU the same numbers, with the same libtorch, threads and instruction set; on
a GPU with compute.deterministic the same numbers, on the same model of card with the same
libraries; on a GPU without it accuracies within the tolerance, of the dense net and after the last
tuning. If cells differ, the differences between the environment of the table and this one are
listed. Uses the spec beside the table, and the dense net of the store if it is there.

Examples:
  thinet verify selectors-fashion-mnist
  thinet verify selectors-fashion-mnist --cells 5 --dense
  thinet verify cub200-selectors --device cuda:0 --data ~/CUB_200_2011 --tolerance 0.3")]
pub(crate) struct Arguments {
    /// The table, such as selectors-fashion-mnist, or the run that wrote it
    table: String,
    /// Number of cells to compute, spread over the table
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    cells: u16,
    /// Compute these cells, named by the table's last column
    #[arg(long, value_name = "ID", conflicts_with = "cells")]
    cell: Vec<String>,
    /// Compute every cell
    #[arg(long, conflicts_with_all = ["cells", "cell"])]
    all: bool,
    /// Also train the dense net again
    #[arg(long)]
    dense: bool,
    /// Largest allowed difference of top-1 and top-5, in points; with one, nets that are not tuned yet are not
    /// compared [default: 0; on a GPU without compute.deterministic 2]
    #[arg(long, value_name = "D")]
    tolerance: Option<f64>,
    /// Spec to use if the one beside the table does not find the dense net's weights
    #[arg(long, value_name = "SPEC")]
    spec: Option<PathBuf>,
    /// Run the programs that the spec names as selectors
    #[arg(long)]
    allow_commands: bool,
    #[command(flatten)]
    place: Place,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let options = VerifyOptions {
        cells: arguments.cell.clone(),
        count: if arguments.all { usize::MAX } else { usize::from(arguments.cells) },
        with_dense: arguments.dense,
        allow_commands: arguments.allow_commands,
        tolerance: arguments.tolerance,
    };
    let place = arguments.place.options(None);
    let table = table_of(&arguments.table, &place.results)?;
    let progress = Progress::new(0);
    let verified = verify(&table, arguments.spec.as_deref(), &place, &options, &progress);
    progress.close();
    let verified = verified?;
    let cells = &verified.cells;
    let differ = cells.iter().filter(|cell| !cell.differences.is_empty()).count();
    if arguments.json {
        print_json(&verified)?;
    } else {
        cells.iter().for_each(print);
        let how = match verified.tolerance {
            0.0 => "to the last digit".to_owned(),
            points => format!("within {points} points of accuracy"),
        };
        println!("{} of {} cells agree {how}", cells.len() - differ, cells.len());
        if differ > 0 {
            println!("promised here: {}", verified.promise.words());
            print_environment(&verified);
        }
    }
    if differ > 0 {
        let path = paths::tables(&place.results).join(format!("{table}.csv"));
        return Err(HarnessError::Unlike { path, differ, cells: cells.len() }.into());
    }
    Ok(())
}

/// The table of this name, or that of the run of this name.
fn table_of(what: &str, results: &Path) -> anyhow::Result<String> {
    let name = table_of_file(what);
    if paths::tables(results).join(format!("{name}.csv")).is_file() {
        return Ok(name.to_owned());
    }
    let known = || {
        let tables = tables_of(results, None)?;
        anyhow::Ok(if tables.is_empty() { "none".to_owned() } else { tables.join(", ") })
    };
    let Ok(run) = find_run(results, what) else {
        let place = paths::tables(results);
        let problem =
            format!("no table in {} and no run is called {what:?}; tables: {}", place.display(), known()?);
        return Err(BadArgument(problem).into());
    };
    tables_of(results, Some(&run.id))?.into_iter().min_by_key(String::len).ok_or_else(|| {
        let problem = format!("no table in {} is of {}", paths::tables(results).display(), run.name);
        BadArgument(problem).into()
    })
}

/// Prints what may have caused the differences.
fn print_environment(verified: &Verification) {
    let Some(differences) = &verified.environment else {
        return println!("the table has no environment beside it, so it is not known where it was computed");
    };
    if differences.is_empty() {
        return println!("nothing differs between the environment of the table and this one");
    }
    println!("differences between the environment of the table and this one:");
    for difference in differences {
        let value = |value: &Option<String>| value.clone().unwrap_or_else(|| "not recorded".to_owned());
        println!("  {}: {} -> {}", difference.key, value(&difference.first), value(&difference.second));
    }
}

fn print(verified: &CellVerification) {
    let CellVerification { cell, label, differences, same_weights } = verified;
    let weights = match same_weights {
        Some(true) => ", weights too",
        Some(false) => ", weights differ from the stored ones",
        None => "",
    };
    if differences.is_empty() {
        println!("agrees  {label} ({cell}){weights}");
        return;
    }
    println!("DIFFERS {label} ({cell}){weights}");
    for (column, before, now) in differences {
        println!("        {column}: {before} in the table, {now} now");
    }
}
