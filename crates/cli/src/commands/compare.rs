//! `thinet compare`: runs a new method beside a stored study and says whether it is better than the others.

use std::path::Path;

use anyhow::Context as _;
use clap::Args;
use thinet_harness::run::{compared, comparison_spec, typed_selector};
use thinet_harness::store::paths;
use thinet_harness::study::{MethodSpec, Options, Plan};
use thinet_harness::{HarnessError, Stop};
use thinet_report::figures;
use thinet_report::tables::{self, Table};

use crate::commands::run::execute;
use crate::exit::BadArgument;
use crate::options::{Pace, Study, Workers};
use crate::output::{print_json, report_written};

/// Run a new method beside a stored study and print whether it is better than the others
#[derive(Debug, Args)]
#[command(after_help = "\
The dense nets, the evidence and the cells of the other methods are taken from the store; only the
cells of the new method are run. Its tables have names of their own; those of the study are left
alone. The verdict is a table of paired differences over seeds, before and after tuning, written as
Markdown, CSV, JSON and a figure.

Examples:
  thinet compare experiments/fashion-mnist-selectors.toml --selector \"python3 my_selector.py\"
  thinet compare experiments/fashion-mnist-selectors.toml --selector \"python3 my_selector.py 0.5\" \\
      --file my_lib.py --label \"mine (0.5)\" --reconstruction channel-scale
  thinet compare experiments/one-shot-example.toml --selector thinet-omp")]
pub(crate) struct Arguments {
    #[command(flatten)]
    study: Study,
    /// The new selector: a program with its arguments, run in this folder, or a registered selector
    #[arg(long, value_name = "COMMAND")]
    selector: String,
    /// A file that the program reads, beside those among its arguments; can be given several times
    #[arg(long = "file", value_name = "FILE")]
    files: Vec<String>,
    /// Reconstruction of the new method
    #[arg(long, value_name = "NAME", default_value = "none")]
    reconstruction: String,
    /// Name of the new method in tables [default: the name of the program's file]
    #[arg(long, value_name = "NAME")]
    label: Option<String>,
    #[command(flatten)]
    workers: Workers,
    /// Print the rows of the verdict as JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let Arguments { study, workers, .. } = arguments;
    let plan = study.plan()?;
    check_seeds(&plan, arguments)?;
    let here = std::env::current_dir().context("cannot find the current folder")?;
    let selector = typed_selector(&arguments.selector, &arguments.files, &here)
        .map_err(|problem| BadArgument(format!("--selector: {problem}")))?;
    let (reconstruction, label) = (arguments.reconstruction.clone(), arguments.label.clone());
    let spec = comparison_spec(&plan, MethodSpec { selector, reconstruction, label }, &Stop::default())?;
    let own = Study { spec, seeds: None, place: study.place.clone() };
    // Who types a command allows it; the programs of the study's own methods are not run.
    let pace = Pace { allow_commands: true, ..workers.pace.clone() };
    let outcome = execute(&own, &Workers { pace, ..workers.clone() })?;

    let own = own.plan()?;
    let table =
        tables::verdict(&compared(&plan, &own)?, &own.spec.methods[0].label()).map_err(HarnessError::from)?;
    write(&table, &own)?;
    match arguments.json {
        true => print_json(&table.rows().map_err(HarnessError::from)?)?,
        false => println!("{}", table.markdown()),
    }
    outcome.failure.map_or(Ok(()), |failure| Err(failure.into()))
}

/// Refuses a study of one seed.
fn check_seeds(plan: &Plan, arguments: &Arguments) -> anyhow::Result<()> {
    if plan.spec.seeds > 1 {
        return Ok(());
    }
    let (spec, selector) = (plan.path.display(), &arguments.selector);
    let options = Options { seeds: Some(3), ..arguments.study.options() }.typed();
    Err(BadArgument(format!(
        "{spec} has one seed, which has no noise to compare with: no difference could be shown or excluded. Add seeds first: \
         thinet run {spec}{options} && thinet compare {spec}{options} --selector {selector:?} (thinet plan {spec}{options} says how \
         long the first takes)"
    ))
    .into())
}

/// Writes the table of the verdict and its figure.
fn write(table: &Table, own: &Plan) -> anyhow::Result<()> {
    let folder = paths::tables(&own.results);
    report_written(&tables::write(&folder, table, &own.run).map_err(HarnessError::from)?);
    let mut drawn = figures::figures(&folder, std::slice::from_ref(&own.table))?;
    if let Some(failed) = drawn.failed.pop() {
        return Err(failed.into());
    }
    drawn.drawn.retain(|figure| figure.name == table.name);
    for file in figures::write(&paths::figures(Path::new(&own.results)), &drawn)? {
        eprintln!("drawn:   {}", file.display());
    }
    Ok(())
}
