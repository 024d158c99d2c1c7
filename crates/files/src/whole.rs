//! Files that are written as a whole or not at all, files that may be absent, and content hashes.

use std::fs::{self, File};
use std::io::{BufWriter, ErrorKind, Write as _};
use std::path::Path;

use crate::FileError;

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
/// umask, unlike those of other temporary files.
///
/// # Errors
/// If the file cannot be created.
pub fn temporary(folder: &Path) -> std::io::Result<tempfile::NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(".").suffix(".tmp");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        builder.permissions(fs::Permissions::from_mode(0o666));
    }
    builder.tempfile_in(folder)
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
