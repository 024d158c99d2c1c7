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
            kept.last().filter(|&&last| last >= width).map(|last| format!("name {last}, the layer has {width}"))
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
