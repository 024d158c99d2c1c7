//! Child processes that answer in lines of JSON, read with a deadline.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::JoinHandle;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};

use crate::report::{OUT_OF_TIME, Row, one_line};

/// A line of a child process.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Message {
    /// Something that it found.
    Row(Row),
    /// It stands and is warm.
    Ready(Ready),
    /// A block of work is done.
    Block(Block),
    /// What it knows of the machine.
    Facts(BTreeMap<String, String>),
    /// Why it ends.
    Error(String),
}

/// What must be the same on both sides.
#[derive(Debug, PartialEq, Deserialize, Serialize)]
pub(crate) struct Ready {
    /// Numbers that are trained.
    pub(crate) parameters: usize,
    /// Of the last tensor that is computed (calibration), of the images (training).
    pub(crate) shape: Vec<i64>,
}

/// Work that was timed.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Block {
    pub(crate) images: u64,
    pub(crate) seconds: f64,
    /// Most bytes of a GPU since the process stood.
    pub(crate) peak: Option<u64>,
}

impl Message {
    /// To the process that started this one.
    pub(crate) fn send(&self) {
        // A message holds strings and finite numbers, which all have a form in JSON.
        if let Ok(line) = serde_json::to_string(self) {
            println!("{line}");
        }
    }
}

/// A running child; killed when dropped.
pub(crate) struct Child {
    name: String,
    process: std::process::Child,
    lines: Receiver<String>,
    errors: Option<JoinHandle<String>>,
}

impl Child {
    pub(crate) fn start(program: &Path, arguments: &[String]) -> Result<Self> {
        let name = program.file_name().unwrap_or(program.as_os_str()).to_string_lossy().into_owned();
        let mut process = Command::new(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        let (Some(output), Some(mut errors)) = (process.stdout.take(), process.stderr.take()) else {
            bail!("{name} has no pipes");
        };
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        let errors = std::thread::spawn(move || {
            let mut bytes = Vec::new();
            // What cannot be read is not there to be shown.
            let _ = errors.read_to_end(&mut bytes);
            String::from_utf8_lossy(&bytes).into_owned()
        });
        Ok(Self { name, process, lines, errors: Some(errors) })
    }

    /// Its next message; `None` if it has ended well.
    ///
    /// # Errors
    /// If it reports an error, dies, or says nothing until the deadline.
    pub(crate) fn next(&mut self, deadline: Instant) -> Result<Option<Message>> {
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                // Libraries may print too; only objects are messages.
                Ok(line) if !line.starts_with('{') => {}
                Ok(line) => {
                    let message = serde_json::from_str(&line);
                    return match message.with_context(|| format!("{} says {}", self.name, one_line(&line)))? {
                        Message::Error(reason) => bail!("{}: {reason}", self.name),
                        message => Ok(Some(message)),
                    };
                }
                Err(RecvTimeoutError::Timeout) => bail!(OUT_OF_TIME),
                Err(RecvTimeoutError::Disconnected) => return self.end().map(|()| None),
            }
        }
    }

    /// Sends a line.
    pub(crate) fn tell(&mut self, line: &str) -> Result<()> {
        let name = &self.name;
        let input = self.process.stdin.as_mut().with_context(|| format!("{name} has no input"))?;
        writeln!(input, "{line}")
            .and_then(|()| input.flush())
            .with_context(|| format!("{name} takes no input"))
    }

    fn end(&mut self) -> Result<()> {
        let status = self.process.wait()?;
        if status.success() {
            return Ok(());
        }
        let said = self.errors.take().and_then(|errors| errors.join().ok()).unwrap_or_default();
        let last = said.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("it said nothing");
        bail!("{} ended with {status}: {}", self.name, one_line(last))
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // One that has ended already cannot be killed; a drop has nobody to tell.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn shell(script: &str) -> Child {
        Child::start(Path::new("/bin/sh"), &["-c".to_owned(), script.to_owned()]).unwrap()
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(20)
    }

    #[test]
    fn messages_come_in_order_and_other_lines_are_passed_over() {
        let mut child = shell(
            r#"echo warning; echo '{"ready":{"parameters":3,"shape":[1,2]}}'; read line; echo '{"error":"'"$line"'"}'"#,
        );
        let ready = child.next(soon()).unwrap();
        assert!(matches!(ready, Some(Message::Ready(Ready { parameters: 3, .. }))), "{ready:?}");
        child.tell("go 1").unwrap();
        assert_eq!(child.next(soon()).unwrap_err().to_string(), "sh: go 1");
        assert!(child.next(soon()).unwrap().is_none());
    }

    #[test]
    fn one_that_dies_says_why_and_one_that_is_slow_is_out_of_time() {
        let message =
            shell("echo first >&2; echo no kernel >&2; exit 3").next(soon()).unwrap_err().to_string();
        assert!(message.ends_with("exit status: 3: no kernel"), "{message}");
        let slow = shell("exec sleep 60").next(Instant::now() + Duration::from_millis(50));
        assert_eq!(slow.unwrap_err().to_string(), OUT_OF_TIME);
    }
}
