//! Resizing images as Pillow does: convolution with a filter that widens when an image shrinks.

use std::borrow::Cow;
use std::cell::RefCell;

use fast_image_resize::images::{TypedImage, TypedImageRef};
use fast_image_resize::pixels::{U8, U8x3};
use fast_image_resize::{FilterType, PixelTrait, ResizeAlg, ResizeOptions, Resizer};

use crate::Resize;
use crate::decode::{Picture, check_pixels};

/// A part of an image, in pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Window {
    pub(crate) top: usize,
    pub(crate) left: usize,
    pub(crate) height: usize,
    pub(crate) width: usize,
}

thread_local! {
    /// Reused for all images of a thread.
    static RESIZER: RefCell<Resizer> = RefCell::new(Resizer::new());
}

impl Picture {
    /// Resizes the whole image; no intermediate size may exceed `max_pixels`.
    pub(crate) fn resized(
        self,
        [height, width]: [usize; 2],
        filter: Resize,
        max_pixels: u64,
    ) -> Result<Self, String> {
        if (self.height, self.width) == (height, width) {
            return Ok(self);
        }
        // Even a strip of few pixels can get very large on the way.
        check_pixels(height, width, max_pixels)?;
        check_pixels(self.height, width, max_pixels)?;
        let whole = Window { top: 0, left: 0, height: self.height, width: self.width };
        self.resized_window(whole, [height, width], filter)
    }

    /// Resizes a part of the image. Pixels outside the window have no influence, as if it had been cut out
    /// first (torchvision's `resized_crop`).
    pub(crate) fn resized_window(
        &self,
        window: Window,
        [height, width]: [usize; 2],
        filter: Resize,
    ) -> Result<Self, String> {
        let filter = match filter {
            Resize::Bicubic => FilterType::CatmullRom,
            Resize::Bilinear => FilterType::Bilinear,
        };
        let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(filter));
        let pixels = match self.channels {
            1 => two_passes::<U8>(self, window, [height, width], &options),
            _ => two_passes::<U8x3>(self, window, [height, width], &options),
        }?;
        Ok(Self { width, height, channels: self.channels, pixels })
    }

    /// The pixels of a part, `[height, width, channels]`; a copy, unless it is the whole image.
    fn cut_out(&self, Window { top, left, height, width }: Window) -> Cow<'_, [u8]> {
        if (height, width) == (self.height, self.width) {
            return Cow::Borrowed(&self.pixels);
        }
        let (row, part) = (self.width * self.channels, width * self.channels);
        let rows = self.pixels.chunks_exact(row).skip(top).take(height);
        Cow::Owned(rows.flat_map(|line| &line[left * self.channels..][..part]).copied().collect())
    }
}

/// Rows first, as Pillow did up to version 12 (13 resizes columns first if the height shrinks more). Values are rounded and
/// clamped to 0..=255 between the two passes.
fn two_passes<P: PixelTrait>(
    picture: &Picture,
    window: Window,
    [height, width]: [usize; 2],
    options: &ResizeOptions,
) -> Result<Vec<u8>, String> {
    let source = picture.cut_out(window);
    let rows = one_pass::<P>(&source, [window.height, window.width], [window.height, width], options)?;
    one_pass::<P>(&rows, [window.height, width], [height, width], options)
}

