//! Which dataset a study uses, as it is written in a spec.

use serde::{Deserialize, Serialize};

use crate::decode::MAX_PIXELS;
use crate::protocol::{Geometry, Protocol, check_max_pixels};
use crate::{DataError, cifar, cub200, fashion_mnist, imagenet};

/// A dataset: `kind = "fashion-mnist" | "cifar10" | "cifar100" | "imagenet" | "cub200" | "image-folder"` and that kind's
/// keys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum DatasetSpec {
    /// Fashion-MNIST: 60,000 + 10,000 grey images of 28×28, 10 classes (Xiao et al. 2017).
    FashionMnist(StandardSpec),
    /// CIFAR-10 in its official binary format: 50,000 + 10,000 RGB images of 32×32 (Krizhevsky 2009).
    Cifar10(StandardSpec),
    /// CIFAR-100 in its official binary format, fine labels: 50,000 + 10,000 RGB images of 32×32.
    Cifar100(StandardSpec),
    /// ILSVRC-2012: 1,281,167 + 50,000 photographs, 1000 classes in WordNet-id order (Russakovsky et al. 2015).
    Imagenet(ImagenetSpec),
    /// CUB-200-2011: 5,994 + 5,794 photographs of 200 birds, by its own index files (Wah et al. 2011).
    Cub200(PhotoSpec),
    /// A folder with a folder of PNG or JPEG images for each class (your own).
    ImageFolder(ImageFolderSpec),
}

/// The keys of a set of photographs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct PhotoSpec {
    /// How photographs become inputs; without it the one that the set's published numbers were made with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<Protocol>,
    /// How selectors see the training images, always with the centre crop; without it as `protocol`. The authors'
    /// samples are `caffe-squash` throughout.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calibration_protocol: Option<Protocol>,
    /// What images are resized to before they are cut; 256.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub side: Option<usize>,
    /// Height and width of the inputs; 224.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub crop: Option<usize>,
    /// Files that may turn out damaged; they are left out and named. With one more the study stops.
    #[serde(default)]
    pub bad_files: usize,
    /// Images of more pixels are refused, as if they could not be decoded, before memory is taken for them; 100,000,000
    /// (10,000 × 10,000). Sizes that an image has on the way to its own count as well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_pixels: Option<u64>,
    /// Use this many training images: the first of each class in turn, so that the classes are as even as they can be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub train_limit: Option<usize>,
    /// Use this many test images, chosen the same way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub test_limit: Option<usize>,
}

/// The keys of ImageNet: those of [`PhotoSpec`], and how many classes the folder has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct ImagenetSpec {
    /// Class folders there must be. With fewer than 1000, flat validation images of other classes are not used.
    #[serde(default = "thousand")]
    pub classes: usize,
    /// How photographs become inputs.
    pub protocol: Protocol,
    /// See [`PhotoSpec::calibration_protocol`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calibration_protocol: Option<Protocol>,
    /// See [`PhotoSpec::side`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub side: Option<usize>,
    /// See [`PhotoSpec::crop`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub crop: Option<usize>,
    /// See [`PhotoSpec::bad_files`].
    #[serde(default)]
    pub bad_files: usize,
    /// See [`PhotoSpec::max_pixels`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_pixels: Option<u64>,
    /// See [`PhotoSpec::train_limit`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub train_limit: Option<usize>,
    /// See [`PhotoSpec::test_limit`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub test_limit: Option<usize>,
}

fn thousand() -> usize {
    1000
}

impl ImagenetSpec {
    /// All 1000 classes under this protocol, every other key at its default.
    #[must_use]
    pub fn new(protocol: Protocol) -> Self {
        Self {
            classes: thousand(),
            protocol,
            calibration_protocol: None,
            side: None,
            crop: None,
            bad_files: 0,
            max_pixels: None,
            train_limit: None,
            test_limit: None,
        }
    }

    /// The keys that every set of photographs has.
    pub(crate) fn photos(&self) -> PhotoSpec {
        PhotoSpec {
            protocol: Some(self.protocol),
            calibration_protocol: self.calibration_protocol,
            side: self.side,
            crop: self.crop,
            bad_files: self.bad_files,
            max_pixels: self.max_pixels,
            train_limit: self.train_limit,
            test_limit: self.test_limit,
        }
    }
}

impl PhotoSpec {
    /// The protocol, and how selectors see the images; `usual` is the set's own protocol.
    pub(crate) fn geometries(&self, usual: Protocol) -> [Geometry; 2] {
        let (side, crop) = (self.side.unwrap_or(256), self.crop.unwrap_or(224));
        let protocol = self.protocol.unwrap_or(usual);
        let calibration = self.calibration_protocol.unwrap_or(protocol);
        let max_pixels = self.max_pixels.unwrap_or(MAX_PIXELS);
        [protocol, calibration].map(|protocol| Geometry { protocol, side, crop, max_pixels })
    }
}

/// The keys of a dataset whose images are given by its name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct StandardSpec {
    /// Use this many training images: the first of each class in turn, so that the classes are as even as they can be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub train_limit: Option<usize>,
    /// Use this many test images, chosen the same way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub test_limit: Option<usize>,
}

