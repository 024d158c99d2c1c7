//! The pre-flight of a run: one real step of each kind of stage that is missing, so that what would fail after hours fails at once.
//!
//! The stages are those of the plan with shorter work: each recipe for one batch of its own size, one calibration image of each class,
//! the lowest keep rate (of targets of FLOPs that of the lowest target; with a global allocation the lowest target itself), the first and the last layer where layers are pruned one after the other, seed 0 and few test images. They
//! run in a scratch folder, so that nothing of them is stored and no result depends on them.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use thinet_data::{Dataset, Split, Subset};
use thinet_models::{ImportRules, Layout};

use super::options::RunOptions;
use super::stage_runner::StageRunner;
use crate::error::HarnessError;
use crate::events::Reporter;
use crate::store::{Store, paths};
use crate::study::{Cell, MethodSpec, Options, Plan, Recipe, Spec, Variant, manifest};

/// Prefix of the names of scratch folders.
pub(crate) const SCRATCH: &str = "preflight-";
/// Test images of each test.
const TEST_IMAGES: usize = 256;

/// Takes a step of each kind of stage that is missing; returns how many stages took one.
///
/// # Errors
/// [`HarnessError::Preflight`] with the error of the first stage that fails; if the scratch folder cannot be written, or the run is asked
/// to stop.
pub fn preflight(plan: &Plan, options: &RunOptions, reporter: &dyn Reporter) -> Result<usize, HarnessError> {
    let results = &plan.results;
    std::fs::create_dir_all(results).map_err(HarnessError::io("create", results))?;
    let scratch = tempfile::Builder::new().prefix(SCRATCH).tempdir_in(results);
    let scratch = scratch.map_err(HarnessError::io("create a folder in", results))?;
    let Some(short) = shortened(plan, scratch.path())? else { return Ok(0) };
    let runner = StageRunner::new(&short, options)?;
    let stages = manifest(&short).stages;
    for stage in &stages {
        runner.run_stage_caught(&stage.id, reporter).map_err(|error| match error {
            HarnessError::Stopped => HarnessError::Stopped,
            error => HarnessError::Preflight { stage: stage.label.clone(), source: Box::new(error) },
        })?;
    }
    Ok(stages.len())
}

/// The plan with shorter work; `None` if no stage is missing.
fn shortened(plan: &Plan, scratch: &Path) -> Result<Option<Plan>, HarnessError> {
    let store = Store::at(&plan.results);
    let stored_dense = plan.dense.iter().find(|dense| store.is_whole(&dense.id));
    let is_dense_missing = plan.dense.iter().any(|dense| !store.is_whole(&dense.id));
    let variants = missing_kinds(plan, &|cell| !store.is_whole(&cell.id));
    if variants.is_empty() && !is_dense_missing {
        return Ok(None);
    }
    let mut spec = short_spec(&plan.spec, lowest_rate(&plan.cells));
    if let (false, Some(dense)) = (is_dense_missing, stored_dense) {
        // The net is there: no step of its training is taken.
        let weights = store.folder(&dense.id).join(paths::WEIGHTS);
        spec.dense.weights = Some(weights.canonicalize().map_err(HarnessError::io("open", &weights))?);
        spec.dense.train = None;
        spec.dense.import = ImportRules { layout: Some(Layout::Own), ..ImportRules::default() };
    }
    let data = few_images(plan, &spec, &variants)?;
    let options = Options {
        seeds: Some(1),
        device: plan.device,
        results: scratch.to_owned(),
        program: plan.program.clone(),
        ..Options::default()
    };
    Plan::of(spec, variants, &plan.path, data, &options).map(Some)
}

