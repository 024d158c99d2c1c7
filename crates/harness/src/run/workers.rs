//! Worker processes: each runs one stage after the other. Processes instead of threads, as libtorch has global state, and one that
//! dies does not end the others.

use std::ffi::OsString;
use std::io::{BufRead as _, BufReader, Lines, Read as _};
use std::path::PathBuf;
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use super::protocol::{self, WorkerMessage};
use crate::events::{Event, Reporter};

/// The command of a worker process, which uses the protocol of `protocol.rs` on its standard input and output.
#[derive(Clone, Debug)]
pub struct WorkerCommand {
    /// The program.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<OsString>,
}

/// Why a stage ended without being stored.
#[derive(Debug)]
pub(crate) enum StageEnd {
    /// The stage failed, with the worker's message.
    Failed(String),
    /// The worker was ended by a signal.
    Died(String),
    /// The worker was asked to stop.
    Stopped,
}

/// The inputs of all running workers, so that they can be asked to stop.
#[derive(Debug, Default)]
pub(crate) struct Inputs(Mutex<Vec<Arc<Mutex<ChildStdin>>>>);

impl Inputs {
    /// Asks every worker to stop; errors are ignored, as a worker may have ended.
    pub(crate) fn stop_all(&self) {
        for input in self.lock().iter() {
            let _ = protocol::ask_to_stop(&mut *input.lock().unwrap_or_else(PoisonError::into_inner));
        }
    }

    fn add(&self, input: ChildStdin) -> Arc<Mutex<ChildStdin>> {
        let input = Arc::new(Mutex::new(input));
        self.lock().push(input.clone());
        input
    }

    fn remove(&self, input: &Arc<Mutex<ChildStdin>>) {
        self.lock().retain(|other| !Arc::ptr_eq(other, input));
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Arc<Mutex<ChildStdin>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place for one worker at a time; a new one is started when there is none.
pub(crate) struct Slot<'a> {
    command: &'a WorkerCommand,
    inputs: &'a Inputs,
    process: Option<Process>,
}

struct Process {
    child: Child,
    input: Arc<Mutex<ChildStdin>>,
    output: Lines<BufReader<ChildStdout>>,
    errors: JoinHandle<Vec<u8>>,
}

impl<'a> Slot<'a> {
    pub(crate) fn new(command: &'a WorkerCommand, inputs: &'a Inputs) -> Self {
        Self { command, inputs, process: None }
    }

    /// Runs a stage. If the worker dies (a signal, out of memory), a new one tries the stage once more from its last checkpoint.
    pub(crate) fn run(&mut self, id: &str, label: &str, reporter: &dyn Reporter) -> Result<(), StageEnd> {
        let first = self.run_once(id, reporter);
        let Err(StageEnd::Died(how)) = &first else { return first };
        let text = format!("{label}: its worker died ({how}); tried once more");
        reporter.event(&Event::Note { id: id.to_owned(), text });
        self.run_once(id, reporter)
    }

    fn run_once(&mut self, id: &str, reporter: &dyn Reporter) -> Result<(), StageEnd> {
        let process = match &mut self.process {
            Some(process) => process,
            none => none.insert(Process::start(self.command, self.inputs)?),
        };
        // If the worker has ended, its output ends at once.
        let _ = protocol::ask_for(&mut *process.input.lock().unwrap_or_else(PoisonError::into_inner), id);
        let mut failure = None;
        for line in process.output.by_ref().map_while(Result::ok) {
            match serde_json::from_str::<WorkerMessage>(&line) {
                Ok(WorkerMessage::Event(event)) => reporter.event(&event),
                Ok(WorkerMessage::Ended { ended, error, stopped, panicked }) if ended == id => match error {
                    None => return Ok(()),
                    Some(_) if stopped => return Err(StageEnd::Stopped),
                    Some(error) if !panicked => return Err(StageEnd::Failed(error)),
                    // The worker exits; the next stage gets a new one.
                    Some(error) => {
                        failure = Some(StageEnd::Failed(error));
                        break;
                    }
                },
                _ => {
                    reporter
                        .event(&Event::Note { id: id.to_owned(), text: protocol::describe_unread(&line) });
                }
            }
        }
        let ended = self.process.take().map_or(StageEnd::Stopped, |process| process.end(self.inputs));
        Err(failure.unwrap_or(ended))
    }
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        if let Some(process) = self.process.take() {
            process.end(self.inputs);
        }
    }
}

