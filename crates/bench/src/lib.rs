//! Helpers of the benches: paired times, peak memory, passes over nets, photographs, and the table of figures with their requirements.
//! The benches themselves are in `benches/figures`; `bin/parity.rs` and `parity/parity.py` compare with Pillow, torchvision and
//! PyTorch, `bin/gpu_check` and `gpu-check` a GPU with the CPU.

mod figure;
mod memory;
mod nets;
mod pairs;
mod photographs;

pub use figure::{Bound, Figure, table};
pub use memory::{ProcessMemory, process_memory};
pub use nets::{observe_batch, plain_sgd, relative_difference};
pub use pairs::{Pairs, Ratio};
pub use photographs::photographs;
