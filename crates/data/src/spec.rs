//! What all kinds of datasets share: limits, normalisation, and what can be asked of a spec.

use std::path::Path;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::kind::{Origin, Sizing};
use crate::protocol::Protocol;
use crate::{DataError, DatasetSpec};

/// How many images are used: all keys of a dataset that is known by its name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Limits {
    /// Use this many training images: the first of each class in turn, so that the classes are as even as they can be. At least one
    /// of each class. Default: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub train_limit: Option<usize>,
    /// Use this many test images, chosen the same way as those of `train-limit`. Default: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub test_limit: Option<usize>,
    /// Hold out this many training images, for recipes that were published with a validation split: the last of each class in turn,
    /// the same for every seed. Nothing is trained or calibrated on them, and no accuracy is measured on them. Limits apply to
    /// what is left. At least one of each class. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validation: Option<usize>,
}

/// The filter that changes an image's size (as Pillow's of the same name, with antialiasing).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Resize {
    /// Cubic convolution, a = -0.5.
    #[default]
    Bicubic,
    /// Triangle filter.
    Bilinear,
}

/// How bytes become inputs: (value · range/255 − mean) / std.
#[derive(Clone, Debug, PartialEq)]
pub struct Normalisation {
    /// One mean for each channel, in the order of the channels.
    pub mean: Vec<f32>,
    /// One standard deviation for each channel.
    pub std: Vec<f32>,
    /// Which channel comes first.
    pub order: ChannelOrder,
    /// What the value 255 becomes before the mean is subtracted: 1 or 255.
    pub range: f32,
}

/// Which channel of a colour image comes first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ChannelOrder {
    /// Red, green, blue; also the one channel of grey images.
    #[default]
    Rgb,
    /// Blue, green, red: Caffe's nets.
    Bgr,
}

impl Normalisation {
    /// Of values on the scale 0–1; colours in the order R, G, B.
    pub(crate) fn of(mean: &[f32], std: &[f32]) -> Self {
        Self { mean: mean.to_vec(), std: std.to_vec(), order: ChannelOrder::Rgb, range: 1.0 }
    }
}

/// How an image is resized before it is cropped or padded to the size of the inputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResizeRule {
    /// Nothing: all images have one size.
    No,
    /// Resized to `side`×`side`, whatever the aspect ratio, then the centre of `crop`×`crop` cut out.
    Square {
        /// Height and width.
        side: usize,
        /// The filter.
        filter: Resize,
        /// Height and width that are cut out.
        crop: usize,
    },
    /// The shorter side resized to `side`, the aspect ratio kept, then the centre of `crop`×`crop` cut out.
    ShorterSide {
        /// The shorter side.
        side: usize,
        /// The filter.
        filter: Resize,
        /// Height and width that are cut out.
        crop: usize,
    },
}

/// What every kind of dataset has; the kinds themselves are registered in `lib.rs`.
impl DatasetSpec {
    /// The dataset of this kind with every key at its default; `None` if there is no such kind, or one with keys that
    /// only the user can know.
    #[must_use]
    pub fn named(kind: &str) -> Option<Self> {
        Self::kinds().into_iter().find(|known| known.name == kind)?.by_name
    }

    /// The name in tables.
    #[must_use]
    pub fn name(&self) -> &str {
        self.keys().name()
    }

