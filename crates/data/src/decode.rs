//! Decoding one PNG or JPEG file into planar bytes of a given size.

use std::fs;
use std::io::Cursor;
use std::panic::catch_unwind;
use std::path::Path;

use fast_image_resize::images::Image;
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer};
use image::{ImageFormat, ImageReader};

use crate::{DataError, Resize};

/// What an image file is turned into: `channels` planes (3: RGB, 1: grey) of `size`×`size` bytes.
#[derive(Clone, Copy)]
pub(crate) struct Decoder {
    pub(crate) channels: usize,
    pub(crate) size: usize,
    pub(crate) resize: Resize,
}

impl Decoder {
    /// Decodes the file into `out: [c, size, size]`. The format is told by the contents, as some sets have PNG files
    /// under a JPEG name; alpha is dropped, colour profiles and orientation tags are not applied.
    pub(crate) fn decode(&self, path: &Path, out: &mut [u8]) -> Result<(), DataError> {
        // A damaged file must not bring a study down, even where it makes a decoder panic.
        let pixels = catch_unwind(|| self.interleaved(path))
            .unwrap_or_else(|_| Err("the decoder panicked".to_owned()));
        let pixels = pixels.map_err(|problem| DataError::Decode { path: path.to_owned(), problem })?;
        let plane_len = self.size * self.size;
        for (channel, plane) in out.chunks_exact_mut(plane_len).enumerate() {
            let values = pixels[channel..].iter().step_by(self.channels);
            plane.iter_mut().zip(values).for_each(|(out, value)| *out = *value);
        }
        Ok(())
    }

    /// The pixels at their final size, `[size, size, c]`.
    fn interleaved(&self, path: &Path) -> Result<Vec<u8>, String> {
        let bytes = fs::read(path).map_err(|error| error.to_string())?;
        let reader = ImageReader::new(Cursor::new(&bytes)).with_guessed_format();
        let reader = reader.map_err(|error| error.to_string())?;
        if reader.format() == Some(ImageFormat::Jpeg) && !has_jpeg_end(&bytes) {
            return Err("the JPEG data is cut off: no end marker after the last scan".to_owned());
        }
        let decoded = reader.decode().map_err(|error| error.to_string())?;
        let (width, height) = (decoded.width(), decoded.height());
        let (pixels, pixel_type) = match self.channels {
            1 => (decoded.into_luma8().into_raw(), PixelType::U8),
            _ => (decoded.into_rgb8().into_raw(), PixelType::U8x3),
        };
        let size = u32::try_from(self.size).map_err(|error| error.to_string())?;
        if (width, height) == (size, size) {
            return Ok(pixels);
        }
        let filter = match self.resize {
            Resize::Bicubic => FilterType::CatmullRom,
            Resize::Bilinear => FilterType::Bilinear,
        };
        let source =
            Image::from_vec_u8(width, height, pixels, pixel_type).map_err(|error| error.to_string())?;
        let mut target = Image::new(size, size, pixel_type);
        let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(filter));
        Resizer::new().resize(&source, &mut target, &options).map_err(|error| error.to_string())?;
        Ok(target.into_vec())
    }
}

/// Whether an end marker follows the last start of a scan. The decoder fills what is cut off a JPEG file with grey and
/// says nothing; neither marker can occur inside a scan, and an embedded thumbnail's end comes before the last scan.
fn has_jpeg_end(bytes: &[u8]) -> bool {
    let last = |marker: [u8; 2]| bytes.windows(2).rposition(|pair| pair == marker);
    last([0xff, 0xd9]) > last([0xff, 0xda])
}

#[cfg(test)]
mod tests {
    use image::{GrayImage, Luma, Rgb, RgbImage, Rgba, RgbaImage};

    use super::*;

    fn decode(path: &Path, channels: usize, size: usize, resize: Resize) -> Vec<u8> {
        let mut out = vec![0; channels * size * size];
        Decoder { channels, size, resize }.decode(path, &mut out).unwrap();
        out
    }

