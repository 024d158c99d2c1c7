//! The stage of a global allocation: ranks the channels of all layers by a selector's scores and stores which stay.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

use thinet_graph::{ChannelSet, Convention, at_widths, count, kept_channels};
use thinet_report::records::Status;
use thinet_selectors::{Evidence, Ranking, importances, least_kept};

use super::context::{Context, StageOutput};
use super::program::LayerQuestion;
use super::{dense, evidence, streams};
use crate::error::HarnessError;
use crate::events::Event;
use crate::study::AllocationPlan;

/// Runs the stage if it is not stored. The dense net and the evidence that it reads must be stored.
pub(crate) fn ensure(context: &Context<'_>, stage: &AllocationPlan) -> Result<(), HarnessError> {
    let id = &stage.id;
    if context.store.result(id)?.is_some() {
        return Ok(());
    }
    let started = Instant::now();
    context.reporter.event(&Event::StageStarted { id: id.to_string(), label: stage.label.clone() });
    let folder = context.store.begin(id)?;
    let kept = allocate(context, stage, &folder)?;
    let channels: usize = kept.values().map(ChannelSet::len).sum();
    let output = StageOutput {
        id,
        inputs: stage.inputs.clone(),
        status: Status::Done,
        rows: Vec::new(),
        loss_curve: None,
        kept,
        test_images: None,
        started,
        summary: format!("{channels} channels stay"),
    };
    context.finish(output, &[])?;
    Ok(())
}

/// The channels that a stored allocation keeps, by layer.
pub(crate) fn load(
    context: &Context<'_>,
    stage: &AllocationPlan,
) -> Result<BTreeMap<String, ChannelSet>, HarnessError> {
    Ok(context.store.result(&stage.id)?.ok_or_else(|| context.plan.not_run(&stage.label))?.kept)
}

fn allocate(
    context: &Context<'_>,
    stage: &AllocationPlan,
    folder: &Path,
) -> Result<BTreeMap<String, ChannelSet>, HarnessError> {
    let parent = &context.plan.dense[stage.dense];
    let net = dense::load(context, parent)?;
    let needs = match &stage.scorer.command {
        Some(command) => context.programs.hello(command)?.needs,
        None => stage.needs,
    };
    let variant = &stage.design.variant;
    let all = evidence::load(context, parent, &net, variant, needs)?;
    let scores: Vec<Vec<f64>> =
        all.iter().map(|layer| scores(context, stage, folder, layer)).collect::<Result<_, _>>()?;
    let prune = &variant.spec.prune;
    let ranking = Ranking::new(&scores, prune.normalisation.unwrap_or_default());
    let removed = match stage.design.flops_target {
        Some(target) => {
            let flops = |widths: &[usize]| -> Result<f64, HarnessError> {
                let keep = prune.layers.iter().cloned().zip(widths.iter().copied());
                let narrow = at_widths(&net.graph, keep.collect())?.graph;
                Ok(count(&narrow, Convention::Paper).flops as f64)
            };
            let dense = count(&net.graph, Convention::Paper).flops as f64;
            ranking.fewest(|widths| Ok::<_, HarnessError>(flops(widths)? / dense <= target))?
        }
        None => Some(
            ranking.channels() - kept_channels("all layers", ranking.channels(), stage.design.keep_rate)?,
        ),
    };
    let Some(removed) = removed.filter(|removed| *removed <= ranking.removable()) else {
        unreachable!("the plan refuses what cannot be reached")
    };
    Ok(prune.layers.iter().cloned().zip(ranking.kept(removed)?).collect())
}

/// The importance of each channel of a layer.
fn scores(
    context: &Context<'_>,
    stage: &AllocationPlan,
    folder: &Path,
    layer: &Evidence,
) -> Result<Vec<f64>, HarnessError> {
    let seed = streams::selection(stage.design.seed, &layer.layer);
    let Some(command) = &stage.scorer.command else {
        let selector = thinet_selectors::find(&stage.scorer.selector.name())?;
        return Ok(importances(selector, layer, seed)?);
    };
    let note = |line: String| context.note(&stage.id, format!("{}: {line}", stage.label));
    let keep = least_kept(layer.channels);
    context.programs.scores(&LayerQuestion {
        command,
        evidence: layer,
        keep,
        all_keep: [keep].into(),
        is_global: true,
        seed,
        folder,
        note: &note,
    })
}
