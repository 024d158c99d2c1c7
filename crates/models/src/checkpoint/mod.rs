//! PyTorch checkpoints, read without running any of the code that a pickle can call.
//!
//! `pickle.rs` understands the values, `torch_file.rs` the two containers: the zip archive that `torch.save` writes since
//! 1.6, and the older stream that `vgg16-397923af.pth` is.

mod pickle;
mod torch_file;

pub(crate) use torch_file::{Checkpoint, Element, Entry, is_checkpoint};
