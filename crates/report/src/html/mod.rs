//! The report: a page of figures to explore and tables to sort, made of written tables alone. The same tables give the same bytes.
//!
//! `page` puts it together, `study` writes a study's section, `published` what stands beside published numbers; `assets` holds the page's
//! style and script. Vega, which draws the figures, lies beside the page as `vega.js` and is not written here.

mod cells;
mod columns;
mod embed;
mod explore;
mod page;
mod plots;
mod published;
mod study;
mod table;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use thinet_files::{FileError, write_atomically};

use crate::figures::source::Tables;
use crate::figures::study::{NoStudy, Study};
use crate::figures::{self, FigureError, Figures, Omission};

/// The page's file.
pub const PAGE: &str = "index.html";
/// The script beside the page that draws its figures.
pub const VEGA: &str = "vega.js";
/// Folder of the scripts with the cells of each study.
const CELLS: &str = "cells";

/// Where a report comes from.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    /// Folder of the tables.
    pub tables: &'a Path,
    /// Folder of the figures' pictures as a link from the page; they stand in where Vega is missing.
    pub pictures: &'a str,
    /// Runs whose folders exist.
    pub runs: &'a [RunFolder],
}

/// The folder of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunFolder {
    /// The run's id.
    pub id: String,
    /// Link to the folder from the page.
    pub link: String,
}

/// A report.
#[derive(Debug, Default)]
pub struct Report {
    /// Its files by path below its folder, `/` between folders.
    pub files: Vec<(String, String)>,
    /// Names of the studies that it shows.
    pub studies: Vec<String>,
    /// Figures that were not drawn, each with the reason.
    pub skipped: Vec<Omission>,
    /// Tables whose files have changed since they were written, a sentence each. They are shown as they are.
    pub changed: Vec<String>,
    /// Tables that cannot be shown; the page names them and shows all others.
    pub failed: Vec<FigureError>,
}

/// The report of all tables of a folder.
///
/// # Errors
/// If the folder cannot be read. A table that cannot be shown is no error: see [`Report::failed`].
pub fn report(source: &Source<'_>) -> Result<Report, FigureError> {
    let drawn = figures::figures(source.tables, &[])?;
    let mut tables = Tables::of(source.tables);
    let mut report = Report::default();
    let mut sections = Vec::new();
    let mut elsewhere = tables.names()?;
    for name in figures::studies(&tables)? {
        let study = match Study::read(&mut tables, &name) {
            Ok(Ok(study)) => study,
            Ok(Err(NoStudy::NotRun | NoStudy::Missing)) => continue,
            Err(error) => {
                elsewhere.retain(|table| !study::belongs(table, &name));
                report.fail(error);
                continue;
            }
        };
        elsewhere.retain(|table| !study::belongs(table, &name));
        match study::section(&mut tables, &study, &drawn, source) {
            Ok(section) => {
                report.studies.push(name.clone());
                sections.push(section);
            }
            Err(error) => report.fail(error),
        }
    }
    sections.sort_by_key(study::Section::order);
    report.studies = sections.iter().map(|section| section.table.clone()).collect();
    let beside = published::sections(&mut tables, &elsewhere, &mut report);
    report.finish(tables, drawn, &sections, &beside, source);
    Ok(report)
}

impl Report {
    /// Lists an error, once.
    fn fail(&mut self, error: FigureError) {
        if !self.failed.iter().any(|known| known.to_string() == error.to_string()) {
            self.failed.push(error);
        }
    }

    fn finish(
        &mut self,
        tables: Tables<'_>,
        drawn: Figures,
        sections: &[study::Section],
        beside: &[published::Section],
        source: &Source<'_>,
    ) {
        let Figures { drawn, skipped, changed, failed } = drawn;
        failed.into_iter().for_each(|error| self.fail(error));
        self.changed =
            tables.changed.into_iter().chain(changed).collect::<BTreeSet<_>>().into_iter().collect();
        self.skipped = skipped;
        let page = page::page(&page::Content { sections, beside, figures: &drawn, report: self, source });
        self.files.push((PAGE.to_owned(), page));
        self.files.extend(sections.iter().map(|section| (cells_file(&section.table), section.cells.clone())));
    }
}

/// Path of a study's cells below the report's folder.
fn cells_file(table: &str) -> String {
    format!("{CELLS}/{table}.js")
}

/// Writes a report to a folder, which is created if it does not exist; returns the files. Cells of studies that it does not show, left by
/// an earlier report, are removed.
///
/// # Errors
/// If the folder or a file cannot be written or removed; the message names it.
pub fn write(out: &Path, report: &Report) -> Result<Vec<PathBuf>, FileError> {
    let cells = out.join(CELLS);
    std::fs::create_dir_all(&cells).map_err(FileError::at("create", &cells))?;
    let files: Vec<PathBuf> = report.files.iter().map(|(name, _)| out.join(name)).collect();
    // The page last: it never names cells that are not there.
    for (path, (_, text)) in files.iter().zip(&report.files).rev() {
        write_atomically(path, text.as_bytes())?;
    }
    for entry in std::fs::read_dir(&cells).map_err(FileError::at("read", &cells))? {
        let path = entry.map_err(FileError::at("read", &cells))?.path();
        let is_script = path.extension().is_some_and(|extension| extension == "js");
        if is_script && !files.contains(&path) {
            std::fs::remove_file(&path).map_err(FileError::at("remove", &path))?;
        }
    }
    Ok(files)
}
