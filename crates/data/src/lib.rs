//! Datasets, transforms and the seeded loader: images and labels in a fixed order, the same for any number of threads.
//!
//! A [`DatasetSpec`] says which set; [`open`] reads it from a folder, [`fetch`] gets it where that can be done. A
//! [`Loader`] turns a [`Dataset`] and an order of indices into [`Batch`]es through a [`Transform`].

mod addresses;
mod archive;
mod client;
mod command;
mod dataset;
mod decode;
mod dimensions;
mod draw;
mod error;
mod examine;
mod fetch;
mod files;
#[cfg(test)]
mod golden;
mod idx;
mod index_file;
mod jpeg;
mod kind;
mod limit;
mod loader;
mod mat5;
mod open;
mod photos;
mod prepare;
mod prepared;
mod protocol;
mod resize;
mod spec;
mod subset;
#[cfg(test)]
mod test_server;
mod transform;
mod unpack;
mod val_labels;

pub use client::FetchEvent;
pub use dataset::{Dataset, MemoryDataset, Split};
pub use draw::shuffled;
pub use error::DataError;
pub use examine::{Examination, examine, problems};
pub use fetch::{fetch, fetch_from};
pub use kind::{Key, Kind};
pub use loader::{Batch, Loader, LoaderOptions};
pub use open::{open, open_with};
pub use photos::PhotoSpec;
pub use prepare::{PreparedFile, prepare};
pub use protocol::Protocol;
pub use spec::{ChannelOrder, Limits, Normalisation, Resize, ResizeRule};
pub use subset::Subset;
pub use transform::{Augment, MOST_PADDING, Placement, Placer, Transform};

use kind::DatasetKeys;

// The registry: one `mod` line for each file that reads datasets, and one line for each dataset.
mod cifar;
mod cub200;
mod fashion_mnist;
mod image_folder;
mod imagenet;

kind::datasets! {
    FashionMnist(fashion_mnist::FashionMnistSpec) = "fashion-mnist",
    Cifar10(cifar::Cifar10Spec) = "cifar10",
    Cifar100(cifar::Cifar100Spec) = "cifar100",
    Imagenet(imagenet::ImagenetSpec) = "imagenet",
    Cub200(cub200::Cub200Spec) = "cub200",
    ImageFolder(image_folder::ImageFolderSpec) = "image-folder",
}
