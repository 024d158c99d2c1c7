//! Weight files that PyTorch wrote (golden/make_checkpoints.py): the same logits, and the text of every refusal.

use std::path::{Path, PathBuf};

use proptest::prelude::*;
use tch::{Device, Kind, Tensor};
use thinet_graph::Graph;
use thinet_models::{
    FileType, ImportRules, Layout, Metadata, Mode, Net, Weights, check_import, export_weights, forward,
    import_weights, load_tensors,
};
use thinet_nets::{Arch, NetSpec, ResNetStride};
use thinet_seed::Seed;

pub(crate) fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/checkpoints").join(name)
}

/// The narrow VGG of the script: for 64×64 images, two by two places are left before the first linear layer.
pub(crate) fn vgg(batch_norm: bool) -> Graph {
    let mut widths = std::collections::BTreeMap::new();
    for (stage, (convs, filters)) in [(2, 4), (2, 4), (3, 6), (3, 6), (3, 8)].into_iter().enumerate() {
        for i in 1..=convs {
            widths.insert(format!("conv{}_{i}", stage + 1), filters);
        }
    }
    widths.extend([("fc6".to_owned(), 10), ("fc7".to_owned(), 10)]);
    let spec = NetSpec { widths, batch_norm: Some(batch_norm), ..NetSpec::new(Arch::Vgg16) };
    spec.build([3, 64, 64], 7).unwrap()
}

fn resnet(stride: ResNetStride) -> Graph {
    let spec = NetSpec { width: 1.0 / 32.0, stride: Some(stride), ..NetSpec::new(Arch::Resnet50) };
    spec.build([3, 64, 64], 7).unwrap()
}

pub(crate) fn assert_same_logits(graph: &Graph, weights: &Weights, golden: &str) {
    let (tensors, _) = load_tensors(&file(&format!("{golden}.logits.safetensors")), Device::Cpu).unwrap();
    let logits = forward(graph, weights, &tensors["images"], Mode::Eval).unwrap();
    let scale = tensors["logits"].abs().max().double_value(&[]);
    let off = (logits - &tensors["logits"]).abs().max().double_value(&[]);
    assert!(scale > 0.1, "{golden}: logits of {scale} show nothing");
    assert!(off <= 1e-4 * scale.max(1.0), "{golden}: off by {off} at {scale}");
}

#[test]
fn every_container_wrapper_prefix_and_layout_gives_pytorchs_logits() {
    let (plain, normalised, residual) = (vgg(false), vgg(true), resnet(ResNetStride::Middle3x3));
    for (name, graph, golden, container, layout) in [
        ("vgg.pth", &plain, "vgg", "zip", Layout::Torchvision),
        ("vgg-old.pth", &plain, "vgg", "stream", Layout::Torchvision),
        ("vgg-views.pth", &plain, "vgg", "zip", Layout::Torchvision),
        ("vgg-views-old.pth", &plain, "vgg", "stream", Layout::Torchvision),
        ("vgg-parts.pth", &plain, "vgg", "stream", Layout::Torchvision),
        ("vgg.safetensors", &plain, "vgg", "safetensors", Layout::Torchvision),
        ("vgg-timm.safetensors", &plain, "vgg", "safetensors", Layout::Timm),
        ("vgg-bn.pth", &normalised, "vgg-bn", "zip", Layout::Torchvision),
        ("vgg-bn-old.pth", &normalised, "vgg-bn", "stream", Layout::Torchvision),
        ("resnet.pth", &residual, "resnet", "zip", Layout::Torchvision),
        ("resnet-old.pth", &residual, "resnet", "stream", Layout::Torchvision),
        ("resnet-wrapped.pth.tar", &residual, "resnet", "zip", Layout::Torchvision),
        ("vgg-model.pth", &plain, "vgg", "zip", Layout::Torchvision),
    ] {
        let rules = ImportRules::default();
        let (weights, report) =
            import_weights(&file(name), graph, &rules, Device::Cpu).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!((report.container, report.layout), (container, layout), "{name}");
        weights.check(graph).unwrap();
        assert_same_logits(graph, &weights, golden);
        assert_eq!(check_import(&file(name), graph, &rules).unwrap(), report, "{name}");
    }
}

#[test]
fn the_report_says_what_was_done() {
    let rules = ImportRules::default();
    let of = |name, graph: &Graph| check_import(&file(name), graph, &rules).unwrap();
    let wrapped = of("resnet-wrapped.pth.tar", &resnet(ResNetStride::Middle3x3));
    assert_eq!(
        (wrapped.wrapper.as_deref(), wrapped.prefix.as_deref()),
        (Some("state_dict"), Some("module."))
    );
    assert!(wrapped.ignored.iter().all(|name| name.ends_with("num_batches_tracked")));
    assert_eq!(wrapped.ignored.len(), 53);
    let parts = of("vgg-parts.pth", &vgg(false));
    assert_eq!(parts.prefix.as_deref(), Some("features.module."));
    assert!(parts.mapped.contains(&("features.module.28.bias".to_owned(), "conv5_3.bias".to_owned())));
    assert!(parts.mapped.contains(&("classifier.6.weight".to_owned(), "fc8.weight".to_owned())));
    let lines = of("vgg-bn.pth", &vgg(true)).lines().join("\n");
    assert!(lines.contains("13 biases in front of batch normalisations folded"), "{lines}");
    assert!(lines.contains("torchvision names") && lines.contains("13 not used: "), "{lines}");
}

