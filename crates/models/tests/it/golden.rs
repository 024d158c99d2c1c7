//! Every network, the optimiser and the schedules agree with plain PyTorch (golden files of `make_golden.py`).

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use tch::{Device, Kind, Tensor};
use thinet_models::{
    Mode, Precision, Schedule, Sgd, SgdOptions, forward, load_tensors, loss_and_gradients, train_step,
};
use thinet_nets::NetSpec;

use crate::nets::{batch, filled, pattern};

/// Largest relative difference that is accepted.
const TOLERANCE: f64 = 1e-4;

#[derive(Deserialize)]
struct Case {
    spec: NetSpec,
    input: [usize; 3],
    classes: usize,
    parameters: Vec<String>,
    buffers: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct SgdCase {
    spec: NetSpec,
    input: [usize; 3],
    classes: usize,
    tensors: Vec<String>,
    lr: f64,
    momentum: f64,
    #[serde(default)]
    nesterov: bool,
    weight_decay: f64,
    bias_lr: f64,
    bias_decay: f64,
}

fn golden<T: DeserializeOwned>(name: &str) -> (BTreeMap<String, Tensor>, T) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let (tensors, metadata) = load_tensors(&folder.join(format!("{name}.safetensors")), Device::Cpu).unwrap();
    (tensors, serde_json::from_str(&metadata["golden"]).unwrap())
}

/// ‖a − b‖ ≤ tolerance · ‖b‖.
#[track_caller]
fn assert_close(what: &str, a: &Tensor, b: &Tensor) {
    assert_eq!(a.size(), b.size(), "{what}");
    let (a, b) = (a.to_kind(Kind::Double), b.to_kind(Kind::Double));
    let (gap, size) = ((a - &b).norm().double_value(&[]), b.norm().double_value(&[]));
    assert!(gap <= TOLERANCE * size, "{what}: differs by {gap}, norm {size}");
}

/// Norm, and product with the unit vector along `pattern("probe")`.
fn summary(tensor: &Tensor) -> [f64; 2] {
    let values = Vec::<f64>::try_from(tensor.to_kind(Kind::Double).flatten(0, -1)).unwrap();
    let probe = pattern("probe", values.len());
    let norm = |v: &[f64]| v.iter().map(|x| x * x).sum::<f64>().sqrt();
    let product: f64 = values.iter().zip(&probe).map(|(a, b)| a * b).sum();
    [norm(&values), product / norm(&probe)]
}

/// Both numbers within the tolerance of the expected norm.
#[track_caller]
fn assert_summary(what: &str, tensor: &Tensor, golden: &Tensor, row: usize) {
    let [norm, product] = summary(tensor);
    let expected = |column| golden.double_value(&[row as i64, column]);
    let gap = (norm - expected(0)).abs().max((product - expected(1)).abs());
    assert!(gap <= TOLERANCE * expected(0), "{what}: differs by {gap}, norm {}", expected(0));
}

fn check(name: &str) {
    let (expected, case) = golden::<Case>(name);
    let graph = case.spec.build(case.input, case.classes).unwrap();
    let (images, labels) = batch(&graph);
    let names = || case.parameters.iter().map(String::as_str);
    for (mode, prefix) in [(Mode::Eval, "eval"), (Mode::Train, "train")] {
        let weights = filled(&graph);
        let (loss, gradients) =
            loss_and_gradients(&graph, &weights, names(), &images, &labels, mode, Precision::F32).unwrap();
        assert_close(&format!("{prefix} loss"), &loss, &expected[&format!("{prefix}.loss")]);
        assert_close(&format!("{prefix} first"), &gradients[0], &expected[&format!("{prefix}.first")]);
        for (row, (name, gradient)) in names().zip(&gradients).enumerate() {
            let what = format!("{prefix} gradient of {name}");
            assert_summary(&what, gradient, &expected[&format!("{prefix}.gradients")], row);
        }
        for (row, name) in case.buffers.iter().enumerate().filter(|_| mode == Mode::Train) {
            assert_summary(name, weights.get(name).unwrap(), &expected["train.buffers"], row);
        }
        let logits = forward(&graph, &filled(&graph), &images, mode).unwrap();
        assert_close(&format!("{prefix} logits"), &logits, &expected[&format!("{prefix}.logits")]);
    }
    let mut known: Vec<&str> = names().chain(case.buffers.iter().map(String::as_str)).collect();
    known.sort_unstable();
    assert!(filled(&graph).iter().map(|(name, _)| name).eq(known), "PyTorch's tensors are the graph's");
}

