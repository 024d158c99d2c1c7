//! Checkpoints as found in practice (golden/make_wild_checkpoints.py): names of any length, wrappers, prefixes, averages,
//! and files that are no checkpoints.

use std::io::Read as _;
use std::path::Path;

use tch::{Device, Tensor};
use thinet_models::{
    FileType, ImportReport, ImportRules, Weights, check_import, import_weights, load_tensors, save_tensors,
};
use thinet_nets::{Arch, NetSpec};

use crate::checkpoints::{assert_same_logits, file, vgg};

fn imported(name: &str, rules: &ImportRules) -> (Weights, ImportReport) {
    import_weights(&file(name), &vgg(false), rules, Device::Cpu).unwrap_or_else(|e| panic!("{name}: {e}"))
}

/// The error's text without the folder.
fn refusal(path: &Path, rules: &ImportRules) -> String {
    let error = import_weights(path, &vgg(false), rules, Device::Cpu).unwrap_err().to_string();
    error.replace(&format!("{}/", path.parent().unwrap().display()), "")
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg()))
    })
}

/// A zip archive in the layout of `torch.save`: data aligned to 64 bytes by extra fields, a descriptor behind each member,
/// and zip64 records behind the directory.
fn torch_zip(members: &[(String, Vec<u8>)]) -> Vec<u8> {
    let (mut file, mut directory) = (Vec::new(), Vec::new());
    for (name, bytes) in members {
        let offset = file.len() as u32;
        let padding = (64 - (file.len() + 30 + name.len() + 4) % 64) % 64;
        let (crc, size) = (crc32(bytes).to_le_bytes(), (bytes.len() as u32).to_le_bytes());
        let name_len = (name.len() as u16).to_le_bytes();
        // Checksum and sizes stand in the descriptor and in the directory.
        let common = |known: [[u8; 4]; 3]| [&[0, 0, 8, 8][..], &[0; 6], &known.concat(), &name_len].concat();
        let padding_len = (padding as u16).to_le_bytes();
        file.extend([&b"PK\x03\x04"[..], &common([[0; 4]; 3]), &(padding as u16 + 4).to_le_bytes()].concat());
        file.extend([name.as_bytes(), b"FB", &padding_len, &vec![b'Z'; padding]].concat());
        file.extend([bytes, &b"PK\x07\x08"[..], &crc, &size, &size].concat());
        directory.extend([&b"PK\x01\x02\0\0"[..], &common([crc, size, size]), &[0; 12]].concat());
        directory.extend([&offset.to_le_bytes()[..], name.as_bytes()].concat());
    }
    let (start, size, count) = (file.len() as u64, directory.len() as u64, members.len() as u64);
    file.extend(&directory);
    let end = file.len() as u64;
    file.extend([&b"PK\x06\x06"[..], &44_u64.to_le_bytes(), &[0x1e, 3, 0x2d, 0], &[0; 8]].concat());
    file.extend([count, count, size, start].iter().flat_map(|n| n.to_le_bytes()));
    file.extend([&b"PK\x06\x07\0\0\0\0"[..], &end.to_le_bytes(), &[1, 0, 0, 0]].concat());
    let (count, size, start) = ((count as u16).to_le_bytes(), (size as u32).to_le_bytes(), start as u32);
    file.extend([&b"PK\x05\x06\0\0\0\0"[..], &count, &count, &size, &start.to_le_bytes(), &[0, 0]].concat());
    file
}

#[test]
fn archives_are_read_whatever_the_length_of_their_name() {
    let mut archive = zip::ZipArchive::new(std::fs::File::open(file("vgg.pth")).unwrap()).unwrap();
    let mut members = Vec::new();
    for index in 0..archive.len() {
        let mut member = archive.by_index(index).unwrap();
        let mut bytes = Vec::new();
        member.read_to_end(&mut bytes).unwrap();
        members.push((member.name().unwrap().strip_prefix("vgg/").unwrap().to_owned(), bytes));
    }
    let named = |name: &str| -> Vec<_> {
        members.iter().map(|(member, bytes)| (format!("{name}/{member}"), bytes.clone())).collect()
    };
    let torchs = std::fs::read(file("vgg.pth")).unwrap();
    assert!(torch_zip(&named("vgg")) == torchs, "the archive is not laid out as torch.save does");
    let (expected, _) = imported("vgg.pth", &ImportRules::default());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("net.pth");
    for len in 1..=64 {
        std::fs::write(&path, torch_zip(&named(&"n".repeat(len)))).unwrap();
        let found = import_weights(&path, &vgg(false), &ImportRules::default(), Device::Cpu);
        let (weights, _) = found.unwrap_or_else(|e| panic!("a name of {len} letters: {e}"));
        assert_equal(&weights, &expected);
    }
}

fn assert_equal(weights: &Weights, expected: &Weights) {
    assert_eq!(weights.iter().len(), expected.iter().len());
    for (name, tensor) in expected.iter() {
        assert_eq!(weights.get(name).unwrap(), tensor, "{name}");
    }
}

