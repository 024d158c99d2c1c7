//! Weight files: safetensors whose metadata holds the graph, so that loading a net needs nothing else.
//!
//! The header is written here, not by the safetensors crate, whose metadata comes out in another order on every run:
//! the same net gives the same bytes. Everything is read through that crate's checks.

use std::borrow::Borrow;
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use safetensors::tensor::{Dtype, SafeTensors, TensorInfo, TensorView};
use tch::{Device, Kind, Tensor};
use thinet_files::write_atomically_with;
use thinet_graph::Graph;

use crate::error::Context;
use crate::file_kind::{START, what_it_is};
use crate::weights::{TensorKind, check_tensors};
use crate::{Layout, ModelError, Net, Weights};

/// Metadata of a safetensors file, by key.
pub type Metadata = BTreeMap<String, String>;

/// The metadata entry that holds the graph as JSON.
pub(crate) const GRAPH: &str = "graph";
/// The metadata entry that says whose names an exported file has.
pub(crate) const LAYOUT: &str = "layout";
/// The header's entry for metadata, by the safetensors format.
const METADATA: &str = "__metadata__";

/// Saves a net with its graph and the given metadata. The write is atomic.
///
/// # Errors
/// If the weights do not fit the graph, `metadata` has a `graph` of its own, or the file cannot be written.
pub fn save_net(path: &Path, net: &Net, metadata: &Metadata) -> Result<(), ModelError> {
    net.weights.check(&net.graph)?;
    let graph = serde_json::to_string(&net.graph).map_err(|e| bad_file(path, e.to_string()))?;
    let mut metadata = metadata.clone();
    if metadata.insert(GRAPH.to_owned(), graph).is_some() {
        return Err(bad_file(path, format!("metadata {GRAPH:?} is the net's own")));
    }
    let tensors: Vec<(&str, &Tensor)> = net.weights.iter().collect();
    save_tensors(path, &tensors, &metadata)
}

/// Loads a net written by [`save_net`], and its metadata without the graph.
///
/// # Errors
/// If the file cannot be read, holds no graph, or its tensors do not fit that graph exactly.
pub fn load_net(path: &Path, device: Device) -> Result<(Net, Metadata), ModelError> {
    let bytes = read(path)?;
    let (file, mut metadata) = parse(path, &bytes)?;
    let Some(graph) = metadata.remove(GRAPH) else {
        return Err(bad_file(path, "holds no graph in its metadata, so it is no net of ours"));
    };
    let graph: Graph =
        serde_json::from_str(&graph).map_err(|e| bad_file(path, format!("holds a wrong graph: {e}")))?;
    let weights = fitting(path, &file, &graph, device).map_err(|error| match metadata.get(LAYOUT) {
        // Exported: what is missing under our names is there under others.
        Some(layout) if layout != Layout::Own.name() => {
            let problem =
                format!("holds its weights under the names of {layout}; a net is read from the layout own");
            bad_file(path, problem)
        }
        _ => error,
    })?;
    Ok((Net { graph, weights }, metadata))
}

/// What a safetensors file says about itself, whoever wrote it.
#[derive(Clone, Debug)]
pub struct FileContents {
    /// The graph, in files of this program.
    pub graph: Option<Graph>,
    /// Names, element types (`f32`) and shapes of the tensors, by name.
    pub tensors: Vec<(String, String, Vec<usize>)>,
    /// The metadata without the graph.
    pub metadata: Metadata,
}

/// Reads what a safetensors file holds, under whichever names: [`export_weights`](crate::export_weights) writes those of other
/// libraries. Nothing is compared with the graph.
///
/// # Errors
/// If the file cannot be read, is no whole safetensors file, or holds a graph that is none.
pub fn file_contents(path: &Path) -> Result<FileContents, ModelError> {
    let bytes = read(path)?;
    let (file, mut metadata) = parse(path, &bytes)?;
    let graph = metadata.remove(GRAPH).map(|graph| serde_json::from_str(&graph)).transpose();
    let graph = graph.map_err(|e| bad_file(path, format!("holds a wrong graph: {e}")))?;
    let described = |(name, view): (&str, TensorView<'_>)| {
        let TensorKind { dtype, shape } = kind_of(&view);
        (name.to_owned(), dtype, shape)
    };
    // The library hands them out in the order of a hash map.
    let mut tensors: Vec<_> = file.iter().map(described).collect();
    tensors.sort();
    Ok(FileContents { graph, tensors, metadata })
}

