//! The containers of `torch.save`: a zip archive (since PyTorch 1.6) and the stream before it.
//!
//! Zip: `<any folder>/data.pkl` with the object, `<any folder>/data/<key>` with the bytes of each storage. Stream: pickles
//! of a magic number, the protocol, the system and the object, the list of storage keys, then for each key the number of
//! elements (8 bytes, little-endian) and the elements.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::Path;

use zip::read::{ArchiveOffset, Config};

use super::pickle::{self, Pickle};
use super::state_dict::{self, StateDict};
use super::storage::{Element, StorageRef, storages};
use super::value::{Heap, TensorRef, Value};
use crate::ModelError;
use crate::file::bad_file;

/// 0x1950a86a20f9469cfc6c, as a pickle of protocol 2 and later writes it, and as one of protocol 1 does.
const MAGIC: [u8; 10] = [0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];
const MAGIC_IN_WORDS: &[u8] = b"L119547037146038801333356L\n";
const STREAM_PROTOCOL: i64 = 1001;

/// A tensor of a checkpoint, its numbers still in the file.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) element: Element,
    pub(crate) shape: Vec<usize>,
    stride: Vec<usize>,
    offset: usize,
    storage: StorageRef,
}

/// An opened checkpoint: names and shapes are known, numbers are read on demand.
pub(crate) struct Checkpoint {
    /// `zip` or `stream`.
    pub(crate) container: &'static str,
    /// The key that the state dict was found under.
    pub(crate) wrapper: Option<String>,
    /// The state dict, in its order.
    pub(crate) entries: Vec<(String, Entry)>,
    /// Notes for the user about the choice of the state dict, one line each.
    pub(crate) notes: Vec<String>,
    source: Source,
}

enum Source {
    Zip(Box<Zip>),
    /// Where the elements of each storage start, and how many there are.
    Stream {
        file: BufReader<File>,
        storages: BTreeMap<String, (u64, usize)>,
    },
}

struct Zip {
    archive: zip::ZipArchive<BufReader<File>>,
    folder: String,
    /// Whether the archive was written with checksums; PyTorch can be asked not to.
    has_checksums: bool,
    /// Members whose checksum was compared.
    compared: BTreeSet<String>,
}

/// Whether the first bytes of a file are those of one of the two containers.
pub(crate) fn is_checkpoint(start: &[u8]) -> bool {
    let is_pickle = matches!(start, [0x80, 2..=5, ..]);
    let is_stream = is_pickle && start.windows(MAGIC.len()).take(24).any(|window| window == MAGIC);
    start.starts_with(b"PK\x03\x04") || start.starts_with(MAGIC_IN_WORDS) || is_stream
}

impl Checkpoint {
    /// Opens a checkpoint and finds its state dict, under `key` if there is one.
    pub(crate) fn open(path: &Path, key: Option<&str>) -> Result<Self, ModelError> {
        let bad = |problem: String| bad_file(path, problem);
        let io = |source| ModelError::Io { action: "read", path: path.to_owned(), source };
        let mut file = BufReader::new(File::open(path).map_err(io)?);
        let mut start = [0; 4];
        file.read_exact(&mut start).map_err(|_| bad("is no PyTorch checkpoint".to_owned()))?;
        file.seek(SeekFrom::Start(0)).map_err(io)?;
        let (pickle, source, container) = if start == *b"PK\x03\x04" {
            let (pickle, zip) = Zip::open(file).map_err(bad)?;
            (pickle, Source::Zip(Box::new(zip)), "zip")
        } else {
            let (pickle, source) = open_stream(file).map_err(bad)?;
            (pickle, source, "stream")
        };
        storages(&pickle.heap).map_err(bad)?;
        let StateDict { wrapper, tensors, mut notes } = state_dict::find(&pickle, key).map_err(bad)?;
        if matches!(&source, Source::Zip(zip) if !zip.has_checksums) {
            notes.push("the file was written without checksums, none was compared".to_owned());
        }
        let entries: Result<_, String> = tensors
            .into_iter()
            .map(|(name, tensor)| {
                let entry = entry(&pickle.heap, pickle.heap.tensor(tensor));
                entry.map(|entry| (name.clone(), entry)).map_err(|problem| format!("{name:?} {problem}"))
            })
            .collect();
        Ok(Self { container, wrapper, entries: entries.map_err(bad)?, notes, source })
    }