#[test]
fn half_precision_is_accepted_when_the_rules_allow_it() {
    let graph = vgg(false);
    let says = |rules: &ImportRules| {
        let error = check_import(&file("half-vgg.pth"), &graph, rules).unwrap_err().to_string();
        error.replace(&file("").display().to_string(), "")
    };
    let expected = "half-vgg.pth: layer \"conv1_1\": tensor \"conv1_1.weight\" should be f32 [4, 3, 3, 3], found f16 [4, 3, 3, 3]; dense.import.dtype = \"f16\" takes weights of this type";
    assert_eq!(says(&ImportRules::default()), expected);
    let rules = ImportRules { dtype: FileType::F16, ..ImportRules::default() };
    let (weights, report) = import_weights(&file("half-vgg.pth"), &graph, &rules, Device::Cpu).unwrap();
    assert_same_logits(&graph, &weights, "half-vgg");
    assert_eq!(report.notes, ["turned from f16 into f32"]);
}

#[test]
fn what_does_not_fit_is_refused_by_name() {
    let says = |name: &str, graph: &Graph, rules: &ImportRules| {
        let error = import_weights(&file(name), graph, rules, Device::Cpu).unwrap_err().to_string();
        error.replace(&file("").display().to_string(), "")
    };
    let rules = ImportRules::default();
    let caffe = ImportRules { layout: Some(Layout::Caffe), ..ImportRules::default() };
    let (first, middle) = (resnet(ResNetStride::First1x1), resnet(ResNetStride::Middle3x3));
    let stride = says("resnet.pth", &first, &rules);
    assert!(stride.contains("net.stride = \"3x3\"") && stride.contains("dense.import.layout"), "{stride}");
    assert!(says("resnet.pth", &middle, &caffe).contains("net.stride = \"1x1\""));
    assert!(import_weights(&file("resnet.pth"), &first, &caffe, Device::Cpu).is_ok());

    let twice = "vgg-twice.pth: holds a dictionary under \"state_dict\" and one under \"model\"; dense.import.key says which is meant";
    assert_eq!(says("vgg-twice.pth", &middle, &rules), twice);
    let mixed = says("vgg-mixed.pth", &vgg(false), &rules);
    assert!(
        mixed.contains("has the prefix \"features.module.\", \"features.0.weight\" has not: "),
        "{mixed}"
    );
    let strange = says("vgg.pth", &vgg(true), &rules);
    assert!(strange.contains("\"features.2.weight\" (f32 [4, 4, 3, 3]) belongs to no layer"), "{strange}");
    let without = ImportRules { ignore: vec!["classifier.6.".to_owned()], ..ImportRules::default() };
    let missing = says("vgg.pth", &vgg(false), &without);
    assert_eq!(missing, "vgg.pth: layer \"fc8\": tensor \"fc8.bias\" is missing, expected f32 [7]");
    let other = NetSpec::new(Arch::Vgg16).build([3, 64, 64], 7).unwrap();
    let shape = says("vgg.pth", &other, &rules);
    assert!(
        shape.contains("\"conv1_1.weight\" should be f32 [64, 3, 3, 3], found f32 [4, 3, 3, 3]"),
        "{shape}"
    );
    let text = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(text.path(), "no weights, but a longer text").unwrap();
    let error = import_weights(text.path(), &other, &rules, Device::Cpu).unwrap_err().to_string();
    assert!(
        error.contains("is not a whole safetensors file") && error.contains("nor is it a PyTorch"),
        "{error}"
    );
}

#[test]
fn a_pickle_that_calls_something_is_refused_and_not_run() {
    let graph = vgg(false);
    for name in ["calls-system.pth", "calls-system-old.pth"] {
        let error = check_import(&file(name), &graph, &ImportRules::default()).unwrap_err().to_string();
        assert!(error.contains("posix.system"), "{error}");
    }
    assert!(!Path::new("/tmp/a-pickle-was-run").exists());
}

#[test]
fn new_layers_and_unwanted_names_follow_the_rules() {
    let graph = vgg(false);
    let rules = ImportRules {
        fresh: vec!["fc8".to_owned()],
        ignore: vec!["classifier.6.".to_owned()],
        ..ImportRules::default()
    };
    let (weights, report) = import_weights(&file("vgg.pth"), &graph, &rules, Device::Cpu).unwrap();
    assert_eq!(report.fresh, ["fc8.bias", "fc8.weight"]);
    assert_eq!(report.ignored, ["classifier.6.weight", "classifier.6.bias"]);
    assert!(weights.get("fc8.weight").is_err() && weights.get("fc7.weight").is_ok());
    // A new head of another shape: the old one is in the file under the same name and ignored.
    let gap =
        NetSpec { widths: widths_of(&graph), ..NetSpec::new(Arch::Vgg16Gap) }.build([3, 64, 64], 5).unwrap();
    let rules = ImportRules {
        fresh: vec!["fc".to_owned()],
        ignore: vec!["classifier.".to_owned()],
        ..ImportRules::default()
    };
    let (weights, report) = import_weights(&file("vgg-old.pth"), &gap, &rules, Device::Cpu).unwrap();
    assert_eq!((weights.iter().len(), report.taken, report.ignored.len()), (26, 26, 6));
}

