//! What was found, as rows: a CSV file in long form, and Markdown tables with a row for each name.

use std::path::Path;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use thinet_harness::tables::{Align, Grid, GridColumn};

/// Stands where nothing was measured; the note says why.
const NOT_RUN: &str = "not run";
/// Why something was not measured when the time was over.
pub(crate) const OUT_OF_TIME: &str = "out of time";

/// A value with its kind.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum Value {
    Number(f64),
    Text(String),
}

/// One thing that was found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Row {
    pub(crate) section: String,
    pub(crate) name: String,
    pub(crate) metric: String,
    pub(crate) value: Value,
    pub(crate) unit: String,
    pub(crate) note: String,
    /// Whether what is required of it holds; absent if nothing is.
    pub(crate) holds: Option<bool>,
}

impl Row {
    pub(crate) fn text(section: &str, name: &str, metric: &str, value: impl Into<String>) -> Self {
        let [section, name, metric] = [section, name, metric].map(str::to_owned);
        let value = Value::Text(one_line(&value.into()));
        Self { section, name, metric, value, unit: String::new(), note: String::new(), holds: None }
    }

    /// A number that is not finite has no form in JSON and becomes text.
    pub(crate) fn number(section: &str, name: &str, metric: &str, value: f64, unit: &str) -> Self {
        let mut row = Self::text(section, name, metric, value.to_string());
        if value.is_finite() {
            row.value = Value::Number(value);
        }
        Self { unit: unit.to_owned(), ..row }
    }

    pub(crate) fn not_run(section: &str, name: &str, metric: &str, reason: &str) -> Self {
        Self::text(section, name, metric, NOT_RUN).note(reason)
    }

    pub(crate) fn note(self, note: &str) -> Self {
        Self { note: one_line(note), ..self }
    }

    pub(crate) fn holds(self, holds: bool) -> Self {
        Self { holds: Some(holds), ..self }
    }

    fn value(&self) -> String {
        match &self.value {
            Value::Number(number) => number.to_string(),
            Value::Text(text) => text.clone(),
        }
    }

    /// The value for people.
    fn shown(&self) -> String {
        let value = match self.value {
            Value::Number(0.0) => "0".to_owned(),
            Value::Number(number) if number.fract() == 0.0 && number.abs() < 1e15 => number.to_string(),
            Value::Number(number) => match number.abs() {
                ..0.01 => format!("{number:.1e}"),
                0.01..100.0 => format!("{number:.3}"),
                _ => format!("{number:.1}"),
            },
            Value::Text(ref text) => text.clone(),
        };
        if self.holds == Some(false) { format!("**{value}**") } else { value }
    }
}

/// Line ends become spaces, and what is far too long is cut: a message of libtorch may hold a stack.
pub(crate) fn one_line(text: &str) -> String {
    let words: Vec<&str> = text.split_whitespace().collect();
    let line = words.join(" ");
    match line.char_indices().nth(300) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

/// All rows, in the order in which they were found.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) rows: Vec<Row>,
}

impl Report {
    /// Whether something of this name is in a section.
    pub(crate) fn has(&self, section: &str, name: &str) -> bool {
        self.rows.iter().any(|row| row.section == section && row.name == name)
    }

    /// What does not hold, for people.
    pub(crate) fn failures(&self) -> Vec<String> {
        let failed = self.rows.iter().filter(|row| row.holds == Some(false));
        failed.map(|row| format!("{} {}: {} is {}", row.section, row.name, row.metric, row.value())).collect()
    }

    /// `section,name,metric,value,unit,note`.
    fn csv(&self) -> String {
        let mut text = "section,name,metric,value,unit,note\n".to_owned();
        for row in &self.rows {
            let cells = [&row.section, &row.name, &row.metric, &row.value(), &row.unit, &row.note];
            let cells: Vec<String> = cells.iter().map(|cell| quoted(cell)).collect();
            text.push_str(&cells.join(","));
            text.push('\n');
        }
        text
    }

    fn markdown(&self, device: &str, about: &[(&str, &str)]) -> String {
        let required = self.rows.iter().filter(|row| row.holds.is_some()).count();
        let failures = self.failures();
        let mut text = format!("# What {device} computes, and how fast\n\n");
        if failures.is_empty() {
            text.push_str(&format!("Required figures: {required}, all of them hold.\n"));
        } else {
            let heading =
                format!("Of {required} required figures, {} DO NOT HOLD (bold):\n\n", failures.len());
            text.push_str(&heading);
            failures.iter().for_each(|failure| text.push_str(&format!("- {failure}\n")));
        }
        for section in unique(self.rows.iter().map(|row| row.section.as_str())) {
            let rows: Vec<&Row> = self.rows.iter().filter(|row| row.section == section).collect();
            text.push('\n');
            text.push_str(&grid(section, &rows).markdown());
            text.push('\n');
            for (_, about) in about.iter().filter(|(of, _)| *of == section) {
                text.push_str(&format!("{about}\n\n"));
            }
            let noted: Vec<&&Row> = rows.iter().filter(|row| !row.note.is_empty()).collect();
            for note in unique(noted.iter().map(|row| row.note.as_str())) {
                let of: Vec<&&&Row> = noted.iter().filter(|row| row.note == note).collect();
                let names = unique(of.iter().map(|row| row.name.as_str())).join(", ");
                let metrics = unique(of.iter().map(|row| row.metric.as_str())).join(", ");
                text.push_str(&format!("- {names} ({metrics}): {note}\n"));
            }
        }
        text
    }

