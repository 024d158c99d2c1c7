//! How one kind of evidence is gathered and stored: the traits, and the registry of every kind.

use std::collections::BTreeMap;
use std::fmt::{self, Debug};

use tch::{Kind, Tensor};
use thinet_graph::{ChannelGroup, Graph, NodeId, Reader};
use thinet_seed::Seed;
use thinet_selectors::{Evidence, EvidenceKind, Needs};

use crate::error::OfLayer;
use crate::{SamplingError, activations, gradients, moments, zeros};

// The registry: one entry for each kind that a calibration pass gathers.
static GATHERED: &[&dyn GatheredKind] = &[
    &zeros::GatheredZeros,
    &activations::GatheredActivations,
    &moments::GatheredMoments,
    &gradients::GatheredGradients,
];

/// Every kind of evidence that a calibration pass gathers, in a fixed order.
#[must_use]
pub fn gathered_kinds() -> &'static [&'static dyn GatheredKind] {
    GATHERED
}

/// The gathered kinds among `needs`, in a fixed order.
pub fn gathered(needs: Needs) -> impl Iterator<Item = &'static dyn GatheredKind> {
    GATHERED.iter().copied().filter(move |gathered| needs.contains(gathered.kind()))
}

/// What a kind of evidence is gathered from. Every collector sees one tensor a tap and batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pass {
    /// The outputs of its taps, in 32-bit floats.
    Forward,
    /// The outputs of its taps times the gradients of each image's own loss by them, element by element in 64-bit floats.
    Backward,
}

/// A kind of evidence that a calibration pass gathers, and its form in a file. One file each.
///
/// The evidence of a layer must depend neither on what else is gathered in the same pass nor on the size of batches.
///
/// A group of channels with several readers is observed at several taps, each by a collector of its own, whose evidence is
/// joined.
pub trait GatheredKind: Sync {
    fn kind(&self) -> EvidenceKind;

    /// The name of the stage that stores it, in lower case, such as `zeros`.
    fn stage(&self) -> &'static str;

    /// The version of the evidence: raised whenever the same net and images can give other values, or the tensors in a file
    /// get another meaning.
    fn version(&self) -> u32 {
        1
    }

    /// What its collectors see.
    fn pass(&self) -> Pass {
        Pass::Forward
    }

    /// What is observed: see [`each_activation`] and [`each_input`]. At least one; a layer that is read by one other has one.
    fn taps<'g>(&self, group: &'g ChannelGroup) -> Vec<Tap<'g>>;

    /// A new collector for a tap.
    ///
    /// # Errors
    /// If a weight is missing or does not fit, or no positions are asked for.
    fn collector(&self, source: &Source<'_>) -> Result<Box<dyn Collector>, SamplingError>;

    /// Joins the evidence of several taps of a group, in their order, into `evidence`.
    ///
    /// # Errors
    /// If a part does not hold this kind, or the joined values are not finite; names the layer.
    fn join(&self, parts: &[Evidence], evidence: &mut Evidence) -> Result<(), SamplingError>;

    /// The tensors of this kind for a file, in 64-bit floats or integers; empty if `evidence` does not hold this kind.
    ///
    /// # Errors
    /// If libtorch fails.
    fn to_tensors(&self, evidence: &Evidence) -> Result<Vec<(&'static str, Tensor)>, SamplingError>;

    /// Reads the tensors written by [`to_tensors`](Self::to_tensors) into `evidence`.
    ///
    /// # Errors
    /// If a tensor is missing, of another type, or holds invalid values.
    fn read(&self, stored: &EvidenceTensors<'_>, evidence: &mut Evidence) -> Result<(), SamplingError>;
}

impl Debug for dyn GatheredKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.stage())
    }
}

/// A node whose output is observed, and the reader for which it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tap<'g> {
    pub node: NodeId,
    pub reader: &'g Reader,
}

/// A tap after each activation that a group's readers read, each once: several readers can read the same.
#[must_use]
pub fn each_activation(group: &ChannelGroup) -> Vec<Tap<'_>> {
    let mut taps: Vec<Tap<'_>> = Vec::new();
    for reader in &group.readers {
        if taps.iter().all(|tap| tap.node != reader.activation) {
            taps.push(Tap { node: reader.activation, reader });
        }
    }
    taps
}

/// A tap at the input of each of a group's readers.
#[must_use]
pub fn each_input(group: &ChannelGroup) -> Vec<Tap<'_>> {
    group.readers.iter().map(|reader| Tap { node: reader.input, reader }).collect()
}

/// The values that `of` finds in each part.
///
/// # Errors
/// If a part does not hold them; names the layer.
pub(crate) fn held<'e, T>(
    kind: EvidenceKind,
    parts: &'e [Evidence],
    of: impl Fn(&'e Evidence) -> Option<&'e T>,
) -> Result<Vec<&'e T>, SamplingError> {
    let missing = |part: &Evidence| SamplingError::evidence(&part.layer, kind, "are missing at a tap");
    parts.iter().map(|part| of(part).ok_or_else(|| missing(part))).collect()
}

/// Gathers one kind of evidence at one tap, batch by batch.
pub trait Collector: Debug {
    /// Adds a batch: `output` is that of the tap, `[n, C, h, w]`, or `[n, C·columns]` after a flatten, or of the same shape what
    /// [`Pass::Backward`] says; `images` are the indices of its n images in the data set.
    ///
    /// # Errors
    /// If shape or dtype of `output` do not fit.
    fn observe(&mut self, output: &Tensor, images: &[usize]) -> Result<(), SamplingError>;

    /// Stores the result in `evidence`.
    ///
    /// # Errors
    /// If nothing was observed, or a value was not finite ([`SamplingError::Evidence`], by which the harness
    /// recognises a diverged net); names the layer.
    fn finish(self: Box<Self>, evidence: &mut Evidence) -> Result<(), SamplingError>;
}

