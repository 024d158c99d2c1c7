//! Top-1, top-5 and cross-entropy of a network over a data set, added up batch by batch.

use crate::MetricsError;

/// Accuracy and loss of a network on a set of images.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Evaluation {
    /// Images whose label has the largest logit, in %.
    pub top1: f64,
    /// Images whose label is among the five largest logits, in %.
    pub top5: f64,
    /// Mean cross-entropy (natural logarithm).
    pub loss: f64,
    pub images: u64,
}

/// Accumulates batches in integers and 64-bit floats, image by image: the result does not depend on the batch size, nor on
/// the order in which a device sums.
#[derive(Clone, Debug, Default)]
pub struct Evaluator {
    top1: u64,
    top5: u64,
    loss: f64,
    images: u64,
}

impl Evaluator {
    /// An evaluator without images.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a batch of n images: `logits: [n, classes]`, row by row, and `labels: [n]`.
    ///
    /// # Errors
    /// If the lengths do not fit, or a label is no class; then nothing of the batch is counted.
    pub fn add(&mut self, classes: usize, logits: &[f64], labels: &[i64]) -> Result<(), MetricsError> {
        if classes == 0 || labels.len().checked_mul(classes) != Some(logits.len()) {
            return Err(MetricsError::Shape { logits: logits.len(), labels: labels.len(), classes });
        }
        let mut labels_in_range = Vec::with_capacity(labels.len());
        for (image, &label) in (self.images..).zip(labels) {
            match usize::try_from(label) {
                Ok(class) if class < classes => labels_in_range.push(class),
                _ => return Err(MetricsError::Label { image, label, classes }),
            }
        }
        for (row, label) in logits.chunks_exact(classes).zip(labels_in_range) {
            let place = place(row, label);
            self.top1 += u64::from(place.is_some_and(|place| place < 1));
            self.top5 += u64::from(place.is_some_and(|place| place < 5));
            self.loss += cross_entropy(row, label);
            self.images += 1;
        }
        Ok(())
    }

    /// The percentages and the mean loss of all images added.
    ///
    /// # Errors
    /// If none was added.
    pub fn finish(self) -> Result<Evaluation, MetricsError> {
        if self.images == 0 {
            return Err(MetricsError::NoImages);
        }
        let images = self.images as f64;
        Ok(Evaluation {
            top1: 100.0 * self.top1 as f64 / images,
            top5: 100.0 * self.top5 as f64 / images,
            loss: self.loss / images,
            images: self.images,
        })
    }
}

/// Place of the label among the logits, from 0 for the largest; of equal logits the lower class comes first.
/// `None` for a row that holds NaN: the image counts as wrong.
fn place(row: &[f64], label: usize) -> Option<usize> {
    let own = row[label];
    if row.iter().any(|logit| logit.is_nan()) {
        return None;
    }
    let before = |(class, &logit): (usize, &f64)| logit > own || (logit == own && class < label);
    Some(row.iter().enumerate().filter(|&entry| before(entry)).count())
}

