//! Weight files: what is saved is loaded, and what does not fit is refused by name.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use tch::{Device, Kind, Tensor};
use tempfile::TempDir;
use thinet_graph::Graph;
use thinet_models::{
    MemoryFormat, Net, Weights, load_net, load_tensors, load_weights, save_net, save_tensors,
};
use thinet_nets::{Arch, NetSpec};

use crate::nets::{net, tiny};

fn folder() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("net.safetensors");
    (folder, path)
}

fn assert_equal(a: &Weights, b: &Weights) {
    assert!(a.iter().map(|(name, _)| name).eq(b.iter().map(|(name, _)| name)));
    for (name, tensor) in a.iter() {
        assert_eq!(tensor, b.get(name).unwrap(), "{name}");
    }
}

fn save(path: &Path, weights: &Weights) {
    let tensors: Vec<(&str, &Tensor)> = weights.iter().collect();
    save_tensors(path, &tensors, &BTreeMap::new()).unwrap();
}

/// The error of loading these weights for the tiny net.
fn refusal(weights: &Weights, graph: &Graph) -> String {
    let (_folder, path) = folder();
    save(&path, weights);
    let error = load_weights(&path, graph, Device::Cpu).unwrap_err().to_string();
    assert!(error.starts_with(&path.display().to_string()), "{error}");
    error
}

#[test]
fn a_net_comes_back_with_its_graph_and_metadata() {
    let metadata =
        BTreeMap::from([("run".to_owned(), "a1".to_owned()), ("kept".to_owned(), "[0]".to_owned())]);
    for arch in Arch::ALL {
        let spec = NetSpec { width: if arch == Arch::Tiny { 1.0 } else { 0.0625 }, ..NetSpec::new(arch) };
        let net = net(&spec, [3, 32, 32]);
        let (folder, path) = folder();
        save_net(&path, &net, &metadata).unwrap();
        let (loaded, found) = load_net(&path, Device::Cpu).unwrap();
        assert_eq!((&loaded.graph, &found), (&net.graph, &metadata));
        assert_equal(&loaded.weights, &net.weights);
        assert_equal(&load_weights(&path, &net.graph, Device::Cpu).unwrap(), &net.weights);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "no temporary file stays");
    }
}

#[test]
fn the_same_net_gives_the_same_bytes_in_any_memory_format() {
    let metadata: BTreeMap<String, String> = (0..20).map(|i| (format!("key{i}"), format!("{i}"))).collect();
    let bytes = |format: MemoryFormat| {
        let (_folder, path) = folder();
        let Net { graph, weights } = tiny();
        let weights = weights.to_format(format).unwrap();
        save_net(&path, &Net { graph, weights }, &metadata).unwrap();
        fs::read(path).unwrap()
    };
    let first = bytes(MemoryFormat::Contiguous);
    assert_eq!(first, bytes(MemoryFormat::Contiguous));
    assert_eq!(first, bytes(MemoryFormat::ChannelsLast));
}

#[test]
fn tensors_of_all_kinds_come_back() {
    let (_folder, path) = folder();
    let tensors = [
        ("b", Tensor::from_slice(&[1.5f32, -2.0, 3.25])),
        ("a", Tensor::from_slice(&[1e-300f64]).view([1, 1])),
        ("c", Tensor::from_slice(&[i64::MAX, i64::MIN])),
        ("empty", Tensor::zeros([0, 3], (Kind::Float, Device::Cpu))),
    ];
    let metadata = BTreeMap::from([("é\"".to_owned(), "\n".to_owned())]);
    save_tensors(&path, &tensors, &metadata).unwrap();
    let (loaded, found) = load_tensors(&path, Device::Cpu).unwrap();
    assert_eq!(found, metadata);
    assert_eq!(loaded.len(), tensors.len());
    for (name, tensor) in &tensors {
        assert_eq!((loaded[*name].kind(), loaded[*name].size()), (tensor.kind(), tensor.size()));
        assert_eq!(loaded[*name], *tensor);
    }
}

