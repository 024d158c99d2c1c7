//! Overrides of a spec on the command line, and the folders of data and results.

use std::path::{Path, PathBuf};

use thinet_data::DatasetSpec;
use thinet_models::Device;
use thinet_report::records::Program;

/// Overrides of a spec on the command line, and the folders of data and results.
#[derive(Clone, Debug)]
pub struct Options {
    /// Overrides `seeds`.
    pub seeds: Option<u64>,
    pub device: Device,
    /// Folder of the dataset. Default: the folder of its kind below `data`.
    pub data: Option<PathBuf>,
    /// Folder with prepared files of the dataset. Default: `prepared` in the dataset's folder.
    pub prepared: Option<PathBuf>,
    /// Folder of all results.
    pub results: PathBuf,
    /// Whether other machines do the work, so that the device need not be available here.
    pub is_elsewhere: bool,
    /// Build of the program; stored beside results, never part of an id.
    pub program: Program,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            seeds: None,
            device: Device::Cpu,
            data: None,
            prepared: None,
            results: "results".into(),
            is_elsewhere: false,
            program: Program::default(),
        }
    }
}

impl Options {
    /// The folder in which a dataset is expected.
    #[must_use]
    pub fn data_folder(&self, dataset: &DatasetSpec) -> PathBuf {
        self.data.clone().unwrap_or_else(|| Path::new("data").join(dataset.folder()))
    }
}
