//! Foreign weight files: torchvision's and timm's names, safetensors and PyTorch checkpoints, prefixes and wrappers.
//!
//! Names, shapes and element types must fit exactly under the rules of a spec; what was mapped, ignored or changed is
//! reported, everything else is refused.

mod advice;
mod prefix;
mod report;
mod source;

use std::collections::BTreeMap;
use std::path::Path;

use tch::{Device, Kind, Tensor};
use thinet_graph::Graph;

use self::prefix::{FileTensor, Names, strip};
pub use self::report::ImportReport;
use self::source::Source;
use crate::error::Context;
use crate::file::bad_file;
use crate::weights::{TensorKind, layer_of};
use crate::{FileType, ImportRules, Layout, ModelError, Weights, names};

/// A counter of PyTorch's batch normalisations that no computation uses here.
const COUNTER: &str = "num_batches_tracked";

/// Reports what [`import_weights`] would do, without reading the numbers.
///
/// # Errors
/// As [`import_weights`].
pub fn check_import(path: &Path, graph: &Graph, rules: &ImportRules) -> Result<ImportReport, ModelError> {
    let mut contents = None;
    let source = Source::open(path, rules, &mut contents)?;
    plan(path, &source, graph, rules).map(|plan| plan.report)
}

/// The tensors of a net from a file: all but those of `rules.fresh`.
///
/// # Errors
/// If the file cannot be read or is none of the known containers; if a tensor is missing, unexpected, or of another shape
/// or element type than the net and the rules say, or holds values that are not finite; if the names follow no layout
/// throughout; if the stride convention of the net is not that of the weights. Each names file and tensor.
pub fn import_weights(
    path: &Path,
    graph: &Graph,
    rules: &ImportRules,
    device: Device,
) -> Result<(Weights, ImportReport), ModelError> {
    let mut contents = None;
    let mut source = Source::open(path, rules, &mut contents)?;
    let Plan { takes, folds, report } = plan(path, &source, graph, rules)?;
    let mut weights = Weights::new();
    let needed: BTreeMap<String, Vec<usize>> =
        graph.tensors().into_iter().map(|spec| (spec.name, spec.shape)).collect();
    for (tensor, from) in takes {
        let shape: Vec<i64> = needed[&tensor].iter().map(|&n| n as i64).collect();
        let value = floats(path, &mut source, &from)?
            .f_reshape(&shape)
            .and_then(|t| t.f_to_device(device))
            .context(|| format!("tensor {tensor:?}"))?;
        weights.insert(tensor, value);
    }
    for (bias, mean) in folds {
        let context = || format!("tensor {mean:?}");
        let bias = floats(path, &mut source, &bias)?.f_to_device(device).context(context)?;
        let folded = weights.get(&mean)?.f_sub(&bias).context(context)?;
        weights.insert(mean, folded);
    }
    Ok((weights, report))
}

/// A tensor of the file as 32-bit floats, all of them finite.
fn floats(path: &Path, source: &mut Source<'_>, name: &str) -> Result<Tensor, ModelError> {
    let context = || format!("tensor {name:?}");
    let value = source.tensor(path, name)?;
    let not_finite = |value: &Tensor| {
        let count = value.f_isfinite().and_then(|t| t.f_logical_not()).and_then(|t| t.f_sum(Kind::Int64));
        count.and_then(|count| count.f_int64_value(&[])).context(context)
    };
    let refused = |count: i64, problem: &str| {
        bad_file(path, format!("tensor {name:?}: {count} of {} values {problem}", value.numel()))
    };
    match not_finite(&value)? {
        0 => {}
        count => {
            let problem = "are not finite (NaN or infinite): the training diverged, or the file is damaged";
            return Err(refused(count, problem));
        }
    }
    let floats = value.f_to_kind(Kind::Float).context(context)?;
    match not_finite(&floats)? {
        0 => Ok(floats),
        count => Err(refused(count, "are too large for 32-bit floats")),
    }
}

/// Which tensors to take from the file.
struct Plan {
    /// Tensor of the net and name in the file.
    takes: Vec<(String, String)>,
    /// Name of a convolution's bias in the file, and the running mean it is folded into.
    folds: Vec<(String, String)>,
    report: ImportReport,
}

fn plan(path: &Path, source: &Source<'_>, graph: &Graph, rules: &ImportRules) -> Result<Plan, ModelError> {
    let entries = source.entries();
    if entries.is_empty() {
        let under = match source {
            Source::Checkpoint(checkpoint) => checkpoint.wrapper.as_ref(),
            Source::Safetensors { .. } => None,
        };
        let under = under.map(|key| format!(" under {key:?}")).unwrap_or_default();
        return Err(bad_file(path, format!("holds no tensors{under}")));
    }
    let Names { prefix, wanted: stripped, aside, notes } = strip(path, entries, rules)?;
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
        // Our ResNet has torchvision's names; its graph was compared above.
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
            Source::Checkpoint(checkpoint) => checkpoint.wrapper.clone(),
            Source::Safetensors { .. } => None,
        },
        prefix: prefix.clone(),
        layout,
        dtype: rules.dtype,
        mapped: Vec::new(),
        taken: 0,
        ignored: aside,
        fresh: needed.keys().filter(|tensor| rules.is_fresh(tensor)).cloned().collect(),
        notes,
    };
    if let Source::Checkpoint(checkpoint) = source {
        report.notes.extend(checkpoint.notes.iter().cloned());
    }
    let contents =
        |source: ModelError| ModelError::FileContents { path: path.to_owned(), source: Box::new(source) };
    let (mut takes, mut folds) = (BTreeMap::new(), Vec::new());
    for FileTensor { name, from, kind } in &stripped {
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
            fits(graph, &tensor, &expected, kind).map_err(contents)?;
            folds.push((from.clone(), mean));
            continue;
        }
        let Some(shape) = needed.get(&tensor) else {
            let (tensor, found) = (from.clone(), kind.to_string());
            let unexpected = ModelError::UnexpectedTensor { tensor, found, graph: graph.name().to_owned() };
            let advice = advice::for_prefix(graph, &stripped, prefix.as_deref());
            return Err(contents(advice::with(unexpected, advice)));
        };
        let timm = (layout == Layout::Timm && part == "weight").then(|| names::timm_shape(graph, own_layer));
        let shape = timm.flatten().map_or_else(|| shape.clone(), |shape| shape.to_vec());
        let expected = TensorKind { dtype: rules.dtype.name().to_owned(), shape };
        fits(graph, &tensor, &expected, kind).map_err(contents)?;
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

fn fits(graph: &Graph, tensor: &str, expected: &TensorKind, found: &TensorKind) -> Result<(), ModelError> {
    if expected == found {
        return Ok(());
    }
    let mismatch = ModelError::TensorMismatch {
        layer: layer_of(tensor).to_owned(),
        tensor: tensor.to_owned(),
        expected: expected.to_string(),
        found: found.to_string(),
    };
    Err(advice::with(mismatch, advice::for_mismatch(graph, tensor, expected, found)))
}

/// Checks the graph that a file of this project carries against the expected one.
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
/// the wrong one runs with wrong results.
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