/// One type of view for source and target, as every pair of types is compiled separately, which takes half a minute.
fn one_pass<P: PixelTrait>(
    pixels: &[u8],
    from: [usize; 2],
    to: [usize; 2],
    options: &ResizeOptions,
) -> Result<Vec<u8>, String> {
    let side = |n: usize| u32::try_from(n).map_err(|error| error.to_string());
    let source = TypedImageRef::<P>::from_buffer(side(from[1])?, side(from[0])?, pixels)
        .map_err(|error| error.to_string())?;
    let mut out = vec![0; to[0] * to[1] * P::size()];
    let mut target = TypedImage::<P>::from_buffer(side(to[1])?, side(to[0])?, &mut out)
        .map_err(|error| error.to_string())?;
    RESIZER
        .with_borrow_mut(|resizer| resizer.resize_typed(&source, &mut target, options))
        .map_err(|error| error.to_string())?;
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::MAX_PIXELS;

    fn grey(width: usize, pixels: Vec<u8>) -> Picture {
        Picture { width, height: pixels.len() / width, channels: 1, pixels }
    }

    #[test]
    fn resizing_follows_the_named_filter() {
        // A step, enlarged twice: the triangle filter stays between the two values, the cubic one overshoots.
        let step = grey(4, [100, 100, 200, 200].repeat(4));
        let row = |resize| step.clone().resized([8, 8], resize, MAX_PIXELS).unwrap().pixels[..8].to_vec();
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
        assert_eq!(grey(9, vec![7; 45]).resized([4, 4], Resize::Bicubic, 45).unwrap().pixels, [7; 16]);
    }

    #[test]
    fn a_strip_that_would_become_too_large_is_refused() {
        let strip = |max_pixels, size| grey(1, vec![7; 1000]).resized(size, Resize::Bicubic, max_pixels);
        assert!(strip(4000, [4, 4]).is_ok());
        // Along the rows first: 1000×4 on the way.
        assert!(strip(3999, [4, 4]).unwrap_err().contains("1000×4 are more than 3999 pixels"));
        assert!(strip(4000, [8000, 1]).unwrap_err().contains("8000×1 are more than 4000 pixels"));
    }

    #[test]
    fn what_lies_outside_of_a_window_has_no_influence() {
        let pixels = |outside: u8| {
            let inside = |x: usize, y: usize| (2..6).contains(&x) && (1..4).contains(&y);
            let value = |i: usize| if inside(i % 8, i / 8) { (i * 29) as u8 } else { outside };
            grey(8, (0..40).map(value).collect())
        };
        let window = Window { top: 1, left: 2, height: 3, width: 4 };
        let of = |outside, filter| pixels(outside).resized_window(window, [5, 5], filter).unwrap();
        for filter in [Resize::Bicubic, Resize::Bilinear] {
            assert_eq!(of(0, filter), of(255, filter));
        }
    }

    /// A golden file that Pillow wrote (tests/golden/make_images.py).
    fn golden(name: &str) -> Picture {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
        Picture::decode(&path, 3, MAX_PIXELS).unwrap()
    }

    /// At most 3 levels of 255 from Pillow's pixels, and less than half a level on average.
    fn assert_close(ours: &Picture, name: &str) {
        let theirs = golden(name);
        assert_eq!((ours.height, ours.width), (theirs.height, theirs.width));
        let differences: Vec<u8> =
            ours.pixels.iter().zip(&theirs.pixels).map(|(a, b)| a.abs_diff(*b)).collect();
        let mean = differences.iter().map(|d| f64::from(*d)).sum::<f64>() / differences.len() as f64;
        let most = differences.iter().max().unwrap();
        assert!(mean < 0.5 && *most <= 3, "{name}: {mean} on average, {most} at most");
    }

    #[test]
    fn sizes_are_pillows_smaller_larger_and_squeezed() {
        let source = golden("picture.png");
        for (name, filter) in [("bicubic", Resize::Bicubic), ("bilinear", Resize::Bilinear)] {
            for [height, width] in [[32, 32], [32, 46], [96, 140], [75, 60]] {
                let ours = source.clone().resized([height, width], filter, MAX_PIXELS).unwrap();
                assert_close(&ours, &format!("{name}-{height}x{width}.png"));
            }
            let window = Window { top: 8, left: 13, height: 50, width: 60 };
            assert_close(
                &source.resized_window(window, [28, 28], filter).unwrap(),
                &format!("box-{name}.png"),
            );
        }
    }
}