/// Shortened variants that hold each kind of missing cell once. A kind is a method in a mode and allocation, with or without statistics of batch
/// normalisation estimated again, or the control.
fn missing_kinds(plan: &Plan, is_missing: &dyn Fn(&Cell) -> bool) -> Vec<Variant> {
    let mut covered = BTreeSet::new();
    let mut variants = Vec::new();
    for variant in &plan.variants {
        let of_variant = plan.cells.iter().filter(|cell| Arc::ptr_eq(&cell.design.variant, variant));
        let lowest = lowest_rate(of_variant.clone());
        let missing: Vec<&Cell> = of_variant.filter(|cell| is_missing(cell)).collect();
        let prune = &variant.spec.prune;
        let way = (variant.spec.is_one_shot(), prune.is_global(), prune.estimate_batch_norm);
        let mut is_new = |method: &MethodSpec| {
            let is_missing = |cell: &&Cell| !cell.design.is_from_scratch && *cell.design.method == *method;
            missing.iter().any(is_missing)
                && covered.insert((way, method.selector.name(), method.reconstruction.clone()))
        };
        let mut spec = short_spec(&variant.spec, lowest);
        spec.methods.retain(&mut is_new);
        let control = (
            (false, prune.is_global(), false),
            thinet_report::records::FROM_SCRATCH.to_owned(),
            String::new(),
        );
        let is_control_missing = missing.iter().any(|cell| cell.design.is_from_scratch);
        if !(is_control_missing && covered.insert(control)) {
            spec.from_scratch = None;
        }
        if !spec.methods.is_empty() || spec.from_scratch.is_some() {
            variants.push(Variant { name: variant.name.clone(), spec });
        }
    }
    variants
}

/// The lowest keep rate of some cells.
fn lowest_rate<'a>(cells: impl IntoIterator<Item = &'a Cell>) -> Option<f64> {
    cells.into_iter().map(|cell| cell.design.keep_rate).min_by(f64::total_cmp)
}

/// A spec with shorter work, at one keep rate: fewer layers would not meet its targets of FLOPs.
fn short_spec(spec: &Spec, keep_rate: Option<f64>) -> Spec {
    let mut spec = Spec { seeds: 1, variants: Vec::new(), paper_table: None, ..spec.clone() };
    // After one step every net is near chance.
    spec.dense.allow_chance = true;
    spec.calibration.images_per_class = 1;
    let is_one_shot = spec.is_one_shot();
    let prune = &mut spec.prune;
    let lowest_target = prune.flops.iter().copied().min_by(f64::total_cmp);
    (prune.keep_rates, prune.flops) = match lowest_target.filter(|_| prune.is_global()) {
        // Its keep rate is a name. All layers are pruned, so that it can be met.
        Some(target) => (Vec::new(), vec![target]),
        None => (keep_rate.into_iter().collect(), Vec::new()),
    };
    if let ([first, .., last], false) = (&prune.layers[..], is_one_shot) {
        prune.layers = vec![first.clone(), last.clone()];
    }
    let layers = &prune.layers;
    prune.layer_rates.retain(|layer, _| layers.contains(layer));
    // Their recipes differ from the others in length and rate alone, or the layers they name are not pruned here.
    prune.exceptions.clear();
    for recipe in recipes(&mut spec) {
        (recipe.epochs, recipe.steps) = (None, Some(1));
    }
    spec
}

fn recipes(spec: &mut Spec) -> impl Iterator<Item = &mut Recipe> {
    let recipes = [
        &mut spec.dense.train,
        &mut spec.prune.after_layer,
        &mut spec.prune.after_last,
        &mut spec.from_scratch,
    ];
    recipes.into_iter().flatten()
}

/// As many training images as the largest batch holds, and few test images. Calibration images are drawn from all.
fn few_images(plan: &Plan, spec: &Spec, variants: &[Variant]) -> Result<Split, HarnessError> {
    let specs = variants.iter().map(|variant| &variant.spec).chain([spec]);
    let batch = specs.flat_map(|spec| {
        let prune = &spec.prune;
        let recipes = [&spec.dense.train, &prune.after_layer, &prune.after_last, &spec.from_scratch];
        recipes.into_iter().flatten().map(|recipe| recipe.batch)
    });
    let batch = batch.max().unwrap_or(1);
    let data = &plan.data;
    Ok(Split {
        train: spread(&data.train, batch)?,
        calibration: data.calibration.clone(),
        test: spread(&data.test, TEST_IMAGES)?,
    })
}

/// So many images spread over a set, as images are often sorted by class.
fn spread(data: &Arc<dyn Dataset>, count: usize) -> Result<Arc<dyn Dataset>, HarnessError> {
    let count = count.min(data.len());
    let indices = (0..count).map(|i| i * data.len() / count).collect();
    Ok(Arc::new(Subset::new(data.clone(), indices)?))
}
