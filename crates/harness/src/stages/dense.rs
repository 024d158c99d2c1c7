//! The dense net of one seed: trained here or read from a file, then tested.

use std::collections::BTreeMap;
use std::time::Instant;

use thinet_models::{Net, Weights, load_net, load_weights, save_net};
use thinet_seed::Seed;

use super::{Context, TRAIN_CHECKPOINT, WEIGHTS, find};
use crate::error::HarnessError;
use crate::plan::DensePlan;
use crate::progress::Event;
use crate::records::{Metric, Row, Stage, Status};
use crate::store::StageResult;
use crate::train::{Session, Trained, train};

/// Makes the stage if it is not stored.
pub(crate) fn ensure(context: &Context<'_>, dense: &DensePlan) -> Result<StageResult, HarnessError> {
    match context.store.result(&dense.id)? {
        Some(result) => Ok(result),
        None => make(context, dense),
    }
}

/// The stored net.
pub(crate) fn load(context: &Context<'_>, dense: &DensePlan) -> Result<Net, HarnessError> {
    let result = context.store.result(&dense.id)?.ok_or_else(|| HarnessError::NotRun {
        what: dense.id.to_string(),
        spec: context.plan.path.clone(),
    })?;
    let path = context.store.checked_file(&dense.id, &result, WEIGHTS)?;
    let (net, _) = load_net(&path, context.plan.device)?;
    Ok(Net { weights: net.weights.to_format(context.feed.format)?, graph: net.graph })
}

fn make(context: &Context<'_>, dense: &DensePlan) -> Result<StageResult, HarnessError> {
    let plan = context.plan;
    let started = Instant::now();
    let label = format!("dense net, seed {}", dense.seed);
    context.reporter.event(&Event::StageStarted { id: dense.id.to_string(), label });
    let folder = context.store.begin(&dense.id)?;

    let mut rows = Vec::new();
    let mut status = Status::Done;
    let net = match (plan.dense_weights(), &plan.spec.dense.train) {
        (Some(file), _) => {
            let weights = load_weights(&file, &plan.graph, plan.device)?;
            Net { graph: plan.graph.clone(), weights: weights.to_format(context.feed.format)? }
        }
        (None, Some(recipe)) => {
            let seed = Seed::root(dense.seed).child("dense");
            let weights = Weights::init(&plan.graph, seed.child("init"), plan.device)?;
            let weights = weights.to_format(context.feed.format)?;
            let mut net = Net { graph: plan.graph.clone(), weights };
            let checkpoint = folder.join(TRAIN_CHECKPOINT);
            let session = Session {
                feed: context.feed,
                recipe,
                seed: seed.child("train"),
                checkpoint: Some(&checkpoint),
                progress: &|done, total, loss| context.progress(&dense.id, "train", done, total, Some(loss)),
            };
            match train(&mut net, &plan.data.train, &session)? {
                Trained::Done { loss } => rows.push(Row {
                    layer: String::new(),
                    stage: Stage::Dense,
                    metric: Metric::TrainLoss,
                    value: loss,
                }),
                Trained::Diverged { step } => {
                    context.note(&dense.id, format!("training diverged at step {step}"));
                    status = Status::Diverged;
                }
            }
            net
        }
        (None, None) => unreachable!("checked by Plan::new: the dense net is trained or loaded"),
    };
    if status == Status::Done {
        rows.extend(context.evaluate(&dense.id, &net, Stage::Dense)?);
    }
    save_net(&folder.join(WEIGHTS), &net, &BTreeMap::from([("stage".to_owned(), dense.id.to_string())]))?;
    let seconds = started.elapsed().as_secs_f64();
    let result = StageResult {
        id: dense.id.to_string(),
        inputs: dense.inputs.clone(),
        status,
        rows,
        kept: BTreeMap::new(),
        files: BTreeMap::new(),
        seconds,
    };
    let result = context.store.finish(&dense.id, result, &[WEIGHTS])?;
    let summary = match find(&result.rows, Stage::Dense, Metric::Top1) {
        Some(top1) => format!("top-1 {top1:.2} %"),
        None => "diverged".into(),
    };
    context.reporter.event(&Event::StageFinished { id: dense.id.to_string(), summary, seconds });
    Ok(result)
}
