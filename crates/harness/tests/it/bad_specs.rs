//! Every wrong value is refused before any work, naming file, key and what is allowed; nothing is written.

use std::collections::BTreeMap;

use tch::Kind;
use thinet_harness::HarnessError;
use thinet_harness::events::Silent;
use thinet_harness::run::{RunOptions, run};
use thinet_models::{Device, Net, Weights, save_net, save_tensors};
use thinet_nets::{Arch, NetSpec};
use thinet_seed::Seed;

use crate::fixture::{CLASSES, Fixture, SPEC};

/// The error of the good spec after some replacements (the first place of each).
fn error_of(fixture: &Fixture, replacements: &[(&str, &str)]) -> String {
    let mut spec = SPEC.to_owned();
    for (from, to) in replacements {
        assert!(spec.contains(from), "{from:?} is not in the spec");
        spec = spec.replacen(from, to, 1);
    }
    let error = match fixture.plan(&spec, "results") {
        Ok(_) => panic!("accepted: {replacements:?}"),
        Err(error) => error,
    };
    assert!(error.is_bad_spec(), "{error}");
    assert!(!fixture.path("results").exists(), "something was written");
    error.to_string().replace(&fixture.path("spec.toml").display().to_string(), "SPEC")
}

#[test]
fn wrong_values_are_named_with_their_key() {
    let fixture = Fixture::new();
    let cases = [
        ("name = \"small\"", "name = \"Small Study\""),
        ("name = \"small\"", "seeds = 0\nname = \"small\""),
        ("selector = \"apoz\"", "selector = \"apos\""),
        ("reconstruction = \"channel-scale\"", "reconstruction = \"chanel-scale\""),
        ("selector = \"apoz\"", "selector = \"random\""),
        ("[0.5, 0.75]", "[0.5, 0.0]"),
        ("[0.5, 0.75]", "[1.5]"),
        ("[0.5, 0.75]", "[0.5, 0.5]"),
        ("[0.5, 0.75]", "[]"),
        ("[0.5, 0.75]", "[0.01]"),
        ("[0.5, 0.75]", "[nan]"),
        ("keep-rates = [0.5, 0.75]", ""),
        ("[0.5, 0.75]", "[0.5]\nflops = [1.0]"),
        ("[0.5, 0.75]", "[0.5]\nflops = [0.01]"),
        ("[0.5, 0.75]", "[0.5]\nflops = [0.31, 0.3]"),
        ("[prune]", "[prune]\nlayers = [\"conv9\"]"),
        ("[prune]", "[prune]\nlayers = []"),
        ("[prune]", "[prune]\nlayers = \"most\""),
        ("arch = \"tiny\"", "arch = \"resnet18\""),
        ("name = \"Stripes\"\n", ""),
        ("size = 16", "size = \"16\""),
        ("[prune]", "[prune]\nmode = \"one-shot\""),
        ("epochs = 2", "epochs = 2\nsteps = 3"),
        ("epochs = 2", "epochs = 0"),
        ("lr = 0.05", "lr = -1.0"),
        ("batch = 16", "batch = 1000"),
        ("images-per-class = 3", "images-per-class = 300"),
        ("[net]", "[input]\nsize = 19\n[net]"),
        ("[net]", "[input]\nmean = [0.5]\n[net]"),
        ("arch = \"tiny\"", "arch = \"tiny\"\nwidth = 0.001"),
    ];
    let mut texts: Vec<String> = cases.iter().map(|case| error_of(&fixture, &[*case])).collect();
    texts.push(error_of(
        &fixture,
        &[
            ("arch = \"tiny\"\nbatch-norm = true", "arch = \"cifar-resnet20\""),
            ("[prune]", "[prune]\nlayers = [\"layer1.0.conv2\"]"),
        ],
    ));
    insta::assert_snapshot!(texts.join("\n"));
}

#[test]
fn numbers_that_no_machine_can_serve_are_refused_with_key_and_limit() {
    let fixture = Fixture::new();
    // 2^62 and the largest integer of TOML: what they are multiplied with leaves 64 bits.
    let mut texts = Vec::new();
    for number in ["4611686018427387904", "9223372036854775807"] {
        for (from, key) in [
            ("epochs = 2", "epochs = "),
            ("steps = 2", "steps = "),
            ("batch = 16", "batch = "),
            ("images-per-class = 3", "images-per-class = "),
            ("positions-per-image = 4", "positions-per-image = "),
            ("[net]", "[compute]\nthreads = "),
            ("[net]", "[input]\nsize = "),
            ("name = \"small\"", "name = \"small\"\nseeds = "),
            ("arch = \"tiny\"", "arch = \"tiny\"\nwidths.conv1 = "),
            ("arch = \"tiny\"", "arch = \"tiny\"\nwidth = "),
        ] {
            let rest = if from == "[net]" { "\n[net]" } else { "" };
            let float = if key.ends_with("width = ") { ".0" } else { "" };
            texts.push(error_of(&fixture, &[(from, &format!("{key}{number}{float}{rest}"))]));
        }
        texts.push(String::new());
    }
    let seeds = ("name = \"small\"", "name = \"small\"\nseeds = 1000");
    let rates: Vec<String> = (1..=50).map(|i| format!("{:.3}", 0.5 + f64::from(i) / 200.0)).collect();
    texts.push(error_of(&fixture, &[seeds, ("[0.5, 0.75]", &format!("[{}]", rates.join(", ")))]));
    insta::assert_snapshot!(texts.join("\n"));
}