#[test]
fn what_people_have_gives_pytorchs_logits() {
    for (name, container, wrapper, prefix) in [
        ("names-of-21-letters-x.pth", "zip", None, None),
        ("vgg-protocol5.pth", "zip", None, None),
        ("vgg-no-checksums.pth", "zip", None, None),
        ("vgg-old-protocol1.pth", "stream", None, None),
        ("vgg-old-protocol3.pth", "stream", None, None),
        ("vgg-old-protocol4.pth", "stream", None, None),
        ("vgg-old-protocol5.pth", "stream", None, None),
        ("vgg-net.pth", "zip", Some("net"), None),
        ("vgg-averaged.pth", "zip", None, Some("module.")),
        ("vgg-ema.pth", "zip", Some("state_dict"), None),
        ("vgg-lightning.ckpt", "zip", Some("state_dict"), Some("model.")),
        ("vgg-compiled.pth", "zip", Some("model"), Some("_orig_mod.module.")),
    ] {
        let (weights, report) = imported(name, &ImportRules::default());
        assert_same_logits(&vgg(false), &weights, "vgg");
        let found = (report.container, report.wrapper.as_deref(), report.prefix.as_deref());
        assert_eq!(found, (container, wrapper, prefix), "{name}");
    }
}

#[test]
fn the_report_says_which_weights_were_taken_and_how_to_take_others() {
    let lines = |name: &str| imported(name, &ImportRules::default()).1.lines().join("\n");
    let averaged = lines("vgg-averaged.pth");
    assert!(averaged.contains("the weights are a running average of a training (n_averaged)"), "{averaged}");
    let unchecked = lines("vgg-no-checksums.pth");
    assert!(unchecked.contains("written without checksums"), "{unchecked}");
    let beside = lines("vgg-ema.pth");
    let offer = "the weights under \"state_dict\" were taken; there are others under \"state_dict_ema\": dense.import.key = \"state_dict_ema\" takes those";
    assert!(beside.contains(offer), "{beside}");
    let rules = ImportRules { key: Some("state_dict_ema".to_owned()), ..ImportRules::default() };
    let (average, report) = imported("vgg-ema.pth", &rules);
    assert_eq!(report.wrapper.as_deref(), Some("state_dict_ema"));
    let (plain, _) = imported("vgg-ema.pth", &ImportRules::default());
    assert_eq!(*average.get("fc8.weight").unwrap(), plain.get("fc8.weight").unwrap() * 0.5);
}

#[test]
fn a_key_decides_between_dictionaries() {
    let rules = |key: &str| ImportRules { key: Some(key.to_owned()), ..ImportRules::default() };
    assert_same_logits(&vgg(false), &imported("vgg-twice.pth", &rules("model")).0, "vgg");
    let wrong = refusal(&file("vgg-ema.pth"), &rules("ema"));
    let expected = "vgg-ema.pth: holds no dictionary under dense.import.key = \"ema\"; dictionaries of tensors: \"state_dict\", \"state_dict_ema\"";
    assert_eq!(wrong, expected);
    let meaningless = refusal(&file("vgg.safetensors"), &rules("model"));
    assert!(meaningless.ends_with("dense.import.key = \"model\" has no meaning"), "{meaningless}");
}

/// The weights of `vgg.safetensors` under other names.
fn renamed(path: &Path, rename: impl Fn(&str) -> Vec<String>) {
    let (tensors, metadata) = load_tensors(&file("vgg.safetensors"), Device::Cpu).unwrap();
    let renamed: Vec<(String, &Tensor)> = tensors
        .iter()
        .flat_map(|(name, tensor)| rename(name).into_iter().map(move |name| (name, tensor)))
        .collect();
    save_tensors(path, &renamed, &metadata).unwrap();
}

#[test]
fn prefixes_are_taken_off_or_the_key_that_does_it_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("net.safetensors");
    for prefix in [
        "module.",
        "_orig_mod.",
        "module._orig_mod.",
        "_orig_mod.module.",
        "model.",
        "module.model._orig_mod.",
    ] {
        renamed(&path, |name| vec![format!("{prefix}{name}")]);
        let report = check_import(&path, &vgg(false), &ImportRules::default()).unwrap();
        assert_eq!(report.prefix.as_deref(), Some(prefix));
    }
    let with = |prefix: &str| ImportRules { prefix: Some(prefix.to_owned()), ..ImportRules::default() };
    // Another one is named, not guessed.
    renamed(&path, |name| vec![format!("backbone.body.{name}")]);
    let unknown = refusal(&path, &ImportRules::default());
    assert!(
        unknown.ends_with("; dense.import.prefix = \"backbone.body.\" takes the names that begin so"),
        "{unknown}"
    );
    assert_eq!(check_import(&path, &vgg(false), &with("backbone.body.")).unwrap().taken, 32);
    let wrong = refusal(&path, &with("body."));
    assert!(
        wrong.contains("no name that starts with dense.import.prefix = \"body.\"; the first is \"backbone."),
        "{wrong}"
    );
    // Something beside the net.
    renamed(&path, |name| match name {
        "features.0.bias" => vec![format!("model.{name}"), "criterion.weight".to_owned()],
        _ => vec![format!("model.{name}")],
    });
    let mixed = refusal(&path, &ImportRules::default());
    assert!(mixed.contains("\"criterion.weight\" has not: dense.import.prefix = \"model.\""), "{mixed}");
    let report = check_import(&path, &vgg(false), &with("model.")).unwrap();
    assert_eq!((report.ignored.as_slice(), report.taken), (&["criterion.weight".to_owned()][..], 32));
    let ignore = ImportRules { ignore: vec!["criterion.".to_owned()], ..ImportRules::default() };
    assert_eq!(check_import(&path, &vgg(false), &ignore).unwrap().taken, 32);
    // Averages beside the weights.
    renamed(&path, |name| vec![format!("model.{name}"), format!("model_ema.module.{name}")]);
    let report = check_import(&path, &vgg(false), &ImportRules::default()).unwrap();
    assert_eq!((report.prefix.as_deref(), report.taken, report.ignored.len()), (Some("model."), 32, 32));
    assert!(
        report.notes[0].contains("dense.import.prefix = \"model_ema.\" takes that"),
        "{:?}",
        report.notes
    );
    let report = check_import(&path, &vgg(false), &with("model_ema.")).unwrap();
    assert_eq!((report.prefix.as_deref(), report.taken), (Some("model_ema.module."), 32));
}

