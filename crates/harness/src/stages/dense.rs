//! The dense net of one seed: trained here or read from a file, then tested.

use std::collections::BTreeMap;
use std::time::Instant;

use thinet_models::{Init, Net, Weights, import_weights, load_net, save_net};
use thinet_report::records::{Metric, Phase, Row, Status, find};

use super::context::{Context, NOT_FINITE, StageOutput, TrainingName};
use super::evaluate::evaluate_some;
use super::preprocessing::Preprocessing;
use super::streams;
use super::train::TrainingEnd;
use crate::error::HarnessError;
use crate::events::Event;
use crate::store::StageResult;
use crate::store::paths::WEIGHTS;
use crate::study::{DensePlan, unfit};

/// Runs the stage if it is not stored. An unfit net is stored, and an error.
pub(crate) fn ensure(context: &Context<'_>, dense: &DensePlan) -> Result<(), HarnessError> {
    let result = match context.store.result(&dense.id)? {
        Some(result) => result,
        None => compute(context, dense)?,
    };
    unfit::check(context.plan, dense, &result)
}

/// The stored net; an error if it is unfit.
pub(crate) fn load(context: &Context<'_>, dense: &DensePlan) -> Result<Net, HarnessError> {
    let result = context.store.result(&dense.id)?.ok_or_else(|| context.plan.not_run(dense.id.as_str()))?;
    unfit::check(context.plan, dense, &result)?;
    let path = context.store.checked_file(&dense.id, &result, WEIGHTS)?;
    let (net, _) = load_net(&path, context.plan.device.into())?;
    Ok(Net { weights: net.weights.to_format(context.feed.format)?, graph: net.graph })
}

fn compute(context: &Context<'_>, dense: &DensePlan) -> Result<StageResult, HarnessError> {
    let plan = context.plan;
    let started = Instant::now();
    let label = dense.label();
    context.reporter.event(&Event::StageStarted { id: dense.id.to_string(), label });
    let folder = context.store.begin(&dense.id)?;

    let (mut rows, mut loss_curve) = (Vec::new(), None);
    let mut status = Status::Done;
    let mut net = start(context, dense)?;
    if let Some(recipe) = &plan.spec.dense.train {
        let name = TrainingName { step: "train", kind: "dense", start: &BTreeMap::new() };
        let seed = streams::training(streams::dense(dense.seed));
        let trained = context.train(&dense.id, &mut net, recipe, seed, &name)?;
        loss_curve = trained.curve;
        match trained.end {
            TrainingEnd::Done { loss } => rows.push(Row {
                layer: String::new(),
                phase: Phase::Dense,
                metric: Metric::TrainLoss,
                value: loss,
            }),
            TrainingEnd::Diverged { step } => {
                context.note(&dense.id, format!("training diverged at step {step}"));
                status = Status::Diverged;
            }
        }
    } else if !plan.spec.dense.allow_chance {
        not_by_chance(context, dense, &net)?;
    }
    let mut test_images = None;
    if status == Status::Done {
        let tested = context.evaluate(&dense.id, &net, Phase::Dense)?;
        if tested.is_finite() {
            rows.extend(tested.rows);
            test_images = Some(tested.images);
        } else {
            context.note(&dense.id, format!("{}: {NOT_FINITE}", tested.name));
            status = Status::Diverged;
        }
    }
    context.claim.check()?;
    let metadata = BTreeMap::from([("stage".to_owned(), dense.id.to_string()), Preprocessing::entry(plan)?]);
    save_net(&folder.join(WEIGHTS), &net, &metadata)?;
    let summary = match find(&rows, Phase::Dense, Metric::Top1) {
        Some(top1) => format!("top-1 {top1:.2} %"),
        None => "diverged".into(),
    };
    let (id, inputs, kept) = (&dense.id, dense.inputs.clone(), BTreeMap::new());
    let output = StageOutput {
        id,
        inputs,
        status,
        rows,
        loss_curve,
        kept,
        test_images,
        started,
        summary: summary.clone(),
    };
    let result = context.keep(output, &[WEIGHTS])?;
    // A stage ends once: an unfit net ends as a failure.
    if unfit::of_record(plan, &result).is_none() {
        context.finished(&result, summary);
    }
    Ok(result)
}

/// The net before training: random, or with the weights of a file.
fn start(context: &Context<'_>, dense: &DensePlan) -> Result<Net, HarnessError> {
    let plan = context.plan;
    let init = plan.spec.dense.train.as_ref().map_or_else(Init::default, |recipe| recipe.init);
    let seed = streams::starting_weights(streams::dense(dense.seed));
    let fresh = || Weights::init_as(&plan.graph, init, seed, plan.device.into());
    let weights = match plan.dense_weights() {
        None => fresh()?,
        Some(file) => {
            let rules = &plan.spec.dense.import;
            let (mut weights, report) = import_weights(&file, &plan.graph, rules, plan.device.into())?;
            for line in report.lines() {
                context.note(&dense.id, format!("{}: {line}", file.display()));
            }
            if !rules.fresh.is_empty() {
                for (name, tensor) in fresh()? {
                    if rules.is_fresh(&name) {
                        weights.insert(name, tensor);
                    }
                }
            }
            weights
        }
    };
    Ok(Net { graph: plan.graph.clone(), weights: weights.to_format(context.feed.format)? })
}

/// Number of test images for a first check of a loaded net.
const FIRST_LOOK: usize = 1000;

/// Checks that a loaded net is better than guessing, before a test on all images.
fn not_by_chance(context: &Context<'_>, dense: &DensePlan, net: &Net) -> Result<(), HarnessError> {
    let test = &context.plan.data.test;
    let images = test.len().min(FIRST_LOOK);
    // Spread over the whole set, as images are often sorted by class.
    let order: Vec<usize> = (0..images).map(|i| i * test.len() / images.max(1)).collect();
    let progress = |done, total| context.progress(&dense.id, "first look", done, total);
    let look = evaluate_some(net, test, order, context.feed, &progress)?;
    if look.top1 >= unfit::least_top1(test.classes()) {
        return Ok(());
    }
    Err(unfit::near_chance(context.plan, dense, look.top1, look.images, unfit::chance(test.classes())))
}
