//! Worker processes: one stage each. libtorch's global state makes threads unsafe; processes also survive each other.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};

use crate::error::HarnessError;
use crate::progress::{Event, Reporter};

/// How to start a worker: this program and arguments; the stage's id is added at the end. A worker prints its events
/// as JSON lines, ends when its standard input closes, and exits with 0 when the stage is stored.
#[derive(Clone, Debug)]
pub struct WorkerCommand {
    /// The program.
    pub program: PathBuf,
    /// Arguments before the stage's id.
    pub arguments: Vec<OsString>,
}

/// A stage that failed, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) label: String,
    pub(crate) error: String,
}

/// Runs stages (id, label) in at most `jobs` processes at a time. A worker that dies (a signal, no memory) costs its own stage
/// only, which is tried once more: what it had finished is stored.
pub(crate) fn run_all(
    command: &WorkerCommand,
    stages: Vec<(String, String)>,
    jobs: usize,
    reporter: &dyn Reporter,
) -> Vec<Failure> {
    let jobs = jobs.min(stages.len());
    let queue = Mutex::new(VecDeque::from(stages));
    let failures = Mutex::new(Vec::new());
    let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                while let Some((id, label)) = next() {
                    let mut ended = run_one(command, &id, reporter);
                    if let Err(Ended::Died(how)) = &ended {
                        let text = format!("{label}: its worker died ({how}); tried once more");
                        reporter.event(&Event::Note { id: id.clone(), text });
                        ended = run_one(command, &id, reporter);
                    }
                    if let Err(Ended::Died(problem) | Ended::Failed(problem)) = ended {
                        let error = HarnessError::Worker { stage: id, problem }.to_string();
                        let failure = Failure { label, error };
                        failures.lock().unwrap_or_else(PoisonError::into_inner).push(failure);
                    }
                }
            });
        }
    });
    failures.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// How a worker ended without finishing its stage.
enum Ended {
    /// It said why.
    Failed(String),
    /// A signal ended it.
    Died(String),
}

fn run_one(command: &WorkerCommand, id: &str, reporter: &dyn Reporter) -> Result<(), Ended> {
    let mut child = Command::new(&command.program)
        .args(&command.arguments)
        .arg(id)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| Ended::Failed(format!("cannot start {}: {e}", command.program.display())))?;
    // Dropped at the end: a worker whose parent dies sees its input close and ends.
    let _input = child.stdin.take();
    let errors = std::thread::scope(|scope| {
        let errors = child.stderr.take().map(|mut stderr| {
            scope.spawn(move || {
                let mut text = String::new();
                // What cannot be read is not worth more than the exit status.
                let _ = stderr.read_to_string(&mut text);
                text
            })
        });
        forward_events(&mut child, id, reporter);
        errors.and_then(|thread| thread.join().ok()).unwrap_or_default()
    });
    let status = child.wait().map_err(|e| Ended::Failed(e.to_string()))?;
    if status.success() {
        return Ok(());
    }
    if status.code().is_none() {
        return Err(Ended::Died(status.to_string()));
    }
    let last = errors.trim().lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
    Err(Ended::Failed(if last.is_empty() { status.to_string() } else { last }))
}

/// Passes on the worker's events until its output ends; other output becomes notes.
fn forward_events(child: &mut Child, id: &str, reporter: &dyn Reporter) {
    let Some(output) = child.stdout.take() else { return };
    for line in BufReader::new(output).lines().map_while(Result::ok) {
        match serde_json::from_str::<Event>(&line) {
            Ok(event) => reporter.event(&event),
            Err(_) => reporter.event(&Event::Note { id: id.to_owned(), text: line }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Recorder(Mutex<Vec<Event>>);

    impl Reporter for Recorder {
        fn event(&self, event: &Event) {
            self.0.lock().unwrap().push(event.clone());
        }
    }

    fn shell(script: &str) -> WorkerCommand {
        WorkerCommand { program: "/bin/sh".into(), arguments: vec!["-c".into(), script.into()] }
    }

    #[test]
    fn events_are_passed_on_and_a_dying_worker_costs_its_own_stage_only() {
        let recorder = Recorder(Mutex::new(Vec::new()));
        let script = r#"echo '{"event":"note","id":"x","text":"hello"}'; if [ "$0" = bad ]; then echo 'error: no luck' >&2; exit 3; fi; if [ "$0" = killed ]; then kill -9 $$; fi"#;
        let stages = ["good", "bad", "killed", "good2"].map(|id| (id.to_owned(), format!("cell {id}")));
        let mut failures = run_all(&shell(script), stages.to_vec(), 2, &recorder);
        failures.sort_by(|a, b| a.label.cmp(&b.label));
        assert_eq!(failures.len(), 2);
        assert_eq!(failures[0].label, "cell bad");
        assert!(failures[0].error.contains("no luck"), "{}", failures[0].error);
        assert!(failures[1].error.contains("signal: 9"), "{}", failures[1].error);
        // A note from each start, two of them of the stage that was killed, and one that says so.
        let events = recorder.0.into_inner().unwrap();
        assert_eq!(events.len(), 6);
        let retried =
            |event: &&Event| matches!(event, Event::Note { text, .. } if text.contains("tried once more"));
        assert_eq!(events.iter().filter(retried).count(), 1);
    }

    #[test]
    fn a_worker_that_dies_once_costs_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let mark = folder.path().join("mark").display().to_string();
        let script = format!("if [ -e '{mark}' ]; then exit 0; fi; touch '{mark}'; kill -9 $$");
        let failures = run_all(&shell(&script), vec![("a".into(), "a".into())], 1, &crate::progress::Silent);
        assert_eq!(failures, []);
    }

    #[test]
    fn a_program_that_is_not_there_is_named() {
        let command = WorkerCommand { program: "/no/such/program".into(), arguments: Vec::new() };
        let failures = run_all(&command, vec![("a".into(), "a".into())], 1, &crate::progress::Silent);
        assert!(failures[0].error.contains("/no/such/program"));
    }
}
