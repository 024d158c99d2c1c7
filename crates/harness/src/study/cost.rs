//! What work costs: amounts of each kind of work, the rates that are assumed of a device, and what bounds the time of a stage.

use std::iter::Sum;
use std::ops::{Add, Mul};

use thinet_graph::{Graph, NodeId, Op};
use thinet_models::Precision;

use super::spec::Spec;

/// Kinds of work, in the order of [`Amounts`].
pub const KINDS_OF_WORK: [&str; KINDS] = [
    "decoding photographs",
    "reading prepared photographs",
    "copies to the device",
    "convolutions",
    "linear layers",
    "other layers",
    "starting kernels",
];
const KINDS: usize = 7;
const DECODE: usize = 0;
const READ: usize = 1;
const COPY: usize = 2;
const CONVOLUTIONS: usize = 3;
const LINEAR: usize = 4;
const OTHER: usize = 5;
const KERNELS: usize = 6;

/// A training step costs about three forward passes: forward, gradient of inputs, gradient of weights.
pub(super) const TRAINING_FACTOR: f64 = 3.0;
/// Images of a pass without gradients, as far as the number of kernels is concerned.
const PASS: f64 = 128.0;
/// Bytes of a value of an activation.
const BYTES: f64 = 4.0;

/// How much work of each kind: photographs, photographs, bytes, multiply-adds, multiply-adds, bytes that are read and written, kernels.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Amounts([f64; KINDS]);

impl Amounts {
    /// One image through a net, without getting it to the device and without kernels.
    pub(crate) fn of_net(graph: &Graph) -> Self {
        let mut amounts = [0.0; KINDS];
        let values = |id| values(graph, id) as f64;
        for (id, node) in graph.nodes().iter().enumerate() {
            match node.op {
                Op::Input { .. } | Op::Flatten {} => {}
                Op::Conv { in_channels, kernel, .. } => {
                    amounts[CONVOLUTIONS] += values(id) * (in_channels * kernel * kernel) as f64;
                }
                Op::Linear { in_features, out_features } => {
                    amounts[LINEAR] += (in_features * out_features) as f64;
                }
                Op::BatchNorm { .. }
                | Op::Relu {}
                | Op::MaxPool { .. }
                | Op::AvgPool { .. }
                | Op::Dropout { .. }
                | Op::Add {} => {
                    let read: f64 = node.inputs.iter().map(|input| values(*input)).sum();
                    amounts[OTHER] += BYTES * (read + values(id));
                }
            }
        }
        Self(amounts)
    }

    /// So many images through the net in training, in batches of `batch`.
    pub(crate) fn trained(self, images: f64, batch: f64, nodes: usize) -> Self {
        let mut amounts = self * (TRAINING_FACTOR * images);
        amounts.0[KERNELS] = TRAINING_FACTOR * nodes as f64 * images / batch.max(1.0);
        amounts
    }

    /// So many images through the net without gradients.
    pub(crate) fn passed(self, images: f64, nodes: usize) -> Self {
        let mut amounts = self * images;
        amounts.0[KERNELS] = nodes as f64 * (images / PASS).ceil();
        amounts
    }

    /// Multiply-adds.
    pub(crate) fn macs(&self) -> f64 {
        self.0[CONVOLUTIONS] + self.0[LINEAR]
    }
}

impl Add for Amounts {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self(std::array::from_fn(|kind| self.0[kind] + other.0[kind]))
    }
}

impl Mul<f64> for Amounts {
    type Output = Self;

    fn mul(self, factor: f64) -> Self {
        Self(self.0.map(|amount| amount * factor))
    }
}

impl Sum for Amounts {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), Add::add)
    }
}

/// Values of a node's output for one image.
fn values(graph: &Graph, id: NodeId) -> usize {
    let shape = graph.shape(id);
    shape.channels() * shape.positions()
}

