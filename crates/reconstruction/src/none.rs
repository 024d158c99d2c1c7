//! No refit: the next layer keeps its weights ("ThiNet w/o w").

use thinet_graph::ChannelSet;
use thinet_selectors::Moments;

use crate::{Reconstructor, RefitError, RefitInput};

/// Leaves the kept channels as they are.
pub(crate) struct NoRefit;

impl Reconstructor for NoRefit {
    fn name(&self) -> &'static str {
        "none"
    }

    fn about(&self) -> &'static str {
        "leaves the next layer's weights as they are (ThiNet w/o w)"
    }

    fn reads(&self) -> RefitInput {
        RefitInput::Nothing
    }

    fn refit(&self, _moments: Option<&Moments>, kept: &ChannelSet) -> Result<Vec<f64>, RefitError> {
        Ok(vec![1.0; kept.len()])
    }
}
