//! How photographs become inputs of one size: the published protocols, by name (Luo et al. 2017, section 4, and the
//! authors' code; torchvision's reference training).

use rand::Rng;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use thinet_seed::Seed;

use crate::DataError;
use crate::decode::Picture;
use crate::draw::below;
use crate::resize::Window;
use crate::spec::{ChannelOrder, Normalisation, Resize, ResizeRule};

/// A protocol for preparing images: it determines resizing, crops, channel order and normalisation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    /// Resized to side×side, the aspect ratio lost (bicubic); random crop for training, centre crop for testing;
    /// BGR 0–255 minus the mean. The authors' selection samples, their ResNet-50 and their CUB-200 runs.
    CaffeSquash,
    /// The shorter side resized to `side` (bicubic), the rest as `caffe-squash`. The authors' VGG-16 fine-tuning.
    CaffeShort,
    /// Training: a random part of 8 to 100 % of the area and 3/4 to 4/3 of the aspect ratio, resized (bilinear).
    /// Testing: the shorter side resized to `side`, centre crop. RGB 0–1 minus the mean, divided by the deviation.
    Torchvision,
}

/// Subtracted from B, G and R on the scale 0–255 (the authors' ImageNet nets).
const CAFFE_MEAN: [f32; 3] = [104.0, 117.0, 123.0];
const RGB_MEAN: [f32; 3] = [0.485, 0.456, 0.406];
const RGB_STD: [f32; 3] = [0.229, 0.224, 0.225];

/// Smallest and largest part of the area, and of the aspect ratio, that a random resized crop takes.
const AREA: [f64; 2] = [0.08, 1.0];
const ASPECT: [f64; 2] = [3.0 / 4.0, 4.0 / 3.0];
/// Number of draws before a random resized crop falls back to the centre.
const TRIES: usize = 10;

impl Protocol {
    /// The name used in specs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::CaffeSquash => "caffe-squash",
            Self::CaffeShort => "caffe-short",
            Self::Torchvision => "torchvision",
        }
    }

    /// Whether every image is resized in one way for training and testing alike, so that it can be kept resized.
    #[must_use]
    pub fn is_resize_fixed(self) -> bool {
        match self {
            Self::CaffeSquash | Self::CaffeShort => true,
            Self::Torchvision => false,
        }
    }

    /// How values become inputs, for ImageNet.
    #[must_use]
    pub fn normalisation(self) -> Normalisation {
        match self {
            Self::CaffeSquash | Self::CaffeShort => Self::caffe_normalisation(CAFFE_MEAN),
            Self::Torchvision => Normalisation::of(&RGB_MEAN, &RGB_STD),
        }
    }

    /// BGR 0–255 minus this mean.
    pub(crate) fn caffe_normalisation(mean: [f32; 3]) -> Normalisation {
        Normalisation { mean: mean.to_vec(), std: vec![1.0; 3], order: ChannelOrder::Bgr, range: 255.0 }
    }

    fn filter(self) -> Resize {
        match self {
            Self::CaffeSquash | Self::CaffeShort => Resize::Bicubic,
            Self::Torchvision => Resize::Bilinear,
        }
    }
}

/// A protocol with its sizes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Geometry {
    pub(crate) protocol: Protocol,
    /// Size that images are resized to.
    pub(crate) side: usize,
    /// Height and width of the result.
    pub(crate) crop: usize,
    /// Images with more pixels, as stored or while resizing, are refused.
    pub(crate) max_pixels: u64,
}

/// Upper bound of `max-pixels`: a JPEG file cannot have more.
const MOST_PIXELS: u64 = 65_535 * 65_535;

/// Checks the key `max-pixels`.
pub(crate) fn check_max_pixels(value: u64) -> Result<(), DataError> {
    if (1..=MOST_PIXELS).contains(&value) {
        return Ok(());
    }
    let problem = format!("{value} is outside 1..={MOST_PIXELS}");
    Err(DataError::Value { key: "max-pixels", problem })
}

impl Geometry {
    /// Checks the sizes.
    pub(crate) fn check(&self) -> Result<(), DataError> {
        let wrong = |key, problem: String| Err(DataError::Value { key, problem });
        if !(1..=4096).contains(&self.side) {
            return wrong("side", format!("{} is outside 1..=4096", self.side));
        }
        if self.crop == 0 || self.crop > self.side {
            return wrong("crop", format!("{} is outside 1..={} (side)", self.crop, self.side));
        }
        check_max_pixels(self.max_pixels)
    }

