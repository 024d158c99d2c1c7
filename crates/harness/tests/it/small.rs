//! Small versions of the studies at the paper's scale: the same nets, methods and recipes on generated images of 32×32, in the
//! folder layout of the real data, with weight files as PyTorch would write them.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use tch::{Device, Tensor};
use thinet_data::DatasetSpec;
use thinet_harness::study::Spec;
use thinet_models::{Layout, Net, Weights, export_weights};
use thinet_nets::{Arch, NetSpec, ResNetStride};
use thinet_seed::Seed;

use crate::photographs::{self, photograph};

/// Classes of the generated part of ImageNet.
const CLASSES: usize = 10;
/// Width and height of the generated photographs.
const SIZE: [u32; 2] = [48, 40];

/// A copy of the spec for [`data`], its weights beside it.
pub(crate) fn spec(file: &Path, scratch: &Path) -> PathBuf {
    let mut spec: toml::Table = fs::read_to_string(file).unwrap().parse().unwrap();
    let dataset = spec["dataset"].as_table_mut().unwrap();
    dataset.insert("side".into(), 36.into());
    dataset.insert("crop".into(), 32.into());
    if dataset["kind"].as_str() == Some("imagenet") {
        dataset.insert("classes".into(), (CLASSES as i64).into());
    }
    spec["calibration"]["images-per-class"] = 1.into();
    spec["calibration"]["positions-per-image"] = 2.into();
    small_batches(&mut spec);
    let weights = spec["dense"]["weights"].as_str().unwrap().to_owned();
    let folder = scratch.join("experiments/small");
    fs::create_dir_all(&folder).unwrap();
    let path = folder.join(file.file_name().unwrap());
    fs::write(&path, toml::to_string(&spec).unwrap()).unwrap();
    weight_file(&Spec::read(&path).unwrap(), &folder.join(weights));
    path
}

/// A copy of a spec with batches of 4 images, as a batch of a net of full width takes seconds here.
pub(crate) fn with_small_batches(file: &Path, folder: &Path) -> PathBuf {
    let mut spec: toml::Table = fs::read_to_string(file).unwrap().parse().unwrap();
    small_batches(&mut spec);
    let path = folder.join(file.file_name().unwrap());
    fs::write(&path, toml::to_string(&spec).unwrap()).unwrap();
    path
}

/// Sets every recipe's batch to 4.
fn small_batches(spec: &mut toml::Table) {
    fn walk(value: &mut toml::Value) {
        match value {
            toml::Value::Table(table) => {
                for (key, value) in table.iter_mut() {
                    if key == "batch" {
                        *value = 4.into();
                    } else {
                        walk(value);
                    }
                }
            }
            toml::Value::Array(values) => values.iter_mut().for_each(walk),
            _ => {}
        }
    }
    for (_, value) in spec.iter_mut() {
        walk(value);
    }
}

/// What the spec reads: a dense net of random weights under torchvision's names that always says class 0.
fn weight_file(spec: &Spec, path: &Path) {
    let (net, layout) = match spec.net.arch {
        // The GAP nets, too, start from the weights of VGG-16.
        Arch::Vgg16 | Arch::Vgg16Gap => (NetSpec::new(Arch::Vgg16), Layout::Torchvision),
        _ => match spec.net.stride {
            Some(ResNetStride::First1x1) => (spec.net.clone(), Layout::Caffe),
            _ => (spec.net.clone(), Layout::Torchvision),
        },
    };
    let classes = if spec.net.arch == Arch::Resnet50 || spec.dense.train.is_none() { CLASSES } else { 1000 };
    let graph = net.build([3, 32, 32], classes).unwrap();
    let mut weights = Weights::init(&graph, Seed::root(0), Device::Cpu).unwrap();
    let bias = graph.tensors().last().unwrap().name.clone();
    assert!(bias.ends_with(".bias"));
    let mut values = vec![0.0_f32; classes];
    values[0] = 2.0;
    let weight = bias.replace(".bias", ".weight");
    let faint = weights.get(&weight).unwrap() * 0.01;
    weights.insert(weight, faint);
    weights.insert(bias, Tensor::from_slice(&values));
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    export_weights(path, &Net { graph, weights }, layout, &BTreeMap::new()).unwrap();
    // Without our graph, as in files of other programs.
    let (tensors, _) = thinet_models::load_tensors(path, Device::Cpu).unwrap();
    let tensors: Vec<_> = tensors.into_iter().collect();
    thinet_models::save_tensors(path, &tensors, &BTreeMap::new()).unwrap();
}

/// Generated photographs in the layout of the spec's dataset. Half of ImageNet's validation images are of class 0.
pub(crate) fn data(spec: &Spec, scratch: &Path) -> PathBuf {
    match spec.dataset {
        DatasetSpec::Imagenet(_) => imagenet(&scratch.join("imagenet")),
        _ => cub200(&scratch.join("CUB_200_2011")),
    }
}

/// Ten classes of 20 training and 5 test photographs, enough for a batch of 128.
pub(crate) fn image_folder(folder: &Path) -> PathBuf {
    if !folder.is_dir() {
        for class in 0..10 {
            for i in 0..35 {
                let split = if i < 30 { "train" } else { "test" };
                photograph(&folder.join(format!("{split}/class{class}/{i:02}.jpg")), SIZE, 3 * class + i);
            }
        }
    }
    folder.to_owned()
}

pub(crate) fn imagenet(folder: &Path) -> PathBuf {
    if !folder.is_dir() {
        let val = |class| if class == 0 { CLASSES } else { 1 };
        photographs::imagenet(folder, CLASSES, 4, val, |_| SIZE);
    }
    folder.to_owned()
}

fn cub200(folder: &Path) -> PathBuf {
    if !folder.is_dir() {
        write_cub200(folder, |i, path| photograph(path, SIZE, i));
    }
    folder.to_owned()
}

/// Writes CUB-200's folder layout and index files: a training and a test image of each of the 200 classes, by `write_image`, which is
/// called with the image's number and path.
pub(crate) fn write_cub200(folder: &Path, write_image: impl Fn(usize, &Path)) {
    let mut files = [String::new(), String::new(), String::new()];
    for i in 0..400 {
        let (id, class) = (i + 1, i / 2 + 1);
        let name = format!("{class:03}.Bird/Bird_{i}.jpg");
        write_image(i, &folder.join("images").join(&name));
        for (text, value) in files.iter_mut().zip([name, class.to_string(), (i % 2).to_string()]) {
            text.push_str(&format!("{id} {value}\n"));
        }
    }
    for (text, name) in files.iter().zip(["images", "image_class_labels", "train_test_split"]) {
        fs::write(folder.join(format!("{name}.txt")), text).unwrap();
    }
}
