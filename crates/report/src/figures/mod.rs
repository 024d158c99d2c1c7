//! Figures of results: Vega-Lite specifications with their data inside, drawn from written tables alone. The same tables give the same
//! bytes.
//!
//! One file a figure; `style` says how a method looks in all of them.

mod ablation;
mod accuracy;
mod agreement;
mod differences;
mod draws;
mod error;
mod gaps;
mod kept;
mod latency;
pub(crate) mod losses;
mod published;
mod reconstruction;
mod samples;
pub(crate) mod source;
pub(crate) mod spec;
pub(crate) mod study;
pub(crate) mod style;
#[cfg(test)]
mod tests;
mod verdict;
mod widths;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use thinet_files::{FileError, write_atomically};

use ablation::ablation;
use accuracy::{Axis, accuracy};
use agreement::agreement;
use differences::{difference_rows, differences};
use draws::{cell_rows, draws};
pub use error::FigureError;
use kept::kept;
use latency::latency;
use losses::{loss_rows, losses};
use published::Published;
use reconstruction::{layer_rows, reconstruction};
use samples::variant_samples;
use source::{SPEC, Tables};
pub use spec::Figure;
use study::{NoStudy, Study};
use verdict::verdict;
use widths::widths;

use crate::records::Mode;
use crate::tables::{LAYERS, LOSSES};

/// What was drawn.
#[derive(Debug, Default)]
pub struct Figures {
    /// In the order of their names.
    pub drawn: Vec<Figure>,
    /// Figures that were not drawn, each with the reason: a missing table, or a study that was not run.
    pub skipped: Vec<Omission>,
    /// Tables whose files have changed since they were written, a sentence each. They are drawn as they are.
    pub changed: Vec<String>,
    /// Tables that cannot be drawn: one lacks a column (it is of another version), a field is no number, a table holds rows of two data sets,
    /// or the tables of one study are of different runs. All others are drawn.
    pub failed: Vec<FigureError>,
}

/// A figure, or all figures of a table, that cannot be drawn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Omission {
    /// The figure's or the table's name.
    pub name: String,
    pub why: String,
}

/// Suffix of the file of a specification after the figure's name and a dot.
pub const SUFFIX: &str = "vl.json";

/// The table of the figure that belongs to no study.
const LATENCY: &str = "latency";

/// The figures of some tables of a folder, of all if `names` is empty.
///
/// # Errors
/// If the folder cannot be read, or a table that is named does not exist.
pub fn figures(folder: &Path, names: &[String]) -> Result<Figures, FigureError> {
    let mut tables = Tables::of(folder);
    let studies = studies(&tables)?;
    check_names(folder, names, &studies)?;
    let is_asked = |table: &str| names.is_empty() || names.iter().any(|name| name == table);
    let mut figures = Figures::default();
    let read = Published::read(&mut tables);
    if let Ok(None) = read {
        figures.skip("the published panel", missing(published::TABLE, "csv"));
    }
    let published = figures.unless_failed(read).flatten();
    for table in studies.iter().filter(|table| is_asked(table)) {
        let added = figures.add_study(&mut tables, table, published.as_ref());
        figures.unless_failed(added);
    }
    if is_asked(LATENCY) {
        let drawn = latency(&mut tables);
        if let Some(drawn) = figures.unless_failed(drawn) {
            figures.add(LATENCY, drawn);
        }
    }
    figures.changed = tables.changed.into_iter().collect();
    figures.drawn.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(figures)
}