/// Loads the weights of a given graph from any safetensors file with the same names.
///
/// # Errors
/// If the file cannot be read, or its tensors are not exactly the graph's: names layer, expected and found.
pub fn load_weights(path: &Path, graph: &Graph, device: Device) -> Result<Weights, ModelError> {
    let bytes = read(path)?;
    let (file, _) = parse(path, &bytes)?;
    fitting(path, &file, graph, device)
}

/// Saves named tensors (f32, f64 or i64) with metadata: temporary name in the same folder, sync, rename.
///
/// # Errors
/// If a name repeats, a tensor is of another type, or the file cannot be written.
pub fn save_tensors<N: AsRef<str>, T: Borrow<Tensor>>(
    path: &Path,
    tensors: &[(N, T)],
    metadata: &Metadata,
) -> Result<(), ModelError> {
    let mut sorted = Vec::with_capacity(tensors.len());
    for (name, tensor) in tensors {
        let (name, tensor) = (name.as_ref(), tensor.borrow());
        let Some(dtype) = dtype_of(tensor) else {
            let found = TensorKind::of(tensor);
            return Err(bad_file(
                path,
                format!("tensor {name:?} is {found}, only f32, f64 and i64 are saved"),
            ));
        };
        sorted.push((name, dtype, tensor));
    }
    // Wide elements first, so that each tensor is aligned.
    sorted.sort_by_key(|&(name, _, tensor)| (Reverse(element_size(tensor)), name));
    let header = header(path, &sorted, metadata)?;
    write_atomically_with(path, |file| {
        write(path, file, &(header.len() as u64).to_le_bytes())?;
        write(path, file, &header)?;
        for (name, _, tensor) in &sorted {
            write(path, file, &bytes_of(name, tensor)?)?;
        }
        Ok(())
    })
}

/// Loads all tensors of a file and its metadata.
///
/// # Errors
/// If the file cannot be read or holds a tensor of another type than f32, f64 or i64.
pub fn load_tensors(path: &Path, device: Device) -> Result<(BTreeMap<String, Tensor>, Metadata), ModelError> {
    let bytes = read(path)?;
    let (file, metadata) = parse(path, &bytes)?;
    let mut tensors = BTreeMap::new();
    for (name, view) in file.iter() {
        let kind = match view.dtype() {
            Dtype::F32 => Kind::Float,
            Dtype::F64 => Kind::Double,
            Dtype::I64 => Kind::Int64,
            _ => {
                let found = kind_of(&view);
                return Err(bad_file(path, format!("tensor {name:?} is {found}; allowed: f32, f64, i64")));
            }
        };
        tensors.insert(name.to_owned(), tensor_of(name, &view, kind, device)?);
    }
    Ok((tensors, metadata))
}

pub(crate) fn bad_file(path: &Path, problem: impl Into<String>) -> ModelError {
    ModelError::BadFile { path: path.to_owned(), problem: problem.into() }
}

pub(crate) fn read(path: &Path) -> Result<Vec<u8>, ModelError> {
    fs::read(path).map_err(|source| ModelError::Io { action: "read", path: path.to_owned(), source })
}

