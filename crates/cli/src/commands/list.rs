//! `thinet list`: lists the keys and names that a spec can use, and the stored runs.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use thinet_data::DatasetSpec;
use thinet_harness::inspect::status::RunStatus;
use thinet_harness::store::list_runs;
use thinet_harness::study::keys;
use thinet_nets::Arch;

use crate::exit::BadArgument;
use crate::output::print_json;
use crate::words::tally_in_words;

/// List the keys of a spec, the names it can use, or the stored runs
#[derive(Debug, Args)]
#[command(after_help = "\
experiments/one-shot-example.toml is a spec to copy, with a line about each key.")]
pub(crate) struct Arguments {
    /// What to list
    what: Topic,
    /// Results folder (for runs)
    #[arg(long, value_name = "DIR", default_value = "results")]
    results: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Print a page of Markdown (for keys)
    #[arg(long, conflicts_with = "json")]
    markdown: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Topic {
    /// Networks for `net.arch`
    Models,
    /// Datasets for `dataset.kind`
    Datasets,
    /// Selectors for `methods.selector`
    Selectors,
    /// Reconstructions for `methods.reconstruction`
    Reconstructions,
    /// Every key of a spec, with type and default
    Keys,
    /// Runs in the results folder
    Runs,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let Arguments { what, results, json, markdown } = arguments;
    match (what, markdown) {
        (Topic::Keys, true) => {
            print!("{}", keys_page());
            return Ok(());
        }
        (Topic::Keys, false) => return keys(*json),
        (_, true) => return Err(BadArgument("--markdown is for `thinet list keys`".to_owned()).into()),
        (_, false) => {}
    }
    let lines: Vec<(String, String)> = match what {
        Topic::Selectors => {
            thinet_selectors::all().iter().map(|s| (s.name().to_owned(), s.about().to_owned())).collect()
        }
        Topic::Reconstructions => {
            thinet_reconstruction::all().iter().map(|r| (r.name().to_owned(), r.about().to_owned())).collect()
        }
        Topic::Models => Arch::ALL.iter().map(|arch| (arch.to_string(), arch.about().to_owned())).collect(),
        Topic::Datasets => {
            DatasetSpec::kinds().iter().map(|kind| (kind.name.to_owned(), kind.about.to_owned())).collect()
        }
        // Printed above, in columns of their own.
        Topic::Keys => Vec::new(),
        Topic::Runs => {
            let line = |run: String| anyhow::Ok((run.clone(), about_run(results, &run)?));
            list_runs(results)?.into_iter().map(line).collect::<anyhow::Result<_>>()?
        }
    };
    if *json {
        let entries: Vec<_> =
            lines.iter().map(|(name, about)| serde_json::json!({ "name": name, "about": about })).collect();
        return print_json(&entries);
    }
    if lines.is_empty() {
        eprintln!("nothing is stored in {}", results.display());
    }
    let width = lines.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    for (name, about) in &lines {
        println!("{}", format!("{name:<width$}  {about}").trim_end());
    }
    Ok(())
}

/// Prints every key of a spec: dotted name, type, default and meaning.
fn keys(json: bool) -> anyhow::Result<()> {
    if json {
        return print_json(&keys::tables());
    }
    for keys::ListedTable { table, about, keys } in keys::tables() {
        let table = if table.is_empty() { String::new() } else { format!("[{table}]") };
        let gap = if table.is_empty() || about.is_empty() { "" } else { "  " };
        println!("# {table}{gap}{about}");
        for key in keys {
            let dotted = match table.trim_matches(['[', ']']) {
                "" => key.name.to_owned(),
                table => format!("{table}.{}", key.name),
            };
            println!("{dotted:<34}  {:<10}  {:<19}  {}", key.kind, key.default, key.about);
        }
        println!();
    }
    println!("count: a whole number; numbers and texts: lists of them; recipe: a table as [dense.train]");
    Ok(())
}

/// The page `docs/spec-reference.md`.
fn keys_page() -> String {
    let mut page = "# Every key of a spec\n\n<!-- Written by `thinet list keys --markdown`. -->\n\n\
                    A key without a default is required where its table is given. count: a whole number; numbers and texts: lists \
                    of them; recipe: a table as `[dense.train]`. Editors complete and check specs with \
                    [the schema](../experiments/schema.json); the first line of each shipped spec names it.\n"
        .to_owned();
    for keys::ListedTable { table, about, keys } in keys::tables() {
        let heading = if table.is_empty() { "The study".to_owned() } else { format!("`[{table}]`") };
        page += &format!("\n## {heading}\n\n");
        if !about.is_empty() {
            let (first, rest) = about.split_at(1);
            let sentence = match about.starts_with("kind") {
                true => format!("Where {about}"),
                false => first.to_uppercase() + rest,
            };
            page += &format!("{sentence}.\n\n");
        }
        page += "| key | type | default | meaning |\n| --- | --- | --- | --- |\n";
        for key in keys {
            let cells = [key.kind, key.default, key.about].map(|text| text.replace('|', "\\|"));
            page += &format!("| `{}` | {} |\n", key.name, cells.join(" | "));
        }
    }
    page
}

fn about_run(results: &Path, run: &str) -> anyhow::Result<String> {
    Ok(RunStatus::of(results, run)?.map_or_else(
        || "of an older version".to_owned(),
        |status| format!("{}; {}", tally_in_words(status.tally(None)), status.spec.display()),
    ))
}
