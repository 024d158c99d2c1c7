//! Copies from the program's memory to a GPU while the GPU computes: page-locked memory, a stream of their own, and marks that bound
//! how far the program runs ahead. On a CPU nothing is copied.

#![allow(
    unsafe_code,
    reason = "calls into switches.cpp with pointers to tensors, streams and marks that outlive them"
)]

use std::ffi::{c_char, c_int, c_void};
use std::fmt;
use std::ptr::NonNull;

use tch::{Kind, Tensor};

use crate::error::Context;
use crate::reason::Reason;
use crate::{Device, ModelError};

unsafe extern "C" {
    fn thinet_bytes(length: i64, pinned: c_int, reason: *mut c_char, capacity: i64) -> *mut c_void;
    fn thinet_new_stream(index: c_int, reason: *mut c_char, capacity: i64) -> *mut c_void;
    fn thinet_free_stream(stream: *mut c_void);
    fn thinet_copy_on(
        stream: *const c_void,
        from: *const c_void,
        reason: *mut c_char,
        capacity: i64,
    ) -> *mut c_void;
    fn thinet_new_mark(index: c_int, reason: *mut c_char, capacity: i64) -> *mut c_void;
    fn thinet_wait_for(mark: *const c_void, reason: *mut c_char, capacity: i64) -> i64;
    fn thinet_free_mark(mark: *mut c_void);
}

/// Memory for bytes that go to a device. For a GPU it is page-locked: copies from it need no thread and run while the GPU computes.
/// libtorch keeps such memory and gives it out again once the copies from it are done.
#[derive(Debug)]
pub struct UploadBytes(Tensor);

impl UploadBytes {
    /// `length` bytes with any values.
    ///
    /// # Errors
    /// If there is not enough memory, or no GPU.
    pub fn new(device: Device, length: usize) -> Result<Self, ModelError> {
        let mut reason = Reason::new();
        // A length beyond libtorch's integer is refused by it.
        let length = i64::try_from(length).unwrap_or(i64::MAX);
        // SAFETY: at most `CAPACITY` bytes are written to `reason`.
        let found =
            unsafe { thinet_bytes(length, c_int::from(device.is_gpu()), reason.to(), Reason::CAPACITY) };
        let bytes = owned(found, &reason, || format!("{length} bytes of memory for images"))?;
        Ok(Self(bytes))
    }

    /// The bytes, `[length]`.
    pub fn tensor(&self) -> &Tensor {
        &self.0
    }
}

impl AsMut<[u8]> for UploadBytes {
    fn as_mut(&mut self) -> &mut [u8] {
        // A tensor without values has no memory to point to.
        if self.0.numel() == 0 {
            return &mut [];
        }
        // SAFETY: the tensor is contiguous, of bytes, on the CPU, and nothing else writes to it while it is borrowed: `tensor` hands
        // out shared references only, and copies from it are asked for through those.
        unsafe { std::slice::from_raw_parts_mut(self.0.data_ptr().cast(), self.0.numel()) }
    }
}

/// A tensor that `switches.cpp` made, or its reason for making none.
fn owned(
    found: *mut c_void,
    reason: &Reason,
    context: impl FnOnce() -> String,
) -> Result<Tensor, ModelError> {
    match found.is_null() {
        true => Err(reason.error()).context(context),
        // SAFETY: `switches.cpp` allocated the tensor for this call; the value takes it over.
        false => Ok(unsafe { Tensor::from_ptr(found.cast()) }),
    }
}

/// Copies tensors to a device, to a GPU on a stream of its own: a copy runs while the GPU computes what it was asked for before, and
/// what it is asked for later waits for the copy.
pub struct Uploader {
    /// `None` on a CPU.
    stream: Option<NonNull<c_void>>,
}

// SAFETY: a stream of libtorch is a number; its functions lock where they must.
unsafe impl Send for Uploader {}
// SAFETY: as above.
unsafe impl Sync for Uploader {}

impl Uploader {
    /// # Errors
    /// If there is no such GPU.
    pub fn new(device: Device) -> Result<Self, ModelError> {
        let Device::Cuda(index) = device else { return Ok(Self { stream: None }) };
        let mut reason = Reason::new();
        // SAFETY: at most `CAPACITY` bytes are written to `reason`.
        let stream = unsafe { thinet_new_stream(number(index), reason.to(), Reason::CAPACITY) };
        match NonNull::new(stream) {
            None => Err(reason.error()).context(|| format!("a stream for copies to {device}")),
            stream => Ok(Self { stream }),
        }
    }

    /// The tensor on the device; the same storage on a CPU. To a GPU the copy is only begun: a tensor in pinned memory must not be
    /// written to afterwards, but may be dropped.
    ///
    /// # Errors
    /// If the device has not enough memory, or an earlier operation on it failed.
    pub fn upload(&self, tensor: &Tensor) -> Result<Tensor, ModelError> {
        let Some(stream) = self.stream else { return Ok(tensor.shallow_clone()) };
        let mut reason = Reason::new();
        // SAFETY: the stream belongs to `self`, the tensor outlives the call, and at most `CAPACITY` bytes are written to `reason`.
        let found =
            unsafe { thinet_copy_on(stream.as_ptr(), tensor.as_ptr().cast(), reason.to(), Reason::CAPACITY) };
        owned(found, &reason, || format!("copy of a batch, {:?}, to the GPU", tensor.size()))
    }

