//! What each kind of dataset implements ([`DatasetKeys`]), and the macro that makes a [`DatasetSpec`] of all kinds.

use std::path::Path;

use serde::Serialize;

use crate::archive::Archive;
use crate::client::{Client, Report};
use crate::photos::PhotoSets;
use crate::protocol::Geometry;
use crate::spec::{Limits, Normalisation, Resize};
use crate::{DataError, DatasetSpec, Split};

/// A kind of dataset. Implemented by the struct that holds the keys of `[dataset]`, in the file that reads the images; the
/// registry in `lib.rs` gives it the name that specs use.
pub(crate) trait DatasetKeys {
    /// One line that says what it is and which files it consists of.
    fn about() -> &'static str
    where
        Self: Sized;

    /// Every key but `kind`, in the order of lists. A test compares them with those that are read.
    fn keys() -> &'static [Key]
    where
        Self: Sized;

    /// The dataset with every key at its default; `None` if there are keys that only the user can know.
    fn by_name() -> Option<Self>
    where
        Self: Sized;

    /// The folder below `data/` where it is looked for.
    fn folder(&self) -> &'static str;

    /// The name in tables.
    fn name(&self) -> &str;

    /// Channels, height and width of the images, before any padding or crop.
    fn shape(&self) -> [usize; 3];

    /// The number of classes; `None` if it depends on the folder.
    fn classes(&self) -> Option<usize>;

    /// The published numbers of training and test images; `None` if they depend on the folder.
    fn official_images(&self) -> Option<[usize; 2]>;

    /// How bytes become inputs unless a spec says otherwise.
    fn normalisation(&self) -> Normalisation;

    /// The keys `train-limit`, `test-limit` and `validation`. They are checked and applied for every kind.
    fn limits(&self) -> Limits;

    /// How images get the size of [`shape`](Self::shape). Sizes of protocols are checked for every kind.
    fn sizing(&self) -> Sizing;

    /// Checks the values of other keys, without looking at the data.
    ///
    /// # Errors
    /// Names the key and the allowed values.
    fn check(&self) -> Result<(), DataError> {
        Ok(())
    }

    /// How its files get into `folder`.
    fn origin(&self, folder: &Path) -> Origin;

    /// Reads all images of `folder`, or lists those that are decoded later, without limits.
    ///
    /// # Errors
    /// Names the file that is missing, damaged or not what it should be.
    fn read(&self, folder: &Path) -> Result<Split, DataError>;

    /// The images of a set of photographs; `None` for every other kind.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    fn photos(&self, folder: &Path) -> Result<Option<PhotoSets>, DataError> {
        let _ = folder;
        Ok(None)
    }

    /// As [`read`](Self::read), but what can be left out is left out; returns what that was and why. For examinations only.
    ///
    /// # Errors
    /// As [`read`](Self::read), for what cannot be left out.
    fn read_what_is_usable(&self, folder: &Path) -> Result<(Split, Vec<String>), DataError> {
        Ok((self.read(folder)?, Vec::new()))
    }

    /// Whether images that are decoded from files are decoded once, when the dataset is opened. Selectors then see the
    /// training images as they are.
    fn is_held_in_memory(&self, split: &Split) -> bool {
        let _ = split;
        false
    }
}

/// How images get the size of inputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sizing {
    /// They have it in the dataset's files.
    Stored,
    /// Resized to `size`×`size`, whatever the aspect ratio.
    Square { size: usize, filter: Resize },
    /// By a published protocol: for training and testing, and as selectors see the training images.
    Protocols([Geometry; 2]),
}

