//! Cache of calibration images: photographs are decoded once and stored as bytes for all cells that use the same ones.
//!
//! A file `crops/<hash>.u8` in the results folder holds the images of one draw, one after the other, and a checksum. It is no result and
//! can be removed at any time; it is then decoded again.

use std::fs;
use std::io::{BufReader, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use thinet_data::{DataError, Dataset};
use thinet_files::write_atomically_with;

use super::Context;
use crate::error::HarnessError;
use crate::store::{Claim, paths};

/// A dataset to read, the order to read it in, and for each of its indices the index in the whole set.
type CachedImages = (Arc<dyn Dataset>, Vec<usize>, Vec<usize>);

/// The images `drawn` of `data`: from memory, or from the cache where reading means decoding.
pub(crate) fn cached(
    context: &Context<'_>,
    data: &Arc<dyn Dataset>,
    drawn: Vec<usize>,
    progress: &dyn Fn(u64, u64),
) -> Result<CachedImages, HarnessError> {
    if !data.is_decoded_each_time() {
        let indices = (0..data.len()).collect();
        return Ok((data.clone(), drawn, indices));
    }
    let len = data.shape().iter().product::<usize>();
    let path = paths::crops(&context.plan.results).join(format!("{}.u8", name(&**data, &drawn)));
    let _claim = Claim::take(&path.with_extension("claim"), &context.feed.stop, context.timing, &|_| ())?;
    let stored = read_flags(&path, drawn.len(), len)?;
    let is_there = match stored {
        Some(is_there) if are_left_out(&**data, &drawn, &is_there, len)? => is_there,
        _ => context.feed.busy.time(|| decode(&path, &**data, &drawn, len, progress))?,
    };
    let file = fs::File::open(&path).map_err(HarnessError::io("open", &path))?;
    let crops = Crops {
        name: data.name().to_owned(),
        classes: data.classes(),
        shape: data.shape(),
        labels: drawn.iter().map(|&index| data.label(index)).collect(),
        fingerprint: data.fingerprint().to_owned(),
        is_there,
        path,
        file: Mutex::new(file),
    };
    Ok((Arc::new(crops), (0..drawn.len()).collect(), drawn))
}

/// A file name that depends on the images and their preprocessing.
fn name(data: &dyn Dataset, drawn: &[usize]) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"thinet crops v1").update(data.fingerprint().as_bytes());
    for index in drawn {
        hasher.update(&(*index as u64).to_le_bytes());
    }
    hasher.finalize().to_hex()[..24].to_owned()
}

/// Bytes of the checksum at the end.
const CHECKSUM: usize = blake3::OUT_LEN;

/// Which images could be decoded: a byte for each, after the images. `None` if the file does not exist or is damaged.
fn read_flags(path: &PathBuf, count: usize, len: usize) -> Result<Option<Vec<bool>>, HarnessError> {
    let file = match fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(HarnessError::io("open", path)(error)),
    };
    let io = HarnessError::io("read", path);
    if file.metadata().map_err(io)?.len() != (count * (len + 1) + CHECKSUM) as u64 {
        return Ok(None);
    }
    let read = || -> std::io::Result<Option<Vec<u8>>> {
        let mut hasher = blake3::Hasher::new();
        let mut file = BufReader::new(&file);
        std::io::copy(&mut (&mut file).take((count * len) as u64), &mut hasher)?;
        let (mut flags, mut checksum) = (vec![0; count], [0; CHECKSUM]);
        file.read_exact(&mut flags)?;
        file.read_exact(&mut checksum)?;
        hasher.update(&flags);
        Ok((*hasher.finalize().as_bytes() == checksum).then_some(flags))
    };
    let flags = read().map_err(HarnessError::io("read", path))?;
    Ok(flags.map(|flags| flags.into_iter().map(|flag| flag == 1).collect()))
}

