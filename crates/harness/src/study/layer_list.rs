//! `prune.layers` of a spec: a list of names, or `"all"`, which is represented by an empty list.

use std::fmt;

use serde::de::{Error, SeqAccess, Visitor};
use serde::{Deserializer, Serialize, Serializer};

const ALL: &str = "all";

pub(crate) fn serialize<S: Serializer>(layers: &[String], serializer: S) -> Result<S::Ok, S::Error> {
    if layers.is_empty() { serializer.serialize_str(ALL) } else { layers.serialize(serializer) }
}

pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    deserializer.deserialize_any(Layers)
}

struct Layers;

impl<'de> Visitor<'de> for Layers {
    type Value = Vec<String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of layers, or \"all\"")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        if text == ALL {
            Ok(Vec::new())
        } else {
            Err(E::invalid_value(serde::de::Unexpected::Str(text), &self))
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let mut layers = Vec::new();
        while let Some(layer) = list.next_element()? {
            layers.push(layer);
        }
        match layers.is_empty() {
            false => Ok(layers),
            true => Err(A::Error::custom(
                "prune.layers: an empty list prunes nothing; leave the key out or write \"all\" for every prunable \
                 layer",
            )),
        }
    }
}
