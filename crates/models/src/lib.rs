//! Networks that run: builders that return graphs, their execution with libtorch, weights in memory and in files,
//! the application of surgery plans, and the training step.

mod checkpoint;
mod device;
mod error;
mod export;
mod facts;
mod file;
mod file_kind;
mod forward;
mod import;
mod import_rules;
mod init;
mod layout;
mod names;
mod paper;
mod parts;
mod resnet;
mod schedule;
mod sgd;
mod spec;
mod surgery;
mod switches;
mod tiny;
mod train;
mod vgg;
mod weights;

pub use device::{parse_device, seed_torch, set_compute_threads};
pub use error::ModelError;
pub use export::export_weights;
pub use facts::{Gpu, cpu_capability, gpu};
pub use file::{
    FileContents, Metadata, file_contents, load_net, load_tensors, load_weights, save_net, save_tensors,
};
pub use forward::{Mode, forward, forward_taps};
pub use import::{ImportReport, check_import, import_weights};
pub use import_rules::{FileType, ImportRules, Layout};
pub use layout::MemoryFormat;
pub use paper::{PaperModel, paper_models};
pub use resnet::{ResNetStride, resnet50_pruned_layers};
pub use schedule::Schedule;
pub use sgd::{Sgd, SgdOptions};
pub use spec::{Arch, NetSpec};
pub use surgery::{apply_surgery, scale_consumer_inputs};
pub use switches::{
    Autocast, Precision, generator_state, is_tf32_allowed, peak_gpu_bytes, set_deterministic,
    set_generator_state, set_tf32,
};
pub use train::{loss_and_gradients, train_step};
pub use vgg::vgg16_pruned_layers;
pub use weights::Weights;

use thinet_graph::Graph;

/// Version of libtorch that this is built for; part of a result's identity.
pub const LIBTORCH_VERSION: &str = "2.11.0";

/// A network with its weights.
#[derive(Debug)]
pub struct Net {
    /// What it computes.
    pub graph: Graph,
    /// The tensors that `graph` names.
    pub weights: Weights,
}
