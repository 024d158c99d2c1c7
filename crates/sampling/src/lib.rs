//! What a calibration pass looks at and what it gathers: images, positions, zero counts and contribution moments.
//!
//! The sampling is that of Luo et al. 2017: some images of every class, and in each image some outputs of the next
//! layer, each at its own random filter and position. [`EvidenceCollector`] gathers for any number of layers at once;
//! a pass reads the network and never changes it.

mod collector;
mod contributions;
mod error;
mod filters;
mod gram;
mod images;
mod moments;
mod positions;
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
pub use moments::MomentsCollector;
pub use spec::SamplingSpec;
pub use zeros::ZeroCounter;
