//! Datasets that are published as one archive: it is downloaded, checked, unpacked aside and put in place as a whole.

use std::fs::{self, File, TryLockError};
use std::io::{self, BufReader, Read, Seek};
use std::path::{Path, PathBuf};

use md5::{Digest as _, Md5};

use crate::DataError;
use crate::client::{Client, FetchEvent, MOST_BYTES, Report, file_name};
use crate::unpack::{Bounds, UnpackError, unpack};

/// The gzipped tar archive that a dataset is published as; one of its folders is the dataset.
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
        report: &mut Report<'_>,
    ) -> Result<(), DataError> {
        // A relative path of one part has no parent.
        let folder = std::path::absolute(folder).map_err(DataError::io(folder, "find"))?;
        let place = self.place(&folder);
        let beside = place.parent().unwrap_or(&folder);
        let archive = beside.join(file_name(self.address));
        self.get_into(&place, &archive, client, read, report).map_err(|tried| DataError::Fetch {
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
        report: &mut Report<'_>,
    ) -> Result<(), String> {
        if is_occupied(place)? {
            let found = read(place).err().map_or_else(String::new, |error| format!(": {error}"));
            return Err(format!(
                "there is a part of it that is not touched{found}; move it away to start again"
            ));
        }
        if archive.is_file() {
            // Placed there by the user, so it is not removed.
            let mut file = File::open(archive).map_err(|error| cannot("read", archive, &error))?;
            if let Err(TryLockError::WouldBlock) = file.try_lock() {
                return Err(format!("another process is unpacking {}", archive.display()));
            }
            self.check(&mut file, archive, report)?;
            return self.install(&mut file, archive, place, read, report);
        }
        let partial = with_ending(archive, ".partial");
        let mut file = self.download(&partial, client, report)?;
        if !is_occupied(place)? {
            self.install(&mut file, &partial, place, read, report)?;
        }
        if let Err(error) = fs::remove_file(&partial) {
            report(FetchEvent::Line(&cannot("remove", &partial, &error)));
        }
        Ok(())
    }

    /// Downloads the archive; one with a wrong checksum is removed. Where only its end is new, its beginning may be of another
    /// file, so that it is downloaded once more.
    fn download(&self, partial: &Path, client: &Client, report: &mut Report<'_>) -> Result<File, String> {
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
            report(FetchEvent::Line(&format!("downloading {address}")));
            let mut downloaded = client.download(self.address, partial, report).map_err(of_address)?;
            let Err(problem) = self.check(&mut downloaded.file, partial, report) else {
                return Ok(downloaded.file);
            };
            fs::remove_file(partial).map_err(|error| cannot("remove", partial, &error))?;
            if !downloaded.resumed {
                return Err(format!("{address}: {problem}; it was removed"));
            }
            report(FetchEvent::Line(&format!(
                "{problem}; starting again, as its beginning was of an earlier try"
            )));
        }
    }

    /// Compares the checksum of a file, which is then at its start.
    fn check(&self, file: &mut File, path: &Path, report: &mut Report<'_>) -> Result<(), String> {
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
            report(FetchEvent::Progress { step: &step, done, total: Some(total) });
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
        report: &mut Report<'_>,
    ) -> Result<(), String> {
        let beside = place.parent().unwrap_or(place);
        report(FetchEvent::Line(&format!("unpacking {}", path.display())));
        let unpacked = self.temporary_folder(beside)?;
        let total = file.metadata().map_or(0, |metadata| metadata.len());
        let step = format!("unpacking {}", file_name(self.address));
        let mut done = 0;
        let counted = CountingReader {
            inner: BufReader::with_capacity(256 << 10, file),
            count: &mut |bytes| {
                done += bytes as u64;
                report(FetchEvent::Progress { step: &step, done, total: Some(total) });
            },
        };
        unpack(counted, self.folder, unpacked.path(), BOUNDS).map_err(|refused| match refused {
            UnpackError::Archive(problem) => format!("{} {problem}", path.display()),
            UnpackError::Disk(problem) => problem,
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
                // A folder that cannot be removed does no harm.
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

/// Counts the bytes that are read.
struct CountingReader<'a, R> {
    inner: R,
    count: &'a mut dyn FnMut(usize),
}

impl<R: Read> Read for CountingReader<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        (self.count)(read);
        Ok(read)
    }
}

#[cfg(unix)]
#[cfg(test)]
mod tests;
