//! A training step against PyTorch's own eager step in Python: same network, batch and threads, in turn.

use anyhow::{Result, ensure};
use criterion::Criterion;
use tch::{Device, Tensor};
use thinet_bench::{Bound, Figure, Ratio, plain_sgd};
use thinet_graph::Graph;
use thinet_models::{MemoryFormat, Precision, Sgd, SgdOptions, Weights, train_step};
use thinet_nets::{Arch, NetSpec};
use thinet_seed::Seed;

use crate::in_turn::{FILTERED, duration, in_turn, timed};
use crate::noise;
use crate::pytorch::PyTorch;

const NAME: &str = "training step over PyTorch's, VGG-16-GAP ×1/8 32×32, batch 128";
const REQUIRED: Bound = Bound::AtMost(1.05);

// The network and recipe of the committed Fashion-MNIST study, except for a tiny learning rate that leaves the weights,
// and with them the work, nearly unchanged.
const WIDTH: f64 = 0.125;
const INPUT: [usize; 3] = [1, 32, 32];
const CLASSES: usize = 10;
const BATCH: usize = 128;
const LR: f64 = 1e-4;
const MOMENTUM: f64 = 0.9;
const WEIGHT_DECAY: f64 = 5e-4;
/// Steps that each side runs per turn.
const BLOCK: usize = 10;

pub(crate) fn figure(criterion: &mut Criterion) -> Result<Figure> {
    // A machine may have libtorch without Python's torch: then the row says so.
    let mut pytorch = match PyTorch::start(&arguments()) {
        Ok(pytorch) => pytorch,
        Err(reason) => return Ok(Figure::not_measured(NAME, Some(REQUIRED), format!("{reason:#}"))),
    };
    let mut training = Training::new()?;
    let parameters = training.parameters();
    ensure!(
        parameters == pytorch.parameters,
        "train_step.py trains {} parameters, ours {parameters}",
        pytorch.parameters
    );
    let mut ours = || timed(|| training.block());
    let mut reference = || pytorch.steps(BLOCK);
    let pairs = in_turn(criterion, ["training", "10 steps"], &mut ours, &mut reference)?;
    if pairs.is_empty() {
        return Ok(Figure::not_measured(NAME, Some(REQUIRED), FILTERED));
    }
    Ok(Figure {
        name: NAME.to_owned(),
        ours: duration(pairs.ours() / BLOCK as f64),
        reference: duration(pairs.reference() / BLOCK as f64),
        ratio: Some(pairs.ratio(Ratio::Cost)),
        required: Some(REQUIRED),
        note: format!(
            "measured: blocks of {BLOCK} steps (forward, loss, gradients, SGD with momentum and weight decay, reading the \
             loss) in turn with those of train_step.py under torch {}; channels last, {parameters} parameters, one \
             thread on both sides. {}",
            pytorch.version,
            pairs.spread(Ratio::Cost),
        ),
    })
}

/// The settings that train_step.py needs.
fn arguments() -> Vec<String> {
    let [channels, size, _] = INPUT;
    let settings = [
        ("width", WIDTH.to_string()),
        ("channels", channels.to_string()),
        ("size", size.to_string()),
        ("classes", CLASSES.to_string()),
        ("batch", BATCH.to_string()),
        ("lr", LR.to_string()),
        ("momentum", MOMENTUM.to_string()),
        ("weight-decay", WEIGHT_DECAY.to_string()),
        ("threads", tch::get_num_threads().to_string()),
    ];
    settings.into_iter().flat_map(|(name, value)| [format!("--{name}"), value]).collect()
}

struct Training {
    graph: Graph,
    weights: Weights,
    sgd: Sgd,
    images: Tensor,
    labels: Tensor,
}

impl Training {
    fn new() -> Result<Self> {
        let spec = NetSpec { width: WIDTH, ..NetSpec::new(Arch::Vgg16Gap) };
        let graph = spec.build(INPUT, CLASSES)?;
        let weights = Weights::init(&graph, Seed::root(0).child("weights"), Device::Cpu)?;
        let options = SgdOptions { momentum: MOMENTUM, weight_decay: WEIGHT_DECAY, ..plain_sgd() };
        let labels: Vec<i64> = (0..BATCH).map(|image| (image % CLASSES) as i64).collect();
        Ok(Self {
            weights: weights.to_format(MemoryFormat::ChannelsLast)?,
            sgd: Sgd::new(&graph, &options),
            images: noise::images(BATCH, INPUT, MemoryFormat::ChannelsLast)?,
            labels: Tensor::f_from_slice(&labels)?,
            graph,
        })
    }

    fn parameters(&self) -> usize {
        let trainable = self.graph.tensors().into_iter().filter(|tensor| tensor.trainable);
        trainable.map(|tensor| tensor.shape.iter().product::<usize>()).sum()
    }

    fn block(&mut self) -> Result<f64> {
        let mut loss = 0.0;
        for _ in 0..BLOCK {
            let last = train_step(
                &self.graph,
                &self.weights,
                &mut self.sgd,
                &self.images,
                &self.labels,
                LR,
                Precision::F32,
            )?;
            loss = last.f_double_value(&[])?;
        }
        ensure!(loss.is_finite(), "the loss is {loss}");
        Ok(loss)
    }
}
