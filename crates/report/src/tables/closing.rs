//! The closing lines of a reproduction: a study's result, the paths of all tables, and what was not run.

use std::path::Path;

use polars::frame::DataFrame;
use thinet_files::read_if_exists;

use super::frame::text_frame;
use super::latency_stored::stored_latency;
use super::markdown::Grid;
use super::{Machine, RESERVED, TableError};

/// Input of [`closing`].
#[derive(Clone, Copy)]
pub struct Closing<'a> {
    /// Folder of the tables.
    pub folder: &'a Path,
    /// Folder of the figures.
    pub figures: &'a Path,
    /// The report's page.
    pub report: &'a Path,
    /// The studies that were run; the result of the first one is shown.
    pub studies: &'a [ClosingStudy<'a>],
    /// Names of further tables.
    pub tables: &'a [&'a str],
    /// Studies that were not run now, each with its table. Those that were measured earlier are not mentioned.
    pub not_run: &'a [(&'a str, &'a str)],
    /// The command that would run them.
    pub command: &'a str,
    /// Describes this machine for a device.
    pub machine: &'a dyn Fn(&str) -> Machine,
}

/// A study of a [`Closing`].
#[derive(Clone, Copy, Debug)]
pub struct ClosingStudy<'a> {
    /// Name of the study.
    pub name: &'a str,
    /// Its table.
    pub table: &'a str,
}

/// Maximum number of lines of [`closing`].
pub const CLOSING_LINES: usize = 25;
/// Maximum number of lines for methods.
const METHODS: usize = 8;
/// Maximum number of lines for tables.
const TABLES: usize = 8;

/// The study's tuned top-1 for each method and keep rate, the path of each table, of the study's first figure and of the report, and in one
/// line what was not run. Read from the stored tables; at most [`CLOSING_LINES`] lines, further entries are only counted.
///
/// # Errors
/// If a table exists and cannot be read; the message names it.
pub fn closing(closing: &Closing<'_>) -> Result<String, TableError> {
    let mut text = String::new();
    if let Some(study) = closing.studies.first() {
        text.push_str(&result(closing.folder, *study)?);
        text.push('\n');
    }
    let mut not_run = Vec::new();
    for (study, table) in closing.not_run {
        if !is_measured(closing.folder, study, table)? {
            not_run.push(*study);
        }
    }
    let mut tables = Vec::new();
    let studies = closing.studies.iter().map(|study| study.table);
    for name in RESERVED[..2].iter().copied().chain(studies).chain(closing.tables.iter().copied()) {
        let about = about(closing, name)?;
        let missing = || match RESERVED.contains(&name) {
            true => format!("not written: thinet table {name}"),
            false => "not written".to_owned(),
        };
        tables.push((name, about.unwrap_or_else(missing)));
    }
    let latency = stored_latency(closing.folder, None)?;
    if !latency.as_ref().is_some_and(|table| table.is_of(closing.machine)) {
        not_run.push("latency (on this machine)");
    }
    if let Some(latency) = latency {
        let whose = if latency.is_of(closing.machine) { "this machine" } else { "another machine" };
        let at = tables.len() - closing.tables.len();
        tables.insert(at, (RESERVED[2], format!("times of the eight models on {whose}")));
    }
    text.push_str("Tables, each also as CSV and Parquet:\n");
    let shown = if tables.len() > TABLES { TABLES - 1 } else { tables.len() };
    let path = |name: &str| closing.folder.join(format!("{name}.md")).display().to_string();
    let width = tables[..shown].iter().map(|(name, _)| path(name).chars().count()).max().unwrap_or(0);
    for (name, about) in &tables[..shown] {
        text.push_str(&format!("  {:<width$}  {about}\n", path(name)));
    }
    if shown < tables.len() {
        text.push_str(&format!("  … and {} more\n", tables.len() - shown));
    }
    if let Some(figure) = closing.studies.first().and_then(|study| figure(closing.figures, study.table)) {
        text.push_str(&figure);
    }
    if closing.report.is_file() {
        text.push_str(&format!(
            "Report: {} (all figures and tables, every cell; open it in a browser)\n",
            closing.report.display()
        ));
    }
    if !not_run.is_empty() {
        text.push_str(&format!("Not run: {}. To run it: {}\n", not_run.join(", "), closing.command));
    }
    Ok(text)
}

/// The line that names a study's first figure, if it was drawn.
fn figure(folder: &Path, table: &str) -> Option<String> {
    let path = folder.join(format!("{table}-accuracy-flops.svg"));
    path.is_file().then(|| format!("Figure: {} (accuracy against FLOPs kept)\n", path.display()))
}

