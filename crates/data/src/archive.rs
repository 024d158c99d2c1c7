//! Datasets that are published as one archive: it is downloaded, checked, unpacked aside and put in place as a whole.

use std::fs::{self, File, TryLockError};
use std::io::{self, BufReader, Read, Seek};
use std::path::{Path, PathBuf};

use md5::{Digest as _, Md5};

use crate::DataError;
use crate::client::{Client, FetchEvent, MOST_BYTES, Tell, file_name};
use crate::unpack::{Bounds, Refused, unpack};

/// A gzipped tar archive with a folder that is the dataset. All that is known about where a dataset comes from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Archive {
    /// The official address; its last part is the file's name.
    pub(crate) address: &'static str,
    /// The published checksum of the archive.
    pub(crate) md5: &'static str,
    /// The folder inside the archive.
    pub(crate) folder: &'static str,
    /// Files of that folder by which the dataset is recognised: where one is, all are looked for.
    pub(crate) files: &'static [&'static str],
}

const BOUNDS: Bounds = Bounds { bytes: MOST_BYTES, entries: 1_000_000 };

impl Archive {
    /// Where the dataset lies, or would: `folder` itself if it holds a file of it or is not there, else the archive's
    /// folder in it.
    pub(crate) fn place(&self, folder: &Path) -> PathBuf {
        let is_here = self.files.iter().any(|name| folder.join(name).is_file());
        if is_here || !folder.is_dir() { folder.to_owned() } else { folder.join(self.folder) }
    }

    /// Gets the dataset `name` into its [place](Self::place), where it is not yet. `read` reads it from a folder; what
    /// cannot be read is not put in place.
    ///
    /// # Errors
    /// Names the address, the file and what can be done.
    pub(crate) fn get(
        &self,
        name: &str,
        folder: &Path,
        client: &Client,
        read: &dyn Fn(&Path) -> Result<(), DataError>,
        tell: &mut Tell<'_>,
    ) -> Result<(), DataError> {
        // A relative path of one part has no parent.
        let folder = std::path::absolute(folder).map_err(DataError::io(folder, "find"))?;
        let place = self.place(&folder);
        let beside = place.parent().unwrap_or(&folder);
        let archive = beside.join(file_name(self.address));
        self.get_into(&place, &archive, client, read, tell).map_err(|tried| DataError::Fetch {
            dataset: name.to_owned(),
            folder: place.clone(),
            tried,
            by_hand: format!(
                "download {} (md5 {}) to {} and run the same command again; a copy of it elsewhere: --mirror URL, or \
                 THINET_MIRROR=URL",
                self.address,
                self.md5,
                archive.display()
            ),
        })
    }

    fn get_into(
        &self,
        place: &Path,
        archive: &Path,
        client: &Client,
        read: &dyn Fn(&Path) -> Result<(), DataError>,
        tell: &mut Tell<'_>,
    ) -> Result<(), String> {
        if is_occupied(place)? {
            let found = read(place).err().map_or_else(String::new, |error| format!(": {error}"));
            return Err(format!(
                "there is a part of it that is not touched{found}; move it away to start again"
            ));
        }
        if archive.is_file() {
            // Brought by hand; it is not ours to remove.
            let mut file = File::open(archive).map_err(|error| cannot("read", archive, &error))?;
            if let Err(TryLockError::WouldBlock) = file.try_lock() {
                return Err(format!("another process is unpacking {}", archive.display()));
            }
            self.check(&mut file, archive, tell)?;
            return self.install(&mut file, archive, place, read, tell);
        }
        let partial = with_ending(archive, ".partial");
        let mut file = self.download(&partial, client, tell)?;
        if !is_occupied(place)? {
            self.install(&mut file, &partial, place, read, tell)?;
        }
        if let Err(error) = fs::remove_file(&partial) {
            tell(FetchEvent::Line(&cannot("remove", &partial, &error)));
        }
        Ok(())
    }

