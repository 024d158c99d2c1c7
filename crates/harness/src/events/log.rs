//! The log of a run: its events as JSON lines with their times.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::error::HarnessError;
use crate::events::{Event, Reporter};

/// Wall-clock time for logs and curves. No result depends on it.
pub(crate) fn unix_seconds() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

/// Forwards events and appends all but progress to a file of JSON lines.
pub struct EventLog<'a> {
    path: PathBuf,
    file: Mutex<fs::File>,
    inner: &'a dyn Reporter,
}

impl<'a> EventLog<'a> {
    /// Opens the file for appending, creating it if it does not exist.
    ///
    /// # Errors
    /// If it cannot be opened.
    pub fn open(path: &Path, inner: &'a dyn Reporter) -> Result<Self, HarnessError> {
        let file = fs::File::options().create(true).append(true).open(path);
        let file = Mutex::new(file.map_err(HarnessError::io("open", path))?);
        Ok(Self { path: path.to_owned(), file, inner })
    }
}

impl Reporter for EventLog<'_> {
    fn event(&self, event: &Event) {
        self.inner.event(event);
        if matches!(event, Event::Progress { .. }) {
            return;
        }
        let line = serde_json::json!({ "unix-seconds": unix_seconds(), "what": event }).to_string() + "\n";
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        // A failed write to the log must not end the run. One call for each line, so that lines of several processes do not
        // interleave.
        if let Err(e) = file.write_all(line.as_bytes()) {
            let text = format!("cannot write {}: {e}", self.path.display());
            self.inner.event(&Event::Note { id: String::new(), text });
        }
    }
}
