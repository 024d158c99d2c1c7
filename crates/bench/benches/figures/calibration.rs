//! The cost of a calibration pass relative to its forward passes, and the number of these passes.

use std::time::Duration;

use anyhow::{Result, ensure};
use criterion::Criterion;
use tch::{Device, Tensor};
use thinet_bench::{Bound, Figure, Ratio, observe_batch};
use thinet_graph::{ChannelGroup, NodeId, prunable_layers};
use thinet_models::{MemoryFormat, Mode, Net, Weights, forward};
use thinet_nets::{Arch, NetSpec};
use thinet_sampling::{
    EvidenceCollector, EvidenceTensors, Pass as PassKind, SamplingSpec, check_needs, gathered,
};
use thinet_seed::Seed;
use thinet_selectors::{Evidence, Needs, Selector};

use crate::in_turn::{FILTERED, duration, in_turn, timed};
use crate::noise;

const REQUIRED: Bound = Bound::AtMost(1.1);

/// A net and its calibration images.
pub(crate) struct Case {
    name: &'static str,
    spec: NetSpec,
    input: [usize; 3],
    classes: usize,
    pub(crate) batch: usize,
    format: MemoryFormat,
}

impl Case {
    /// The paper's net at its full size, with the batches of a study on 224×224 images.
    fn full() -> Self {
        Self {
            name: "VGG-16-GAP 224×224",
            spec: NetSpec::new(Arch::Vgg16Gap),
            input: [3, 224, 224],
            classes: 1000,
            batch: 20,
            format: MemoryFormat::Contiguous,
        }
    }

    /// The net of the committed Fashion-MNIST study: 10 images of each of 10 classes.
    pub(crate) fn small() -> Self {
        Self {
            name: "VGG-16-GAP ×1/8 32×32",
            spec: NetSpec { width: 0.125, ..NetSpec::new(Arch::Vgg16Gap) },
            input: [1, 32, 32],
            classes: 10,
            batch: 100,
            format: MemoryFormat::ChannelsLast,
        }
    }
}

/// A prepared case: network, images, and every prunable layer with the needs of all selectors that it can serve.
pub(crate) struct Pass {
    net: Net,
    images: Tensor,
    /// Those whose evidence a forward pass gathers and every layer can provide.
    selectors: Vec<&'static dyn Selector>,
    pub(crate) layers: Vec<(ChannelGroup, Needs)>,
}

impl Pass {
    pub(crate) fn new(case: &Case) -> Result<Self> {
        let graph = case.spec.build(case.input, case.classes)?;
        let weights = Weights::init(&graph, Seed::root(0).child("weights"), Device::Cpu)?;
        let layers = prunable_layers(&graph);
        let is_served = |selector: &&dyn Selector| {
            let needs = selector.needs();
            let is_forward = gathered(needs).all(|kind| kind.pass() == PassKind::Forward);
            is_forward && layers.iter().all(|layer| check_needs(needs, layer).is_ok())
        };
        let selectors: Vec<&dyn Selector> =
            thinet_selectors::all().iter().copied().filter(is_served).collect();
        let needs = selectors.iter().fold(Needs::NONE, |needs, selector| needs | selector.needs());
        let layers = layers.into_iter().map(|layer| (layer, needs)).collect();
        let net = Net { weights: weights.to_format(case.format)?, graph };
        Ok(Self { net, images: noise::images(case.batch, case.input, case.format)?, selectors, layers })
    }

    /// A collector for all layers and all selectors, with the paper's number of positions.
    pub(crate) fn collector(&self) -> Result<EvidenceCollector> {
        self.collector_for(&self.layers)
    }

    fn collector_for(&self, layers: &[(ChannelGroup, Needs)]) -> Result<EvidenceCollector> {
        let positions = SamplingSpec::default().positions_per_image;
        let weight = |name: &str| self.net.weights.get(name).ok();
        Ok(EvidenceCollector::new(&self.net.graph, layers, &weight, positions, Seed::root(0))?)
    }

    /// Passes the batch to the collector as images `first..`; also calls `seen` with every observed node.
    pub(crate) fn batch(
        &self,
        collector: &mut EvidenceCollector,
        first: usize,
        seen: &mut dyn FnMut(NodeId),
    ) -> Result<()> {
        let indices: Vec<usize> = (first..first + self.images.size()[0] as usize).collect();
        let Net { graph, weights } = &self.net;
        observe_batch(collector, graph, weights, &self.images, &indices, seen)
    }

    fn calibrate(&self) -> Result<Vec<Evidence>> {
        let mut collector = self.collector()?;
        self.batch(&mut collector, 0, &mut |_| ())?;
        Ok(collector.finish()?)
    }

