//! Checkpoints assembled by hand: the output of old versions of `torch.save`, and malicious files.

use std::io::Write as _;
use std::path::PathBuf;

use tempfile::TempDir;

use super::torch_file::{Checkpoint, Entry};

fn text(text: &str) -> Vec<u8> {
    [b"X", &(text.len() as u32).to_le_bytes()[..], text.as_bytes()].concat()
}

/// A whole number of 8 bytes.
fn int(number: usize) -> Vec<u8> {
    [&[0x8a, 8][..], &(number as u64).to_le_bytes()].concat()
}

fn tuple(items: &[Vec<u8>]) -> Vec<u8> {
    [b"(", &items.concat()[..], b"t"].concat()
}

/// A reference to a storage; `view` is its sixth part.
fn storage(class: &str, key: &str, len: usize, view: &[u8]) -> Vec<u8> {
    let class = format!("ctorch\n{class}\n").into_bytes();
    let id = tuple(&[text("storage"), class, text(key), text("cpu"), int(len), view.to_vec()]);
    [&id[..], b"Q"].concat()
}

fn tensor(storage: Vec<u8>, offset: usize, shape: &[usize]) -> Vec<u8> {
    let mut stride: Vec<usize> =
        shape.iter().rev().scan(1_usize, |n, d| Some(std::mem::replace(n, n.wrapping_mul(*d)))).collect();
    stride.reverse();
    let sizes = |sizes: &[usize]| tuple(&sizes.iter().copied().map(int).collect::<Vec<_>>());
    let arguments = tuple(&[storage, int(offset), sizes(shape), sizes(&stride), b"\x89N".to_vec()]);
    [b"ctorch._utils\n_rebuild_tensor_v2\n", &arguments[..], b"R"].concat()
}

fn dict(entries: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let entries: Vec<Vec<u8>> =
        entries.iter().map(|(name, value)| [text(name), value.clone()].concat()).collect();
    [b"}(", &entries.concat()[..], b"u"].concat()
}

/// What the import of a file says about a net.
fn import_says(bytes: &[u8]) -> String {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("net.pth");
    std::fs::write(&path, bytes).unwrap();
    let graph = thinet_nets::NetSpec::new(thinet_nets::Arch::Tiny).build([1, 16, 16], 3).unwrap();
    let error = crate::check_import(&path, &graph, &crate::ImportRules::default()).unwrap_err().to_string();
    error.replace(&path.display().to_string(), "FILE")
}

#[test]
fn an_empty_state_dict_is_called_that() {
    assert_eq!(import_says(&stream(b"}", &[])), "FILE: holds no tensors");
    let wrapped = stream(&dict(&[("state_dict", b"}".to_vec())]), &[]);
    assert_eq!(import_says(&wrapped), "FILE: holds no tensors under \"state_dict\"");
    let header = b"{}      ";
    let safetensors = [&(header.len() as u64).to_le_bytes()[..], header].concat();
    assert_eq!(import_says(&safetensors), "FILE: holds no tensors");
}

fn pickled(value: &[u8]) -> Vec<u8> {
    [b"\x80\x02", value, b"."].concat()
}

/// The stream of old versions; a storage is its key, its number of elements and its bytes.
fn stream(object: &[u8], storages: &[(&str, usize, Vec<u8>)]) -> Vec<u8> {
    let keys: Vec<Vec<u8>> = storages.iter().map(|(key, ..)| text(key)).collect();
    let mut file = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.".to_vec();
    file.extend(b"\x80\x02M\xe9\x03.");
    file.extend(pickled(b"}"));
    file.extend(pickled(object));
    file.extend(pickled(&[b"](", &keys.concat()[..], b"e"].concat()));
    for (_, count, bytes) in storages {
        file.extend((*count as u64).to_le_bytes());
        file.extend(bytes);
    }
    file
}

