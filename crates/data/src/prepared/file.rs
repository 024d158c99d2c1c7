//! A finished file of prepared images: its checks when it is opened, and reading crops from it.

use std::cell::RefCell;
use std::fs::File;
use std::path::{Path, PathBuf};

use super::record::{self, END, FOOTER, SIZES, SUM, Size, checked, checksum, read_at, read_header};
use super::{AGAIN, Header};
use crate::DataError;

/// Decoded and resized images in a file. Every image is compared with its checksum whenever it is read.
///
/// Images are read by place, not mapped: a mapped file that another process shortens ends this one with a signal.
pub(crate) struct PreparedImages {
    path: PathBuf,
    file: File,
    /// The images in it by their index in the whole set, ascending; `None`: all of them.
    images: Option<Vec<usize>>,
    sizes: Vec<Size>,
    /// Where the record of each image starts.
    places: Vec<u64>,
}

thread_local! {
    /// The record that is read, reused for all images of a thread.
    static RECORD: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

impl PreparedImages {
    /// Opens a file that must fit this header. Header and index are compared with their checksums, and the length with the
    /// index; images are compared when they are read.
    pub(crate) fn open(path: &Path, wanted: &Header, images: Option<Vec<usize>>) -> Result<Self, DataError> {
        let refused = |problem: &str| DataError::prepared(path, format!("{problem}; {AGAIN}"));
        let file = File::open(path).map_err(DataError::io(path, "open"))?;
        let (header, start) = read_header(&file, path)?
            .map_err(|bad| refused(&format!("{}, so it is not used", bad.problem())))?;
        if let Some(difference) = header.difference(wanted) {
            return Err(refused(&difference));
        }
        let length = file.metadata().map_err(DataError::io(path, "read"))?.len();
        let sizes = read_index(&file, path, length, start, wanted)?
            .ok_or_else(|| refused("it is damaged or cut off, so it is not used"))?;
        let mut place = start;
        let places = sizes.iter().map(|size| {
            let start = place;
            place += size.record_len();
            start
        });
        Ok(Self { path: path.to_owned(), file, images, places: places.collect(), sizes })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// How many images the file holds, those that could not be decoded among them.
    pub(crate) fn len(&self) -> usize {
        self.sizes.len()
    }

    /// The index in the whole set of the file's image `number`.
    pub(crate) fn index(&self, number: usize) -> usize {
        self.images.as_ref().map_or(number, |images| images[number])
    }

    /// Whether the file's image `number` is one that could not be decoded.
    pub(crate) fn is_damaged(&self, number: usize) -> bool {
        self.sizes[number].is_damaged()
    }

    /// Writes the crop of `crop`×`crop` at `place`, which follows from height and width, to `out: [3, crop, crop]`. False,
    /// with `out` unchanged, if the image `index` of the whole set is not in the file or could not be decoded.
    pub(crate) fn cut(
        &self,
        index: usize,
        place: impl FnOnce([usize; 2]) -> [usize; 2],
        crop: usize,
        out: &mut [u8],
    ) -> Result<bool, DataError> {
        let number = match &self.images {
            Some(images) => images.binary_search(&index).ok(),
            None => (index < self.sizes.len()).then_some(index),
        };
        let Some(number) = number.filter(|number| !self.is_damaged(*number)) else { return Ok(false) };
        self.with_pixels(number, |[height, width], pixels| {
            let [top, left] = place([height, width]);
            let planes = out.chunks_exact_mut(crop * crop).zip(pixels.chunks_exact(height * width));
            for (out, plane) in planes {
                let rows = plane.chunks_exact(width).skip(top);
                out.chunks_exact_mut(crop)
                    .zip(rows)
                    .for_each(|(out, row)| out.copy_from_slice(&row[left..left + crop]));
            }
        })?;
        Ok(true)
    }

    /// Calls `work` with height, width and planar pixels of the file's image `number`, after comparing its checksum.
    pub(crate) fn with_pixels<T>(
        &self,
        number: usize,
        work: impl FnOnce([usize; 2], &[u8]) -> T,
    ) -> Result<T, DataError> {
        let size = self.sizes[number];
        RECORD.with_borrow_mut(|bytes| {
            bytes.resize(size.record_len() as usize, 0);
            let is_whole = read_at(&self.file, &self.path, bytes, self.places[number])?;
            if !is_whole || checked(bytes) != Some(size) {
                let problem = format!("image {number} in it is damaged; {AGAIN}");
                return Err(DataError::prepared(&self.path, problem));
            }
            Ok(work([size.height as usize, size.width as usize], &bytes[SIZES..bytes.len() - SUM]))
        })
    }

    /// Compares every image with its checksum; `done` is called with the bytes that have been read, and all.
    pub(crate) fn check(&self, done: &mut dyn FnMut(u64, u64)) -> Result<(), DataError> {
        let all = self.sizes.iter().map(|size| size.record_len()).sum();
        let mut read = 0;
        for (number, size) in self.sizes.iter().enumerate() {
            self.with_pixels(number, |_, _| ())?;
            read += size.record_len();
            done(read, all);
        }
        Ok(())
    }
}

/// The sizes of all images; `None` if the file does not end as its index says, or the index is damaged.
fn read_index(
    file: &File,
    path: &Path,
    length: u64,
    start: u64,
    wanted: &Header,
) -> Result<Option<Vec<Size>>, DataError> {
    let bytes = wanted.images * SIZES as u64;
    let Some(place) = length.checked_sub(bytes + FOOTER as u64).filter(|place| *place >= start) else {
        return Ok(None);
    };
    let mut end = vec![0; (length - place) as usize];
    if !read_at(file, path, &mut end, place)? || !end.ends_with(&END) {
        return Ok(None);
    }
    let (index, footer) = end.split_at(bytes as usize);
    let sizes: Vec<Size> = index.chunks_exact(SIZES).map(Size::of).collect();
    let is_fit = footer[..SUM] == checksum(index)
        && end == record::index(&sizes, place)
        && sizes.iter().all(|size| size.is_possible(wanted.side, wanted.max_pixels))
        && start + sizes.iter().map(|size| size.record_len()).sum::<u64>() == place;
    Ok(is_fit.then_some(sizes))
}