impl Figures {
    fn add_study(
        &mut self,
        tables: &mut Tables,
        table: &str,
        published: Option<&Published>,
    ) -> Result<(), FigureError> {
        let study = match Study::read(tables, table)? {
            Ok(study) => study,
            Err(NoStudy::Missing) => {
                self.skip(table, missing(&format!("{table}-summary"), "csv"));
                return Ok(());
            }
            Err(NoStudy::NotRun) => {
                self.skip(table, "not run".to_owned());
                return Ok(());
            }
        };
        self.drawn.extend(verdict(tables, table)?);
        // A line needs two points; such a study is a test, or a part of an ablation.
        if study.keep_rates.len() < 2 && study.variants.len() < 2 {
            self.skip(table, "it has one keep rate, so there is nothing to compare".to_owned());
            return Ok(());
        }
        let alone = selection_alone(tables, &study)?;
        for axis in [Axis::Flops, Axis::Params] {
            let name = format!("{table}-accuracy-{}", axis.ending());
            self.add(&name, accuracy(&study, alone.as_ref(), published, axis));
        }
        if study.variants.len() > 1 {
            match variant_samples(tables, &study)? {
                Some(samples) => {
                    self.drawn.extend(ablation(&study, &samples));
                    if let Some(sheet) = cell_rows(tables, &study)? {
                        self.drawn.extend(draws(&study, &samples, &sheet)?);
                    }
                }
                None => self.skip(&format!("{table}-samples"), missing(table, SPEC)),
            }
        }
        match kept(tables, &study)? {
            Some(cells) => {
                self.add(table, widths(&study, &cells));
                self.add(table, agreement(&study, &cells));
            }
            None => {
                self.skip(&format!("{table}-widths, {table}-agreement"), missing(table, "kept.json"));
            }
        }
        match layer_rows(tables, &study)? {
            Some(sheet) => self.add(table, reconstruction(&study, &sheet)?),
            None => {
                let why = missing(&format!("{table}{LAYERS}"), "csv");
                self.skip(&format!("{table}-reconstruction"), why);
            }
        }
        let name = format!("{table}{LOSSES}");
        match loss_rows(tables, &study)? {
            Some(sheet) => self.add(table, losses(&study, &sheet)?),
            None => self.skip(&name, missing(&name, "csv")),
        }
        let name = format!("{table}-differences");
        match difference_rows(tables, &study)? {
            Some(sheet) => self.add(table, differences(&study, &sheet)?),
            None => self.skip(&name, missing(&name, "csv")),
        }
        Ok(())
    }

    fn add(&mut self, name: &str, figure: Result<Figure, String>) {
        match figure {
            Ok(figure) => self.drawn.push(figure),
            Err(why) => self.skip(name, why),
        }
    }

    /// The value, or nothing after the error was listed.
    fn unless_failed<T>(&mut self, result: Result<T, FigureError>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(error) => {
                self.failed.push(error);
                None
            }
        }
    }

    fn skip(&mut self, name: &str, why: String) {
        self.skipped.push(Omission { name: name.to_owned(), why });
    }
}

/// Writes the specification of each figure to a folder, which is created if it does not exist; returns the files.
///
/// # Errors
/// If the folder or a file cannot be written; the message names it.
pub fn write(out: &Path, figures: &Figures) -> Result<Vec<PathBuf>, FigureError> {
    std::fs::create_dir_all(out).map_err(FileError::at("create", out))?;
    let mut files = Vec::new();
    for figure in &figures.drawn {
        let path = out.join(format!("{}.{SUFFIX}", figure.name));
        write_atomically(&path, spec::text(&figure.spec).as_bytes())?;
        files.push(path);
    }
    Ok(files)
}

/// Tables of studies: those with a summary beside them.
pub(crate) fn studies(tables: &Tables) -> Result<BTreeSet<String>, FigureError> {
    let names = tables.names()?;
    Ok(names.iter().filter_map(|name| name.strip_suffix("-summary")).map(str::to_owned).collect())
}

fn check_names(folder: &Path, names: &[String], studies: &BTreeSet<String>) -> Result<(), FigureError> {
    match names.iter().find(|name| *name != LATENCY && !studies.contains(*name)) {
        Some(name) => Err(FigureError::UnknownTable {
            name: name.clone(),
            folder: folder.to_owned(),
            known: studies.iter().map(String::as_str).chain([LATENCY]).collect::<Vec<_>>().join(", "),
        }),
        None => Ok(()),
    }
}

/// The same nets cut at once without tuning: `selection-x` of `selectors-x`.
fn selection_alone(tables: &mut Tables, study: &Study) -> Result<Option<Study>, FigureError> {
    let Some(name) = study.table.strip_prefix("selectors-") else { return Ok(None) };
    let alone = Study::read(tables, &format!("selection-{name}"))?.ok();
    let is_same = |other: &Study| {
        (&other.dataset, &other.net) == (&study.dataset, &study.net)
            && other.is_untuned()
            && other.mode_of("") == Mode::OneShot.name()
            && other.variants.is_empty()
    };
    Ok(alone.filter(is_same))
}

/// Without the folder: reports of the same tables are the same wherever they lie.
fn missing(name: &str, suffix: &str) -> String {
    format!("{name}.{suffix} does not exist")
}