    /// The tensor's bytes, row-major whatever its strides were.
    pub(crate) fn read(&mut self, entry: &Entry) -> Result<Vec<u8>, String> {
        let size = entry.element.size();
        let count = entry.shape.iter().try_fold(1_usize, |n, &d| n.checked_mul(d)).ok_or_else(too_large)?;
        if count == 0 {
            return Ok(Vec::new());
        }
        // One past the last element that the strides reach, counted from the start of the storage's part.
        let reach = entry
            .shape
            .iter()
            .zip(&entry.stride)
            .try_fold(entry.offset, |sum, (&d, &s)| sum.checked_add((d - 1).checked_mul(s)?))
            .and_then(|last| last.checked_add(1))
            .ok_or_else(too_large)?;
        let part = &entry.storage.part;
        if reach > part.len() {
            return Err(format!("reaches element {reach} of a storage of {}", part.len()));
        }
        let bytes = self.storage(&entry.storage, part.start + entry.offset..part.start + reach)?;
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

    /// The bytes of some elements of a storage; `range` lies inside it.
    fn storage(&mut self, storage: &StorageRef, range: Range<usize>) -> Result<Vec<u8>, String> {
        let size = storage.element.size();
        let whole = storage.len.checked_mul(size).ok_or_else(too_large)?;
        // No overflow below: all of it ends at or before `whole`.
        let (start, len) = ((range.start * size) as u64, range.len() * size);
        let cut_off = |e: io::Error| format!("storage {} is cut off: {e}", storage.key);
        match &mut self.source {
            Source::Zip(zip) => {
                let name = format!("{}data/{}", zip.folder, storage.key);
                let mut file = zip.member(&name)?;
                let found = file.seek(SeekFrom::End(0)).map_err(cut_off)?;
                if found < whole as u64 {
                    return Err(format!(
                        "{name} has {found} bytes, expected {} elements of {size}",
                        storage.len
                    ));
                }
                file.seek(SeekFrom::Start(start)).map_err(cut_off)?;
                exactly(&mut file, len).map_err(cut_off)
            }
            Source::Stream { file, storages } => {
                let (place, elements) = storages
                    .get(&*storage.key)
                    .ok_or_else(|| format!("storage {} is not in the file", storage.key))?;
                if *elements != storage.len {
                    return Err(format!(
                        "storage {} has {elements} elements, expected {}",
                        storage.key, storage.len
                    ));
                }
                let place = place.checked_add(start).ok_or_else(too_large)?;
                file.seek(SeekFrom::Start(place)).map_err(cut_off)?;
                exactly(file, len).map_err(cut_off)
            }
        }
    }
}

/// Reads exactly `len` bytes; memory grows with what is read.
fn exactly(file: &mut impl Read, len: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    match file.take(len as u64).read_to_end(&mut bytes)? {
        found if found == len => Ok(bytes),
        found => Err(io::Error::new(io::ErrorKind::UnexpectedEof, format!("{found} of {len} bytes"))),
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

impl Zip {
    fn open(file: BufReader<File>) -> Result<(Pickle, Self), String> {
        // Without the offset, the reader looks for the directory and may take another record for its start.
        let config = Config { archive_offset: ArchiveOffset::Known(0) };
        let whole = |e| format!("is not a whole zip archive: {e}");
        let mut archive = zip::ZipArchive::with_config(config, file).map_err(whole)?;
        if archive.has_duplicate_names() {
            return Err("is a zip archive with two members of one name".to_owned());
        }
        let names: Vec<String> =
            archive.file_names().filter_map(Result::ok).map(std::borrow::Cow::into_owned).collect();
        let is_pickle = |name: &&String| *name == "data.pkl" || name.ends_with("/data.pkl");
        let pickle = match &names.iter().filter(is_pickle).collect::<Vec<_>>()[..] {
            [] => {
                return Err(
                    "is a zip archive without data.pkl, so it was not written by torch.save".to_owned()
                );
            }
            [one] => (*one).clone(),
            [one, two, ..] => {
                return Err(format!("is a zip archive with {one} and {two}; torch.save writes one"));
            }
        };
        let folder = pickle[..pickle.len() - "data.pkl".len()].to_owned();
        if names.contains(&format!("{folder}constants.pkl")) {
            return Err(
                "is a TorchScript program (torch.jit.save); save its state_dict() with torch.save".to_owned()
            );
        }
        let mut has_checksums = false;
        for index in 0..archive.len() {
            let member = archive.by_index_raw(index).map_err(whole)?;
            has_checksums |= member.size() > 0 && member.crc32() != 0;
        }
        let mut zip = Self { archive, folder, has_checksums, compared: BTreeSet::new() };
        let order = format!("{}byteorder", zip.folder);
        if names.contains(&order) {
            let mut text = String::new();
            zip.member(&order)?.take(16).read_to_string(&mut text).map_err(|e| format!("{order}: {e}"))?;
            if text.trim() != "little" {
                return Err(format!("was written with {} byte order, only little is read", text.trim()));
            }
        }
        let object = pickle::read(&mut BufReader::new(zip.member(&pickle)?));
        let object = object.map_err(|problem| format!("{pickle} {problem}"))?;
        Ok((object, zip))
    }

    /// A member of the archive; its checksum is compared at the first access.
    fn member(&mut self, name: &str) -> Result<zip::read::ZipFileSeek<'_, BufReader<File>>, String> {
        let problem = |e: &dyn std::fmt::Display| format!("{name}: {e}");
        if !self.compared.contains(name) {
            let index = self.archive.index_for_name(name).ok_or_else(|| format!("has no member {name}"))?;
            let member = self.archive.by_index_raw(index).map_err(|e| problem(&e))?;
            let is_stored = member.compression() == zip::CompressionMethod::Stored;
            if !is_stored || member.compressed_size() != member.size() || member.encrypted() {
                return Err(format!(
                    "{name} is compressed or encrypted, which torch.save never does: load the file with torch.load and \
                     save it again with torch.save"
                ));
            }
            drop(member);
            if self.has_checksums {
                let mut member = self.archive.by_index(index).map_err(|e| problem(&e))?;
                io::copy(&mut member, &mut io::sink()).map_err(|e| match e.kind() {
                    io::ErrorKind::InvalidData => {
                        format!("{name} does not fit its checksum: the file is damaged")
                    }
                    _ => problem(&e),
                })?;
            }
            self.compared.insert(name.to_owned());
        }
        self.archive.by_name_seek(name).map_err(|e| problem(&e))
    }
}

fn open_stream(mut file: BufReader<File>) -> Result<(Pickle, Source), String> {
    let mut next = || pickle::read(&mut file).map_err(|problem| format!("its pickle {problem}"));
    match next()?.root {
        Value::Long(bytes) if bytes[..] == MAGIC => {}
        _ => return Err("is no PyTorch checkpoint: it does not start with the magic number".to_owned()),
    }
    match next()?.root {
        Value::Int(STREAM_PROTOCOL) => {}
        other => return Err(format!("has {} for its protocol, expected {STREAM_PROTOCOL}", other.kind())),
    }
    let system = next()?;
    if let Value::Dict(entries) = system.root {
        let little = system.heap.entries(entries).find(|(key, _)| key.text() == Some("little_endian"));
        if little.is_some_and(|(_, value)| *value != Value::Bool(true)) {
            return Err("was written with big byte order, only little is read".to_owned());
        }
    }
    let object = next()?;
    let Pickle { root: Value::List(keys), heap } = next()? else {
        return Err("has no list of storages".to_owned());
    };
    let order: Option<Vec<String>> =
        heap.items(keys).iter().map(|key| key.text().map(str::to_owned)).collect();
    let order = order.ok_or("has a storage without a name")?;
    let known = storages(&object.heap)?;
    let mut places = BTreeMap::new();
    let io = |e: io::Error| e.to_string();
    let end = file.get_ref().metadata().map_err(io)?.len();
    let mut place = file.stream_position().map_err(io)?;
    for key in order {
        let mut count = [0; 8];
        file.seek(SeekFrom::Start(place)).map_err(io)?;
        file.read_exact(&mut count).map_err(|_| format!("is cut off before storage {key}"))?;
        let count = usize::try_from(u64::from_le_bytes(count)).map_err(|_| too_large())?;
        let Some((element, _)) = known.get(&*key) else {
            // Its type is not known, or nothing refers to it: where the next one starts cannot be known.
            let unknown = object.heap.storages.iter().find_map(|id| StorageRef::of(&object.heap, id).err());
            return Err(unknown.unwrap_or_else(|| format!("has no type for storage {key}")));
        };
        let start = place + 8;
        place = (count as u64)
            .checked_mul(element.size() as u64)
            .and_then(|len| start.checked_add(len))
            .filter(|&place| place <= end)
            .ok_or_else(|| format!("is cut off inside storage {key}"))?;
        if places.insert(key.clone(), (start, count)).is_some() {
            return Err(format!("has storage {key} twice"));
        }
    }
    Ok((object, Source::Stream { file, storages: places }))
}

fn entry(heap: &Heap, tensor: &TensorRef) -> Result<Entry, String> {
    let TensorRef { storage, offset, shape, stride } = tensor;
    let storage = StorageRef::of(heap, &heap.storages[*storage])?;
    Ok(Entry {
        element: storage.element,
        shape: shape.clone(),
        stride: stride.clone(),
        offset: *offset,
        storage,
    })
}
