//! Dense nets that are unfit for pruning: those that diverged, and those near chance.

use thinet_report::records::{Metric, Phase, Status, Unfit, find};

use crate::error::HarnessError;
use crate::store::{Depth, StageResult, Store};
use crate::study::{DensePlan, Plan};

/// A net is near chance if its accuracy is below this multiple of guessing.
const TIMES_CHANCE: f64 = 5.0;

/// Top-1 of guessing, per cent.
pub(crate) fn chance(classes: usize) -> f64 {
    100.0 / classes as f64
}

/// The top-1 below which a net is near chance, per cent.
pub(crate) fn least_top1(classes: usize) -> f64 {
    let chance = chance(classes);
    // With few classes five times chance is out of reach: half way between guessing and 100 %, at most ten points above it.
    (TIMES_CHANCE * chance).min((chance + 100.0) / 2.0).min(chance + 10.0)
}

/// Why a stored dense net is unfit for pruning; `None` if it is fit. Derived from its record, so that records of old versions follow
/// the same rule.
pub(crate) fn of_record(plan: &Plan, result: &StageResult) -> Option<Unfit> {
    of_result(result, plan.data.test.classes(), plan.spec.dense.allow_chance)
}

/// As [`of_record`], without a plan.
pub(crate) fn of_result(result: &StageResult, classes: usize, allow_chance: bool) -> Option<Unfit> {
    if result.status == Status::Diverged {
        return Some(Unfit::Diverged);
    }
    if allow_chance {
        return None;
    }
    let top1 = find(&result.rows, Phase::Dense, Metric::Top1)?;
    (top1 < least_top1(classes)).then(|| Unfit::NearChance { top1, chance: chance(classes) })
}

/// As [`of_record`], as the error of the net and of every stage that needs it.
pub(crate) fn check(plan: &Plan, dense: &DensePlan, result: &StageResult) -> Result<(), HarnessError> {
    match of_record(plan, result) {
        None => Ok(()),
        Some(Unfit::Diverged) => Err(HarnessError::DenseDiverged { seed: dense.seed }),
        Some(Unfit::NearChance { top1, chance }) => {
            let images = result.test_images.unwrap_or(plan.data.test.len() as u64);
            Err(near_chance(plan, dense, top1, images, chance))
        }
    }
}

/// The stored dense nets of a plan that are unfit. Unreadable records are skipped: their stages are run again.
pub(crate) fn stored<'a>(plan: &'a Plan, store: &Store) -> Result<Vec<&'a DensePlan>, HarnessError> {
    let mut unfit = Vec::new();
    for dense in &plan.dense {
        let result = store.intact(&dense.id, Depth::Sizes, &mut |_| ())?;
        if result.is_some_and(|result| of_record(plan, &result).is_some()) {
            unfit.push(dense);
        }
    }
    Ok(unfit)
}

/// The error for a net near chance, with the likely causes for a trained or a loaded one.
pub(crate) fn near_chance(
    plan: &Plan,
    dense: &DensePlan,
    top1: f64,
    images: u64,
    chance: f64,
) -> HarnessError {
    let (problem, causes) = match &plan.spec.dense.train {
        Some(recipe) => ("its training did not work", of_training(recipe.lr)),
        None => ("its weights do not fit the data", of_weights(plan.graph.name())),
    };
    let seed = dense.seed;
    HarnessError::NearChance { seed, top1, images, chance, problem, causes: causes.join("; ") }
}

fn of_training(lr: f64) -> Vec<String> {
    vec![
        format!("a learning rate that is too high or too low for this net (key dense.train.lr is {lr})"),
        "too few steps (keys epochs, steps and schedule of dense.train)".to_owned(),
        "an unlucky start of the weights: other seeds may train, batch norm (key net.batch-norm) helps"
            .to_owned(),
        "labels that do not belong to the images, or inputs of another range (key input)".to_owned(),
    ]
}

fn of_weights(net: &str) -> Vec<String> {
    let mut causes = vec![
        "another order of the classes (pretrained weights need WordNet-id order)".to_owned(),
        "another input than the weights were trained with: channel order, range, mean (keys protocol and input)"
            .to_owned(),
        "labels of the test images from another list".to_owned(),
    ];
    if net.starts_with("resnet") {
        causes.push("the other stride convention (key net.stride)".to_owned());
    }
    causes
}

#[cfg(test)]
mod tests {
    use super::least_top1;

    #[test]
    fn near_chance_depends_on_the_number_of_classes() {
        let expected = [(1, 100.0), (2, 60.0), (10, 20.0), (100, 5.0), (200, 2.5), (1000, 0.5)];
        for (classes, least) in expected {
            assert_eq!(least_top1(classes), least, "{classes} classes");
        }
    }
}
