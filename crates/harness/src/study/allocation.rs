//! A global allocation: the channels of all layers are ranked together, and a stage of its own fixes the widths of the cells that
//! follow from one ranking.

use std::fmt::Display;
use std::path::Path;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use thinet_graph::{
    Convention, Graph, GraphError, NarrowNet, at_widths, channel_group, count, keep_rate_for_flops,
    kept_channels,
};
use thinet_report::records::Size;
use thinet_selectors::{Needs, find_importance, least_kept};

use super::check;
use super::rates::CellRate;
use super::resolved::{CellDesign, size_of};
use super::selector_command::SelectorCommand;
use super::selector_spec::SelectorSpec;
use super::spec::{PruneSpec, Spec};
use crate::error::HarnessError;
use crate::store::{StageId, StageResult};

/// How the channels that a cell keeps are shared out among the pruned layers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Allocation {
    /// Every layer keeps the same share of its channels (the paper's procedure).
    #[default]
    Uniform,
    /// The channels of all layers are ranked together by their normalised scores; each layer keeps at least a tenth.
    Global,
}

/// The selector whose scores fix the widths of a cell.
#[derive(Clone, Debug, PartialEq)]
pub struct Scorer {
    pub selector: SelectorSpec,
    /// The program, if it is one; shared between cells.
    pub command: Option<Arc<SelectorCommand>>,
}

/// The stage that ranks the channels of all layers and fixes which of them stay.
#[derive(Clone, Debug)]
pub struct AllocationPlan {
    pub id: StageId,
    /// Position of its dense net in [`Plan::dense`](super::Plan::dense).
    pub dense: usize,
    /// A cell of it: variant, seed, and what is asked.
    pub design: CellDesign,
    pub scorer: Scorer,
    /// The kinds of evidence that its selector reads.
    pub needs: Needs,
    /// For progress and logs.
    pub label: String,
    /// Everything that went into the id.
    pub inputs: serde_json::Value,
}

/// Widths that an allocation fixed.
#[derive(Clone, Debug)]
pub struct AllocatedNet {
    /// Channels kept per pruned layer, in pruning order.
    pub keep: Vec<(String, usize)>,
    pub graph: Graph,
    pub size: Size,
    /// Channels kept over those of all pruned layers.
    pub channels_fraction: f64,
}

impl AllocatedNet {
    /// The net of an allocation with this record; `dense` is the dense net.
    ///
    /// # Errors
    /// If the record does not fit the net, or lacks a layer.
    pub(crate) fn of(
        stage: &AllocationPlan,
        result: &StageResult,
        dense: &Graph,
    ) -> Result<Self, HarnessError> {
        let (mut keep, mut channels) = (Vec::new(), 0);
        for name in &stage.design.variant.spec.prune.layers {
            let kept = result.kept.get(name).ok_or_else(|| {
                let problem = format!("it names no channels of layer {name:?}");
                HarnessError::Damaged { path: stage.id.as_str().into(), problem }
            })?;
            keep.push((name.clone(), kept.len()));
            channels += channel_group(dense, name)?.channels;
        }
        let NarrowNet { kept: keep, graph } = at_widths(dense, keep)?;
        let kept: usize = keep.iter().map(|(_, kept)| kept).sum();
        let (size, channels_fraction) = (size_of(&graph), kept as f64 / channels as f64);
        Ok(Self { keep, graph, size, channels_fraction })
    }
}

/// Checks the keys of an allocation against each other, and that every method has scores that compare layers. Names of selectors are
/// checked before.
pub(super) fn check(spec: &Spec, path: &Path) -> Result<(), HarnessError> {
    let wrong = |key: &str, problem: &dyn Display| Err(check::value(path, key, problem));
    let PruneSpec { allocation, normalisation, layer_rates, .. } = &spec.prune;
    if *allocation == Allocation::Uniform {
        return match normalisation {
            Some(_) => wrong("prune.normalisation", &"has no meaning without allocation = \"global\""),
            None => Ok(()),
        };
    }
    if !spec.is_one_shot() {
        return wrong(
            "prune.allocation",
            &"\"global\" ranks the channels of all layers from one calibration: it needs mode = \"one-shot\"",
        );
    }
    if !layer_rates.is_empty() {
        let problem = "has no meaning with allocation = \"global\", where scores decide what a layer keeps";
        return wrong("prune.layer-rates", &problem);
    }
    if spec.paper_table.is_some() {
        let problem = "has no rows for allocation = \"global\": the paper keeps the same share of each layer";
        return wrong("paper-table", &problem);
    }
    for (i, method) in spec.methods.iter().enumerate() {
        let SelectorSpec::Registered(name) = &method.selector else { continue };
        if let Err(error) = thinet_selectors::find(name).and_then(find_importance) {
            return wrong(
                &format!("methods[{i}].selector"),
                &format!("prune.allocation = \"global\": {error}"),
            );
        }
    }
    Ok(())
}

