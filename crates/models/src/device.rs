//! Where and how libtorch computes: devices, compute threads, and the seed of its own generator.

use std::fmt;
use std::str::FromStr;

use tch::{Cuda, Kind, TchError, Tensor};
use thinet_seed::Seed;

use crate::ModelError;
use crate::driver::{cuda_library, driver_facts, why_none, why_unusable};

/// A device to compute on: `cpu`, `cuda` (the first GPU) or `cuda:<index>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Device {
    Cpu,
    /// The GPU of this index, counted by CUDA from 0.
    Cuda(usize),
}

impl Device {
    #[must_use]
    pub fn is_gpu(self) -> bool {
        matches!(self, Self::Cuda(_))
    }

    /// Checks that libtorch finds the device on this machine.
    ///
    /// # Errors
    /// If it finds no GPU, or fewer than the index asks for.
    pub fn check_available(self) -> Result<(), ModelError> {
        let Self::Cuda(index) = self else { return Ok(()) };
        if !Cuda::is_available() {
            let problem = why_none(driver_facts(self), cuda_library());
            return Err(bad_device(&self.to_string(), problem));
        }
        let found = usize::try_from(Cuda::device_count()).unwrap_or(0);
        if index >= found {
            let problem = format!("is not available: libtorch finds {found} CUDA devices, numbered from 0");
            return Err(bad_device(&self.to_string(), problem));
        }
        Ok(())
    }

    /// Computes a little on the device, which takes it into use: a card that libtorch has no kernels for, or that another process has
    /// for itself, is found before any work.
    ///
    /// # Errors
    /// If that fails; says why in one line.
    pub fn check_usable(self) -> Result<(), ModelError> {
        self.check_available()?;
        let try_it = || -> Result<f64, TchError> {
            let two = Tensor::f_full([1], 2.0, (Kind::Float, self.into()))?;
            two.f_mul(&two)?.f_double_value(&[0])
        };
        match try_it() {
            Ok(4.0) => Ok(()),
            Ok(other) => Err(bad_device(&self.to_string(), format!("computes 2 × 2 = {other}"))),
            Err(error) => {
                Err(bad_device(&self.to_string(), why_unusable(driver_facts(self), &error.to_string())))
            }
        }
    }

    /// Waits until the device has done all work queued on it. A CPU has no queue.
    pub fn synchronize(self) {
        if let Self::Cuda(index) = self {
            Cuda::synchronize(index as i64);
        }
    }
}

/// Parses a name without looking for the device: see [`Device::check_available`]. That of a GPU loads libtorch's CUDA library.
impl FromStr for Device {
    type Err = ModelError;

    fn from_str(name: &str) -> Result<Self, ModelError> {
        let index = match name {
            "cpu" => return Ok(Self::Cpu),
            "cuda" => Some(0),
            other => other.strip_prefix("cuda:").and_then(|index| index.parse().ok()),
        };
        let Some(index) = index else {
            return Err(bad_device(name, "is not a device; allowed: cpu, cuda, cuda:<index>".into()));
        };
        cuda_library();
        Ok(Self::Cuda(index))
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => f.pad("cpu"),
            Self::Cuda(index) => f.pad(&format!("cuda:{index}")),
        }
    }
}

impl From<Device> for tch::Device {
    fn from(device: Device) -> Self {
        match device {
            Device::Cpu => Self::Cpu,
            Device::Cuda(index) => Self::Cuda(index),
        }
    }
}

fn bad_device(name: &str, problem: String) -> ModelError {
    ModelError::Device { device: name.to_owned(), problem }
}

/// Sets how many threads an operation of libtorch uses in this process.
///
/// Results are the same run after run at one number of threads and differ in the last bits at another.
///
/// # Errors
/// If `threads` is zero or does not fit libtorch's integer.
pub fn set_compute_threads(threads: usize) -> Result<(), ModelError> {
    match i32::try_from(threads) {
        Ok(count) if count > 0 => {
            tch::set_num_threads(count);
            Ok(())
        }
        _ => Err(ModelError::BadSetting {
            key: "compute-threads",
            problem: format!("is {threads}, it must be 1 or more"),
        }),
    }
}

/// Seeds libtorch's own generators, which only dropout draws from.
#[expect(clippy::disallowed_methods, reason = "the one place that seeds libtorch's generator")]
pub fn seed_torch(seed: Seed) {
    tch::manual_seed(seed.to_i64());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_names_are_parsed_and_printed() {
        for (name, device, printed) in [
            ("cpu", Device::Cpu, "cpu"),
            ("cuda", Device::Cuda(0), "cuda:0"),
            ("cuda:0", Device::Cuda(0), "cuda:0"),
            ("cuda:12", Device::Cuda(12), "cuda:12"),
        ] {
            assert_eq!(name.parse::<Device>().unwrap(), device);
            assert_eq!(device.to_string(), printed);
            assert_eq!(device.is_gpu(), name != "cpu");
        }
        for name in ["", "gpu", "CPU", "cuda:", "cuda:-1", "cuda:x", "cudax"] {
            let message = name.parse::<Device>().unwrap_err().to_string();
            assert!(message.contains(&format!("{name:?}")) && message.contains("cuda:<index>"), "{message}");
        }
    }

    #[test]
    fn a_gpu_that_is_not_there_is_refused() {
        Device::Cpu.check_available().unwrap();
        Device::Cpu.check_usable().unwrap();
        let message = Device::Cuda(4096).check_available().unwrap_err().to_string();
        assert!(message.contains("\"cuda:4096\" is not available"), "{message}");
        assert_eq!(Device::Cuda(0).check_available().is_ok(), Cuda::is_available());
        assert_eq!(Device::Cuda(4096).check_usable().unwrap_err().to_string(), message);
    }

    #[test]
    fn zero_threads_are_refused() {
        let message = set_compute_threads(0).unwrap_err().to_string();
        assert_eq!(message, "compute-threads is 0, it must be 1 or more");
    }
}