/// The keys of an image folder: `train/<class>/*` and `test/<class>/*` (or `val/<class>/*`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct ImageFolderSpec {
    /// The name for tables, e.g. "CIFAR-10 (JPEG copy)".
    pub name: String,
    /// Height and width: images of another size are resized to `size`×`size`, whatever their aspect ratio.
    pub size: usize,
    /// 3 for RGB, 1 for grey.
    #[serde(default = "three")]
    pub channels: usize,
    /// The filter used where a size differs.
    #[serde(default)]
    pub resize: Resize,
    /// The folder with the test images; without it `test`, else `val`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub test_folder: Option<String>,
    /// Whether decoded images are held in memory; without it, when both splits together take at most 2 GiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache: Option<bool>,
    /// See [`PhotoSpec::max_pixels`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_pixels: Option<u64>,
    /// Use this many training images: the first of each class in turn, so that the classes are as even as they can be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub train_limit: Option<usize>,
    /// Use this many test images, chosen the same way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub test_limit: Option<usize>,
}

fn three() -> usize {
    3
}

/// The filter that changes an image's size (as Pillow's of the same name, with antialiasing).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ChannelOrder {
    /// Red, green, blue; also the one channel of grey images.
    #[default]
    Rgb,
    /// Blue, green, red: Caffe's nets.
    Bgr,
}

const RGB_MEAN: [f32; 3] = [0.485, 0.456, 0.406];
const RGB_STD: [f32; 3] = [0.229, 0.224, 0.225];
/// The weights of R, G and B in grey (ITU-R BT.709), as the decoder uses them.
const LUMA: [f32; 3] = [0.2126, 0.7152, 0.0722];