/// The keep rates and targets of a study with a global allocation, each with the widths that its cost is estimated with: those of the
/// rate in every layer.
///
/// A keep rate is a share of the channels of all layers. A target of FLOPs has the uniform keep rate that meets it as its name in
/// tables, so that it stands beside the same target of a uniform allocation.
pub(super) fn rates(spec: &Spec, path: &Path, dense: &Graph) -> Result<Vec<CellRate>, HarnessError> {
    let prune = &spec.prune;
    let wrong = |key: &str, problem: &dyn Display| check::value(path, key, problem);
    let groups = prune.layers.iter().map(|name| Ok((name.clone(), channel_group(dense, name)?.channels)));
    let groups: Vec<(String, usize)> = groups.collect::<Result<_, GraphError>>()?;
    let floors: Vec<_> =
        groups.iter().map(|(name, channels)| (name.clone(), least_kept(*channels))).collect();
    let sum = |groups: &[(String, usize)]| groups.iter().map(|(_, channels)| channels).sum::<usize>();
    let (all, least) = (sum(&groups), sum(&floors));
    let mut rates: Vec<CellRate> = Vec::new();
    for &rate in &prune.keep_rates {
        if kept_channels("all layers", all, rate).unwrap_or(0) < least {
            let problem = format!(
                "{rate} of the {all} channels of all layers cannot be kept: a tenth of each layer stays, so the least is {} \
                 (rounded up; {least} channels)",
                rounded_up(least as f64 / all as f64)
            );
            return Err(wrong("prune.keep-rates", &problem));
        }
        rates.push(assumed(dense, &groups, rate, None)?);
    }
    let least = at_widths(dense, floors)?.graph;
    let flops = |graph: &Graph| count(graph, Convention::Paper).flops as f64;
    let least = flops(&least) / flops(dense);
    for &target in &prune.flops {
        if least > target {
            let problem = format!(
                "{target} of the dense net's FLOPs cannot be reached: a tenth of each layer stays, so the least is {} (rounded up)",
                rounded_up(least)
            );
            return Err(wrong("prune.flops", &problem));
        }
        let found = keep_rate_for_flops(dense, &prune.layers, &prune.layer_rates, Convention::Paper, target);
        let rate = match found {
            // A global allocation reaches less than one share of every layer: the smallest such share.
            Err(GraphError::FlopsUnreachable { rate, .. }) => rate,
            found => found.map_err(|e| wrong("prune.flops", &e))?,
        };
        if rates.iter().any(|known| known.rate == rate) {
            let problem = format!(
                "{target} stands in tables under the uniform keep rate that meets it, {rate}, which is another row of this \
                 study; leave one out"
            );
            return Err(wrong("prune.flops", &problem));
        }
        rates.push(assumed(dense, &groups, rate, Some(target))?);
    }
    Ok(rates)
}

/// A rate with the widths that are assumed until an allocation fixes them.
fn assumed(
    dense: &Graph,
    groups: &[(String, usize)],
    rate: f64,
    flops_target: Option<f64>,
) -> Result<CellRate, GraphError> {
    let kept = |(name, channels): &(String, usize)| {
        let kept = kept_channels(name, *channels, rate).unwrap_or(0);
        (name.clone(), kept.max(least_kept(*channels)))
    };
    let NarrowNet { kept, graph } = at_widths(dense, groups.iter().map(kept).collect())?;
    let size = size_of(&graph);
    Ok(CellRate { rate, flops_target, keep: kept.into(), size, graph: Arc::new(graph) })
}

/// A fraction with four decimals that is at least as large.
fn rounded_up(fraction: f64) -> f64 {
    (fraction * 1e4).ceil() / 1e4
}
