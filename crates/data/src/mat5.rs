//! The part of MATLAB's level 5 format that ImageNet's `meta.mat` needs: fields of an array of structs.
//!
//! Layout by MathWorks' "MAT-File Format": a header of 128 bytes, then elements of a tag (type, length) and data,
//! padded to eight bytes; an element may be compressed with zlib, an array is an element that holds elements.

use std::io::Read as _;

use flate2::read::ZlibDecoder;

/// Most bytes that an element may inflate to; `meta.mat` is well below 1 MB.
const MOST_BYTES: u64 = 64 << 20;
const HEADER: usize = 128;

// Types of elements.
const INT8: u32 = 1;
const UINT8: u32 = 2;
const INT16: u32 = 3;
const UINT16: u32 = 4;
const INT32: u32 = 5;
const UINT32: u32 = 6;
const DOUBLE: u32 = 9;
const MATRIX: u32 = 14;
const COMPRESSED: u32 = 15;
const UTF8: u32 = 16;
const UTF16: u32 = 17;

/// Class of an array of structs.
const STRUCT: u32 = 2;

/// The value of one field.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    /// A row of characters.
    Text(String),
    /// The first number of an array.
    Number(f64),
}

/// For each struct of the first array of structs in the file, the two named fields.
pub(crate) fn struct_fields(bytes: &[u8], wanted: [&str; 2]) -> Result<Vec<[Value; 2]>, String> {
    let body = bytes.get(HEADER..).ok_or("is shorter than its header")?;
    if bytes.get(126..128) != Some(b"IM") {
        return Err("is not a little-endian MATLAB 5 file".to_owned());
    }
    let mut rest = body;
    while !rest.is_empty() {
        let element = Element::take(&mut rest)?;
        let inflated;
        let element = if element.kind == COMPRESSED {
            let mut decoder = ZlibDecoder::new(element.data).take(MOST_BYTES);
            let mut buffer = Vec::new();
            decoder.read_to_end(&mut buffer).map_err(|error| error.to_string())?;
            inflated = buffer;
            Element::take(&mut inflated.as_slice())?
        } else {
            element
        };
        if element.kind == MATRIX
            && let Some(fields) = of_matrix(element.data, wanted)?
        {
            return Ok(fields);
        }
    }
    Err("holds no array of structs".to_owned())
}

struct Element<'a> {
    kind: u32,
    data: &'a [u8],
}

impl<'a> Element<'a> {
    /// Takes the next element off `rest`.
    fn take(rest: &mut &'a [u8]) -> Result<Self, String> {
        let cut_off = || "is cut off".to_owned();
        let word = |at: usize| -> Result<u32, String> {
            let bytes = rest.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).ok_or_else(cut_off)?;
            Ok(u32::from_le_bytes(bytes))
        };
        let first = word(0)?;
        // Up to four bytes of data lie in the tag itself, with the length in the upper half of the first word.
        let (kind, start, len, end) = if first >> 16 != 0 {
            let len = (first >> 16) as usize;
            if len > 4 {
                return Err("has a small element of more than four bytes".to_owned());
            }
            (first & 0xffff, 4, len, 8)
        } else {
            let len = word(4)? as usize;
            // Compressed elements are not padded.
            let end = if first == COMPRESSED { 8 + len } else { 8 + len.next_multiple_of(8) };
            (first, 8, len, end)
        };
        let data = rest.get(start..start + len).ok_or_else(cut_off)?;
        *rest = rest.get(end..).unwrap_or(&[]);
        Ok(Self { kind, data })
    }
}

