//! One calibration pass on a device and on the CPU: every kind of evidence, and the channels that selectors keep by it.

use anyhow::{Context as _, Result};
use serde_json::Value;
use tch::Tensor;
use thinet_bench::{observe_batch, relative_difference};
use thinet_graph::{ChannelGroup, Graph, channel_group};
use thinet_models::{Device, MemoryFormat, OutputGradient, Weights, has_batch_norm, output_gradients};
use thinet_sampling::EvidenceCollector;
use thinet_seed::Seed;
use thinet_selectors::{Evidence, Needs, Selector};

use crate::input::{PHOTO, images, labels, net, noisy, weights};
use crate::row::{judged, row};

/// The layers whose evidence is compared and whose calibration is timed.
pub(crate) const SAMPLED: [(&str, &str); 3] =
    [("vgg16-gap", "conv3_2"), ("resnet50", "layer2.0.conv1"), ("resnet50", "layer3.0.conv2")];

/// Positions sampled in each image, as in the paper.
const POSITIONS: usize = 10;

/// A layer of a net with the kinds of evidence that a forward pass gathers.
pub(crate) fn layer(graph: &Graph, layer: &str) -> Result<(ChannelGroup, Needs)> {
    let needs = Needs::FILTERS | Needs::ZEROS | Needs::ACTIVATIONS | Needs::MOMENTS;
    let needs = if has_batch_norm(graph) { needs | Needs::BATCH_NORM_SCALES } else { needs };
    Ok((channel_group(graph, layer)?, needs))
}

pub(crate) fn collector(
    graph: &Graph,
    weights: &Weights,
    layers: &[(ChannelGroup, Needs)],
) -> Result<EvidenceCollector> {
    let lookup = |name: &str| weights.get(name).ok();
    Ok(EvidenceCollector::new(graph, layers, &lookup, POSITIONS, Seed::root(0).child("positions"))?)
}

/// One calibration pass over a batch.
pub(crate) fn pass(
    graph: &Graph,
    weights: &Weights,
    layers: &[(ChannelGroup, Needs)],
    images: &Tensor,
    indices: &[usize],
) -> Result<Vec<Evidence>> {
    let mut collector = collector(graph, weights, layers)?;
    observe_batch(&mut collector, graph, weights, images, indices, &mut |_| ())?;
    Ok(collector.finish()?)
}

/// Least noise in a channel's zeros, in values: ten times it lets two of them switch.
const SWITCHING: f64 = 0.2;

/// The rows of all [`SAMPLED`] layers.
pub(crate) fn compare_all(device: Device, batch: usize) -> Result<Vec<Value>> {
    let mut rows = Vec::new();
    for (arch, name) in SAMPLED {
        let graph = net(arch)?;
        let weights = weights(&graph)?;
        let (group, needs) = layer(&graph, name)?;
        let needs = needs | Needs::GRADIENTS;
        let layers = [(group, needs)];
        let (indices, labels) = ((0..batch).collect::<Vec<_>>(), labels(PHOTO, batch));
        let gathered = |images: &Tensor, device: tch::Device, format: MemoryFormat| -> Result<Evidence> {
            let weights = weights.to_device(device)?.to_format(format)?;
            let images = format.apply(&images.to_device(device))?;
            let mut collector = collector(&graph, &weights, &layers)?;
            observe_batch(&mut collector, &graph, &weights, &images, &indices, &mut |_| ())?;
            observe_gradients(&mut collector, &graph, &weights, &images, &labels.to_device(device))?;
            Ok(collector.finish()?.remove(0))
        };
        let images = images(PHOTO, batch);
        let on_cpu = |(images, format): (Tensor, MemoryFormat)| gathered(&images, tch::Device::Cpu, format);
        let cpu = on_cpu((images.shallow_clone(), MemoryFormat::Contiguous))?;
        let others = noisy(&images).into_iter().map(on_cpu).collect::<Result<Vec<_>>>()?;
        let there = gathered(&images, device.into(), MemoryFormat::Contiguous)?;
        rows.extend(compare(&format!("{arch} {name}"), needs, &cpu, &others, &there)?);
    }
    Ok(rows)
}

