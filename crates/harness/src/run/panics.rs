//! Panics as errors: where the program has a fault, its message reaches console, log and the note on the stage.

use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind};
use std::sync::{Mutex, PoisonError};

use crate::error::HarnessError;

/// The first panic since the last one that was caught, whichever thread it was in.
static FIRST: Mutex<Option<String>> = Mutex::new(None);

/// Keeps the place of panics from now on, so that errors can tell it. They are printed as before.
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

/// Does `work`; a panic in it is an error.
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
