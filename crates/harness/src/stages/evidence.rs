//! The one-shot evidence of a dense net: a stage for each kind that a calibration gathers. It covers all layers and is shared by all
//! selectors and keep rates, so that evidence and ids do not depend on the methods that a study compares.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use tch::Tensor;
use thinet_graph::{ChannelGroup, channel_group};
use thinet_models::{Net, load_tensors, save_tensors};
use thinet_report::records::Status;
use thinet_sampling::{EvidenceTensors, GroupOf, gathered, read_from_net};
use thinet_selectors::{Evidence, Needs};

use super::calibrate::{Sample, calibrate};
use super::context::{Context, StageOutput};
use super::evidence_file::gathered_tensors;
use super::{dense, streams};
use crate::error::HarnessError;
use crate::events::Event;
use crate::store::paths::EVIDENCE;
use crate::study::{DensePlan, EvidencePlan, Variant};

/// Runs the stage if it is not stored. The dense net must be stored.
pub(crate) fn ensure(
    context: &Context<'_>,
    dense: &DensePlan,
    stage: &EvidencePlan,
) -> Result<(), HarnessError> {
    let id = &stage.id;
    if context.store.result(id)?.is_some() {
        return Ok(());
    }
    let started = Instant::now();
    context.reporter.event(&Event::StageStarted { id: id.to_string(), label: stage.label.clone() });
    let folder = context.store.begin(id)?;
    let net = dense::load(context, dense)?;
    let size = stage.variant.spec.calibration;
    let sample = Sample { size, seed: streams::calibration(dense.seed, size.draw) };
    let progress = |done, total| context.progress(id, "calibrate", done, total);
    let needs = Needs::only(stage.kind);
    let groups = groups(&stage.variant, &net)?;
    let evidence = calibrate(context, &net, groups, needs, sample, &progress)?;
    let metadata = BTreeMap::from([("stage".to_owned(), id.to_string())]);
    context.claim.check()?;
    save_tensors(&folder.join(EVIDENCE), &gathered_tensors(&evidence, needs)?, &metadata)?;
    let output = StageOutput {
        id,
        inputs: stage.inputs.clone(),
        status: Status::Done,
        rows: Vec::new(),
        loss_curve: None,
        kept: BTreeMap::new(),
        test_images: None,
        started,
        summary: format!("{} layers", evidence.len()),
    };
    context.finish(output, &[EVIDENCE])?;
    Ok(())
}

/// The kinds of evidence in `needs`, at most those of the variant's plan, for each pruned layer in pruning order: gathered kinds from
/// their stages, the others from the dense net.
pub(crate) fn load(
    context: &Context<'_>,
    dense: &DensePlan,
    net: &Net,
    variant: &Arc<Variant>,
    needs: Needs,
) -> Result<Vec<Evidence>, HarnessError> {
    let groups = groups(variant, net)?;
    let weight = |name: &str| net.weights.get(name).ok();
    let mut all = Vec::with_capacity(groups.len());
    for group in &groups {
        all.push(read_from_net(GroupOf { graph: &net.graph, group, weight: &weight }, needs)?);
    }
    for kind in gathered(needs) {
        let stage = dense.evidence_of(variant).find(|stage| stage.kind == kind.kind());
        let stage = stage.ok_or_else(|| context.plan.not_run(kind.kind().name()))?;
        let (path, tensors) = stored_tensors(context, stage)?;
        for evidence in &mut all {
            let layer = evidence.layer.clone();
            kind.read(&EvidenceTensors { tensors: &tensors, layer: &layer }, evidence)
                .map_err(|e| HarnessError::Damaged { path: path.clone(), problem: e.to_string() })?;
        }
    }
    Ok(all)
}

/// The tensors of a stored stage, and their file.
fn stored_tensors(
    context: &Context<'_>,
    stage: &EvidencePlan,
) -> Result<(PathBuf, BTreeMap<String, Tensor>), HarnessError> {
    let id = &stage.id;
    let result = context.store.result(id)?.ok_or_else(|| context.plan.not_run(id.as_str()))?;
    let path = context.store.checked_file(id, &result, EVIDENCE)?;
    let (tensors, _) = load_tensors(&path, tch::Device::Cpu)?;
    Ok((path, tensors))
}

/// The pruned groups, in pruning order.
fn groups(variant: &Variant, net: &Net) -> Result<Vec<ChannelGroup>, HarnessError> {
    let names = variant.spec.prune.layers.iter();
    Ok(names.map(|name| channel_group(&net.graph, name)).collect::<Result<_, _>>()?)
}
