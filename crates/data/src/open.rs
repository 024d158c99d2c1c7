//! Opening the dataset of a spec, with its limits on the number of images.

use std::path::Path;
use std::sync::Arc;

use crate::limit::class_balanced_prefix;
use crate::{
    DataError, Dataset, DatasetSpec, Split, Subset, cifar, cub200, fashion_mnist, image_folder, imagenet,
};

/// Opens the dataset in `folder`: everything is read and checked (image folder: listed, and decoded when cached).
///
/// # Errors
/// Names the file or key: a missing, empty, truncated or altered file, a label out of range, an image that cannot be
/// decoded, a limit larger than the set or without one image of each class.
pub fn open(spec: &DatasetSpec, folder: &Path) -> Result<Split, DataError> {
    spec.check()?;
    match spec {
        DatasetSpec::FashionMnist(_) => limited(fashion_mnist::open(folder)?, spec),
        DatasetSpec::Cifar10(_) => limited(cifar::open(&cifar::CIFAR10, folder)?, spec),
        DatasetSpec::Cifar100(_) => limited(cifar::open(&cifar::CIFAR100, folder)?, spec),
        DatasetSpec::Imagenet(keys) => limited(imagenet::open(keys, folder)?, spec),
        DatasetSpec::Cub200(keys) => limited(cub200::open(keys, folder)?, spec),
        DatasetSpec::ImageFolder(keys) => {
            // Limits come before the cache: only what is used is decoded.
            image_folder::cached(limited(image_folder::open(keys, folder)?, spec)?, keys.cache)
        }
    }
}

pub(crate) fn limited(split: Split, spec: &DatasetSpec) -> Result<Split, DataError> {
    let (train, test) = spec.limits();
    Ok(Split {
        train: limit(split.train, "train-limit", train)?,
        calibration: limit(split.calibration, "train-limit", train)?,
        test: limit(split.test, "test-limit", test)?,
    })
}

fn limit(
    dataset: Arc<dyn Dataset>,
    key: &'static str,
    limit: Option<usize>,
) -> Result<Arc<dyn Dataset>, DataError> {
    let Some(limit) = limit else { return Ok(dataset) };
    let labels: Vec<usize> = (0..dataset.len()).map(|index| dataset.label(index)).collect();
    let indices = class_balanced_prefix(&labels, dataset.classes(), limit)
        .map_err(|problem| DataError::Value { key, problem: format!("{problem} ({})", dataset.name()) })?;
    Ok(Arc::new(Subset::new(dataset, indices)?))
}
