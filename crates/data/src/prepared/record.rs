//! How a file of prepared images is laid out, and the bytes of its parts.
//!
//! ```text
//! header   magic (16 bytes), length n of the text (4), text in JSON (n), checksum of the text (32)
//! records  for each image: height (4), width (4), pixels (3 · height · width, planar), checksum of all these (32)
//! index    for each image: height (4), width (4)
//! footer   checksum of the index (32), place of the index (8), number of images (8), magic (16)
//! ```
//!
//! Numbers are little-endian, checksums blake3. An image that could not be decoded has height and width 0 and no pixels. The
//! footer comes last, so that a file without it is one that was not finished.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use super::Header;
use crate::DataError;
use crate::decode::Picture;

/// The number in it is the version of the layout.
pub(super) const MAGIC: [u8; 16] = *b"thinet pixels 1\n";
pub(super) const END: [u8; 16] = *b"thinet complete\n";
pub(super) const SUM: usize = blake3::OUT_LEN;
/// Bytes of a record before its pixels.
pub(crate) const SIZES: usize = 8;
pub(crate) const FOOTER: usize = SUM + 8 + 8 + END.len();
/// No header is longer.
const MOST_TEXT: usize = 1 << 16;

pub(super) fn checksum(bytes: &[u8]) -> [u8; SUM] {
    *blake3::hash(bytes).as_bytes()
}

/// Height and width of a stored image; both 0 where it could not be decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Size {
    pub(crate) height: u32,
    pub(crate) width: u32,
}

impl Size {
    pub(crate) const DAMAGED: Self = Self { height: 0, width: 0 };

    pub(crate) fn is_damaged(self) -> bool {
        self == Self::DAMAGED
    }

    pub(crate) fn pixels(self) -> u64 {
        3 * u64::from(self.height) * u64::from(self.width)
    }

    /// Bytes of the image's record.
    pub(crate) fn record_len(self) -> u64 {
        (SIZES + SUM) as u64 + self.pixels()
    }

    pub(super) fn bytes(self) -> [u8; SIZES] {
        let mut bytes = [0; SIZES];
        bytes[..4].copy_from_slice(&self.height.to_le_bytes());
        bytes[4..].copy_from_slice(&self.width.to_le_bytes());
        bytes
    }

    /// From the first eight bytes.
    pub(crate) fn of(bytes: &[u8]) -> Self {
        let number = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        Self { height: number(0), width: number(4) }
    }

    /// Whether an image whose shorter side is at least `side` can have this size.
    pub(crate) fn is_possible(self, side: usize, max_pixels: u64) -> bool {
        let shorter = self.height.min(self.width) as usize;
        self.is_damaged() || (shorter >= side && self.pixels() / 3 <= max_pixels.max((side * side) as u64))
    }
}

/// The record of an image, or of one that could not be decoded.
pub(crate) fn record(picture: Option<&Picture>) -> Vec<u8> {
    let size = picture.map_or(Size::DAMAGED, |picture| Size {
        // Resizing refuses sides that do not fit.
        height: picture.height as u32,
        width: picture.width as u32,
    });
    let mut bytes = vec![0; size.record_len() as usize - SUM];
    bytes[..SIZES].copy_from_slice(&size.bytes());
    if let Some(picture) = picture {
        picture.write_planar([0, 0], [picture.height, picture.width], &mut bytes[SIZES..]);
    }
    let sum = checksum(&bytes);
    bytes.extend_from_slice(&sum);
    bytes
}

/// The size of the image in a record, or of one that was marked as damaged; `None` if the checksum does not fit.
pub(crate) fn checked(record: &[u8]) -> Option<Size> {
    let (contents, sum) = record.split_at_checked(record.len().checked_sub(SUM)?)?;
    (contents.len() >= SIZES && checksum(contents) == *sum).then(|| Size::of(contents))
}

/// The header's bytes, checksum included.
pub(crate) fn header(header: &Header) -> Result<Vec<u8>, String> {
    let text = serde_json::to_vec(header).map_err(|error| error.to_string())?;
    let mut bytes = MAGIC.to_vec();
    bytes.extend_from_slice(&(text.len() as u32).to_le_bytes());
    bytes.extend_from_slice(&text);
    bytes.extend_from_slice(&checksum(&text));
    Ok(bytes)
}

/// Why a header cannot be used.
pub(crate) enum BadHeader {
    /// The file is shorter than its header, or its checksum is wrong.
    Damaged,
    /// It was written by a program with another layout, or is something else.
    Unknown,
}

impl BadHeader {
    pub(crate) fn problem(&self) -> &'static str {
        match self {
            Self::Damaged => "its header is damaged or cut off",
            Self::Unknown => "it was written by another version of this program, or is something else",
        }
    }
}

/// Reads the header; returns it with the place of the first record.
pub(crate) fn read_header(file: &File, path: &Path) -> Result<Result<(Header, u64), BadHeader>, DataError> {
    let mut start = [0; MAGIC.len() + 4];
    if !read_at(file, path, &mut start, 0)? {
        return Ok(Err(BadHeader::Damaged));
    }
    if start[..MAGIC.len()] != MAGIC {
        return Ok(Err(BadHeader::Unknown));
    }
    let len = Size::of(&[&start[MAGIC.len()..], &[0; 4]].concat()).height as usize;
    let mut text = vec![0; len.min(MOST_TEXT) + SUM];
    if len > MOST_TEXT || !read_at(file, path, &mut text, start.len() as u64)? {
        return Ok(Err(BadHeader::Damaged));
    }
    let (text, sum) = text.split_at(len);
    if checksum(text) != *sum {
        return Ok(Err(BadHeader::Damaged));
    }
    let end = (start.len() + len + SUM) as u64;
    Ok(serde_json::from_slice(text).map(|header| (header, end)).map_err(|_| BadHeader::Unknown))
}

/// Index and footer of images of these sizes whose records end at `end`.
pub(crate) fn index(sizes: &[Size], end: u64) -> Vec<u8> {
    let mut bytes: Vec<u8> = sizes.iter().flat_map(|size| size.bytes()).collect();
    let sum = checksum(&bytes);
    bytes.extend_from_slice(&sum);
    bytes.extend_from_slice(&end.to_le_bytes());
    bytes.extend_from_slice(&(sizes.len() as u64).to_le_bytes());
    bytes.extend_from_slice(&END);
    bytes
}

/// Fills the buffer from this place on; false if the file ends before.
pub(crate) fn read_at(file: &File, path: &Path, out: &mut [u8], place: u64) -> Result<bool, DataError> {
    match file.read_exact_at(out, place) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(DataError::io(path, "read")(error)),
    }
}