    /// How images are resized, and the centre that is cut out for testing.
    pub(crate) fn resizing(&self) -> ResizeRule {
        let &Self { protocol, side, crop, .. } = self;
        let filter = protocol.filter();
        match protocol {
            Protocol::CaffeSquash => ResizeRule::Square { side, filter, crop },
            Protocol::CaffeShort | Protocol::Torchvision => ResizeRule::ShorterSide { side, filter, crop },
        }
    }

    /// The centre crop of the resized image, into `out: [3, crop, crop]`.
    pub(crate) fn centre(&self, picture: Picture, out: &mut [u8]) -> Result<(), String> {
        let picture = self.resized(picture)?;
        let place = self.centre_place([picture.height, picture.width]);
        picture.write_planar(place, [self.crop; 2], out);
        Ok(())
    }

    /// Row and column where the centre crop of a resized image of this height and width starts.
    pub(crate) fn centre_place(&self, size: [usize; 2]) -> [usize; 2] {
        size.map(|length| self.centre_offset(length))
    }

    /// A random crop, drawn from `seed` alone, into `out: [3, crop, crop]`.
    pub(crate) fn random(&self, picture: Picture, seed: Seed, out: &mut [u8]) -> Result<(), String> {
        if !self.protocol.is_resize_fixed() {
            let window = random_resized_window(picture.height, picture.width, &mut seed.rng());
            let part = picture.resized_window(window, [self.crop; 2], self.protocol.filter())?;
            part.write_planar([0, 0], [self.crop; 2], out);
            return Ok(());
        }
        let picture = self.resized(picture)?;
        let place = self.random_place([picture.height, picture.width], seed);
        picture.write_planar(place, [self.crop; 2], out);
        Ok(())
    }

    /// Row and column where a random crop of a resized image of this height and width starts, for protocols whose resize is
    /// fixed.
    pub(crate) fn random_place(&self, size: [usize; 2], seed: Seed) -> [usize; 2] {
        let mut rng = seed.rng();
        size.map(|length| below(&mut rng, length - self.crop + 1))
    }

    /// The image resized, before any crop.
    pub(crate) fn resized(&self, picture: Picture) -> Result<Picture, String> {
        let size = self.resized_size(picture.height, picture.width);
        picture.resized(size, self.protocol.filter(), self.max_pixels)
    }

    /// Height and width after resizing. The longer side is rounded down, as torchvision does.
    pub(crate) fn resized_size(&self, height: usize, width: usize) -> [usize; 2] {
        let side = self.side;
        match self.protocol {
            Protocol::CaffeSquash => [side, side],
            _ if height <= width => [side, (side * width / height.max(1)).max(side)],
            _ => [(side * height / width.max(1)).max(side), side],
        }
    }

    /// Where the centre crop starts: rounded down as Caffe does, or to the nearest even as torchvision does.
    fn centre_offset(&self, length: usize) -> usize {
        let room = length - self.crop;
        match self.protocol {
            Protocol::CaffeSquash | Protocol::CaffeShort => room / 2,
            Protocol::Torchvision => (room as f64 / 2.0).round_ties_even() as usize,
        }
    }
}

/// The part of an image that a random resized crop takes: area and the logarithm of the aspect ratio uniform; the
/// largest allowed part at the centre if ten draws did not fit.
fn random_resized_window(height: usize, width: usize, rng: &mut impl Rng) -> Window {
    let area = (height * width) as f64;
    let [low, high] = ASPECT.map(f64::ln);
    for _ in 0..TRIES {
        let target = area * between(rng, AREA[0], AREA[1]);
        let aspect = between(rng, low, high).exp();
        let w = (target * aspect).sqrt().round_ties_even() as usize;
        let h = (target / aspect).sqrt().round_ties_even() as usize;
        if (1..=width).contains(&w) && (1..=height).contains(&h) {
            let (top, left) = (below(rng, height - h + 1), below(rng, width - w + 1));
            return Window { top, left, height: h, width: w };
        }
    }
    let aspect = width as f64 / height as f64;
    let (h, w) = if aspect < ASPECT[0] {
        (((width as f64 / ASPECT[0]).round_ties_even() as usize).min(height), width)
    } else if aspect > ASPECT[1] {
        (height, ((height as f64 * ASPECT[1]).round_ties_even() as usize).min(width))
    } else {
        (height, width)
    };
    Window { top: (height - h) / 2, left: (width - w) / 2, height: h, width: w }
}

