//! Nets from real cells in PyTorch: `scripts/load_exported.py` builds them from the exported file alone and computes our logits.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use tch::{Device, Kind, Tensor};
use thinet_data::{Loader, LoaderOptions};
use thinet_graph::{Graph, Op};
use thinet_harness::study::{Options, Plan};
use thinet_models::{
    Layout, Metadata, Mode, Net, Weights, export_weights, forward, forward_taps, load_net, save_net,
    save_tensors,
};
use thinet_nets::{Arch, NetSpec, ResNetStride};
use thinet_seed::Seed;

use crate::fixture::Fixture;

/// Images of a class have its colour and some pattern, 20×20; three classes.
fn images(fixture: &Fixture) {
    fixture.draw_images(3, [4, 4], |class, i| {
        let pixel = |x, y| {
            let pattern = (x * (i + 2) + y * (i + 5)) % 32;
            let value = |channel| if channel == class { 200 } else { 20 + 40 * class } + pattern;
            image::Rgb([0, 1, 2].map(|channel| value(channel) as u8))
        };
        image::RgbImage::from_fn(20, 20, pixel).into()
    });
}

fn spec(name: &str, channels: usize, input: &str, net: &str, layers: &[&str]) -> String {
    format!(
        r#"
name = "{name}"
table = "{name}"
dataset = {{ kind = "image-folder", name = "Colours", size = 20, channels = {channels} }}
input = {{ {input} }}
net = {{ arch = {net} }}
dense.weights = "{name}.weights.safetensors"
prune.mode = "one-shot"
prune.layers = {layers:?}
prune.keep-rates = [0.5]
calibration = {{ images-per-class = 2, positions-per-image = 2 }}
methods = [{{ selector = "weight-sum-l1" }}]
"#
    )
}

/// The prepared test images as a study sees them, and their bytes.
fn test_images(plan: &Plan) -> (Tensor, Tensor, Vec<i64>) {
    let test = &plan.data.test;
    let options = LoaderOptions { batch: test.len(), drop_last: false, threads: 0, prefetch: 0 };
    let mut loader =
        Loader::new(test.clone(), (0..test.len()).collect(), &plan.transform, None, options).unwrap();
    let batch = loader.next().unwrap().unwrap();
    let shape = |shape: &[usize]| shape.iter().map(|&n| n as i64).collect::<Vec<_>>();
    let images = Tensor::from_slice(&batch.images).view(&shape(&batch.shape)[..]);
    let [c, h, w] = test.shape();
    let mut pixels = vec![0; test.len() * c * h * w];
    for (index, image) in pixels.chunks_exact_mut(c * h * w).enumerate() {
        test.read(index, image).unwrap();
    }
    let pixels = Tensor::from_slice(&pixels).to_kind(Kind::Int64).view(&shape(&[test.len(), c, h, w])[..]);
    (images, pixels, batch.labels)
}

/// A net that separates the classes without any training: random features, and a last layer that chooses the class with the
/// nearest mean. Statistics, scales and biases differ from their initial values, so that a mix-up shows.
fn nearest_mean(graph: &Graph, images: &Tensor, labels: &[i64]) -> Weights {
    let start = Weights::init(graph, Seed::root(7), Device::Cpu).unwrap();
    let mut weights = Weights::new();
    for (number, (name, tensor)) in start.iter().enumerate() {
        let wave = |len: i64| (Tensor::arange(len, (Kind::Float, Device::Cpu)) * 0.7 + number as f64).sin();
        let tensor = match tensor.size()[..] {
            [len] => tensor + wave(len) * 0.03,
            _ => tensor.shallow_clone(),
        };
        weights.insert(name, tensor);
    }
    let last = graph.nodes().iter().rfind(|node| matches!(node.op, Op::Linear { .. })).unwrap();
    let mut features = Tensor::new();
    let taps = BTreeSet::from([last.inputs[0]]);
    forward_taps(graph, &weights, images, Mode::Eval, &taps, &mut |_, tensor| features = tensor.copy())
        .unwrap();
    let labels = Tensor::from_slice(labels);
    let means: Vec<Tensor> = (0..3)
        .map(|class| {
            let of_class = labels.eq(class).nonzero().squeeze_dim(1);
            features.index_select(0, &of_class).mean_dim([0_i64].as_slice(), false, Kind::Float)
        })
        .collect();
    let means = Tensor::stack(&means, 0);
    let squares = means.square().sum_dim_intlist([1_i64].as_slice(), false, Kind::Float);
    let scale = 1.0 / means.abs().max().double_value(&[]);
    weights.insert(format!("{}.weight", last.name), &means * (2.0 * scale));
    weights.insert(format!("{}.bias", last.name), squares * -scale);
    weights
}

