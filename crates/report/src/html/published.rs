//! Tables that hold our values beside published ones and belong to no study that was measured here.

use std::collections::BTreeSet;

use maud::Markup;

use super::study::{all_columns, notes};
use super::table::{Frame, table};
use super::{FigureError, Report, columns};
use crate::figures::source::Tables;
use crate::tables::{BESIDE, RESERVED};

/// A table with its heading.
pub(super) struct Section {
    pub(super) name: String,
    pub(super) title: String,
    pub(super) rows: usize,
    pub(super) markup: Markup,
}

/// The sections of the given tables, accuracies first; a table that cannot be shown is listed in the report.
pub(super) fn sections(tables: &mut Tables, names: &BTreeSet<String>, report: &mut Report) -> Vec<Section> {
    let mut sections = Vec::new();
    for name in names {
        match section(tables, name, names) {
            Ok(section) => sections.extend(section),
            Err(error) => report.fail(error),
        }
    }
    sections
        .sort_by_key(|section| RESERVED.iter().position(|name| *name == section.name).map_or(0, |at| at + 1));
    sections
}

fn section(tables: &mut Tables, name: &str, all: &BTreeSet<String>) -> Result<Option<Section>, FigureError> {
    let known = columns::of_table(name);
    // The rows of a study that was not run say nothing that its means do not say.
    let is_beside =
        BESIDE.iter().any(|suffix| name.ends_with(suffix)) || all.contains(&format!("{name}-summary"));
    if known.is_none() && is_beside {
        return Ok(None);
    }
    let Some(sheet) = tables.sheet(name, &[])? else { return Ok(None) };
    let is_compared = sheet.columns().iter().any(|column| column.starts_with("published_"));
    if !is_compared || sheet.rows().is_empty() {
        return Ok(None);
    }
    let every = all_columns(&sheet);
    let rows: Vec<usize> = sheet.rows().collect();
    let (title, notes) = (title(tables, name)?, notes(tables, name)?);
    let file = format!("{name}.csv");
    let frame = Frame { id: name, caption: &title, file: &file, notes: &notes, link: &|_| None };
    let markup = table(&sheet, &rows, known.unwrap_or(&every), &frame)?;
    Ok(Some(Section { name: name.to_owned(), title, rows: rows.len(), markup }))
}

/// The heading of a table's Markdown file, else its name.
fn title(tables: &mut Tables, name: &str) -> Result<String, FigureError> {
    let text = tables.bytes(name, "md")?.map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    let heading = text.as_deref().and_then(|text| text.lines().next()?.strip_prefix("# "));
    Ok(heading.unwrap_or(name).to_owned())
}
