//! Compares a device with the CPU: images and steps on the way there, then every net of the paper, judged by the noise that the CPU
//! has itself.

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};
use tch::{Kind, Tensor};
use thinet_bench::relative_difference;
use thinet_graph::{Graph, Op};
use thinet_models::{
    Device, MemoryFormat, Mode, Precision, Weights, forward, has_batch_norm, loss_and_gradients,
    set_deterministic, set_tf32,
};
use thinet_nets::{ResNetStride, paper_models};

use crate::input::{PHOTO, images, labels, noisy, weights};
use crate::row::{LEAST_NOISE, bounded, judged, row};
use crate::smooth::smooth;
use crate::{evidence, feeding};

/// Most that logits may differ from those in 32-bit floats: TF32 has 10 bits after the point, bfloat16 has 7, and some tens of layers
/// add up.
const MOST_OF_TF32: f64 = 0.01;
const MOST_OF_BF16: f64 = 0.08;
/// Passes on the CPU for the noise of gradients without branches, which is alike in all of them.
const SMOOTH_PASSES: usize = 2;

/// Prints a line for each name once it is compared, in 32-bit floats without TF32, with deterministic algorithms. One that fails has its
/// error in its line, and the others go on.
pub(crate) fn parity(device: Device, batch: usize, names: &[&str]) -> Result<()> {
    set_tf32(false)?;
    set_deterministic(true, device)?;
    for &name in names {
        let line = match compare(name, device, batch) {
            Ok(rows) => json!({ "name": name, "rows": rows }),
            Err(error) => json!({ "name": name, "error": format!("{error:#}") }),
        };
        println!("{line}");
    }
    Ok(())
}

fn compare(name: &str, device: Device, batch: usize) -> Result<Vec<Value>> {
    match name {
        "bytes" => feeding::bytes(device),
        "set" => feeding::small_set(device),
        "sgd" => feeding::sgd(device),
        "dropout" => feeding::dropout(device),
        "evidence" => evidence::compare_all(device, batch),
        _ => match paper_models(ResNetStride::First1x1)?.into_iter().find(|model| model.name == name) {
            Some(model) => net(name, &model.build()?, device.into(), batch),
            None => bail!("no net of this name"),
        },
    }
}

/// Gradients of all trained tensors on the CPU, by name.
type Gradients = Vec<(String, Tensor)>;

/// Gradients of a pass, if there are any.
type Part = fn(&NetResults) -> Option<&Gradients>;

/// What the gradients are called, and where they are.
const GRADIENTS: [(&str, Part); 2] = [
    ("gradients of all layers", |results| Some(&results.gradients)),
    ("the same with the batch's statistics", |results| results.training.as_ref()),
];

/// The results of a net on one device, copied to the CPU.
struct NetResults {
    logits: Tensor,
    loss: f64,
    gradients: Gradients,
    /// Those with the statistics of the batch, of nets that have batch normalisation and no dropout, which draws from another
    /// generator on each device.
    training: Option<Gradients>,
}

impl NetResults {
    fn equals(&self, other: &Self) -> bool {
        let same =
            |ours: &Gradients, theirs: &Gradients| ours.iter().zip(theirs).all(|((_, a), (_, b))| a == b);
        self.logits == other.logits
            && self.loss.to_bits() == other.loss.to_bits()
            && same(&self.gradients, &other.gradients)
            && self
                .training
                .as_ref()
                .zip(other.training.as_ref())
                .is_none_or(|(ours, theirs)| same(ours, theirs))
    }
}

fn logits(
    graph: &Graph,
    weights: &Weights,
    images: &Tensor,
    device: tch::Device,
    format: MemoryFormat,
    precision: Precision,
) -> Result<Tensor> {
    let images = format.apply(&images.to_device(device))?;
    let weights = weights.to_device(device)?.to_format(format)?;
    let _autocast = precision.enter(device)?;
    let logits = tch::no_grad(|| forward(graph, &weights, &images, Mode::Eval))?;
    Ok(logits.to_kind(Kind::Float).to_device(tch::Device::Cpu))
}

fn compute(
    graph: &Graph,
    weights: &Weights,
    images: &Tensor,
    device: tch::Device,
    format: MemoryFormat,
) -> Result<NetResults> {
    let logits = logits(graph, weights, images, device, format, Precision::F32)?;
    let labels = labels(PHOTO, images.size()[0] as usize).to_device(device);
    let images = format.apply(&images.to_device(device))?;
    let weights = weights.to_device(device)?.to_format(format)?;
    let names: Vec<String> =
        graph.tensors().into_iter().filter(|spec| spec.trainable).map(|spec| spec.name).collect();
    let of = |mode| -> Result<(f64, Gradients)> {
        let all = names.iter().map(String::as_str);
        let (loss, gradients) =
            loss_and_gradients(graph, &weights, all, &images, &labels, mode, Precision::F32)?;
        let gradients =
            gradients.into_iter().map(|gradient| gradient.contiguous().to_device(tch::Device::Cpu));
        Ok((loss.f_double_value(&[])?, names.iter().cloned().zip(gradients).collect()))
    };
    let (loss, gradients) = of(Mode::Eval)?;
    let has_dropout = graph.nodes().iter().any(|node| matches!(node.op, Op::Dropout { .. }));
    // Last, as it changes the running statistics.
    let training = match has_batch_norm(graph) && !has_dropout {
        true => Some(of(Mode::Train)?.1),
        false => None,
    };
    Ok(NetResults { logits, loss, gradients, training })
}

