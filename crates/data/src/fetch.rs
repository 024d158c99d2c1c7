//! Getting a dataset's files where that can be done, and saying how to get them by hand where it cannot.

use std::path::Path;

use crate::kind::Origin;
use crate::{DataError, DatasetSpec};

/// Makes sure that [`open`](crate::open) finds the dataset in `folder`, and calls `report` with a line for each step.
///
/// Fashion-MNIST: files that are there already are checked and kept; missing ones come from the installed Debian
/// package, else from that package downloaded and unpacked without root, else from the official address. Everything is
/// checked before it gets its name in `folder`. Other datasets are only looked for.
///
/// # Errors
/// If a file in `folder` is not what it should be, or the dataset cannot be fetched: says what was tried and how to get
/// it by hand.
pub fn fetch(spec: &DatasetSpec, folder: &Path, report: &mut dyn FnMut(&str)) -> Result<(), DataError> {
    spec.check()?;
    let (tried, by_hand) = match spec.keys().origin(folder) {
        Origin::Fetched(fetch) => return fetch(folder, report),
        Origin::ByHand { why, how } => (why, how),
        Origin::Own { how } => ("an image folder holds your own images", how),
    };
    match spec.keys().read(folder) {
        Ok(_) => {
            report(&format!("{} is in {}", spec.name(), folder.display()));
            Ok(())
        }
        Err(DataError::Missing { .. }) => Err(DataError::Fetch {
            dataset: spec.name().to_owned(),
            folder: folder.to_owned(),
            tried: tried.to_owned(),
            by_hand,
        }),
        Err(other) => Err(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_datasets_are_looked_for_and_never_made_up() {
        let folder = tempfile::tempdir().unwrap();
        for (spec, says) in [
            ("kind = 'cifar10'", "cifar-10-binary.tar.gz"),
            ("kind = 'cifar100'", "cifar-100-binary.tar.gz"),
            ("kind = 'image-folder'\nname = 'Birds'\nsize = 8", "/train/<class>/"),
        ] {
            let spec: DatasetSpec = toml::from_str(spec).unwrap();
            let error = fetch(&spec, folder.path(), &mut |_| ()).unwrap_err();
            assert!(matches!(error, DataError::Fetch { .. }));
            let text = error.to_string();
            assert!(text.contains(says) && text.contains(spec.name()), "{text}");
        }
        assert_eq!(folder.path().read_dir().unwrap().count(), 0);
    }
}