/// A uniform number in `low..high`, from 53 bits.
fn between(rng: &mut impl Rng, low: f64, high: f64) -> f64 {
    let unit = (rng.next_u64() >> 11) as f64 / (1_u64 << 53) as f64;
    low + (high - low) * unit
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::MAX_PIXELS;
    use proptest::prelude::*;

    fn geometry(protocol: Protocol, side: usize, crop: usize) -> Geometry {
        Geometry { protocol, side, crop, max_pixels: MAX_PIXELS }
    }

    /// Pixel (y, x) has the value x + y in every channel.
    fn ramp(height: usize, width: usize) -> Picture {
        let pixels = (0..height * width).flat_map(|i| [(i % width + i / width) as u8; 3]).collect();
        Picture { width, height, channels: 3, pixels }
    }

    #[test]
    fn sizes_follow_the_protocol() {
        for (protocol, expected) in [
            (Protocol::CaffeSquash, [[256, 256], [256, 256], [256, 256]]),
            // 500×375: 256·500/375 = 341.33.
            (Protocol::CaffeShort, [[256, 341], [341, 256], [256, 256]]),
            (Protocol::Torchvision, [[256, 341], [341, 256], [256, 256]]),
        ] {
            let sizes = [(375, 500), (500, 375), (90, 90)];
            let found = sizes.map(|(h, w)| geometry(protocol, 256, 224).resized_size(h, w));
            assert_eq!(found, expected, "{protocol:?}");
        }
    }

    #[test]
    fn centre_offsets_round_as_caffe_and_torchvision() {
        let offsets =
            |protocol| [224, 225, 226, 227, 229].map(|n| geometry(protocol, 256, 224).centre_offset(n));
        assert_eq!(offsets(Protocol::CaffeShort), [0, 0, 1, 1, 2]);
        // Python's round: halves to the even neighbour.
        assert_eq!(offsets(Protocol::Torchvision), [0, 0, 1, 2, 2]);
    }

    #[test]
    fn the_centre_is_cut_out_and_nothing_is_resized_without_need() {
        let mut out = [0; 3 * 4];
        geometry(Protocol::CaffeShort, 6, 2).centre(ramp(6, 9), &mut out).unwrap();
        // Rows 2 and 3, columns 3 and 4.
        assert_eq!(out, [5, 6, 6, 7, 5, 6, 6, 7, 5, 6, 6, 7]);
    }

    #[test]
    fn random_crops_reach_every_place_and_follow_their_seed() {
        let geometry = geometry(Protocol::CaffeShort, 5, 4);
        let corner = |seed: u64| {
            let mut out = [0; 48];
            geometry.random(ramp(5, 7), Seed::root(seed), &mut out).unwrap();
            out[0]
        };
        let mut seen: Vec<u8> = (0..200).map(corner).collect();
        assert_eq!(seen, (0..200).map(corner).collect::<Vec<_>>());
        seen.sort_unstable();
        seen.dedup();
        // Top 0..=1 and left 0..=3.
        assert_eq!(seen, [0, 1, 2, 3, 4]);
    }

    #[test]
    fn a_random_crop_is_pinned_so_that_stored_results_keep_their_meaning() {
        // A corner's value is 16 times its row plus its column.
        let corner = |seed: u64| {
            let mut out = [0; 3];
            let pixels = (0..=255).flat_map(|place| [place; 3]).collect();
            let picture = Picture { width: 16, height: 16, channels: 3, pixels };
            geometry(Protocol::CaffeShort, 16, 1).random(picture, Seed::root(seed), &mut out).unwrap();
            out[0]
        };
        assert_eq!([0, 1, 2, 3].map(corner), [187, 250, 2, 155]);
    }

    #[test]
    fn a_random_resized_window_is_pinned_so_that_stored_results_keep_their_meaning() {
        let window = random_resized_window(375, 500, &mut Seed::root(1).rng());
        assert_eq!(window, Window { top: 6, left: 31, height: 150, width: 197 });
    }

    #[test]
    fn an_image_that_no_draw_fits_is_cut_at_its_centre() {
        // Ten times as wide as high: no part of 3/4 to 4/3 has 8 % of the area unless it is higher than the image.
        let window = random_resized_window(10, 1000, &mut Seed::root(1).rng());
        assert_eq!(window, Window { top: 0, left: 493, height: 10, width: 13 });
        let window = random_resized_window(1000, 10, &mut Seed::root(1).rng());
        assert_eq!(window, Window { top: 493, left: 0, height: 13, width: 10 });
    }

    #[test]
    fn sizes_out_of_range_are_refused_by_key() {
        let says = |side, crop| geometry(Protocol::CaffeSquash, side, crop).check().unwrap_err().to_string();
        assert_eq!(says(0, 1), "key \"side\": 0 is outside 1..=4096");
        assert_eq!(says(32, 33), "key \"crop\": 33 is outside 1..=32 (side)");
        assert_eq!(says(32, 0), "key \"crop\": 0 is outside 1..=32 (side)");
        assert_eq!(says(4097, 1), "key \"side\": 4097 is outside 1..=4096");
        geometry(Protocol::CaffeSquash, 4096, 4096).check().unwrap();
    }

    #[test]
    fn a_protocol_has_the_name_that_specs_write() {
        for protocol in [Protocol::CaffeSquash, Protocol::CaffeShort, Protocol::Torchvision] {
            assert_eq!(serde_json::to_value(protocol).unwrap(), protocol.name());
        }
    }

    #[test]
    fn a_random_resized_window_reaches_every_place_of_its_size() {
        let window = |seed| random_resized_window(4, 5, &mut Seed::root(seed).rng());
        let places = (0..2000).map(window).filter(|w| (w.height, w.width) == (2, 2));
        let seen: std::collections::BTreeSet<_> = places.map(|w| (w.top, w.left)).collect();
        let all = (0..3).flat_map(|top| (0..4).map(move |left| (top, left)));
        assert_eq!(seen, all.collect());
    }

    #[test]
    fn torchvisions_random_crop_is_the_resized_window() {
        let geometry = geometry(Protocol::Torchvision, 8, 4);
        for seed in [1, 2, 3].map(Seed::root) {
            let picture = ramp(40, 60);
            let mut out = [0; 48];
            geometry.random(picture.clone(), seed, &mut out).unwrap();
            let window = random_resized_window(40, 60, &mut seed.rng());
            let part = picture.resized_window(window, [4, 4], Resize::Bilinear).unwrap();
            let mut expected = [0; 48];
            part.write_planar([0, 0], [4, 4], &mut expected);
            assert_eq!(out, expected);
        }
    }

    #[test]
    fn a_strip_is_refused_before_its_short_side_is_enlarged() {
        // 256×25,600,000 pixels: 20 GB.
        let short = geometry(Protocol::CaffeShort, 256, 224);
        for seed in [None, Some(Seed::root(1))] {
            let mut out = vec![0; 3 * 224 * 224];
            let problem = match seed {
                None => short.centre(ramp(1, 100_000), &mut out),
                Some(seed) => short.random(ramp(1, 100_000), seed, &mut out),
            };
            let problem = problem.unwrap_err();
            assert!(problem.starts_with("256×25600000 are more than 100000000 pixels"), "{problem}");
        }
        // A window of the torchvision protocol has at most 4/3 of the image's short side, and gets the crop's size.
        let random = geometry(Protocol::Torchvision, 256, 224);
        random.random(ramp(1, 100_000), Seed::root(1), &mut vec![0; 3 * 224 * 224]).unwrap();
    }

    proptest! {
        #[test]
        fn windows_lie_inside_and_crops_fit(
            height in 1usize..600, width in 1usize..600, seed: u64, side in 1usize..64,
        ) {
            let w = random_resized_window(height, width, &mut Seed::root(seed).rng());
            prop_assert!(w.height >= 1 && w.width >= 1);
            prop_assert!(w.top + w.height <= height && w.left + w.width <= width);
            for protocol in [Protocol::CaffeSquash, Protocol::CaffeShort, Protocol::Torchvision] {
                let [h, w] = geometry(protocol, side, side).resized_size(height, width);
                prop_assert!(h >= side && w >= side && h.min(w) == side);
            }
        }
    }
}
