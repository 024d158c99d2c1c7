//! A calibration sample, its size and its draw, as written in a study's spec.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::SamplingError;

/// A calibration sample: m = classes · images · positions rows. The defaults are the paper's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct SamplingSpec {
    /// Training images drawn of every class, 1 to 1,000,000. Default: 10.
    pub images_per_class: usize,
    /// Outputs of the next layer sampled in every image, each at its own filter and position, 1 to 1,000,000. Default: 10.
    pub positions_per_image: usize,
    /// Which of the samples of this size: each has images, filters and positions of its own. For variants that measure how much the
    /// draw alone matters, on the same dense nets; 0 to 1,000,000. Default: 0.
    #[serde(skip_serializing_if = "is_first")]
    pub draw: u64,
}

/// Whether a draw is the one of studies that name none: it is left out where a spec is written, so that their ids stay the same.
fn is_first(draw: &u64) -> bool {
    *draw == 0
}

impl Default for SamplingSpec {
    fn default() -> Self {
        Self { images_per_class: 10, positions_per_image: 10, draw: 0 }
    }
}

impl SamplingSpec {
    /// Refuses an empty sample.
    ///
    /// # Errors
    /// If a count is zero; the message names the key.
    pub fn check(&self) -> Result<(), SamplingError> {
        match self {
            Self { images_per_class: 0, .. } => Err(SamplingError::Nothing("images-per-class")),
            Self { positions_per_image: 0, .. } => Err(SamplingError::Nothing("positions-per-image")),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_the_papers_sample_and_an_empty_one_is_refused_by_key() {
        let spec = SamplingSpec::default();
        assert_eq!(spec, SamplingSpec { images_per_class: 10, positions_per_image: 10, draw: 0 });
        assert!(spec.check().is_ok());
        let no_images = SamplingSpec { images_per_class: 0, ..spec };
        assert_eq!(no_images.check().unwrap_err().to_string(), "images-per-class must be at least 1");
        let no_positions = SamplingSpec { positions_per_image: 0, ..spec };
        assert_eq!(no_positions.check().unwrap_err().to_string(), "positions-per-image must be at least 1");
    }
}