    /// Writes `gpu-check.csv` and `gpu-check.md`; `about` holds a paragraph for a section.
    pub(crate) fn write(&self, out: &Path, device: &str, about: &[(&str, &str)]) -> Result<()> {
        for (name, text) in [("gpu-check.csv", self.csv()), ("gpu-check.md", self.markdown(device, about))] {
            let path = out.join(name);
            std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        }
        Ok(())
    }
}

/// A row for each name, a column for each metric.
fn grid(section: &str, rows: &[&Row]) -> Grid {
    let metrics = unique(rows.iter().map(|row| row.metric.as_str()));
    let column = |heading: String, align| GridColumn { heading, align };
    let mut columns = vec![column("name".to_owned(), Align::Left)];
    for metric in &metrics {
        // A row that was not run has no unit.
        let mut of_metric = rows.iter().filter(|row| row.metric == *metric);
        let unit = of_metric.find(|row| !row.unit.is_empty()).map(|row| format!(", {}", row.unit));
        columns.push(column(format!("{metric}{}", unit.unwrap_or_default()), Align::Right));
    }
    let cells = |name: &str| {
        let found = |metric: &&str| rows.iter().find(|row| row.name == name && row.metric == *metric);
        let cell = |metric| found(metric).map_or_else(|| "-".to_owned(), |row| row.shown());
        std::iter::once(name.to_owned()).chain(metrics.iter().map(cell)).collect()
    };
    let names = unique(rows.iter().map(|row| row.name.as_str()));
    Grid { caption: section.to_owned(), columns, rows: names.into_iter().map(cells).collect() }
}

/// Each once, in the order of their first time.
fn unique<'a>(texts: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut seen = Vec::new();
    for text in texts {
        if !seen.contains(&text) {
            seen.push(text);
        }
    }
    seen
}

fn quoted(cell: &str) -> String {
    if cell.contains([',', '"', '\n']) {
        format!("\"{}\"", cell.replace('"', "\"\""))
    } else {
        cell.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let rows = vec![
            Row::number("parity", "vgg16", "logits", 2.5e-7, "").holds(true),
            Row::text("parity", "vgg16", "same bits", "yes").note("two runs, one device"),
            Row::number("parity", "net b", "logits", 0.25, "").holds(false),
            Row::number("speed", "vgg16", "ours", 1234.56, "images/s"),
            Row::not_run("speed", "net b", "ours", OUT_OF_TIME),
        ];
        Report { rows }
    }

    #[test]
    fn the_csv_keeps_every_digit_and_quotes_commas() {
        let csv = report().csv();
        let lines: Vec<&str> = csv.lines().collect();
        assert_eq!(lines[0], "section,name,metric,value,unit,note");
        assert_eq!(lines[1], "parity,vgg16,logits,0.00000025,,");
        assert_eq!(lines[2], "parity,vgg16,same bits,yes,,\"two runs, one device\"");
        assert_eq!(lines[5], "speed,net b,ours,not run,,out of time");
    }

    #[test]
    fn the_tables_have_a_row_for_a_name_and_say_what_fails_and_what_was_not_run() {
        let text = report().markdown("cuda:0", &[("speed", "In turn.")]);
        assert!(text.contains("Of 2 required figures, 1 DO NOT HOLD"), "{text}");
        assert!(text.contains("- parity net b: logits is 0.25\n"), "{text}");
        assert!(
            text.contains("| vgg16 |    2.5e-7 |       yes |\n| net b | **0.250** |         - |\n"),
            "{text}"
        );
        assert!(text.contains("| name  | ours, images/s |\n"), "{text}");
        assert!(text.contains("- net b (ours): out of time\n"), "{text}");
        assert!(text.contains("\nIn turn.\n"), "{text}");
    }

    #[test]
    fn rows_survive_the_way_from_a_child_process() {
        let nan = Row::number("s", "n", "m", f64::NAN, "").holds(false);
        assert_eq!(nan.value, Value::Text("NaN".to_owned()));
        for row in report().rows.into_iter().chain([nan]) {
            let text = serde_json::to_string(&row).unwrap();
            assert_eq!(serde_json::from_str::<Row>(&text).unwrap(), row);
        }
        assert_eq!(one_line("a\n b\t c"), "a b c");
        assert_eq!(one_line(&"é".repeat(400)).chars().count(), 301);
    }
}