fn widths_of(graph: &Graph) -> std::collections::BTreeMap<String, usize> {
    let widths = graph.nodes().iter().filter_map(|node| match node.op {
        thinet_graph::Op::Conv { out_channels, .. } => Some((node.name.clone(), out_channels)),
        _ => None,
    });
    widths.collect()
}

#[test]
fn exports_come_back_bit_for_bit_from_every_layout() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("net.safetensors");
    for (graph, layouts) in [
        (vgg(false), &[Layout::Own, Layout::Torchvision, Layout::Timm, Layout::Caffe][..]),
        (vgg(true), &[Layout::Own, Layout::Torchvision]),
        (resnet(ResNetStride::Middle3x3), &[Layout::Own, Layout::Torchvision, Layout::Timm]),
        (resnet(ResNetStride::First1x1), &[Layout::Own, Layout::Caffe]),
    ] {
        let weights = Weights::init(&graph, Seed::root(4), Device::Cpu).unwrap();
        let net = Net { graph, weights };
        for &layout in layouts {
            export_weights(&path, &net, layout, &Metadata::new()).unwrap();
            let (back, _) = import_weights(&path, &net.graph, &ImportRules::default(), Device::Cpu).unwrap();
            for (name, tensor) in net.weights.iter() {
                assert_eq!(back.get(name).unwrap(), tensor, "{layout:?} {name}");
            }
        }
    }
    let graph = resnet(ResNetStride::First1x1);
    let weights = Weights::init(&graph, Seed::root(4), Device::Cpu).unwrap();
    let error = export_weights(&path, &Net { graph, weights }, Layout::Torchvision, &Metadata::new());
    assert!(error.unwrap_err().to_string().contains("they would load it and be wrong"));
}

#[test]
fn exported_names_are_torchvisions() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("net.safetensors");
    let graph = vgg(true);
    let weights = Weights::init(&graph, Seed::root(4), Device::Cpu).unwrap();
    export_weights(&path, &Net { graph, weights }, Layout::Torchvision, &Metadata::new()).unwrap();
    let (tensors, metadata) = load_tensors(&path, Device::Cpu).unwrap();
    let theirs = check_import(&file("vgg-bn.pth"), &vgg(true), &ImportRules::default()).unwrap();
    for (name, _) in &theirs.mapped {
        assert!(tensors.contains_key(name), "{name}");
    }
    let bias = &tensors["features.0.bias"];
    assert_eq!(*bias, Tensor::zeros([4], (Kind::Float, Device::Cpu)));
    assert_eq!(metadata["layout"], "torchvision");
}

#[test]
fn our_net_of_another_graph_is_refused_by_its_node() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("net.safetensors");
    let graph = resnet(ResNetStride::First1x1);
    let weights = Weights::init(&graph, Seed::root(4), Device::Cpu).unwrap();
    export_weights(&path, &Net { graph, weights }, Layout::Own, &Metadata::new()).unwrap();
    let error = check_import(&path, &resnet(ResNetStride::Middle3x3), &ImportRules::default()).unwrap_err();
    assert!(error.to_string().contains("differs at node \"layer2.0.conv1\""), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn damaged_files_are_errors_and_no_panic(which in 0..3_usize, at in 0.0..1.0f64, value: u8, cut in 0.0..1.0f64) {
        let name = ["vgg.pth", "vgg-old.pth", "vgg-no-checksums.pth"][which];
        let mut bytes = std::fs::read(file(name)).unwrap();
        // More often near the start, where the pickle is.
        let place = (at * at * (bytes.len() - 1) as f64) as usize;
        bytes[place] = value;
        let damaged = tempfile::NamedTempFile::new().unwrap();
        let (graph, rules) = (vgg(false), ImportRules::default());
        for len in [bytes.len(), (cut * bytes.len() as f64) as usize] {
            std::fs::write(damaged.path(), &bytes[..len]).unwrap();
            let Ok((weights, _)) = import_weights(damaged.path(), &graph, &rules, Device::Cpu) else { continue };
            weights.check(&graph).unwrap();
            // With checksums, an undetected change touched nothing that was read.
            if name == "vgg.pth" {
                let (whole, _) = import_weights(&file(name), &graph, &rules, Device::Cpu).unwrap();
                for (name, tensor) in whole.iter() {
                    prop_assert_eq!(weights.get(name).unwrap(), tensor, "byte {} as {}: {}", place, value, name);
                }
            }
        }
    }
}
