//! From stored bytes to a net's input: zero padding, crop, mirror, and normalisation to f32.

use std::ops::Range;

use rand::Rng;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use thinet_seed::Seed;

use crate::DataError;
use crate::draw::below;
use crate::spec::{ChannelOrder, Normalisation};

/// The largest padding, so that sizes cannot overflow.
pub const MOST_PADDING: usize = 4096;

/// What is applied to every image.
#[derive(Clone, Debug, PartialEq)]
pub struct Transform {
    /// Zeros (before normalisation) added on each side: 2 makes 28×28 into 32×32.
    pub pad: usize,
    /// Height and width of the crop of the padded image: its centre, or a random place when augmenting; `None`: no crop.
    pub crop: Option<usize>,
    /// How bytes become inputs; one mean and deviation for each channel.
    pub normalisation: Normalisation,
    /// Random changes of each image, if the loader has an augmentation seed.
    pub augment: Augment,
}

/// Random changes of training images.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Augment {
    /// Crop each image at random as the protocol of the dataset does (photographs), instead of at the centre. Default: false.
    #[serde(skip_serializing_if = "is_false")]
    pub random_crop: bool,
    /// More zeros on each side, in pixels, from which a crop of the final size is cut at a uniform offset. Default: 0.
    pub crop_padding: usize,
    /// Mirror each image horizontally with probability 0.5. Default: false.
    pub mirror: bool,
}

/// Leaves a key out of a written spec, so that results that were stored before the key existed keep their ids.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde calls")]
fn is_false(value: &bool) -> bool {
    !*value
}

impl Transform {
    /// Channels, height and width of the inputs, for images of this shape.
    ///
    /// # Errors
    /// If mean or std do not have one finite value for each channel, std or range is not above 0, the order is BGR without
    /// three channels, a padding is above 4096, or the crop is empty or larger than the padded image.
    pub fn output_shape(&self, [channels, height, width]: [usize; 3]) -> Result<[usize; 3], DataError> {
        let wrong = |key, problem: String| Err(DataError::Value { key, problem });
        let Normalisation { mean, std, order, range } = &self.normalisation;
        if *order == ChannelOrder::Bgr && channels != 3 {
            return wrong("order", format!("bgr needs three channels, the images have {channels}"));
        }
        if !(*range > 0.0 && range.is_finite()) {
            return wrong("range", format!("{range} is not a number above 0"));
        }
        for (key, values) in [("mean", mean), ("std", std)] {
            if values.len() != channels {
                return wrong(
                    key,
                    format!("has {} values, the images have {channels} channels", values.len()),
                );
            }
            if let Some(value) = values.iter().find(|value| !value.is_finite()) {
                return wrong(key, format!("{value} is not finite"));
            }
        }
        if let Some(value) = std.iter().find(|value| **value <= 0.0) {
            return wrong("std", format!("{value} is not above 0"));
        }
        for (key, padding) in [("pad", self.pad), ("crop-padding", self.augment.crop_padding)] {
            if padding > MOST_PADDING {
                return wrong(key, format!("{padding} is above {MOST_PADDING}"));
            }
        }
        let (padded_height, padded_width) = (height + 2 * self.pad, width + 2 * self.pad);
        match self.crop {
            None => Ok([channels, padded_height, padded_width]),
            Some(crop) if crop == 0 || crop > padded_height.min(padded_width) => {
                wrong("crop", format!("{crop} is outside 1..={}", padded_height.min(padded_width)))
            }
            Some(crop) => Ok([channels, crop, crop]),
        }
    }
}

/// A transform fitted for images of one shape.
pub(crate) struct FittedTransform {
    /// The normalised value of each byte, for each channel.
    tables: Vec<[f32; 256]>,
    input: [usize; 3],
    output: [usize; 3],
    pad: usize,
    augment: Augment,
    /// Whether the order of channels is reversed.
    is_reversed: bool,
}

/// Where a net's input lies on an image: its place (0, 0) shows the image's (top, left), before mirroring. What lies outside of
/// the image is 0 before normalisation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placement {
    pub top: isize,
    pub left: isize,
    /// Whether the input is mirrored horizontally.
    pub mirror: bool,
}

/// Draws the places of images that something else than a [`Loader`](crate::Loader) cuts out: they are the loader's.
pub struct Placer(FittedTransform);

impl Placer {
    /// For images of the shape `[c, h, w]`.
    ///
    /// # Errors
    /// As [`Transform::output_shape`].
    pub fn new(transform: &Transform, shape: [usize; 3]) -> Result<Self, DataError> {
        FittedTransform::new(transform, shape).map(Self)
    }

    /// Channels, height and width of the inputs.
    #[must_use]
    pub fn output(&self) -> [usize; 3] {
        self.0.output()
    }

