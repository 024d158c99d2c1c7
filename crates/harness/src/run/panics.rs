//! Panics as errors, so that their messages reach the console, the log and the stage's stored failure.

use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind};
use std::sync::{Mutex, PoisonError};

use crate::error::HarnessError;

/// The first panic since the last one that was caught, whichever thread it was in.
static FIRST: Mutex<Option<String>> = Mutex::new(None);

/// Installs a panic hook that keeps the location of the first panic for error messages, and still prints it.
pub fn keep_panics() {
    let print = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        FIRST.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(|| words(panic));
        print(panic);
    }));
}

fn words(panic: &PanicHookInfo<'_>) -> String {
    let place = panic.location().map(|place| format!(" at {}:{}", place.file(), place.line()));
    format!("panicked{}: {}", place.unwrap_or_default(), message(panic.payload()))
}

/// A panic's message.
fn message(payload: &(dyn std::any::Any + Send)) -> String {
    let text = payload.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| payload.downcast_ref::<&str>().copied()).unwrap_or("without a message").to_owned()
}

/// Calls `work` and turns a panic into an error.
pub(crate) fn caught<T>(work: impl FnOnce() -> Result<T, HarnessError>) -> Result<T, HarnessError> {
    FIRST.lock().unwrap_or_else(PoisonError::into_inner).take();
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|payload| {
        let kept = FIRST.lock().unwrap_or_else(PoisonError::into_inner).take();
        let message = kept.unwrap_or_else(|| format!("panicked: {}", message(&*payload)));
        Err(HarnessError::Panicked { message })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_an_error_with_its_message() {
        let error = caught::<()>(|| std::panic::panic_any("no luck".to_owned())).unwrap_err().to_string();
        assert!(error.contains("panicked") && error.contains(": no luck"), "{error}");
        assert_eq!(caught(|| Ok(3)).unwrap(), 3);
        assert!(matches!(caught::<()>(|| Err(HarnessError::Stopped)), Err(HarnessError::Stopped)));
    }
}
