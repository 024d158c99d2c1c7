//! The containers of `torch.save`: a zip archive (since PyTorch 1.6) and the stream before it.
//!
//! Zip: `<any folder>/data.pkl` with the object, `<any folder>/data/<key>` with the bytes of each storage. Stream: pickles
//! of a magic number, the protocol, the system and the object, the list of storage keys, then for each key the number of
//! elements (8 bytes, little-endian) and the elements.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::Path;
use std::rc::Rc;

use super::pickle::{self, TensorRef, Value};
use crate::ModelError;
use crate::file::bad_file;

/// 0x1950a86a20f9469cfc6c, as a pickle writes it.
const MAGIC: [u8; 10] = [0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];
const STREAM_PROTOCOL: i64 = 1001;
/// Keys under which training scripts put the state dict, in the order in which they are looked for.
const WRAPPERS: [&str; 3] = ["state_dict", "model", "model_state_dict"];

/// The element type of a storage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Element {
    F32,
    F64,
    F16,
    Bf16,
    I64,
    I32,
    I16,
    I8,
    U8,
    Bool,
}

impl Element {
    fn of_storage(name: &str) -> Option<Self> {
        Some(match name {
            "torch.FloatStorage" => Self::F32,
            "torch.DoubleStorage" => Self::F64,
            "torch.HalfStorage" => Self::F16,
            "torch.BFloat16Storage" => Self::Bf16,
            "torch.LongStorage" => Self::I64,
            "torch.IntStorage" => Self::I32,
            "torch.ShortStorage" => Self::I16,
            "torch.CharStorage" => Self::I8,
            "torch.ByteStorage" => Self::U8,
            "torch.BoolStorage" => Self::Bool,
            _ => return None,
        })
    }

    /// Bytes of an element.
    pub(crate) fn size(self) -> usize {
        match self {
            Self::F64 | Self::I64 => 8,
            Self::F32 | Self::I32 => 4,
            Self::F16 | Self::Bf16 | Self::I16 => 2,
            Self::I8 | Self::U8 | Self::Bool => 1,
        }
    }

    /// `f32`, `i64` and so on.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F64 => "f64",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
            Self::I64 => "i64",
            Self::I32 => "i32",
            Self::I16 => "i16",
            Self::I8 => "i8",
            Self::U8 => "u8",
            Self::Bool => "bool",
        }
    }
}

/// A tensor of a checkpoint, its numbers still in the file.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) element: Element,
    pub(crate) shape: Vec<usize>,
    stride: Vec<usize>,
    offset: usize,
    storage: Rc<str>,
    /// Elements of the storage, as the tensor's reference says.
    len: usize,
}

/// An opened checkpoint: names and shapes are known, numbers are read when they are asked for.
pub(crate) struct Checkpoint {
    /// `zip` or `stream`.
    pub(crate) container: &'static str,
    /// The key that the state dict was found under.
    pub(crate) wrapper: Option<&'static str>,
    /// The state dict, in its order.
    pub(crate) entries: Vec<(String, Entry)>,
    source: Source,
}

enum Source {
    Zip {
        archive: Box<zip::ZipArchive<BufReader<File>>>,
        folder: String,
    },
    /// Where the elements of each storage start, and how many there are.
    Stream {
        file: BufReader<File>,
        storages: BTreeMap<String, (u64, usize)>,
    },
}

/// Whether a file is one of the two containers, told by its first bytes.
pub(crate) fn is_checkpoint(start: &[u8]) -> bool {
    start.starts_with(b"PK\x03\x04")
        || (start.starts_with(b"\x80\x02\x8a\x0a") && start[4..].starts_with(&MAGIC))
}

impl Checkpoint {
    pub(crate) fn open(path: &Path) -> Result<Self, ModelError> {
        let bad = |problem: String| bad_file(path, problem);
        let io = |source| ModelError::Io { action: "read", path: path.to_owned(), source };
        let mut file = BufReader::new(File::open(path).map_err(io)?);
        let mut start = [0; 4];
        file.read_exact(&mut start).map_err(|_| bad("is no PyTorch checkpoint".to_owned()))?;
        file.seek(SeekFrom::Start(0)).map_err(io)?;
        let (object, source, container) = if start == *b"PK\x03\x04" {
            let (object, source) = open_zip(file).map_err(bad)?;
            (object, source, "zip")
        } else {
            let (object, source) = open_stream(file).map_err(bad)?;
            (object, source, "stream")
        };
        let (wrapper, dict) = state_dict(&object).map_err(bad)?;
        let entries = entries(&dict).map_err(bad)?;
        Ok(Self { container, wrapper, entries, source })
    }