/// How images are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reading {
    /// They are in memory.
    Memory,
    /// Photographs are decoded each time.
    Decoding,
    /// From a file that `thinet data prepare` made.
    Prepared,
}

impl Reading {
    /// So many images of `bytes` bytes each, brought to the device.
    pub(crate) fn of(self, images: f64, bytes: f64) -> Amounts {
        let mut amounts = [0.0; KINDS];
        match self {
            Self::Memory => {}
            Self::Decoding => amounts[DECODE] = images,
            Self::Prepared => amounts[READ] = images,
        }
        amounts[COPY] = images * bytes;
        Amounts(amounts)
    }
}

/// Work of a stage. The precision of a spec is that of its trainings.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct StageWork {
    pub(crate) trainings: Amounts,
    /// Tests and calibrations.
    pub(crate) passes: Amounts,
}

impl StageWork {
    pub(crate) fn macs(&self) -> f64 {
        self.trainings.macs() + self.passes.macs()
    }
}

/// Amounts per second of one process.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Rates {
    trainings: [f64; KINDS],
    passes: [f64; KINDS],
}

/// Photographs that a loader thread decodes and cuts in a second: 258 to 511 were measured (`results/parity`).
const DECODED: f64 = 300.0;
/// Those that it reads from a prepared file: `make bench` requires ten times as many.
const PREPARED: f64 = 10.0 * DECODED;

/// How many times as long products in bfloat16 take as in f32 on a processor for which libtorch has no kernels of that kind: a training
/// step of VGG-16-GAP ×1/4 with 128 images of 32×32 took 3.6 s and 0.34 s (AVX2).
pub const BF16_WITHOUT_KERNELS: f64 = 10.0;

impl Rates {
    /// The rates assumed of a device, for one of `processes` on a machine of `cores`.
    pub(crate) fn assumed(spec: &Spec, is_gpu: bool, cores: usize, processes: usize) -> Self {
        let loaders = loader_threads(cores, processes, is_gpu) as f64;
        let of = |multiply_adds: f64, bytes: f64, copied: f64, kernels: f64| {
            [DECODED * loaders, PREPARED * loaders, copied, multiply_adds, multiply_adds, bytes, kernels]
        };
        if !is_gpu {
            // A core on narrow 32×32 nets; on a CPU nothing is copied, and a kernel is a call.
            let threads = spec.compute.threads as f64;
            let rates = of(2.0e10 * threads, 2.0e10 * threads, f64::INFINITY, f64::INFINITY);
            return Self { trainings: rates, passes: rates };
        }
        // About what an NVIDIA H200 did (`results/gpu/nvidia-h200/check`): VGG-16 and ResNet-50 for products and memory, ResNet-56 of
        // CIFAR, which waits for its kernels to start. TF32 was not measured there.
        let (full, kernels) = (2.0e13, 2.5e4);
        let of_gpu = |multiply_adds| of(multiply_adds, 2.0e12, 2.0e10, kernels);
        let in_training = match (spec.compute.precision, spec.compute.tf32) {
            (Precision::Bf16, _) => 3.0e14,
            (Precision::F32, true) => 1.0e14,
            (Precision::F32, false) => full,
        };
        Self { trainings: of_gpu(in_training), passes: of_gpu(full) }
    }

    /// With trainings in bfloat16 on a processor that has no kernels for it.
    pub(crate) fn with_slow_bf16(mut self) -> Self {
        for kind in [CONVOLUTIONS, LINEAR] {
            self.trainings[kind] /= BF16_WITHOUT_KERNELS;
        }
        self
    }

    /// Seconds of each kind of work.
    pub(crate) fn seconds(&self, work: &StageWork) -> [f64; KINDS] {
        let StageWork { trainings, passes } = work;
        std::array::from_fn(|kind| {
            trainings.0[kind] / self.trainings[kind] + passes.0[kind] / self.passes[kind]
        })
    }
}