macro_rules! cases {
    ($($test:ident: $name:literal,)*) => {
        $(#[test]
        fn $test() {
            check($name);
        })*
    };
}

cases! {
    vgg16: "vgg16",
    vgg16_gap_on_grey_images: "vgg16-gap",
    cifar_vgg16: "cifar-vgg16",
    cifar_vgg16_without_batch_norm: "cifar-vgg16-no-bn",
    resnet50_as_the_papers_caffe_net: "resnet50-1x1",
    resnet50_as_torchvision: "resnet50-3x3",
    cifar_resnet20: "cifar-resnet20",
    cifar_resnet56: "cifar-resnet56",
    tiny: "tiny",
    tiny_without_batch_norm: "tiny-no-bn",
}

#[test]
fn four_steps_of_sgd_as_in_torch_and_as_in_caffe() {
    for name in ["sgd-torch", "sgd-caffe", "sgd-nesterov"] {
        let (expected, case) = golden::<SgdCase>(name);
        let graph = case.spec.build(case.input, case.classes).unwrap();
        let weights = filled(&graph);
        let (images, labels) = batch(&graph);
        let SgdCase { momentum, nesterov, weight_decay, bias_lr, bias_decay, .. } = case;
        let none = BTreeMap::new();
        let options = SgdOptions {
            momentum,
            nesterov,
            weight_decay,
            bias_lr,
            bias_decay,
            layer_lr: none.clone(),
            layer_decay: none,
        };
        let mut sgd = Sgd::new(&graph, &options);
        let mut step =
            || train_step(&graph, &weights, &mut sgd, &images, &labels, case.lr, Precision::F32).unwrap();
        let losses = [step(), step(), step(), step()];
        assert_close(name, &Tensor::stack(&losses, 0), &expected["losses"]);
        for (row, tensor) in case.tensors.iter().enumerate() {
            let what = format!("{name}, {tensor}");
            assert_summary(&what, weights.get(tensor).unwrap(), &expected["tensors"], row);
        }
    }
}

#[derive(Deserialize)]
struct Settings {
    base: f64,
    total: usize,
}

#[test]
fn schedules_as_in_torch() {
    let (expected, Settings { base, total }) = golden::<Settings>("schedules");
    let step = Schedule::Step { at: vec![1.0 / 3.0, 2.0 / 3.0], gamma: 0.1 };
    for (name, schedule) in [("step", step), ("cosine", Schedule::Cosine {})] {
        let rates: Vec<f64> = (0..total).map(|step| schedule.lr(base, step, total, 3)).collect();
        let torch = Vec::<f64>::try_from(&expected[name]).unwrap();
        assert!(rates.iter().zip(&torch).all(|(a, b)| (a - b).abs() <= 1e-12), "{name}: {rates:?} {torch:?}");
    }
}

#[test]
fn exponential_decay_by_epoch_as_in_torch() {
    let (expected, Settings { base, total }) = golden::<Settings>("exponential");
    for from_epoch in [1, 2] {
        let schedule = Schedule::Exponential { gamma: 0.95, from_epoch };
        let torch = Vec::<f64>::try_from(&expected[&format!("from-{from_epoch}")]).unwrap();
        assert_eq!(torch.len(), total);
        for (step, torch) in torch.into_iter().enumerate() {
            let rate = schedule.lr(base, step, total, 3);
            assert!((rate - torch).abs() <= 1e-12, "from {from_epoch}, step {step}: {rate} {torch}");
        }
    }
}
