//! A table of the page: chosen columns of a written table, rounded for reading, with the exact values for sorting.

use maud::{Markup, html};

use super::FigureError;
use crate::figures::source::Sheet;
use crate::tables::grouped;

/// How a column's values are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Words; the page offers a choice of them.
    Choice,
    /// Words.
    Text,
    /// A number with so many decimals.
    Number(usize),
    /// A number with so many decimals and its sign.
    Signed(usize),
    /// A number as it is written.
    Exact,
    /// A fraction, in per cent.
    Percent,
    /// A count, in groups of three digits.
    Count,
    /// Mean ± deviation of `<name>_mean`, `<name>_std` and `<name>_n`.
    Mean,
    /// `low` to `high`.
    Interval,
    /// A published top-1 with its marks.
    Published,
}

impl Kind {
    fn is_number(self) -> bool {
        !matches!(self, Self::Choice | Self::Text)
    }

    fn class(self) -> Option<&'static str> {
        match self {
            Self::Choice => Some("choice"),
            Self::Text => None,
            _ => Some("number"),
        }
    }
}

/// A column of a table of the page.
#[derive(Clone, Copy, Debug)]
pub(super) struct Column<'a> {
    pub(super) name: &'a str,
    pub(super) heading: &'a str,
    pub(super) kind: Kind,
    /// Whether it is shown, as not run, in a table of which nothing was run; others are left out where they are empty.
    is_result: bool,
}

/// A column that holds the result of a table.
pub(super) const fn result<'a>(name: &'a str, heading: &'a str, kind: Kind) -> Column<'a> {
    Column { is_result: true, ..column(name, heading, kind) }
}

pub(super) const fn column<'a>(name: &'a str, heading: &'a str, kind: Kind) -> Column<'a> {
    Column { name, heading, kind, is_result: false }
}

impl Column<'_> {
    /// The stored column with its value.
    fn stored(&self) -> String {
        match self.kind {
            Kind::Mean => format!("{}_mean", self.name),
            _ => self.name.to_owned(),
        }
    }

    /// Whether the table has it with at least one value, or without one because nothing was run.
    fn is_in(&self, sheet: &Sheet) -> bool {
        let stored = self.stored();
        let is_not_run = || sheet.has(&stored) && sheet.rows().all(|row| missing(sheet, row) == NOT_RUN);
        sheet.rows().any(|row| sheet.text(row, &stored).is_some()) || self.is_result && is_not_run()
    }

    /// In place of a number that a row does not have.
    fn gap(&self, sheet: &Sheet, row: usize) -> &'static str {
        // Published values do not depend on what was run here.
        if self.name.starts_with("published_") { "none" } else { missing(sheet, row) }
    }

    /// The value as shown, and the one to sort by where that is another.
    fn value(&self, sheet: &Sheet, row: usize) -> Result<(String, Option<f64>), FigureError> {
        let stored = self.stored();
        let text = sheet.label(row, &stored);
        if !self.kind.is_number() {
            return Ok((text, None));
        }
        let Some(value) = sheet.number(row, &stored)? else {
            return Ok((self.gap(sheet, row).to_owned(), None));
        };
        let text = match self.kind {
            Kind::Number(digits) => format!("{value:.digits$}"),
            Kind::Signed(digits) => signed(value, digits),
            Kind::Percent => format!("{:.1}", 100.0 * value),
            Kind::Count => grouped(sheet.count(row, &stored)?),
            Kind::Mean => {
                let std = sheet.number(row, &format!("{}_std", self.name))?;
                std.map_or_else(|| format!("{value:.2}"), |std| format!("{value:.2} ± {std:.2}"))
            }
            Kind::Interval => match sheet.number(row, "high")? {
                Some(high) => format!("{} to {}", signed(value, 2), signed(high, 2)),
                None => self.gap(sheet, row).to_owned(),
            },
            Kind::Published => {
                let suspect = if sheet.flag(row, "published_suspect")? { " (!)" } else { "" };
                let is_in_paper =
                    !sheet.has("published_in_paper") || sheet.flag(row, "published_in_paper")?;
                let script = if is_in_paper { "" } else { " (script)" };
                let is_verified =
                    !sheet.has("published_verified") || sheet.flag(row, "published_verified")?;
                let unverified = if is_verified { "" } else { " (unverified)" };
                format!("{value:.2}{script}{suspect}{unverified}")
            }
            Kind::Exact | Kind::Choice | Kind::Text => text,
        };
        Ok((text, Some(value)))
    }
}

