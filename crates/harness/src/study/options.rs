//! Overrides of a spec on the command line, and the folders of data and results.

use std::fmt::Display;
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
    /// The options that differ from their defaults, as they are typed after a command and its spec, with a space before each.
    #[must_use]
    pub fn typed(&self) -> String {
        let default = Self::default();
        let mut typed = String::new();
        let mut option = |name: &str, value: &dyn Display| typed.push_str(&format!(" {name} {value}"));
        if let Some(seeds) = self.seeds {
            option("--seeds", &seeds);
        }
        if self.device != default.device {
            option("--device", &self.device);
        }
        for (name, folder) in [("--data", &self.data), ("--prepared", &self.prepared)] {
            if let Some(folder) = folder {
                option(name, &folder.display());
            }
        }
        if self.results != default.results {
            option("--results", &self.results.display());
        }
        typed
    }

    /// The command that runs a study with these options.
    #[must_use]
    pub fn run_command(&self, spec: &Path) -> String {
        format!("thinet run {}{}", spec.display(), self.typed())
    }

    /// The folder in which a dataset is expected.
    #[must_use]
    pub fn data_folder(&self, dataset: &DatasetSpec) -> PathBuf {
        self.data.clone().unwrap_or_else(|| Path::new("data").join(dataset.folder()))
    }
}
