//! The values of a pickle in a flat arena: containers refer to each other by index, so that values that are nested deeply
//! or contain themselves are dropped like any other and take no more memory than was built.

use std::rc::Rc;

/// Limit of values that one pickle may build or copy. A checkpoint of a thousand tensors builds about fifty thousand.
pub(super) const MOST_VALUES: usize = 1 << 22;
/// Limit of bytes in all strings of one pickle together.
pub(super) const MOST_TEXT: usize = 1 << 26;
/// Limit of bytes in the name of a class or function.
const MOST_NAME: usize = 4096;
/// Limit of a tensor's axes, as in PyTorch.
const MOST_AXES: usize = 64;

/// Index of a container in its [`Heap`].
pub(super) type Place = usize;

/// A value of a pickle. Containers are shared, as Python's are, and complete before they are read.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    None,
    Bool(bool),
    Int(i64),
    /// A whole number that does not fit 64 bits (the magic number of old files), little-endian two's complement.
    Long(Rc<[u8]>),
    Float(f64),
    Text(Rc<str>),
    Bytes(Rc<[u8]>),
    Tuple(Place),
    List(Place),
    /// Also `collections.OrderedDict` and sets (without values): key, value, key, value and so on.
    Dict(Place),
    /// `module.name`.
    Global(Rc<str>),
    /// Index in [`Heap::storages`]: the reference that `torch.save` writes in place of the numbers.
    Storage(Place),
    Tensor(Place),
    /// An object of an unsupported class; it was not constructed.
    Opaque(Rc<str>),
}

/// Which part of which storage a tensor is, in elements.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct TensorRef {
    /// Index in [`Heap::storages`].
    pub(super) storage: Place,
    pub(super) offset: usize,
    pub(super) shape: Vec<usize>,
    pub(super) stride: Vec<usize>,
}

/// All containers, tensors and storages of a pickle, and how much more it may build.
#[derive(Debug, Default)]
pub(super) struct Heap {
    containers: Vec<Vec<Value>>,
    tensors: Vec<TensorRef>,
    /// Every reference to a storage, in the order of the file.
    pub(super) storages: Vec<Value>,
    values: usize,
    text: usize,
}

impl Value {
    pub(super) fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    pub(super) fn size(&self) -> Option<usize> {
        match self {
            Self::Int(n) => usize::try_from(*n).ok(),
            _ => None,
        }
    }

    /// The kind of the value, for messages.
    pub(super) fn kind(&self) -> String {
        match self {
            Self::None => "None".into(),
            Self::Bool(_) => "a truth value".into(),
            Self::Int(_) | Self::Long(_) | Self::Float(_) => "a number".into(),
            Self::Text(_) | Self::Bytes(_) => "a text".into(),
            Self::Tuple(_) | Self::List(_) => "a list".into(),
            Self::Dict(_) => "a dictionary".into(),
            Self::Global(name) => format!("the name {name}"),
            Self::Storage(_) => "a storage".into(),
            Self::Tensor(_) => "a tensor".into(),
            Self::Opaque(name) => format!("an object of {name}"),
        }
    }
}

impl Heap {
    /// Counts values that are about to be built against the limit.
    pub(super) fn count(&mut self, values: usize) -> Result<(), String> {
        self.values = self.values.saturating_add(values);
        if self.values > MOST_VALUES {
            return Err(format!("builds more than {MOST_VALUES} values, which no checkpoint needs"));
        }
        Ok(())
    }

    /// Counts the bytes of a string that is about to be read against the limit.
    pub(super) fn count_text(&mut self, bytes: usize) -> Result<(), String> {
        self.text = self.text.saturating_add(bytes);
        if self.text > MOST_TEXT {
            return Err(format!("has texts of more than {MOST_TEXT} bytes"));
        }
        Ok(())
    }

    /// A new container of these values.
    pub(super) fn container(&mut self, items: Vec<Value>) -> Place {
        self.containers.push(items);
        self.containers.len() - 1
    }

    /// The values of a tuple, list or dictionary.
    pub(super) fn items(&self, place: Place) -> &[Value] {
        &self.containers[place]
    }

