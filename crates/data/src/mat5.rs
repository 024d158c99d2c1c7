//! The part of MATLAB's level 5 format that ImageNet's `meta.mat` needs: fields of an array of structs.
//!
//! Layout by MathWorks' "MAT-File Format": a header of 128 bytes, then elements of a tag (type, length) and data,
//! padded to eight bytes; an element may be compressed with zlib, an array is an element that holds elements.

use std::io::Read as _;

use flate2::read::ZlibDecoder;

/// Limit of the decompressed size of an element; `meta.mat` is well below 1 MB.
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
    /// Removes the next element from `rest`.
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
        return text.map(Value::Text).ok_or_else(|| "has text in no known encoding".to_owned());
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

    /// An element with its tag, padded to eight bytes.
    fn element(kind: u32, data: &[u8]) -> Vec<u8> {
        let mut bytes = [kind.to_le_bytes(), (data.len() as u32).to_le_bytes()].concat();
        bytes.extend_from_slice(data);
        bytes.resize(bytes.len().next_multiple_of(8), 0);
        bytes
    }

    /// An element of up to four bytes, which lie in its tag.
    fn small(kind: u32, data: &[u8]) -> Vec<u8> {
        let mut bytes = (kind | (data.len() as u32) << 16).to_le_bytes().to_vec();
        bytes.extend_from_slice(data);
        bytes.resize(8, 0);
        bytes
    }

    /// An array of this class without a name, as an element.
    fn array(class: u8, content: &[u8]) -> Vec<u8> {
        let flags = element(UINT32, &[class, 0, 0, 0, 0, 0, 0, 0]);
        let dimensions = element(INT32, &[1, 0, 0, 0, 1, 0, 0, 0]);
        element(MATRIX, &[&flags, &dimensions, &element(INT8, &[]), content].concat())
    }

    fn value_of(class: u8, content: &[u8]) -> Result<Value, String> {
        let bytes = array(class, content);
        value(&Element::take(&mut bytes.as_slice()).unwrap())
    }

    const DOUBLES: u8 = 6;
    const CHARACTERS: u8 = 4;

    #[test]
    fn numbers_of_every_width_are_read() {
        for (kind, data, expected) in [
            (INT8, &[7][..], 7.0),
            (UINT8, &[200], 200.0),
            (INT16, &[2, 1], 258.0),
            (UINT16, &[2, 1], 258.0),
            (INT32, &[4, 3, 2, 0], 131_844.0),
            (UINT32, &[4, 3, 2, 0], 131_844.0),
            (DOUBLE, &2.5_f64.to_le_bytes(), 2.5),
        ] {
            assert_eq!(value_of(DOUBLES, &element(kind, data)), Ok(Value::Number(expected)), "type {kind}");
            if data.len() <= 4 {
                assert_eq!(value_of(DOUBLES, &small(kind, data)), Ok(Value::Number(expected)), "type {kind}");
            }
        }
        // Of several numbers the first counts.
        assert_eq!(value_of(DOUBLES, &element(UINT8, &[3, 4])), Ok(Value::Number(3.0)));
        assert_eq!(value_of(DOUBLES, &element(UINT8, &[])), Err("has an empty field".to_owned()));
        let single = value_of(DOUBLES, &element(7, &[0; 4])).unwrap_err();
        assert_eq!(single, "has a field of type 7, which is not understood");
    }

    #[test]
    fn texts_are_read_in_eight_and_sixteen_bits() {
        for (kind, data) in
            [(UTF8, &b"n01"[..]), (UINT8, b"n01"), (UTF16, b"n\x000\x001\0"), (UINT16, b"n\x000\x001\0")]
        {
            assert_eq!(value_of(CHARACTERS, &element(kind, data)), Ok(Value::Text("n01".to_owned())));
        }
        assert_eq!(value_of(CHARACTERS, &small(UTF8, b"abcd")), Ok(Value::Text("abcd".to_owned())));
        assert_eq!(value_of(CHARACTERS, &element(UTF8, &[])), Ok(Value::Text(String::new())));
        // A lone half of a surrogate pair is no character.
        let error = value_of(CHARACTERS, &element(UTF16, &[0, 0xd8])).unwrap_err();
        assert_eq!(error, "has text in no known encoding");
    }

    #[test]
    fn elements_end_where_they_say_and_a_small_one_holds_four_bytes() {
        let bytes = [element(UINT8, &[1, 2, 3]), small(UINT8, &[4]), element(UINT8, &[5; 8])].concat();
        let mut rest = bytes.as_slice();
        let mut next = || Element::take(&mut rest).map(|element| (element.kind, element.data.to_vec()));
        assert_eq!(next(), Ok((UINT8, vec![1, 2, 3])));
        assert_eq!(next(), Ok((UINT8, vec![4])));
        assert_eq!(next(), Ok((UINT8, vec![5; 8])));
        assert_eq!(next(), Err("is cut off".to_owned()));
        let five = (UINT8 | 5 << 16).to_le_bytes();
        let error = Element::take(&mut [five, [0; 4]].concat().as_slice()).err().unwrap();
        assert_eq!(error, "has a small element of more than four bytes");
        let bytes = element(UINT8, &[1, 2, 3]);
        assert!(Element::take(&mut &bytes[..10]).is_err() && Element::take(&mut &bytes[..11]).is_ok());
        // A compressed element is not padded: the next one follows at once.
        let bytes =
            [&COMPRESSED.to_le_bytes()[..], &3_u32.to_le_bytes(), &[9; 3], &small(UINT8, &[6])].concat();
        let mut rest = bytes.as_slice();
        assert_eq!(Element::take(&mut rest).unwrap().data, [9; 3]);
        assert_eq!(Element::take(&mut rest).unwrap().data, [6]);
    }

    /// An array of `count` structs with the fields `a` (a number) and `bc` (a text).
    fn structs(count: u32, name_length: u32, values: &[Vec<u8>]) -> Vec<u8> {
        let flags = element(UINT32, &[STRUCT as u8, 0, 0, 0, 0, 0, 0, 0]);
        let dimensions = element(INT32, &[count.to_le_bytes(), 1_u32.to_le_bytes()].concat());
        let length = small(INT32, &name_length.to_le_bytes());
        let names = element(INT8, b"a\0\0bc\0");
        let head = [flags, dimensions, element(INT8, b"s"), length, names].concat();
        element(MATRIX, &[head, values.concat()].concat())
    }

    fn file(elements: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = vec![b' '; 124];
        bytes.extend_from_slice(&[0, 1, b'I', b'M']);
        bytes.extend(elements.iter().flatten());
        bytes
    }

    #[test]
    fn the_first_array_of_structs_is_taken_with_its_fields_by_name() {
        let number = |n: u8| array(DOUBLES, &small(UINT8, &[n]));
        let text = |t: &[u8]| array(CHARACTERS, &element(UTF8, t));
        let values = [number(1), text(b"x"), number(2), text(b"yz")];
        let all = structs(2, 3, &values);
        let found = struct_fields(
            &file(&[number(5), all.clone(), structs(1, 3, &[number(9), text(b"w")])]),
            ["a", "bc"],
        );
        let expected = |n, t: &str| [Value::Number(n), Value::Text(t.to_owned())];
        assert_eq!(found, Ok(vec![expected(1.0, "x"), expected(2.0, "yz")]));
        let turned = struct_fields(&file(std::slice::from_ref(&all)), ["bc", "a"]).unwrap();
        assert_eq!(turned[0], [Value::Text("x".to_owned()), Value::Number(1.0)]);

        let error = |bytes: &[u8]| struct_fields(bytes, ["a", "bc"]).unwrap_err();
        assert_eq!(error(&file(&[number(5)])), "holds no array of structs");
        assert_eq!(error(&file(&[structs(2, 0, &values)])), "has struct fields without names");
        assert_eq!(error(&file(&[structs(3, 3, &values)])), "is cut off");
        let mut big_endian = file(&[all]);
        big_endian[126..128].copy_from_slice(b"MI");
        assert_eq!(error(&big_endian), "is not a little-endian MATLAB 5 file");
    }
}
