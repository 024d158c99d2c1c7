//! The record of a finished stage, and the little of it that a survey of many needs.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use thinet_graph::ChannelSet;
use thinet_report::records::{Environment, Row, Status};

/// The record of a finished stage.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StageResult {
    /// blake3 of this record's text without its line; set where it is read. Records of old versions have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checksum: Option<String>,
    /// The stage's id, so that a copied folder is recognised.
    pub id: String,
    /// What went into the id, for people.
    pub inputs: serde_json::Value,
    /// How it ended.
    pub status: Status,
    /// What was measured.
    pub rows: Vec<Row>,
    /// Kept channels per pruned layer.
    pub kept: BTreeMap<String, ChannelSet>,
    /// On how many test images the accuracies were measured, those left out as damaged not counted; the fewest if its tests
    /// differ. None without a test, and in records of old versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub test_images: Option<u64>,
    /// blake3 of each file of the stage.
    pub files: BTreeMap<String, String>,
    /// Bytes of each file. Records of old versions do not tell.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub sizes: BTreeMap<String, u64>,
    /// Wall time of the stage in seconds since it was last started; feeds time estimates, never a table.
    pub seconds: f64,
    /// Of these, seconds in libtorch and waiting for images.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub busy_seconds: Option<f64>,
    /// Where it was made. Records of old versions do not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub environment: Option<Environment>,
}

/// The little of a [`StageResult`] that tells how a stage is.
#[derive(Debug, Deserialize)]
pub(crate) struct Brief {
    id: String,
    pub(crate) status: Status,
    pub(crate) seconds: f64,
    pub(crate) files: BTreeMap<String, String>,
    #[serde(default)]
    pub(crate) sizes: BTreeMap<String, u64>,
}

/// What is read from a stage's record.
pub(crate) trait Record: DeserializeOwned {
    /// The stage's id.
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