    pub(super) fn items_mut(&mut self, place: Place) -> &mut Vec<Value> {
        &mut self.containers[place]
    }

    /// The entries of a dictionary, in the order in which they were set.
    pub(super) fn entries(&self, dict: Place) -> impl Iterator<Item = (&Value, &Value)> {
        self.items(dict).chunks_exact(2).map(|pair| (&pair[0], &pair[1]))
    }

    pub(super) fn tensor(&self, place: Place) -> &TensorRef {
        &self.tensors[place]
    }

    /// `module.name`.
    pub(super) fn global(&mut self, module: &str, name: &str) -> Result<Value, String> {
        let len = module.len() + name.len();
        if len > MOST_NAME {
            return Err(format!("names a global by {len} letters"));
        }
        self.count_text(len)?;
        Ok(Value::Global(format!("{module}.{name}").into()))
    }

    /// The result of one of the few supported calls and constructions.
    pub(super) fn construct(&mut self, callable: &Value, arguments: &Value) -> Result<Value, String> {
        let name = match callable {
            Value::Global(name) => name,
            // The result of another unsupported construction.
            Value::Opaque(name) => return Ok(Value::Opaque(name.clone())),
            other => return Ok(Value::Opaque(other.kind().into())),
        };
        let Value::Tuple(place) = arguments else {
            return Err(format!("calls {name} without a tuple of arguments"));
        };
        match (&**name, self.items(*place)) {
            ("collections.OrderedDict", []) => Ok(Value::Dict(self.container(Vec::new()))),
            // OrderedDict([[key, value], …]) of Python 2.
            ("collections.OrderedDict", [Value::List(pairs)]) => {
                let pairs = *pairs;
                self.dict_of_pairs(pairs)
            }
            ("torch._utils._rebuild_tensor_v2" | "torch._utils._rebuild_tensor", arguments) => {
                let tensor = self.tensor_of(arguments)?;
                self.tensors.push(tensor);
                Ok(Value::Tensor(self.tensors.len() - 1))
            }
            ("torch._utils._rebuild_parameter", [tensor, ..]) => Ok(tensor.clone()),
            ("torch.Size", [Value::Tuple(sizes)]) => Ok(Value::Tuple(*sizes)),
            _ => Ok(Value::Opaque(name.clone())),
        }
    }

    fn dict_of_pairs(&mut self, pairs: Place) -> Result<Value, String> {
        self.count(2 * self.items(pairs).len())?;
        let mut entries = Vec::new();
        for pair in self.items(pairs) {
            match pair {
                Value::List(pair) | Value::Tuple(pair) if self.items(*pair).len() == 2 => {
                    entries.extend_from_slice(self.items(*pair));
                }
                _ => return Err("has a dictionary of something else than pairs".to_owned()),
            }
        }
        Ok(Value::Dict(self.container(entries)))
    }

    /// `_rebuild_tensor_v2(storage, offset, size, stride, requires_grad, hooks, metadata)`.
    fn tensor_of(&self, arguments: &[Value]) -> Result<TensorRef, String> {
        let bad = || "has a tensor that is not put together as PyTorch does".to_owned();
        let [Value::Storage(storage), offset, shape, stride, rest @ ..] = arguments else {
            return Err(bad());
        };
        // Bits that change what the numbers mean: conjugated, negated.
        if let Some(metadata) = rest.get(2)
            && !matches!(metadata, Value::Dict(place) if self.items(*place).is_empty())
            && *metadata != Value::None
        {
            return Err("has a tensor with metadata (conjugated or negated), which is not read".to_owned());
        }
        let shape = self.sizes(shape).ok_or_else(bad)?;
        let stride = self.sizes(stride).ok_or_else(bad)?;
        if shape.len() != stride.len() || shape.len() > MOST_AXES {
            return Err(bad());
        }
        let offset = offset.size().ok_or_else(bad)?;
        Ok(TensorRef { storage: *storage, offset, shape, stride })
    }

    fn sizes(&self, value: &Value) -> Option<Vec<usize>> {
        match value {
            Value::Tuple(place) | Value::List(place) if self.items(*place).len() <= MOST_AXES => {
                self.items(*place).iter().map(Value::size).collect()
            }
            _ => None,
        }
    }
}