impl Process {
    fn start(command: &WorkerCommand, inputs: &Inputs) -> Result<Self, StageEnd> {
        let failed = |problem: String| {
            StageEnd::Failed(format!("cannot start {}: {problem}", command.program.display()))
        };
        let mut child = Command::new(&command.program)
            .args(&command.arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|e| failed(e.to_string()))?;
        let (Some(input), Some(output), Some(errors)) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            return Err(failed("it has no pipes".into()));
        };
        let errors = std::thread::Builder::new().spawn(move || last_part(errors));
        Ok(Self {
            input: inputs.add(input),
            output: BufReader::new(output).lines(),
            errors: errors.map_err(|e| failed(e.to_string()))?,
            child,
        })
    }

    /// Closes its input, which ends it, and returns how it ended.
    fn end(mut self, inputs: &Inputs) -> StageEnd {
        inputs.remove(&self.input);
        drop(self.input);
        let status = match wait_or_kill(&mut self.child) {
            Ok(status) => status,
            Err(e) => return StageEnd::Failed(e.to_string()),
        };
        let errors = self.errors.join().unwrap_or_default();
        let last = last_words(&String::from_utf8_lossy(&errors));
        let how = match last {
            Some(last) if status.code().is_some() => return StageEnd::Failed(last),
            Some(last) => format!("{status}: {last}"),
            None => status.to_string(),
        };
        if status.code().is_some() { StageEnd::Failed(how) } else { StageEnd::Died(how) }
    }
}

/// The last message in a worker's standard error: that of its first panic, else the last line.
fn last_words(errors: &str) -> Option<String> {
    let lines: Vec<&str> = errors.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    if let Some(at) = lines.iter().position(|line| line.contains(" panicked at ")) {
        let message = lines.get(at + 1).copied().unwrap_or_default();
        return Some(format!("{} {message}", lines[at]).trim_end().to_owned());
    }
    lines.last().map(|last| last.trim_start_matches("error: ").to_owned())
}

/// Waits for a worker whose input is closed; kills one that does not end within ten seconds.
fn wait_or_kill(child: &mut Child) -> std::io::Result<ExitStatus> {
    const LOOK_EVERY: Duration = Duration::from_millis(10);
    const LOOKS: u32 = 1000;
    for _ in 0..LOOKS {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        std::thread::sleep(LOOK_EVERY);
    }
    child.kill()?;
    child.wait()
}

