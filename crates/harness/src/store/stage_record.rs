//! The record of a finished stage, and its short form for commands that list many stages.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use thinet_graph::ChannelSet;
use thinet_report::records::{Environment, LossCurve, Row, Status};

/// The record of a finished stage.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StageResult {
    /// blake3 of the record's text without this entry; set when the record is read. Absent in records of old versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checksum: Option<String>,
    /// The stage's id, so that a copied folder is detected.
    pub id: String,
    /// Inputs of the id, for reference.
    pub inputs: serde_json::Value,
    pub status: Status,
    pub rows: Vec<Row>,
    /// Loss of its training; of a cell, of its last tuning. `None` without one, and in records of old versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss_curve: Option<LossCurve>,
    /// Kept channels per pruned layer.
    pub kept: BTreeMap<String, ChannelSet>,
    /// Number of test images behind the accuracies, without images that were left out as damaged; the fewest if tests differ. `None`
    /// without a test, and in records of old versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub test_images: Option<u64>,
    /// blake3 of each file of the stage.
    pub files: BTreeMap<String, String>,
    /// Bytes of each file. Absent in records of old versions.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub sizes: BTreeMap<String, u64>,
    /// Wall time of the stage in seconds since it was last started; feeds time estimates, never a table.
    pub seconds: f64,
    /// Part of `seconds` spent in libtorch or waiting for images.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub busy_seconds: Option<f64>,
    /// Part of `busy_seconds` spent waiting for images. Absent in records of old versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waited_seconds: Option<f64>,
    /// Absent in records of old versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub environment: Option<Environment>,
}

/// The excerpt of a [`StageResult`] that describes the state of a stage.
#[derive(Debug, Deserialize)]
pub(crate) struct Brief {
    id: String,
    pub(crate) status: Status,
    pub(crate) seconds: f64,
    pub(crate) files: BTreeMap<String, String>,
    #[serde(default)]
    pub(crate) sizes: BTreeMap<String, u64>,
}

/// The excerpt of a [`StageResult`] that names its inputs.
#[derive(Debug, Deserialize)]
pub(crate) struct StageInputs {
    id: String,
    pub(crate) inputs: serde_json::Value,
}

/// A view of a stage's record.
pub(crate) trait Record: DeserializeOwned {
    fn id(&self) -> &str;
}

impl Record for StageResult {
    fn id(&self) -> &str {
        &self.id
    }
}

impl Record for Brief {
    fn id(&self) -> &str {
        &self.id
    }
}

impl Record for StageInputs {
    fn id(&self) -> &str {
        &self.id
    }
}
