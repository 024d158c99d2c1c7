//! Switches of libtorch that change bits and speed: bfloat16 autocast, TF32, deterministic algorithms; the state of its
//! random generators; and the peak of a GPU's memory. The bindings lack them, so `switches.cpp` implements
//! them in C++.

#![allow(
    unsafe_code,
    reason = "calls into switches.cpp, whose functions take plain integers and byte buffers"
)]

use std::ffi::{CString, c_char, c_int};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Device, ModelError};

unsafe extern "C" {
    safe fn thinet_enter_autocast(cuda: c_int) -> c_int;
    safe fn thinet_leave_autocast(cuda: c_int) -> c_int;
    safe fn thinet_set_tf32(allowed: c_int) -> c_int;
    safe fn thinet_tf32() -> c_int;
    safe fn thinet_set_deterministic(required: c_int) -> c_int;
    fn thinet_set_variable(name: *const c_char, value: *const c_char) -> c_int;
    safe fn thinet_peak_gpu_bytes(index: c_int, reset: c_int) -> i64;
    fn thinet_generator_state(cuda: c_int, to: *mut u8, capacity: i64) -> i64;
    fn thinet_set_generator_state(cuda: c_int, from: *const u8, length: i64) -> c_int;
}

/// The type in which convolutions and linear layers compute.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Precision {
    /// 32-bit floats.
    #[default]
    F32,
    /// bfloat16 where libtorch's autocast chooses it; weights, their gradients and the loss stay 32-bit floats.
    Bf16,
}

/// Guard of autocast, which ends when it is dropped.
#[derive(Debug)]
pub struct Autocast {
    cuda: Option<c_int>,
}

impl Precision {
    /// Computes in this type on this device until the guard is dropped. Gradients are taken outside.
    ///
    /// # Errors
    /// If libtorch refuses.
    #[must_use = "autocast ends when the guard is dropped"]
    pub fn enter(self, device: tch::Device) -> Result<Autocast, ModelError> {
        if self == Self::F32 {
            return Ok(Autocast { cuda: None });
        }
        let cuda = c_int::from(device.is_cuda());
        done(thinet_enter_autocast(cuda), "autocast")?;
        Ok(Autocast { cuda: Some(cuda) })
    }
}

impl Drop for Autocast {
    fn drop(&mut self) {
        if let Some(cuda) = self.cuda {
            // A destructor cannot return an error; switching off does not fail.
            let _ = thinet_leave_autocast(cuda);
        }
    }
}

/// Lets a GPU round the factors of 32-bit products to TF32, or forbids it (libtorch's own default lets cuDNN do it).
///
/// # Errors
/// If libtorch refuses.
pub fn set_tf32(allowed: bool) -> Result<(), ModelError> {
    done(thinet_set_tf32(c_int::from(allowed)), "compute.tf32")
}

/// Whether a GPU may round the factors of 32-bit convolutions or matrix products to TF32.
#[must_use]
pub fn is_tf32_allowed() -> bool {
    // A failed query counts as allowed.
    thinet_tf32() != 0
}

/// The environment variable for cuBLAS's workspace, and the value that this program sets.
const CUBLAS: (&str, &str) = ("CUBLAS_WORKSPACE_CONFIG", ":4096:8");

/// Makes libtorch use algorithms that give the same bits every time, or an error where there is none.
///
/// For a GPU it also gives cuBLAS a workspace of its own for each stream (`CUBLAS_WORKSPACE_CONFIG=:4096:8`), without which
/// its sums have no fixed order. cuBLAS reads it at its first product, so this comes before the first one.
///
/// # Errors
/// If libtorch refuses, or the variable has a value under which cuBLAS is not deterministic.
pub fn set_deterministic(required: bool, device: Device) -> Result<(), ModelError> {
    if required && device.is_gpu() {
        let asked = std::env::var(CUBLAS.0).ok();
        if let Some(value) = cublas_workspace(asked.as_deref())? {
            let (name, value) = (c_text(CUBLAS.0), c_text(value));
            // SAFETY: both are ended by a zero and outlive the call, which copies them.
            let code = unsafe { thinet_set_variable(name.as_ptr(), value.as_ptr()) };
            done(code, CUBLAS.0)?;
        }
    }
    done(thinet_set_deterministic(c_int::from(required)), "compute.deterministic")
}

/// The value to set the variable to; `None` if the user has set one of the two deterministic values.
fn cublas_workspace(asked: Option<&str>) -> Result<Option<&'static str>, ModelError> {
    match asked {
        None | Some("") => Ok(Some(CUBLAS.1)),
        Some(":4096:8" | ":16:8") => Ok(None),
        Some(other) => Err(ModelError::BadSetting {
            key: CUBLAS.0,
            problem: format!(
                "is {other:?} in the environment, with which cuBLAS is not deterministic, and the spec asks for \
                 compute.deterministic; unset it, or set :4096:8 or :16:8"
            ),
        }),
    }
}

fn c_text(text: &str) -> CString {
    // Neither the name nor the values hold a zero.
    CString::new(text).unwrap_or_default()
}

/// Most bytes that tensors held on a GPU at one time since the last call with `reset`; `None` on a CPU.
#[must_use]
pub fn peak_gpu_bytes(device: Device, reset: bool) -> Option<u64> {
    let Device::Cuda(index) = device else { return None };
    let index = c_int::try_from(index).ok()?;
    u64::try_from(thinet_peak_gpu_bytes(index, c_int::from(reset))).ok()
}

