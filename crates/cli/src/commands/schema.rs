//! `thinet schema`: prints the JSON Schema of a spec.

use clap::Args;
use thinet_harness::study::schema_text;

use crate::output::print_text;

/// Print the JSON Schema of a spec: every key with its type, default and description
#[derive(Debug, Args)]
#[command(after_help = "\
Editors with a language server for TOML (Taplo; \"Even Better TOML\" in VS Code) complete and check a
spec whose first line names the schema:
  #:schema ./schema.json

The specs in experiments/ name experiments/schema.json, which is this output. Ranges of numbers and
rules between keys are checked by `thinet plan`.

Examples:
  thinet schema > schema.json
  thinet schema | jq .definitions.Recipe.properties.lr")]
pub(crate) struct Arguments {}

pub(crate) fn run(_: &Arguments) -> anyhow::Result<()> {
    print_text(&schema_text()?);
    Ok(())
}
