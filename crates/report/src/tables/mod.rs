//! Tables of results: full-precision columns for programs and narrow Markdown for reading, both from plain records.

mod asked;
mod checklist;
mod closing;
mod comparison;
mod compression;
mod differences;
mod draws;
mod environment;
mod error;
mod figure4;
mod frame;
mod groups;
mod latency;
mod latency_grids;
mod latency_lines;
mod latency_record;
mod latency_stored;
mod layers;
mod lines;
mod long;
mod losses;
mod markdown;
mod notes;
mod owner;
mod paper;
mod reruns;
mod seconds;
mod selectors;
mod stored;
mod summary;
mod sums;
mod tau;
mod verdict;
mod write;

#[cfg(test)]
pub(crate) mod sample;

use polars::frame::DataFrame;

pub use closing::{CLOSING_LINES, Closing, ClosingStudy, closing};
pub use compression::compression;
pub use environment::{ENVIRONMENT, environment_text};
pub use error::TableError;
pub use figure4::figure4_flops;
pub use frame::parquet_bytes;
pub use latency::latency;
pub use latency_record::{LatencyRecord, Machine, ModelTimes, latency_run};
pub use latency_stored::{StoredLatency, stored_latency};
pub use long::rows_frame;
pub use markdown::{Align, Grid, GridColumn, breaks_line, grouped, one_line};
pub use owner::owners;
pub use paper::{PaperStudy, paper, paper_run};
pub use seconds::{StageSeconds, seconds};
pub use selectors::selectors;
pub use stored::StoredTable;
pub use sums::{TableFile, read_table_file};
pub use verdict::{VERDICT, verdict};
pub use write::{NOT_RUN, TableFiles, csv_text, write};

/// Suffixes of the names of further tables about the same cells.
pub const BESIDE: [&str; 7] = ["-summary", "-tau", "-differences", DRAWS, LAYERS, LOSSES, CHECKLIST];

/// Suffix of the name of the table with the spread over calibration draws.
pub const DRAWS: &str = "-draws";

/// Suffix of the name of the table with a study's per-layer rows: a row per layer of each cell, so it is written and not printed.
pub const LAYERS: &str = "-layers";

/// Suffix of the name of the table with a study's loss curves: a row per point, so it is written and not printed.
pub const LOSSES: &str = "-losses";

/// Suffix of the name of the table with what a pruning study should report, and whether this one does; written and not printed.
pub const CHECKLIST: &str = "-checklist";

/// In place of a run's id in tables without a run (`compression`, `figure4-flops`).
pub const DERIVED: &str = "derived";

/// Names of tables that do not belong to a study.
pub const RESERVED: [&str; 3] = ["compression", "figure4-flops", "latency"];

/// A table: columns for programs, grids for reading, and notes.
#[derive(Clone, Debug)]
pub struct Table {
    /// File name without extension.
    pub name: String,
    /// Heading.
    pub title: String,
    /// All columns at full precision, without the run's id, which [`write()`] adds. Empty values were not measured.
    pub frame: DataFrame,
    /// The values for reading: rounded, with units, narrow.
    pub grids: Vec<Grid>,
    /// Meaning and source of the values, one or two sentences each.
    pub notes: Vec<String>,
    /// Further files that belong to the table.
    pub attachments: Vec<Attachment>,
}

/// A file that belongs to a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachment {
    /// Suffix of its name after the table's name and a dot, such as `kept.json`.
    pub suffix: &'static str,
    pub text: String,
}

impl Table {
    /// The rows at full precision as JSON objects, keyed by column; empty values are null.
    ///
    /// # Errors
    /// If a column's type has no JSON form, which no table of this crate has.
    pub fn rows(&self) -> Result<Vec<serde_json::Map<String, serde_json::Value>>, TableError> {
        frame::json_rows(&self.frame)
    }

    /// The table as Markdown: heading, grids, notes. Aligned for a terminal.
    #[must_use]
    pub fn markdown(&self) -> String {
        let mut text = format!("# {}\n", markdown::one_line(&self.title));
        for grid in &self.grids {
            text.push('\n');
            text.push_str(&grid.markdown());
        }
        if !self.notes.is_empty() {
            text.push('\n');
        }
        for note in &self.notes {
            text.push_str("- ");
            text.push_str(&markdown::one_line(note));
            text.push('\n');
        }
        text
    }
}
