//! Running another program for a bounded time.

use std::env;
use std::ffi::OsStr;
use std::io::{self, Read, Seek};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// The programs that fetching uses.
pub(crate) struct Programs {
    pub(crate) apt_get: Program,
    pub(crate) dpkg: Program,
}

impl Default for Programs {
    fn default() -> Self {
        Self { apt_get: Program::new("apt-get"), dpkg: Program::new("dpkg") }
    }
}

/// A program, with leading arguments.
pub(crate) struct Program {
    name: String,
    leading: Vec<String>,
}

impl Program {
    /// A program found on the search path.
    pub(crate) fn new(name: &str) -> Self {
        Self { name: name.to_owned(), leading: Vec::new() }
    }

    /// A shell script, called with the arguments.
    #[cfg(test)]
    pub(crate) fn script(text: &str) -> Self {
        Self { name: "sh".to_owned(), leading: ["-c", text, "sh"].map(str::to_owned).to_vec() }
    }

    /// Whether the search path has a file of this name.
    pub(crate) fn is_installed(&self) -> bool {
        let path = env::var_os("PATH").unwrap_or_default();
        env::split_paths(&path).any(|folder| folder.join(&self.name).is_file())
    }
}

/// Runs a program in `folder` for at most `seconds`; an error includes the last line of its stderr.
pub(crate) fn run(
    program: &Program,
    arguments: &[&OsStr],
    folder: &Path,
    seconds: u64,
) -> Result<(), String> {
    let name = &program.name;
    if !program.is_installed() {
        return Err(format!("{name} is not installed"));
    }
    let failed = |error: io::Error| format!("cannot run {name}: {error}");
    // A file, as a pipe would have to be read while the program runs.
    let mut errors = tempfile::tempfile().map_err(failed)?;
    let mut command = Command::new(name);
    command.args(&program.leading).args(arguments).current_dir(folder).env("LC_ALL", "C");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(errors.try_clone().map_err(failed)?);
    let mut child = command.spawn().map_err(failed)?;
    let Some(status) = wait(&mut child, Duration::from_secs(seconds)).map_err(failed)? else {
        return Err(format!("{name} did not end within {seconds} s and was stopped"));
    };
    if status.success() {
        return Ok(());
    }
    let mut text = Vec::new();
    errors.rewind().and_then(|()| errors.read_to_end(&mut text)).map_err(failed)?;
    let text = String::from_utf8_lossy(&text);
    let last = text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("no message");
    let status = status.code().map_or("a signal".to_owned(), |code| format!("status {code}"));
    Err(format!("{name} ended with {status}: {}", last.trim().chars().take(300).collect::<String>()))
}

/// Waits until the program ends, and stops it after the time limit.
fn wait(child: &mut Child, limit: Duration) -> io::Result<Option<ExitStatus>> {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if start.elapsed() >= limit {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        thread::sleep(Duration::from_millis(20));
    }
}

#[cfg(unix)]
#[cfg(test)]
mod tests {
    use super::*;

    fn says(script: &str, seconds: u64) -> Result<(), String> {
        let folder = tempfile::tempdir().unwrap();
        run(&Program::script(script), &["a b".as_ref(), "c".as_ref()], folder.path(), seconds)
    }

    #[test]
    fn arguments_arrive_and_failures_are_told_with_the_last_line() {
        assert_eq!(says("test \"$1\" = 'a b' && test \"$2\" = c", 30), Ok(()));
        let failure = says("echo one >&2; echo two >&2; echo >&2; exit 3", 30);
        assert_eq!(failure, Err("sh ended with status 3: two".to_owned()));
        assert_eq!(says("exit 4", 30), Err("sh ended with status 4: no message".to_owned()));
        let absent = run(&Program::new("no-such-program"), &[], Path::new("."), 1);
        assert_eq!(absent, Err("no-such-program is not installed".to_owned()));
    }

    #[test]
    fn a_program_that_does_not_end_is_stopped() {
        assert_eq!(says("exec sleep 60", 0), Err("sh did not end within 0 s and was stopped".to_owned()));
    }
}
