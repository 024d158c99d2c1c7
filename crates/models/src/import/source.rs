//! A foreign weight file: safetensors or a PyTorch checkpoint, recognised by its first bytes.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use safetensors::tensor::{Dtype, SafeTensors};
use tch::{Kind, Tensor};
use thinet_graph::Graph;

use crate::checkpoint::{Checkpoint, Element, Entry, is_checkpoint};
use crate::error::Context;
use crate::file::{GRAPH, bad_file, parse, read};
use crate::file_kind::{START, what_it_is};
use crate::weights::TensorKind;
use crate::{ImportRules, ModelError};

/// An opened file.
pub(super) enum Source<'a> {
    Safetensors { file: SafeTensors<'a>, graph: Option<Box<Graph>> },
    Checkpoint(Checkpoint),
}

impl<'a> Source<'a> {
    pub(super) fn open(
        path: &Path,
        rules: &ImportRules,
        contents: &'a mut Option<Vec<u8>>,
    ) -> Result<Self, ModelError> {
        let mut start = Vec::new();
        File::open(path)
            .and_then(|file| file.take(START as u64).read_to_end(&mut start))
            .map_err(|source| ModelError::Io { action: "read", path: path.to_owned(), source })?;
        if is_checkpoint(&start) {
            return Ok(Self::Checkpoint(Checkpoint::open(path, rules.key.as_deref())?));
        }
        if let Some(what) = what_it_is(&start) {
            return Err(bad_file(path, what));
        }
        if let Some(key) = &rules.key {
            let problem = format!("is no PyTorch checkpoint, so dense.import.key = {key:?} has no meaning");
            return Err(bad_file(path, problem));
        }
        let bytes = contents.insert(read(path)?);
        let (file, metadata) = parse(path, bytes).map_err(|error| match error {
            ModelError::BadFile { path, problem } => {
                bad_file(&path, format!("{problem}; nor is it a PyTorch checkpoint"))
            }
            other => other,
        })?;
        let graph = metadata.get(GRAPH).map(|graph| serde_json::from_str(graph)).transpose();
        let graph = graph.map_err(|e| bad_file(path, format!("holds a wrong graph: {e}")))?;
        Ok(Self::Safetensors { file, graph })
    }

    pub(super) fn container(&self) -> &'static str {
        match self {
            Self::Safetensors { .. } => "safetensors",
            Self::Checkpoint(checkpoint) => checkpoint.container,
        }
    }

    /// Names with element types and shapes; of a checkpoint in its order, of safetensors by name.
    pub(super) fn entries(&self) -> Vec<(String, TensorKind)> {
        match self {
            Self::Safetensors { file, .. } => {
                // The library returns them in the order of a hash map.
                let mut entries: Vec<(String, TensorKind)> = file
                    .iter()
                    .map(|(name, view)| {
                        let dtype = format!("{:?}", view.dtype()).to_lowercase();
                        (name.to_owned(), TensorKind { dtype, shape: view.shape().to_vec() })
                    })
                    .collect();
                entries.sort_by(|a, b| a.0.cmp(&b.0));
                entries
            }
            Self::Checkpoint(checkpoint) => checkpoint
                .entries
                .iter()
                .map(|(name, entry)| {
                    let dtype = entry.element.name().to_owned();
                    (name.clone(), TensorKind { dtype, shape: entry.shape.clone() })
                })
                .collect(),
        }
    }

    /// The numbers of a tensor.
    pub(super) fn tensor(&mut self, path: &Path, name: &str) -> Result<Tensor, ModelError> {
        let missing = || bad_file(path, format!("tensor {name:?} has gone"));
        let make = |bytes: &[u8], shape: &[usize], kind: Kind| {
            let shape: Vec<i64> = shape.iter().map(|&n| n as i64).collect();
            Tensor::f_from_data_size(bytes, &shape, kind).context(|| format!("tensor {name:?}"))
        };
        match self {
            Self::Safetensors { file, .. } => {
                let view = file.tensor(name).map_err(|_| missing())?;
                let kind = match view.dtype() {
                    Dtype::F32 => Kind::Float,
                    Dtype::F64 => Kind::Double,
                    Dtype::F16 => Kind::Half,
                    Dtype::BF16 => Kind::BFloat16,
                    other => return Err(bad_file(path, format!("tensor {name:?} is {other:?}"))),
                };
                make(view.data(), view.shape(), kind)
            }
            Self::Checkpoint(checkpoint) => {
                let found = checkpoint.entries.iter().find(|(entry, _)| entry == name);
                let entry: Entry = found.ok_or_else(missing)?.1.clone();
                let kind = match entry.element {
                    Element::F32 => Kind::Float,
                    Element::F64 => Kind::Double,
                    Element::F16 => Kind::Half,
                    Element::Bf16 => Kind::BFloat16,
                    other => return Err(bad_file(path, format!("tensor {name:?} is {}", other.name()))),
                };
                let bytes = checkpoint
                    .read(&entry)
                    .map_err(|problem| bad_file(path, format!("tensor {name:?}: {problem}")))?;
                make(&bytes, &entry.shape, kind)
            }
        }
    }
}
