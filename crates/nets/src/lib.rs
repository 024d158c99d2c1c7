//! Network architectures as data: from a [`NetSpec`] to a graph, and the networks whose sizes the paper prints.

mod error;
mod paper;
mod parts;
mod resnet;
mod spec;
mod tiny;
mod vgg;

pub use error::NetError;
pub use paper::{PaperModel, paper_models};
pub use resnet::{ResNetStride, resnet50_pruned_layers};
pub use spec::{Arch, NetSpec};
pub use vgg::vgg16_pruned_layers;