/// A group of channels and the net it belongs to.
#[derive(Clone, Copy)]
pub struct GroupOf<'a> {
    pub graph: &'a Graph,
    /// The group to gather evidence of.
    pub group: &'a ChannelGroup,
    /// Finds a tensor of the net by name.
    pub weight: &'a dyn Fn(&str) -> Option<&'a Tensor>,
}

/// The inputs of a collector.
pub struct Source<'a> {
    /// The group to gather evidence of.
    pub of: GroupOf<'a>,
    /// The reader whose tap is observed.
    pub reader: &'a Reader,
    /// Outputs of the reader sampled in an image.
    pub positions: usize,
    /// The seed of this reader's positions.
    pub seed: Seed,
}

impl<'a> GroupOf<'a> {
    /// The tensor `<node>.weight`.
    ///
    /// # Errors
    /// If there is none; names it and the layer.
    pub fn weight_of(&self, node: NodeId) -> Result<&'a Tensor, SamplingError> {
        let tensor = format!("{}.weight", self.graph.nodes()[node].name);
        (self.weight)(&tensor)
            .ok_or_else(|| SamplingError::input(&self.group.name, format!("there is no tensor {tensor:?}")))
    }
}

/// The tensors of a file of gathered evidence, named `<layer>.<tensor>`, as one layer reads them.
pub struct EvidenceTensors<'a> {
    /// All tensors of the file.
    pub tensors: &'a BTreeMap<String, Tensor>,
    pub layer: &'a str,
}

impl EvidenceTensors<'_> {
    /// A tensor of 64-bit floats, row-major.
    ///
    /// # Errors
    /// If it is missing or of another type.
    pub fn floats(&self, name: &str) -> Result<Vec<f64>, SamplingError> {
        let flat = self.tensor(name, Kind::Double)?.f_flatten(0, -1).of_layer(self.layer)?;
        Vec::try_from(&flat).of_layer(self.layer)
    }

    /// A tensor of numbers that are at least 0, row-major.
    ///
    /// # Errors
    /// If it is missing, of another type, or holds a negative number.
    pub fn counts(&self, name: &str) -> Result<Vec<u64>, SamplingError> {
        let flat = self.tensor(name, Kind::Int64)?.f_flatten(0, -1).of_layer(self.layer)?;
        let numbers = Vec::<i64>::try_from(&flat).of_layer(self.layer)?;
        let count =
            |n: i64| u64::try_from(n).map_err(|_| self.damaged(format!("{}.{name} holds {n}", self.layer)));
        numbers.into_iter().map(count).collect()
    }

    /// A tensor of one such number.
    ///
    /// # Errors
    /// As [`counts`](Self::counts), or if there are several or none.
    pub fn count(&self, name: &str) -> Result<u64, SamplingError> {
        match self.counts(name)?[..] {
            [count] => Ok(count),
            ref counts => Err(self.damaged(format!("{}.{name} holds {} values", self.layer, counts.len()))),
        }
    }

    fn tensor(&self, name: &str, kind: Kind) -> Result<&Tensor, SamplingError> {
        let name = format!("{}.{name}", self.layer);
        let tensor = self.tensors.get(&name).ok_or_else(|| self.damaged(format!("no {name}")))?;
        if tensor.kind() != kind {
            return Err(self.damaged(format!("{name} is {:?}", tensor.kind())));
        }
        Ok(tensor)
    }

    fn damaged(&self, problem: String) -> SamplingError {
        SamplingError::input(self.layer, problem)
    }
}

/// Counts as a tensor of 64-bit integers.
pub(crate) fn count_tensor(layer: &str, counts: &[u64]) -> Result<Tensor, SamplingError> {
    let counts: Vec<i64> = counts.iter().map(|&n| n as i64).collect();
    Tensor::f_from_slice(&counts).of_layer(layer)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_gathered_kind_has_a_stage_of_its_own_and_is_not_read_from_the_net() {
        let stages: BTreeSet<&str> = GATHERED.iter().map(|gathered| gathered.stage()).collect();
        assert_eq!(stages.len(), GATHERED.len());
        assert!(stages.iter().all(|stage| stage.chars().all(|c| c.is_ascii_lowercase())), "{stages:?}");
        assert!(GATHERED.iter().all(|gathered| gathered.version() >= 1));
        let kinds: Vec<EvidenceKind> = GATHERED.iter().map(|gathered| gathered.kind()).collect();
        let of_the_net = [EvidenceKind::Filters, EvidenceKind::BatchNormScales];
        for kind in EvidenceKind::ALL {
            let times = kinds.iter().chain(&of_the_net).filter(|&&other| other == kind).count();
            assert_eq!(times, 1, "{} is either gathered or read from the net", kind.name());
        }
    }

    #[test]
    fn a_damaged_file_is_refused_by_tensor() {
        let tensors = BTreeMap::from([
            ("a.rows".to_owned(), Tensor::from_slice(&[-1_i64])),
            ("a.total".to_owned(), Tensor::from_slice(&[1_i64, 2])),
            ("a.gram".to_owned(), Tensor::from_slice(&[1_i64])),
        ]);
        let stored = EvidenceTensors { tensors: &tensors, layer: "a" };
        let begin = "calibration of layer \"a\": ";
        for (found, problem) in [
            (stored.count("rows").unwrap_err(), "a.rows holds -1"),
            (stored.count("total").unwrap_err(), "a.total holds 2 values"),
            (stored.count("zeros").unwrap_err(), "no a.zeros"),
            (stored.floats("gram").unwrap_err(), "a.gram is Int64"),
        ] {
            assert_eq!(found.to_string(), format!("{begin}{problem}"));
        }
    }
}