/// With a true minus.
fn signed(value: f64, digits: usize) -> String {
    format!("{value:+.digits$}").replace('-', "\u{2212}")
}

/// In place of a number of a row that was not run.
const NOT_RUN: &str = "not run";

/// Why a row has no number.
fn missing(sheet: &Sheet, row: usize) -> &'static str {
    let is_some = |column: &str| sheet.text(row, column).is_some_and(|count| count != "0");
    let is_summary = sheet.has("done");
    match sheet.text(row, "status") {
        Some("diverged") => "diverged",
        Some("not-run") => NOT_RUN,
        None if is_summary && is_some("diverged") => "diverged",
        None if is_summary && !is_some("done") => NOT_RUN,
        _ => "\u{2013}",
    }
}

/// What surrounds the values of a table.
pub(super) struct Frame<'a> {
    /// Unique on the page.
    pub(super) id: &'a str,
    pub(super) caption: &'a str,
    /// The file, for the link below the table.
    pub(super) file: &'a str,
    /// Sentences about the columns.
    pub(super) notes: &'a [String],
    /// Where the method of a row leads.
    pub(super) link: &'a dyn Fn(usize) -> Option<String>,
}

/// A table that the page's script makes sortable and filterable. Columns that it lacks, or that are empty, are left out.
pub(super) fn table(
    sheet: &Sheet,
    rows: &[usize],
    columns: &[Column<'_>],
    frame: &Frame<'_>,
) -> Result<Markup, FigureError> {
    let columns: Vec<&Column> = columns.iter().filter(|column| column.is_in(sheet)).collect();
    let mut lines = Vec::new();
    for &row in rows {
        let values: Result<Vec<_>, _> = columns.iter().map(|column| column.value(sheet, row)).collect();
        lines.push((values?, (frame.link)(row)));
    }
    // The row's name: its method, else its first column.
    let head = columns.iter().position(|column| column.name == "method").unwrap_or(0);
    Ok(html! {
        figure.table id=(frame.id) {
            div.scroll tabindex="0" role="region" aria-label=(frame.caption) {
                table data-table {
                    caption { span { (frame.caption) } }
                    thead { tr {
                        @for column in &columns {
                            th scope="col" class=[column.kind.class()]
                                data-choice[column.kind == Kind::Choice] { (column.heading) }
                        }
                    } }
                    tbody {
                        @for (values, link) in &lines {
                            tr {
                                @for (at, ((text, exact), column)) in values.iter().zip(&columns).enumerate() {
                                    @let exact = exact.map(|value| value.to_string());
                                    @if at == head {
                                        th scope="row" data-sort=[exact] {
                                            @if let Some(link) = link { a href=(link) { (text) } } @else { (text) }
                                        }
                                    } @else {
                                        td class=[column.kind.class()] data-sort=[exact] { (code(text)) }
                                    }
                                }
                            }
                        }
                    }
                }
            }
            figcaption {
                @if !frame.notes.is_empty() {
                    details { summary { "How to read it" }
                        ul { @for note in frame.notes { li { (code(note)) } } } }
                }
                span.source { "Source: " code { (frame.file) } }
            }
        }
    })
}

/// A sentence in which words between backticks are code.
pub(super) fn code(text: &str) -> Markup {
    html! {
        @for (at, part) in text.split('`').enumerate() {
            @if at % 2 == 1 { code { (part) } } @else { (part) }
        }
    }
}