    /// Downloads the archive; one with a wrong checksum is removed. Where only its end is new, its beginning may be of another
    /// file, so that it is downloaded once more.
    fn download(&self, partial: &Path, client: &Client, tell: &mut Tell<'_>) -> Result<File, String> {
        let address = client.address(self.address);
        let of_address = |problem: String| {
            let kept = fs::metadata(partial).map_or(0, |metadata| metadata.len());
            let kept = match kept {
                0 => String::new(),
                kept => format!(" ({kept} bytes in {} are kept for the next try)", partial.display()),
            };
            format!("{address}: {problem}{kept}")
        };
        loop {
            tell(FetchEvent::Line(&format!("downloading {address}")));
            let mut downloaded = client.download(self.address, partial, tell).map_err(of_address)?;
            let Err(problem) = self.check(&mut downloaded.file, partial, tell) else {
                return Ok(downloaded.file);
            };
            fs::remove_file(partial).map_err(|error| cannot("remove", partial, &error))?;
            if !downloaded.resumed {
                return Err(format!("{address}: {problem}; it was removed"));
            }
            tell(FetchEvent::Line(&format!(
                "{problem}; starting again, as its beginning was of an earlier try"
            )));
        }
    }

    /// Compares the checksum of a file, which is then at its start.
    fn check(&self, file: &mut File, path: &Path, tell: &mut Tell<'_>) -> Result<(), String> {
        let unreadable = |error: io::Error| cannot("read", path, &error);
        let total = file.metadata().map_err(unreadable)?.len();
        let step = format!("checking {}", file_name(self.address));
        file.rewind().map_err(unreadable)?;
        let (mut md5, mut done, mut start) = (Md5::new(), 0, Vec::new());
        let mut buffer = vec![0; 256 << 10];
        loop {
            let read = file.read(&mut buffer).map_err(unreadable)?;
            if read == 0 {
                break;
            }
            if done == 0 {
                start.extend_from_slice(&buffer[..read.min(2)]);
            }
            md5.update(&buffer[..read]);
            done += read as u64;
            tell(FetchEvent::Progress { step: &step, done, total: Some(total) });
        }
        file.rewind().map_err(unreadable)?;
        let found: String = md5.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        if found == self.md5 {
            return Ok(());
        }
        let kind = if start == [0x1f, 0x8b] {
            ""
        } else {
            " and is no gzip archive at all (the page of a login, a proxy or an error?)"
        };
        Err(format!("md5 of {} ({done} bytes) is {found}, expected {}{kind}", path.display(), self.md5))
    }

    /// Unpacks the archive, which is locked, beside the place, reads the dataset, and renames it.
    fn install(
        &self,
        file: &mut File,
        path: &Path,
        place: &Path,
        read: &dyn Fn(&Path) -> Result<(), DataError>,
        tell: &mut Tell<'_>,
    ) -> Result<(), String> {
        let beside = place.parent().unwrap_or(place);
        tell(FetchEvent::Line(&format!("unpacking {}", path.display())));
        let unpacked = self.temporary_folder(beside)?;
        let total = file.metadata().map_or(0, |metadata| metadata.len());
        let step = format!("unpacking {}", file_name(self.address));
        let mut done = 0;
        let counted = Counted {
            inner: BufReader::with_capacity(256 << 10, file),
            count: &mut |bytes| {
                done += bytes as u64;
                tell(FetchEvent::Progress { step: &step, done, total: Some(total) });
            },
        };
        unpack(counted, self.folder, unpacked.path(), BOUNDS).map_err(|refused| match refused {
            Refused::Archive(problem) => format!("{} {problem}", path.display()),
            Refused::Disk(problem) => problem,
        })?;
        read(unpacked.path()).map_err(|error| format!("the archive is not the dataset: {error}"))?;
        // Only an empty folder or none is replaced.
        fs::rename(unpacked.path(), place).map_err(|error| cannot("create", place, &error))?;
        // It is in place, and there is nothing to remove.
        let _ = unpacked.keep();
        // Not every file system can sync a folder.
        let _ = File::open(beside).and_then(|folder| folder.sync_all());
        Ok(())
    }

    /// An empty folder that is removed unless it is kept. Those of processes that were killed are removed, too: no other
    /// process can be unpacking, as the archive is locked.
    fn temporary_folder(&self, beside: &Path) -> Result<tempfile::TempDir, String> {
        let prefix = format!(".unpacking-{}-", self.folder);
        for entry in fs::read_dir(beside).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with(&prefix) {
                // What cannot be removed is only in nobody's way.
                let _ = fs::remove_dir_all(entry.path());
            }
        }
        let mut builder = tempfile::Builder::new();
        builder.prefix(&prefix);
        // Temporary folders can be read by their owner only; a dataset follows the umask.
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            builder.permissions(fs::Permissions::from_mode(0o777));
        }
        builder.tempdir_in(beside).map_err(|error| cannot("write in", beside, &error))
    }
}

fn cannot(action: &str, path: &Path, error: &io::Error) -> String {
    format!("cannot {action} {}: {error}", path.display())
}

