//! Making files of decoded and resized photographs: sized beforehand, resumable, put in place as a whole.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::thread;

use crate::client::Report;
use crate::dimensions::dimensions;
use crate::photos::Photos;
use crate::prepared::record::{self, Size, checked, record};
use crate::prepared::{Header, Part, Place, PreparedImages, SUFFIX, check_decoding, limited};
use crate::{DataError, Dataset as _, DatasetSpec, FetchEvent, Protocol};

/// Images in memory at a time, for each thread.
const EACH: usize = 16;
/// Suffix of an unfinished file's name.
const PARTIAL: &str = ".partial";

/// A file that [`prepare`] made, or found whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PreparedFile {
    /// Where it lies.
    pub path: PathBuf,
    /// The number of images in it, those that could not be decoded among them.
    pub images: usize,
    /// Its size.
    pub bytes: u64,
}

/// Decodes and resizes the training and test images of a set of photographs once, into files that [`open`](crate::open)
/// reads them from. `into` is their folder, by default `prepared` in the dataset's folder. The size is reported, and the free
/// space compared, before anything is decoded. What an ended call left is continued; what is there and whole is kept; files of
/// images that have changed since are removed when their successors are finished.
///
/// # Errors
/// If the dataset has no photographs or its protocol no fixed resize, if there is too little space, if a file cannot be read or
/// written, or if more images cannot be decoded than the spec allows.
pub fn prepare(
    spec: &DatasetSpec,
    folder: &Path,
    into: Option<&Path>,
    report: &mut dyn FnMut(FetchEvent<'_>),
) -> Result<Vec<PreparedFile>, DataError> {
    prepare_with(spec, folder, into, report, &free_space)
}

/// Bytes that this process may still write on the file system of a folder.
type Free<'a> = &'a dyn Fn(&Path) -> io::Result<u64>;

fn free_space(folder: &Path) -> io::Result<u64> {
    let found = rustix::fs::statvfs(folder)?;
    Ok(found.f_bavail.saturating_mul(found.f_frsize))
}

fn prepare_with(
    spec: &DatasetSpec,
    folder: &Path,
    into: Option<&Path>,
    report: &mut Report<'_>,
    free: Free<'_>,
) -> Result<Vec<PreparedFile>, DataError> {
    spec.check()?;
    let sets = spec.keys().photos(folder)?.ok_or_else(|| DataError::Value {
        key: "kind",
        problem: format!("{} has no protocol for photographs, so there is nothing to prepare", spec.name()),
    })?;
    let place = Place::new(spec, folder, into);
    let jobs = [Job::new(&place, Part::Train, &sets.train)?, Job::new(&place, Part::Test, &sets.test)?];
    let mut missing = Vec::new();
    for job in &jobs {
        if !job.is_done(report)? {
            missing.push(job);
        }
    }
    if !missing.is_empty() {
        fs::create_dir_all(&place.folder).map_err(|error| cannot_write(&place.folder, "create", &error))?;
        let planned =
            missing.iter().map(|job| job.planned(report)).collect::<Result<Vec<u64>, DataError>>()?;
        check_space(&place, &missing, &planned, report, free)?;
        for (job, planned) in missing.into_iter().zip(planned) {
            job.write(planned, report)?;
        }
    }
    for job in &jobs {
        job.remove_old(&place, report)?;
    }
    jobs.iter().map(Job::file).collect()
}

fn cannot_write(path: &Path, action: &str, error: &io::Error) -> DataError {
    DataError::prepared(path, format!("cannot {action}: {error}; --prepared DIR names another folder"))
}

/// Compares the size of all files with the free space, and reports both.
fn check_space(
    place: &Place<'_>,
    jobs: &[&Job<'_>],
    planned: &[u64],
    report: &mut Report<'_>,
    free: Free<'_>,
) -> Result<(), DataError> {
    let all: u64 = planned.iter().sum();
    let begun = |(job, planned): (&&Job<'_>, &u64)| {
        fs::metadata(job.partial()).map_or(0, |metadata| metadata.len()).min(*planned)
    };
    let there: u64 = jobs.iter().zip(planned).map(begun).sum();
    let free = free(&place.folder).map_err(DataError::io(&place.folder, "find the free space of"))?;
    let images: usize = jobs.iter().map(|job| job.images.len()).sum();
    let begun = if there == 0 { String::new() } else { format!(", of which {} are there", size(there)) };
    let text = format!("{images} images take {}{begun}; {} are free", size(all), size(free));
    if all - there > free {
        let problem = format!("{text}, too little; --prepared DIR names another folder");
        return Err(DataError::prepared(&place.folder, problem));
    }
    report(FetchEvent::Line(&format!("preparing in {}: {text}", place.folder.display())));
    Ok(())
}

/// Bytes in words.
fn size(bytes: u64) -> String {
    match bytes {
        large if large >= 10_000_000_000 => format!("{:.0} GB", large as f64 / 1e9),
        middle if middle >= 1_000_000_000 => format!("{:.1} GB", middle as f64 / 1e9),
        small => format!("{:.1} MB", small as f64 / 1e6),
    }
}

/// A file to make.
struct Job<'a> {
    photos: &'a Photos,
    header: Header,
    path: PathBuf,
    /// The images in it, by their index in the whole set.
    images: Vec<usize>,
    /// Whether these are not all images.
    is_limited: bool,
    part: Part,
}

impl<'a> Job<'a> {
    fn new(place: &Place<'_>, part: Part, photos: &'a Photos) -> Result<Self, DataError> {
        let protocol = photos.geometry().protocol;
        if !protocol.is_resize_fixed() {
            let problem = format!(
                "{} resizes a random part of each training image, so there is nothing to keep; the images are decoded \
                 each time",
                protocol.name()
            );
            return Err(DataError::Value { key: "protocol", problem });
        }
        let limit = place.limit(part);
        let key = match part {
            Part::Train => "train-limit",
            Part::Test => "test-limit",
        };
        let images = limited(photos, limit).map_err(|problem| DataError::Value { key, problem })?;
        let header = place.header(part, photos, limit);
        let path = place.folder.join(header.file_name()?);
        let is_limited = images.is_some();
        let images = images.unwrap_or_else(|| (0..photos.len()).collect());
        Ok(Self { photos, header, path, images, is_limited, part })
    }

    fn partial(&self) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(PARTIAL);
        name.into()
    }

    fn file(&self) -> Result<PreparedFile, DataError> {
        let bytes = fs::metadata(&self.path).map_err(DataError::io(&self.path, "read"))?.len();
        Ok(PreparedFile { path: self.path.clone(), images: self.images.len(), bytes })
    }

    /// Whether the finished file is there and whole.
    fn is_done(&self, report: &mut Report<'_>) -> Result<bool, DataError> {
        if !self.path.exists() {
            return Ok(false);
        }
        let step = format!("checking the prepared {} images", self.part.name());
        let images = self.is_limited.then(|| self.images.clone());
        let checked = PreparedImages::open(&self.path, &self.header, images).and_then(|prepared| {
            prepared.check(&mut |done, all| {
                report(FetchEvent::Progress { step: &step, done, total: Some(all) });
            })?;
            check_decoding(&prepared, self.photos)
        });
        match checked {
            Ok(()) => {
                report(FetchEvent::Line(&format!("{} is there and whole", self.path.display())));
                Ok(true)
            }
            Err(DataError::Prepared { .. }) => {
                let line = format!("{} is damaged or does not fit: made again", self.path.display());
                report(FetchEvent::Line(&line));
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// The file's size, by the sizes in the images' headers. Images that name none are not counted.
    fn planned(&self, report: &mut Report<'_>) -> Result<u64, DataError> {
        let geometry = self.photos.geometry();
        let resized = |size: [usize; 2]| {
            let [height, width] = geometry.resized_size(size[0], size[1]).map(|side| side as u32);
            Size { height, width }.record_len()
        };
        let step = format!("adding up the {} images", self.part.name());
        let start =
            record::header(&self.header).map_err(|problem| DataError::prepared(&self.path, problem))?;
        let mut bytes = (start.len() + self.images.len() * record::SIZES + record::FOOTER) as u64;
        if geometry.protocol == Protocol::CaffeSquash {
            return Ok(bytes + self.images.len() as u64 * resized([geometry.side; 2]));
        }
        for part in self.images.chunks(threads() * 64) {
            let found = in_parallel(part, |index| dimensions(self.photos.path(index)))?;
            bytes += found.into_iter().map(|size| size.map_or(0, &resized)).sum::<u64>();
            report(FetchEvent::Progress { step: &step, done: bytes, total: None });
        }
        Ok(bytes)
    }

    /// Makes the file, of about so many bytes.
    fn write(&self, planned: u64, report: &mut Report<'_>) -> Result<(), DataError> {
        let mut partial = Partial::open(&self.partial(), &self.header)?;
        partial.resume(self, report)?;
        let step = format!("decoding the {} images", self.part.name());
        let progress = |done: u64, report: &mut Report<'_>| {
            report(FetchEvent::Progress { step: &step, done, total: Some(planned) });
        };
        progress(partial.len, report);
        for part in self.images[partial.sizes.len()..].chunks(threads() * EACH) {
            let records = in_parallel(part, |index| match self.photos.resized(index) {
                Ok(picture) => Ok(record(Some(&picture))),
                Err(DataError::LeftOut { .. }) => Ok(record(None)),
                Err(error) => Err(error),
            })?;
            for bytes in records {
                partial.append(&bytes)?;
            }
            progress(partial.len, report);
        }
        let damaged = partial.sizes.iter().filter(|size| size.is_damaged()).count();
        partial.finish(&self.path)?;
        let file = self.file()?;
        let mut line =
            format!("prepared {}: {} images, {}", file.path.display(), file.images, size(file.bytes));
        if damaged > 0 {
            line.push_str(&format!("; left out as damaged: {damaged}"));
        }
        report(FetchEvent::Line(&line));
        Ok(())
    }

    /// Removes files of the same use whose images have changed.
    fn remove_old(&self, place: &Place<'_>, report: &mut Report<'_>) -> Result<(), DataError> {
        let partials = place.stale(&self.header, &format!("{SUFFIX}{PARTIAL}"))?;
        let is_free = |path: &Path| File::open(path).is_ok_and(|file| file.try_lock().is_ok());
        let partials = partials.into_iter().filter(|(path, _)| is_free(path));
        for (path, _) in place.stale(&self.header, SUFFIX)?.into_iter().chain(partials) {
            fs::remove_file(&path).map_err(DataError::io(&path, "remove"))?;
            report(FetchEvent::Line(&format!(
                "removed {}, as the images have changed since",
                path.display()
            )));
        }
        Ok(())
    }
}

fn threads() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

/// The results of all cores, in order; of several errors, the first image's.
fn in_parallel<T: Send>(
    images: &[usize],
    work: impl Fn(usize) -> Result<T, DataError> + Sync,
) -> Result<Vec<T>, DataError> {
    let parts: Vec<Result<Vec<T>, DataError>> = thread::scope(|scope| {
        let chunks = images.chunks(images.len().div_ceil(threads()).max(1));
        let work = &work;
        let handles: Vec<_> = chunks
            .map(|chunk| scope.spawn(move || chunk.iter().map(|&index| work(index)).collect()))
            .collect();
        handles
            .into_iter()
            .map(|handle| handle.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    });
    let mut all = Vec::with_capacity(images.len());
    for part in parts {
        all.extend(part?);
    }
    Ok(all)
}

/// A file that is being made, locked: the beginning of the finished one.
struct Partial {
    path: PathBuf,
    file: File,
    /// The images in it.
    sizes: Vec<Size>,
    /// The end of the last image.
    len: u64,
}

impl Partial {
    /// Opens what an ended process left, or starts the file.
    fn open(path: &Path, header: &Header) -> Result<Self, DataError> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
        let file = file.map_err(|error| cannot_write(path, "create", &error))?;
        // Renamed by a process that finished it between the two calls.
        let is_gone = || !path.exists();
        // Where a file system knows no locks, nothing is locked.
        if matches!(file.try_lock(), Err(TryLockError::WouldBlock)) || is_gone() {
            return Err(DataError::prepared(path, "another process is preparing this dataset"));
        }
        let start = record::header(header).map_err(|problem| DataError::prepared(path, problem))?;
        let mut partial = Self { path: path.to_owned(), file, sizes: Vec::new(), len: start.len() as u64 };
        let found = record::read_header(&partial.file, path)?;
        match found {
            Ok((found, end)) if found.is_for_the_same_images(header) => partial.len = end,
            _ => {
                partial.file.set_len(0).map_err(DataError::io(path, "empty"))?;
                partial.write(&start)?;
            }
        }
        Ok(partial)
    }

    /// Keeps the images up to the first one whose checksum does not fit, and cuts off the rest.
    fn resume(&mut self, job: &Job<'_>, report: &mut Report<'_>) -> Result<(), DataError> {
        let length = self.file.metadata().map_err(DataError::io(&self.path, "read"))?.len();
        self.file.seek(SeekFrom::Start(self.len)).map_err(DataError::io(&self.path, "read"))?;
        let mut reader = io::BufReader::with_capacity(1 << 20, &self.file);
        let (side, max_pixels) = (job.photos.geometry().side, job.photos.geometry().max_pixels);
        let step = format!("checking the {} images that are there", job.part.name());
        let (sizes, end) = (&mut self.sizes, &mut self.len);
        let mut bytes = vec![0; Size::DAMAGED.record_len() as usize];
        for &index in &job.images {
            if length - *end < Size::DAMAGED.record_len() {
                break;
            }
            bytes.truncate(Size::DAMAGED.record_len() as usize);
            let first = record::SIZES;
            reader.read_exact(&mut bytes[..first]).map_err(DataError::io(&self.path, "read"))?;
            let size = Size::of(&bytes);
            if !size.is_possible(side, max_pixels) || size.record_len() > length - *end {
                break;
            }
            bytes.resize(size.record_len() as usize, 0);
            reader.read_exact(&mut bytes[first..]).map_err(DataError::io(&self.path, "read"))?;
            if checked(&bytes) != Some(size) {
                break;
            }
            // Decoded again, as it may have been repaired.
            if size.is_damaged() {
                match job.photos.resized(index) {
                    Err(DataError::LeftOut { .. }) => {}
                    Err(error) => return Err(error),
                    Ok(_) => break,
                }
            }
            sizes.push(size);
            *end += size.record_len();
            report(FetchEvent::Progress { step: &step, done: *end, total: Some(length) });
        }
        self.file.set_len(self.len).map_err(DataError::io(&self.path, "shorten"))?;
        self.file.seek(SeekFrom::Start(self.len)).map_err(DataError::io(&self.path, "read"))?;
        Ok(())
    }

    fn append(&mut self, record: &[u8]) -> Result<(), DataError> {
        self.write(record)?;
        self.sizes.push(Size::of(record));
        self.len += record.len() as u64;
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), DataError> {
        self.file.write_all(bytes).map_err(DataError::io(&self.path, "write"))
    }

    /// Writes the index and gives the file its name.
    fn finish(mut self, path: &Path) -> Result<(), DataError> {
        let index = record::index(&self.sizes, self.len);
        self.write(&index)?;
        self.file.sync_all().map_err(DataError::io(&self.path, "write"))?;
        fs::rename(&self.path, path).map_err(DataError::io(&self.path, "rename"))?;
        let folder = path.parent().unwrap_or(Path::new("."));
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(DataError::io(folder, "write"))
    }
}

#[cfg(test)]
mod tests;