/// Whether the images that could not be decoded are still left out: this study may allow fewer than the one that wrote the file, or a
/// photograph was repaired.
fn are_left_out(
    data: &dyn Dataset,
    drawn: &[usize],
    is_there: &[bool],
    len: usize,
) -> Result<bool, HarnessError> {
    let mut out = vec![0; len];
    for (&index, _) in drawn.iter().zip(is_there).filter(|(_, is_there)| !**is_there) {
        match data.read(index, &mut out) {
            Err(DataError::LeftOut { .. }) => {}
            Ok(()) => return Ok(false),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(true)
}

/// Decodes the images on all cores and writes the file atomically. Returns which images could be decoded.
fn decode(
    path: &PathBuf,
    data: &dyn Dataset,
    drawn: &[usize],
    len: usize,
    progress: &dyn Fn(u64, u64),
) -> Result<Vec<bool>, HarnessError> {
    /// Images in memory at a time, for each thread.
    const EACH: usize = 16;
    let mut is_there = Vec::with_capacity(drawn.len());
    write_atomically_with(path, |file| -> Result<(), HarnessError> {
        let mut hasher = blake3::Hasher::new();
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        for part in drawn.chunks(threads * EACH) {
            let decoded = decode_part(data, part, len, threads)?;
            for image in decoded {
                is_there.push(image.is_some());
                let bytes = image.unwrap_or_else(|| vec![0; len]);
                hasher.update(&bytes);
                file.write_all(&bytes).map_err(HarnessError::io("write", path))?;
            }
            progress(is_there.len() as u64, drawn.len() as u64);
        }
        let flags: Vec<u8> = is_there.iter().map(|&flag| u8::from(flag)).collect();
        let checksum = hasher.update(&flags).finalize();
        file.write_all(&flags)
            .and_then(|()| file.write_all(checksum.as_bytes()))
            .map_err(HarnessError::io("write", path))
    })?;
    Ok(is_there)
}

/// The images in order; `None` for one that is left out.
fn decode_part(
    data: &dyn Dataset,
    part: &[usize],
    len: usize,
    threads: usize,
) -> Result<Vec<Option<Vec<u8>>>, HarnessError> {
    let read = |index: usize| -> Result<Option<Vec<u8>>, DataError> {
        let mut out = vec![0; len];
        match data.read(index, &mut out) {
            Ok(()) => Ok(Some(out)),
            Err(DataError::LeftOut { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    };
    let parts: Vec<Result<Vec<_>, DataError>> = std::thread::scope(|scope| {
        let chunks = part.chunks(part.len().div_ceil(threads).max(1));
        let handles: Vec<_> = chunks
            .map(|chunk| scope.spawn(move || chunk.iter().map(|&index| read(index)).collect()))
            .collect();
        let join = |handle: std::thread::ScopedJoinHandle<'_, _>| {
            handle.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        handles.into_iter().map(join).collect()
    });
    let mut images = Vec::with_capacity(part.len());
    for part in parts {
        images.extend(part?);
    }
    Ok(images)
}

/// The images of one cache file.
struct Crops {
    name: String,
    classes: usize,
    shape: [usize; 3],
    labels: Vec<usize>,
    fingerprint: String,
    is_there: Vec<bool>,
    path: PathBuf,
    file: Mutex<fs::File>,
}

impl Dataset for Crops {
    fn name(&self) -> &str {
        &self.name
    }

    fn classes(&self) -> usize {
        self.classes
    }

    fn len(&self) -> usize {
        self.labels.len()
    }

    fn shape(&self) -> [usize; 3] {
        self.shape
    }

    fn label(&self, index: usize) -> usize {
        self.labels[index]
    }

    fn read(&self, index: usize, out: &mut [u8]) -> Result<(), DataError> {
        if !self.is_there[index] {
            return Err(DataError::LeftOut { path: self.path.clone(), problem: format!("image {index}") });
        }
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let read = file.seek(SeekFrom::Start((index * out.len()) as u64)).and_then(|_| file.read_exact(out));
        read.map_err(|source| DataError::Io { path: self.path.clone(), action: "read", source })
    }

    fn fingerprint(&self) -> &str {
        &self.fingerprint
    }
}