/// Whether there is anything but an empty folder.
fn is_occupied(place: &Path) -> Result<bool, String> {
    match fs::read_dir(place) {
        Ok(mut entries) => Ok(entries.next().is_some()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(cannot("list", place, &error)),
    }
}

fn with_ending(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

/// Tells how much was read.
struct Counted<'a, R> {
    inner: R,
    count: &'a mut dyn FnMut(usize),
}

impl<R: Read> Read for Counted<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        (self.count)(read);
        Ok(read)
    }
}

#[cfg(unix)]
#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::test_server::{Server, cut, ranged, response};
    use crate::unpack::tests::{FILE, archive, tree};

    const OFFICIAL: &str = "https://official.invalid/~kriz/set.tar.gz";
    const TAG: &str = "\"one\"";

    /// An archive of these files below `set/`, and what is published about it.
    fn published(files: &[(&str, &[u8])]) -> (Vec<u8>, Archive) {
        let names: Vec<String> = files.iter().map(|(name, _)| format!("set/{name}")).collect();
        let entries: Vec<_> = names.iter().zip(files).map(|(name, file)| (FILE, &**name, file.1)).collect();
        let bytes = archive(&entries);
        let md5: String = Md5::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        let md5 = Box::leak(md5.into_boxed_str());
        (bytes, Archive { address: OFFICIAL, md5, folder: "set", files: &["a.bin", "b.bin"] })
    }

    /// Bytes that do not shrink when they are packed.
    fn noise(len: usize) -> Vec<u8> {
        let next = |state: &mut u64| {
            *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            Some((*state >> 56) as u8)
        };
        std::iter::repeat_n((), len).scan(1, |state, ()| next(state)).collect()
    }

    /// The set has both files.
    fn read(folder: &Path) -> Result<(), DataError> {
        for name in ["a.bin", "b.bin"] {
            let path = folder.join(name);
            if !path.is_file() {
                return Err(DataError::Missing { path, hint: "a file of the set".to_owned() });
            }
        }
        Ok(())
    }

    fn get(archive: &Archive, folder: &Path, server: &Server) -> (Result<(), String>, Vec<String>) {
        let client = Client::of_tests(Some(&format!("{}/mirror", server.address)), MOST_BYTES);
        let mut lines = Vec::new();
        let outcome = archive.get("The Set", folder, &client, &read, &mut |event| {
            if let FetchEvent::Line(line) = event {
                lines.push(line.to_owned());
            }
        });
        (outcome.map_err(|error| error.to_string()), lines)
    }

    fn entry(name: &str, contents: &[u8]) -> (String, Vec<u8>) {
        (name.to_owned(), contents.to_vec())
    }

    #[test]
    fn a_folder_that_is_not_there_becomes_the_dataset_and_one_that_is_gets_it() {
        let (bytes, archive) = published(&[("a.bin", b"A"), ("b.bin", b"B")]);
        let server = Server::new(move |_, request| ranged(request, &bytes, TAG));
        let parent = tempfile::tempdir().unwrap();
        let (outcome, lines) = get(&archive, &parent.path().join("new/x"), &server);
        outcome.unwrap();
        assert_eq!(tree(parent.path()), [entry("new/x/a.bin", b"A"), entry("new/x/b.bin", b"B")]);
        assert_eq!(server.requests()[0].path(), "/mirror/set.tar.gz");
        assert_eq!(lines[0], format!("downloading {}/mirror/set.tar.gz", server.address));
        assert!(lines[1].starts_with("unpacking ") && lines.len() == 2, "{lines:?}");

        let other = tempfile::tempdir().unwrap();
        fs::write(other.path().join("mine.txt"), "mine").unwrap();
        get(&archive, other.path(), &server).0.unwrap();
        let expected = [entry("mine.txt", b"mine"), entry("set/a.bin", b"A"), entry("set/b.bin", b"B")];
        assert_eq!(tree(other.path()), expected);
        assert_eq!(archive.place(other.path()), other.path().join("set"));
        assert_eq!(archive.place(&other.path().join("set")), other.path().join("set"));
    }

    #[test]
    fn what_a_killed_process_unpacked_is_removed_and_nothing_else() {
        let (bytes, archive) = published(&[("a.bin", b"A"), ("b.bin", b"B")]);
        let server = Server::new(move |_, request| ranged(request, &bytes, TAG));
        let parent = tempfile::tempdir().unwrap();
        for name in [".unpacking-set-1x", ".unpacking-other-1x"] {
            fs::create_dir(parent.path().join(name)).unwrap();
            fs::write(parent.path().join(name).join("a.bin"), "old").unwrap();
        }
        get(&archive, &parent.path().join("x"), &server).0.unwrap();
        let expected =
            [entry(".unpacking-other-1x/a.bin", b"old"), entry("x/a.bin", b"A"), entry("x/b.bin", b"B")];
        assert_eq!(tree(parent.path()), expected);
    }

    #[test]
    fn folders_follow_the_umask() {
        use std::os::unix::fs::PermissionsExt as _;
        let (bytes, archive) = published(&[("a.bin", b"A"), ("b.bin", b"B")]);
        let server = Server::new(move |_, request| ranged(request, &bytes, TAG));
        let parent = tempfile::tempdir().unwrap();
        fs::create_dir(parent.path().join("plain")).unwrap();
        get(&archive, &parent.path().join("set"), &server).0.unwrap();
        let mode = |name: &str| fs::metadata(parent.path().join(name)).unwrap().permissions().mode();
        assert_eq!(mode("set"), mode("plain"));
    }

    #[test]
    fn a_wrong_checksum_is_refused_with_everything_that_helps_and_leaves_nothing() {
        let (bytes, archive) = published(&[("a.bin", b"A"), ("b.bin", b"B")]);
        let (other, of_other) = published(&[("a.bin", b"A"), ("b.bin", b"C")]);
        let size = other.len();
        let server = Server::new(move |number, _| match number {
            0 => response("200 OK", "", &other),
            1 => response("200 OK", "content-type: text/html\r\n", b"<html>Please log in</html>"),
            _ => response("200 OK", "", &bytes),
        });
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("x");
        let (outcome, _) = get(&archive, &folder, &server);
        let beside = parent.path().display();
        assert_eq!(
            outcome.unwrap_err(),
            format!(
                "cannot get The Set into {beside}/x: {}/mirror/set.tar.gz: md5 of {beside}/set.tar.gz.partial \
                 ({size} bytes) is {}, expected {}; it was removed; to get it by hand: download {OFFICIAL} (md5 {}) to \
                 {beside}/set.tar.gz and run the same command again; a copy of it elsewhere: --mirror URL, or \
                 THINET_MIRROR=URL",
                server.address, of_other.md5, archive.md5, archive.md5
            )
        );
        assert_eq!(tree(parent.path()), []);
        let page = get(&archive, &folder, &server).0.unwrap_err();
        assert!(page.contains("and is no gzip archive at all (the page of a login"), "{page}");
        assert_eq!(tree(parent.path()), []);
        get(&archive, &folder, &server).0.unwrap();
        read(&folder).unwrap();
    }

    #[test]
    fn a_beginning_of_another_file_is_found_by_the_checksum_and_thrown_away() {
        let (bytes, archive) = published(&[("a.bin", &noise(900)), ("b.bin", b"B")]);
        let server = Server::new(move |_, request| ranged(request, &bytes, TAG));
        let parent = tempfile::tempdir().unwrap();
        fs::write(parent.path().join("set.tar.gz.partial"), [0; 100]).unwrap();
        let (outcome, lines) = get(&archive, &parent.path().join("x"), &server);
        outcome.unwrap();
        assert_eq!(
            server.requests().iter().map(|request| request.start()).collect::<Vec<_>>(),
            [Some(100), None]
        );
        assert!(lines.iter().any(|line| line.contains("starting again")), "{lines:?}");
        assert_eq!(tree(parent.path()), [entry("x/a.bin", &noise(900)), entry("x/b.bin", b"B")]);
    }

    #[test]
    fn a_cut_download_is_kept_and_the_next_one_goes_on() {
        let (bytes, archive) = published(&[("a.bin", &noise(900)), ("b.bin", b"B")]);
        let half = bytes.len() / 2;
        let server = Server::new(move |number, request| match number {
            0 => cut(ranged(request, &bytes, TAG), bytes.len() - half),
            1 => response("404 Not Found", "", b""),
            _ => ranged(request, &bytes, TAG),
        });
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("x");
        let problem = get(&archive, &folder, &server).0.unwrap_err();
        let kept = format!(
            "the server answered 404 Not Found ({half} bytes in {}/set.tar.gz.partial are kept for the next try)",
            parent.path().display()
        );
        assert!(problem.contains(&kept), "{problem}");
        assert!(!folder.exists());
        get(&archive, &folder, &server).0.unwrap();
        assert_eq!(server.requests()[2].start(), Some(half));
        assert_eq!(tree(parent.path()).len(), 2);
    }

    #[test]
    fn an_archive_that_was_brought_by_hand_is_used_and_kept() {
        let (bytes, archive) = published(&[("a.bin", b"A"), ("b.bin", b"B")]);
        let server = Server::new(|_, _| response("404 Not Found", "", b""));
        let parent = tempfile::tempdir().unwrap();
        let by_hand = parent.path().join("set.tar.gz");
        fs::write(&by_hand, &bytes[1..]).unwrap();
        let folder = parent.path().join("x");
        let problem = get(&archive, &folder, &server).0.unwrap_err();
        assert!(problem.contains(&format!("md5 of {} ", by_hand.display())), "{problem}");
        assert!(by_hand.exists() && !folder.exists());
        fs::write(&by_hand, &bytes).unwrap();
        get(&archive, &folder, &server).0.unwrap();
        read(&folder).unwrap();
        assert_eq!(fs::read(&by_hand).unwrap(), bytes);
        assert!(server.requests().is_empty());
    }

    #[test]
    fn a_part_of_the_dataset_is_not_touched() {
        let (_, archive) = published(&[("a.bin", b"A"), ("b.bin", b"B")]);
        let server = Server::new(|_, _| response("404 Not Found", "", b""));
        for part in ["b.bin", "set/b.bin", "set/other"] {
            let parent = tempfile::tempdir().unwrap();
            let path = parent.path().join(part);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, "mine").unwrap();
            let problem = get(&archive, parent.path(), &server).0.unwrap_err();
            let expected = "/a.bin: not found; a file of the set; move it away to start again";
            assert!(
                problem.contains("a part of it that is not touched: ") && problem.contains(expected),
                "{problem}"
            );
            assert_eq!(tree(parent.path()), [entry(part, b"mine")]);
        }
        assert!(server.requests().is_empty());
    }

    #[test]
    fn an_archive_that_is_not_the_dataset_is_not_put_in_place() {
        let (bytes, archive) = published(&[("a.bin", b"A")]);
        let size = bytes.len();
        let server = Server::new(move |_, request| ranged(request, &bytes, TAG));
        let parent = tempfile::tempdir().unwrap();
        let problem = get(&archive, &parent.path().join("x"), &server).0.unwrap_err();
        assert!(
            problem.contains("the archive is not the dataset: ") && problem.contains("b.bin: not found"),
            "{problem}"
        );
        let left = tree(parent.path());
        assert_eq!((left.len(), &*left[0].0, left[0].1.len()), (1, "set.tar.gz.partial", size));
    }

    const NAME: &str =
        "archive::tests::a_disk_that_fills_up_while_unpacking_leaves_nothing_that_passes_for_a_dataset";

    /// In a process of its own that may write files of at most 64 KiB, which the archive is below and its contents above.
    #[test]
    fn a_disk_that_fills_up_while_unpacking_leaves_nothing_that_passes_for_a_dataset() {
        let parent = |path: &str| PathBuf::from(path);
        let (bytes, archive) = published(&[("a.bin", b"A"), ("b.bin", &[0; 200_000])]);
        if let Ok(path) = std::env::var("THINET_TEST_FULL") {
            let server = Server::new(move |_, request| ranged(request, &bytes, TAG));
            let problem = get(&archive, &parent(&path).join("x"), &server).0.unwrap_err();
            assert!(problem.contains("b.bin: File too large"), "{problem}");
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let program = std::env::current_exe().unwrap();
        // Blocks of 512 or 1024 bytes; a write beyond is an error instead of a signal.
        let limited = Command::new("sh")
            .args(["-c", "trap '' XFSZ; ulimit -f 64; exec \"$@\"", "sh"])
            .arg(program)
            .args(["--exact", NAME, "--test-threads=1"])
            .env("THINET_TEST_FULL", folder.path())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&limited.stdout);
        assert!(limited.status.success() && said.contains("1 passed"), "{said}");
        // The archive is whole, so that nothing is downloaded again once there is room.
        let left = tree(folder.path());
        assert_eq!((left.len(), &*left[0].0), (1, "set.tar.gz.partial"));
        let server = Server::new(move |_, request| ranged(request, &bytes, TAG));
        get(&archive, &folder.path().join("x"), &server).0.unwrap();
        read(&folder.path().join("x")).unwrap();
        assert_eq!(server.requests()[0].start(), Some(left[0].1.len()));
    }
}
