//! Reads PyTorch checkpoints without running any code that a pickle can call.
//!
//! `pickle.rs` builds the values of `value.rs`, `torch_file.rs` reads the two containers (the zip archive that `torch.save`
//! writes since 1.6, and the older stream that `vgg16-397923af.pth` is), `storage.rs` describes the storages that hold
//! the numbers, and `state_dict.rs` finds the weights inside the wrappers of training scripts.

mod pickle;
mod state_dict;
mod storage;
mod torch_file;
mod value;

pub(crate) use storage::Element;
pub(crate) use torch_file::{Checkpoint, Entry, is_checkpoint};

#[cfg(test)]
mod tests;