    /// The place of an image: the centre without a seed, else drawn from the image's own stream (`augment_seed.index(image index)`).
    #[must_use]
    pub fn place(&self, seed: Option<Seed>) -> Placement {
        self.0.placement(seed)
    }
}

impl FittedTransform {
    pub(crate) fn new(transform: &Transform, input: [usize; 3]) -> Result<Self, DataError> {
        let output = transform.output_shape(input)?;
        let Normalisation { mean, std, order, range } = &transform.normalisation;
        let table = |mean: f32, std: f32| {
            // 255/255 is exactly 1, so a range of 255 leaves whole numbers.
            std::array::from_fn(|value| (value as f32 / (255.0 / range) - mean) / std)
        };
        let tables = mean.iter().zip(std).map(|(mean, std)| table(*mean, *std)).collect();
        let is_reversed = *order == ChannelOrder::Bgr;
        Ok(Self { tables, input, output, pad: transform.pad, augment: transform.augment, is_reversed })
    }

    /// Channels, height and width of the inputs.
    pub(crate) fn output(&self) -> [usize; 3] {
        self.output
    }

    /// The image's place: the centre without a seed, else drawn from the image's own stream in the order row offset,
    /// column offset, mirror.
    pub(crate) fn placement(&self, seed: Option<Seed>) -> Placement {
        // Largest offset of the crop in the padded image.
        let room = |axis: usize| self.input[axis] + 2 * self.pad - self.output[axis];
        let Augment { crop_padding, mirror, .. } = self.augment;
        let Some(mut rng) = seed.map(Seed::rng) else {
            let centre = |axis| (room(axis) / 2) as isize - self.pad as isize;
            return Placement { top: centre(1), left: centre(2), mirror: false };
        };
        let mut place = |axis| {
            let offset = below(&mut rng, room(axis) + 2 * crop_padding + 1);
            offset as isize - (self.pad + crop_padding) as isize
        };
        let (top, left) = (place(1), place(2));
        Placement { top, left, mirror: mirror && rng.next_u32() >> 31 == 1 }
    }

    /// Writes the normalised image to `out: [c, H, W]`; `pixels: [c, h, w]`. Both slices have exactly that length.
    pub(crate) fn apply(&self, pixels: &[u8], placement: Placement, out: &mut [f32]) {
        self.place_values(pixels, placement, out, |channel| {
            let table = &self.tables[channel];
            move |byte| table[usize::from(byte)]
        });
    }

    /// As [`FittedTransform::apply`], with bytes that have yet to be normalised, in the order of the output's channels.
    pub(crate) fn apply_bytes(&self, pixels: &[u8], placement: Placement, out: &mut [u8]) {
        self.place_values(pixels, placement, out, |_| |byte| byte);
    }

    /// `value` maps a byte of an output channel.
    fn place_values<T: Copy, V: Fn(u8) -> T>(
        &self,
        pixels: &[u8],
        placement: Placement,
        out: &mut [T],
        value: impl Fn(usize) -> V,
    ) {
        let [_, height, width] = self.input;
        let [_, out_height, out_width] = self.output;
        let columns = overlap(placement.left, width, out_width);
        let rows = if columns.is_empty() { 0..0 } else { overlap(placement.top, height, out_height) };
        // What lies on the input of each shown row.
        let left = columns.start.wrapping_add_signed(placement.left);
        let shown = left..left + columns.len();
        let target = match placement.mirror {
            false => columns,
            true => out_width - columns.end..out_width - columns.start,
        };
        for (output, plane) in out.chunks_exact_mut(out_height * out_width).enumerate() {
            let value = value(output);
            let nothing = value(0);
            let channel = if self.is_reversed { self.tables.len() - 1 - output } else { output };
            let source = &pixels[channel * height * width..][..height * width];
            for (y, line) in plane.chunks_exact_mut(out_width).enumerate() {
                if !rows.contains(&y) {
                    line.fill(nothing);
                    continue;
                }
                let row = y.wrapping_add_signed(placement.top) * width;
                let bytes = &source[row + shown.start..row + shown.end];
                line[..target.start].fill(nothing);
                line[target.end..].fill(nothing);
                let values = bytes.iter().map(|byte| value(*byte));
                let line = &mut line[target.clone()];
                if placement.mirror {
                    line.iter_mut().rev().zip(values).for_each(|(out, value)| *out = value);
                } else {
                    line.iter_mut().zip(values).for_each(|(out, value)| *out = value);
                }
            }
        }
    }
}

