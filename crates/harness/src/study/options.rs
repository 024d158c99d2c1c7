//! What the command line changes in a spec, and where data and results are.

use std::path::{Path, PathBuf};

use thinet_data::{DatasetSpec, ImagenetSpec, PhotoSpec, Protocol, StandardSpec};
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
        self.data.clone().unwrap_or_else(|| Path::new("data").join(dataset_folder(dataset)))
    }
}

/// The folder below `data/` where a dataset is looked for.
fn dataset_folder(spec: &DatasetSpec) -> &'static str {
    match spec {
        DatasetSpec::FashionMnist(_) => "fashion-mnist",
        DatasetSpec::Cifar10(_) => "cifar-10-batches-bin",
        DatasetSpec::Cifar100(_) => "cifar-100-binary",
        DatasetSpec::Imagenet(_) => "imagenet",
        DatasetSpec::Cub200(_) => "CUB_200_2011",
        DatasetSpec::ImageFolder(_) => "images",
    }
}

/// The datasets that are given by their name: the value of `dataset.kind`.
#[must_use]
pub fn dataset_named(kind: &str) -> Option<DatasetSpec> {
    match kind {
        "fashion-mnist" => Some(DatasetSpec::FashionMnist(StandardSpec::default())),
        "cifar10" => Some(DatasetSpec::Cifar10(StandardSpec::default())),
        "cifar100" => Some(DatasetSpec::Cifar100(StandardSpec::default())),
        "imagenet" => Some(DatasetSpec::Imagenet(ImagenetSpec::new(Protocol::CaffeSquash))),
        "cub200" => Some(DatasetSpec::Cub200(PhotoSpec::default())),
        _ => None,
    }
}