/// The fields of an array of structs; `None` for an array of another class.
fn of_matrix(data: &[u8], wanted: [&str; 2]) -> Result<Option<Vec<[Value; 2]>>, String> {
    let mut rest = data;
    let flags = Element::take(&mut rest)?;
    let class = flags.data.first().copied().map(u32::from);
    if class != Some(STRUCT) {
        return Ok(None);
    }
    let dimensions = Element::take(&mut rest)?;
    let count = dimensions
        .data
        .chunks_exact(4)
        .map(|bytes| u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]) as usize)
        .try_fold(1_usize, usize::checked_mul)
        .ok_or("has impossible dimensions")?;
    let _name = Element::take(&mut rest)?;
    let length = Element::take(&mut rest)?;
    let length = length.data.first().copied().map_or(0, usize::from);
    let names = Element::take(&mut rest)?;
    if length == 0 {
        return Err("has struct fields without names".to_owned());
    }
    let names: Vec<&[u8]> = names
        .data
        .chunks_exact(length)
        .map(|name| name.split(|byte| *byte == 0).next().unwrap_or_default())
        .collect();
    let place = |field: &str| {
        let found = names.iter().position(|name| *name == field.as_bytes());
        found.ok_or_else(|| format!("has no field {field:?}"))
    };
    let places = [place(wanted[0])?, place(wanted[1])?];
    let mut structs = Vec::new();
    for _ in 0..count {
        let mut fields = Vec::with_capacity(names.len());
        for _ in &names {
            fields.push(Element::take(&mut rest)?);
        }
        structs.push([value(&fields[places[0]])?, value(&fields[places[1]])?]);
    }
    Ok(Some(structs))
}

/// The text or the one number that an array holds.
fn value(element: &Element<'_>) -> Result<Value, String> {
    let mut rest = element.data;
    let flags = Element::take(&mut rest)?;
    let is_text = flags.data.first() == Some(&4);
    let _dimensions = Element::take(&mut rest)?;
    let _name = Element::take(&mut rest)?;
    let content = Element::take(&mut rest)?;
    let size = match content.kind {
        INT8 | UINT8 | UTF8 => 1,
        INT16 | UINT16 | UTF16 => 2,
        INT32 | UINT32 => 4,
        DOUBLE => 8,
        other => return Err(format!("has a field of type {other}, which is not understood")),
    };
    let numbers = content.data.chunks_exact(size).map(|bytes| {
        if content.kind == DOUBLE {
            return f64::from_le_bytes(bytes.try_into().unwrap_or_default());
        }
        // Every number of `meta.mat` that is read here is a small whole one above 0.
        bytes.iter().rev().fold(0.0, |sum, byte| sum * 256.0 + f64::from(*byte))
    });
    if is_text {
        let text: Option<String> = numbers.map(|code| char::from_u32(code as u32)).collect();
        return text.map(Value::Text).ok_or_else(|| "has a text that is none".to_owned());
    }
    let mut numbers = numbers;
    numbers.next().map(Value::Number).ok_or_else(|| "has an empty field".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const META: &[u8] = include_bytes!("../tests/golden/meta.mat");

    #[test]
    fn a_file_that_scipy_wrote_is_read() {
        let found = struct_fields(META, ["ILSVRC2012_ID", "WNID"]).unwrap();
        let expected = [(1.0, "n02119789"), (2.0, "n01440764"), (3.0, "n09999999"), (4.0, "n00001740")];
        let expected = expected.map(|(id, wnid)| [Value::Number(id), Value::Text(wnid.to_owned())]);
        assert_eq!(found, expected);
        let error = struct_fields(META, ["ILSVRC2012_ID", "WINID"]).unwrap_err();
        assert_eq!(error, "has no field \"WINID\"");
    }

    #[test]
    fn other_files_are_refused() {
        assert_eq!(struct_fields(b"text", ["a", "b"]).unwrap_err(), "is shorter than its header");
        assert!(struct_fields(&[0; 200], ["a", "b"]).unwrap_err().contains("MATLAB 5"));
        assert!(struct_fields(&META[..200], ["ILSVRC2012_ID", "WNID"]).is_err());
    }

    proptest! {
        #[test]
        fn damage_is_an_error_and_no_panic(at in 128..META.len(), value: u8, len in 128..META.len()) {
            let mut bytes = META.to_vec();
            bytes[at] = value;
            let _ = struct_fields(&bytes, ["ILSVRC2012_ID", "WNID"]);
            let _ = struct_fields(&META[..len], ["ILSVRC2012_ID", "WNID"]);
        }
    }
}