/// −log softmax(row)[label].
fn cross_entropy(row: &[f64], label: usize) -> f64 {
    let largest = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = row.iter().map(|logit| (logit - largest).exp()).sum();
    sum.ln() + largest - row[label]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn evaluate(rows: &[&[f64]], labels: &[i64]) -> Result<Evaluation, MetricsError> {
        let mut evaluator = Evaluator::new();
        evaluator.add(rows[0].len(), &rows.concat(), labels)?;
        evaluator.finish()
    }

    #[test]
    fn places_and_loss_by_hand() {
        // Labels first, first, second and last: turned round, the places would be others.
        let row: &[f64] = &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0];
        let found = evaluate(&[row; 4], &[5, 5, 4, 0]).unwrap();
        assert_eq!((found.top1, found.top5, found.images), (50.0, 75.0, 4));
        // log Σ exp(0..=5) = 5.456193316018123; the labels' logits are 5, 5, 4 and 0.
        assert!((found.loss - (5.456_193_316_018_123 - 3.5)).abs() < 1e-12);
    }

    #[test]
    fn the_fifth_place_counts_and_the_sixth_does_not() {
        let row: &[f64] = &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0];
        assert_eq!(evaluate(&[row], &[1]).unwrap().top5, 100.0);
        assert_eq!(evaluate(&[row], &[0]).unwrap().top5, 0.0);
    }

    #[test]
    fn of_equal_logits_the_lower_class_comes_first() {
        let found = evaluate(&[&[1.0; 7], &[1.0; 7], &[1.0; 7], &[1.0; 7]], &[0, 1, 4, 5]).unwrap();
        assert_eq!((found.top1, found.top5), (25.0, 75.0));
        assert!((found.loss - 7_f64.ln()).abs() < 1e-12);
    }

    #[test]
    fn with_fewer_than_five_classes_all_are_in_the_top_five() {
        let found = evaluate(&[&[3.0, 2.0, 1.0], &[3.0, 2.0, 1.0]], &[2, 0]).unwrap();
        assert_eq!((found.top1, found.top5), (50.0, 100.0));
    }

    #[test]
    fn a_row_with_nan_is_wrong_and_seen_in_the_loss() {
        for nan_at in 0..3 {
            let mut row = [1.0, 0.0, 0.0];
            row[nan_at] = f64::NAN;
            let found = evaluate(&[&row], &[0]).unwrap();
            assert_eq!((found.top1, found.top5), (0.0, 0.0));
            assert!(found.loss.is_nan());
        }
    }

    #[test]
    fn large_logits_do_not_overflow() {
        let found = evaluate(&[&[1e308, -1e308]], &[0]).unwrap();
        assert_eq!(found.loss, 0.0);
    }

    #[test]
    fn wrong_lengths_and_labels_are_refused_and_not_counted() {
        let message = |classes: usize, logits: &[f64], labels: &[i64]| {
            let mut evaluator = Evaluator::new();
            let error = evaluator.add(classes, logits, labels).unwrap_err().to_string();
            assert!(matches!(evaluator.finish(), Err(MetricsError::NoImages)));
            error
        };
        let expected = "expected one logit for each label and class";
        for (classes, logits, labels, start) in [
            (3, &[0.0; 6][..], &[0][..], "6 logits do not fit 1 labels of 3 classes"),
            (0, &[], &[0], "0 logits do not fit 1 labels of 0 classes"),
            (0, &[], &[], "0 logits do not fit 0 labels of 0 classes"),
        ] {
            assert_eq!(message(classes, logits, labels), format!("{start}; {expected}"));
        }
        for label in [3, -1] {
            assert_eq!(
                message(3, &[0.0; 6], &[0, label]),
                format!("image 1 has label {label}, the network has 3 classes")
            );
        }
        assert_eq!(Evaluator::new().finish().unwrap_err().to_string(), "no image was evaluated");
    }

    proptest! {
        #[test]
        fn the_batch_size_changes_no_bit(
            rows in proptest::collection::vec((proptest::collection::vec(-9.0_f64..9.0, 6), 0..6_i64), 1..12),
            batch in 1..12_usize,
        ) {
            let add = |evaluator: &mut Evaluator, rows: &[(Vec<f64>, i64)]| {
                let logits: Vec<f64> = rows.iter().flat_map(|(row, _)| row).copied().collect();
                let labels: Vec<i64> = rows.iter().map(|&(_, label)| label).collect();
                evaluator.add(6, &logits, &labels).unwrap();
            };
            let (mut whole, mut parts) = (Evaluator::new(), Evaluator::new());
            add(&mut whole, &rows);
            rows.chunks(batch).for_each(|rows| add(&mut parts, rows));
            prop_assert_eq!(parts.finish().unwrap(), whole.finish().unwrap());
        }
    }
}
