//! What the page shows of a cell: its values, layers, kept channels, loss curve, spec and environment. One script a study, loaded when a cell is
//! opened: a page from disk may load scripts and nothing else.

use serde_json::{Map, Value, json};

use super::FigureError;
use super::embed::script_text;
use crate::figures::losses::loss_rows;
use crate::figures::source::{SPEC, Sheet, Tables};
use crate::figures::study::{Study, VARIANT};
use crate::tables::{ENVIRONMENT, LAYERS, LOSSES};

/// Values of a cell that are shown in its head, where they were measured.
const VALUES: [(&str, &str); 16] = [
    ("dense_top1", "dense top-1, %"),
    ("after_cut_top1", "top-1 after the cut, %"),
    ("after_reconstruction_top1", "top-1 after the refit, %"),
    ("after_batch_norm_estimate_top1", "top-1, batch norm estimated again, %"),
    ("after_fine_tune_top1", "top-1 after tuning, %"),
    ("top1_drop", "drop, points"),
    ("dense_top5", "dense top-5, %"),
    ("after_cut_top5", "top-5 after the cut, %"),
    ("after_fine_tune_top5", "top-5 after tuning, %"),
    ("after_fine_tune_loss", "loss after tuning, nats"),
    ("train_loss", "last training loss, nats"),
    ("tuning_steps", "tuning steps"),
    ("params", "parameters"),
    ("flops", "FLOPs"),
    ("times_fewer_flops", "× fewer FLOPs"),
    ("test_images", "test images"),
];

/// The script with the cells of a study; it calls `thinetCells(table, data)`.
pub(super) fn script(
    tables: &mut Tables,
    study: &Study,
    cells: &Sheet,
    layers: Option<&Sheet>,
    run_folder: Option<&str>,
) -> Result<String, FigureError> {
    let mut data = Map::new();
    for row in cells.rows() {
        let mut values = Vec::new();
        for (column, title) in VALUES {
            values.extend(cells.number(row, column)?.map(|value| json!([title, value])));
        }
        let cell = json!({
            "method": cells.label(row, "method"), "variant": cells.label(row, VARIANT), "rate": cells.required(row, "keep_rate")?,
            "seed": cells.label(row, "seed"), "status": cells.label(row, "status"), "values": values, "layers": [],
        });
        data.insert(cells.label(row, "cell"), cell);
    }
    let rows = layers.map(|sheet| sheet.rows().map(move |row| (sheet, row)));
    for (sheet, row) in rows.into_iter().flatten() {
        let numbers = [
            "channels",
            "kept",
            "after_cut_reconstruction_error",
            "after_reconstruction_reconstruction_error",
        ];
        let mut layer = vec![Value::from(sheet.label(row, "layer"))];
        for column in numbers {
            layer.push(sheet.number(row, column)?.map_or(Value::Null, |value| {
                if value.fract() == 0.0 { json!(value as u64) } else { json!(value) }
            }));
        }
        if let Some(Value::Array(all)) =
            data.get_mut(&sheet.label(row, "cell")).and_then(|cell| cell.get_mut("layers"))
        {
            all.push(layer.into());
        }
    }
    add_kept(tables, study, &mut data)?;
    add_losses(tables, study, &mut data)?;
    add_seconds(tables, study, &mut data)?;
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    let spec = tables.bytes(&study.table, SPEC)?.map(text);
    let environment = tables.bytes(&study.table, ENVIRONMENT)?;
    let environment: Option<Value> = environment.and_then(|bytes| serde_json::from_slice(&bytes).ok());
    let payload = json!({
        "run": study.run, "dataset": study.dataset, "net": format!("{}{}", study.net, study.training()),
        "spec": spec, "environment": environment, "runFolder": run_folder, "layers": format!("{}{LAYERS}.csv", study.table),
        "losses": format!("{}{LOSSES}.csv", study.table), "cells": data,
    });
    Ok(format!("thinetCells({}, {});\n", script_text(&json!(study.table)), script_text(&payload)))
}

/// The kept channels of each cell, by layer; none where the file is missing. Its run was checked with the figures.
fn add_kept(tables: &mut Tables, study: &Study, data: &mut Map<String, Value>) -> Result<(), FigureError> {
    let Some(bytes) = tables.bytes(&study.table, "kept.json")? else { return Ok(()) };
    let path = tables.path(&study.table, "kept.json");
    let mut file: Value = serde_json::from_slice(&bytes)
        .map_err(|error| FigureError::BadKept { path: path.clone(), problem: error.to_string() })?;
    if file["run"] != study.run.as_str() {
        let found = file["run"].as_str().unwrap_or_default().to_owned();
        return Err(FigureError::OtherRun {
            path,
            found,
            main: study.path.clone(),
            expected: study.run.clone(),
        });
    }
    for cell in file["cells"].as_array_mut().into_iter().flatten() {
        let id = cell["cell"].as_str().unwrap_or_default().to_owned();
        if let Some(Value::Object(known)) = data.get_mut(&id) {
            known.insert("kept".to_owned(), cell["kept"].take());
        }
    }
    Ok(())
}

/// The loss curve of each cell as pairs of steps done and loss; none where the table is missing.
fn add_losses(tables: &mut Tables, study: &Study, data: &mut Map<String, Value>) -> Result<(), FigureError> {
    let Some(sheet) = loss_rows(tables, study)? else { return Ok(()) };
    for row in sheet.rows() {
        let point = json!([sheet.count(row, "step")?, sheet.required(row, "train_loss")?]);
        if let Some(Value::Object(cell)) = data.get_mut(&sheet.label(row, "stage"))
            && let Value::Array(losses) = cell.entry("losses").or_insert_with(|| json!([]))
        {
            losses.push(point);
        }
    }
    Ok(())
}

/// How long each cell took, where that was stored.
fn add_seconds(tables: &mut Tables, study: &Study, data: &mut Map<String, Value>) -> Result<(), FigureError> {
    let Some(sheet) = tables.sheet(&format!("{}.seconds", study.table), &["stage", "seconds", "device"])?
    else {
        return Ok(());
    };
    for row in sheet.rows() {
        let seconds = sheet.number(row, "seconds")?;
        let cell = data.get_mut(&sheet.label(row, "stage"));
        if let (Some(Value::Object(cell)), Some(seconds)) = (cell, seconds) {
            cell.insert("seconds".to_owned(), json!([seconds, sheet.label(row, "processor")]));
        }
    }
    Ok(())
}
