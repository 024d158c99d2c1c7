//! Foreign weight files: torchvision's and timm's names, safetensors and PyTorch checkpoints, prefixes and wrappers.
//!
//! Names, shapes and element types must fit exactly under the rules of a spec; what was mapped, ignored or changed is
//! reported, everything else is refused.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use safetensors::tensor::{Dtype, SafeTensors};
use serde::Serialize;
use tch::{Device, Kind, Tensor};
use thinet_graph::Graph;

use crate::checkpoint::{Checkpoint, Element, Entry, is_checkpoint};
use crate::error::Context;
use crate::file::{GRAPH, bad_file, parse, read};
use crate::weights::{TensorKind, layer_of};
use crate::{FileType, ImportRules, Layout, ModelError, Weights, names};

/// What `DataParallel` puts in front of names: around a whole net, or around VGG's two parts.
const WHOLE: &str = "module.";
const PARTS: [&str; 2] = ["features.module.", "classifier.module."];
/// A counter of PyTorch's batch normalisations that no computation uses here.
const COUNTER: &str = "num_batches_tracked";

/// What an import did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct ImportReport {
    /// `safetensors`, `zip` or `stream`.
    pub container: &'static str,
    /// The key that the state dict was found under, if it was wrapped.
    pub wrapper: Option<&'static str>,
    /// The prefix that was taken off every name.
    pub prefix: Option<&'static str>,
    /// Whose names the file has.
    pub layout: Layout,
    /// The element type in the file.
    pub dtype: FileType,
    /// Name in the file and name of the net's tensor, where they differ.
    pub mapped: Vec<(String, String)>,
    /// Tensors that were taken.
    pub taken: usize,
    /// Names in the file that are not used.
    pub ignored: Vec<String>,
    /// Tensors of the net that the file is not asked for.
    pub fresh: Vec<String>,
    /// What was changed on the way, one line each.
    pub notes: Vec<String>,
}

impl ImportReport {
    /// The report for people, a few lines.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let mut first = format!("{} tensors from {} ({:?} names", self.taken, self.container, self.layout);
        if let Some(key) = self.wrapper {
            first.push_str(&format!(", under {key:?}"));
        }
        if let Some(prefix) = self.prefix {
            first.push_str(&format!(", prefix {prefix:?} taken off"));
        }
        first.push(')');
        let mut lines = vec![first.to_lowercase()];
        if let (Some((from, to)), Some((last, of_last))) = (self.mapped.first(), self.mapped.last()) {
            lines.push(format!("{} names mapped: {from} to {to} … {last} to {of_last}", self.mapped.len()));
        }
        if !self.ignored.is_empty() {
            let some = self.ignored.iter().take(4).map(String::as_str).collect::<Vec<_>>().join(", ");
            let more = if self.ignored.len() > 4 { " …" } else { "" };
            lines.push(format!("{} not used: {some}{more}", self.ignored.len()));
        }
        if !self.fresh.is_empty() {
            lines.push(format!("start at random: {}", self.fresh.join(", ")));
        }
        lines.extend(self.notes.iter().cloned());
        lines
    }
}

/// Finds out what [`import_weights`] would do, without reading the numbers.
///
/// # Errors
/// As [`import_weights`].
pub fn check_import(path: &Path, graph: &Graph, rules: &ImportRules) -> Result<ImportReport, ModelError> {
    let mut contents = None;
    let source = Source::open(path, &mut contents)?;
    plan(path, &source, graph, rules).map(|plan| plan.report)
}

