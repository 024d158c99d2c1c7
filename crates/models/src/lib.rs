//! Networks that run: the execution of graphs with libtorch, weights in memory and in files, the application of surgery
//! plans, and the training step.

mod batch_norm;
mod checkpoint;
mod copies;
mod device;
mod driver;
mod error;
mod evaluate;
mod export;
mod facts;
mod file;
mod file_kind;
mod forward;
mod fused_sgd;
mod gradients;
mod import;
mod import_rules;
mod init;
mod memory_format;
mod names;
mod reason;
mod schedule;
mod sgd;
mod surgery;
mod switches;
mod timing;
mod train;
mod weights;

pub use batch_norm::{BatchNormEstimate, has_batch_norm};
pub use copies::{Mark, UploadBytes, Uploader};
pub use device::{Device, seed_torch, set_compute_threads};
pub use error::ModelError;
pub use evaluate::add_batch;
pub use export::export_weights;
pub use facts::{Gpu, cpu_capability, gpu};
pub use file::{
    FileContents, Metadata, file_contents, load_net, load_tensors, load_weights, save_net, save_tensors,
};
pub use forward::{Mode, forward, forward_taps};
pub use gradients::{OutputGradient, output_gradients};
pub use import::{ImportReport, check_import, import_weights};
pub use import_rules::{FileType, ImportRules, Layout};
pub use init::Init;
pub use memory_format::MemoryFormat;
pub use schedule::Schedule;
pub use sgd::{Sgd, SgdOptions};
pub use surgery::{apply_surgery, read_weights, scale_readers, set_read_weights};
pub use switches::{
    Autocast, Precision, generator_state, is_tf32_allowed, peak_gpu_bytes, set_deterministic,
    set_generator_state, set_tf32,
};
pub use timing::timed;
pub use train::{loss_and_gradients, train_step};
pub use weights::Weights;

use thinet_graph::Graph;

/// Version of libtorch that the bindings are built for; part of a result's identity.
pub const LIBTORCH_VERSION: &str = "2.11.0";

/// A network with its weights.
#[derive(Debug)]
pub struct Net {
    pub graph: Graph,
    /// The tensors that `graph` names.
    pub weights: Weights,
}
