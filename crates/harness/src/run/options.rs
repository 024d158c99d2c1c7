//! How a plan is run: workers, checkpoints, claims. None of it changes a result.

use std::time::Duration;

use super::workers::WorkerCommand;
use crate::stop::Stop;

/// How a plan is run; none of it changes a result.
#[derive(Clone, Debug)]
pub struct RunOptions {
    /// How to start each worker; as many stages are made at a time. None: everything is done in this process.
    pub workers: Vec<WorkerCommand>,
    /// A training keeps its state this often, less often if writing would take more than a hundredth of the time; zero: after
    /// every step.
    pub checkpoint_every: Duration,
    /// How long the claim of another machine may stay unchanged until its holder counts as gone. File systems of clusters may
    /// show a change half a minute late.
    pub claim_expiry: Duration,
    /// Whether the checksums of all stored files are compared first; those that are read always are.
    pub check: bool,
    /// Asks the run to end.
    pub stop: Stop,
}

impl Default for RunOptions {
    fn default() -> Self {
        Self {
            workers: Vec::new(),
            checkpoint_every: Duration::from_secs(15),
            claim_expiry: Duration::from_secs(90),
            check: false,
            stop: Stop::default(),
        }
    }
}
