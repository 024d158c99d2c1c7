//! The named tensors of a network, and the exact check that they fit a graph.

use std::collections::BTreeMap;

use tch::{Device, Kind, Tensor};
use thinet_graph::{Graph, TensorSpec};

use crate::error::Context;
use crate::{MemoryFormat, ModelError};

/// The tensors of a network under the names of [`Graph::tensors`], all 32-bit floats.
///
/// Cloning a tensor of tch shares its storage; [`Weights::deep_copy`] does not.
#[derive(Debug, Default)]
pub struct Weights {
    tensors: BTreeMap<String, Tensor>,
}

impl Weights {
    /// An empty set of tensors.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds or replaces a tensor.
    pub fn insert(&mut self, name: impl Into<String>, tensor: Tensor) {
        self.tensors.insert(name.into(), tensor);
    }

    /// The tensor of this name.
    ///
    /// # Errors
    /// If there is none.
    pub fn get(&self, name: &str) -> Result<&Tensor, ModelError> {
        self.tensors.get(name).ok_or_else(|| ModelError::MissingTensor {
            layer: layer_of(name).to_owned(),
            tensor: name.to_owned(),
            expected: "one in the weights".into(),
        })
    }

    /// All tensors by ascending name.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &Tensor)> {
        self.tensors.iter().map(|(name, tensor)| (name.as_str(), tensor))
    }

    /// A copy that shares no storage.
    ///
    /// # Errors
    /// If libtorch cannot allocate it.
    pub fn deep_copy(&self) -> Result<Self, ModelError> {
        self.map(copy_tensor)
    }

    /// A copy on this device.
    ///
    /// # Errors
    /// If libtorch cannot allocate it there.
    pub fn to_device(&self, device: Device) -> Result<Self, ModelError> {
        self.map(|name, tensor| {
            if tensor.device() == device {
                copy_tensor(name, tensor)
            } else {
                tensor.f_to_device(device).context(|| format!("move of tensor {name:?} to {device:?}"))
            }
        })
    }

    /// A copy in this memory format.
    ///
    /// # Errors
    /// If libtorch cannot allocate it.
    pub fn to_format(&self, format: MemoryFormat) -> Result<Self, ModelError> {
        self.map(|name, tensor| format.apply(&copy_tensor(name, tensor)?))
    }

    /// Checks that exactly the graph's tensors are there, with its shapes, as 32-bit floats.
    ///
    /// # Errors
    /// Names the first tensor that is missing, unexpected, or of another shape or element type.
    pub fn check(&self, graph: &Graph) -> Result<(), ModelError> {
        let found: BTreeMap<&str, TensorKind> =
            self.iter().map(|(name, tensor)| (name, TensorKind::of(tensor))).collect();
        check_tensors(graph.name(), &graph.tensors(), &found)
    }

    fn map(
        &self,
        mut f: impl FnMut(&str, &Tensor) -> Result<Tensor, ModelError>,
    ) -> Result<Self, ModelError> {
        let mut tensors = BTreeMap::new();
        for (name, tensor) in self.iter() {
            tensors.insert(name.to_owned(), f(name, tensor)?);
        }
        Ok(Self { tensors })
    }
}

impl FromIterator<(String, Tensor)> for Weights {
    fn from_iter<I: IntoIterator<Item = (String, Tensor)>>(tensors: I) -> Self {
        Self { tensors: tensors.into_iter().collect() }
    }
}

impl IntoIterator for Weights {
    type Item = (String, Tensor);
    type IntoIter = std::collections::btree_map::IntoIter<String, Tensor>;

    fn into_iter(self) -> Self::IntoIter {
        self.tensors.into_iter()
    }
}

/// A copy with storage of its own, in the same memory format.
pub(crate) fn copy_tensor(name: &str, tensor: &Tensor) -> Result<Tensor, ModelError> {
    let context = || format!("copy of tensor {name:?}");
    let mut copy = tensor.f_empty_like().context(context)?;
    copy.f_copy_(tensor).context(context)?;
    Ok(copy)
}

/// The layer that a tensor belongs to: `layer1.0.conv1` of `layer1.0.conv1.weight`.
pub(crate) fn layer_of(tensor: &str) -> &str {
    tensor.rsplit_once('.').map_or(tensor, |(layer, _)| layer)
}

/// Element type and shape, of a tensor in memory or in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TensorKind {
    /// `f32`, `f64` and so on.
    pub(crate) dtype: String,
    pub(crate) shape: Vec<usize>,
}

impl TensorKind {
    pub(crate) fn of(tensor: &Tensor) -> Self {
        let dtype = match tensor.kind() {
            Kind::Float => "f32".to_owned(),
            Kind::Double => "f64".to_owned(),
            Kind::Half => "f16".to_owned(),
            Kind::BFloat16 => "bf16".to_owned(),
            other => format!("{other:?}").to_lowercase(),
        };
        Self { dtype, shape: tensor.size().into_iter().map(|n| n as usize).collect() }
    }

    pub(crate) fn f32(shape: &[usize]) -> Self {
        Self { dtype: "f32".into(), shape: shape.to_vec() }
    }
}

impl std::fmt::Display for TensorKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {:?}", self.dtype, self.shape)
    }
}

/// Compares what a graph needs with what was found; exact in names, shapes and element type.
pub(crate) fn check_tensors(
    graph: &str,
    needed: &[TensorSpec],
    found: &BTreeMap<&str, TensorKind>,
) -> Result<(), ModelError> {
    for spec in needed {
        let expected = TensorKind::f32(&spec.shape);
        let layer = || layer_of(&spec.name).to_owned();
        match found.get(spec.name.as_str()) {
            Some(kind) if *kind == expected => {}
            Some(kind) => {
                return Err(ModelError::TensorMismatch {
                    layer: layer(),
                    tensor: spec.name.clone(),
                    expected: expected.to_string(),
                    found: kind.to_string(),
                });
            }
            None => {
                return Err(ModelError::MissingTensor {
                    layer: layer(),
                    tensor: spec.name.clone(),
                    expected: expected.to_string(),
                });
            }
        }
    }
    match found.iter().find(|(name, _)| !needed.iter().any(|spec| spec.name == **name)) {
        Some((name, kind)) => Err(ModelError::UnexpectedTensor {
            tensor: (*name).to_owned(),
            found: kind.to_string(),
            graph: graph.to_owned(),
        }),
        None => Ok(()),
    }
}