/// The last part of a worker's standard error.
fn last_part(mut errors: ChildStderr) -> Vec<u8> {
    const KEPT: usize = 1 << 14;
    let (mut all, mut part) = (Vec::new(), [0; 4096]);
    // A read error ends the message early; the exit status is still reported.
    while let Ok(read @ 1..) = errors.read(&mut part) {
        all.extend_from_slice(&part[..read]);
        all.drain(..all.len().saturating_sub(KEPT));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Recorder(Mutex<Vec<Event>>);

    impl Reporter for Recorder {
        fn event(&self, event: &Event) {
            self.0.lock().unwrap().push(event.clone());
        }
    }

    /// A worker as a shell script: `$id` is the requested stage.
    fn shell(body: &str) -> WorkerCommand {
        let script = format!(
            "while read -r word id; do {body}; echo \"{{\\\"ended\\\":\\\"$id\\\",\\\"error\\\":null,\\\"stopped\\\":false}}\"; done"
        );
        WorkerCommand { program: "/bin/sh".into(), arguments: vec!["-c".into(), script.into()] }
    }

    #[test]
    fn events_are_forwarded_and_a_dying_worker_fails_its_own_stage_only() {
        let recorder = Recorder::default();
        let command = shell(
            r#"echo '{"event":"note","id":"x","text":"hello"}'; case $id in bad) echo '{"ended":"bad","error":"no luck","stopped":false}'; continue;; killed) kill -9 $$;; esac"#,
        );
        let inputs = Inputs::default();
        let mut slot = Slot::new(&command, &inputs);
        let mut run = |id: &str| slot.run(id, &format!("cell {id}"), &recorder);
        assert!(run("good").is_ok());
        assert!(matches!(run("bad"), Err(StageEnd::Failed(why)) if why == "no luck"));
        assert!(matches!(run("killed"), Err(StageEnd::Died(how)) if how.contains("signal: 9")));
        assert!(run("good2").is_ok());
        // A note from each start, two of them of the stage that was killed, and one that says so.
        let events = recorder.0.into_inner().unwrap();
        assert_eq!(events.len(), 6);
        let retried =
            |event: &&Event| matches!(event, Event::Note { text, .. } if text.contains("tried once more"));
        assert_eq!(events.iter().filter(retried).count(), 1);
    }

    #[test]
    fn the_message_of_a_panic_is_found_among_what_a_worker_printed() {
        let errors = "warning: x\n\nthread 'main' (7) panicked at crates/a.rs:1:2:\nindex out of bounds\nnote: run with \
                      `RUST_BACKTRACE=1` environment variable to display a backtrace\n";
        let expected = "thread 'main' (7) panicked at crates/a.rs:1:2: index out of bounds";
        assert_eq!(last_words(errors).as_deref(), Some(expected));
        assert_eq!(last_words("a\nerror: no data\n").as_deref(), Some("no data"));
        assert_eq!(last_words("\n"), None);
        let inputs = Inputs::default();
        let arguments = vec!["-c".into(), "echo terminate called >&2; kill -ABRT $$".into()];
        let command = WorkerCommand { program: "/bin/sh".into(), arguments };
        let ended = Slot::new(&command, &inputs).run_once("a", &crate::events::Silent);
        assert!(
            matches!(ended, Err(StageEnd::Died(how)) if how.contains("SIGABRT") && how.ends_with("terminate called"))
        );
    }

    #[test]
    fn a_worker_that_panicked_is_replaced_and_its_message_kept() {
        let folder = tempfile::tempdir().unwrap();
        let mark = folder.path().join("mark").display().to_string();
        let command = shell(&format!(
            r#"[ -n "$started" ] || echo started >>'{mark}'; started=1; if [ $id = bad ]; then echo '{{"ended":"bad","error":"no luck","stopped":false,"panicked":true}}'; exit 0; fi"#
        ));
        let inputs = Inputs::default();
        let mut slot = Slot::new(&command, &inputs);
        let mut run = |id: &str| slot.run(id, id, &crate::events::Silent);
        assert!(run("good").is_ok());
        assert!(matches!(run("bad"), Err(StageEnd::Failed(why)) if why == "no luck"));
        assert!(run("good2").is_ok());
        assert_eq!(std::fs::read_to_string(&mark).unwrap(), "started\nstarted\n");
    }

    #[test]
    fn one_worker_runs_many_stages_and_is_replaced_when_it_dies() {
        let folder = tempfile::tempdir().unwrap();
        let mark = folder.path().join("mark").display().to_string();
        let command = shell(&format!(
            "[ -n \"$started\" ] || echo started >>'{mark}'; started=1; if [ $id = b ] && [ $(wc -l <'{mark}') = 1 ]; then kill -9 $$; fi"
        ));
        let inputs = Inputs::default();
        let mut slot = Slot::new(&command, &inputs);
        for id in ["a", "b", "c", "d"] {
            assert!(slot.run(id, id, &crate::events::Silent).is_ok());
        }
        assert_eq!(std::fs::read_to_string(&mark).unwrap(), "started\nstarted\n");
    }

    #[test]
    fn a_worker_that_does_not_end_with_its_input_is_killed() {
        let command = WorkerCommand {
            program: "/bin/sh".into(),
            arguments: vec!["-c".into(), "exec sleep 600 <&- >/dev/null 2>&1".into()],
        };
        let inputs = Inputs::default();
        let ended = Slot::new(&command, &inputs).run_once("a", &crate::events::Silent);
        assert!(matches!(ended, Err(StageEnd::Died(how)) if how.contains("signal: 9")));
    }

    #[test]
    fn a_worker_that_cannot_start_or_fails_reports_why() {
        let inputs = Inputs::default();
        let command = WorkerCommand { program: "/no/such/program".into(), arguments: Vec::new() };
        let ended = Slot::new(&command, &inputs).run("a", "a", &crate::events::Silent);
        assert!(matches!(ended, Err(StageEnd::Failed(why)) if why.contains("/no/such/program")));
        let command = WorkerCommand {
            program: "/bin/sh".into(),
            arguments: vec!["-c".into(), "echo noise >&2; echo error: no data >&2; exit 3".into()],
        };
        let ended = Slot::new(&command, &inputs).run("a", "a", &crate::events::Silent);
        assert!(matches!(ended, Err(StageEnd::Failed(why)) if why == "no data"));
    }
}