    /// The folder below `data/` where it is looked for.
    #[must_use]
    pub fn folder(&self) -> &'static str {
        self.keys().folder()
    }

    /// Whether [`fetch`](crate::fetch) gets the files; for other datasets it says how to get them.
    #[must_use]
    pub fn is_fetched(&self) -> bool {
        matches!(self.keys().origin(Path::new("")), Origin::Archive(_) | Origin::Fetched(_))
    }

    /// Whether the images are the user's own, so that nobody else can say how to get them.
    #[must_use]
    pub fn is_own(&self) -> bool {
        matches!(self.keys().origin(Path::new("")), Origin::Own { .. })
    }

    /// Channels, height and width of the images, before any padding or crop.
    #[must_use]
    pub fn shape(&self) -> [usize; 3] {
        self.keys().shape()
    }

    /// The number of classes; `None` for an image folder, where it depends on the folder.
    #[must_use]
    pub fn classes(&self) -> Option<usize> {
        self.keys().classes()
    }

    /// The usual normalisation of this dataset (photographs: their protocol's; an image folder: ImageNet's).
    #[must_use]
    pub fn normalisation(&self) -> Normalisation {
        self.keys().normalisation()
    }

    /// The limits on training and test images, and the images held out.
    #[must_use]
    pub fn limits(&self) -> Limits {
        self.keys().limits()
    }

    /// The numbers of training and test images that a study uses, limits included; `None` where they depend on the folder.
    #[must_use]
    pub fn images(&self) -> Option<[usize; 2]> {
        let [train, test] = self.keys().official_images()?;
        let limits = self.limits();
        // A limit above that is refused once the data is there.
        let used = |limit: Option<usize>, all: usize| limit.map_or(all, |limit| limit.min(all));
        let train = train.saturating_sub(limits.validation.unwrap_or(0));
        Some([used(limits.train_limit, train), used(limits.test_limit, test)])
    }

    /// How images are resized.
    #[must_use]
    pub fn resized(&self) -> ResizeRule {
        match self.keys().sizing() {
            Sizing::Stored => ResizeRule::No,
            Sizing::Square { size, filter } => ResizeRule::Square { side: size, filter, crop: size },
            Sizing::Protocols([geometry, _]) => geometry.resizing(),
        }
    }

    /// The protocol of a set of photographs; results under different protocols must not be compared.
    #[must_use]
    pub fn protocol(&self) -> Option<Protocol> {
        match self.keys().sizing() {
            Sizing::Protocols([geometry, _]) => Some(geometry.protocol),
            Sizing::Stored | Sizing::Square { .. } => None,
        }
    }

    /// Checks everything that can be known without looking at the data.
    ///
    /// # Errors
    /// Names the key and what is allowed: an empty name, a size of 0 or above 4096, channels other than 1 or 3, a test
    /// folder that is not a plain name, a limit of 0 or with fewer images than there are classes.
    pub fn check(&self) -> Result<(), DataError> {
        if let Sizing::Protocols([geometry, _]) = self.keys().sizing() {
            geometry.check()?;
        }
        self.keys().check()?;
        let Limits { train_limit, test_limit, validation } = self.limits();
        let least = self.classes().unwrap_or(1);
        for (key, limit) in
            [("train-limit", train_limit), ("test-limit", test_limit), ("validation", validation)]
        {
            if let Some(limit) = limit
                && limit < least
            {
                let problem = format!("{limit} is too few: each class needs one image, so at least {least}");
                return Err(DataError::Value { key, problem });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::open;
    use crate::protocol::Geometry;

    fn parse(text: &str) -> Result<DatasetSpec, String> {
        toml::from_str(text).map_err(|error| error.message().to_owned())
    }

    #[test]
    fn specs_are_read_with_defaults_and_come_back_from_json() {
        let fashion = parse("kind = 'fashion-mnist'\ntrain-limit = 100").unwrap();
        assert_eq!(
            (fashion.name(), fashion.shape(), fashion.classes()),
            ("Fashion-MNIST", [1, 28, 28], Some(10))
        );
        assert_eq!(fashion.limits(), Limits { train_limit: Some(100), ..Limits::default() });
        let cifar = parse("kind = 'cifar10'").unwrap();
        assert_eq!((cifar.name(), cifar.shape(), cifar.classes()), ("CIFAR-10", [3, 32, 32], Some(10)));
        assert_eq!(parse("kind = 'cifar100'").unwrap().classes(), Some(100));
        let folder = parse("kind = 'image-folder'\nname = 'Birds'\nsize = 256\nresize = 'bilinear'").unwrap();
        assert_eq!((folder.name(), folder.shape(), folder.classes()), ("Birds", [3, 256, 256], None));
        let photos = parse("kind = 'imagenet'\nprotocol = 'torchvision'\nmax-pixels = 400_000_000").unwrap();
        for spec in [fashion, cifar, folder, photos] {
            spec.check().unwrap();
            let json = serde_json::to_string(&spec).unwrap();
            assert_eq!(serde_json::from_str::<DatasetSpec>(&json).unwrap(), spec);
        }
    }

    #[test]
    fn unknown_kinds_and_stray_or_missing_keys_are_refused() {
        for (text, part) in [
            ("kind = 'mnist'", "unknown variant `mnist`, expected one of `fashion-mnist`, `cifar10`"),
            (
                "kind = 'fashion-mnist'\nsize = 3",
                "unknown field `size`, expected one of `train-limit`, `test-limit`, `validation`",
            ),
            ("kind = 'cifar10'\ntrain_limit = 3", "unknown field `train_limit`"),
            ("kind = 'image-folder'\nsize = 3", "missing field `name`"),
            ("kind = 'image-folder'\nname = 'a'\nsize = 3\nfilter = 1", "unknown field `filter`"),
            ("train-limit = 3", "missing field `kind`"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(part), "{part} is not in: {error}");
        }
    }

    #[test]
    fn values_out_of_range_are_refused_before_the_data_is_looked_at() {
        let folder = "kind = 'image-folder'\nname = 'Birds'\n";
        for (text, expected) in [
            (
                "kind = 'cifar100'\ntrain-limit = 99".to_owned(),
                "key \"train-limit\": 99 is too few: each class needs one image, so at least 100",
            ),
            (
                "kind = 'cifar10'\nvalidation = 9".to_owned(),
                "key \"validation\": 9 is too few: each class needs one image, so at least 10",
            ),
            (
                "kind = 'cifar10'\ntest-limit = 0".to_owned(),
                "key \"test-limit\": 0 is too few: each class needs one image, so at least 10",
            ),
            (format!("{folder}size = 0"), "key \"size\": 0 is outside 1..=4096"),
            (
                format!("{folder}size = 8\nchannels = 2"),
                "key \"channels\": 2 is neither 3 (RGB) nor 1 (grey)",
            ),
            (
                format!("{folder}size = 8\ntest-folder = '../x'"),
                "key \"test-folder\": \"../x\" is not the name of a folder beside train",
            ),
            ("kind = 'image-folder'\nname = ' '\nsize = 8".to_owned(), "key \"name\": must not be empty"),
            (
                "kind = 'image-folder'\nname = \"a\\tb\"\nsize = 8".to_owned(),
                "key \"name\": \"a\\tb\" holds a line end, a tab or another control character",
            ),
            (
                "kind = 'image-folder'\nname = 'a\u{2028}b'\nsize = 8".to_owned(),
                "key \"name\": \"a\\u{2028}b\" holds a line end, a tab or another control character",
            ),
            (
                "kind = 'imagenet'\nprotocol = 'caffe-short'\nclasses = 0".to_owned(),
                "key \"classes\": 0 is outside 1..=1000",
            ),
            (
                "kind = 'imagenet'\nprotocol = 'caffe-short'\nclasses = 1001".to_owned(),
                "key \"classes\": 1001 is outside 1..=1000",
            ),
            ("kind = 'cub200'\nside = 5000".to_owned(), "key \"side\": 5000 is outside 1..=4096"),
            (format!("{folder}size = 8\nmax-pixels = 0"), "key \"max-pixels\": 0 is outside 1..=4294836225"),
            (
                "kind = 'cub200'\nmax-pixels = 4294836226".to_owned(),
                "key \"max-pixels\": 4294836226 is outside 1..=4294836225",
            ),
        ] {
            let spec = parse(&text).unwrap();
            assert_eq!(spec.check().unwrap_err().to_string(), expected);
            assert_eq!(open(&spec, Path::new("nowhere")).err().unwrap().to_string(), expected);
        }
    }

    #[test]
    fn the_name_the_folder_and_where_the_files_are_from_follow_from_the_kind() {
        for (text, name, folder, is_fetched, is_own) in [
            ("kind = 'fashion-mnist'", "Fashion-MNIST", "fashion-mnist", true, false),
            ("kind = 'cifar10'", "CIFAR-10", "cifar-10-batches-bin", true, false),
            ("kind = 'cifar100'", "CIFAR-100", "cifar-100-binary", true, false),
            ("kind = 'cub200'", "CUB-200-2011", "CUB_200_2011", true, false),
            ("kind = 'imagenet'\nprotocol = 'torchvision'", "ImageNet", "imagenet", false, false),
            ("kind = 'image-folder'\nname = 'Birds'\nsize = 8", "Birds", "images", false, true),
        ] {
            let spec = parse(text).unwrap();
            assert_eq!((spec.name(), spec.folder()), (name, folder), "{text}");
            assert_eq!(DatasetSpec::named(spec.kind()).is_some(), !is_own, "{text}");
            assert_eq!((spec.is_fetched(), spec.is_own()), (is_fetched, is_own), "{text}");
        }
    }

    #[test]
    fn a_test_folder_is_one_plain_name_other_than_train() {
        let check = |test_folder: &str| {
            let folder = "kind = 'image-folder'\nname = 'Birds'\nsize = 8\n";
            parse(&format!("{folder}test-folder = '{test_folder}'")).unwrap().check()
        };
        for name in ["", ".hidden", "a/b", "a\\b", "train"] {
            assert!(check(name).is_err(), "{name:?}");
        }
        for name in ["val", "training", "a.b"] {
            check(name).unwrap();
        }
    }

    #[test]
    fn the_least_limit_is_an_image_of_each_class() {
        for limit in ["train-limit = 10", "test-limit = 10"] {
            parse(&format!("kind = 'cifar10'\n{limit}")).unwrap().check().unwrap();
        }
        let folder = "kind = 'image-folder'\nname = 'Birds'\nsize = 8\ntrain-limit = 1";
        parse(folder).unwrap().check().unwrap();
    }

    #[test]
    fn the_numbers_of_images_follow_from_the_kind_and_the_limits() {
        let imagenet = "kind = 'imagenet'\nprotocol = 'torchvision'";
        let folder = "kind = 'image-folder'\nname = 'Birds'\nsize = 8\ntrain-limit = 5\ntest-limit = 6";
        for (text, images, limits) in [
            ("kind = 'fashion-mnist'", Some([60_000, 10_000]), (None, None)),
            ("kind = 'cifar10'\ntrain-limit = 50", Some([50, 10_000]), (Some(50), None)),
            ("kind = 'cifar10'\nvalidation = 5000", Some([45_000, 10_000]), (None, None)),
            ("kind = 'cifar10'\nvalidation = 60_000", Some([0, 10_000]), (None, None)),
            ("kind = 'cifar100'\ntest-limit = 20_000", Some([50_000, 10_000]), (None, Some(20_000))),
            ("kind = 'cub200'\ntest-limit = 200", Some([5_994, 200]), (None, Some(200))),
            (imagenet, Some([1_281_167, 50_000]), (None, None)),
            (&format!("{imagenet}\ntrain-limit = 2000"), Some([2000, 50_000]), (Some(2000), None)),
            (&format!("{imagenet}\nclasses = 999"), None, (None, None)),
            (folder, None, (Some(5), Some(6))),
        ] {
            let spec = parse(text).unwrap();
            let (train_limit, test_limit) = limits;
            assert_eq!(
                (spec.images(), spec.limits()),
                (images, Limits { train_limit, test_limit, validation: spec.limits().validation }),
                "{text}"
            );
        }
    }

    #[test]
    fn photographs_have_the_geometry_of_their_keys() {
        let sizes = "side = 20\ncrop = 10\nmax-pixels = 900\ncalibration-protocol = 'caffe-squash'";
        let imagenet = parse(&format!("kind = 'imagenet'\nprotocol = 'torchvision'\n{sizes}")).unwrap();
        let cub = parse(&format!("kind = 'cub200'\nprotocol = 'torchvision'\n{sizes}")).unwrap();
        for spec in [imagenet, cub] {
            let expected = [Protocol::Torchvision, Protocol::CaffeSquash].map(|protocol| Geometry {
                protocol,
                side: 20,
                crop: 10,
                max_pixels: 900,
            });
            assert_eq!(spec.keys().sizing(), Sizing::Protocols(expected));
            assert_eq!((spec.protocol(), spec.shape()), (Some(Protocol::Torchvision), [3, 10, 10]));
        }
        let usual = parse("kind = 'cub200'").unwrap();
        assert_eq!(usual.classes(), Some(200));
        assert_eq!((usual.protocol(), usual.shape()), (Some(Protocol::CaffeSquash), [3, 224, 224]));
        let whole = parse("kind = 'imagenet'\nprotocol = 'caffe-short'").unwrap();
        assert_eq!((whole.protocol(), whole.classes()), (Some(Protocol::CaffeShort), Some(1000)));
        let Sizing::Protocols([_, calibration]) = usual.keys().sizing() else { panic!("{usual:?}") };
        assert_eq!(calibration.protocol, Protocol::CaffeSquash);
        assert_eq!(parse("kind = 'cifar10'").unwrap().protocol(), None);
    }

    #[test]
    fn the_normalisation_has_a_value_for_each_channel() {
        let grey = parse("kind = 'image-folder'\nname = 'Birds'\nsize = 8\nchannels = 1").unwrap();
        let normalisation = grey.normalisation();
        assert!((normalisation.mean[0] - 0.4586).abs() < 1e-3, "{normalisation:?}");
        assert!((normalisation.std[0] - 0.2251).abs() < 1e-3, "{normalisation:?}");
        for spec in [grey, parse("kind = 'fashion-mnist'").unwrap(), parse("kind = 'cifar100'").unwrap()] {
            let Normalisation { mean, std, .. } = spec.normalisation();
            assert_eq!((mean.len(), std.len()), (spec.shape()[0], spec.shape()[0]));
        }
    }
}
