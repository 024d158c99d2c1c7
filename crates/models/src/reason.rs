//! Why a function of `switches.cpp` failed: a buffer that it fills with libtorch's message.

use std::ffi::c_char;

use tch::TchError;

/// A buffer for a message.
pub(crate) struct Reason([u8; Self::CAPACITY as usize]);

impl Reason {
    /// Bytes of the buffer.
    pub(crate) const CAPACITY: i64 = 1000;

    pub(crate) fn new() -> Self {
        Self([0; Self::CAPACITY as usize])
    }

    /// Where the message goes.
    pub(crate) fn to(&mut self) -> *mut c_char {
        self.0.as_mut_ptr().cast()
    }

    /// The message as an error of libtorch.
    pub(crate) fn error(&self) -> TchError {
        let text = self.0.split(|&byte| byte == 0).next().unwrap_or_default();
        TchError::Torch(String::from_utf8_lossy(text).into_owned())
    }
}