/// Whether a table holds a measured row of a study.
fn is_measured(folder: &Path, study: &str, table: &str) -> Result<bool, TableError> {
    let Some(frame) = read(folder, table)? else { return Ok(false) };
    let is_done = |row: usize| text(&frame, "status", row) == Some("done");
    let is_own = |row: usize| text(&frame, "experiment", row).is_none_or(|name| name == study);
    Ok((0..frame.height()).any(|row| is_done(row) && is_own(row)))
}

/// A short description of a table, if it exists.
fn about(closing: &Closing<'_>, name: &str) -> Result<Option<String>, TableError> {
    let Some(frame) = read(closing.folder, name)? else { return Ok(None) };
    if name == RESERVED[0] {
        return Ok(Some(
            "parameters and FLOPs of the paper's eight models beside the published ones".to_owned(),
        ));
    }
    if name == RESERVED[1] {
        return Ok(Some("FLOPs at the keep rates of the paper's figure 4".to_owned()));
    }
    let is_done = |row: &usize| text(&frame, "status", *row) == Some("done");
    let (rows, done) = (frame.height(), (0..frame.height()).filter(is_done).count());
    let measured = match done {
        0 => format!("{rows} rows, not run"),
        done if done == rows => format!("{rows} rows"),
        done => format!("{rows} rows, {done} of them run"),
    };
    let is_study = closing.folder.join(format!("{name}-summary.csv")).exists();
    let more = if is_study { format!("; means in {name}-summary.md") } else { String::new() };
    Ok(Some(format!("{measured}{more}")))
}

/// Top-1 after the last measured phase, method × keep rate.
fn result(folder: &Path, study: ClosingStudy<'_>) -> Result<String, TableError> {
    let ClosingStudy { name, table } = study;
    let Some(frame) = read(folder, &format!("{table}-summary"))? else {
        return Ok(format!("{name}: not run\n"));
    };
    let rows: Vec<usize> = (0..frame.height()).collect();
    let distinct = |of_row: &dyn Fn(usize) -> Option<String>| {
        let mut values: Vec<String> = Vec::new();
        for value in rows.iter().filter(|&&row| !is_dense(&frame, row)).filter_map(|&row| of_row(row)) {
            if !values.contains(&value) {
                values.push(value);
            }
        }
        values
    };
    let method = |row: usize| {
        let variant = text(&frame, "variant", row).map(|name| format!("{name}: ")).unwrap_or_default();
        Some(format!("{variant}{}", text(&frame, "method", row)?))
    };
    let rate = |row: usize| text(&frame, "keep_rate", row).map(str::to_owned);
    let (methods, rates) = (distinct(&method), distinct(&rate));
    let most = |column: &str| {
        let of_methods = rows.iter().filter(|&&row| !is_dense(&frame, row));
        of_methods.filter_map(|&row| text(&frame, column, row)?.parse::<u64>().ok()).max().unwrap_or(0)
    };
    // The last phase in which something was measured.
    let (phase, word) = [
        ("after_fine_tune", "tuned"),
        ("after_batch_norm_estimate", "refitted, BN estimated,"),
        ("after_reconstruction", "refitted"),
    ]
    .into_iter()
    .find(|(phase, _)| most(&format!("{phase}_top1_n")) > 0)
    .unwrap_or(("after_fine_tune", "tuned"));
    let (seeds, reached) = (most("seeds"), most(&format!("{phase}_top1_n")));
    let over = match (seeds, reached) {
        (0 | 1, _) => String::new(),
        (seeds, reached) if seeds == reached => format!(", mean ± deviation over {seeds} seeds"),
        (seeds, reached) => {
            format!(", mean ± deviation over {reached} of {seeds} seeds (why is said in {table}.md)")
        }
    };
    let dense = rows.iter().find_map(|&row| text(&frame, "dense_top1_mean", row)?.parse::<f64>().ok());
    let dense = dense.map(|top1| format!("; dense {top1:.2}")).unwrap_or_default();
    let caption = format!("Result of {name}: {word} top-1, %, at each keep rate{over}{dense}");
    let mut headings = vec!["<method"];
    headings.extend(rates.iter().map(String::as_str));
    let mut grid = Grid::new(caption, &headings);
    let shown = if methods.len() > METHODS { METHODS - 1 } else { methods.len() };
    for name in &methods[..shown] {
        let mut cells = vec![name.clone()];
        for keep_rate in &rates {
            let is_here = |row: &&usize| {
                method(**row).as_ref() == Some(name) && rate(**row).as_ref() == Some(keep_rate)
            };
            cells
                .push(rows.iter().find(is_here).map_or_else(String::new, |&row| mean_of(&frame, row, phase)));
        }
        grid.rows.push(cells);
    }
    if shown < methods.len() {
        let mut cells = vec![format!("… and {} more", methods.len() - shown)];
        cells.resize(headings.len(), String::new());
        grid.rows.push(cells);
    }
    Ok(grid.markdown())
}

