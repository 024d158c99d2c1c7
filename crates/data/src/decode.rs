//! Decoding one PNG or JPEG file into pixels.

use std::fs;
use std::io::Cursor;
use std::panic::catch_unwind;
use std::path::Path;

use image::{DynamicImage, ImageDecoder as _, ImageFormat, ImageReader, Limits};

use crate::{DataError, jpeg};

/// Default of the key `max-pixels`: 10,000 × 10,000, a third of a gigabyte once decoded.
pub(crate) const MAX_PIXELS: u64 = 100_000_000;

/// A decoded image: `pixels: [height, width, channels]`, one byte a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Picture {
    pub(crate) width: usize,
    pub(crate) height: usize,
    pub(crate) channels: usize,
    pub(crate) pixels: Vec<u8>,
}

impl Picture {
    /// Decodes a file to RGB (`channels` 3) or grey (1). The format is detected from the contents, as some sets have PNG
    /// files with a JPEG name; alpha is dropped, colour profiles and orientation tags are not applied.
    ///
    /// A file that can be read but not used (damaged, or with more than `max_pixels`) is a [`DataError::Decode`], which some
    /// sets tolerate; one that cannot be read is a [`DataError::Io`].
    pub(crate) fn decode(path: &Path, channels: usize, max_pixels: u64) -> Result<Self, DataError> {
        let bytes = fs::read(path).map_err(DataError::io(path, "read"))?;
        // A damaged file must not end a study, even if it makes a decoder panic.
        let picture = catch_unwind(|| decoded(&bytes, channels, max_pixels))
            .unwrap_or_else(|_| Err("the decoder panicked".to_owned()));
        picture.map_err(|problem| DataError::Decode { path: path.to_owned(), problem })
    }

    /// Writes the window of `out`'s size at `[top, left]` to `out: [channels, height, width]`.
    pub(crate) fn write_planar(&self, [top, left]: [usize; 2], [height, width]: [usize; 2], out: &mut [u8]) {
        let (channels, row) = (self.channels, self.width * self.channels);
        for (channel, plane) in out.chunks_exact_mut(height * width).enumerate() {
            for (y, line) in plane.chunks_exact_mut(width).enumerate() {
                let start = (top + y) * row + left * channels;
                let source = self.pixels[start..start + width * channels].iter().skip(channel);
                line.iter_mut().zip(source.step_by(channels)).for_each(|(out, value)| *out = *value);
            }
        }
    }
}

fn decoded(bytes: &[u8], channels: usize, max_pixels: u64) -> Result<Picture, String> {
    let text = |error: image::ImageError| plain(&error.to_string());
    let reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format();
    let mut reader = reader.map_err(|error| error.to_string())?;
    if reader.format() == Some(ImageFormat::Jpeg) {
        let end =
            jpeg::end(bytes).ok_or("the JPEG data is cut off: there is no end marker behind its scans")?;
        // Bytes after the end marker are not part of the image.
        reader = ImageReader::with_format(Cursor::new(&bytes[..end]), ImageFormat::Jpeg);
    }
    let mut limits = Limits::default();
    // At most four channels of two bytes.
    limits.max_alloc = limits.max_alloc.max(Some(max_pixels.saturating_mul(8)));
    reader.limits(limits);
    let decoder = reader.into_decoder().map_err(text)?;
    let (width, height) = decoder.dimensions();
    check_pixels(height as usize, width as usize, max_pixels)?;
    let decoded = DynamicImage::from_decoder(decoder).map_err(text)?;
    let (width, height) = (decoded.width() as usize, decoded.height() as usize);
    let pixels = match channels {
        1 => decoded.into_luma8().into_raw(),
        _ => decoded.into_rgb8().into_raw(),
    };
    Ok(Picture { width, height, channels, pixels })
}

/// A decoder's message without Rust's debug syntax: names for the chunks of PNG files, words for the faults of compressed
/// pixels.
fn plain(message: &str) -> String {
    let mut message = message.to_owned();
    while let Some(start) = message.find("ChunkType {") {
        let Some(end) = message[start..].find('}').map(|at| start + at + 1) else { break };
        let name = message[start..end].split_once("type: ").map_or("", |(_, rest)| rest);
        let name = name.split(',').next().unwrap_or_default().to_owned();
        message.replace_range(start..end, &name);
    }
    if let Some((_, chunk)) = message.split_once("CRC error: ") {
        let chunk = chunk.split_once("while decoding ").map_or("a", |(_, chunk)| chunk);
        let chunk = chunk.trim_end_matches(['.', ' ']).trim_end_matches(" chunk");
        return format!("the PNG data is damaged: the checksum of its {chunk} chunk is wrong");
    }
    if message.contains("Corrupt deflate stream") {
        let what = if message.contains("InsufficientInput") { "cut off" } else { "damaged" };
        return format!("the PNG data is damaged: its compressed pixels are {what}");
    }
    message
}

