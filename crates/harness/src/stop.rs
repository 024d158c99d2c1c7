//! Cooperative stop flag, checked between batches.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::HarnessError;

/// A stop flag shared by all work on a study. Once it is set, work ends at the next batch with a checkpoint.
#[derive(Clone, Debug, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    /// The flag itself, for a signal handler.
    #[must_use]
    pub fn flag(&self) -> Arc<AtomicBool> {
        self.0.clone()
    }

    /// Asks all work to end.
    pub fn set(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    /// Whether work was asked to end.
    #[must_use]
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }

    /// Returns [`HarnessError::Stopped`] once work was asked to end.
    pub(crate) fn check(&self) -> Result<(), HarnessError> {
        if self.is_set() { Err(HarnessError::Stopped) } else { Ok(()) }
    }
}