    /// The tensor's bytes, row-major whatever its strides were.
    pub(crate) fn read(&mut self, entry: &Entry) -> Result<Vec<u8>, String> {
        let size = entry.element.size();
        let count = entry.shape.iter().try_fold(1_usize, |n, &d| n.checked_mul(d)).ok_or_else(too_large)?;
        if count == 0 {
            return Ok(Vec::new());
        }
        // One behind the last element that the strides reach.
        let reach = entry
            .shape
            .iter()
            .zip(&entry.stride)
            .try_fold(entry.offset, |sum, (&d, &s)| sum.checked_add((d - 1).checked_mul(s)?))
            .and_then(|last| last.checked_add(1))
            .ok_or_else(too_large)?;
        if reach > entry.len {
            return Err(format!("reaches element {reach} of a storage of {}", entry.len));
        }
        let bytes = self.storage(entry, entry.offset..reach)?;
        if is_contiguous(&entry.shape, &entry.stride) {
            return Ok(bytes);
        }
        let mut out = Vec::with_capacity(count.checked_mul(size).ok_or_else(too_large)?);
        let mut index = vec![0; entry.shape.len()];
        for _ in 0..count {
            let at: usize = index.iter().zip(&entry.stride).map(|(i, s)| i * s).sum();
            out.extend_from_slice(&bytes[at * size..][..size]);
            for axis in (0..index.len()).rev() {
                index[axis] += 1;
                if index[axis] < entry.shape[axis] {
                    break;
                }
                index[axis] = 0;
            }
        }
        Ok(out)
    }

    /// Some elements of a storage.
    fn storage(&mut self, entry: &Entry, range: std::ops::Range<usize>) -> Result<Vec<u8>, String> {
        let size = entry.element.size();
        let (start, len) = (range.start * size, range.len() * size);
        let cut_off = |e: std::io::Error| format!("storage {} is cut off: {e}", entry.storage);
        match &mut self.source {
            Source::Zip { archive, folder } => {
                let name = format!("{folder}data/{}", entry.storage);
                let mut file = archive.by_name(&name).map_err(|e| format!("{name}: {e}"))?;
                // torch.save does not compress; a small file that says it holds a large one is not believed.
                if file.compression() != zip::CompressionMethod::Stored
                    || file.compressed_size() != file.size()
                {
                    return Err(format!("{name} is compressed, which torch.save never does"));
                }
                if entry.len.checked_mul(size).is_none_or(|len| file.size() < len as u64) {
                    return Err(format!(
                        "{name} has {} bytes, expected {} elements of {size}",
                        file.size(),
                        entry.len
                    ));
                }
                std::io::copy(&mut (&mut file).take(start as u64), &mut std::io::sink()).map_err(cut_off)?;
                let mut bytes = vec![0; len];
                file.read_exact(&mut bytes).map_err(cut_off)?;
                Ok(bytes)
            }
            Source::Stream { file, storages } => {
                let (place, elements) = storages
                    .get(&*entry.storage)
                    .ok_or_else(|| format!("storage {} is not in the file", entry.storage))?;
                if *elements != entry.len {
                    return Err(format!(
                        "storage {} has {elements} elements, expected {}",
                        entry.storage, entry.len
                    ));
                }
                file.seek(SeekFrom::Start(place + start as u64)).map_err(cut_off)?;
                let mut bytes = vec![0; len];
                file.read_exact(&mut bytes).map_err(cut_off)?;
                Ok(bytes)
            }
        }
    }
}

fn too_large() -> String {
    "has an impossible shape".to_owned()
}

fn is_contiguous(shape: &[usize], stride: &[usize]) -> bool {
    let mut expected = 1_usize;
    shape.iter().zip(stride).rev().all(|(&d, &s)| {
        let fits = d == 1 || s == expected;
        expected = expected.saturating_mul(d);
        fits
    })
}

fn open_zip(file: BufReader<File>) -> Result<(Value, Source), String> {
    let mut archive = zip::ZipArchive::new(file).map_err(|e| format!("is not a whole zip archive: {e}"))?;
    let pickle = archive
        .file_names()
        .filter_map(Result::ok)
        .find(|name| *name == "data.pkl" || name.ends_with("/data.pkl"))
        .map(std::borrow::Cow::into_owned)
        .ok_or("is a zip archive without data.pkl, so it was not written by torch.save")?;
    let folder = pickle[..pickle.len() - "data.pkl".len()].to_owned();
    let mut order = String::new();
    if let Ok(file) = archive.by_name(&format!("{folder}byteorder")) {
        file.take(16).read_to_string(&mut order).map_err(|e| e.to_string())?;
        if order.trim() != "little" {
            return Err(format!("was written with {} byte order, only little is read", order.trim()));
        }
    }
    let object = {
        let file = archive.by_name(&pickle).map_err(|e| e.to_string())?;
        pickle::read(&mut BufReader::new(file)).map_err(|problem| format!("{pickle} {problem}"))?
    };
    Ok((object, Source::Zip { archive: Box::new(archive), folder }))
}

