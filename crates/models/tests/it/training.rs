//! Training: the start is seeded, steps lower the loss, and a saved optimiser continues bit for bit.

use std::collections::BTreeMap;

use tch::{Device, Kind, Tensor};
use thinet_models::{
    MemoryFormat, Mode, ModelError, Net, Precision, Sgd, SgdOptions, Weights, forward, load_tensors,
    loss_and_gradients, save_tensors, seed_torch, train_step,
};
use thinet_nets::{Arch, NetSpec};
use thinet_seed::Seed;

use crate::nets::{batch, net, tiny};

const OPTIONS: SgdOptions = SgdOptions {
    momentum: 0.9,
    nesterov: false,
    weight_decay: 5e-4,
    bias_lr: 2.0,
    bias_decay: 0.0,
    layer_lr: BTreeMap::new(),
    layer_decay: BTreeMap::new(),
};

fn steps(net: &Net, sgd: &mut Sgd, count: usize) -> Vec<f64> {
    let (images, labels) = batch(&net.graph);
    (0..count)
        .map(|_| train_step(&net.graph, &net.weights, sgd, &images, &labels, 0.02, Precision::F32).unwrap())
        .map(|loss| loss.double_value(&[]))
        .collect()
}

fn assert_same_bits(a: &Weights, b: &Weights) {
    for (name, tensor) in a.iter() {
        assert_eq!(tensor, b.get(name).unwrap(), "{name}");
    }
}

#[test]
fn the_same_seed_starts_the_same_and_another_does_not() {
    let graph = tiny().graph;
    let init = |seed| Weights::init(&graph, Seed::root(seed), Device::Cpu).unwrap();
    let start = init(1);
    start.check(&graph).unwrap();
    assert_same_bits(&start, &init(1));
    for name in ["conv1.weight", "conv3.weight", "fc.weight"] {
        assert_ne!(start.get(name).unwrap(), init(2).get(name).unwrap(), "{name}");
    }
}

#[test]
fn starts_do_not_depend_on_torchs_generator_or_on_other_layers() {
    let spec =
        |conv3| NetSpec { widths: BTreeMap::from([("conv3".to_owned(), conv3)]), ..NetSpec::new(Arch::Tiny) };
    let init = |conv3, torch| {
        seed_torch(Seed::root(torch));
        let graph = spec(conv3).build([3, 8, 8], 5).unwrap();
        Weights::init(&graph, Seed::root(1), Device::Cpu).unwrap()
    };
    let (a, b) = (init(16, 1), init(9, 2));
    assert_eq!(a.get("conv2.weight").unwrap(), b.get("conv2.weight").unwrap());
}

#[test]
fn starts_have_the_scale_of_their_layer() {
    let graph = NetSpec::new(Arch::CifarVgg16).build([3, 32, 32], 10).unwrap();
    let weights = Weights::init(&graph, Seed::root(5), Device::Cpu).unwrap();
    let std = |name| weights.get(name).unwrap().std(true).double_value(&[]);
    let fan_out = |filters: f64| (2.0 / (9.0 * filters)).sqrt();
    assert!((std("conv4_2.weight") / fan_out(512.0) - 1.0).abs() < 0.01);
    assert!((std("conv2_1.weight") / fan_out(128.0) - 1.0).abs() < 0.02);
    assert!((std("fc.weight") / 0.01 - 1.0).abs() < 0.05);
    let all = |name, value: f64| weights.get(name).unwrap().eq(value).all();
    assert!(bool::try_from(all("bn1_1.weight", 1.0)).unwrap());
    assert!(bool::try_from(all("bn1_1.running_var", 1.0)).unwrap());
    assert!(bool::try_from(all("bn1_1.running_mean", 0.0)).unwrap());
    assert!(bool::try_from(all("fc.bias", 0.0)).unwrap());
}

#[test]
fn training_lowers_the_loss() {
    for arch in [Arch::Tiny, Arch::CifarResnet20] {
        let graph = NetSpec::new(arch).build([3, 8, 8], 4).unwrap();
        let weights = Weights::init(&graph, Seed::root(1), Device::Cpu).unwrap();
        let net = Net { graph, weights };
        let losses = steps(&net, &mut Sgd::new(&net.graph, &OPTIONS), 30);
        assert!((losses[0] - 4f64.ln()).abs() < 0.5, "{losses:?}");
        assert!(losses[29] < 0.2 * losses[0], "{losses:?}");
    }
}

