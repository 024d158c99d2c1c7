//! Inputs made of images, and what the number of images limits.

use std::sync::Arc;

use thinet_data::MemoryDataset;

use super::*;

#[test]
fn images_are_padded_evenly_or_cropped_to_the_size_that_is_asked_for() {
    for (size, shape, expected) in [
        (28, [1, 28, 28], Some((0, None))),
        (32, [1, 28, 28], Some((2, None))),
        (24, [1, 28, 28], Some((0, Some(24)))),
        (1, [1, 28, 28], Some((0, Some(1)))),
        (29, [1, 28, 28], None),
        (0, [1, 28, 28], None),
        // The shorter side is padded as far as needed, the longer one cut.
        (24, [3, 24, 30], Some((0, Some(24)))),
        (28, [3, 30, 24], Some((2, Some(28)))),
        (40, [3, 24, 30], Some((8, Some(40)))),
    ] {
        let found = placed(size, shape);
        assert_eq!(found.as_ref().ok(), expected.as_ref(), "{size} from {shape:?}: {found:?}");
    }
}

#[test]
fn inputs_have_a_mean_and_a_deviation_for_each_channel() {
    let key = |lines: &str| {
        let spec = with(&[("[dense.train]", &format!("[input]\n{lines}\n[dense.train]"))]);
        refused(transform(&spec, Path::new("x.toml"), [3, 32, 32]).map(drop))
    };
    assert_eq!(key("mean = [0.5, 0.5, 0.5]\nstd = [1.0, 1.0, 1.0]\nsize = 40"), None);
    assert_eq!(key("mean = [0.5, 0.5]").as_deref(), Some("input.mean"));
    assert_eq!(key("std = [0.5, 0.5, 0.5, 0.5]").as_deref(), Some("input.std"));
    assert_eq!(key("size = 33").as_deref(), Some("input.size"));
    assert_eq!(key("std = [1.0, 0.0, 1.0]").as_deref(), Some("input"));
}

#[test]
fn what_is_written_replaces_the_usual_normalisation_and_nothing_else() {
    let path = Path::new("x.toml");
    let usual = with(&[]).dataset.normalisation();
    let lines = "[input]\nmean = [1.0, 2.0, 3.0]\norder = \"bgr\"\nrange = 255.0\n[dense.train]";
    let changed = transform(&with(&[("[dense.train]", lines)]), path, [3, 32, 32]).unwrap().normalisation;
    assert_eq!((changed.mean, changed.std), (vec![1.0, 2.0, 3.0], usual.std.clone()));
    assert_ne!((changed.order, changed.range), (usual.order, usual.range));
    let other = "[input]\nstd = [1.0, 2.0, 3.0]\n[dense.train]";
    let changed = transform(&with(&[("[dense.train]", other)]), path, [3, 32, 32]).unwrap().normalisation;
    assert_eq!((changed.mean, changed.std), (usual.mean, vec![1.0, 2.0, 3.0]));
    assert_eq!((changed.order, changed.range), (usual.order, usual.range));
}

/// Classes 0 and 1 with these many training images of 1×4×4.
fn split(images: [usize; 2]) -> Split {
    let labels: Vec<usize> = [vec![0; images[0]], vec![1; images[1]]].concat();
    let set = MemoryDataset::new("two", 2, [1, 4, 4], vec![0; labels.len() * 16], labels).unwrap();
    let set: Arc<dyn thinet_data::Dataset> = Arc::new(set);
    Split { train: Arc::clone(&set), calibration: Arc::clone(&set), test: set }
}

#[test]
fn batches_and_samples_are_as_large_as_the_data_at_most() {
    let key = |replacements: &[(&str, &str)], images| {
        refused(against_data(&with(replacements), Path::new("x.toml"), &split(images)))
    };
    assert_eq!(key(&[], [1, 1]), None);
    for (recipe, name) in RECIPES {
        let three = recipe.replace("batch = 2", "batch = 3");
        assert_eq!(key(&[(recipe, &three)], [1, 2]), None, "{name}");
        assert_eq!(key(&[(recipe, &three)], [1, 1]), Some(format!("{name}.batch")));
    }
    let five = ("images-per-class = 1", "images-per-class = 5");
    assert_eq!(key(&[five], [5, 5]), None);
    for images in [[4, 9], [9, 4]] {
        assert_eq!(key(&[five], images).as_deref(), Some("calibration.images-per-class"), "{images:?}");
    }
    let (recipe, name) = RECIPES[0];
    let crop = format!("{recipe}, augment = {{ random-crop = true }}");
    assert_eq!(key(&[(recipe, &crop)], [1, 1]), Some(format!("{name}.augment.random-crop")));
}
