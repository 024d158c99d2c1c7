//! Bitwise comparison of stored tensors.

use std::collections::BTreeSet;
use std::path::Path;

use tch::{Device, Kind, Tensor};
use thinet_models::load_tensors;

use crate::error::HarnessError;

/// Names of the tensors that differ between two files in a bit, type or shape, or are missing in one. Metadata is not compared.
///
/// # Errors
/// If a file cannot be read.
pub(crate) fn differing_tensors(first: &Path, second: &Path) -> Result<Vec<String>, HarnessError> {
    let ((first, _), (second, _)) = (load_tensors(first, Device::Cpu)?, load_tensors(second, Device::Cpu)?);
    let names: BTreeSet<&String> = first.keys().chain(second.keys()).collect();
    let mut differing = Vec::new();
    for name in names {
        let is_same = match (first.get(name), second.get(name)) {
            (Some(first), Some(second)) => has_same_bits(first, second)?,
            _ => false,
        };
        if !is_same {
            differing.push(name.clone());
        }
    }
    Ok(differing)
}

fn has_same_bits(first: &Tensor, second: &Tensor) -> Result<bool, HarnessError> {
    if first.kind() != second.kind() || first.size() != second.size() {
        return Ok(false);
    }
    // As integers, so that NaN is equal to itself and 0 is not −0.
    let bits = |tensor: &Tensor| match tensor.kind() {
        Kind::Float => tensor.f_view_dtype(Kind::Int),
        Kind::Double => tensor.f_view_dtype(Kind::Int64),
        _ => Ok(tensor.shallow_clone()),
    };
    Ok(bits(first)?.f_equal(&bits(second)?)?)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use thinet_models::save_tensors;

    use super::*;

    #[test]
    fn tensors_differ_by_bits_type_shape_and_presence_but_not_by_metadata() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, tensors: &[(&str, Tensor)], note: &str| {
            let path = folder.path().join(name);
            save_tensors(&path, tensors, &BTreeMap::from([("run".to_owned(), note.to_owned())])).unwrap();
            path
        };
        let of = |values: &[f32]| Tensor::from_slice(values);
        let one = file("one", &[("a", of(&[0.0, f32::NAN])), ("b", of(&[1.0])), ("c", of(&[1.0, 2.0]))], "x");
        let same =
            file("same", &[("a", of(&[0.0, f32::NAN])), ("b", of(&[1.0])), ("c", of(&[1.0, 2.0]))], "y");
        assert_eq!(differing_tensors(&one, &same).unwrap(), Vec::<String>::new());
        let other = [
            ("a", of(&[-0.0, f32::NAN])),
            ("b", Tensor::from_slice(&[1.0_f64])),
            ("c", of(&[1.0, 2.0]).view([2, 1])),
            ("d", of(&[1.0])),
        ];
        let other = file("other", &other, "x");
        assert_eq!(differing_tensors(&one, &other).unwrap(), ["a", "b", "c", "d"]);
        assert!(differing_tensors(&one, &folder.path().join("none")).is_err());
    }
}
