//! What a plan costs: multiply-adds from the graphs, time from stages already stored, else from a stated rate.

use thinet_graph::Graph;

use crate::error::HarnessError;
use crate::plan::{Cell, Plan};
use crate::spec::Recipe;
use crate::store::Store;

/// Multiply-adds a second and thread assumed while nothing is stored: a CPU core on narrow 32×32 nets.
const ASSUMED_RATE: f64 = 2.0e10;
/// A training step costs about three forward passes: forward, gradient of inputs, gradient of weights.
const TRAINING_FACTOR: f64 = 3.0;

/// Cost of what is missing of a plan.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    /// Stages in all (dense nets and cells).
    pub stages: usize,
    /// Of these, stored already.
    pub done: usize,
    /// Multiply-adds still to do.
    pub macs: f64,
    /// Seconds of compute, divided by the number of jobs.
    pub seconds: f64,
    /// Whether the rate was measured on stored stages of this plan.
    pub is_measured: bool,
}

/// Estimates the missing work of a plan.
///
/// # Errors
/// If a stored record is damaged.
pub fn estimate(plan: &Plan, jobs: usize) -> Result<Estimate, HarnessError> {
    let store = Store::at(&plan.results);
    let dense = plan.dense.iter().map(|stage| (&stage.id, dense_macs(plan)));
    let cells = plan.cells.iter().map(|cell| (&cell.id, cell_macs(plan, cell)));
    let (mut stages, mut done) = (0, 0);
    let (mut missing, mut known, mut seconds) = (0.0, 0.0, 0.0);
    for (id, macs) in dense.chain(cells) {
        stages += 1;
        match store.result(id)? {
            Some(result) => {
                done += 1;
                known += macs;
                seconds += result.seconds;
            }
            None => missing += macs,
        }
    }
    let is_measured = done > 0 && seconds > 0.0 && known > 0.0;
    let assumed = ASSUMED_RATE * plan.spec.compute.threads as f64;
    let rate = if is_measured { known / seconds } else { assumed };
    let seconds = missing / rate / jobs.max(1) as f64;
    Ok(Estimate { stages, done, macs: missing, seconds, is_measured })
}

fn training(recipe: Option<&Recipe>, images: usize, macs: f64) -> f64 {
    let steps = |recipe: &Recipe| (recipe.total_steps(images) * recipe.batch) as f64;
    TRAINING_FACTOR * macs * recipe.map_or(0.0, steps)
}

fn macs(graph: &Graph) -> f64 {
    thinet_graph::count(graph, thinet_graph::Convention::Paper).macs as f64
}

fn dense_macs(plan: &Plan) -> f64 {
    let dense = macs(&plan.graph);
    training(plan.spec.dense.train.as_ref(), plan.data.train.len(), dense)
        + dense * plan.data.test.len() as f64
}

/// Tuning between layers is taken at the mean of the dense and the pruned net's cost.
fn cell_macs(plan: &Plan, cell: &Cell) -> f64 {
    let prune = &plan.spec.prune;
    let (train, test) = (plan.data.train.len(), plan.data.test.len());
    let (dense, pruned) = (macs(&plan.graph), cell.size.paper.macs as f64);
    let between = (dense + pruned) / 2.0;
    let short =
        training(prune.after_layer.as_ref(), train, between) * cell.keep.len().saturating_sub(1) as f64;
    let sample = plan.spec.calibration.images_per_class * plan.data.train.classes();
    let passes = if plan.spec.is_one_shot() { 0 } else { cell.keep.len() };
    let calibration = between * (sample * passes) as f64;
    short + training(prune.after_last.as_ref(), train, pruned) + calibration + 3.0 * pruned * test as f64
}
