//! Hardware and libraries that can change the bits of results: the instruction set of libtorch's kernels; a GPU, its
//! driver and libraries.

#![allow(unsafe_code, reason = "calls into switches.cpp, whose functions fill a byte buffer")]

use std::ffi::c_int;

use serde::{Deserialize, Serialize};
use tch::Cuda;

use crate::Device;

unsafe extern "C" {
    fn thinet_cpu_capability(to: *mut u8, capacity: i64) -> i64;
    fn thinet_gpu_name(index: c_int, to: *mut u8, capacity: i64) -> i64;
}

/// A GPU with its driver and libraries; `None` where a value cannot be determined.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Gpu {
    /// Its model, such as `NVIDIA H100 80GB HBM3`.
    pub model: Option<String>,
    pub driver: Option<String>,
    /// Version of the CUDA runtime that libtorch uses.
    pub cuda: Option<String>,
    pub cudnn: Option<String>,
}

/// The instruction set of libtorch's own kernels in this process (`AVX2`, `AVX512`, `DEFAULT`), which it chooses by the
/// processor and the variable `ATEN_CPU_CAPABILITY`.
#[must_use]
pub fn cpu_capability() -> Option<String> {
    // SAFETY: at most as many bytes are written as `text` says the buffer has.
    text(&|to, capacity| unsafe { thinet_cpu_capability(to, capacity) })
}

/// Describes the GPU; `None` for the CPU.
#[must_use]
pub fn gpu(device: Device) -> Option<Gpu> {
    let Device::Cuda(index) = device else { return None };
    let index = c_int::try_from(index).ok()?;
    // SAFETY: as above.
    let model = text(&|to, capacity| unsafe { thinet_gpu_name(index, to, capacity) });
    let driver = std::fs::read_to_string("/sys/module/nvidia/version").ok();
    let driver = driver.map(|version| version.trim().to_owned()).or_else(|| {
        let text = std::fs::read_to_string("/proc/driver/nvidia/version").ok()?;
        driver_version(&text).map(str::to_owned)
    });
    // libtorch throws where it was built without them.
    let has_cuda = Cuda::is_available();
    let cuda = has_cuda.then(tch::utils::version_cudart).map(cuda_version);
    let has_cudnn = has_cuda && Cuda::cudnn_is_available();
    let cudnn = has_cudnn.then(tch::utils::version_cudnn).map(cudnn_version);
    Some(Gpu { model, driver, cuda, cudnn })
}

/// Text whose length is known only after the call.
fn text(fill: &dyn Fn(*mut u8, i64) -> i64) -> Option<String> {
    let mut bytes = vec![0; 256];
    let length = usize::try_from(fill(bytes.as_mut_ptr(), 256)).ok()?;
    // A name that does not fit was not written.
    bytes.get(..length).map(|text| String::from_utf8_lossy(text).into_owned())
}

/// The version in the first line of the kernel module's own description.
fn driver_version(text: &str) -> Option<&str> {
    let is_version = |word: &&str| word.contains('.') && word.chars().all(|c| c.is_ascii_digit() || c == '.');
    text.lines().next()?.split_whitespace().find(is_version)
}

/// 12080 is 12.8.
fn cuda_version(number: i64) -> String {
    format!("{}.{}", number / 1000, number % 1000 / 10)
}

/// 91002 is 9.10.2; before version 9 the first number had one digit less behind it.
fn cudnn_version(number: i64) -> String {
    let major = if number >= 90_000 { 10_000 } else { 1000 };
    format!("{}.{}.{}", number / major, number % major / 100, number % 100)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_formatted_as_usual() {
        assert_eq!((cuda_version(12_080), cuda_version(11_080)), ("12.8".into(), "11.8".into()));
        assert_eq!((cudnn_version(91_002), cudnn_version(8902)), ("9.10.2".into(), "8.9.2".into()));
        let line =
            "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar  5 22:23:56 UTC 2024\nGCC";
        assert_eq!(driver_version(line), Some("550.54.15"));
        assert_eq!(driver_version(""), None);
    }

    #[test]
    fn the_instruction_set_is_one_of_libtorchs_and_a_cpu_is_no_gpu() {
        let here = cpu_capability().unwrap();
        assert!(!here.is_empty() && here.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'), "{here:?}");
        assert_eq!(gpu(Device::Cpu), None);
    }

    #[test]
    fn text_that_does_not_fit_or_is_unavailable_is_none() {
        assert_eq!(text(&|_, _| -1), None);
        assert_eq!(text(&|_, capacity| capacity + 1), None);
        assert_eq!(text(&|_, _| 0), Some(String::new()));
    }
}