/// Checks a size before memory is allocated: a file of some kilobytes can claim gigabytes.
pub(crate) fn check_pixels(height: usize, width: usize, max_pixels: u64) -> Result<(), String> {
    if (height as u64).saturating_mul(width as u64) <= max_pixels {
        return Ok(());
    }
    Err(format!("{height}×{width} are more than {max_pixels} pixels; the key \"max-pixels\" can allow more"))
}

#[cfg(test)]
mod tests {
    use image::{GrayImage, Luma, Rgb, RgbImage, Rgba, RgbaImage};

    use super::*;

    /// The whole image, planar.
    fn decode(path: &Path, channels: usize) -> Vec<u8> {
        let picture = Picture::decode(path, channels, MAX_PIXELS).unwrap();
        let mut out = vec![0; picture.pixels.len()];
        picture.write_planar([0, 0], [picture.height, picture.width], &mut out);
        out
    }

    #[test]
    fn png_pixels_come_out_planar_and_exact() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.png");
        RgbImage::from_fn(2, 2, |x, y| Rgb([x as u8, 10 + y as u8, 100])).save(&path).unwrap();
        assert_eq!(decode(&path, 3), [0, 1, 0, 1, 10, 10, 11, 11, 100, 100, 100, 100]);
        RgbaImage::from_pixel(1, 1, Rgba([1, 2, 3, 4])).save(&path).unwrap();
        assert_eq!(decode(&path, 3), [1, 2, 3]);
    }

    #[test]
    fn a_window_is_cut_where_it_is_said_to_lie() {
        let pixels = (0..4 * 5 * 3).collect();
        let picture = Picture { width: 5, height: 4, channels: 3, pixels };
        let mut out = [0; 12];
        picture.write_planar([2, 3], [2, 2], &mut out);
        // Pixel (y, x) has the values 15·y + 3·x + channel.
        assert_eq!(out, [39, 42, 54, 57, 40, 43, 55, 58, 41, 44, 56, 59]);
    }

    #[test]
    fn grey_and_rgb_are_turned_into_each_other() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.png");
        GrayImage::from_pixel(1, 1, Luma([77])).save(&path).unwrap();
        assert_eq!(decode(&path, 3), [77, 77, 77]);
        for (rgb, weight) in [([255, 0, 0], 0.2126), ([0, 255, 0], 0.7152), ([0, 0, 255], 0.0722)] {
            RgbImage::from_pixel(1, 1, Rgb(rgb)).save(&path).unwrap();
            let grey = decode(&path, 1)[0];
            assert!((f32::from(grey) - 255.0 * weight).abs() <= 1.0, "{rgb:?} gives {grey}");
        }
    }

    #[test]
    fn a_jpeg_is_close_to_what_was_written_whatever_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("jpeg-inside.png");
        RgbImage::from_pixel(16, 16, Rgb([200, 100, 50])).save_with_format(&path, ImageFormat::Jpeg).unwrap();
        for (plane, value) in decode(&path, 3).chunks_exact(256).zip([200, 100, 50u8]) {
            assert!(plane.iter().all(|found| found.abs_diff(value) <= 4), "{plane:?}");
        }
    }

    #[test]
    fn files_that_are_no_images_are_errors_that_name_them() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.png");
        let image = RgbImage::from_fn(32, 32, |x, y| Rgb([(x * 7) as u8, (y * 5) as u8, 3]));
        image.save(&path).unwrap();
        let whole = fs::read(&path).unwrap();
        image.save_with_format(&path, ImageFormat::Jpeg).unwrap();
        let jpeg = fs::read(&path).unwrap();
        let halves = [&whole[..whole.len() / 2], &jpeg[..jpeg.len() / 2], &jpeg[..jpeg.len() - 60]];
        for bytes in halves.into_iter().chain([&whole[..0], b"text"]) {
            fs::write(&path, bytes).unwrap();
            let error = Picture::decode(&path, 3, MAX_PIXELS).unwrap_err();
            assert!(matches!(&error, DataError::Decode { path: named, .. } if *named == path), "{error}");
        }
    }

    #[test]
    fn damage_is_said_in_words() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.png");
        RgbImage::from_fn(32, 32, |x, y| Rgb([(x * 7) as u8, (y * 5) as u8, 3])).save(&path).unwrap();
        let whole = fs::read(&path).unwrap();
        let says = |bytes: &[u8]| {
            fs::write(&path, bytes).unwrap();
            let error = Picture::decode(&path, 3, MAX_PIXELS).unwrap_err().to_string();
            error.split_once("cannot decode the image: ").unwrap().1.to_owned()
        };
        let mut header = whole.clone();
        header[20] ^= 1;
        assert_eq!(says(&header), "the PNG data is damaged: the checksum of its IHDR chunk is wrong");
        let twice = [&whole[..33], &whole[8..]].concat();
        assert!(says(&twice).contains("IHDR"), "{}", says(&twice));
        // Rust's debug syntax: braces, and names in one word.
        for at in 0..whole.len() {
            for change in [1, 0x80] {
                let mut bytes = whole.clone();
                bytes[at] ^= change;
                fs::write(&path, &bytes).unwrap();
                let Err(error) = Picture::decode(&path, 3, MAX_PIXELS) else { continue };
                let said = error.to_string();
                let is_of_rust =
                    said.contains(['{', '}']) || said.contains("ChunkType") || said.contains("Bad");
                assert!(!is_of_rust, "byte {at}: {said}");
            }
        }
        let deflate = "Format error decoding Png: Corrupt deflate stream. DistanceTooFarBack";
        assert_eq!(plain(deflate), "the PNG data is damaged: its compressed pixels are damaged");
        assert_eq!(plain("unexpected end of file"), "unexpected end of file");
    }

    #[test]
    fn a_file_that_cannot_be_read_is_not_called_damaged() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("folder.png")).unwrap();
        for name in ["no.png", "folder.png"] {
            let path = folder.path().join(name);
            let error = Picture::decode(&path, 3, MAX_PIXELS).unwrap_err();
            assert!(matches!(&error, DataError::Io { path: named, .. } if *named == path), "{error}");
        }
    }

    #[test]
    fn a_jpeg_with_bytes_behind_its_end_is_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.jpg");
        let image = RgbImage::from_fn(32, 32, |x, y| Rgb([(x * 7) as u8, (y * 5) as u8, 3]));
        image.save(&path).unwrap();
        let expected = decode(&path, 3);
        let whole = fs::read(&path).unwrap();
        // A motion photo's film, a thumbnail, a thumbnail that is cut off itself.
        for tail in [&b"ftypmp42 \xff\xda \xff\xd8 film"[..], &whole, &whole[..whole.len() - 60]] {
            fs::write(&path, [&whole, tail].concat()).unwrap();
            assert_eq!(decode(&path, 3), expected);
            fs::write(&path, [&whole[..whole.len() - 60], tail].concat()).unwrap();
            assert!(matches!(Picture::decode(&path, 3, MAX_PIXELS), Err(DataError::Decode { .. })));
        }
    }

    #[test]
    fn an_image_of_too_many_pixels_is_refused_before_it_is_decoded() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("bomb.png");
        fs::write(&path, header_only([20_000, 20_000])).unwrap();
        let error = Picture::decode(&path, 3, MAX_PIXELS).unwrap_err().to_string();
        let expected = "bomb.png: cannot decode the image: 20000×20000 are more than 100000000 pixels; the key \"max-pixels\" can allow more";
        assert!(error.ends_with(expected), "{error}");
        // With a higher limit it fails because its pixels are missing.
        fs::write(&path, header_only([30, 20])).unwrap();
        let error = Picture::decode(&path, 3, 600).unwrap_err().to_string();
        assert!(!error.contains("max-pixels"), "{error}");
        let error = Picture::decode(&path, 3, 599).unwrap_err().to_string();
        assert!(error.contains(": 20×30 are more than 599 pixels"), "{error}");
        RgbImage::from_pixel(30, 20, Rgb([1, 2, 3])).save_with_format(&path, ImageFormat::Jpeg).unwrap();
        let error = Picture::decode(&path, 3, 599).unwrap_err().to_string();
        assert!(error.contains(": 20×30 are more than 599 pixels"), "{error}");
        assert_eq!(Picture::decode(&path, 3, 600).unwrap().pixels.len(), 1800);
    }

    /// A PNG file of the size `[width, height]` that ends where its pixels should begin.
    fn header_only([width, height]: [u32; 2]) -> Vec<u8> {
        let header = [&b"IHDR"[..], &width.to_be_bytes(), &height.to_be_bytes(), &[8, 0, 0, 0, 0]].concat();
        let mut checksum = flate2::Crc::new();
        checksum.update(&header);
        let signature: &[u8] = b"\x89PNG\r\n\x1a\n\0\0\0\x0d";
        [signature, &header, &checksum.sum().to_be_bytes(), b"\0\0\0\x10IDAT"].concat()
    }

    #[test]
    fn colours_and_odd_files_come_out_as_pillows() {
        for name in ["cmyk.jpg", "ycck.jpg", "grey.jpg", "exif.jpg", "png-inside.JPEG"] {
            let read = |name: &str| {
                let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
                Picture::decode(&path, 3, MAX_PIXELS).unwrap()
            };
            let (ours, theirs) = (read(name), read(&format!("{name}.png")));
            assert_eq!((ours.height, ours.width), (theirs.height, theirs.width), "{name}");
            let differences: Vec<u8> =
                ours.pixels.iter().zip(&theirs.pixels).map(|(a, b)| a.abs_diff(*b)).collect();
            let mean = differences.iter().map(|d| f64::from(*d)).sum::<f64>() / differences.len() as f64;
            // Decoders differ in how they enlarge the colour planes, at hard edges by some levels.
            assert!(mean < 1.0, "{name}: {mean} on average, {} at most", differences.iter().max().unwrap());
        }
    }
}
