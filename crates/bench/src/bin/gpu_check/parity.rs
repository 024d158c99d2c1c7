//! What a device computes beside the CPU: 32-bit floats without TF32, deterministic algorithms.

use anyhow::{Context as _, Result};
use tch::{Device, Tensor};
use thinet_graph::Graph;
use thinet_models::{
    Arch, Mode, NetSpec, PaperModel, Precision, ResNetStride, Weights, forward, loss_and_gradients,
    paper_models, set_deterministic, set_tf32,
};
use thinet_seed::Seed;
use thinet_selectors::Evidence;

use crate::child::Message;
use crate::nets::{CLASSES, Calibration, Scale, images, labels, weights};
use crate::report::Row;

/// Devices add in another order; differences up to this are rounding.
pub(crate) const TOLERANCE: f64 = 1e-3;
/// Nets beside the CPU.
pub(crate) const NETS: &str = "parity of nets";
/// Calibration and selection beside the CPU.
pub(crate) const LAYERS: &str = "parity of pruning";
/// The layers whose evidence is compared.
const SAMPLED: [(&str, &str); 3] =
    [("vgg16-gap", "conv3_2"), ("resnet50", "layer2.0.conv1"), ("resnet50", "layer2.0.conv2")];
/// Positions of an image: the rows of a batch must be more than a layer has channels, or moments leave choices open.
const POSITIONS: usize = 256;

/// All that [`serve`] checks: section and name.
pub(crate) fn subjects() -> Result<Vec<(&'static str, String)>> {
    let nets = paper_models(ResNetStride::First1x1)?;
    let nets = nets.iter().map(|model| (NETS, model.name.to_owned()));
    let layers = SAMPLED.iter().map(|(net, layer)| (LAYERS, format!("{net} {layer}")));
    Ok(nets.chain(layers).collect())
}

/// The child process: sends a row for each figure. A subject that fails costs its own rows alone.
pub(crate) fn serve(device: Device, scale: Scale) -> Result<()> {
    set_tf32(false)?;
    set_deterministic(true)?;
    for model in paper_models(ResNetStride::First1x1)? {
        send(NETS, model.name, net(&model, device, scale));
    }
    for (net, layer) in SAMPLED {
        send(LAYERS, &format!("{net} {layer}"), pruning(net, layer, device, scale));
    }
    Ok(())
}

fn send(section: &str, name: &str, rows: Result<Vec<Row>>) {
    let failed = |error| vec![Row::not_run(section, name, "all", &format!("{error:#}")).holds(false)];
    for row in rows.unwrap_or_else(failed) {
        Message::Row(row).send();
    }
}

/// What a net computes on one device.
struct Computed {
    logits: Tensor,
    loss: f64,
    gradient: Tensor,
}

fn compute(graph: &Graph, weights: &Weights, device: Device, scale: Scale) -> Result<Computed> {
    let batch = scale.parity_batch();
    let (images, labels) = (images(batch, scale, device)?, labels(batch, device)?);
    // A training pass moves running statistics in place.
    let weights = weights.deep_copy()?.to_device(device)?;
    let logits = tch::no_grad(|| forward(graph, &weights, &images, Mode::Eval))?;
    let tensors = graph.tensors();
    let first = tensors.iter().find(|tensor| tensor.trainable).context("a net without weights")?;
    let (loss, gradients) = loss_and_gradients(
        graph,
        &weights,
        [first.name.as_str()],
        &images,
        &labels,
        Mode::Train,
        Precision::F32,
    )?;
    let gradient = gradients.first().context("no gradient")?.f_to_device(Device::Cpu)?;
    Ok(Computed { logits: logits.f_to_device(Device::Cpu)?, loss, gradient })
}

/// The largest difference, relative to the largest value.
fn difference(found: &Tensor, expected: &Tensor) -> f64 {
    let largest = |tensor: &Tensor| tensor.abs().max().double_value(&[]);
    largest(&(found - expected)) / largest(expected)
}

fn relative(found: f64, expected: f64) -> f64 {
    (found - expected).abs() / expected.abs()
}

fn same_bits(section: &str, name: &str, same: bool) -> Row {
    Row::text(section, name, "same bits twice", if same { "yes" } else { "no" }).holds(same)
}

fn within(section: &str, name: &str, metric: &str, value: f64) -> Row {
    // A difference that is not a number does not hold.
    Row::number(section, name, metric, value, "").holds(value <= TOLERANCE)
}

fn net(model: &PaperModel, device: Device, scale: Scale) -> Result<Vec<Row>> {
    let mut spec = model.spec.clone();
    if spec.arch == Arch::Vgg16 {
        // Each device has a generator of its own, so that nothing is dropped where both must agree.
        spec.dropout = Some(0.0);
    }
    let graph = spec.build(scale.image(), CLASSES)?;
    let weights = weights(&graph)?;
    let cpu = compute(&graph, &weights, Device::Cpu, scale)?;
    let there = compute(&graph, &weights, device, scale)?;
    let again = compute(&graph, &weights, device, scale)?;
    let same = there.logits == again.logits
        && there.loss.to_bits() == again.loss.to_bits()
        && there.gradient == again.gradient;
    let name = model.name;
    Ok(vec![
        within(NETS, name, "logits", difference(&there.logits, &cpu.logits)),
        within(NETS, name, "loss, training", relative(there.loss, cpu.loss)),
        within(NETS, name, "gradient of the first convolution", difference(&there.gradient, &cpu.gradient)),
        same_bits(NETS, name, same),
    ])
}

fn pruning(net: &str, layer: &str, device: Device, scale: Scale) -> Result<Vec<Row>> {
    let graph = NetSpec::new(net.parse()?).build(scale.image(), CLASSES)?;
    let weights = weights(&graph)?;
    let calibration = Calibration::new(&graph, layer, POSITIONS)?;
    let evidence = |device: Device| -> Result<Evidence> {
        let images = images(scale.parity_batch(), scale, device)?;
        calibration.pass(&graph, &weights.to_device(device)?, &images, &mut |_, _| ())
    };
    let (cpu, there, again) = (evidence(Device::Cpu)?, evidence(device)?, evidence(device)?);
    let name = format!("{net} {layer}");
    let moments = difference(&gram(&there)?, &gram(&cpu)?);
    let mut rows = vec![within(LAYERS, &name, "moments", moments), same_bits(LAYERS, &name, there == again)];
    let keep = cpu.channels / 2;
    for selector in thinet_selectors::all() {
        let kept = |evidence: &Evidence| -> Result<Vec<usize>> {
            Ok(selector.select(evidence, keep, Seed::root(0).child("select"))?.kept.kept().to_vec())
        };
        let (ours, theirs) = (kept(&cpu)?, kept(&there)?);
        let others = theirs.iter().filter(|channel| !ours.contains(channel)).count();
        let row = Row::number(LAYERS, &name, selector.name(), others as f64, "kept there alone");
        rows.push(row.note(&format!("{keep} of {} channels kept", cpu.channels)));
    }
    Ok(rows)
}

/// XᵀX as a tensor.
fn gram(evidence: &Evidence) -> Result<Tensor> {
    let moments = evidence.moments.as_ref().context("no moments")?;
    let values: Vec<f64> = (0..evidence.channels).flat_map(|i| moments.row(i).to_vec()).collect();
    Ok(Tensor::f_from_slice(&values)?)
}