/// The positions p in `0..window` whose `start + p` lies in `0..len`; an empty range at 0 when there are none.
fn overlap(start: isize, len: usize, window: usize) -> Range<usize> {
    let first = start.min(0).unsigned_abs();
    let end = (len as isize - start).clamp(0, window as isize) as usize;
    if first < end { first..end } else { 0..0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Protocol;
    use proptest::prelude::*;

    fn transform(channels: usize, pad: usize, crop: Option<usize>, augment: Augment) -> Transform {
        let mean = [0.5, 0.25, 0.125][..channels].to_vec();
        let std = [0.5, 2.0, 0.3][..channels].to_vec();
        let normalisation = Normalisation { mean, std, order: ChannelOrder::Rgb, range: 1.0 };
        Transform { pad, crop, normalisation, augment }
    }

    fn drawn(crop_padding: usize, mirror: bool) -> Augment {
        Augment { crop_padding, mirror, random_crop: false }
    }

    /// The same written value by value.
    fn apply_naive(
        transform: &Transform,
        fitted: &FittedTransform,
        pixels: &[u8],
        place: Placement,
    ) -> Vec<f32> {
        let [channels, height, width] = fitted.input;
        let [_, out_height, out_width] = fitted.output;
        let mut out = Vec::new();
        for c in 0..channels {
            for y in 0..out_height {
                for x in 0..out_width {
                    let x = if place.mirror { out_width - 1 - x } else { x };
                    let (y, x) = (y as isize + place.top, x as isize + place.left);
                    let inside = (0..height as isize).contains(&y) && (0..width as isize).contains(&x);
                    let at = |y: isize, x: isize| pixels[(c * height + y as usize) * width + x as usize];
                    let value = if inside { at(y, x) } else { 0 };
                    let Normalisation { mean, std, .. } = &transform.normalisation;
                    out.push((f32::from(value) / 255.0 - mean[c]) / std[c]);
                }
            }
        }
        out
    }

    #[test]
    fn places_are_pinned_so_that_stored_results_keep_their_meaning() {
        let fitted = FittedTransform::new(&transform(3, 2, Some(28), drawn(4, true)), [3, 32, 32]).unwrap();
        let seed = Seed::root(1).child("augment").index(3);
        let places = [0, 1, 2, 3].map(|image| {
            let Placement { top, left, mirror } = fitted.placement(Some(seed.index(image)));
            (top, left, mirror)
        });
        assert_eq!(places, [(-2, 1, true), (9, 8, false), (9, 5, true), (-5, 6, true)]);
    }

    #[test]
    fn padding_is_zero_before_normalisation() {
        let transform = transform(1, 1, None, Augment::default());
        let fitted = FittedTransform::new(&transform, [1, 1, 1]).unwrap();
        let mut out = [0.0; 9];
        fitted.apply(&[255], fitted.placement(None), &mut out);
        assert_eq!(out, [-1.0, -1.0, -1.0, -1.0, 1.0, -1.0, -1.0, -1.0, -1.0]);
    }

    #[test]
    fn without_a_seed_the_crop_is_at_the_centre_and_nothing_is_drawn() {
        let augment = drawn(3, true);
        let fitted = FittedTransform::new(&transform(1, 0, Some(2), augment), [1, 4, 7]).unwrap();
        assert_eq!(fitted.placement(None), Placement { top: 1, left: 2, mirror: false });
        let padded = FittedTransform::new(&transform(1, 2, None, augment), [1, 28, 28]).unwrap();
        assert_eq!(padded.placement(None), Placement { top: -2, left: -2, mirror: false });
        assert_eq!(padded.output(), [1, 32, 32]);
    }

    #[test]
    fn every_offset_and_both_sides_are_drawn() {
        let augment = drawn(1, true);
        let fitted = FittedTransform::new(&transform(1, 2, Some(5), augment), [1, 2, 2]).unwrap();
        let mut seen = std::collections::BTreeSet::new();
        for index in 0..500 {
            let Placement { top, left, mirror } = fitted.placement(Some(Seed::root(1).index(index)));
            seen.insert((top, left, mirror));
        }
        // The padded image is 2 + 2·(2 + 1) = 8 wide: a crop of 5 has 4 places on each axis.
        let all =
            (-3..=0).flat_map(|top| (-3..=0).flat_map(move |left| [false, true].map(|m| (top, left, m))));
        assert_eq!(seen, all.collect());
    }

    #[test]
    fn a_place_is_pinned_so_that_stored_results_keep_their_meaning() {
        let augment = drawn(4, true);
        let fitted = FittedTransform::new(&transform(1, 2, None, augment), [1, 28, 28]).unwrap();
        let places = [0, 1, 2].map(|index| fitted.placement(Some(Seed::root(1).index(index))));
        let place = |top, left, mirror| Placement { top, left, mirror };
        assert_eq!(places, [place(-2, -1, false), place(-6, -6, true), place(-1, -5, false)]);
    }

    #[test]
    fn values_that_cannot_be_used_are_errors_that_name_the_key() {
        let good = transform(3, 1, None, Augment::default());
        let says = |change: fn(&mut Transform)| {
            let mut bad = good.clone();
            change(&mut bad);
            bad.output_shape([3, 4, 6]).unwrap_err().to_string()
        };
        assert_eq!(
            says(|t| t.normalisation.mean = vec![0.0]),
            "key \"mean\": has 1 values, the images have 3 channels"
        );
        assert_eq!(says(|t| t.normalisation.mean[1] = f32::NAN), "key \"mean\": NaN is not finite");
        assert_eq!(says(|t| t.normalisation.std[2] = 0.0), "key \"std\": 0 is not above 0");
        assert_eq!(says(|t| t.pad = usize::MAX), format!("key \"pad\": {} is above 4096", usize::MAX));
        assert_eq!(says(|t| t.augment.crop_padding = 5000), "key \"crop-padding\": 5000 is above 4096");
        assert_eq!(says(|t| t.crop = Some(7)), "key \"crop\": 7 is outside 1..=6");
        assert_eq!(says(|t| t.crop = Some(0)), "key \"crop\": 0 is outside 1..=6");
        assert_eq!(says(|t| t.normalisation.range = -1.0), "key \"range\": -1 is not a number above 0");
        assert_eq!(says(|t| t.normalisation.range = 0.0), "key \"range\": 0 is not a number above 0");
        assert_eq!(
            says(|t| t.normalisation.range = f32::INFINITY),
            "key \"range\": inf is not a number above 0"
        );
        assert_eq!(good.output_shape([3, 4, 6]).unwrap(), [3, 6, 8]);
        let largest = Transform { pad: MOST_PADDING, augment: drawn(MOST_PADDING, false), ..good.clone() };
        assert_eq!(largest.output_shape([3, 4, 6]).unwrap(), [3, 8196, 8198]);
        let cut = Transform { crop: Some(6), ..good.clone() };
        assert_eq!(cut.output_shape([3, 4, 6]).unwrap(), [3, 6, 6]);
        let mut grey = transform(1, 0, None, Augment::default());
        grey.normalisation.order = ChannelOrder::Bgr;
        let bgr = grey.output_shape([1, 4, 6]).unwrap_err().to_string();
        assert_eq!(bgr, "key \"order\": bgr needs three channels, the images have 1");
    }

    #[test]
    fn a_crop_of_the_datasets_own_is_written_only_where_it_is_asked_for() {
        let written = |random_crop| {
            let augment = Augment { crop_padding: 4, mirror: true, random_crop };
            serde_json::to_string(&augment).unwrap()
        };
        assert_eq!(written(false), r#"{"crop-padding":4,"mirror":true}"#);
        assert_eq!(written(true), r#"{"random-crop":true,"crop-padding":4,"mirror":true}"#);
    }

    #[test]
    fn caffe_inputs_are_bgr_whole_numbers_less_the_mean() {
        let normalisation = Protocol::CaffeSquash.normalisation();
        let transform = Transform { pad: 0, crop: None, normalisation, augment: Augment::default() };
        let fitted = FittedTransform::new(&transform, [3, 1, 2]).unwrap();
        let mut out = [0.0; 6];
        fitted.apply(&[255, 1, 128, 2, 7, 3], fitted.placement(None), &mut out);
        assert_eq!(out, [7.0 - 104.0, 3.0 - 104.0, 128.0 - 117.0, 2.0 - 117.0, 255.0 - 123.0, 1.0 - 123.0]);
    }

    proptest! {
        #[test]
        fn overlap_is_what_it_says(start in -20isize..20, len in 0usize..15, window in 0usize..15) {
            let inside = |p: &usize| (0..len as isize).contains(&(start + *p as isize));
            let expected: Vec<usize> = (0..window).filter(inside).collect();
            let found = overlap(start, len, window);
            prop_assert!(!found.is_empty() || found == (0..0), "{found:?}");
            prop_assert_eq!(found.collect::<Vec<_>>(), expected);
        }

        #[test]
        fn rows_copied_at_once_are_the_values_one_by_one(
            (channels, height, width) in (1usize..=3, 1usize..7, 1usize..7), pad in 0usize..4,
            crop in prop::option::of(1usize..9), crop_padding in 0usize..12, mirror: bool, seed: u64, augmented: bool,
        ) {
            let crop = crop.map(|crop| crop.min(height.min(width) + 2 * pad));
            let transform = transform(channels, pad, crop, drawn(crop_padding, mirror));
            let fitted = FittedTransform::new(&transform, [channels, height, width]).unwrap();
            let pixels: Vec<u8> = (0..channels * height * width).map(|i| (i * 37 + 11) as u8).collect();
            let place = fitted.placement(augmented.then(|| Seed::root(seed)));
            let mut out = vec![f32::NAN; fitted.output().iter().product()];
            fitted.apply(&pixels, place, &mut out);
            prop_assert_eq!(out, apply_naive(&transform, &fitted, &pixels, place));
        }
    }
}
