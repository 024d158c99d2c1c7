//! Datasets, transforms and the seeded loader: images and labels in a fixed order, the same for any number of threads.
//!
//! A [`DatasetSpec`] says which set; [`open`] reads it from a folder, [`fetch`] gets it where that can be done. A
//! [`Loader`] turns a [`Dataset`] and an order of indices into [`Batch`]es through a [`Transform`].

mod cifar;
mod command;
mod cub200;
mod dataset;
mod decode;
mod draw;
mod error;
mod examine;
mod fashion_mnist;
mod fetch;
mod files;
#[cfg(test)]
mod golden;
mod idx;
mod image_folder;
mod imagenet;
mod index_file;
mod jpeg;
mod limit;
mod loader;
mod mat5;
mod open;
mod photos;
mod protocol;
mod resize;
mod spec;
mod subset;
mod transform;
mod val_labels;

pub use dataset::{Dataset, MemoryDataset, Split};
pub use draw::shuffled;
pub use error::DataError;
pub use examine::{Examination, examine, problems};
pub use fetch::fetch;
pub use loader::{Batch, Loader, LoaderOptions};
pub use open::open;
pub use protocol::Protocol;
pub use spec::{
    ChannelOrder, DatasetSpec, ImageFolderSpec, ImagenetSpec, Normalisation, PhotoSpec, Resize, StandardSpec,
};
pub use subset::Subset;
pub use transform::{Augment, MOST_PADDING, Transform};