#[test]
fn repeated_names_and_other_types_are_not_saved() {
    let (folder, path) = folder();
    let one = || Tensor::from_slice(&[1f32]);
    let error = save_tensors(&path, &[("a", one()), ("a", one())], &BTreeMap::new()).unwrap_err().to_string();
    assert!(error.contains("two tensors are called \"a\""), "{error}");
    let half = [("h", one().to_kind(Kind::Half))];
    let error = save_tensors(&path, &half, &BTreeMap::new()).unwrap_err().to_string();
    assert!(error.contains("tensor \"h\" is f16 [1]"), "{error}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn weights_of_another_width_are_refused_by_layer() {
    let wider = NetSpec { width: 2.0, ..NetSpec::new(Arch::Tiny) };
    let error = refusal(&net(&wider, [3, 8, 8]).weights, &tiny().graph);
    let expected =
        "layer \"conv1\": tensor \"conv1.weight\" should be f32 [8, 3, 3, 3], found f32 [16, 3, 3, 3]";
    assert!(error.ends_with(expected), "{error}");
}

#[test]
fn a_size_of_one_is_not_stretched() {
    let Net { graph, mut weights } = tiny();
    weights.insert("bn2.bias", Tensor::from_slice(&[0.5f32]));
    let error = refusal(&weights, &graph);
    assert!(error.ends_with("tensor \"bn2.bias\" should be f32 [12], found f32 [1]"), "{error}");
}

#[test]
fn weights_of_another_type_are_refused() {
    let Net { graph, mut weights } = tiny();
    let double = weights.get("fc.weight").unwrap().to_kind(Kind::Double);
    weights.insert("fc.weight", double);
    let error = refusal(&weights, &graph);
    assert!(error.contains("layer \"fc\"") && error.ends_with("found f64 [5, 256]"), "{error}");
}

#[test]
fn missing_and_strange_tensors_are_refused() {
    let Net { graph, weights } = tiny();
    let without: Weights = weights.into_iter().filter(|(name, _)| name != "bn3.running_var").collect();
    let error = refusal(&without, &graph);
    let expected = "layer \"bn3\": tensor \"bn3.running_var\" is missing, expected f32 [16]";
    assert!(error.ends_with(expected), "{error}");

    let Net { graph, mut weights } = tiny();
    weights.insert("conv1.bias", Tensor::from_slice(&[0f32; 8]));
    let error = refusal(&weights, &graph);
    assert!(error.ends_with("tensor \"conv1.bias\" (f32 [8]) belongs to no layer of tiny"), "{error}");
}

#[test]
fn a_truncated_file_is_refused_at_every_length() {
    let (_folder, path) = folder();
    save_net(&path, &tiny(), &BTreeMap::new()).unwrap();
    let bytes = fs::read(&path).unwrap();
    for length in (0..bytes.len()).step_by(97).chain([bytes.len() - 1]) {
        fs::write(&path, &bytes[..length]).unwrap();
        let error = load_net(&path, Device::Cpu).unwrap_err().to_string();
        assert!(error.contains("is not a whole safetensors file"), "{length}: {error}");
    }
    fs::write(&path, [&bytes[..], &[0]].concat()).unwrap();
    assert!(load_net(&path, Device::Cpu).is_err(), "a byte too many");
}

#[test]
fn files_of_other_kinds_are_refused() {
    let (folder, path) = folder();
    fs::write(&path, b"PK\x03\x04 this is a zip file, as torch.save writes them").unwrap();
    let error = load_net(&path, Device::Cpu).unwrap_err().to_string();
    assert!(error.contains("net.safetensors: is not a whole safetensors file"), "{error}");

    save(&path, &tiny().weights);
    let error = load_net(&path, Device::Cpu).unwrap_err().to_string();
    assert!(error.ends_with("holds no graph in its metadata, so it is no net of ours"), "{error}");

    let wrong = BTreeMap::from([("graph".to_owned(), "{\"name\": \"x\", \"nodes\": 3}".to_owned())]);
    save_tensors::<&str, Tensor>(&path, &[], &wrong).unwrap();
    let error = load_net(&path, Device::Cpu).unwrap_err().to_string();
    assert!(error.contains("holds a wrong graph: "), "{error}");

    let error = load_net(&folder.path().join("none"), Device::Cpu).unwrap_err().to_string();
    assert!(error.starts_with("cannot read ") && error.contains("none"), "{error}");
    let error = load_net(folder.path(), Device::Cpu).unwrap_err().to_string();
    assert!(error.starts_with("cannot read "), "{error}");
}

#[test]
fn a_file_that_cannot_be_written_leaves_the_old_one() {
    let (folder, path) = folder();
    let error = save_net(&folder.path().join("no/such/folder"), &tiny(), &BTreeMap::new()).unwrap_err();
    assert!(error.to_string().starts_with("cannot write "), "{error}");

    save_net(&path, &tiny(), &BTreeMap::new()).unwrap();
    let before = fs::read(&path).unwrap();
    let Net { graph, mut weights } = tiny();
    weights.insert("conv1.weight", Tensor::from_slice(&[0f32]));
    assert!(save_net(&path, &Net { graph, weights }, &BTreeMap::new()).is_err());
    let own = BTreeMap::from([("graph".to_owned(), String::new())]);
    assert!(save_net(&path, &tiny(), &own).is_err());
    assert_eq!(fs::read(&path).unwrap(), before);
}
