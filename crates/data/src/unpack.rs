//! Unpacking a gzipped tar archive so that nothing is written outside its folder, whatever the archive says.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Component, Path, PathBuf};

use flate2::read::MultiGzDecoder;
use tar::EntryType;

/// What an archive may hold.
#[derive(Clone, Copy)]
pub(crate) struct Bounds {
    pub(crate) bytes: u64,
    pub(crate) entries: u64,
}

/// Writes the files below the folder `inner` of an archive into `target`, which exists and is empty, and syncs them.
/// Files beside that folder are checked and left out. Owners, times and permissions are those of new files.
///
/// # Errors
/// Names the entry: an absolute path, `..`, a link, a device, a file that occurs twice, more than the bounds allow. What was
/// written before is left to the caller.
pub(crate) fn unpack(
    archive: impl Read,
    inner: &str,
    target: &Path,
    bounds: Bounds,
) -> Result<(), UnpackError> {
    let mut archive = tar::Archive::new(MultiGzDecoder::new(archive));
    let damaged = |error: io::Error| UnpackError::Archive(format!("cannot be read: {error}"));
    let (mut bytes, mut entries) = (0, 0);
    let mut folders = BTreeSet::from([target.to_owned()]);
    let mut files = Vec::new();
    for entry in archive.entries().map_err(damaged)? {
        let mut entry = entry.map_err(damaged)?;
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let refused = |why: &str| UnpackError::Archive(format!("{name:?} {why}"));
        entries += 1;
        if entries > bounds.entries {
            return Err(refused(&format!("is one of more than {} entries", bounds.entries)));
        }
        let kind = entry.header().entry_type();
        if kind == EntryType::XGlobalHeader {
            continue;
        }
        let path = inside(&entry.path().map_err(damaged)?).map_err(refused)?;
        match kind {
            EntryType::Directory | EntryType::Regular | EntryType::Continuous => {}
            EntryType::Symlink | EntryType::Link => return Err(refused("is a link, which no dataset needs")),
            _ => return Err(refused("is neither a file nor a folder")),
        }
        bytes += if kind == EntryType::Directory { 0 } else { entry.size() };
        if bytes > bounds.bytes {
            return Err(refused(&format!("goes beyond {} bytes in all", bounds.bytes)));
        }
        let Ok(path) = path.strip_prefix(inner) else { continue };
        let path = target.join(path);
        let folder = if kind == EntryType::Directory { Some(&*path) } else { path.parent() };
        for folder in folder.into_iter().flat_map(Path::ancestors).take_while(|folder| *folder != target) {
            if !folders.insert(folder.to_owned()) {
                break;
            }
        }
        if let Some(folder) = folder {
            fs::create_dir_all(folder).map_err(UnpackError::disk(folder, "create"))?;
        }
        if kind != EntryType::Directory {
            write_file(&mut entry, &path)?;
            files.push(path);
        }
    }
    if files.is_empty() {
        return Err(UnpackError::Archive(format!("holds no file in a folder {inner:?}")));
    }
    // At the end, as the system has written most of it by then.
    for path in files.iter().chain(&folders) {
        File::open(path).and_then(|file| file.sync_all()).map_err(UnpackError::disk(path, "write"))?;
    }
    Ok(())
}

/// Why an archive was not unpacked.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum UnpackError {
    /// It is damaged, or it is not what it should be.
    Archive(String),
    /// A file or folder cannot be written.
    Disk(String),
}

impl UnpackError {
    fn disk(path: &Path, action: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |error| Self::Disk(format!("cannot {action} {}: {error}", path.display()))
    }
}

/// The path without `.`, if it leads to nothing outside the folder in which it is looked up.
fn inside(path: &Path) -> Result<PathBuf, &'static str> {
    let mut inside = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => inside.push(name),
            Component::CurDir => {}
            Component::ParentDir => return Err("leaves its folder"),
            Component::RootDir | Component::Prefix(_) => return Err("is an absolute path"),
        }
    }
    Ok(inside)
}

fn write_file(entry: &mut impl Read, path: &Path) -> Result<(), UnpackError> {
    // Never through or over what is there: nothing is, unless the archive names a file twice.
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(path)
        .map_err(UnpackError::disk(path, "create"))?;
    let mut buffer = [0; 32 << 10];
    loop {
        let read = entry.read(&mut buffer).map_err(|error| {
            UnpackError::Archive(format!("cannot be read at {}: {error}", path.display()))
        })?;
        if read == 0 {
            return Ok(());
        }
        file.write_all(&buffer[..read]).map_err(UnpackError::disk(path, "write"))?;
    }
}