#[test]
fn a_restored_optimiser_continues_bit_for_bit() {
    for format in [MemoryFormat::Contiguous, MemoryFormat::ChannelsLast] {
        let start = || {
            let Net { graph, weights } = tiny();
            Net { weights: weights.to_format(format).unwrap(), graph }
        };
        let unbroken = start();
        let mut sgd = Sgd::new(&unbroken.graph, &OPTIONS);
        let expected = steps(&unbroken, &mut sgd, 6);

        let broken = start();
        let mut first = Sgd::new(&broken.graph, &OPTIONS);
        let mut found = steps(&broken, &mut first, 3);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state");
        let state: Vec<_> = first.state().into_iter().collect();
        save_tensors(&path, &state, &BTreeMap::new()).unwrap();
        let mut second = Sgd::new(&broken.graph, &OPTIONS);
        second.restore(&broken.weights, load_tensors(&path, Device::Cpu).unwrap().0).unwrap();
        found.extend(steps(&broken, &mut second, 3));

        assert_eq!(found, expected);
        assert_same_bits(&broken.weights, &unbroken.weights);
    }
}

#[test]
fn the_state_before_the_first_step_is_empty_and_restores() {
    let net = tiny();
    let mut sgd = Sgd::new(&net.graph, &OPTIONS);
    assert!(sgd.state().is_empty());
    sgd.restore(&net.weights, BTreeMap::new()).unwrap();
    assert!(sgd.state().is_empty());
}

#[test]
fn a_state_that_does_not_fit_is_refused_and_changes_nothing() {
    let net = tiny();
    let mut sgd = Sgd::new(&net.graph, &OPTIONS);
    steps(&net, &mut sgd, 1);
    let good = || sgd.state();
    let mut missing = good();
    missing.remove("conv2.weight");
    let mut wide = good();
    wide.insert("conv2.weight".into(), Tensor::zeros([12, 9, 3, 3], (Kind::Float, Device::Cpu)));
    let mut strange = good();
    strange.insert("conv9.weight".into(), Tensor::from(0f32));
    for state in [missing, wide, strange] {
        let mut fresh = Sgd::new(&net.graph, &OPTIONS);
        let error = fresh.restore(&net.weights, state).unwrap_err().to_string();
        assert!(error.contains("conv2.weight") || error.contains("conv9.weight"), "{error}");
        assert!(fresh.state().is_empty());
    }
}

#[test]
fn evaluation_leaves_the_weights_alone_and_training_moves_running_statistics() {
    let net = tiny();
    let before = net.weights.deep_copy().unwrap();
    let (images, _) = batch(&net.graph);
    drop(forward(&net.graph, &net.weights, &images, Mode::Eval).unwrap());
    assert_same_bits(&net.weights, &before);
    drop(forward(&net.graph, &net.weights, &images, Mode::Train).unwrap());
    for (name, tensor) in net.weights.iter() {
        assert_eq!(tensor != before.get(name).unwrap(), name.contains("running"), "{name}");
    }
}

#[test]
fn weights_at_rest_track_no_gradient() {
    let net = tiny();
    steps(&net, &mut Sgd::new(&net.graph, &OPTIONS), 1);
    assert!(net.weights.iter().all(|(_, tensor)| !tensor.requires_grad()));
    let (images, labels) = batch(&net.graph);
    let names = net.weights.iter().map(|(name, _)| name).filter(|name| name.starts_with("conv"));
    let wrong_labels = labels + 100;
    let result = loss_and_gradients(
        &net.graph,
        &net.weights,
        names,
        &images,
        &wrong_labels,
        Mode::Train,
        Precision::F32,
    );
    assert!(result.unwrap_err().to_string().starts_with("cross-entropy: "));
    assert!(net.weights.iter().all(|(_, tensor)| !tensor.requires_grad()), "nor after an error");
}

