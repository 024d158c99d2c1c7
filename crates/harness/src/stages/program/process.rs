//! A running program of a selector: its start, one line in and one line out, its standard error, and its end.

use std::collections::VecDeque;
use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::messages::Hello;
use crate::stop::Stop;
use crate::study::SelectorCommand;

/// Longest line of a program, bytes. An order of 100,000 channels has less than a tenth of it.
const LONGEST: u64 = 16 << 20;
/// Lines of standard error that an error shows.
const LAST: usize = 10;
/// Lines of standard error between two questions that reach the log; the others are counted.
const LOGGED: usize = 200;
/// How often a wait looks whether work was asked to stop.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How long a program has to end after its input was closed, and its standard error after its end.
const GRACE: Duration = Duration::from_secs(2);

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum Failure {
    /// The program failed; what it did, with its last lines on standard error.
    Program(String),
    /// Work was asked to stop.
    Stopped,
}

/// How a process is started.
pub(super) struct Start<'a> {
    pub(super) command: &'a SelectorCommand,
    /// The folder with the Python module.
    pub(super) python: &'a Path,
    /// Threads that it may use.
    pub(super) threads: usize,
    pub(super) stop: &'a Stop,
}

/// A program that was started and has not been waited for, so that it starts beside other work.
pub(super) struct Starting(Process);

/// A running program that has said hello.
pub(super) struct Process {
    child: Child,
    /// `None` once it is closed.
    input: Option<ChildStdin>,
    lines: Receiver<Line>,
    errors: Arc<Mutex<Errors>>,
    errors_ended: Receiver<()>,
    timeout: Duration,
    stop: Stop,
    pub(super) hello: Hello,
}

/// A line of a program's standard output, or what came in its place.
enum Line {
    Text(String),
    TooLong,
    NoText,
}

/// The standard error of a program.
#[derive(Default)]
struct Errors {
    last: VecDeque<String>,
    unread: Vec<String>,
    /// Lines beyond those in `unread`.
    more: usize,
}

/// What may be meant where a program is not found, but a file of its folder has this name.
fn advice(program: &Path, folder: &Path) -> String {
    let name = program.display();
    match program.components().count() == 1 && folder.join(program).is_file() {
        true => format!(
            " (a file of this name is here; to run it: python3 {name}, or ./{name} if it is a program)"
        ),
        false => String::new(),
    }
}

impl Starting {
    /// Starts the program.
    pub(super) fn spawn(start: &Start<'_>) -> Result<Self, Failure> {
        let SelectorCommand { argv, folder, timeout, .. } = start.command;
        let (program, arguments) =
            argv.split_first().ok_or_else(|| Failure::Program("its command is empty".to_owned()))?;
        // A path is relative to its folder, as its arguments are.
        let program = if program.contains('/') { folder.join(program) } else { program.into() };
        let threads = start.threads.to_string();
        let mut child = Command::new(&program)
            .args(arguments)
            .current_dir(folder)
            .env("PYTHONPATH", python_path(start.python))
            // Sets of texts have the same order in every process.
            .env("PYTHONHASHSEED", "0")
            .env("OMP_NUM_THREADS", &threads)
            .env("OPENBLAS_NUM_THREADS", &threads)
            .env("MKL_NUM_THREADS", &threads)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // Ctrl-C on a terminal reaches whole groups; this process decides what follows.
            .process_group(0)
            .spawn()
            .map_err(|e| Failure::Program(format!("cannot be started: {e}{}", advice(&program, folder))))?;
        let (input, output, errors) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let (Some(output), Some(errors)) = (output, errors) else { unreachable!("its pipes were asked for") };
        let (send, lines) = channel();
        std::thread::spawn(move || send_lines(output, &send));
        let (kept, (ended, errors_ended)) = (Arc::<Mutex<Errors>>::default(), channel());
        let keep = kept.clone();
        std::thread::spawn(move || {
            keep_lines(errors, &keep);
            drop(ended);
        });
        let hello = Hello { name: String::new(), needs: thinet_selectors::Needs::NONE };
        let (timeout, stop) = (*timeout, start.stop.clone());
        Ok(Self(Process { child, input, lines, errors: kept, errors_ended, timeout, stop, hello }))
    }

    /// Waits for its hello.
    pub(super) fn hello(self) -> Result<Process, Failure> {
        let Self(mut process) = self;
        let line = process.line("said no hello")?;
        process.hello = Hello::read(&line).map_err(|problem| process.failed(&problem))?;
        Ok(process)
    }
}

impl Process {
    /// Writes a line and waits for the line that answers it.
    pub(super) fn ask(&mut self, question: &str) -> Result<String, Failure> {
        if let Some(input) = &mut self.input {
            // If the program has ended, its output has, too.
            let _ = writeln!(input, "{question}").and_then(|()| input.flush());
        }
        self.line("gave no answer")
    }

    /// The failure of this program, with its last lines on standard error. It is ended, as its state is unknown.
    pub(super) fn failed(&mut self, problem: &str) -> Failure {
        self.ended_with(problem, "; it printed nothing on standard error")
    }