/// The Python whose torch libtorch is part of, or another that has torch; `None` where libtorch came without one.
fn python() -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let libtorch = std::env::var_os("LIBTORCH").map_or_else(|| root.join(".libtorch"), PathBuf::from);
    let libtorch = libtorch.canonicalize().unwrap_or_default();
    // <environment>/lib/python3.N/site-packages/torch
    if libtorch.parent().is_some_and(|folder| folder.ends_with("site-packages")) {
        return Some(libtorch.ancestors().nth(4).unwrap().join("bin/python"));
    }
    let activated = std::env::var_os("VIRTUAL_ENV").map(|folder| Path::new(&folder).join("bin/python"));
    [activated, Some("python3".into()), Some("python".into())].into_iter().flatten().find(|python| {
        Command::new(python).args(["-c", "import torch"]).output().is_ok_and(|done| done.status.success())
    })
}

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/load_exported.py")
}

/// Runs a cell of the spec and exports it beside its bytes, its inputs and our logits.
fn exported(fixture: &Fixture, name: &str, net: &NetSpec, layout: &str, text: &str) {
    let spec = fixture.write(&format!("{name}.toml"), text);
    let weights = fixture.path(&format!("{name}.weights.safetensors"));
    let channels = if text.contains("channels = 1") { 1 } else { 3 };
    let graph = net.build([channels, 32, 32], 3).unwrap();
    let start = Weights::init(&graph, Seed::root(0), Device::Cpu).unwrap();
    save_net(&weights, &Net { graph, weights: start }, &Metadata::new()).unwrap();
    let data = Some(fixture.path("images"));
    let plan = Plan::new(&spec, &Options { data, ..Options::default() }).unwrap();
    let (images, pixels, labels) = test_images(&plan);
    let planted = nearest_mean(&plan.graph, &images, &labels);
    save_net(&weights, &Net { graph: plan.graph, weights: planted }, &Metadata::new()).unwrap();

    let ran = fixture.run(&["run", &format!("{name}.toml"), "--data", "images", "--json"]);
    assert_eq!(ran.code, 0, "{name}: {}", ran.err);
    let study = ran.json();
    let cell = study["cells"][0]["id"].as_str().unwrap();
    let file = format!("{name}.safetensors");
    let ran = fixture.run(&["export", cell, "--layout", layout, "-o", &file]);
    assert_eq!(ran.code, 0, "{name}: {}", ran.err);
    assert!(ran.out.contains(" padded with zeros to 32×32 before normalisation"), "{}", ran.out);
    assert!(ran.out.contains(&format!("next: python scripts/load_exported.py {file}")), "{}", ran.out);

    let stored = fixture.path("results/store").join(cell).join("weights.safetensors");
    let (net, _) = load_net(&stored, Device::Cpu).unwrap();
    let logits = tch::no_grad(|| forward(&net.graph, &net.weights, &images, Mode::Eval)).unwrap();
    let golden = [("pixels", &pixels), ("images", &images), ("logits", &logits)];
    save_tensors(&fixture.path(&format!("{name}.check.safetensors")), &golden, &Metadata::new()).unwrap();
}