fn open_stream(mut file: BufReader<File>) -> Result<(Value, Source), String> {
    let mut next = || pickle::read(&mut file).map_err(|problem| format!("its pickle {problem}"));
    match next()? {
        Value::Long(bytes) if bytes[..] == MAGIC => {}
        _ => return Err("is no PyTorch checkpoint: it does not start with the magic number".to_owned()),
    }
    match next()? {
        Value::Int(STREAM_PROTOCOL) => {}
        other => return Err(format!("has {} for its protocol, expected {STREAM_PROTOCOL}", other.kind())),
    }
    let system = next()?;
    if let Value::Dict(entries) = &system {
        let entries = entries.borrow();
        let little = entries.iter().find(|(key, _)| key.text() == Some("little_endian"));
        if little.is_some_and(|(_, value)| *value != Value::Bool(true)) {
            return Err("was written with big byte order, only little is read".to_owned());
        }
    }
    let object = next()?;
    let Value::List(keys) = next()? else { return Err("has no list of storages".to_owned()) };
    let order: Option<Vec<String>> = keys.borrow().iter().map(|key| key.text().map(str::to_owned)).collect();
    let order = order.ok_or("has a storage without a name")?;
    let mut storages = BTreeMap::new();
    let sizes = element_sizes(&object);
    let io = |e: std::io::Error| e.to_string();
    let end = file.get_ref().metadata().map_err(io)?.len();
    let mut place = file.stream_position().map_err(io)?;
    for key in order {
        let mut count = [0; 8];
        file.seek(SeekFrom::Start(place)).map_err(io)?;
        file.read_exact(&mut count).map_err(|_| format!("is cut off before storage {key}"))?;
        let count = usize::try_from(u64::from_le_bytes(count)).map_err(|_| too_large())?;
        let size = sizes.get(&key).copied().ok_or_else(|| format!("has no type for storage {key}"))?;
        let start = place + 8;
        place = (count as u64)
            .checked_mul(size as u64)
            .and_then(|len| start.checked_add(len))
            .filter(|&place| place <= end)
            .ok_or_else(|| format!("is cut off inside storage {key}"))?;
        storages.insert(key, (start, count));
    }
    Ok((object, Source::Stream { file, storages }))
}

/// Bytes of an element for each storage that the object refers to.
fn element_sizes(object: &Value) -> BTreeMap<String, usize> {
    let mut sizes = BTreeMap::new();
    let mut todo = vec![object.clone()];
    // Containers may hold themselves; a bound on the visits ends that.
    for _ in 0..10_000_000 {
        let Some(value) = todo.pop() else { break };
        match value {
            Value::Tensor(tensor) => todo.push(tensor.storage.clone()),
            Value::Persistent(id) => {
                if let Some((element, key, _)) = storage_of(&id) {
                    sizes.insert(key.to_string(), element.size());
                }
            }
            Value::Tuple(items) => todo.extend(items.iter().cloned()),
            Value::List(items) => todo.extend(items.borrow().iter().cloned()),
            Value::Dict(entries) => {
                todo.extend(entries.borrow().iter().flat_map(|(key, value)| [key.clone(), value.clone()]));
            }
            _ => {}
        }
    }
    sizes
}

/// Type, key and length of `('storage', type, key, location, length, …)`.
fn storage_of(id: &Value) -> Option<(Element, Rc<str>, usize)> {
    let Value::Tuple(items) = id else { return None };
    let [kind, Value::Global(class), key, _location, len, ..] = &**items else { return None };
    let key = match key {
        Value::Text(key) => key.clone(),
        _ => return None,
    };
    (kind.text() == Some("storage")).then_some(())?;
    Some((Element::of_storage(class)?, key, len.size()?))
}

type Dict = pickle::Shared<Vec<(Value, Value)>>;

/// The state dict: the object itself, or what training scripts wrap it in.
fn state_dict(object: &Value) -> Result<(Option<&'static str>, Dict), String> {
    let Value::Dict(dict) = object else {
        return Err(format!("holds {}, expected a dictionary of tensors (a state dict)", object.kind()));
    };
    let found: Vec<(&'static str, Dict)> = WRAPPERS
        .into_iter()
        .filter_map(|key| {
            let entries = dict.borrow();
            let (_, value) = entries.iter().find(|(name, _)| name.text() == Some(key))?;
            match value {
                Value::Dict(inner) => Some((key, inner.clone())),
                _ => None,
            }
        })
        .collect();
    match &found[..] {
        [] => Ok((None, dict.clone())),
        [(key, inner)] => Ok((Some(key), inner.clone())),
        [(first, _), (second, _), ..] => Err(format!(
            "holds a dictionary under {first:?} and one under {second:?}; save only the state dict"
        )),
    }
}

fn entries(dict: &Dict) -> Result<Vec<(String, Entry)>, String> {
    let mut entries = Vec::new();
    for (key, value) in dict.borrow().iter() {
        let Some(name) = key.text() else { return Err(format!("has {} for a name", key.kind())) };
        let Value::Tensor(tensor) = value else {
            return Err(format!("{name:?} is {}, expected a tensor", value.kind()));
        };
        entries.push((name.to_owned(), entry(name, tensor)?));
    }
    Ok(entries)
}

fn entry(name: &str, tensor: &TensorRef) -> Result<Entry, String> {
    let TensorRef { storage, offset, shape, stride } = tensor;
    let Value::Persistent(id) = storage else { return Err(format!("{name:?} has no storage")) };
    let (element, storage, len) =
        storage_of(id).ok_or_else(|| format!("{name:?} has a storage of a kind that is not known"))?;
    Ok(Entry { element, shape: shape.clone(), stride: stride.clone(), offset: *offset, storage, len })
}
