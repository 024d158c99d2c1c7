//! Files that are written as a whole or not at all, files that may be absent, and content hashes.

use std::fs::{self, File, TryLockError};
use std::io::{BufWriter, ErrorKind, Write as _};
use std::path::Path;
use std::time::Duration;

use crate::FileError;

/// Suffix of the names of temporary files.
const TEMPORARY: &str = ".tmp";

/// The blake3 hash of a file's contents, in hexadecimal.
///
/// # Errors
/// If the file cannot be read.
pub fn hash_file(path: &Path) -> std::io::Result<String> {
    let mut hasher = blake3::Hasher::new();
    std::io::copy(&mut File::open(path)?, &mut hasher)?;
    Ok(hasher.finalize().to_hex().to_string())
}

/// Creates a file with a unique hidden name, `.<random>.tmp`, which is removed when dropped. Its permissions follow the process's
/// umask, unlike those of other temporary files. It is locked as long as its file is open, see [`remove_abandoned`].
///
/// # Errors
/// If the file cannot be created.
pub fn temporary(folder: &Path) -> std::io::Result<tempfile::NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(".").suffix(TEMPORARY);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        builder.permissions(fs::Permissions::from_mode(0o666));
    }
    loop {
        let unnamed = builder.tempfile_in(folder)?;
        match unnamed.as_file().try_lock() {
            // Another process is about to remove it, or has done so before it was locked.
            Err(TryLockError::WouldBlock) => {}
            Ok(()) if !unnamed.path().try_exists()? => {}
            // On a file system without locks nothing is locked, and nothing removed.
            Ok(()) | Err(TryLockError::Error(_)) => return Ok(unnamed),
        }
    }
}

/// Removes a folder's temporary files that no process has locked and that have not changed for this time: those of killed processes.
/// Locks of some shared file systems hold on one machine only, so the time is longer than any write on another one. What cannot be
/// removed, such as another user's file, stays.
///
/// # Errors
/// If the folder cannot be read.
pub fn remove_abandoned(folder: &Path, unchanged_for: Duration) -> Result<(), FileError> {
    let read = || fs::read_dir(folder)?.collect::<std::io::Result<Vec<_>>>();
    for entry in read().map_err(FileError::at("read", folder))? {
        let (path, name) = (entry.path(), entry.file_name());
        let name = name.to_string_lossy();
        if !(name.starts_with('.') && name.ends_with(TEMPORARY)) {
            continue;
        }
        let is_old = |metadata: &fs::Metadata| {
            let age = metadata.modified().ok().and_then(|modified| modified.elapsed().ok());
            metadata.is_file() && age.unwrap_or_default() >= unchanged_for
        };
        if fs::symlink_metadata(&path).is_ok_and(|metadata| is_old(&metadata)) {
            // Writable, as locks of NFS need.
            let file = File::options().write(true).open(&path);
            if file.is_ok_and(|file| file.try_lock().is_ok()) {
                let _ = fs::remove_file(&path);
            }
        }
    }
    Ok(())
}

/// Writes a file completely or not at all: temporary name in the same folder, sync, rename, sync of the folder.
///
/// # Errors
/// If the file cannot be written.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    write_atomically_with(path, |file| file.write_all(bytes).map_err(FileError::at("write", path)))
}

/// As [`write_atomically`], with the contents that `contents` writes to the buffered temporary file.
///
/// # Errors
/// If `contents` fails or the file cannot be written; the temporary file is removed then.
pub fn write_atomically_with<E: From<FileError>>(
    path: &Path,
    contents: impl FnOnce(&mut BufWriter<&File>) -> Result<(), E>,
) -> Result<(), E> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let unnamed = temporary(folder).map_err(FileError::at("write", path))?;
    let mut buffer = BufWriter::new(unnamed.as_file());
    contents(&mut buffer)?;
    let flushed = buffer.flush();
    drop(buffer);
    let finish = || -> std::io::Result<()> {
        flushed?;
        unnamed.as_file().sync_all()?;
        unnamed.persist(path).map_err(|e| e.error)?;
        File::open(folder)?.sync_all()
    };
    Ok(finish().map_err(FileError::at("write", path))?)
}

/// Reads a file; `None` if it does not exist.
///
/// # Errors
/// If the file exists and cannot be read.
pub fn read_if_exists(path: &Path) -> Result<Option<Vec<u8>>, FileError> {
    some_if_exists(fs::read(path), path)
}

/// Reads a UTF-8 file; `None` if it does not exist.
///
/// # Errors
/// If the file exists and cannot be read, or is not UTF-8.
pub fn read_text_if_exists(path: &Path) -> Result<Option<String>, FileError> {
    some_if_exists(fs::read_to_string(path), path)
}

fn some_if_exists<T>(read: std::io::Result<T>, path: &Path) -> Result<Option<T>, FileError> {
    match read {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        read => read.map(Some).map_err(FileError::at("read", path)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(unix)]
    #[test]
    fn permissions_follow_the_umask() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("plain"), "x").unwrap();
        write_atomically(&dir.path().join("whole"), b"x").unwrap();
        let mode = |name: &str| fs::metadata(dir.path().join(name)).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode("whole"), mode("plain"));
    }

    #[test]
    fn a_write_that_fails_leaves_the_old_file_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        write_atomically(&path, b"old").unwrap();
        let failed = write_atomically_with(&path, |file| {
            file.write_all(b"new").unwrap();
            Err(FileError::at("write", &path)(std::io::Error::other("no luck")))
        });
        assert!(failed.unwrap_err().to_string().ends_with("no luck"));
        assert_eq!(read_if_exists(&path).unwrap().as_deref(), Some(&b"old"[..]));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn temporary_files_of_ended_processes_are_removed_and_those_in_use_stay() {
        let dir = tempfile::tempdir().unwrap();
        let in_use = temporary(dir.path()).unwrap();
        for name in [".Ab3xYz.tmp", "file.tmp", ".hidden"] {
            fs::write(dir.path().join(name), "x").unwrap();
        }
        fs::create_dir(dir.path().join(".folder.tmp")).unwrap();
        remove_abandoned(dir.path(), Duration::from_secs(3600)).unwrap();
        assert!(dir.path().join(".Ab3xYz.tmp").exists(), "it is new");
        remove_abandoned(dir.path(), Duration::ZERO).unwrap();
        fs::remove_dir(dir.path().join(".folder.tmp")).unwrap();
        let mut left: Vec<String> = fs::read_dir(dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
            .collect();
        left.sort();
        let mut expected = vec![
            in_use.path().file_name().unwrap().to_string_lossy().into_owned(),
            ".hidden".to_owned(),
            "file.tmp".to_owned(),
        ];
        expected.sort();
        assert_eq!(left, expected);
        in_use.persist(dir.path().join("file")).unwrap();
        assert!(
            remove_abandoned(&dir.path().join("no"), Duration::ZERO)
                .unwrap_err()
                .to_string()
                .starts_with("cannot read ")
        );
    }

    #[test]
    fn an_absent_file_is_none_and_an_unreadable_one_an_error() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(read_if_exists(&dir.path().join("no")).unwrap(), None);
        assert_eq!(read_text_if_exists(&dir.path().join("no")).unwrap(), None);
        let error = read_if_exists(dir.path()).unwrap_err().to_string();
        assert!(error.starts_with(&format!("cannot read {}: ", dir.path().display())), "{error}");
        write_atomically(&dir.path().join("bytes"), b"\xff").unwrap();
        assert!(read_text_if_exists(&dir.path().join("bytes")).is_err());
    }
}
