//! How a 4-d tensor lies in memory: channel after channel, or pixel after pixel (channels last).
//!
//! The values are the same; libtorch picks other kernels, so results differ in the last bits and the format belongs
//! in a study's spec. Convolutions pass the format of their input on, so it is enough to convert weights and images.

use serde::{Deserialize, Serialize};
use tch::Tensor;

use crate::ModelError;
use crate::error::Context;

/// Order of the axes in memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MemoryFormat {
    /// `[n, c, h, w]` as written: the last axis is dense.
    #[default]
    Contiguous,
    /// The channel axis is dense.
    ChannelsLast,
}

impl MemoryFormat {
    /// The tensor in this format: a copy, or the same storage if it has the format already. Only 4-d tensors have a
    /// channels-last form; others become contiguous.
    ///
    /// # Errors
    /// If libtorch cannot allocate the copy.
    pub fn apply(self, tensor: &Tensor) -> Result<Tensor, ModelError> {
        let context = || "change of memory format".to_owned();
        match (self, tensor.size4()) {
            (Self::ChannelsLast, Ok((_, c, h, w))) => {
                // A permuted `contiguous` would leave a tensor of one channel as it is, so strides are asked for.
                let strides = [h * w * c, 1, w * c, c];
                if tensor.stride() == strides {
                    return Ok(tensor.shallow_clone());
                }
                let mut copy =
                    Tensor::f_empty_strided(tensor.size(), strides, (tensor.kind(), tensor.device()))
                        .context(context)?;
                copy.f_copy_(tensor).context(context)?;
                Ok(copy)
            }
            _ => tensor.f_contiguous().context(context),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Device, Kind};

    #[test]
    fn values_stay_and_strides_change_even_for_one_channel() {
        for channels in [1, 3] {
            let tensor =
                Tensor::arange(2 * channels * 4 * 5, (Kind::Float, Device::Cpu)).view([2, channels, 4, 5]);
            let last = MemoryFormat::ChannelsLast.apply(&tensor).unwrap();
            assert_eq!(last.stride(), [20 * channels, 1, 5 * channels, channels]);
            assert_eq!(last, tensor);
            let back = MemoryFormat::Contiguous.apply(&last).unwrap();
            assert!(back.is_contiguous());
            assert_eq!(back, tensor);
        }
    }

    #[test]
    fn tensors_of_other_ranks_pass() {
        let tensor = Tensor::arange(6, (Kind::Float, Device::Cpu)).view([2, 3]);
        assert_eq!(MemoryFormat::ChannelsLast.apply(&tensor).unwrap(), tensor);
    }
}