    /// The forward pass of the calibration without the collector.
    fn bare(&self) -> Result<Tensor> {
        let _guard = tch::no_grad_guard();
        Ok(forward(&self.net.graph, &self.net.weights, &self.images, Mode::Eval)?)
    }
}

pub(crate) fn figures(criterion: &mut Criterion) -> Result<Vec<Figure>> {
    let small = Pass::new(&Case::small())?;
    Ok(vec![cost(criterion, &Case::full())?, cost(criterion, &Case::small())?, passes(&small)?])
}

fn cost(criterion: &mut Criterion, case: &Case) -> Result<Figure> {
    let name = format!("calibration over bare forward, {}, {} images", case.name, case.batch);
    let pass = Pass::new(case)?;
    let mut ours = || -> Result<Duration> { timed(|| pass.calibrate()) };
    let mut reference = || timed(|| pass.bare());
    let pairs = in_turn(criterion, ["calibration", case.name], &mut ours, &mut reference)?;
    if pairs.is_empty() {
        return Ok(Figure::not_measured(name, Some(REQUIRED), FILTERED));
    }
    Ok(Figure {
        name,
        ours: duration(pairs.ours()),
        reference: duration(pairs.reference()),
        ratio: Some(pairs.ratio(Ratio::Cost)),
        required: Some(REQUIRED),
        note: format!(
            "measured: one pass for {} layers and all {} selectors, from new collector to finished evidence, against \
             the inference of the same batch. {}",
            pass.layers.len(),
            pass.selectors.len(),
            pairs.spread(Ratio::Cost),
        ),
    })
}

/// Counts the forward passes of a one-shot calibration that serves every layer and every selector: one for each kind of
/// evidence, since each is a stage of its own.
fn passes(pass: &Pass) -> Result<Figure> {
    let needs = pass.layers.iter().fold(Needs::NONE, |needs, (_, of_layer)| needs | *of_layer);
    let without: Vec<_> = pass.layers.iter().map(|(layer, _)| (layer.clone(), Needs::FILTERS)).collect();
    let mut evidence = pass.collector_for(&without)?.finish()?;
    let (mut kinds, mut most) = (0_u32, 0_usize);
    for kind in gathered(needs) {
        let layers: Vec<_> =
            pass.layers.iter().map(|(layer, _)| (layer.clone(), Needs::only(kind.kind()))).collect();
        let mut computed = vec![0_usize; pass.net.graph.nodes().len()];
        let mut collector = pass.collector_for(&layers)?;
        pass.batch(&mut collector, 0, &mut |node| computed[node] += 1)?;
        for (whole, part) in evidence.iter_mut().zip(collector.finish()?) {
            let named = |(name, tensor)| (format!("{}.{name}", part.layer), tensor);
            let tensors = kind.to_tensors(&part)?.into_iter().map(named).collect();
            kind.read(&EvidenceTensors { tensors: &tensors, layer: &part.layer }, whole)?;
        }
        kinds += 1;
        most += computed.iter().max().copied().unwrap_or(0);
    }
    serve_all(pass, &evidence)?;
    let looking = looking_selectors(pass);
    let apart = pass.layers.len() * looking;
    Ok(Figure {
        name: "forward passes of a one-shot calibration".to_owned(),
        ours: most.to_string(),
        reference: apart.to_string(),
        ratio: Some(most as f64 / f64::from(kinds)),
        required: Some(Bound::AtMost(1.0)),
        note: format!(
            "counted: how often a node that is looked at is computed for an image, until every one of {} selectors has chosen on each of \
             {} layers. The reference is a pass for each layer and each of the {} selectors that look at activations; \
             the ratio is to the {kinds} passes that are needed, one for each kind of evidence",
            pass.selectors.len(),
            pass.layers.len(),
            looking,
        ),
    })
}

/// Lets every selector choose half of every layer from the evidence, and nothing else.
fn serve_all(pass: &Pass, evidence: &[Evidence]) -> Result<()> {
    ensure!(evidence.len() == pass.layers.len(), "evidence of {} layers", evidence.len());
    for evidence in evidence {
        for selector in &pass.selectors {
            selector.select(evidence, evidence.channels.div_ceil(2), Seed::root(0))?;
        }
    }
    Ok(())
}

fn looking_selectors(pass: &Pass) -> usize {
    let looks = |needs: Needs| gathered(needs).next().is_some();
    pass.selectors.iter().filter(|selector| looks(selector.needs())).count()
}

/// Values that a row of every layer of this net holds.
pub(crate) fn row_values(layers: &[(ChannelGroup, Needs)]) -> usize {
    layers.iter().map(|(layer, _)| layer.channels).sum()
}
