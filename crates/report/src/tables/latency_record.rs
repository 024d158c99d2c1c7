//! Timings of the paper's models on one machine, and the id of the run that holds them.

use crate::records::{CpuIdentity, Environment};

/// Name of the table and of its files.
pub(super) const NAME: &str = "latency";

/// Timings on one machine with one batch size and number of threads.
#[derive(Clone, Debug, PartialEq)]
pub struct LatencyRecord {
    /// Device, processor, threads, versions.
    pub environment: Environment,
    /// The processor; on a GPU that of its host.
    pub cpu: CpuIdentity,
    /// Whether a GPU might round the factors of 32-bit products to TF32.
    pub tf32: bool,
    /// Images in a batch.
    pub batch: usize,
    /// Discarded timings of each model at the start.
    pub warm_up: usize,
    /// Measured timings of each model.
    pub repeats: usize,
    /// The timed models, in any order.
    pub models: Vec<ModelTimes>,
}

/// The timings of one model, milliseconds for a batch.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelTimes {
    /// Its name in [`paper_models`](thinet_nets::paper_models).
    pub model: String,
    /// Forward pass in evaluation mode, no gradients recorded.
    pub forward_ms: Vec<f64>,
    /// Forward pass in training mode, loss, and the gradients of all trained tensors.
    pub both_ms: Vec<f64>,
}

impl LatencyRecord {
    /// The run's id in files, see [`latency_run`].
    #[must_use]
    pub fn run(&self) -> String {
        let Environment { device, threads, libtorch, gpu, .. } = &self.environment;
        let card = gpu.as_ref().map(|gpu| gpu.model.clone().unwrap_or_default());
        let machine = Machine { cpu: self.cpu.clone(), libtorch: libtorch.clone(), card };
        latency_run(device, &machine, self.batch, *threads)
    }
}

/// The parts of a machine that times depend on.
#[derive(Clone, Debug, PartialEq)]
pub struct Machine {
    /// The processor; on a GPU that of its host.
    pub cpu: CpuIdentity,
    /// Version of libtorch.
    pub libtorch: String,
    /// Model of the GPU, empty if unknown; `None` if the device is the CPU.
    pub card: Option<String>,
}

/// The id of the run that times a batch on a device: `latency-cuda0-1f2e3d4c-b32-t8`. The eight digits are a hash of the processor (its
/// generation, instruction set and cores, not only its name), of libtorch and on a GPU of the model of the card, so that times of
/// different machines are kept apart. Tables of old versions have six digits for the name alone.
#[must_use]
pub fn latency_run(device: &str, machine: &Machine, batch: usize, threads: usize) -> String {
    let Machine { cpu, libtorch, card } = machine;
    let card = card.as_ref().map(|card| format!("|{card}")).unwrap_or_default();
    let machine = format!("{}|{libtorch}{card}", cpu.key());
    let machine = &blake3::hash(machine.as_bytes()).to_hex()[..8];
    format!("{NAME}-{}-{machine}-b{batch}-t{threads}", device.replace(':', ""))
}