/// The gradient that differs most for its noise: its name, difference and noise. A pool or a rectifier that switches moves a gradient
/// by more than any sum does, and which ones switch is chance, so the noise is the largest of several.
fn worst(cpu: &Gradients, others: &[&Gradients], there: &Gradients) -> Result<(String, f64, f64)> {
    let mut all = Vec::new();
    for (at, (name, gradient)) in cpu.iter().enumerate() {
        let difference = relative_difference(&there[at].1, gradient);
        let of = |other: &&Gradients| relative_difference(&other[at].1, gradient);
        all.push((name.clone(), difference, others.iter().map(of).fold(0.0, f64::max)));
    }
    let ratio = |(_, difference, noise): &(String, f64, f64)| difference / noise.max(LEAST_NOISE);
    all.into_iter().max_by(|a, b| ratio(a).total_cmp(&ratio(b))).context("a net without weights")
}

/// The rows of a net's gradients, of which `of_what` says more.
fn gradient_rows(
    name: &str,
    of_what: &str,
    cpu: &NetResults,
    others: &[NetResults],
    there: &NetResults,
) -> Result<Vec<Value>> {
    let mut rows = Vec::new();
    for (what, of) in GRADIENTS {
        let (Some(cpu), Some(there)) = (of(cpu), of(there)) else { continue };
        let others: Vec<&Gradients> = others.iter().filter_map(of).collect();
        let (worst, difference, noise) = worst(cpu, &others, there)?;
        let metric = format!("{what}{of_what}, largest relative difference");
        rows.push(judged(name, &metric, difference, noise, &format!("the worst: {worst}")));
    }
    Ok(rows)
}

fn net(name: &str, graph: &Graph, device: tch::Device, batch: usize) -> Result<Vec<Value>> {
    let weights = weights(graph)?;
    let images = images(PHOTO, batch);
    let compute = |images: &Tensor, device, format| compute(graph, &weights, images, device, format);
    let cpu = compute(&images, tch::Device::Cpu, MemoryFormat::Contiguous)?;
    let others = noisy(&images)
        .into_iter()
        .map(|(images, format)| compute(&images, tch::Device::Cpu, format))
        .collect::<Result<Vec<_>>>()?;
    let there = compute(&images, device, MemoryFormat::Contiguous)?;
    let again = compute(&images, device, MemoryFormat::Contiguous)?;
    let noise = |of: &dyn Fn(&NetResults) -> f64| others.iter().map(of).fold(0.0, f64::max);
    let of_logits = |other: &NetResults| relative_difference(&other.logits, &cpu.logits);
    let of_loss = |other: &NetResults| ((other.loss - cpu.loss) / cpu.loss).abs();
    let mut rows = vec![
        judged(name, "logits, largest relative difference", of_logits(&there), noise(&of_logits), ""),
        judged(name, "loss, relative difference", of_loss(&there), noise(&of_loss), ""),
    ];
    rows.extend(gradient_rows(name, "", &cpu, &others, &there)?);
    rows.push(row(name, "the same bits in a second run", there.equals(&again), ""));
    for (what, precision, tf32, bound) in
        [("TF32", Precision::F32, true, MOST_OF_TF32), ("bf16", Precision::Bf16, true, MOST_OF_BF16)]
    {
        set_tf32(tf32)?;
        let rounded = logits(graph, &weights, &images, device, MemoryFormat::ChannelsLast, precision);
        set_tf32(false)?;
        let difference = relative_difference(&rounded?, &there.logits);
        let metric = format!("{what} against f32, logits, relative difference");
        rows.push(bounded(name, &metric, difference, bound, ""));
    }
    rows.extend(smooth_gradients(name, &smooth(graph)?, &weights, device, &images)?);
    Ok(rows)
}

/// Compares the gradients of a net without branches. Where these agree and those of the net as it is do not, a unit has switched.
fn smooth_gradients(
    name: &str,
    graph: &Graph,
    weights: &Weights,
    device: tch::Device,
    images: &Tensor,
) -> Result<Vec<Value>> {
    let compute = |images: &Tensor, device, format| compute(graph, weights, images, device, format);
    let cpu = compute(images, tch::Device::Cpu, MemoryFormat::Contiguous)?;
    let noisy = noisy(images).into_iter().take(SMOOTH_PASSES);
    let others = noisy
        .map(|(images, format)| compute(&images, tch::Device::Cpu, format))
        .collect::<Result<Vec<_>>>()?;
    let there = compute(images, device, MemoryFormat::Contiguous)?;
    gradient_rows(name, ", without rectifiers and maxima", &cpu, &others, &there)
}
