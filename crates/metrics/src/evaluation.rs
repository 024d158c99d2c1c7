//! Top-1, top-5 and cross-entropy of a network over a data set, added up batch by batch.

use tch::{Device, Kind, Tensor};

use crate::MetricsError;

/// How well a network did on a set of images.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Evaluation {
    /// Images whose label has the largest logit, in %.
    pub top1: f64,
    /// Images whose label is among the five largest logits, in %.
    pub top5: f64,
    /// Mean cross-entropy (natural logarithm).
    pub loss: f64,
    /// Number of images.
    pub images: u64,
}

/// Adds up batches in integers and 64-bit floats, image by image: the result does not depend on the batch size, nor on
/// the order in which a device sums.
#[derive(Clone, Debug, Default)]
pub struct Evaluator {
    top1: u64,
    top5: u64,
    loss: f64,
    images: u64,
}

impl Evaluator {
    /// An evaluator that has seen no image.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a batch: `logits: [n, classes]` of any float kind, `labels: [n]` of 64-bit integers, on any devices.
    ///
    /// # Errors
    /// If the shapes or kinds are others, or a label is no class; then nothing of the batch is counted.
    pub fn add(&mut self, logits: &Tensor, labels: &Tensor) -> Result<(), MetricsError> {
        let classes = match (&logits.size()[..], &labels.size()[..]) {
            (&[rows, classes], &[n]) if rows == n && classes > 0 => classes as usize,
            (logits, labels) => {
                return Err(MetricsError::Shape { logits: logits.to_vec(), labels: labels.to_vec() });
            }
        };
        if labels.kind() != Kind::Int64 {
            return Err(MetricsError::LabelKind(labels.kind()));
        }
        let logits: Vec<f64> = Vec::try_from(on_cpu(logits, Kind::Double)?.f_reshape([-1])?)?;
        let labels: Vec<i64> = Vec::try_from(on_cpu(labels, Kind::Int64)?)?;
        let mut labels_in_range = Vec::with_capacity(labels.len());
        for (image, &label) in (self.images..).zip(&labels) {
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

fn on_cpu(tensor: &Tensor, kind: Kind) -> Result<Tensor, MetricsError> {
    Ok(tensor.f_detach()?.f_to_device(Device::Cpu)?.f_to_kind(kind)?)
}

/// Place of the label among the logits, from 0 for the largest; of equal logits the lower class comes first.
/// A row that holds NaN has no places: the image counts as wrong.
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

    fn evaluate(rows: &[&[f32]], labels: &[i64]) -> Result<Evaluation, MetricsError> {
        let logits = Tensor::from_slice(&rows.concat()).reshape([rows.len() as i64, -1]);
        let mut evaluator = Evaluator::new();
        evaluator.add(&logits, &Tensor::from_slice(labels))?;
        evaluator.finish()
    }

    #[test]
    fn places_and_loss_by_hand() {
        let rows: [&[f32]; 4] = [
            &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0], // label 5: first
            &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0], // label 4: second
            &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0], // label 1: fifth
            &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0], // label 0: sixth
        ];
        let found = evaluate(&rows, &[5, 4, 1, 0]).unwrap();
        assert_eq!((found.top1, found.top5, found.images), (25.0, 75.0, 4));
        // log Σ exp(0..=5) = 5.456193316018123; the labels' logits are 5, 4, 1 and 0.
        assert!((found.loss - (5.456_193_316_018_123 - 2.5)).abs() < 1e-12);
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
            row[nan_at] = f32::NAN;
            let found = evaluate(&[&row], &[0]).unwrap();
            assert_eq!((found.top1, found.top5), (0.0, 0.0));
            assert!(found.loss.is_nan());
        }
    }

    #[test]
    fn large_logits_do_not_overflow() {
        let found = evaluate(&[&[3e38, -3e38]], &[0]).unwrap();
        assert_eq!(found.loss, 0.0);
    }

    #[test]
    fn wrong_shapes_kinds_and_labels_are_refused_and_not_counted() {
        let message = |logits: &Tensor, labels: &Tensor| {
            let mut evaluator = Evaluator::new();
            let error = evaluator.add(logits, labels).unwrap_err().to_string();
            assert!(matches!(evaluator.finish(), Err(MetricsError::NoImages)));
            error
        };
        let logits = Tensor::zeros([2, 3], (Kind::Float, Device::Cpu));
        assert_eq!(
            message(&logits, &Tensor::from_slice(&[0_i64])),
            "logits of shape [2, 3] do not fit labels of shape [1]; expected [n, classes] and [n]"
        );
        let no_classes = Tensor::zeros([1, 0], (Kind::Float, Device::Cpu));
        assert_eq!(
            message(&no_classes, &Tensor::from_slice(&[0_i64])),
            "logits of shape [1, 0] do not fit labels of shape [1]; expected [n, classes] and [n]"
        );
        assert_eq!(
            message(&logits, &Tensor::from_slice(&[0.0_f32, 1.0])),
            "labels are of kind Float, not Int64"
        );
        for label in [3_i64, -1] {
            assert_eq!(
                message(&logits, &Tensor::from_slice(&[0, label])),
                format!("image 1 has label {label}, the network has 3 classes")
            );
        }
        assert_eq!(Evaluator::new().finish().unwrap_err().to_string(), "no image was evaluated");
    }

    proptest! {
        #[test]
        fn torch_agrees_and_the_batch_size_changes_no_bit(
            // Distinct logits, so that torch's choice among ties plays no part.
            rows in proptest::collection::vec((Just((0..6).collect::<Vec<i8>>()).prop_shuffle(), 0..6_i64), 1..12),
            scale in 0.1_f32..10.0,
            batch in 1..12_usize,
        ) {
            let values: Vec<f32> = rows.iter().flat_map(|(row, _)| row).map(|&v| f32::from(v) * scale).collect();
            let labels: Vec<i64> = rows.iter().map(|&(_, label)| label).collect();
            let n = rows.len() as i64;
            let (logits, labels) = (Tensor::from_slice(&values).reshape([n, 6]), Tensor::from_slice(&labels));

            let mut whole = Evaluator::new();
            whole.add(&logits, &labels).unwrap();
            let whole = whole.finish().unwrap();
            let mut parts = Evaluator::new();
            for (logits, labels) in logits.split(batch as i64, 0).iter().zip(labels.split(batch as i64, 0)) {
                parts.add(logits, &labels).unwrap();
            }
            prop_assert_eq!(parts.finish().unwrap(), whole);

            let hits = |k| {
                let (_, best) = logits.topk(k, 1, true, true);
                best.eq_tensor(&labels.unsqueeze(1)).sum(Kind::Int64).int64_value(&[])
            };
            prop_assert_eq!(whole.top1, 100.0 * hits(1) as f64 / n as f64);
            prop_assert_eq!(whole.top5, 100.0 * hits(5) as f64 / n as f64);
            let loss = logits.log_softmax(1, Kind::Double).nll_loss(&labels).double_value(&[]);
            prop_assert!((whole.loss - loss).abs() <= 1e-12 * loss.abs().max(1.0));
        }
    }
}