#[cfg(unix)]
#[cfg(test)]
pub(crate) mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    /// A gzipped archive of entries: type, name as it is written, contents or the target of a link.
    pub(crate) fn archive(entries: &[(EntryType, &str, &[u8])]) -> Vec<u8> {
        let gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        let mut builder = tar::Builder::new(gzip);
        for (kind, name, contents) in entries {
            let is_link = matches!(kind, EntryType::Symlink | EntryType::Link);
            let contents = if is_link { &[][..] } else { contents };
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(*kind);
            header.set_mode(0o6777);
            header.set_size(contents.len() as u64);
            // `set_path` refuses what these tests are about.
            header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
            if is_link {
                header.set_link_name("/etc/passwd").unwrap();
            }
            header.set_cksum();
            builder.append(&header, contents).unwrap();
        }
        builder.into_inner().unwrap().finish().unwrap()
    }

    pub(crate) const FILE: EntryType = EntryType::Regular;

    /// Paths of files with their contents.
    pub(crate) type Tree = Vec<(String, Vec<u8>)>;

    /// The files in a folder and below.
    pub(crate) fn tree(folder: &Path) -> Tree {
        let mut found = Vec::new();
        for entry in fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            if entry.file_type().unwrap().is_dir() {
                let below = tree(&entry.path()).into_iter();
                found.extend(below.map(|(path, contents)| (format!("{name}/{path}"), contents)));
            } else {
                found.push((name, fs::read(entry.path()).unwrap()));
            }
        }
        found.sort();
        found
    }

    /// What is written into a folder that has a neighbour.
    fn unpacked(archive: &[u8], bounds: Bounds) -> (Result<(), UnpackError>, Tree) {
        let parent = tempfile::tempdir().unwrap();
        let target = parent.path().join("target");
        fs::create_dir(&target).unwrap();
        let outcome = unpack(archive, "set", &target, bounds);
        let written = tree(parent.path());
        for (path, _) in &written {
            let mode = fs::metadata(parent.path().join(path)).unwrap().permissions().mode();
            assert_eq!(mode & 0o7111, 0, "{path}: {mode:o}");
        }
        (outcome, written)
    }

    const SOME: Bounds = Bounds { bytes: 1000, entries: 10 };

    #[test]
    fn the_folder_is_unpacked_and_what_lies_beside_it_is_left_out() {
        let bytes = archive(&[
            (EntryType::XGlobalHeader, "pax_global_header", b""),
            (EntryType::Directory, "./set/", b""),
            (FILE, "./set/a.txt", b"a"),
            (EntryType::Directory, "set/empty", b""),
            (FILE, "set/b/c/d.txt", b"d"),
            (FILE, "attributes.txt", b"beside"),
            (FILE, "settings/e.txt", b"beside"),
        ]);
        let (outcome, written) = unpacked(&bytes, SOME);
        outcome.unwrap();
        let expected = [("target/a.txt", b"a"), ("target/b/c/d.txt", b"d")];
        assert_eq!(written, expected.map(|(path, contents)| (path.to_owned(), contents.to_vec())));
    }

    #[test]
    fn nothing_leaves_the_folder() {
        for (kind, name, says) in [
            (FILE, "../evil", "\"../evil\" leaves its folder"),
            (FILE, "set/../../evil", "leaves its folder"),
            (FILE, "set/../set/evil", "leaves its folder"),
            (FILE, "/tmp/evil", "\"/tmp/evil\" is an absolute path"),
            (EntryType::Directory, "set/../../evil", "leaves its folder"),
            (EntryType::Symlink, "set/link", "\"set/link\" is a link"),
            (EntryType::Symlink, "link", "is a link"),
            (EntryType::Link, "set/link", "is a link"),
            (EntryType::Char, "set/device", "is neither a file nor a folder"),
            (EntryType::Block, "set/device", "is neither a file nor a folder"),
            (EntryType::Fifo, "set/pipe", "is neither a file nor a folder"),
        ] {
            let (outcome, written) =
                unpacked(&archive(&[(FILE, "set/a", b"a"), (kind, name, b"evil")]), SOME);
            assert!(
                matches!(&outcome, Err(UnpackError::Archive(problem)) if problem.contains(says)),
                "{outcome:?}, not {says}"
            );
            assert_eq!(written, [("target/a".to_owned(), b"a".to_vec())]);
        }
    }

    #[test]
    fn names_that_meet_are_refused() {
        for second in ["set/a", "set/./a", "set/a/b"] {
            let (outcome, written) =
                unpacked(&archive(&[(FILE, "set/a", b"first"), (FILE, second, b"second")]), SOME);
            assert!(matches!(outcome, Err(UnpackError::Disk(_))), "{second}: {outcome:?}");
            assert_eq!(written, [("target/a".to_owned(), b"first".to_vec())]);
        }
    }

    #[test]
    fn an_archive_is_bounded() {
        let bytes = archive(&[(FILE, "set/a", &[0; 600]), (FILE, "b", &[0; 401])]);
        let (outcome, _) = unpacked(&bytes, SOME);
        assert_eq!(outcome, Err(UnpackError::Archive("\"b\" goes beyond 1000 bytes in all".to_owned())));
        unpacked(&bytes, Bounds { bytes: 1001, entries: 2 }).0.unwrap();
        let (outcome, _) = unpacked(&bytes, Bounds { bytes: 1001, entries: 1 });
        assert_eq!(outcome, Err(UnpackError::Archive("\"b\" is one of more than 1 entries".to_owned())));
    }

    #[test]
    fn damaged_and_foreign_archives_are_told() {
        let bytes = archive(&[(FILE, "set/a", &[7; 900])]);
        for (bytes, says) in [
            (&bytes[..bytes.len() / 2], "cannot be read"),
            (b"<html>log in</html>", "cannot be read"),
            (b"", "cannot be read"),
            (&archive(&[(FILE, "other/a", b"a")]), "holds no file in a folder \"set\""),
        ] {
            let (outcome, _) = unpacked(bytes, SOME);
            assert!(
                matches!(&outcome, Err(UnpackError::Archive(problem)) if problem.contains(says)),
                "{outcome:?}, not {says}"
            );
        }
    }
}
