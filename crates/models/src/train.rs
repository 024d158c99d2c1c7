//! One training step: forward, cross-entropy, gradients, SGD.

use tch::{Kind, Reduction, Tensor};
use thinet_graph::Graph;

use crate::error::Context;
use crate::{Mode, ModelError, Precision, Sgd, Weights, forward};

/// Mean cross-entropy of `images` `[n, c, h, w]` against `labels` `[n]` (64-bit integers), a tensor `[]` on their device, and its
/// gradients by the named tensors, in their order. A tensor that the loss does not depend on has an undefined gradient. The loss is taken
/// in 32-bit floats whatever the precision of the layers.
///
/// # Errors
/// If images or labels do not fit, a tensor is missing, or libtorch refuses an operation.
pub fn loss_and_gradients<'a>(
    graph: &Graph,
    weights: &Weights,
    names: impl IntoIterator<Item = &'a str>,
    images: &Tensor,
    labels: &Tensor,
    mode: Mode,
    precision: Precision,
) -> Result<(Tensor, Vec<Tensor>), ModelError> {
    let parameters = names.into_iter().map(|name| weights.get(name)).collect::<Result<Vec<_>, _>>()?;
    let tracked = GradientTracking::new(parameters)?;
    let logits = {
        let _autocast = precision.enter(images.device())?;
        forward(graph, weights, images, mode)?
    };
    let logits = logits.f_to_kind(Kind::Float).context(|| "logits".to_owned())?;
    let loss = logits
        .f_cross_entropy_loss::<Tensor>(labels, None, Reduction::Mean, -100, 0.0)
        .context(|| "cross-entropy".to_owned())?;
    let gradients = Tensor::f_run_backward(&[&loss], &tracked.0, false, false)
        .context(|| "gradients of the loss".to_owned())?;
    Ok((loss.f_detach().context(|| "loss".to_owned())?, gradients))
}

/// One step of SGD on a batch, in training mode: changes the weights in place, running statistics included, and
/// returns the loss before the step, a tensor `[]` on the device: reading it waits for the device.
///
/// # Errors
/// As [`loss_and_gradients`].
pub fn train_step(
    graph: &Graph,
    weights: &Weights,
    sgd: &mut Sgd,
    images: &Tensor,
    labels: &Tensor,
    lr: f64,
    precision: Precision,
) -> Result<Tensor, ModelError> {
    let (loss, gradients) =
        loss_and_gradients(graph, weights, sgd.names(), images, labels, Mode::Train, precision)?;
    sgd.step(weights, gradients, lr)?;
    Ok(loss)
}

/// Guard that makes libtorch record gradients of these tensors until it is dropped. Outside of it weights track nothing,
/// so that evaluation and surgery never build an autograd graph.
struct GradientTracking<'a>(Vec<&'a Tensor>);

impl<'a> GradientTracking<'a> {
    fn new(tensors: Vec<&'a Tensor>) -> Result<Self, ModelError> {
        let tracked = Self(tensors);
        for tensor in &tracked.0 {
            drop(tensor.f_set_requires_grad(true).context(|| "gradient tracking".to_owned())?);
        }
        Ok(tracked)
    }
}

impl Drop for GradientTracking<'_> {
    fn drop(&mut self) {
        for tensor in &self.0 {
            // Turning it off cannot fail for a leaf tensor, and a destructor cannot return an error.
            drop(tensor.f_set_requires_grad(false));
        }
    }
}
