//! Options of a run: workers, checkpoints, claims. None of them changes a result.

use std::time::Duration;

use super::workers::WorkerCommand;
use crate::stop::Stop;

/// Options of a run; none of them changes a result.
#[derive(Clone, Debug)]
pub struct RunOptions {
    /// The command of each worker; as many stages run at a time. Empty: all stages run in this process.
    pub workers: Vec<WorkerCommand>,
    /// Processes of the run on this machine, which share its cores.
    pub processes: usize,
    /// Minimum time between two checkpoints of a training; longer if writing would take more than a hundredth of the time. Zero:
    /// after every step.
    pub checkpoint_every: Duration,
    /// Time after which an unchanged claim of another machine expires. File systems of clusters can show a change half a minute
    /// late.
    pub claim_expiry: Duration,
    /// Whether to compare the checksums of all stored files first; those of files that are read are always compared.
    pub check: bool,
    /// Whether programs that the spec names as selectors may be run.
    pub allow_commands: bool,
    /// Whether the first failure ends the run: no further stage starts, and those that run save their state and stop.
    pub fail_fast: bool,
    /// Asks the run to end.
    pub stop: Stop,
}

impl Default for RunOptions {
    fn default() -> Self {
        Self {
            workers: Vec::new(),
            processes: 1,
            checkpoint_every: Duration::from_secs(15),
            claim_expiry: Duration::from_secs(90),
            check: false,
            allow_commands: false,
            fail_fast: false,
            stop: Stop::default(),
        }
    }
}
