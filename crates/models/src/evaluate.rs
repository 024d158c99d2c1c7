//! From the tensors that a network returns to the evaluation of its predictions.

use tch::{Device, Kind, Tensor};
use thinet_metrics::Evaluator;

use crate::ModelError;
use crate::error::Context;

/// Adds a batch to an evaluation: `logits: [n, classes]` of any float kind, `labels: [n]` of 64-bit integers, on any
/// devices. Logits are compared and summed in 64-bit floats on the CPU.
///
/// # Errors
/// If the shapes or kinds are others, or a label is no class; then nothing of the batch is counted.
pub fn add_batch(evaluator: &mut Evaluator, logits: &Tensor, labels: &Tensor) -> Result<(), ModelError> {
    let classes = match (&logits.size()[..], &labels.size()[..]) {
        (&[rows, classes], &[n]) if rows == n && classes > 0 => classes as usize,
        (logits, labels) => {
            return Err(ModelError::LogitsShape { logits: logits.to_vec(), labels: labels.to_vec() });
        }
    };
    if labels.kind() != Kind::Int64 {
        return Err(ModelError::LabelKind(labels.kind()));
    }
    let context = || "logits cannot be read".to_owned();
    let logits = on_cpu(logits, Kind::Double).and_then(|t| t.f_reshape([-1])).context(context)?;
    let logits: Vec<f64> = Vec::try_from(logits).context(context)?;
    let labels: Vec<i64> = Vec::try_from(on_cpu(labels, Kind::Int64).context(context)?).context(context)?;
    Ok(evaluator.add(classes, &logits, &labels)?)
}

fn on_cpu(tensor: &Tensor, kind: Kind) -> Result<Tensor, tch::TchError> {
    tensor.f_detach()?.f_to_device(Device::Cpu)?.f_to_kind(kind)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use thinet_metrics::MetricsError;

    use super::*;

    #[test]
    fn wrong_shapes_kinds_and_labels_are_refused_and_not_counted() {
        let message = |logits: &Tensor, labels: &Tensor| {
            let mut evaluator = Evaluator::new();
            let error = add_batch(&mut evaluator, logits, labels).unwrap_err().to_string();
            assert!(matches!(evaluator.finish(), Err(MetricsError::NoImages)));
            error
        };
        let logits = Tensor::zeros([2, 3], (Kind::Float, Device::Cpu));
        assert_eq!(
            message(&logits, &Tensor::from_slice(&[0_i64])),
            "logits of shape [2, 3] do not fit labels of shape [1]; expected [n, classes] and [n]"
        );
        assert_eq!(
            message(&logits, &Tensor::from_slice(&[0.0_f32, 1.0])),
            "labels are of kind Float, not Int64"
        );
        assert_eq!(
            message(&logits, &Tensor::from_slice(&[0_i64, 3])),
            "image 1 has label 3, the network has 3 classes"
        );
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
            add_batch(&mut whole, &logits, &labels).unwrap();
            let whole = whole.finish().unwrap();
            let mut parts = Evaluator::new();
            for (logits, labels) in logits.split(batch as i64, 0).iter().zip(labels.split(batch as i64, 0)) {
                add_batch(&mut parts, logits, &labels).unwrap();
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
