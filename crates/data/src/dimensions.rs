//! Height and width of an image file from its header, without decoding it.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use image::ImageReader;

use crate::{DataError, jpeg};

/// Bytes at the start of a file that are read first; nearly every file states its size there.
const START: u64 = 64 << 10;

/// Height and width; `None` if the file does not state them. One that cannot be read is a [`DataError::Io`].
pub(crate) fn dimensions(path: &Path) -> Result<Option<[usize; 2]>, DataError> {
    let mut start = Vec::new();
    let file = File::open(path).map_err(DataError::io(path, "read"))?;
    file.take(START).read_to_end(&mut start).map_err(DataError::io(path, "read"))?;
    if let Some(size) = jpeg::size(&start) {
        return Ok(Some(size));
    }
    // A PNG file, or a JPEG file with much in front of its size.
    let reader = ImageReader::open(path).and_then(ImageReader::with_guessed_format);
    let found = reader.map_err(DataError::io(path, "read"))?.into_dimensions();
    Ok(found.ok().map(|(width, height)| [height as usize, width as usize]))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use image::{ImageFormat, RgbImage};

    use super::*;

    #[test]
    fn sizes_are_found_in_png_and_jpeg_files_and_behind_long_segments() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.png");
        RgbImage::new(7, 5).save(&path).unwrap();
        assert_eq!(dimensions(&path).unwrap(), Some([5, 7]));
        RgbImage::new(70, 50).save_with_format(&path, ImageFormat::Jpeg).unwrap();
        assert_eq!(dimensions(&path).unwrap(), Some([50, 70]));
        let whole = fs::read(&path).unwrap();
        let filler: Vec<u8> = [&[0xff, 0xe2, 0xff, 0xff][..], &[0; 0xfffd]].concat();
        fs::write(&path, [&whole[..2], &filler, &filler, &whole[2..]].concat()).unwrap();
        assert_eq!(dimensions(&path).unwrap(), Some([50, 70]));
        fs::write(&path, "no image").unwrap();
        assert_eq!(dimensions(&path).unwrap(), None);
        let missing = dimensions(&folder.path().join("no.png"));
        assert!(matches!(missing, Err(DataError::Io { .. })));
    }
}