/// The tensors of a net from a file: all but those of `rules.fresh`.
///
/// # Errors
/// If the file cannot be read or is none of the known containers; if a tensor is missing, unexpected, or of another shape
/// or element type than the net and the rules say; if the names follow no layout throughout; if the stride convention of
/// the net is not that of the weights. Each names file and tensor.
pub fn import_weights(
    path: &Path,
    graph: &Graph,
    rules: &ImportRules,
    device: Device,
) -> Result<(Weights, ImportReport), ModelError> {
    let mut contents = None;
    let mut source = Source::open(path, &mut contents)?;
    let Plan { takes, folds, report } = plan(path, &source, graph, rules)?;
    let mut weights = Weights::new();
    let needed: BTreeMap<String, Vec<usize>> =
        graph.tensors().into_iter().map(|spec| (spec.name, spec.shape)).collect();
    for (tensor, from) in takes {
        let shape: Vec<i64> = needed[&tensor].iter().map(|&n| n as i64).collect();
        let value = source.tensor(path, &from)?;
        let value = value
            .f_to_kind(Kind::Float)
            .and_then(|t| t.f_reshape(&shape))
            .and_then(|t| t.f_to_device(device))
            .context(|| format!("tensor {tensor:?}"))?;
        weights.insert(tensor, value);
    }
    for (bias, mean) in folds {
        let bias = source.tensor(path, &bias)?;
        let context = || format!("tensor {mean:?}");
        let bias = bias.f_to_kind(Kind::Float).and_then(|t| t.f_to_device(device)).context(context)?;
        let folded = weights.get(&mean)?.f_sub(&bias).context(context)?;
        weights.insert(mean, folded);
    }
    Ok((weights, report))
}

/// An opened file.
enum Source<'a> {
    Safetensors { file: SafeTensors<'a>, graph: Option<Box<Graph>> },
    Checkpoint(Checkpoint),
}