    /// The failure of this program for a reason that it gave.
    pub(super) fn gave_up(&mut self, why: &str) -> Failure {
        self.ended_with(why, "")
    }

    fn ended_with(&mut self, problem: &str, without_errors: &str) -> Failure {
        self.kill();
        let mut errors = self.errors();
        let last: Vec<String> = errors.last.iter().cloned().collect();
        // What the failure shows needs no note of its own.
        let counted = last.len().min(errors.more);
        errors.more -= counted;
        let others = errors.unread.len().saturating_sub(last.len() - counted);
        errors.unread.truncate(others);
        let errors = match last.is_empty() {
            true => without_errors.to_owned(),
            false => format!("; its standard error ends with: {}", last.join(" | ")),
        };
        Failure::Program(format!("{problem}{errors}"))
    }

    /// The lines on standard error since the last call.
    pub(super) fn take_errors(&self) -> Vec<String> {
        let mut errors = self.errors();
        let mut lines = std::mem::take(&mut errors.unread);
        match std::mem::take(&mut errors.more) {
            0 => {}
            more => lines.push(format!("… and {more} more lines")),
        }
        lines
    }

    /// Waits for a line; `without` says in an error what is missing.
    fn line(&mut self, without: &str) -> Result<String, Failure> {
        let started = Instant::now();
        loop {
            match self.lines.recv_timeout(LOOK_EVERY) {
                Ok(Line::Text(line)) => return Ok(line),
                Ok(Line::TooLong) => {
                    return Err(self.failed(&format!("printed a line of more than {LONGEST} bytes")));
                }
                Ok(Line::NoText) => return Err(self.failed("printed a line that is no UTF-8 text")),
                Err(RecvTimeoutError::Disconnected) => {
                    let how = self.ended();
                    return Err(self.failed(&format!("{without}: it ended ({how})")));
                }
                Err(RecvTimeoutError::Timeout) if self.stop.is_set() => {
                    self.kill();
                    return Err(Failure::Stopped);
                }
                Err(RecvTimeoutError::Timeout) if started.elapsed() >= self.timeout => {
                    let seconds = self.timeout.as_secs();
                    return Err(self.failed(&format!("{without} within {seconds} s (key timeout)")));
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }

    /// How a program ended whose output has; one that only closed its output is ended.
    fn ended(&mut self) -> String {
        self.input = None;
        match self.wait() {
            Some(status) => status,
            None => "its output is closed".to_owned(),
        }
    }

    /// Waits a moment for its end.
    fn wait(&mut self) -> Option<String> {
        let started = Instant::now();
        while started.elapsed() < GRACE {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Some(status.to_string());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        None
    }

    /// Ends it and all processes that it started, and waits for its standard error.
    fn kill(&mut self) {
        self.input = None;
        // The group has the number of its first process, which is not given to another before that one is waited for.
        let group = format!("kill -s KILL -- -{}", self.child.id());
        let _ = Command::new("/bin/sh").args(["-c", &group]).stderr(Stdio::null()).status();
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = self.errors_ended.recv_timeout(GRACE);
    }

    fn errors(&self) -> MutexGuard<'_, Errors> {
        self.errors.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Process {
    /// Closes its input, at which it ends; one that does not, or has no time because work was asked to stop, is killed.
    fn drop(&mut self) {
        self.input = None;
        if self.stop.is_set() || self.wait().is_none() {
            self.kill();
        }
    }
}

/// The folder of the module before those that the environment names.
fn python_path(module: &Path) -> std::ffi::OsString {
    let mut path = module.as_os_str().to_owned();
    if let Some(more) = std::env::var_os("PYTHONPATH").filter(|more| !more.is_empty()) {
        path.push(":");
        path.push(more);
    }
    path
}

fn send_lines(output: impl Read, send: &Sender<Line>) {
    let mut output = BufReader::new(output);
    loop {
        let mut line = Vec::new();
        match output.by_ref().take(LONGEST).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        let line = match line.last() {
            Some(b'\n') => {
                String::from_utf8(line).map_or(Line::NoText, |line| Line::Text(line.trim_end().to_owned()))
            }
            _ if line.len() as u64 == LONGEST => Line::TooLong,
            // Cut off by the end of the program.
            _ => return,
        };
        let is_last = !matches!(line, Line::Text(_));
        if send.send(line).is_err() || is_last {
            return;
        }
    }
}

fn keep_lines(errors: impl Read, kept: &Mutex<Errors>) {
    let mut errors = BufReader::new(errors);
    loop {
        let mut line = Vec::new();
        match errors.by_ref().take(4096).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        let line = String::from_utf8_lossy(&line).trim_end().to_owned();
        if line.is_empty() {
            continue;
        }
        let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.last.len() == LAST {
            kept.last.pop_front();
        }
        kept.last.push_back(line.clone());
        if kept.unread.len() < LOGGED { kept.unread.push(line) } else { kept.more += 1 }
    }
}