/// Loads every exported net, prepares the bytes and compares inputs and logits; then one as from the command line.
const COMPARE: &str = r#"
import pathlib, sys, torch
sys.path.insert(0, sys.argv[1])
from load_exported import load, main, preprocess, read
torch.set_num_threads(1)
for check in sorted(pathlib.Path(".").glob("*.check.safetensors")):
    name = check.name.removesuffix(".check.safetensors")
    net, how = load(f"{name}.safetensors")
    golden, _ = read(check)
    images = preprocess(golden["pixels"].to(torch.uint8), how)
    with torch.no_grad():
        logits = net(images)
    scale = golden["logits"].abs().max()
    spread = golden["logits"].std(0).max() / scale
    off = (logits - golden["logits"]).abs().max() / scale
    names = set(net.state_dict()) - {n for n in net.state_dict() if n.endswith("num_batches_tracked")}
    same = names == set(read(f"{name}.safetensors")[0])
    print(name, bool(torch.equal(images, golden["images"])), bool(off <= 1e-5), bool(spread > 1e-3), same, flush=True)
sys.argv = ["load_exported.py", "vgg16-gap.safetensors", "--check", "vgg16-gap.check.safetensors"]
main()
"#;

#[test]
fn every_net_of_a_cell_runs_in_pytorch_with_our_logits() {
    let fixture = Fixture::new();
    images(&fixture);
    let grey = "size = 32";
    let bgr =
        "size = 32, order = \"bgr\", range = 255.0, mean = [104.0, 117.0, 123.0], std = [1.0, 2.0, 3.0]";
    let middle = Some(ResNetStride::Middle3x3);
    let vgg = &["conv1_1", "conv5_3"][..];
    let bottleneck = &["layer1.0.conv1", "layer2.0.conv2"][..];
    let basic = &["layer1.0.conv1", "layer2.0.conv1"][..];
    let names: Vec<(&str, Arch)> = Arch::ALL.into_iter().map(|arch| (arch.name(), arch)).collect();
    for (name, arch) in names {
        let (channels, input, layout, layers) = match arch {
            Arch::Vgg16 => (3, bgr, "timm", vgg),
            Arch::Vgg16Gap => (1, grey, "torchvision", vgg),
            Arch::Resnet50 => (3, bgr, "caffe", bottleneck),
            Arch::CifarVgg16 => (3, grey, "torchvision", vgg),
            Arch::CifarResnet20 | Arch::CifarResnet56 => (3, grey, "torchvision", basic),
            Arch::Tiny => (1, grey, "own", &["conv1", "conv2"][..]),
        };
        let width = if arch == Arch::Tiny { 1.0 } else { 0.125 };
        let net = NetSpec { width, ..NetSpec::new(arch) };
        let text = spec(name, channels, input, &format!("\"{name}\", width = {width}"), layers);
        exported(&fixture, name, &net, layout, &text);
    }
    let net = NetSpec { width: 0.125, stride: middle, ..NetSpec::new(Arch::Resnet50) };
    let text = spec("torchvisions", 3, grey, "\"resnet50\", width = 0.125, stride = \"3x3\"", bottleneck);
    exported(&fixture, "torchvisions", &net, "torchvision", &text);

    // Set-up creates an environment with torch; with another libtorch there may be no Python for it.
    let Some(python) = python() else { return };
    let folder = script().parent().unwrap().to_owned();
    let done = Command::new(&python)
        .arg("-c")
        .arg(COMPARE)
        .arg(folder)
        .current_dir(fixture.path(""))
        .output()
        .unwrap();
    let printed = String::from_utf8(done.stdout).unwrap();
    assert!(done.status.success(), "{printed}{}", String::from_utf8_lossy(&done.stderr));
    let names: BTreeSet<&str> =
        printed.lines().filter_map(|line| line.strip_suffix(" True True True True")).collect();
    let expected: BTreeSet<&str> = Arch::ALL.into_iter().map(Arch::name).chain(["torchvisions"]).collect();
    assert_eq!(names, expected, "name, same inputs, same logits, logits that differ, same names:\n{printed}");

    assert!(printed.contains("\"padding\": \"zeros-before-normalisation\""), "{printed}");
    assert!(printed.contains("\"resize\": {\"to\": \"square\", \"side\": 20"), "{printed}");
    assert!(printed.lines().last().unwrap().starts_with("logits differ by"), "{printed}");
}