/// The state of libtorch's default generator of a device, which dropout draws from.
///
/// # Errors
/// If the device has none.
pub fn generator_state(device: Device) -> Result<Vec<u8>, ModelError> {
    let refused = || ModelError::BadSetting {
        key: "random generator",
        problem: format!("the state of {device:?}'s cannot be read"),
    };
    let mut state = Vec::new();
    loop {
        let capacity = i64::try_from(state.len()).map_err(|_| refused())?;
        // SAFETY: at most `capacity` bytes are written, which `state` has.
        let length = unsafe { thinet_generator_state(index_of(device), state.as_mut_ptr(), capacity) };
        let length = usize::try_from(length).map_err(|_| refused())?;
        if length == state.len() {
            return Ok(state);
        }
        state.resize(length, 0);
    }
}

/// Puts the default generator of a device back to a state.
///
/// # Errors
/// If libtorch does not accept it as a state.
pub fn set_generator_state(device: Device, state: &[u8]) -> Result<(), ModelError> {
    // SAFETY: as many bytes are read as the slice has.
    let code = unsafe { thinet_set_generator_state(index_of(device), state.as_ptr(), state.len() as i64) };
    done(code, "random generator")
}

/// -1 for the CPU.
fn index_of(device: Device) -> c_int {
    match device {
        Device::Cuda(index) => c_int::try_from(index).unwrap_or(0),
        Device::Cpu => -1,
    }
}

fn done(code: c_int, key: &'static str) -> Result<(), ModelError> {
    if code == 0 {
        return Ok(());
    }
    Err(ModelError::BadSetting { key, problem: "cannot be set: libtorch refused".into() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Kind, Tensor};

    #[test]
    fn autocast_computes_in_bfloat16_and_ends_with_its_guard() {
        let a = Tensor::ones([4, 4], (Kind::Float, tch::Device::Cpu));
        let kind = || a.linear(&a, None::<&Tensor>).kind();
        assert_eq!(kind(), Kind::Float);
        {
            let _guard = Precision::Bf16.enter(tch::Device::Cpu).unwrap();
            assert_eq!(kind(), Kind::BFloat16);
        }
        assert_eq!(kind(), Kind::Float);
        let _guard = Precision::F32.enter(tch::Device::Cpu).unwrap();
        assert_eq!(kind(), Kind::Float);
    }

    #[test]
    fn cached_copies_of_weights_do_not_outlive_a_pass() {
        let mut weight = Tensor::ones([2, 2], (Kind::Float, tch::Device::Cpu)).set_requires_grad(true);
        let x = Tensor::ones([1, 2], (Kind::Float, tch::Device::Cpu));
        let run = |weight: &Tensor| {
            let _guard = Precision::Bf16.enter(tch::Device::Cpu).unwrap();
            x.linear(weight, None::<&Tensor>).to_kind(Kind::Float).double_value(&[0, 0])
        };
        assert_eq!(run(&weight), 2.0);
        tch::no_grad(|| drop(weight.fill_(3.0)));
        assert_eq!(run(&weight), 6.0);
    }

    #[test]
    fn a_generator_put_back_draws_the_same_again() {
        // Other tests draw from the same generator; so this repeats until none interferes.
        let draw = || Vec::<f32>::try_from(Tensor::rand([5], (Kind::Float, tch::Device::Cpu))).unwrap();
        let repeats = (0..100).any(|_| {
            let state = generator_state(Device::Cpu).unwrap();
            let first = draw();
            set_generator_state(Device::Cpu, &state).unwrap();
            first == draw()
        });
        assert!(repeats);
        assert!(set_generator_state(Device::Cpu, &[1, 2, 3]).is_err());
    }

    #[test]
    fn switches_are_accepted_on_a_cpu() {
        set_tf32(true).unwrap();
        assert!(is_tf32_allowed());
        set_tf32(false).unwrap();
        assert!(!is_tf32_allowed());
        set_deterministic(true, Device::Cpu).unwrap();
        set_deterministic(false, Device::Cpu).unwrap();
        assert_eq!(peak_gpu_bytes(Device::Cpu, true), None);
    }

    #[test]
    fn a_workspace_with_which_cublas_is_not_deterministic_is_refused_by_name() {
        assert_eq!(cublas_workspace(None).unwrap(), Some(":4096:8"));
        assert_eq!(cublas_workspace(Some("")).unwrap(), Some(":4096:8"));
        for good in [":4096:8", ":16:8"] {
            assert_eq!(cublas_workspace(Some(good)).unwrap(), None);
        }
        let error = cublas_workspace(Some(":0:0")).unwrap_err().to_string();
        assert!(error.contains("CUBLAS_WORKSPACE_CONFIG") && error.contains(":4096:8"), "{error}");
    }

    #[test]
    fn deterministic_algorithms_on_a_gpu_set_the_workspace_of_cublas() {
        // What is set does not depend on a GPU being here; the variable is this test's alone.
        if std::env::var_os(CUBLAS.0).is_none() {
            set_deterministic(true, Device::Cuda(0)).unwrap();
            assert_eq!(std::env::var(CUBLAS.0).as_deref(), Ok(":4096:8"));
            set_deterministic(true, Device::Cuda(0)).unwrap();
            set_deterministic(false, Device::Cpu).unwrap();
        }
    }
}