#[test]
fn other_types_and_classes_name_the_key_that_takes_them() {
    let rules = ImportRules::default();
    let half = refusal(&file("half-vgg.pth"), &rules);
    assert!(half.ends_with("; dense.import.dtype = \"f16\" takes weights of this type"), "{half}");
    let f16 = ImportRules { dtype: FileType::F16, ..ImportRules::default() };
    let full = refusal(&file("vgg.pth"), &f16);
    assert!(full.ends_with("; dense.import.dtype = \"f32\" takes weights of this type"), "{full}");
    let graph = vgg(false);
    let widths = graph.nodes().iter().filter_map(|node| match node.op {
        thinet_graph::Op::Conv { out_channels, .. } => Some((node.name.clone(), out_channels)),
        _ => None,
    });
    let widths = widths.chain([("fc6".to_owned(), 10), ("fc7".to_owned(), 10)]).collect();
    let graph = NetSpec { widths, ..NetSpec::new(Arch::Vgg16) }.build([3, 64, 64], 5).unwrap();
    let error = check_import(&file("vgg.pth"), &graph, &rules).unwrap_err().to_string();
    let advice = "; the file is for 7 classes, the net for 5: dense.import.fresh = [\"fc8\"] starts this layer at random, [dense.train] trains it";
    assert!(error.ends_with(advice), "{error}");
    let fresh = ImportRules { fresh: vec!["fc8".to_owned()], ..ImportRules::default() };
    assert_eq!(check_import(&file("vgg.pth"), &graph, &fresh).unwrap().taken, 30);
}

#[test]
fn weights_that_are_not_finite_are_called_that() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("net.safetensors");
    let damaged = |value: f64, kind| {
        let (mut tensors, metadata) = load_tensors(&file("vgg.safetensors"), Device::Cpu).unwrap();
        for tensor in tensors.values_mut() {
            *tensor = tensor.to_kind(kind);
        }
        let _ = tensors.get_mut("features.5.bias").unwrap().slice(0, 1, 3, 1).fill_(value);
        save_tensors(&path, &tensors.into_iter().collect::<Vec<_>>(), &metadata).unwrap();
    };
    for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        damaged(value, tch::Kind::Float);
        let expected = "net.safetensors: tensor \"features.5.bias\": 2 of 4 values are not finite (NaN or infinite): the training diverged, or the file is damaged";
        assert_eq!(refusal(&path, &ImportRules::default()), expected);
    }
    damaged(1e300, tch::Kind::Double);
    let rules = ImportRules { dtype: FileType::F64, ..ImportRules::default() };
    let expected =
        "net.safetensors: tensor \"features.5.bias\": 2 of 4 values are too large for 32-bit floats";
    assert_eq!(refusal(&path, &rules), expected);
}

#[test]
fn files_that_hold_no_weights_are_called_what_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("net.pth");
    let gzip = [&b"\x1f\x8b\x08\0\0\0\0\0\0\x03"[..], &[0; 64]].concat();
    for (bytes, words) in [
        (&b""[..], "net.pth: is empty"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 528\n",
            "net.pth: is a Git LFS pointer",
        ),
        (b"<!DOCTYPE html><html><title>Sign in</title></html>", "net.pth: is an HTML page"),
        (&gzip, "net.pth: is compressed with gzip"),
        (
            b"\x80\x04\x95\x05\0\0\0\0\0\0\0}\x94.",
            "net.pth: is a Python pickle that torch.save did not write",
        ),
    ] {
        std::fs::write(&path, bytes).unwrap();
        let error = refusal(&path, &ImportRules::default());
        assert!(error.starts_with(words), "{error}");
    }
    let deflated = refusal(&file("vgg-deflated.pth"), &ImportRules::default());
    let expected = "vgg-deflated.pth: vgg/byteorder is compressed or encrypted, which torch.save never does: load the file with torch.load and save it again with torch.save";
    assert_eq!(deflated, expected);
}
