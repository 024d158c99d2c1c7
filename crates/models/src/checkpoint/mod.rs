//! PyTorch checkpoints, read without running any of the code that a pickle can call.
//!
//! `pickle.rs` builds the values of `value.rs`, `torch_file.rs` reads the two containers (the zip archive that `torch.save`
//! writes since 1.6, and the older stream that `vgg16-397923af.pth` is), `storage.rs` holds what is known of the numbers in
//! them, and `state_dict.rs` finds the weights in what training scripts put around them.

mod pickle;
mod state_dict;
mod storage;
mod torch_file;
mod value;

pub(crate) use storage::Element;
pub(crate) use torch_file::{Checkpoint, Entry, is_checkpoint};

#[cfg(test)]
mod tests;
