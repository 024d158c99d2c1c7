//! Finds the state dict inside the object that a training script saved.

use std::collections::BTreeSet;

use super::pickle::Pickle;
use super::value::{Heap, Place, Value};

/// Keys under which training scripts put the state dict, in the order in which they are looked for.
const WRAPPERS: [&str; 4] = ["state_dict", "model", "model_state_dict", "net"];
/// Limit of bytes in a tensor's name.
const MOST_NAME: usize = 1024;
/// Limit of tensors in a state dict.
const MOST_TENSORS: usize = 1 << 16;
/// Limit of keys listed in a message.
const MOST_LISTED: usize = 8;

/// The state dict of a checkpoint.
#[derive(Debug)]
pub(super) struct StateDict {
    /// The key that it was found under.
    pub(super) wrapper: Option<String>,
    /// Name and place of each tensor, in the order of the file.
    pub(super) tensors: Vec<(String, Place)>,
    /// Notes for the user about the choice, one line each.
    pub(super) notes: Vec<String>,
}

/// The state dict: under `key` (names of dictionaries with dots between them), or without one the object itself or what
/// lies under a name that training scripts use.
pub(super) fn find(pickle: &Pickle, key: Option<&str>) -> Result<StateDict, String> {
    let heap = &pickle.heap;
    let Value::Dict(root) = pickle.root else {
        let advice = match pickle.root {
            Value::Opaque(_) => ": save model.state_dict(), not the model",
            _ => "",
        };
        let kind = pickle.root.kind();
        return Err(format!("holds {kind}, expected a dictionary of tensors (a state dict){advice}"));
    };
    if let Some(key) = key {
        let dict = under(heap, root, key).ok_or_else(|| {
            let there = dicts_of_tensors(heap, root);
            let there = if there.is_empty() { "none".to_owned() } else { listed(&there) };
            format!("holds no dictionary under dense.import.key = {key:?}; dictionaries of tensors: {there}")
        })?;
        return state_dict(heap, Some(key), dict);
    }
    let of_tensors = dicts_of_tensors(heap, root);
    let found: Vec<&str> = WRAPPERS.into_iter().filter(|key| of_tensors.contains(key)).collect();
    match found[..] {
        [key] => {
            let dict = under(heap, root, key).ok_or_else(|| format!("has {key:?} twice"))?;
            let mut found = state_dict(heap, Some(key), dict)?;
            let others: Vec<&str> = of_tensors.into_iter().filter(|other| *other != key).collect();
            if let [other, ..] = others[..] {
                found.notes.push(format!(
                    "the weights under {key:?} were taken; there are others under {}: dense.import.key = {other:?} takes those",
                    listed(&others)
                ));
            }
            Ok(found)
        }
        [first, second, ..] => Err(format!(
            "holds a dictionary under {first:?} and one under {second:?}; dense.import.key says which is meant"
        )),
        [] => {
            let has_tensor = heap.entries(root).any(|(_, value)| matches!(value, Value::Tensor(_)));
            match of_tensors[..] {
                [key, ..] if !has_tensor => Err(format!(
                    "holds dictionaries of tensors under {}; dense.import.key = {key:?} takes one",
                    listed(&of_tensors)
                )),
                _ => {
                    let wrapped = WRAPPERS.into_iter().find_map(|key| Some((key, under(heap, root, key)?)));
                    match wrapped {
                        // Without a tensor in it: the error names what it holds.
                        Some((key, dict)) => state_dict(heap, Some(key), dict),
                        None => state_dict(heap, None, root),
                    }
                }
            }
        }
    }
}

/// Names of the entries that are dictionaries with tensors in them.
fn dicts_of_tensors(heap: &Heap, root: Place) -> Vec<&str> {
    let holds_tensors = |value: &Value| match value {
        Value::Dict(dict) => heap.entries(*dict).any(|(_, value)| matches!(value, Value::Tensor(_))),
        _ => false,
    };
    // By Python's rule a later entry of the same name would replace the first; here it is refused further down.
    let entries = heap.entries(root).filter(|(_, value)| holds_tensors(value));
    entries.filter_map(|(key, _)| key.text()).filter(|key| key.len() <= MOST_NAME).collect()
}

fn listed(keys: &[&str]) -> String {
    let some: Vec<String> = keys.iter().take(MOST_LISTED).map(|key| format!("{key:?}")).collect();
    format!("{}{}", some.join(", "), if keys.len() > MOST_LISTED { " …" } else { "" })
}

/// The dictionary under a key: one entry, or entries of entries with dots between their names.
fn under(heap: &Heap, dict: Place, key: &str) -> Option<Place> {
    let entry = |name: &str| {
        let mut found = heap.entries(dict).filter(|(key, _)| key.text() == Some(name));
        match (found.next(), found.next()) {
            (Some((_, Value::Dict(inner))), None) => Some(*inner),
            _ => None,
        }
    };
    entry(key).or_else(|| {
        let dots = key.match_indices('.').map(|(at, _)| at);
        dots.filter_map(|at| under(heap, entry(&key[..at])?, &key[at + 1..])).next()
    })
}

fn state_dict(heap: &Heap, wrapper: Option<&str>, dict: Place) -> Result<StateDict, String> {
    let mut tensors = Vec::new();
    let mut seen = BTreeSet::new();
    for (key, value) in heap.entries(dict) {
        let Some(name) = key.text() else { return Err(format!("has {} for a name", key.kind())) };
        if name.len() > MOST_NAME {
            return Err(format!("has a name of {} letters", name.len()));
        }
        let Value::Tensor(tensor) = value else {
            return Err(format!("{name:?} is {}, expected a tensor", value.kind()));
        };
        if tensors.len() == MOST_TENSORS {
            return Err(format!("has more than {MOST_TENSORS} tensors"));
        }
        if !seen.insert(name) {
            return Err(format!("has {name:?} twice"));
        }
        tensors.push((name.to_owned(), *tensor));
    }
    Ok(StateDict { wrapper: wrapper.map(str::to_owned), tensors, notes: Vec::new() })
}
