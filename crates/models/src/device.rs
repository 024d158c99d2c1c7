//! Where and how libtorch computes: device names, compute threads, and the seed of its own generator.

use tch::{Cuda, Device};
use thinet_seed::Seed;

use crate::ModelError;

/// The device of a name: `cpu`, `cuda` (the first GPU) or `cuda:<index>`.
///
/// # Errors
/// If the name is none of these, or there is no such GPU.
pub fn parse_device(name: &str) -> Result<Device, ModelError> {
    let bad = |problem: String| Err(ModelError::Device { device: name.to_owned(), problem });
    let index = match name {
        "cpu" => return Ok(Device::Cpu),
        "cuda" => Some(0),
        other => other.strip_prefix("cuda:").and_then(|index| index.parse::<usize>().ok()),
    };
    let Some(index) = index else {
        return bad("is not a device; allowed: cpu, cuda, cuda:<index>".into());
    };
    if !Cuda::is_available() {
        return bad("is not available: libtorch finds no CUDA device here; use cpu".into());
    }
    let found = usize::try_from(Cuda::device_count()).unwrap_or(0);
    if index >= found {
        return bad(format!("is not available: libtorch finds {found} CUDA devices, numbered from 0"));
    }
    Ok(Device::Cuda(index))
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
    fn device_names_are_checked() {
        assert_eq!(parse_device("cpu").unwrap(), Device::Cpu);
        for name in ["", "gpu", "CPU", "cuda:", "cuda:-1", "cuda:x"] {
            let message = parse_device(name).unwrap_err().to_string();
            assert!(message.contains(&format!("{name:?}")) && message.contains("cuda:<index>"), "{message}");
        }
    }

    #[test]
    fn a_gpu_that_is_not_there_is_refused() {
        let message = parse_device("cuda:4096").unwrap_err().to_string();
        assert!(message.contains("\"cuda:4096\" is not available"), "{message}");
        assert_eq!(parse_device("cuda").is_ok(), Cuda::is_available());
    }

    #[test]
    fn zero_threads_are_refused() {
        let message = set_compute_threads(0).unwrap_err().to_string();
        assert_eq!(message, "compute-threads is 0, it must be 1 or more");
    }
}