impl<'a> Source<'a> {
    fn open(path: &Path, contents: &'a mut Option<Vec<u8>>) -> Result<Self, ModelError> {
        let mut start = Vec::new();
        File::open(path)
            .and_then(|file| file.take(16).read_to_end(&mut start))
            .map_err(|source| ModelError::Io { action: "read", path: path.to_owned(), source })?;
        if is_checkpoint(&start) {
            return Ok(Self::Checkpoint(Checkpoint::open(path)?));
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

    fn container(&self) -> &'static str {
        match self {
            Self::Safetensors { .. } => "safetensors",
            Self::Checkpoint(checkpoint) => checkpoint.container,
        }
    }

    /// Names with element types and shapes; of a checkpoint in its order, of safetensors by name.
    fn entries(&self) -> Vec<(String, TensorKind)> {
        match self {
            Self::Safetensors { file, .. } => {
                // The library hands them out in the order of a hash map.
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
    fn tensor(&mut self, path: &Path, name: &str) -> Result<Tensor, ModelError> {
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

/// What to take from where.
struct Plan {
    /// Tensor of the net and name in the file.
    takes: Vec<(String, String)>,
    /// Name of a convolution's bias in the file, and the running mean it is folded into.
    folds: Vec<(String, String)>,
    report: ImportReport,
}

fn plan(path: &Path, source: &Source<'_>, graph: &Graph, rules: &ImportRules) -> Result<Plan, ModelError> {
    let entries = source.entries();
    let (prefix, stripped) = strip(path, entries)?;
    let own_graph = match source {
        Source::Safetensors { graph, .. } => graph.as_deref(),
        Source::Checkpoint(_) => None,
    };
    if let Some(own) = own_graph {
        same_graph(path, own, graph)?;
    }
    let has = |start: &str| stripped.iter().any(|entry| entry.name.starts_with(start));
    let layout = rules.layout.unwrap_or_else(|| match () {
        () if has("pre_logits.") || has("head.fc") => Layout::Timm,
        () if has("features.") => Layout::Torchvision,
        // A ResNet of ours has torchvision's names; what it computes was compared above.
        () if own_graph.is_some() => Layout::Own,
        () if names::strides_first(graph).is_some() => Layout::Torchvision,
        () => Layout::Own,
    });
    stride_fits(path, graph, layout)?;

    let theirs = names::layers(graph, layout);
    let ours: BTreeMap<&str, &str> =
        theirs.iter().map(|(own, other)| (other.as_str(), own.as_str())).collect();
    let needed: BTreeMap<String, Vec<usize>> =
        graph.tensors().into_iter().map(|spec| (spec.name, spec.shape)).collect();
    let mut report = ImportReport {
        container: source.container(),
        wrapper: match source {
            Source::Checkpoint(checkpoint) => checkpoint.wrapper,
            Source::Safetensors { .. } => None,
        },
        prefix,
        layout,
        dtype: rules.dtype,
        mapped: Vec::new(),
        taken: 0,
        ignored: Vec::new(),
        fresh: needed.keys().filter(|tensor| rules.is_fresh(tensor)).cloned().collect(),
        notes: Vec::new(),
    };
    let contents =
        |source: ModelError| ModelError::FileContents { path: path.to_owned(), source: Box::new(source) };
    let (mut takes, mut folds) = (BTreeMap::new(), Vec::new());
    for Stripped { name, from, kind } in &stripped {
        let (layer, part) = name.rsplit_once('.').unwrap_or(("", name));
        let own_layer = ours.get(layer).copied().unwrap_or(layer);
        let tensor = if layer.is_empty() { part.to_owned() } else { format!("{own_layer}.{part}") };
        let unwanted = part == COUNTER || rules.ignore.iter().any(|start| name.starts_with(start.as_str()));
        if unwanted || rules.is_fresh(&tensor) {
            report.ignored.push(from.clone());
            continue;
        }
        if let Some(mean) = folded_mean(graph, own_layer, part) {
            let expected = TensorKind { dtype: rules.dtype.name().to_owned(), shape: needed[&mean].clone() };
            fits(&tensor, &expected, kind).map_err(contents)?;
            folds.push((from.clone(), mean));
            continue;
        }
        let Some(shape) = needed.get(&tensor) else {
            let (tensor, found) = (from.clone(), kind.to_string());
            return Err(contents(ModelError::UnexpectedTensor {
                tensor,
                found,
                graph: graph.name().to_owned(),
            }));
        };
        let timm = (layout == Layout::Timm && part == "weight").then(|| names::timm_shape(graph, own_layer));
        let shape = timm.flatten().map_or_else(|| shape.clone(), |shape| shape.to_vec());
        let expected = TensorKind { dtype: rules.dtype.name().to_owned(), shape };
        fits(&tensor, &expected, kind).map_err(contents)?;
        if let Some(other) = takes.insert(tensor.clone(), from.clone()) {
            return Err(bad_file(path, format!("both {other:?} and {from:?} are {tensor:?}")));
        }
        if *from != tensor {
            report.mapped.push((from.clone(), tensor));
        }
    }
    for (tensor, shape) in &needed {
        if !takes.contains_key(tensor) && !rules.is_fresh(tensor) {
            let (layer, tensor) = (layer_of(tensor).to_owned(), tensor.clone());
            let expected = TensorKind { dtype: rules.dtype.name().to_owned(), shape: shape.clone() };
            return Err(contents(ModelError::MissingTensor {
                layer,
                tensor,
                expected: expected.to_string(),
            }));
        }
    }
    report.taken = takes.len() + folds.len();
    if rules.dtype != FileType::F32 {
        report.notes.push(format!("turned from {} into f32", rules.dtype.name()));
    }
    if !folds.is_empty() {
        report.notes.push(format!(
            "{} biases in front of batch normalisations folded into their running means",
            folds.len()
        ));
    }
    Ok(Plan { takes: takes.into_iter().collect(), folds, report })
}

fn fits(tensor: &str, expected: &TensorKind, found: &TensorKind) -> Result<(), ModelError> {
    if expected == found {
        return Ok(());
    }
    Err(ModelError::TensorMismatch {
        layer: layer_of(tensor).to_owned(),
        tensor: tensor.to_owned(),
        expected: expected.to_string(),
        found: found.to_string(),
    })
}

/// A tensor of the file, and its name without prefix.
struct Stripped {
    name: String,
    from: String,
    kind: TensorKind,
}

/// Takes `DataParallel`'s prefixes off: all names have them, or none.
fn strip(
    path: &Path,
    entries: Vec<(String, TensorKind)>,
) -> Result<(Option<&'static str>, Vec<Stripped>), ModelError> {
    let keep = |(from, kind): (String, TensorKind)| Stripped { name: from.clone(), from, kind };
    let is_whole = |name: &str| name.starts_with(WHOLE);
    if let Some((with, _)) = entries.iter().find(|(name, _)| is_whole(name)) {
        if let Some((without, _)) = entries.iter().find(|(name, _)| !is_whole(name)) {
            let problem = format!("{with:?} has the prefix {WHOLE:?}, {without:?} has not");
            return Err(bad_file(path, problem));
        }
        let stripped = entries.into_iter().map(|(from, kind)| Stripped {
            name: from[WHOLE.len()..].to_owned(),
            from,
            kind,
        });
        return Ok((Some(WHOLE), stripped.collect()));
    }
    // torchvision's old example wraps VGG's features only; the classifier is then as it was.
    let [features, classifier] = PARTS;
    if let Some((with, _)) = entries.iter().find(|(name, _)| name.starts_with(features)) {
        let plain = |name: &str| name.starts_with("features.") && !name.starts_with(features);
        if let Some((without, _)) = entries.iter().find(|(name, _)| plain(name)) {
            let problem = format!("{with:?} has the prefix {features:?}, {without:?} has not");
            return Err(bad_file(path, problem));
        }
        let stripped = entries.into_iter().map(|(from, kind)| {
            let name = from.replacen(features, "features.", 1).replacen(classifier, "classifier.", 1);
            Stripped { name, from, kind }
        });
        return Ok((Some(features), stripped.collect()));
    }
    Ok((None, entries.into_iter().map(keep).collect()))
}

/// A file of ours says what it computes; that must be what is asked for.
fn same_graph(path: &Path, own: &Graph, graph: &Graph) -> Result<(), ModelError> {
    let differs = own.nodes().iter().zip(graph.nodes()).find(|(a, b)| a != b);
    if let Some((found, expected)) = differs {
        let problem = format!(
            "its net differs at node {:?}: {:?}, expected {:?} {:?}",
            found.name, found.op, expected.name, expected.op
        );
        return Err(bad_file(path, problem));
    }
    if own.nodes().len() != graph.nodes().len() {
        let problem = format!("its net has {} nodes, expected {}", own.nodes().len(), graph.nodes().len());
        return Err(bad_file(path, problem));
    }
    Ok(())
}

/// torchvision's and timm's ResNet-50 stride in the 3×3 convolution, Caffe's in the first 1×1; the names are the same, and
/// the wrong one runs and is wrong.
fn stride_fits(path: &Path, graph: &Graph, layout: Layout) -> Result<(), ModelError> {
    let problem = match (names::strides_first(graph), layout) {
        (Some(true), Layout::Torchvision | Layout::Timm) => {
            "holds weights of torchvision's ResNet-50, which strides in the 3x3 convolution, and the net strides in the \
             first 1x1: set net.stride = \"3x3\", or dense.import.layout = \"caffe\" if the weights are Caffe's"
        }
        (Some(false), Layout::Caffe) => {
            "holds weights of Caffe's ResNet-50, which strides in the first 1x1 convolution, and the net strides in the \
             3x3: set net.stride = \"1x1\""
        }
        _ => return Ok(()),
    };
    Err(bad_file(path, problem))
}

/// For the bias of a convolution that has none in the graph because a batch normalisation follows: the running mean
/// that it is subtracted from. BN(x + b) = BN'(x) with the mean less b.
fn folded_mean(graph: &Graph, layer: &str, part: &str) -> Option<String> {
    let id = graph.find(layer).filter(|_| part == "bias")?;
    let thinet_graph::Op::Conv { bias: false, .. } = graph.nodes()[id].op else { return None };
    let [next] = graph.consumers(id)[..] else { return None };
    let next = &graph.nodes()[next];
    matches!(next.op, thinet_graph::Op::BatchNorm { .. }).then(|| format!("{}.running_mean", next.name))
}

impl FileType {
    /// `f32` and so on.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
            Self::F64 => "f64",
        }
    }
}