pub(crate) fn parse<'a>(path: &Path, bytes: &'a [u8]) -> Result<(SafeTensors<'a>, Metadata), ModelError> {
    let whole = |e| {
        let problem = match what_it_is(&bytes[..bytes.len().min(START)]) {
            Some(what) => format!("is not a whole safetensors file, it {what}"),
            None => format!("is not a whole safetensors file: {e}"),
        };
        bad_file(path, problem)
    };
    let (_, header) = SafeTensors::read_metadata(bytes).map_err(whole)?;
    let metadata = header.metadata().clone().unwrap_or_default().into_iter().collect();
    Ok((SafeTensors::deserialize(bytes).map_err(whole)?, metadata))
}

/// The file's tensors, after an exact check of names, shapes and element type against the graph.
fn fitting(
    path: &Path,
    file: &SafeTensors<'_>,
    graph: &Graph,
    device: Device,
) -> Result<Weights, ModelError> {
    if file.is_empty() {
        return Err(bad_file(path, "holds no tensors"));
    }
    let kinds = file.iter().map(|(name, view)| (name, kind_of(&view))).collect();
    check_tensors(graph.name(), &graph.tensors(), &kinds)
        .map_err(|source| ModelError::FileContents { path: path.to_owned(), source: Box::new(source) })?;
    let mut weights = Weights::new();
    for (name, view) in file.iter() {
        weights.insert(name, tensor_of(name, &view, Kind::Float, device)?);
    }
    Ok(weights)
}

fn kind_of(view: &TensorView<'_>) -> TensorKind {
    let dtype = format!("{:?}", view.dtype()).to_lowercase();
    TensorKind { dtype, shape: view.shape().to_vec() }
}

fn tensor_of(name: &str, view: &TensorView<'_>, kind: Kind, device: Device) -> Result<Tensor, ModelError> {
    let shape: Vec<i64> = view.shape().iter().map(|&n| n as i64).collect();
    Tensor::f_from_data_size(view.data(), &shape, kind)
        .and_then(|tensor| tensor.f_to_device(device))
        .context(|| format!("tensor {name:?}"))
}

fn dtype_of(tensor: &Tensor) -> Option<Dtype> {
    match tensor.kind() {
        Kind::Float => Some(Dtype::F32),
        Kind::Double => Some(Dtype::F64),
        Kind::Int64 => Some(Dtype::I64),
        _ => None,
    }
}

fn element_size(tensor: &Tensor) -> usize {
    tensor.kind().elt_size_in_bytes()
}

/// The header of the safetensors format: JSON, padded with spaces to a multiple of eight bytes.
fn header(
    path: &Path,
    sorted: &[(&str, Dtype, &Tensor)],
    metadata: &Metadata,
) -> Result<Vec<u8>, ModelError> {
    let json =
        |value: serde_json::Result<serde_json::Value>| value.map_err(|e| bad_file(path, e.to_string()));
    let mut entries = BTreeMap::from([(METADATA, json(serde_json::to_value(metadata))?)]);
    let mut end = 0;
    for &(name, dtype, tensor) in sorted {
        let start = end;
        end += tensor.numel() * element_size(tensor);
        let shape = TensorKind::of(tensor).shape;
        let info = TensorInfo { dtype, shape, data_offsets: (start, end) };
        if entries.insert(name, json(serde_json::to_value(info))?).is_some() {
            return Err(bad_file(path, format!("two tensors are called {name:?}")));
        }
    }
    let mut header = serde_json::to_vec(&entries).map_err(|e| bad_file(path, e.to_string()))?;
    header.resize(header.len().next_multiple_of(8), b' ');
    Ok(header)
}

/// The tensor's values in row-major order; little-endian, as every machine that libtorch runs on.
fn bytes_of(name: &str, tensor: &Tensor) -> Result<Vec<u8>, ModelError> {
    let mut bytes = vec![0; tensor.numel() * element_size(tensor)];
    tensor.f_copy_data_u8(&mut bytes, tensor.numel()).context(|| format!("tensor {name:?}"))?;
    Ok(bytes)
}

fn write(path: &Path, file: &mut impl io::Write, bytes: &[u8]) -> Result<(), ModelError> {
    file.write_all(bytes).map_err(|source| ModelError::Io { action: "write", path: path.to_owned(), source })
}
