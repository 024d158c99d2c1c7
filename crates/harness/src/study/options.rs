//! What the command line changes in a spec, and where data and results are.

use std::path::{Path, PathBuf};

use thinet_data::DatasetSpec;
use thinet_models::Device;
use thinet_report::records::Program;

/// What the command line may change in a spec, and where things are.
#[derive(Clone, Debug)]
pub struct Options {
    /// Overrides `seeds`.
    pub seeds: Option<u64>,
    /// Device to compute on.
    pub device: Device,
    /// Folder of the dataset. Default: `data/<kind>`.
    pub data: Option<PathBuf>,
    /// Folder of all results.
    pub results: PathBuf,
    /// Whether the work is done on other machines, so that the device need not be here.
    pub is_elsewhere: bool,
    /// What the program that asks was built from; kept beside results, never part of an id.
    pub program: Program,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            seeds: None,
            device: Device::Cpu,
            data: None,
            results: "results".into(),
            is_elsewhere: false,
            program: Program::default(),
        }
    }
}

impl Options {
    /// Where a dataset is looked for.
    #[must_use]
    pub fn data_folder(&self, dataset: &DatasetSpec) -> PathBuf {
        self.data.clone().unwrap_or_else(|| Path::new("data").join(dataset.folder()))
    }
}