/// Passes a batch to the loss and back, for the kinds that are gathered from gradients.
fn observe_gradients(
    collector: &mut EvidenceCollector,
    graph: &Graph,
    weights: &Weights,
    images: &Tensor,
    labels: &Tensor,
) -> Result<()> {
    let taps = collector.gradient_taps();
    let mut failure = None;
    output_gradients(graph, weights, images, labels, &taps, &mut |part| {
        let OutputGradient { node, first, output, gradient } = part;
        let indices: Vec<usize> = (first..first + output.size()[0] as usize).collect();
        if failure.is_none() {
            failure = collector.observe_gradient(node, &output, &gradient, &indices).err();
        }
    })?;
    failure.map_or(Ok(()), |error| Err(error.into()))
}

/// One kind of evidence as values; `None` if it was not gathered.
type Values = fn(&Evidence) -> Option<Tensor>;

const KINDS: [(&str, Values); 5] = [
    ("moments", |evidence| {
        let moments = evidence.moments.as_ref()?;
        let rows: Vec<f64> = (0..evidence.channels).flat_map(|i| moments.row(i).to_vec()).collect();
        Some(Tensor::from_slice(&rows))
    }),
    ("means of activations", |evidence| Some(Tensor::from_slice(&evidence.activations.as_ref()?.mean_abs))),
    ("maxima of activations", |evidence| Some(Tensor::from_slice(&evidence.activations.as_ref()?.max))),
    ("gradient products", |evidence| Some(Tensor::from_slice(&evidence.gradients.as_ref()?.taylor))),
    ("batch-norm scales", |evidence| Some(Tensor::from_slice(&evidence.batch_norm_scales.as_ref()?.scales))),
];

/// Compares every kind, judged by how much it differs among passes on the CPU, and the channels that every selector that this evidence
/// serves keeps at a rate of one half.
fn compare(
    name: &str,
    needs: Needs,
    cpu: &Evidence,
    others: &[Evidence],
    there: &Evidence,
) -> Result<Vec<Value>> {
    let mut rows = Vec::new();
    for (what, values) in KINDS {
        let Some(here) = values(cpu) else { continue };
        let of = |evidence: &Evidence| -> Result<f64> {
            Ok(relative_difference(&values(evidence).with_context(|| format!("no {what}"))?, &here))
        };
        let noise = others.iter().map(of).collect::<Result<Vec<_>>>()?.into_iter().fold(0.0, f64::max);
        rows.push(judged(name, &format!("{what}, largest relative difference"), of(there)?, noise, ""));
    }
    // A value near zero can fall on the other side of a rectifier: shares are compared.
    let shares = |evidence: &Evidence| -> Result<(f64, u64)> {
        let (ours, theirs) = cpu.zeros.as_ref().zip(evidence.zeros.as_ref()).context("no zero counts")?;
        let most = ours.zeros.iter().zip(&theirs.zeros).map(|(a, b)| a.abs_diff(*b)).max().unwrap_or(0);
        Ok((most as f64 / ours.total as f64, ours.total))
    };
    let (difference, total) = shares(there)?;
    let mut noise = SWITCHING / total as f64;
    for other in others {
        noise = noise.max(shares(other)?.0);
    }
    rows.push(judged(name, "shares of zeros, largest difference", difference, noise, ""));
    let keep = cpu.channels / 2;
    let is_served = |selector: &&&dyn Selector| needs.contains_all(selector.needs());
    for selector in thinet_selectors::all().iter().filter(is_served) {
        let seed = Seed::root(0).child("select");
        let kept = |evidence: &Evidence| -> Result<Vec<usize>> {
            Ok(selector.select(evidence, keep, seed)?.kept.kept().to_vec())
        };
        let ours = kept(cpu)?;
        let lost = |evidence: &Evidence| -> Result<usize> {
            Ok(kept(evidence)?.iter().filter(|channel| !ours.contains(channel)).count())
        };
        let among = others.iter().map(lost).collect::<Result<Vec<_>>>()?.into_iter().max().unwrap_or(0);
        let metric = format!("{}: channels kept on the CPU alone", selector.name());
        let note = format!("of {keep}; among passes on the CPU up to {among} differ");
        rows.push(row(name, &metric, lost(there)?, &note));
    }
    Ok(rows)
}