    /// Integers on the device, `[values.len()]`.
    ///
    /// # Errors
    /// As [`Uploader::upload`].
    pub fn integers(&self, values: &[i64], device: Device) -> Result<Tensor, ModelError> {
        let mut bytes = UploadBytes::new(device, size_of_val(values))?;
        for (to, value) in bytes.as_mut().chunks_exact_mut(size_of::<i64>()).zip(values) {
            to.copy_from_slice(&value.to_ne_bytes());
        }
        let integers =
            bytes.tensor().f_view_dtype(Kind::Int64).context(|| "a list of integers".to_owned())?;
        self.upload(&integers)
    }
}

impl Drop for Uploader {
    fn drop(&mut self) {
        if let Some(stream) = self.stream {
            // SAFETY: the stream was made for this value and is not used again.
            unsafe { thinet_free_stream(stream.as_ptr()) };
        }
    }
}

impl fmt::Debug for Uploader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Uploader").field("has_stream", &self.stream.is_some()).finish()
    }
}

/// A mark in the work that a device has been asked for. A CPU has done all of it already.
#[derive(Debug)]
pub struct Mark(Option<NonNull<c_void>>);

impl Mark {
    /// Marks what the device has been asked for so far.
    ///
    /// # Errors
    /// If there is no such GPU, or an earlier operation on it failed.
    pub fn now(device: Device) -> Result<Self, ModelError> {
        let Device::Cuda(index) = device else { return Ok(Self(None)) };
        let mut reason = Reason::new();
        // SAFETY: at most `CAPACITY` bytes are written to `reason`.
        let mark = unsafe { thinet_new_mark(number(index), reason.to(), Reason::CAPACITY) };
        match NonNull::new(mark) {
            None => Err(reason.error()).context(|| format!("a mark in the work of {device}")),
            mark => Ok(Self(mark)),
        }
    }

    /// Waits until the device has done what was asked for before the mark.
    ///
    /// # Errors
    /// If an operation on the device failed.
    pub fn wait(&self) -> Result<(), ModelError> {
        let Some(mark) = self.0 else { return Ok(()) };
        let mut reason = Reason::new();
        // SAFETY: the mark belongs to `self`, and at most `CAPACITY` bytes are written to `reason`.
        let length = unsafe { thinet_wait_for(mark.as_ptr(), reason.to(), Reason::CAPACITY) };
        match length {
            0 => Ok(()),
            _ => Err(reason.error()).context(|| "waiting for the GPU".to_owned()),
        }
    }
}

impl Drop for Mark {
    fn drop(&mut self) {
        if let Some(mark) = self.0 {
            // SAFETY: the mark was made for this value and is not used again.
            unsafe { thinet_free_mark(mark.as_ptr()) };
        }
    }
}

/// An index that is no 32-bit integer belongs to no GPU.
fn number(index: usize) -> c_int {
    c_int::try_from(index).unwrap_or(c_int::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn on_a_cpu_bytes_and_integers_arrive_without_a_copy() {
        let mut bytes = UploadBytes::new(Device::Cpu, 6).unwrap();
        bytes.as_mut().copy_from_slice(&[0, 1, 127, 128, 254, 255]);
        let uploader = Uploader::new(Device::Cpu).unwrap();
        let there = uploader.upload(bytes.tensor()).unwrap();
        assert_eq!(there.data_ptr(), bytes.tensor().data_ptr());
        assert_eq!((there.kind(), there.size()), (Kind::Uint8, vec![6]));
        let values = Vec::<i64>::try_from(there.to_kind(Kind::Int64)).unwrap();
        assert_eq!(values, [0, 1, 127, 128, 254, 255]);

        let integers = uploader.integers(&[i64::MIN, -1, 0, 7, i64::MAX], Device::Cpu).unwrap();
        assert_eq!(Vec::<i64>::try_from(&integers).unwrap(), [i64::MIN, -1, 0, 7, i64::MAX]);
        assert_eq!(uploader.integers(&[], Device::Cpu).unwrap().numel(), 0);
        Mark::now(Device::Cpu).unwrap().wait().unwrap();
    }

    #[test]
    fn memory_that_cannot_be_had_is_an_error() {
        let error = UploadBytes::new(Device::Cpu, 1 << 60).unwrap_err().to_string();
        assert!(error.starts_with("1152921504606846976 bytes of memory for images: "), "{error}");
    }

    #[test]
    fn a_gpu_that_is_not_there_is_an_error_and_no_crash() {
        if tch::Cuda::is_available() {
            return;
        }
        let gpu = Device::Cuda(0);
        let says = |error: ModelError| error.to_string();
        let stream = says(Uploader::new(gpu).unwrap_err());
        assert!(stream.starts_with("a stream for copies to cuda:0: libtorch: "), "{stream}");
        let mark = says(Mark::now(gpu).unwrap_err());
        assert!(mark.starts_with("a mark in the work of cuda:0: libtorch: "), "{mark}");
        let bytes = says(UploadBytes::new(gpu, 4).unwrap_err());
        assert!(bytes.starts_with("4 bytes of memory for images: libtorch: "), "{bytes}");
    }
}