#[test]
fn limits_that_the_data_cannot_meet_are_named_with_file_and_key() {
    let fixture = Fixture::new();
    for (limit, problem) in [
        ("train-limit = 100", "dataset.train-limit: 100 is more than the 96 images there are (Stripes)"),
        ("test-limit = 49", "dataset.test-limit: 49 is more than the 48 images there are (Stripes)"),
        ("test-limit = 3", "dataset.test-limit: 3 is too few: each of the 6 classes needs one image"),
        ("train-limit = 0", "dataset.train-limit: 0 is too few: each class needs one image, so at least 1"),
        ("max-pixels = 0", "dataset.max-pixels: 0 is outside 1..="),
    ] {
        let error = error_of(&fixture, &[("size = 16", &format!("size = 16\n{limit}"))]);
        assert!(error.starts_with(&format!("SPEC: {problem}")), "{error}");
    }
}

#[test]
fn images_of_one_class_are_refused_as_the_check_of_the_data_does() {
    let fixture = Fixture::new();
    for part in ["train", "test"] {
        for class in 1..CLASSES {
            std::fs::remove_dir_all(fixture.path("images").join(part).join(format!("class{class}"))).unwrap();
        }
    }
    let error = fixture.plan(SPEC, "results").err().expect("refused");
    assert!(matches!(error, HarnessError::Data(_)), "{error}");
    let expected = "images: all 16 training images are of one class; all 8 test images are of one class";
    assert!(error.to_string().ends_with(expected), "{error}");
}

#[test]
fn missing_data_and_devices_are_refused_before_any_work() {
    let fixture = Fixture::new();
    let file = fixture.path("spec.toml");
    std::fs::write(&file, SPEC).unwrap();
    let plan = |data: &str, device: Device| {
        let mut options = fixture.options("results");
        options.data = Some(fixture.path(data));
        options.device = device;
        thinet_harness::study::Plan::new(&file, &options).err().expect("refused").to_string()
    };
    let no_data = plan("nowhere", Device::Cpu);
    assert!(no_data.contains("nowhere") && no_data.contains("--data DIR names another folder"), "{no_data}");
    for (kind, command) in [
        ("fashion-mnist", "to get it: thinet data fetch fashion-mnist --data "),
        ("cifar10", "to get it: thinet data fetch cifar10 --data "),
    ] {
        let text = SPEC
            .replace("kind = \"image-folder\"\nname = \"Stripes\"\nsize = 16", &format!("kind = {kind:?}"));
        std::fs::write(&file, text).unwrap();
        let missing = plan("nowhere", Device::Cpu);
        assert!(missing.contains(command), "{missing}");
    }
    std::fs::write(&file, SPEC).unwrap();
    if !tch::Cuda::is_available() {
        let no_cuda = plan("images", Device::Cuda(0));
        assert!(no_cuda.to_lowercase().contains("cuda"), "{no_cuda}");
    }
    assert!(!fixture.path("results").exists());
}

#[test]
fn dense_weights_that_do_not_fit_are_refused_before_any_work() {
    let fixture = Fixture::new();
    let build = |width| {
        let spec = NetSpec { batch_norm: Some(true), width, ..NetSpec::new(Arch::Tiny) };
        let graph = spec.build([3, 16, 16], CLASSES).unwrap();
        let weights = Weights::init(&graph, Seed::root(0), Device::Cpu.into()).unwrap();
        Net { graph, weights }
    };
    let file = fixture.path("w.safetensors");
    let start = SPEC.find("[dense]").unwrap();
    let end = SPEC.find("[prune]").unwrap();
    let spec = format!("{}[dense]\nweights = \"w.safetensors\"\n{}", &SPEC[..start], &SPEC[end..]);
    let mut texts = Vec::new();
    let mut refused = || {
        let error = fixture.plan(&spec, "results").err().expect("refused");
        assert!(error.is_bad_spec(), "{error}");
        texts.push(error.to_string().replace(&fixture.path("").display().to_string(), ""));
    };
    refused();
    save_net(&file, &build(2.0), &BTreeMap::new()).unwrap();
    refused();
    let net = build(1.0);
    let doubles: Vec<_> =
        net.weights.iter().map(|(name, tensor)| (name, tensor.to_kind(Kind::Double))).collect();
    save_tensors(&file, &doubles, &BTreeMap::new()).unwrap();
    refused();
    std::fs::write(&file, "not a weight file").unwrap();
    refused();
    insta::assert_snapshot!(texts.join("\n"));
    assert!(!fixture.path("results").exists(), "something was written");

    // Random weights fit the net and guess: found out before anything is pruned.
    save_net(&file, &net, &BTreeMap::new()).unwrap();
    let plan = fixture.plan(&spec, "results").unwrap();
    let error = run(&plan, &RunOptions::default(), &Silent).unwrap_err().to_string();
    assert!(
        error.contains("near chance (16.67 %)") && error.contains("another order of the classes"),
        "{error}"
    );

    let longer = SPEC.replacen("epochs = 2", "epochs = 40", 1);
    let trained = fixture.run(&longer, "trained", &Silent);
    let weights = fixture.path("trained/store").join(&trained.study.dense[0].id).join("weights.safetensors");
    std::fs::copy(weights, &file).unwrap();
    assert_eq!(fixture.run(&spec, "results", &Silent).study.cells.len(), 6);
}