#[test]
fn dropout_is_seeded_by_the_one_function() {
    let spec = NetSpec { width: 0.0625, ..NetSpec::new(Arch::Vgg16) };
    let net = net(&spec, [3, 32, 32]);
    let (images, _) = batch(&net.graph);
    let run = |seed: Option<u64>, mode| {
        if let Some(seed) = seed {
            seed_torch(Seed::root(seed));
        }
        forward(&net.graph, &net.weights, &images, mode).unwrap()
    };
    // One test, as libtorch's generator belongs to the whole process: no other test of this binary uses dropout.
    let first = run(Some(1), Mode::Train);
    assert_ne!(first, run(None, Mode::Train));
    assert_eq!(first, run(Some(1), Mode::Train));
    assert_ne!(first, run(Some(2), Mode::Train));
    assert_eq!(run(Some(1), Mode::Eval), run(Some(2), Mode::Eval));
}

#[test]
fn one_value_a_channel_cannot_be_normalised() {
    // The last stage sees maps of 1×1.
    let net = net(&NetSpec { width: 0.5, ..NetSpec::new(Arch::CifarResnet20) }, [3, 4, 4]);
    let (images, _) = batch(&net.graph);
    let error = forward(&net.graph, &net.weights, &images.narrow(0, 0, 1), Mode::Train).unwrap_err();
    assert!(matches!(&error, ModelError::BatchTooSmall { layer } if layer.starts_with("layer3")), "{error}");
    assert!(forward(&net.graph, &net.weights, &images, Mode::Train).is_ok());
}

#[test]
fn a_missing_tensor_is_named() {
    let Net { graph, weights } = tiny();
    let (images, _) = batch(&graph);
    let weights: Weights = weights.into_iter().filter(|(name, _)| name != "conv2.weight").collect();
    let error = forward(&graph, &weights, &images, Mode::Eval).unwrap_err();
    assert!(
        matches!(&error, ModelError::MissingTensor { tensor, .. } if tensor == "conv2.weight"),
        "{error}"
    );
}

#[test]
fn layers_can_have_rates_of_their_own() {
    let still = SgdOptions {
        layer_lr: BTreeMap::from([("fc".to_owned(), 0.0), ("bn2.bias".to_owned(), 0.0)]),
        layer_decay: BTreeMap::from([("conv1".to_owned(), 0.0)]),
        ..OPTIONS
    };
    let (plain, other) = (tiny(), tiny());
    let before = plain.weights.deep_copy().unwrap();
    steps(&plain, &mut Sgd::new(&plain.graph, &OPTIONS), 1);
    steps(&other, &mut Sgd::new(&other.graph, &still), 1);
    let of = |weights: &Weights, name: &str| weights.get(name).unwrap().copy();
    for name in ["fc.weight", "fc.bias"] {
        assert_eq!(of(&other.weights, name), of(&before, name), "{name}");
        assert_ne!(of(&plain.weights, name), of(&before, name), "{name}");
    }
    assert_eq!(of(&other.weights, "bn2.bias"), of(&before, "bn2.bias"));
    // Without decay the weight lies lr·decay·w away; other layers do as before.
    let gap = of(&plain.weights, "conv1.weight") - of(&other.weights, "conv1.weight");
    let decay = of(&before, "conv1.weight") * (-0.02 * 5e-4);
    assert!((gap - decay).abs().max().double_value(&[]) < 1e-7);
    assert_eq!(of(&other.weights, "conv2.weight"), of(&plain.weights, "conv2.weight"));
}

#[test]
fn bfloat16_layers_learn_as_well_and_leave_weights_in_32_bits() {
    let net = tiny();
    let (images, labels) = batch(&net.graph);
    let mut sgd = Sgd::new(&net.graph, &OPTIONS);
    let mut step = |precision| {
        let loss = train_step(&net.graph, &net.weights, &mut sgd, &images, &labels, 0.02, precision).unwrap();
        loss.double_value(&[])
    };
    let losses: Vec<f64> = (0..30).map(|_| step(Precision::Bf16)).collect();
    assert!(losses[29] < 0.7 * losses[0], "{losses:?}");
    net.weights.check(&net.graph).unwrap();
}
