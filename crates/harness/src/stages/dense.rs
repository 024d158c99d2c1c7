//! The dense net of one seed: trained here or read from a file, then tested.

use std::collections::BTreeMap;
use std::time::Instant;

use thinet_models::{Net, Weights, import_weights, load_net, save_net};
use thinet_seed::Seed;

use super::{Context, Made, WEIGHTS, find};
use crate::error::HarnessError;
use crate::plan::DensePlan;
use crate::preprocessing::Preprocessing;
use crate::progress::Event;
use crate::records::{Metric, Row, Stage, Status};
use crate::store::StageResult;
use crate::train::{Trained, evaluate_some};

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
    let label = dense.label();
    context.reporter.event(&Event::StageStarted { id: dense.id.to_string(), label });
    let folder = context.store.begin(&dense.id)?;

    let mut rows = Vec::new();
    let mut status = Status::Done;
    let seed = Seed::root(dense.seed).child("dense");
    let mut net = start(context, dense, seed)?;
    if let Some(recipe) = &plan.spec.dense.train {
        match context.train(&dense.id, &mut net, recipe, seed.child("train"), ("train", "dense"))? {
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
    } else {
        not_by_chance(context, dense, &net)?;
    }
    let mut test_images = None;
    if status == Status::Done {
        let tested = context.evaluate(&dense.id, &net, Stage::Dense)?;
        rows.extend(tested.rows);
        test_images = Some(tested.images);
    }
    context.claim.check()?;
    let metadata = BTreeMap::from([("stage".to_owned(), dense.id.to_string()), Preprocessing::entry(plan)?]);
    save_net(&folder.join(WEIGHTS), &net, &metadata)?;
    let summary = match find(&rows, Stage::Dense, Metric::Top1) {
        Some(top1) => format!("top-1 {top1:.2} %"),
        None => "diverged".into(),
    };
    let (id, inputs, kept) = (&dense.id, dense.inputs.clone(), BTreeMap::new());
    let made = Made { id, inputs, status, rows, kept, test_images, started, summary };
    context.finish(made, &[WEIGHTS])
}

/// The net before training: random, or with the tensors of a file.
fn start(context: &Context<'_>, dense: &DensePlan, seed: Seed) -> Result<Net, HarnessError> {
    let plan = context.plan;
    let fresh = || Weights::init(&plan.graph, seed.child("init"), plan.device);
    let weights = match plan.dense_weights() {
        None => fresh()?,
        Some(file) => {
            let rules = &plan.spec.dense.import;
            let (mut weights, report) = import_weights(&file, &plan.graph, rules, plan.device)?;
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

/// Images that show whether a loaded net works at all.
const FIRST_LOOK: usize = 1000;
/// A net that is no better than this many times guessing has weights that do not fit the data.
const TIMES_CHANCE: f64 = 5.0;

/// Stops a study whose dense net guesses, before weeks of pruning it.
fn not_by_chance(context: &Context<'_>, dense: &DensePlan, net: &Net) -> Result<(), HarnessError> {
    let test = &context.plan.data.test;
    let images = test.len().min(FIRST_LOOK);
    // Spread over the whole set: its images are often sorted by class.
    let order: Vec<usize> = (0..images).map(|i| i * test.len() / images.max(1)).collect();
    let progress = |done, total| context.progress(&dense.id, "first look", done, total);
    let top1 = evaluate_some(net, test, order, context.feed, &progress)?.top1;
    let chance = 100.0 / test.classes() as f64;
    // With few classes five times chance is out of reach: half way from guessing to always right must do.
    let least = (TIMES_CHANCE * chance).min((chance + 100.0) / 2.0).min(chance + 10.0);
    if top1 >= least {
        return Ok(());
    }
    let mut causes = vec![
        "another order of the classes (pretrained weights need WordNet-id order)".to_owned(),
        "another input than the weights were trained with: channel order, range, mean (keys protocol and input)"
            .to_owned(),
        "labels of the test images from another list".to_owned(),
    ];
    if context.plan.graph.name().starts_with("resnet") {
        causes.push("the other stride convention (key net.stride)".to_owned());
    }
    Err(HarnessError::NearChance { top1, images, chance, causes: causes.join("; ") })
}
