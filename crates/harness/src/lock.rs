//! Exclusive use of a run or a stage: an advisory lock on a file, which the system drops when its process ends.

use std::fs::{self, File, TryLockError};
use std::io::{Read as _, Seek as _, Write as _};
use std::path::Path;

use crate::error::HarnessError;

/// Held until dropped or until the process ends, however it ends.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the lock or says who holds it.
    pub(crate) fn try_take(path: &Path, held: &Path) -> Result<Self, HarnessError> {
        let mut file = open(path)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                // Best effort: the holder's number only makes the message more useful.
                let _ = file.read_to_string(&mut holder);
                let holder = if holder.is_empty() { "unknown".into() } else { holder };
                return Err(HarnessError::Busy { path: held.to_owned(), holder });
            }
            Err(TryLockError::Error(e)) => return Err(HarnessError::io("lock", path)(e)),
        }
        let note = |file: &mut File| -> std::io::Result<()> {
            file.set_len(0)?;
            file.rewind()?;
            write!(file, "{}", std::process::id())
        };
        note(&mut file).map_err(HarnessError::io("write", path))?;
        Ok(Self { _file: file })
    }

    /// Waits for the lock: a worker that outlived its killed parent finishes or ends first.
    pub(crate) fn take(path: &Path) -> Result<Self, HarnessError> {
        let file = open(path)?;
        file.lock().map_err(HarnessError::io("lock", path))?;
        Ok(Self { _file: file })
    }
}

fn open(path: &Path) -> Result<File, HarnessError> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(HarnessError::io("create", folder))?;
    }
    File::options()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .open(path)
        .map_err(HarnessError::io("open", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_taker_is_told_who_holds_it_and_gets_it_after_the_first_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("locks/run");
        let first = Lock::try_take(&path, dir.path()).unwrap();
        let error = Lock::try_take(&path, dir.path()).unwrap_err().to_string();
        assert!(error.contains(&format!("process {}", std::process::id())), "{error}");
        drop(first);
        assert!(Lock::try_take(&path, dir.path()).is_ok());
    }
}
