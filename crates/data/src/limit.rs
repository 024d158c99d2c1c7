//! The first images of each class, in turn: the `train-limit` and `test-limit` keys; all but the last: the key `validation`.

/// The indices of `limit` images, ascending: the first of each class, then the second of each class, and so on (in
/// class order), so that class sizes differ by at most one as long as no class runs out.
pub(crate) fn class_balanced_prefix(
    labels: &[usize],
    classes: usize,
    limit: usize,
) -> Result<Vec<usize>, String> {
    if limit > labels.len() {
        return Err(format!("{limit} is more than the {} images there are", labels.len()));
    }
    if limit < classes {
        return Err(format!("{limit} is too few: each of the {classes} classes needs one image"));
    }
    let mut members = vec![Vec::new(); classes];
    for (index, &label) in labels.iter().enumerate() {
        members[label].push(index);
    }
    if let Some(class) = members.iter().position(Vec::is_empty) {
        return Err(format!(
            "class {class} has no image, so {limit} images cannot be drawn from every class"
        ));
    }
    let rounds = (0..).map(|round| members.iter().filter_map(move |class| class.get(round)));
    let mut indices: Vec<usize> = rounds.flatten().copied().take(limit).collect();
    indices.sort_unstable();
    Ok(indices)
}

/// The indices of all images, ascending, without the last `held_out`: the last of each class, then the last but one of each class,
/// and so on.
pub(crate) fn without_suffix(
    labels: &[usize],
    classes: usize,
    held_out: usize,
) -> Result<Vec<usize>, String> {
    let backwards: Vec<usize> = labels.iter().rev().copied().collect();
    let mut is_kept = vec![true; labels.len()];
    for from_end in class_balanced_prefix(&backwards, classes, held_out)? {
        is_kept[labels.len() - 1 - from_end] = false;
    }
    let kept: Vec<usize> = (0..labels.len()).filter(|&index| is_kept[index]).collect();
    let mut has_image = vec![false; classes];
    for &index in &kept {
        has_image[labels[index]] = true;
    }
    match has_image.iter().position(|has_image| !has_image) {
        Some(class) => Err(format!("{held_out} held out leave no image of class {class} for training")),
        None => Ok(kept),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_first_images_of_each_class_are_taken() {
        let labels = [1, 1, 0, 1, 0, 2, 2, 2];
        assert_eq!(class_balanced_prefix(&labels, 3, 3).unwrap(), [0, 2, 5]);
        assert_eq!(class_balanced_prefix(&labels, 3, 4).unwrap(), [0, 2, 4, 5]);
        // Class 0 has two images only: the other classes continue.
        assert_eq!(class_balanced_prefix(&labels, 3, 7).unwrap(), [0, 1, 2, 3, 4, 5, 6]);
        assert_eq!(class_balanced_prefix(&labels, 3, 8).unwrap().len(), 8);
    }

    #[test]
    fn limits_that_cannot_be_met_are_refused() {
        let says =
            |labels: &[usize], classes, limit| class_balanced_prefix(labels, classes, limit).unwrap_err();
        assert_eq!(says(&[0, 1], 2, 3), "3 is more than the 2 images there are");
        assert_eq!(says(&[0, 1, 1], 2, 1), "1 is too few: each of the 2 classes needs one image");
        assert!(says(&[0, 0, 0], 2, 2).starts_with("class 1 has no image"));
    }

    #[test]
    fn the_last_images_of_each_class_are_held_out() {
        let labels = [1, 1, 0, 1, 0, 2, 2, 2];
        assert_eq!(without_suffix(&labels, 3, 3).unwrap(), [0, 1, 2, 5, 6]);
        assert_eq!(
            without_suffix(&labels, 3, 5).unwrap_err(),
            "5 held out leave no image of class 0 for training"
        );
        assert_eq!(without_suffix(&labels, 3, 9).unwrap_err(), "9 is more than the 8 images there are");
        assert_eq!(
            without_suffix(&labels, 3, 2).unwrap_err(),
            "2 is too few: each of the 3 classes needs one image"
        );
    }

    proptest! {
        #[test]
        fn held_out_images_are_those_that_a_limit_takes_of_the_reversed_set(
            labels in prop::collection::vec(0..3usize, 6..40), held_out in 3..6usize
        ) {
            let Ok(kept) = without_suffix(&labels, 3, held_out) else { return Ok(()) };
            let backwards: Vec<usize> = labels.iter().rev().copied().collect();
            let taken = class_balanced_prefix(&backwards, 3, held_out).unwrap();
            let mut all: Vec<usize> = taken.into_iter().map(|i| labels.len() - 1 - i).chain(kept).collect();
            all.sort_unstable();
            prop_assert_eq!(all, (0..labels.len()).collect::<Vec<_>>());
        }

        #[test]
        fn classes_are_even_until_one_runs_out(labels in prop::collection::vec(0..4usize, 4..60), extra in 0..60usize) {
            let limit = (4 + extra).min(labels.len());
            let count = |indices: &[usize], class| indices.iter().filter(|i| labels[**i] == class).count();
            let all: Vec<usize> = (0..labels.len()).collect();
            prop_assume!((0..4).all(|class| count(&all, class) > 0));
            let taken = class_balanced_prefix(&labels, 4, limit).unwrap();
            prop_assert_eq!(taken.len(), limit);
            prop_assert!(taken.windows(2).all(|pair| pair[0] < pair[1]));
            let most = (0..4).map(|class| count(&taken, class)).max().unwrap();
            for class in 0..4 {
                let taken_here = count(&taken, class);
                prop_assert!(taken_here + 1 >= most || taken_here == count(&all, class));
                let first: Vec<_> = all.iter().filter(|i| labels[**i] == class).take(taken_here).collect();
                let here: Vec<_> = taken.iter().filter(|i| labels[**i] == class).collect();
                prop_assert_eq!(first, here);
            }
        }
    }
}