#[test]
fn the_preprocessing_of_an_old_cell_comes_from_its_records_or_is_unknown() {
    let fixture = Fixture::new();
    images(&fixture);
    let net = NetSpec::new(Arch::Tiny);
    let text = spec("old", 1, "size = 32", "\"tiny\"", &["conv1"]);
    exported(&fixture, "old", &net, "own", &text);
    // As an older version stored it: nothing about images in the weights' metadata.
    let (net, mut metadata) = load_net(&fixture.path("old.safetensors"), Device::Cpu).unwrap();
    for key in ["preprocessing", "names", "layout", "format"] {
        assert!(metadata.remove(key).is_some(), "{key}");
    }
    save_net(&fixture.path("older.safetensors"), &net, &metadata).unwrap();
    let export = |results: &str| {
        let ran = fixture.run(&[
            "export",
            "older.safetensors",
            "-o",
            "again.safetensors",
            "--force",
            "--layout",
            "own",
            "--results",
            results,
        ]);
        assert_eq!(ran.code, 0, "{}", ran.err);
        ran.out
    };
    let printed = export("results");
    let expected =
        "its inputs: grey images, resizing unknown, cut or padded with zeros to 32×32 before normalisation";
    assert!(printed.contains(expected), "{printed}");
    let (_, metadata) = load_net(&fixture.path("again.safetensors"), Device::Cpu).unwrap();
    assert!(
        metadata["preprocessing"].contains("\"resize\":{\"to\":\"unknown\"}"),
        "{}",
        metadata["preprocessing"]
    );
    assert!(export("elsewhere").contains("its inputs: not known"));
}

#[test]
fn a_file_is_shown_whatever_its_names_are() {
    let fixture = Fixture::new();
    let spec = NetSpec { width: 1.0 / 32.0, ..NetSpec::new(Arch::Vgg16Gap) };
    let graph = spec.build([3, 32, 32], 3).unwrap();
    let weights = Weights::init(&graph, Seed::root(0), Device::Cpu).unwrap();
    let net = Net { graph, weights };
    let show = |file: &str| -> (String, serde_json::Value) {
        let [text, json] = [&["show", file][..], &["show", file, "--json"]].map(|arguments| {
            let ran = fixture.run(arguments);
            assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{file}");
            ran.out
        });
        (text, serde_json::from_str(&json).unwrap())
    };
    export_weights(&fixture.path("own.safetensors"), &net, Layout::Own, &Metadata::new()).unwrap();
    let (own_text, own) = show("own.safetensors");
    assert!(own_text.contains("  conv1_1.weight "), "{own_text}");
    for layout in [Layout::Torchvision, Layout::Timm, Layout::Caffe] {
        let file = format!("{}.safetensors", layout.name());
        export_weights(&fixture.path(&file), &net, layout, &Metadata::new()).unwrap();
        let (text, json) = show(&file);
        assert_eq!(text.lines().take(3).collect::<Vec<_>>(), own_text.lines().take(3).collect::<Vec<_>>());
        assert!(text.starts_with("vgg16-gap: input 3×32×32, 3 classes\n"), "{text}");
        assert!(text.contains("  features.0.weight ") && text.contains("\nlayout: "), "{text}");
        assert_eq!((&json["graph"], &json["counts"]), (&own["graph"], &own["counts"]));
        assert_eq!(json["tensors"][0]["dtype"], "f32");
        let again = fixture.run(&["export", &file, "--layout", "own", "-o", "again.safetensors"]);
        let expected = format!("holds its weights under the names of {}; ", layout.name());
        assert!(again.code == 1 && again.err.contains(&expected), "{}", again.err);
    }
    // A file of another program has no graph.
    let header = br#"{"a.weight":{"dtype":"F16","shape":[2],"data_offsets":[0,4]}}  "#;
    let bytes = [&(header.len() as u64).to_le_bytes()[..], header, &[0; 4]].concat();
    std::fs::write(fixture.path("foreign.safetensors"), bytes).unwrap();
    let (text, json) = show("foreign.safetensors");
    assert!(text.starts_with("foreign.safetensors: no graph in its metadata"), "{text}");
    assert!(text.contains("  a.weight ") && text.ends_with("[2] f16\n"), "{text}");
    assert_eq!(json["graph"], serde_json::Value::Null);
    // Weights that do not fit their graph are still refused by name.
    std::fs::write(fixture.path("torn.safetensors"), "no file").unwrap();
    assert_eq!(fixture.run(&["show", "torn.safetensors"]).code, 1);
}