/// Whether a row of a summary is that of the dense nets.
fn is_dense(frame: &DataFrame, row: usize) -> bool {
    text(frame, "selector", row).is_none()
}

/// `90.50 ± 0.71`, or why there is no number.
fn mean_of(frame: &DataFrame, row: usize, phase: &str) -> String {
    let number = |column: &str| text(frame, column, row)?.parse::<f64>().ok();
    let Some(mean) = number(&format!("{phase}_top1_mean")) else {
        let is_some = |column: &str| number(column).is_some_and(|count| count > 0.0);
        let why = if is_some("done") {
            "not measured"
        } else if is_some("diverged") {
            "diverged"
        } else {
            "not run"
        };
        return why.to_owned();
    };
    let std = number(&format!("{phase}_top1_std")).map(|std| format!(" ± {std:.2}")).unwrap_or_default();
    format!("{mean:.2}{std}")
}

/// A table's CSV file as text; `None` if it does not exist or is no CSV.
fn read(folder: &Path, name: &str) -> Result<Option<DataFrame>, TableError> {
    let csv = read_if_exists(&folder.join(format!("{name}.csv")))?;
    Ok(csv.and_then(|csv| text_frame(csv).ok()))
}

/// A field that is not empty.
fn text<'a>(frame: &'a DataFrame, column: &str, row: usize) -> Option<&'a str> {
    frame.column(column).ok()?.str().ok()?.get(row).filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::{CpuIdentity, StudyRecord};
    use crate::tables::sample::{study, with_variants};
    use crate::tables::{DERIVED, NOT_RUN, compression, figure4_flops, selectors, write};

    const STUDY: ClosingStudy<'static> = ClosingStudy { name: "invented", table: "selectors-invented" };

    fn machine(_: &str) -> Machine {
        let instruction_set = "avx2".to_owned();
        let cpu = CpuIdentity {
            vendor: None,
            name: None,
            family: None,
            model: None,
            stepping: None,
            instruction_set,
            cores: 2,
        };
        Machine { cpu, libtorch: "2.11.0".to_owned(), card: None }
    }

    /// The closing lines for tables of a study, the `tables` not run.
    fn lines_of(study: &StudyRecord, tables: &[&str]) -> String {
        let dir = tempfile::tempdir().unwrap();
        for table in [compression().unwrap(), figure4_flops().unwrap()] {
            write(dir.path(), &table, DERIVED).unwrap();
        }
        for table in selectors(study).unwrap() {
            write(dir.path(), &table, &study.run).unwrap();
        }
        for name in tables {
            let mut missing = study.clone();
            (missing.table, missing.name) = ((*name).to_owned(), (*name).to_owned());
            for dense in &mut missing.dense {
                (dense.status, dense.rows) = (crate::records::Status::NotRun, Vec::new());
            }
            for cell in &mut missing.cells {
                (cell.status, cell.rows) = (crate::records::Status::NotRun, Vec::new());
            }
            write(dir.path(), &selectors(&missing).unwrap()[0], NOT_RUN).unwrap();
        }
        let asked = Closing {
            folder: dir.path(),
            figures: &dir.path().join("figures"),
            report: &dir.path().join("report.html"),
            studies: &[STUDY],
            tables,
            not_run: &[("birds", "birds"), ("thousand-classes", "none"), ("invented", "selectors-invented")],
            command: "make reproduce-table CUB=/path/to/CUB_200_2011",
            machine: &machine,
        };
        let figures = dir.path().join("figures");
        std::fs::create_dir(&figures).unwrap();
        let nothing = closing(&asked).unwrap();
        assert!(!nothing.contains("Figure") && !nothing.contains("Report"), "none was drawn: {nothing}");
        std::fs::write(asked.report, "<!DOCTYPE html>").unwrap();
        std::fs::write(figures.join("selectors-invented-accuracy-flops.svg"), "<svg/>").unwrap();
        let (figures, tables) = (figures.display().to_string(), dir.path().display().to_string());
        let text = closing(&asked).unwrap().replace(&figures, "results/figures");
        text.replace(&format!("{tables}/report.html"), "results/report/index.html")
            .replace(&tables, "results/tables")
    }

    #[test]
    fn the_lines_are_pinned() {
        let text = lines_of(&StudyRecord { uncut_rates: vec![1.0], ..study() }, &["birds"]);
        assert!(text.lines().count() <= CLOSING_LINES);
        insta::assert_snapshot!(text);
    }

    #[test]
    fn methods_of_variants_have_lines_of_their_own() {
        let text = lines_of(&with_variants(), &[]);
        let means = |name: &str| text.lines().find(|line| line.contains(name)).unwrap().to_owned();
        assert!(means("plain: thinet + channel-scale").contains("90.50 ± 0.71"), "{text}");
        assert!(means("at once: thinet + channel-scale").contains("91.03 ± 0.75"), "{text}");
        assert!(text.lines().count() <= CLOSING_LINES);
    }

    #[test]
    fn seeds_that_are_left_out_are_not_counted() {
        let mut one = study();
        for cell in one.cells.iter_mut().filter(|cell| cell.seed == 1) {
            (cell.status, cell.rows) = (crate::records::Status::NotRun, Vec::new());
        }
        let text = lines_of(&one, &[]);
        let over = "mean ± deviation over 1 of 2 seeds (why is said in selectors-invented.md)";
        assert!(text.lines().next().unwrap().contains(over), "{text}");
    }

    #[test]
    fn the_number_of_lines_is_limited() {
        let mut many = study();
        let cells = many.cells.clone();
        for copy in 0..8 {
            many.cells.extend(cells.iter().cloned().map(|mut cell| {
                cell.id = format!("{}-{copy}", cell.id);
                cell.method = format!("{} {copy}", cell.method);
                cell
            }));
        }
        let names: Vec<String> = (0..20).map(|i| format!("table-{i}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let text = lines_of(&many, &names);
        assert_eq!(text.lines().count(), CLOSING_LINES, "{text}");
        assert!(text.contains("… and 38 more") && text.contains("… and 16 more"), "{text}");
    }

    #[test]
    fn missing_tables_are_reported() {
        let dir = tempfile::tempdir().unwrap();
        let asked = Closing {
            folder: dir.path(),
            figures: dir.path(),
            report: &dir.path().join("report.html"),
            studies: &[STUDY],
            tables: &[],
            not_run: &[],
            command: "make",
            machine: &machine,
        };
        let text = closing(&asked).unwrap();
        assert!(text.starts_with("invented: not run\n"), "{text}");
        assert!(text.contains("Not run: latency (on this machine). To run it: make\n"), "{text}");
    }

    #[test]
    fn as_many_methods_and_tables_as_there_is_room_for_are_all_shown() {
        let mut eight = study();
        eight.cells.retain(|cell| cell.status == crate::records::Status::Done && cell.keep_rate == 0.5);
        let copies: Vec<_> = eight
            .cells
            .iter()
            .filter(|cell| !["apoz", "random"].contains(&cell.method.as_str()))
            .cloned()
            .collect();
        eight.cells.extend(copies.into_iter().map(|mut cell| {
            cell.id.push_str("-copy");
            cell.method.push_str(" copy");
            cell
        }));
        let text = lines_of(&eight, &["a", "b", "c", "d", "e"]);
        assert!(text.lines().count() == CLOSING_LINES && !text.contains("more"), "{text}");
        assert!(text.contains("  15 rows; means in selectors-invented-summary.md\n"), "{text}");
    }

    #[test]
    fn the_result_is_of_the_last_phase_in_which_something_was_measured() {
        let mut untuned = study();
        for cell in &mut untuned.cells {
            cell.rows.retain(|row| row.phase != crate::records::Phase::AfterFineTune);
        }
        let caption =
            "Result of invented: refitted top-1, %, at each keep rate, mean ± deviation over 2 seeds";
        assert!(lines_of(&untuned, &[]).contains(caption), "{}", lines_of(&untuned, &[]));
        let caption = "Result of invented: tuned top-1, %, at each keep rate, mean ± deviation over 2 seeds";
        assert!(lines_of(&study(), &[]).contains(caption), "{}", lines_of(&study(), &[]));
    }

    #[test]
    fn a_mean_or_why_there_is_none() {
        let csv = "after_fine_tune_top1_mean,after_fine_tune_top1_std,done,diverged\n\
                   90.5,0.714,2,0\n90.5,,1,0\n,,1,1\n,,0,1\n,,0,0\n";
        let frame = text_frame(csv.as_bytes().to_vec()).unwrap();
        let shown: Vec<String> = (0..5).map(|row| mean_of(&frame, row, "after_fine_tune")).collect();
        assert_eq!(shown, ["90.50 ± 0.71", "90.50", "not measured", "diverged", "not run"]);
    }
}