/// Seconds of work of which each kind takes so long: images are read and copied while the device computes, and kernels are started
/// while others run.
pub(crate) fn elapsed(seconds: &[f64; KINDS]) -> f64 {
    let computed = seconds[CONVOLUTIONS] + seconds[LINEAR] + seconds[OTHER];
    let read = seconds[DECODE] + seconds[READ];
    [computed, read, seconds[COPY], seconds[KERNELS]].into_iter().fold(0.0, f64::max)
}

/// The kind of work that bounds the time: what [`elapsed`] is the time of, and the largest part of computing.
pub(crate) fn bound(seconds: &[f64; KINDS]) -> usize {
    let computed = seconds[CONVOLUTIONS] + seconds[LINEAR] + seconds[OTHER];
    let largest = |kinds: &[usize]| {
        let mut most = kinds[0];
        for &kind in kinds {
            if seconds[kind] > seconds[most] {
                most = kind;
            }
        }
        most
    };
    let others = largest(&[DECODE, READ, COPY, KERNELS]);
    if seconds[others] > computed { others } else { largest(&[CONVOLUTIONS, LINEAR, OTHER]) }
}

/// Loader threads of one of the `processes` on a machine: its share of the cores where photographs are read for a GPU; one where the
/// cores are busy computing or images are in memory.
#[must_use]
pub fn loader_threads(cores: usize, processes: usize, is_read_for_gpu: bool) -> usize {
    if is_read_for_gpu { (cores / processes.max(1)).max(1) } else { 1 }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use thinet_nets::{Arch, NetSpec};

    use super::*;
    use crate::study::spec::MINIMAL;

    #[test]
    fn the_work_of_a_net_is_its_multiply_adds_and_the_bytes_of_the_other_layers() {
        for arch in [Arch::Vgg16, Arch::Resnet50, Arch::CifarResnet56] {
            let shape = if arch == Arch::CifarResnet56 { [3, 32, 32] } else { [3, 224, 224] };
            let graph = NetSpec::new(arch).build(shape, 10).unwrap();
            let amounts = Amounts::of_net(&graph);
            let counted = thinet_graph::count(&graph, thinet_graph::Convention::Paper).macs as f64;
            assert_eq!(amounts.macs(), counted, "{arch}");
            assert!(amounts.0[LINEAR] > 0.0 && amounts.0[CONVOLUTIONS] > 10.0 * amounts.0[LINEAR]);
        }
        // tiny: every other layer but the last flatten reads its input and writes its output, 4 bytes a value.
        let graph = NetSpec::new(Arch::Tiny).build([3, 8, 8], 5).unwrap();
        let read_and_written =
            |op: &Op| matches!(op, Op::Relu {} | Op::MaxPool { .. } | Op::BatchNorm { .. });
        let by_hand: usize = graph
            .nodes()
            .iter()
            .enumerate()
            .filter(|(_, node)| read_and_written(&node.op))
            .map(|(id, node)| 4 * (values(&graph, id) + values(&graph, node.inputs[0])))
            .sum();
        assert_eq!(Amounts::of_net(&graph).0[OTHER], by_hand as f64);
    }

    #[test]
    fn a_training_is_three_passes_and_starts_its_kernels_once_a_batch() {
        let one = Amounts([0.0, 0.0, 0.0, 5.0, 7.0, 11.0, 0.0]);
        assert_eq!(one.trained(100.0, 10.0, 20), Amounts([0.0, 0.0, 0.0, 1500.0, 2100.0, 3300.0, 600.0]));
        assert_eq!(one.passed(129.0, 20), Amounts([0.0, 0.0, 0.0, 645.0, 903.0, 1419.0, 40.0]));
        assert_eq!(Reading::Decoding.of(3.0, 10.0), Amounts([3.0, 0.0, 30.0, 0.0, 0.0, 0.0, 0.0]));
        assert_eq!(Reading::Prepared.of(3.0, 10.0), Amounts([0.0, 3.0, 30.0, 0.0, 0.0, 0.0, 0.0]));
        assert_eq!(Reading::Memory.of(3.0, 0.0), Amounts::default());
    }

    #[test]
    fn what_runs_side_by_side_is_bounded_by_the_slowest() {
        for (seconds, expected, kind) in [
            ([0.0, 0.0, 0.0, 3.0, 1.0, 2.0, 0.0], 6.0, "convolutions"),
            ([5.0, 0.0, 0.0, 3.0, 1.0, 2.0, 1.0], 6.0, "convolutions"),
            ([7.0, 0.0, 1.0, 3.0, 1.0, 2.0, 1.0], 7.0, "decoding photographs"),
            ([0.0, 7.0, 1.0, 3.0, 1.0, 2.0, 1.0], 7.0, "reading prepared photographs"),
            ([0.0, 0.0, 9.0, 3.0, 1.0, 2.0, 1.0], 9.0, "copies to the device"),
            ([0.0, 0.0, 1.0, 1.0, 1.0, 2.0, 8.0], 8.0, "starting kernels"),
            ([0.0, 0.0, 1.0, 1.0, 1.0, 2.0, 3.0], 4.0, "other layers"),
            ([0.0, 0.0, 1.0, 1.0, 3.0, 2.0, 3.0], 6.0, "linear layers"),
        ] {
            assert_eq!(elapsed(&seconds), expected, "{seconds:?}");
            assert_eq!(KINDS_OF_WORK[bound(&seconds)], kind, "{seconds:?}");
        }
    }

    #[test]
    fn rates_are_those_of_all_threads_or_of_a_gpu_whose_trainings_may_round() {
        let spec = |compute: &str| {
            let text = format!("compute = {{ {compute} }}\n{MINIMAL}");
            Spec::parse(&text, Path::new("x.toml")).unwrap()
        };
        let cpu = Rates::assumed(&spec("threads = 3"), false, 16, 2);
        assert_eq!((cpu.trainings[CONVOLUTIONS], cpu.trainings[DECODE]), (6.0e10, 300.0));
        assert_eq!(cpu.trainings, cpu.passes);
        let rate = |compute: &str, processes| {
            let Rates { trainings, passes } = Rates::assumed(&spec(compute), true, 16, processes);
            assert_eq!((passes[LINEAR], trainings[DECODE]), (2.0e13, 300.0 * (16 / processes) as f64));
            trainings[LINEAR]
        };
        assert_eq!(rate("precision = \"bf16\"", 1), 3.0e14);
        assert_eq!(rate("tf32 = true", 4), 1.0e14);
        assert_eq!(rate("threads = 3", 16), 2.0e13);
        let work = StageWork {
            trainings: Amounts([0.0, 0.0, 0.0, 6.0e14, 0.0, 0.0, 0.0]),
            passes: Amounts([600.0, 0.0, 0.0, 4.0e13, 0.0, 0.0, 0.0]),
        };
        let seconds = Rates::assumed(&spec("precision = \"bf16\""), true, 2, 1).seconds(&work);
        assert_eq!(seconds, [1.0, 0.0, 0.0, 4.0, 0.0, 0.0, 0.0]);
        assert_eq!(work.macs(), 6.4e14);
        let slow = cpu.with_slow_bf16();
        assert_eq!((slow.trainings[CONVOLUTIONS], slow.trainings[LINEAR]), (6.0e9, 6.0e9));
        assert_eq!((slow.trainings[DECODE], slow.passes), (300.0, cpu.passes));
    }

    #[test]
    fn processes_share_the_cores_for_reading_photographs() {
        for (cores, processes, threads) in
            [(16, 1, 16), (16, 8, 2), (16, 5, 3), (16, 40, 1), (1, 1, 1), (8, 0, 8)]
        {
            assert_eq!(
                loader_threads(cores, processes, true),
                threads,
                "{cores} cores, {processes} processes"
            );
            assert_eq!(loader_threads(cores, processes, false), 1);
        }
    }
}
