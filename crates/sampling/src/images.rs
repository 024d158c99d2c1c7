//! The training images of a calibration pass: some of every class (Luo et al. 2017: 10 of each).

use rand::RngExt;
use thinet_seed::Seed;

use crate::SamplingError;

/// Draws `per_class` images of every class without replacement; returns their indices, ascending.
///
/// `labels[i]` is the class of image `i`. Each class has its own stream, so that the images drawn of a class
/// depend only on the seed and the images of that class.
///
/// # Errors
/// If `per_class` is zero, a label is not below `classes`, or a class has fewer images (named).
pub fn draw_images(
    labels: &[usize],
    classes: usize,
    per_class: usize,
    seed: Seed,
) -> Result<Vec<usize>, SamplingError> {
    if per_class == 0 {
        return Err(SamplingError::Nothing("images-per-class"));
    }
    let mut by_class = vec![Vec::new(); classes];
    for (image, &label) in labels.iter().enumerate() {
        let of_class = by_class.get_mut(label).ok_or(SamplingError::Label { image, label, classes })?;
        of_class.push(image);
    }
    let mut drawn = Vec::with_capacity(classes * per_class);
    for (class, mut images) in by_class.into_iter().enumerate() {
        if images.len() < per_class {
            return Err(SamplingError::TooFewImages { class, found: images.len(), wanted: per_class });
        }
        let mut rng = seed.index(class as u64).rng();
        for place in 0..per_class {
            let chosen = rng.random_range(place..images.len());
            images.swap(place, chosen);
        }
        drawn.extend_from_slice(&images[..per_class]);
    }
    drawn.sort_unstable();
    Ok(drawn)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn seed() -> Seed {
        Seed::root(3).child("images")
    }

    proptest! {
        #[test]
        fn every_class_gives_its_number_of_distinct_images_in_ascending_order(
            labels in proptest::collection::vec(0_usize..4, 40..120),
            per_class in 1_usize..4,
        ) {
            let classes = 4;
            let count = |class| labels.iter().filter(|&&label| label == class).count();
            prop_assume!((0..classes).all(|class| count(class) >= per_class));
            let drawn = draw_images(&labels, classes, per_class, seed()).unwrap();
            prop_assert!(drawn.is_sorted_by(|a, b| a < b));
            for class in 0..classes {
                prop_assert_eq!(drawn.iter().filter(|&&i| labels[i] == class).count(), per_class);
            }
        }
    }

    #[test]
    fn a_draw_is_pinned_so_that_stored_results_keep_their_meaning() {
        // 300 images of class 0 and 600 of class 1.
        let labels: Vec<usize> = (0..900).map(|i| i * i % 3).collect();
        assert_eq!(
            draw_images(&labels, 2, 5, seed()).unwrap(),
            [51, 115, 169, 372, 489, 528, 572, 594, 595, 745]
        );
    }

    #[test]
    fn the_draw_follows_the_seed() {
        let labels: Vec<usize> = (0..300).map(|i| i % 3).collect();
        let draw = |seed| draw_images(&labels, 3, 5, seed).unwrap();
        assert_eq!(draw(seed()), draw(seed()));
        assert_ne!(draw(seed()), draw(seed().index(1)));
    }

    #[test]
    fn classes_do_not_influence_each_other() {
        let few: Vec<usize> = (0..60).map(|i| i % 2).collect();
        let more: Vec<usize> = few.iter().copied().chain([1; 30]).chain([2; 30]).collect();
        let of_class_0 = |labels: &[usize], classes| -> Vec<usize> {
            let drawn = draw_images(labels, classes, 5, seed()).unwrap();
            drawn.into_iter().filter(|&i| labels[i] == 0).collect()
        };
        assert_eq!(of_class_0(&few, 2), of_class_0(&more, 3));
    }

    #[test]
    fn drawing_all_images_of_a_class_takes_each_once() {
        let labels = [1, 0, 1, 0];
        assert_eq!(draw_images(&labels, 2, 2, seed()).unwrap(), [0, 1, 2, 3]);
    }

    #[test]
    fn bad_requests_are_named() {
        let message =
            |labels: &[usize], per_class| draw_images(labels, 2, per_class, seed()).unwrap_err().to_string();
        assert_eq!(message(&[0, 0, 1], 2), "class 1 has 1 images, 2 are to be drawn from it");
        assert_eq!(message(&[0, 0, 2], 1), "image 2 has label 2, there are 2 classes");
        assert_eq!(message(&[0, 1], 0), "images-per-class must be at least 1");
    }
}