impl DatasetSpec {
    /// The name for tables.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::FashionMnist(_) => fashion_mnist::NAME,
            Self::Cifar10(_) => cifar::CIFAR10.name,
            Self::Cifar100(_) => cifar::CIFAR100.name,
            Self::Imagenet(_) => imagenet::NAME,
            Self::Cub200(_) => cub200::NAME,
            Self::ImageFolder(spec) => &spec.name,
        }
    }

    /// Channels, height and width of the images, before any padding or crop.
    #[must_use]
    pub fn shape(&self) -> [usize; 3] {
        match self {
            Self::FashionMnist(_) => fashion_mnist::SHAPE,
            Self::Cifar10(_) | Self::Cifar100(_) => cifar::SHAPE,
            Self::Imagenet(spec) => photo_shape(spec.crop),
            Self::Cub200(spec) => photo_shape(spec.crop),
            Self::ImageFolder(spec) => [spec.channels, spec.size, spec.size],
        }
    }

    /// The number of classes; `None` for an image folder, where only the folder says.
    #[must_use]
    pub fn classes(&self) -> Option<usize> {
        match self {
            Self::FashionMnist(_) => Some(fashion_mnist::CLASSES),
            Self::Cifar10(_) => Some(cifar::CIFAR10.classes),
            Self::Cifar100(_) => Some(cifar::CIFAR100.classes),
            Self::Imagenet(spec) => Some(spec.classes),
            Self::Cub200(_) => Some(cub200::CLASSES),
            Self::ImageFolder(_) => None,
        }
    }

    /// The usual normalisation of this dataset (photographs: their protocol's; an image folder: ImageNet's).
    #[must_use]
    pub fn normalisation(&self) -> Normalisation {
        let of = |mean: &[f32], std: &[f32]| Normalisation {
            mean: mean.to_vec(),
            std: std.to_vec(),
            order: ChannelOrder::Rgb,
            range: 1.0,
        };
        match self {
            Self::Imagenet(spec) => spec.protocol.normalisation(),
            Self::Cub200(spec) => cub200::normalisation(spec.protocol.unwrap_or(cub200::PROTOCOL)),
            Self::FashionMnist(_) => of(&[0.2860], &[0.3530]),
            Self::Cifar10(_) => of(&[0.4914, 0.4822, 0.4465], &[0.2470, 0.2435, 0.2616]),
            Self::Cifar100(_) => of(&[0.5071, 0.4865, 0.4409], &[0.2673, 0.2564, 0.2762]),
            Self::ImageFolder(spec) if spec.channels == 1 => {
                let grey = |rgb: [f32; 3]| LUMA[0] * rgb[0] + LUMA[1] * rgb[1] + LUMA[2] * rgb[2];
                of(&[grey(RGB_MEAN)], &[grey(RGB_STD)])
            }
            Self::ImageFolder(_) => of(&RGB_MEAN, &RGB_STD),
        }
    }

    /// The limits on training and test images.
    #[must_use]
    pub fn limits(&self) -> (Option<usize>, Option<usize>) {
        match self {
            Self::FashionMnist(spec) | Self::Cifar10(spec) | Self::Cifar100(spec) => {
                (spec.train_limit, spec.test_limit)
            }
            Self::Imagenet(spec) => (spec.train_limit, spec.test_limit),
            Self::Cub200(spec) => (spec.train_limit, spec.test_limit),
            Self::ImageFolder(spec) => (spec.train_limit, spec.test_limit),
        }
    }

    /// The numbers of training and test images that a study uses, limits included; `None` where only the folder says.
    #[must_use]
    pub fn images(&self) -> Option<[usize; 2]> {
        let official = match self {
            Self::FashionMnist(_) => [60_000, 10_000],
            Self::Cifar10(_) | Self::Cifar100(_) => [50_000, 10_000],
            Self::Imagenet(spec) if spec.classes == imagenet::CLASSES => [1_281_167, 50_000],
            Self::Cub200(_) => [5_994, 5_794],
            Self::Imagenet(_) | Self::ImageFolder(_) => return None,
        };
        let (train, test) = self.limits();
        // A limit above that is refused once the data is there.
        let used = |limit: Option<usize>, all: usize| limit.map_or(all, |limit| limit.min(all));
        Some([used(train, official[0]), used(test, official[1])])
    }

    /// How photographs are prepared for training and testing, and how selectors see them.
    pub(crate) fn geometries(&self) -> Option<[Geometry; 2]> {
        match self {
            Self::Imagenet(spec) => Some(spec.photos().geometries(spec.protocol)),
            Self::Cub200(spec) => Some(spec.geometries(cub200::PROTOCOL)),
            _ => None,
        }
    }

    /// The protocol of a set of photographs; results under different protocols must not be compared.
    #[must_use]
    pub fn protocol(&self) -> Option<Protocol> {
        self.geometries().map(|[geometry, _]| geometry.protocol)
    }

    /// Checks everything that can be known without looking at the data.
    ///
    /// # Errors
    /// Names the key and what is allowed: an empty name, a size of 0 or above 4096, channels other than 1 or 3, a test
    /// folder that is not a plain name, a limit of 0 or with fewer images than there are classes.
    pub fn check(&self) -> Result<(), DataError> {
        if let Self::ImageFolder(spec) = self {
            spec.check()?;
        }
        if let Some([geometry, _]) = self.geometries() {
            geometry.check()?;
        }
        if let Self::Imagenet(spec) = self
            && !(1..=imagenet::CLASSES).contains(&spec.classes)
        {
            let problem = format!("{} is outside 1..={}", spec.classes, imagenet::CLASSES);
            return Err(DataError::Value { key: "classes", problem });
        }
        let (train, test) = self.limits();
        let least = self.classes().unwrap_or(1);
        for (key, limit) in [("train-limit", train), ("test-limit", test)] {
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

impl ImageFolderSpec {
    fn check(&self) -> Result<(), DataError> {
        let wrong = |key, problem: String| Err(DataError::Value { key, problem });
        if self.name.trim().is_empty() {
            return wrong("name", "must not be empty".to_owned());
        }
        if !(1..=4096).contains(&self.size) {
            return wrong("size", format!("{} is outside 1..=4096", self.size));
        }
        check_max_pixels(self.max_pixels.unwrap_or(MAX_PIXELS))?;
        if ![1, 3].contains(&self.channels) {
            return wrong("channels", format!("{} is neither 3 (RGB) nor 1 (grey)", self.channels));
        }
        if let Some(folder) = &self.test_folder
            && (folder.is_empty()
                || folder.starts_with('.')
                || folder.contains(['/', '\\'])
                || folder == "train")
        {
            return wrong("test-folder", format!("{folder:?} is not the name of a folder beside train"));
        }
        Ok(())
    }
}

fn photo_shape(crop: Option<usize>) -> [usize; 3] {
    let crop = crop.unwrap_or(224);
    [3, crop, crop]
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::open;

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
        assert_eq!(fashion.limits(), (Some(100), None));
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
                "unknown field `size`, expected `train-limit` or `test-limit`",
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
            ("kind = 'cifar100'\ntest-limit = 20_000", Some([50_000, 10_000]), (None, Some(20_000))),
            ("kind = 'cub200'\ntest-limit = 200", Some([5_994, 200]), (None, Some(200))),
            (imagenet, Some([1_281_167, 50_000]), (None, None)),
            (&format!("{imagenet}\ntrain-limit = 2000"), Some([2000, 50_000]), (Some(2000), None)),
            (&format!("{imagenet}\nclasses = 999"), None, (None, None)),
            (folder, None, (Some(5), Some(6))),
        ] {
            let spec = parse(text).unwrap();
            assert_eq!((spec.images(), spec.limits()), (images, limits), "{text}");
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
            assert_eq!(spec.geometries(), Some(expected));
            assert_eq!((spec.protocol(), spec.shape()), (Some(Protocol::Torchvision), [3, 10, 10]));
        }
        let usual = parse("kind = 'cub200'").unwrap();
        assert_eq!((usual.protocol(), usual.shape()), (Some(cub200::PROTOCOL), [3, 224, 224]));
        let whole = parse("kind = 'imagenet'\nprotocol = 'caffe-short'").unwrap();
        assert_eq!((whole.protocol(), whole.classes()), (Some(Protocol::CaffeShort), Some(1000)));
        assert_eq!(usual.geometries().unwrap()[1].protocol, cub200::PROTOCOL);
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
