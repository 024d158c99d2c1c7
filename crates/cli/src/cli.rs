//! The command line: every subcommand, in the order of the help. What a command takes and does is in its file under
//! `commands`.

use clap::{CommandFactory as _, Parser, Subcommand};

use crate::commands::{
    clean, compare, completions, count, data, diff, evidence, export, figures, latency, list, man, merge,
    paper, plan, preflight, report, run, schema, show, status, submit, table, task, verify, worker,
};

/// Reproducible filter pruning: a TOML spec in, a table out.
#[derive(Debug, Parser)]
#[command(name = "thinet", version, propagate_version = true, arg_required_else_help = true)]
#[command(after_help = "\
Start here:
  thinet plan experiments/smoke.toml     what would run, and how long it would take
  thinet run experiments/smoke.toml      run what is missing, then print the tables
  thinet count --all                     the paper's eight models beside the published counts

Exit codes: 0 done, 1 the run failed, 2 the spec or the arguments are wrong (nothing was started),
3 the data is missing or unusable, 4 the same study is running already, 130 stopped on request.")]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Run(run::Arguments),
    Plan(plan::Arguments),
    Compare(compare::Arguments),
    Status(status::Arguments),
    Submit(submit::Arguments),
    Table(table::Arguments),
    Count(count::Arguments),
    Latency(latency::Arguments),
    #[command(subcommand)]
    Data(data::Arguments),
    List(list::Arguments),
    Paper(paper::Arguments),
    Figures(figures::Arguments),
    Report(report::Arguments),
    Export(export::Arguments),
    Evidence(evidence::Arguments),
    Diff(diff::Arguments),
    Verify(verify::Arguments),
    Merge(merge::Arguments),
    Clean(clean::Arguments),
    Show(show::Arguments),
    Schema(schema::Arguments),
    Completions(completions::Arguments),
    Man(man::Arguments),
    Task(task::Arguments),
    Worker(worker::Arguments),
    Preflight(preflight::Arguments),
}

impl Command {
    pub(crate) fn run(&self) -> anyhow::Result<()> {
        match self {
            Self::Run(arguments) => run::run(arguments),
            Self::Plan(arguments) => plan::run(arguments),
            Self::Compare(arguments) => compare::run(arguments),
            Self::Status(arguments) => status::run(arguments),
            Self::Submit(arguments) => submit::run(arguments),
            Self::Table(arguments) => table::run(arguments),
            Self::Count(arguments) => count::run(arguments),
            Self::Latency(arguments) => latency::run(arguments),
            Self::Data(arguments) => data::run(arguments),
            Self::List(arguments) => list::run(arguments),
            Self::Paper(arguments) => paper::run(arguments),
            Self::Figures(arguments) => figures::run(arguments),
            Self::Report(arguments) => report::run(arguments),
            Self::Export(arguments) => export::run(arguments),
            Self::Evidence(arguments) => evidence::run(arguments),
            Self::Diff(arguments) => diff::run(arguments),
            Self::Verify(arguments) => verify::run(arguments),
            Self::Merge(arguments) => merge::run(arguments),
            Self::Clean(arguments) => clean::run(arguments),
            Self::Show(arguments) => show::run(arguments),
            Self::Schema(arguments) => schema::run(arguments),
            Self::Completions(arguments) => completions::run(arguments),
            Self::Man(arguments) => man::run(arguments),
            Self::Task(arguments) => task::run(arguments),
            Self::Worker(arguments) => worker::run(arguments),
            Self::Preflight(arguments) => preflight::run(arguments),
        }
    }
}

/// The command line without the commands that only this program and Slurm call.
pub(crate) fn visible() -> clap::Command {
    let all = Cli::command();
    let shown: Vec<_> = all.get_subcommands().filter(|command| !command.is_hide_set()).cloned().collect();
    let bare = clap::Command::new("thinet").version(env!("CARGO_PKG_VERSION")).propagate_version(true);
    let about = all.get_about().cloned().unwrap_or_default();
    let help = all.get_after_help().cloned().unwrap_or_default();
    bare.about(about).after_help(help).subcommand_required(true).subcommands(shown)
}