/// How the files of a dataset get into a folder.
#[derive(Clone, Debug)]
pub(crate) enum Origin {
    /// They are an archive at an address.
    Archive(Archive),
    /// This function gets them.
    Fetched(Fetch),
    /// The user gets them: why, and how.
    ByHand { why: &'static str, how: String },
    /// They are the user's own; `how` says where they belong.
    Own { how: String },
}

/// Gets the files of a dataset into a folder and reports each step.
pub(crate) type Fetch = fn(&Path, &Client, &mut Report<'_>) -> Result<(), DataError>;

/// A kind of dataset, for lists.
#[derive(Clone, Debug)]
pub struct Kind {
    /// The value of the key `kind`.
    pub name: &'static str,
    /// One line that says what it is and which files it consists of.
    pub about: &'static str,
    /// Its keys besides `kind`.
    pub keys: &'static [Key],
    /// The dataset with every key at its default; `None` if there are keys that only the user can know.
    pub by_name: Option<DatasetSpec>,
}

/// A key of a spec, for lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Key {
    /// Its name in the table.
    pub name: &'static str,
    /// The type of its value.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// The value when the key is left out; `required` if it must be given.
    pub default: &'static str,
    /// What it means.
    pub about: &'static str,
}

pub(crate) const fn key(
    name: &'static str,
    kind: &'static str,
    default: &'static str,
    about: &'static str,
) -> Key {
    Key { name, kind, default, about }
}

/// The default of a key that must be given.
pub(crate) const REQUIRED: &str = "required";

/// The keys of [`Limits`].
pub(crate) const TRAIN_LIMIT: Key =
    key("train-limit", "count", "all", "use so many training images, as even over the classes as can be");
pub(crate) const TEST_LIMIT: Key =
    key("test-limit", "count", "all", "use so many test images, chosen the same way");
pub(crate) const VALIDATION: Key = key(
    "validation",
    "count",
    "none",
    "hold out so many training images, the last of each class; nothing uses them",
);

/// Makes the enum of all datasets from lines `Variant(file::Keys) = "kind"`; the keys implement [`DatasetKeys`].
macro_rules! datasets {
    ($($variant:ident($file:ident::$keys:ident) = $kind:literal,)+) => {
        $(pub use $file::$keys;)+

        /// A dataset, as a spec names it: `kind = "…"` and the keys of that kind.
        #[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
        #[serde(tag = "kind")]
        pub enum DatasetSpec {
            $(
                #[doc = concat!("`kind = \"", $kind, "\"`.")]
                #[serde(rename = $kind)]
                $variant($keys),
            )+
        }

        impl DatasetSpec {
            /// Every kind of dataset, in the order of lists.
            #[must_use]
            pub fn kinds() -> Vec<Kind> {
                vec![$(Kind {
                    name: $kind,
                    about: $keys::about(),
                    keys: $keys::keys(),
                    by_name: $keys::by_name().map(Self::$variant),
                }),+]
            }

            /// The value of the key `kind`.
            #[must_use]
            pub fn kind(&self) -> &'static str {
                match self {
                    $(Self::$variant(_) => $kind,)+
                }
            }

            pub(crate) fn keys(&self) -> &dyn DatasetKeys {
                match self {
                    $(Self::$variant(keys) => keys,)+
                }
            }
        }
    };
}
pub(crate) use datasets;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listed_keys_are_those_that_are_read_and_folders_and_names_differ() {
        for Kind { name, keys, .. } in DatasetSpec::kinds() {
            let text = format!("kind = '{name}'\nno-such-key = 1");
            let error = toml::from_str::<DatasetSpec>(&text).unwrap_err();
            // unknown field `no-such-key`, expected one of `a`, `b`
            let mut read: Vec<&str> = error.message().split('`').skip(1).step_by(2).collect();
            assert_eq!(read.remove(0), "no-such-key", "{name}: the keys need deny_unknown_fields");
            let mut listed: Vec<&str> = keys.iter().map(|key| key.name).collect();
            read.sort_unstable();
            listed.sort_unstable();
            assert_eq!(listed, read, "{name}: left, the keys that `keys` lists; right, those that are read");
        }
        let mut seen: Vec<[String; 2]> = Vec::new();
        for spec in DatasetSpec::kinds().into_iter().filter_map(|kind| kind.by_name) {
            let found = [spec.name().to_owned(), spec.folder().to_owned()];
            for other in &seen {
                assert!(found[0] != other[0] && found[1] != other[1], "{found:?} and {other:?}");
            }
            assert_eq!(DatasetSpec::named(spec.kind()), Some(spec));
            seen.push(found);
        }
    }
}