fn zip(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut writer = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let options = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    for (name, bytes) in members {
        writer.start_file(*name, options).unwrap();
        writer.write_all(bytes).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

fn floats(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

fn open(bytes: &[u8]) -> Result<(TempDir, Checkpoint), String> {
    let folder = tempfile::tempdir().unwrap();
    let path: PathBuf = folder.path().join("a.pth");
    std::fs::write(&path, bytes).unwrap();
    let opened =
        Checkpoint::open(&path, None).map_err(|e| e.to_string().replacen(path.to_str().unwrap(), "", 1));
    opened.map(|checkpoint| (folder, checkpoint))
}

/// The numbers of the first tensor, or the error.
fn first(bytes: &[u8]) -> Result<Vec<f32>, String> {
    let (_folder, mut checkpoint) = open(bytes)?;
    let entry: Entry = checkpoint.entries[0].1.clone();
    let bytes = checkpoint.read(&entry)?;
    Ok(bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect())
}

const SIX: [f32; 6] = [0.0, 1.0, 2.0, 3.0, 4.0, 5.0];

#[test]
fn views_of_storages_in_old_streams_are_taken_where_they_lie() {
    let of = |view: &[Vec<u8>], offset| {
        let object = dict(&[("w", tensor(storage("FloatStorage", "7", 6, &tuple(view)), offset, &[2]))]);
        first(&stream(&object, &[("7", 6, floats(&SIX))]))
    };
    let view = |offset, len| [text("8"), int(offset), int(len)];
    assert_eq!(of(&view(2, 3), 0).unwrap(), [2.0, 3.0]);
    assert_eq!(of(&view(2, 3), 1).unwrap(), [3.0, 4.0]);
    assert_eq!(of(&view(2, 3), 2).unwrap_err(), "reaches element 4 of a storage of 3");
    for (offset, len) in [(4, 3), (usize::MAX >> 1, 3), (3, usize::MAX >> 1)] {
        let error = of(&view(offset, len), 0).unwrap_err();
        assert_eq!(error, ": has a view beyond the end of storage 7");
    }
    let error = of(&view(2, 3)[..2], 0).unwrap_err();
    assert_eq!(error, ": refers to a storage in a way that PyTorch does not");
}

#[test]
fn a_storage_under_two_types_or_lengths_is_refused() {
    for (class, len, problem) in [
        ("LongStorage", 6, ": uses storage 0 as 6 elements of f32 and as 6 of i64"),
        ("FloatStorage", 3, ": uses storage 0 as 6 elements of f32 and as 3 of f32"),
    ] {
        let first_one = tensor(storage("FloatStorage", "0", 6, b"N"), 0, &[6]);
        let object = dict(&[("w", first_one), ("v", tensor(storage(class, "0", len, b"N"), 0, &[3]))]);
        let of_stream = first(&stream(&object, &[("0", 6, floats(&SIX))])).unwrap_err();
        let of_zip =
            first(&zip(&[("a/data.pkl", &pickled(&object)), ("a/data/0", &floats(&SIX))])).unwrap_err();
        assert_eq!((of_stream.as_str(), of_zip.as_str()), (problem, problem));
    }
    let object = dict(&[("w", tensor(storage("FloatStorage", "0", 6, b"N"), 0, &[6]))]);
    let twice = stream(&object, &[("0", 6, floats(&SIX)), ("0", 6, floats(&SIX))]);
    assert_eq!(first(&twice).unwrap_err(), ": has storage 0 twice");
    let object = dict(&[("w", tensor(storage("QInt8Storage", "0", 6, b"N"), 0, &[6]))]);
    let unknown = first(&stream(&object, &[("0", 6, floats(&SIX))])).unwrap_err();
    assert_eq!(unknown, ": has a storage of the kind torch.QInt8Storage, which is not read");
}

#[test]
fn sizes_that_no_machine_can_hold_are_errors_and_no_overflow() {
    for (len, offset, shape) in [
        (usize::MAX >> 1, (usize::MAX >> 1) - 4, &[2][..]),
        (usize::MAX >> 1, (usize::MAX >> 2) + 1, &[2]),
        (6, 0, &[usize::MAX >> 1, 4]),
        (6, usize::MAX >> 1, &[usize::MAX >> 1]),
    ] {
        let object = dict(&[("w", tensor(storage("FloatStorage", "0", len, b"N"), offset, shape))]);
        let pickle = pickled(&object);
        assert!(first(&zip(&[("a/data.pkl", &pickle), ("a/data/0", &floats(&SIX))])).is_err());
        assert!(first(&stream(&object, &[("0", len, floats(&SIX))])).is_err());
    }
}

#[test]
fn values_that_are_nested_or_hold_themselves_cost_no_more_than_they_are() {
    let weights = tensor(storage("FloatStorage", "0", 6, b"N"), 0, &[6]);
    let nested = [&b"N"[..], &[0x85; 1_000_000]].concat();
    // A list of a thousand times itself, in a list of a thousand times that.
    let knot = [&b"]q\x00("[..], &b"h\x00".repeat(1000), b"e]q\x01(", &b"h\x00h\x01".repeat(1000), b"e\x86"]
        .concat();
    for value in [nested, knot] {
        let object = dict(&[("w", weights.clone()), ("losses", value)]);
        let error = first(&stream(&object, &[("0", 6, floats(&SIX))])).unwrap_err();
        assert_eq!(error, ": \"losses\" is a list, expected a tensor");
    }
}

#[test]
fn damage_inside_a_zip_is_found_by_its_checksums() {
    let object = pickled(&dict(&[("w", tensor(storage("FloatStorage", "0", 6, b"N"), 1, &[2]))]));
    let good = zip(&[("a/data.pkl", &object), ("a/data/0", &floats(&SIX)), ("a/byteorder", b"little")]);
    assert_eq!(first(&good).unwrap(), [1.0, 2.0]);
    let flipped = |what: &[u8]| {
        let place = good.windows(what.len()).position(|window| window == what).unwrap();
        let mut bytes = good.clone();
        bytes[place] ^= 1;
        first(&bytes).unwrap_err()
    };
    // Damage outside the numbers that the tensor needs counts, too.
    let damaged = "a/data/0 does not fit its checksum: the file is damaged";
    assert_eq!(flipped(&floats(&[5.0])), damaged);
    assert_eq!(flipped(&floats(&[1.0])), damaged);
    assert_eq!(flipped(b"FloatStorage"), ": a/data.pkl does not fit its checksum: the file is damaged");
    assert_eq!(flipped(b"little"), ": a/byteorder does not fit its checksum: the file is damaged");
}

#[test]
fn contradictory_archives_are_refused() {
    let object = pickled(&dict(&[("w", tensor(storage("FloatStorage", "0", 6, b"N"), 0, &[6]))]));
    let two = zip(&[("a/data.pkl", &object), ("b/data.pkl", &object)]);
    assert_eq!(
        first(&two).unwrap_err(),
        ": is a zip archive with a/data.pkl and b/data.pkl; torch.save writes one"
    );
    let program = zip(&[("a/data.pkl", &object), ("a/constants.pkl", b"")]);
    assert!(first(&program).unwrap_err().contains("TorchScript"));
    // The writer refuses duplicate names, so one of two names is changed afterwards.
    let mut twice = zip(&[("a/data.pkl", &object), ("a/data/0", &floats(&SIX)), ("a/data/1", &floats(&SIX))]);
    for place in 0..twice.len() - 8 {
        if &twice[place..place + 8] == b"a/data/1" {
            twice[place + 7] = b'0';
        }
    }
    assert_eq!(first(&twice).unwrap_err(), ": is a zip archive with two members of one name");
    let names = dict(&[
        ("w", tensor(storage("FloatStorage", "0", 6, b"N"), 0, &[6])),
        ("w", tensor(storage("FloatStorage", "0", 6, b"N"), 1, &[5])),
    ]);
    assert_eq!(first(&stream(&names, &[("0", 6, floats(&SIX))])).unwrap_err(), ": has \"w\" twice");
}

#[test]
fn a_whole_model_is_called_that() {
    let class = tuple(&[text("module"), b"cmy.nets\nNet\n".to_vec(), text("nets.py"), text("class Net: …")]);
    let object = [&class[..], b"Q)\x81}(", &text("training"), b"\x88ub"].concat();
    let expected = ": holds an object of my.nets.Net, expected a dictionary of tensors (a state dict): save model.state_dict(), not the model";
    assert_eq!(first(&stream(&object, &[])).unwrap_err(), expected);
    let in_zip = [&b"cmy.nets\nNet\n)\x81}("[..], &text("training"), b"\x88ub"].concat();
    assert_eq!(first(&zip(&[("a/data.pkl", &pickled(&in_zip))])).unwrap_err(), expected);
}
