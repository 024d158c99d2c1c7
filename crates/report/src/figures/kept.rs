//! Reads the kept channels of a study (`<table>.kept.json`).

use std::collections::BTreeMap;

use serde::Deserialize;
use thinet_graph::ChannelSet;

use super::FigureError;
use super::source::Tables;
use super::study::Study;
use crate::records::Status;

#[derive(Deserialize)]
struct File {
    run: String,
    cells: Vec<KeptCell>,
}

/// The kept channels of one cell.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct KeptCell {
    pub(super) method: String,
    pub(super) keep_rate: f64,
    pub(super) seed: u64,
    status: Status,
    /// Empty in a study without variants.
    #[serde(default)]
    pub(super) variant: String,
    /// By layer.
    pub(super) kept: BTreeMap<String, ChannelSet>,
}

/// The cells of a study with all their channels; `None` if there is no such file.
pub(super) fn kept(tables: &mut Tables, study: &Study) -> Result<Option<Vec<KeptCell>>, FigureError> {
    let suffix = "kept.json";
    let path = tables.path(&study.table, suffix);
    let Some(bytes) = tables.bytes(&study.table, suffix)? else { return Ok(None) };
    let file: File = serde_json::from_slice(&bytes)
        .map_err(|error| FigureError::BadKept { path: path.clone(), problem: error.to_string() })?;
    if file.run != study.run {
        let (found, expected) = (file.run, study.run.clone());
        return Err(FigureError::OtherRun { path, found, main: study.path.clone(), expected });
    }
    Ok(Some(
        file.cells.into_iter().filter(|cell| cell.status == Status::Done && !cell.kept.is_empty()).collect(),
    ))
}

/// Names in the order in which people count: `conv2` before `conv10`.
pub(super) fn natural_order(names: &mut [String]) {
    names.sort_by_cached_key(|name| {
        let mut parts: Vec<(u64, String)> = Vec::new();
        let mut rest = name.as_str();
        while !rest.is_empty() {
            let words = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
            let digits =
                rest[words..].find(|c: char| !c.is_ascii_digit()).map_or(rest.len(), |at| words + at);
            parts.push((rest[words..digits].parse().unwrap_or(0), rest[..words].to_owned()));
            rest = &rest[digits..];
        }
        parts.into_iter().map(|(number, word)| (word, number)).collect::<Vec<_>>()
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_are_counted_as_people_do() {
        let mut names = ["conv10", "conv2_2", "conv2_1", "layer1.0.conv1", "conv1"].map(str::to_owned);
        natural_order(&mut names);
        assert_eq!(names, ["conv1", "conv2_1", "conv2_2", "conv10", "layer1.0.conv1"]);
    }
}
