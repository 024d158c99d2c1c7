//! Calibration: the sampled images and positions, and the kinds of evidence gathered from them.
//!
//! The sampling is that of Luo et al. 2017: some images of every class, and in each image some outputs of the next
//! layer, each at its own random filter and position. [`EvidenceCollector`] gathers for any number of layers at once;
//! a pass reads the network and never changes it.
//!
//! A new kind of evidence is a file with its `impl GatheredKind` and an entry in the registry (`kind.rs`).

mod activations;
mod collector;
mod contributions;
mod error;
mod filters;
mod gradients;
mod gram;
mod images;
mod kind;
mod moments;
mod net;
mod patches;
mod positions;
mod scales;
mod spec;
#[cfg(test)]
mod test_nets;
mod window;
mod zeros;

pub use collector::EvidenceCollector;
pub use error::SamplingError;
pub use filters::filters;
pub use gram::GramSum;
pub use images::draw_images;
pub use kind::{
    Collector, EvidenceTensors, GatheredKind, GroupOf, Pass, Source, Tap, each_activation, each_input,
    gathered, gathered_kinds,
};
pub use net::{check_needs, read_from_net};
pub use patches::{PatchCollector, ReaderPatches};
pub use spec::SamplingSpec;
