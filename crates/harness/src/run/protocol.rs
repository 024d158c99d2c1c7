//! The protocol between a run and its worker processes, both ends.
//!
//! A worker reads lines on its standard input: [`RUN`] and the id of a stage, or [`STOP`]. It answers on its standard output with lines
//! of JSON, a [`WorkerMessage`] each. It ends when its input closes.

use std::io::{BufRead, Write};
use std::sync::mpsc::{Receiver, channel};

use serde::{Deserialize, Serialize};

use super::stage_runner::StageRunner;
use crate::error::HarnessError;
use crate::events::{Event, Reporter};
use crate::stop::Stop;

/// Precedes the id of a stage to compute.
const RUN: &str = "run ";
/// Asks a worker to store the state of its training and to end.
const STOP: &str = "stop";

/// A message of a worker.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum WorkerMessage {
    /// A stage has ended.
    Ended {
        /// The stage.
        ended: String,
        /// Why it failed, if it did.
        error: Option<String>,
        /// Whether it ended because it was asked to stop.
        stopped: bool,
        /// Whether it panicked; the worker then ends.
        #[serde(default)]
        panicked: bool,
    },
    /// An event during the work.
    Event(Event),
}

/// The parent's end: asks for a stage.
pub(crate) fn ask_for(worker: &mut impl Write, id: &str) -> std::io::Result<()> {
    writeln!(worker, "{RUN}{id}")
}

/// The parent's end: asks the worker to stop.
pub(crate) fn ask_to_stop(worker: &mut impl Write) -> std::io::Result<()> {
    writeln!(worker, "{STOP}")
}

/// The worker's end: reads requests on a thread of its own. Returns the ids of stages that are asked for; `stop` is set when the
/// parent asks to stop, and `closed` is called when the input closes, that is, when the parent is gone.
pub fn listen(
    input: impl BufRead + Send + 'static,
    stop: Stop,
    closed: impl FnOnce() + Send + 'static,
) -> Receiver<String> {
    let (ids, asked) = channel();
    std::thread::spawn(move || {
        for line in input.lines().map_while(Result::ok) {
            if line == STOP {
                stop.set();
            } else if let Some(id) = line.strip_prefix(RUN) {
                let _ = ids.send(id.to_owned());
            }
        }
        closed();
    });
    asked
}

/// The worker's end: computes the stages in `ids`, one after the other, and sends what happens. Ends after a panic, as the state of
/// libtorch is unknown then.
pub fn serve(
    runner: &StageRunner<'_>,
    ids: impl IntoIterator<Item = String>,
    reporter: &dyn Reporter,
    send: &dyn Fn(WorkerMessage),
) {
    for ended in ids {
        let failure = runner.run_stage_caught(&ended, reporter).err();
        let stopped = matches!(failure, Some(HarnessError::Stopped));
        let panicked = matches!(failure, Some(HarnessError::Panicked { .. }));
        let error = failure.map(|failure| failure.to_string());
        send(WorkerMessage::Ended { ended, error, stopped, panicked });
        if panicked {
            return;
        }
    }
}

/// The parent's end: describes a line of a worker that cannot be read as a message.
pub(crate) fn describe_unread(line: &str) -> String {
    let Ok(message) = serde_json::from_str::<serde_json::Value>(line) else {
        return format!("its worker printed: {line}");
    };
    let kind = message.get("event").and_then(|kind| kind.as_str()).unwrap_or("message");
    let why = serde_json::from_value::<Event>(message.clone()).err();
    let why = why.map_or_else(|| "it is about another stage".to_owned(), |why| why.to_string());
    format!("a message of its worker ({kind}) cannot be read and is left out: {why}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ends_agree() {
        let mut requests = Vec::new();
        ask_for(&mut requests, "cell-1").unwrap();
        ask_to_stop(&mut requests).unwrap();
        ask_for(&mut requests, "cell-2").unwrap();
        let (stop, closed) = (Stop::default(), Stop::default());
        let on_close = closed.clone();
        let ids = listen(std::io::Cursor::new(requests), stop.clone(), move || on_close.set());
        assert_eq!(ids.iter().collect::<Vec<_>>(), ["cell-1", "cell-2"]);
        assert!(stop.is_set());
        while !closed.is_set() {
            std::thread::yield_now();
        }
    }

    #[test]
    fn lines_that_are_no_messages_are_described_in_words() {
        let text = describe_unread(r#"{"event":"measured","id":"x","rows":[{"layer":"","value":null}]}"#);
        assert!(
            text.starts_with("a message of its worker (measured) cannot be read and is left out: "),
            "{text}"
        );
        assert!(!text.contains('{'), "{text}");
        assert_eq!(describe_unread("a library speaks"), "its worker printed: a library speaks");
    }
}
