//! A Python process that runs PyTorch's own training steps on request (`train_step.py`).

use std::env;
use std::io::{BufRead, BufReader, Lines, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};

/// The process; between blocks of steps it waits for its next line of input.
pub(crate) struct PyTorch {
    child: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
    /// Version of torch.
    pub(crate) version: String,
    /// Number of trainable parameters.
    pub(crate) parameters: usize,
}

impl PyTorch {
    /// Starts the script with these arguments and waits until its network is ready.
    ///
    /// # Errors
    /// If there is no Python, or none with torch.
    pub(crate) fn start(arguments: &[String]) -> Result<Self> {
        let python = python();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("train_step.py");
        let mut child = Command::new(&python)
            .arg(script)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {}", python.display()))?;
        let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            bail!("{} has no pipes", python.display());
        };
        let output = BufReader::new(output).lines();
        // Created before the first answer is read, so that dropping it ends the process whatever the answer is.
        let mut pytorch = Self { child, input, output, version: String::new(), parameters: 0 };
        let answer = pytorch.answer().with_context(|| python.display().to_string())?;
        match answer.split_whitespace().collect::<Vec<_>>()[..] {
            ["ready", version, parameters] => {
                version.clone_into(&mut pytorch.version);
                pytorch.parameters = parameters.parse().with_context(|| answer.clone())?;
                Ok(pytorch)
            }
            _ => bail!("{}: {answer}", python.display()),
        }
    }

    /// Runs `count` steps; returns their duration by the clock of the process.
    pub(crate) fn steps(&mut self, count: usize) -> Result<Duration> {
        writeln!(self.input, "go {count}").context("train_step.py takes no input")?;
        let answer = self.answer()?;
        let seconds: f64 = answer.parse().with_context(|| format!("train_step.py answered {answer:?}"))?;
        Ok(Duration::try_from_secs_f64(seconds)?)
    }

    fn answer(&mut self) -> Result<String> {
        self.output.next().context("train_step.py ended without an answer")?.context("train_step.py's answer")
    }
}

impl Drop for PyTorch {
    fn drop(&mut self) {
        // It may have ended by itself; a destructor cannot return an error.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `$PYTHON`, or that of `.venv` in the project, or the one on the path.
fn python() -> PathBuf {
    let in_project = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.venv/bin/python");
    match env::var_os("PYTHON") {
        Some(python) => python.into(),
        None if in_project.exists() => in_project,
        None => "python3".into(),
    }
}
