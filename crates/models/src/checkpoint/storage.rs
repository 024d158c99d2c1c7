//! Storages: the element type and length of a checkpoint's numbers, as its references describe them.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::value::{Heap, Value};

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

/// One reference to a storage. Lengths and offsets are in elements.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StorageRef {
    pub(crate) key: Rc<str>,
    pub(crate) element: Element,
    /// Elements of the whole storage.
    pub(crate) len: usize,
    /// The referenced part: old PyTorch saved views of storages.
    pub(crate) part: std::ops::Range<usize>,
}

impl StorageRef {
    /// Parses `('storage', type, key, location, length)`, and with a sixth part the views of old streams:
    /// `None`, or `(key, offset, length)`.
    pub(super) fn of(heap: &Heap, id: &Value) -> Result<Self, String> {
        let bad = || "refers to a storage in a way that PyTorch does not".to_owned();
        let Value::Tuple(place) = id else { return Err(bad()) };
        let [kind, Value::Global(class), Value::Text(key), _location, len, view @ ..] = heap.items(*place)
        else {
            return Err(bad());
        };
        if kind.text() != Some("storage") {
            return Err(bad());
        }
        let element = Element::of_storage(class)
            .ok_or_else(|| format!("has a storage of the kind {class}, which is not read"))?;
        let len = len.size().ok_or_else(bad)?;
        let part = match view {
            [] | [Value::None] => 0..len,
            [Value::Tuple(view)] => {
                let [_key, offset, length] = heap.items(*view) else { return Err(bad()) };
                let (offset, length) = offset.size().zip(length.size()).ok_or_else(bad)?;
                let end = offset.checked_add(length).filter(|&end| end <= len);
                offset..end.ok_or_else(|| format!("has a view beyond the end of storage {key}"))?
            }
            _ => return Err(bad()),
        };
        Ok(Self { key: key.clone(), element, len, part })
    }
}

/// Element type and length of every storage with a supported reference, by key.
///
/// # Errors
/// If two references to one storage disagree.
pub(super) fn storages(heap: &Heap) -> Result<BTreeMap<Rc<str>, (Element, usize)>, String> {
    let mut found: BTreeMap<Rc<str>, (Element, usize)> = BTreeMap::new();
    // Unsupported references are an error only if a tensor needs them.
    for storage in heap.storages.iter().filter_map(|id| StorageRef::of(heap, id).ok()) {
        let (element, len) = (storage.element, storage.len);
        let &mut (first, first_len) = found.entry(storage.key.clone()).or_insert((element, len));
        if (first, first_len) != (element, len) {
            return Err(format!(
                "uses storage {} as {first_len} elements of {} and as {len} of {}",
                storage.key,
                first.name(),
                element.name()
            ));
        }
    }
    Ok(found)
}