    #[test]
    fn png_pixels_come_out_planar_and_exact() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.png");
        RgbImage::from_fn(2, 2, |x, y| Rgb([x as u8, 10 + y as u8, 100])).save(&path).unwrap();
        assert_eq!(decode(&path, 3, 2, Resize::Bicubic), [0, 1, 0, 1, 10, 10, 11, 11, 100, 100, 100, 100]);
        RgbaImage::from_pixel(1, 1, Rgba([1, 2, 3, 4])).save(&path).unwrap();
        assert_eq!(decode(&path, 3, 1, Resize::Bicubic), [1, 2, 3]);
    }

    #[test]
    fn grey_and_rgb_are_turned_into_each_other() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.png");
        GrayImage::from_pixel(1, 1, Luma([77])).save(&path).unwrap();
        assert_eq!(decode(&path, 3, 1, Resize::Bicubic), [77, 77, 77]);
        for (rgb, weight) in [([255, 0, 0], 0.2126), ([0, 255, 0], 0.7152), ([0, 0, 255], 0.0722)] {
            RgbImage::from_pixel(1, 1, Rgb(rgb)).save(&path).unwrap();
            let grey = decode(&path, 1, 1, Resize::Bicubic)[0];
            assert!((f32::from(grey) - 255.0 * weight).abs() <= 1.0, "{rgb:?} gives {grey}");
        }
    }

    #[test]
    fn a_jpeg_is_close_to_what_was_written_whatever_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("jpeg-inside.png");
        RgbImage::from_pixel(16, 16, Rgb([200, 100, 50])).save_with_format(&path, ImageFormat::Jpeg).unwrap();
        let out = decode(&path, 3, 16, Resize::Bicubic);
        for (plane, value) in out.chunks_exact(256).zip([200, 100, 50u8]) {
            assert!(plane.iter().all(|found| found.abs_diff(value) <= 4), "{plane:?}");
        }
    }

    #[test]
    fn resizing_follows_the_named_filter() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.png");
        // A step, enlarged twice: the triangle filter stays between the two values, the cubic one overshoots.
        GrayImage::from_fn(4, 4, |x, _| Luma([if x < 2 { 100 } else { 200 }])).save(&path).unwrap();
        let row = |resize| decode(&path, 1, 8, resize)[..8].to_vec();
        // At output x the input position is (x + 0.5)/2 - 0.5; weights of the two or four nearest pixels by hand.
        assert_eq!(row(Resize::Bilinear), [100, 100, 100, 125, 175, 200, 200, 200]);
        let cubic = |weights: [f64; 4], values: [f64; 4]| {
            weights.iter().zip(values).map(|(w, v)| w * v).sum::<f64>().round() as u8
        };
        // Cubic convolution with a = -0.5 at distances 1.25, 0.25, 0.75, 1.75.
        let near = [-0.0703125, 0.8671875, 0.2265625, -0.0234375];
        let found = row(Resize::Bicubic);
        assert_eq!(found[3], cubic(near, [100.0, 100.0, 200.0, 200.0]));
        assert_eq!(found[5], cubic(near, [100.0, 200.0, 200.0, 200.0]));
        assert!(found[2] < 100 && found[5] > 200, "{found:?}");
        // A flat image stays flat when its aspect ratio is squeezed.
        GrayImage::from_pixel(9, 5, Luma([7])).save(&path).unwrap();
        assert_eq!(decode(&path, 1, 4, Resize::Bicubic), [7; 16]);
    }

    #[test]
    fn files_that_are_no_images_are_errors_that_name_them() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.png");
        RgbImage::from_fn(32, 32, |x, y| Rgb([(x * 7) as u8, (y * 5) as u8, 3])).save(&path).unwrap();
        let whole = fs::read(&path).unwrap();
        let decoder = Decoder { channels: 3, size: 32, resize: Resize::Bicubic };
        RgbImage::from_fn(32, 32, |x, y| Rgb([(x * 7) as u8, (y * 5) as u8, 3]))
            .save_with_format(&path, ImageFormat::Jpeg)
            .unwrap();
        let jpeg = fs::read(&path).unwrap();
        let halves = [&whole[..whole.len() / 2], &jpeg[..jpeg.len() / 2], &jpeg[..jpeg.len() - 60]];
        for bytes in halves.into_iter().chain([&whole[..0], b"text"]) {
            fs::write(&path, bytes).unwrap();
            let error = decoder.decode(&path, &mut [0; 3072]).unwrap_err();
            assert!(matches!(&error, DataError::Decode { path: named, .. } if *named == path), "{error}");
        }
        let error = decoder.decode(&folder.path().join("no.png"), &mut [0; 3072]).unwrap_err();
        assert!(error.to_string().contains("no.png: cannot decode the image: "), "{error}");
    }
}
