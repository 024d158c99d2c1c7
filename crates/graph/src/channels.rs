//! Kept channels of a layer, and how many a keep rate leaves (Luo et al. 2017: floor(C·r)).

use serde::{Deserialize, Serialize};

use crate::GraphError;

/// Channels that stay in a layer of `width` channels: ascending, distinct, in range, at least one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "RawChannelSet")]
pub struct ChannelSet {
    width: usize,
    kept: Vec<usize>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawChannelSet {
    width: usize,
    kept: Vec<usize>,
}

impl TryFrom<RawChannelSet> for ChannelSet {
    type Error = GraphError;

    fn try_from(raw: RawChannelSet) -> Result<Self, GraphError> {
        Self::new(raw.width, raw.kept)
    }
}

impl ChannelSet {
    /// Checks and wraps kept channel indices.
    ///
    /// # Errors
    /// If `kept` is empty, not strictly ascending, or holds an index of `width` or more.
    pub fn new(width: usize, kept: Vec<usize>) -> Result<Self, GraphError> {
        let problem = if kept.is_empty() {
            Some("are empty".to_owned())
        } else if let Some(pair) = kept.windows(2).find(|pair| pair[0] >= pair[1]) {
            Some(format!("are not strictly ascending: {} before {}", pair[0], pair[1]))
        } else {
            kept.last()
                .filter(|&&last| last >= width)
                .map(|last| format!("name {last}, the layer has {width}"))
        };
        match problem {
            Some(problem) => Err(GraphError::ChannelSet { problem }),
            None => Ok(Self { width, kept }),
        }
    }

    /// All channels of a layer.
    ///
    /// # Errors
    /// If `width` is zero.
    pub fn all(width: usize) -> Result<Self, GraphError> {
        Self::new(width, (0..width).collect())
    }

    /// The kept indices, ascending.
    #[must_use]
    pub fn kept(&self) -> &[usize] {
        &self.kept
    }

    /// The layer's width before the cut.
    #[must_use]
    pub fn width(&self) -> usize {
        self.width
    }

    /// How many channels stay.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a channel set is never empty")]
    pub fn len(&self) -> usize {
        self.kept.len()
    }

    /// Whether nothing is removed.
    #[must_use]
    pub fn is_all(&self) -> bool {
        self.kept.len() == self.width
    }

    /// The removed indices, ascending.
    #[must_use]
    pub fn removed(&self) -> Vec<usize> {
        let mut kept = self.kept.iter().copied().peekable();
        (0..self.width).filter(|c| kept.next_if_eq(c).is_none()).collect()
    }
}

/// Number of channels that a keep rate leaves: floor(C·r), as `int(C * r)` in the authors' code.
///
/// A guard of 1e-9 keeps products such as 0.7·10 = 6.999… from losing a channel to rounding.
///
/// # Errors
/// If `rate` is not in (0, 1], or nothing would be left; the message names `layer`.
pub fn kept_channels(layer: &str, channels: usize, rate: f64) -> Result<usize, GraphError> {
    if !(rate > 0.0 && rate <= 1.0) {
        return Err(GraphError::KeepRate(rate));
    }
    let kept = (channels as f64 * rate + 1e-9).floor() as usize;
    if kept == 0 {
        return Err(GraphError::NothingKept { layer: layer.to_owned(), channels, rate });
    }
    Ok(kept)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_keep_rate_leaves_floor_c_r() {
        for (channels, rate, kept) in [
            (64, 0.5, 32),
            (64, 0.3, 19),
            (128, 0.3, 38),
            (512, 0.1, 51),
            (10, 0.7, 7),
            (64, 1.0, 64),
            (3, 0.34, 1),
        ] {
            assert_eq!(kept_channels("conv", channels, rate), Ok(kept), "{channels} at {rate}");
        }
    }

    #[test]
    fn rounding_of_the_product_never_loses_a_channel() {
        for tenths in 1..=10 {
            for channels in 10..=2048 {
                assert_eq!(kept_channels("conv", channels, tenths as f64 / 10.0), Ok(channels * tenths / 10));
            }
        }
    }

    #[test]
    fn a_rate_that_leaves_nothing_names_the_layer() {
        let error = kept_channels("conv1_1", 8, 0.1).unwrap_err().to_string();
        assert_eq!(error, r#"keep rate 0.1 leaves no channel of the 8 in layer "conv1_1" (floor(C·r) = 0)"#);
    }

    #[test]
    fn rates_outside_0_to_1_are_refused() {
        for rate in [0.0, -0.5, 1.0 + f64::EPSILON, f64::INFINITY, f64::NAN] {
            assert!(matches!(kept_channels("conv", 64, rate), Err(GraphError::KeepRate(_))), "{rate}");
        }
    }

    #[test]
    fn a_channel_set_is_ascending_in_range_and_not_empty() {
        for (kept, problem) in [
            (vec![], "kept channels are empty"),
            (vec![2, 1], "kept channels are not strictly ascending: 2 before 1"),
            (vec![1, 1], "kept channels are not strictly ascending: 1 before 1"),
            (vec![0, 4], "kept channels name 4, the layer has 4"),
        ] {
            assert_eq!(ChannelSet::new(4, kept).unwrap_err().to_string(), problem);
        }
        assert!(ChannelSet::all(0).is_err());
    }

    #[test]
    fn json_is_checked_like_any_other_set() {
        let set = ChannelSet::new(4, vec![0, 3]).unwrap();
        let json = serde_json::to_string(&set).unwrap();
        assert_eq!(json, r#"{"width":4,"kept":[0,3]}"#);
        assert_eq!(serde_json::from_str::<ChannelSet>(&json).unwrap(), set);
        assert!(serde_json::from_str::<ChannelSet>(r#"{"width":3,"kept":[0,3]}"#).is_err());
    }

    proptest! {
        #[test]
        fn kept_and_removed_part_the_channels(mask in proptest::collection::vec(any::<bool>(), 1..40)) {
            let kept: Vec<usize> = (0..mask.len()).filter(|&c| mask[c]).collect();
            let gone: Vec<usize> = (0..mask.len()).filter(|&c| !mask[c]).collect();
            match ChannelSet::new(mask.len(), kept.clone()) {
                Ok(set) => {
                    prop_assert_eq!(set.removed(), gone);
                    prop_assert_eq!(set.len(), kept.len());
                    prop_assert_eq!(set.is_all(), kept.len() == mask.len());
                }
                Err(_) => prop_assert!(kept.is_empty()),
            }
        }
    }
}
