//! Checks of a spec's values; each error names file, key and allowed values.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::path::Path;

use thinet_data::{Augment, MOST_PADDING, Normalisation, Split, Transform};
use thinet_graph::{Graph, channel_group, nearest};
use thinet_models::{ImportRules, Init, Schedule, has_batch_norm};
use thinet_report::tables;
use thinet_selectors::Needs;

use crate::error::{HarnessError, SpecError};
use crate::study::allocation;
use crate::study::{CommandSpec, DenseSpec, MethodSpec, PruneSpec, Recipe, SelectorSpec, Spec};

// Upper limits of a spec's numbers. Each is far beyond any real study, and no product of them overflows 64 bits.
const EPOCHS: usize = 1_000_000;
const STEPS: usize = 1_000_000_000;
const BATCH: usize = 1_000_000;
const IMAGES: usize = 1_000_000;
const POSITIONS: usize = 1_000_000;
const DRAWS: u64 = 1_000_000;
const SEEDS: usize = 1000;
const THREADS: usize = 1024;
const SIDE: usize = 4096;
/// Seconds for an answer of a selector's program: a week.
const TIMEOUT: usize = 604_800;
/// Cells of a study, each with a folder of its own.
const CELLS: usize = 100_000;

/// Checks that a count is in 1..=limit.
fn counted(path: &Path, key: &str, number: usize, limit: usize) -> Result<(), HarnessError> {
    if (1..=limit).contains(&number) {
        return Ok(());
    }
    Err(value(path, key, &format!("{number} is outside 1..={limit}")))
}

/// The error for an invalid value.
pub(crate) fn value(path: &Path, key: &str, problem: &dyn Display) -> HarnessError {
    SpecError::Value { path: path.to_owned(), key: key.to_owned(), problem: problem.to_string() }.into()
}

/// Checks everything that does not depend on the data.
pub(crate) fn values(spec: &Spec, path: &Path) -> Result<(), HarnessError> {
    let wrong = |key: &str, problem: &dyn Display| Err(value(path, key, problem));
    for (key, name) in [
        ("name", Some(&spec.name)),
        ("table", spec.table.as_ref()),
        ("paper-table", spec.paper_table.as_ref()),
    ] {
        let Some(name) = name else { continue };
        let plain = name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
        if name.is_empty() || name.starts_with('-') || !plain {
            return wrong(key, &format!("{name:?} may hold only lower-case letters, digits and dashes"));
        }
    }
    for (key, name) in [("table", Some(spec.table_name())), ("paper-table", spec.paper_table.as_deref())] {
        if let Some(name) = name.filter(|name| tables::RESERVED.contains(name)) {
            return wrong(key, &format!("{name:?} is reserved for a table that no study writes"));
        }
    }
    counted(path, "seeds", usize::try_from(spec.seeds).unwrap_or(usize::MAX), SEEDS)?;
    counted(path, "compute.threads", spec.compute.threads, THREADS)?;
    if let Some(size) = spec.input.size {
        counted(path, "input.size", size, SIDE)?;
    }
    spec.dataset.check().map_err(|e| HarnessError::of_dataset(path, e))?;
    let sample = &spec.calibration;
    counted(path, "calibration.images-per-class", sample.images_per_class, IMAGES)?;
    counted(path, "calibration.positions-per-image", sample.positions_per_image, POSITIONS)?;
    if sample.draw > DRAWS {
        return wrong("calibration.draw", &format!("{} is outside 0 to {DRAWS}", sample.draw));
    }
    methods(spec, path)?;
    keep_rates(spec, path)?;
    allocation::check(spec, path)?;
    recipes(spec, path)?;
    cell_count([spec], "methods", path)?;
    let mut layers = BTreeSet::new();
    if let Some(twice) = spec.prune.layers.iter().find(|layer| !layers.insert(*layer)) {
        return wrong("prune.layers", &format!("{twice:?} is listed twice"));
    }
    Ok(())
}

/// Checks the number of cells of these variants of a study; `key` is named if there are too many.
pub(crate) fn cell_count<'a>(
    variants: impl IntoIterator<Item = &'a Spec>,
    key: &str,
    path: &Path,
) -> Result<(), HarnessError> {
    let of_variant = |spec: &Spec| {
        let methods = spec.methods.len() + usize::from(spec.from_scratch.is_some());
        let rates = spec.prune.keep_rates.len() + spec.prune.flops.len();
        methods.saturating_mul(rates).saturating_mul(spec.seeds as usize)
    };
    let (mut count, mut cells) = (0, 0_usize);
    for spec in variants {
        count += 1;
        cells = cells.saturating_add(of_variant(spec));
    }
    if cells > CELLS {
        let times = if count == 1 { "" } else { ", of all variants," };
        let problem = format!("methods × keep-rates × seeds{times} are {cells} cells, more than {CELLS}");
        return Err(value(path, key, &problem));
    }
    Ok(())
}

fn methods(spec: &Spec, path: &Path) -> Result<(), HarnessError> {
    if spec.methods.is_empty() {
        return Err(value(path, "methods", &"at least one [[methods]] table is needed"));
    }
    let mut labels = BTreeSet::new();
    for (i, method) in spec.methods.iter().enumerate() {
        let key = |name: &str| format!("methods[{i}].{name}");
        match &method.selector {
            SelectorSpec::Registered(name) => {
                thinet_selectors::find(name).map_err(|e| value(path, &key("selector"), &e))?;
            }
            SelectorSpec::Command(command) => selector_command(command, path, &key("selector"))?,
        }
        thinet_reconstruction::find(&method.reconstruction)
            .map_err(|e| value(path, &key("reconstruction"), &e))?;
        if method.label().contains(tables::breaks_line) {
            let problem =
                format!("{:?} holds a line end, a tab or another control character", method.label());
            return Err(value(path, &key("label"), &problem));
        }
        if !labels.insert(method.label()) {
            let problem = format!("two methods are called {:?}; give one another `label`", method.label());
            return Err(value(path, &key("label"), &problem));
        }
    }
    Ok(())
}

/// Checks the values of a selector's program; its files are read when the study is resolved.
fn selector_command(command: &CommandSpec, path: &Path, key: &str) -> Result<(), HarnessError> {
    let words = command.command.iter().chain(&command.files);
    if let Some(word) = words.clone().find(|word| word.contains(tables::breaks_line)) {
        let problem = format!("{word:?} holds a line end, a tab or another control character");
        return Err(value(path, key, &problem));
    }
    if command.command.first().is_none_or(String::is_empty) {
        return Err(value(
            path,
            &format!("{key}.command"),
            &"a program is needed, such as [\"python3\", \"my_selector.py\"]",
        ));
    }
    command.declared_needs().map_err(|e| value(path, &format!("{key}.needs"), &e))?;
    let seconds = usize::try_from(command.timeout).unwrap_or(usize::MAX);
    counted(path, &format!("{key}.timeout"), seconds, TIMEOUT)
}

/// The kinds of evidence to gather for each method.
pub(crate) fn needs(spec: &Spec, path: &Path) -> Result<Vec<Needs>, HarnessError> {
    let of_method = |(i, method): (usize, &MethodSpec)| {
        method.selector.needs().map_err(|e| value(path, &format!("methods[{i}].selector"), &e))
    };
    spec.methods.iter().enumerate().map(of_method).collect()
}

fn keep_rates(spec: &Spec, path: &Path) -> Result<(), HarnessError> {
    let PruneSpec { keep_rates: rates, flops: targets, .. } = &spec.prune;
    if rates.is_empty() && targets.is_empty() {
        let problem = "at least one rate in (0, 1] is needed, or a target in prune.flops";
        return Err(value(path, "prune.keep-rates", &problem));
    }
    if let Some(rate) = rates.iter().find(|rate| !(**rate > 0.0 && **rate <= 1.0)) {
        return Err(value(path, "prune.keep-rates", &format!("{rate} is outside (0, 1]")));
    }
    if let Some(target) = targets.iter().find(|target| !(**target > 0.0 && **target < 1.0)) {
        let hint = if *target == 1.0 { "; keep-rates = [1] reports the dense net" } else { "" };
        return Err(value(path, "prune.flops", &format!("{target} is outside (0, 1){hint}")));
    }
    for (key, list) in [("prune.keep-rates", rates), ("prune.flops", targets)] {
        if let Some((_, twice)) = list.iter().enumerate().find(|(i, number)| list[..*i].contains(number)) {
            return Err(value(path, key, &format!("{twice} is listed twice")));
        }
    }
    if let Some((layer, rate)) = spec.prune.layer_rates.iter().find(|(_, r)| !(**r > 0.0 && **r <= 1.0)) {
        return Err(value(path, "prune.layer-rates", &format!("{layer}: {rate} is outside (0, 1]")));
    }
    Ok(())
}

fn recipes(spec: &Spec, path: &Path) -> Result<(), HarnessError> {
    let DenseSpec { train, weights, import, .. } = &spec.dense;
    if train.is_none() && weights.is_none() {
        return Err(value(path, "dense", &"[dense.train], dense.weights or both are needed"));
    }
    if weights.is_none() && *import != ImportRules::default() {
        return Err(value(path, "dense.import", &"has no meaning without dense.weights"));
    }
    if train.is_none() && !import.fresh.is_empty() {
        return Err(value(path, "dense.import.fresh", &"leaves layers untrained without [dense.train]"));
    }
    if spec.is_one_shot() {
        let problem =
            "has no meaning with mode = \"one-shot\", where all layers are cut at once; use after-last";
        if spec.prune.after_layer.is_some() {
            return Err(value(path, "prune.after-layer", &problem));
        }
        if !spec.prune.exceptions.is_empty() {
            return Err(value(path, "prune.exceptions", &problem));
        }
    }
    for (key, recipe) in all_recipes(spec) {
        check_recipe(recipe, path, &key)?;
        let starts_at_random = match key.as_str() {
            "dense.train" => spec.dense.weights.is_none() || !spec.dense.import.fresh.is_empty(),
            key => key == "from-scratch",
        };
        if !starts_at_random && recipe.init != Init::default() {
            let problem = "no layer starts at random here; it is for dense.train and from-scratch";
            return Err(value(path, &format!("{key}.init"), &problem));
        }
    }
    Ok(())
}

/// Every recipe of a spec with its key.
fn all_recipes(spec: &Spec) -> Vec<(String, &Recipe)> {
    let named = [
        ("dense.train", &spec.dense.train),
        ("prune.after-layer", &spec.prune.after_layer),
        ("prune.after-last", &spec.prune.after_last),
        ("from-scratch", &spec.from_scratch),
    ];
    let named = named.into_iter().filter_map(|(key, recipe)| Some((key.to_owned(), recipe.as_ref()?)));
    let exceptions = spec.prune.exceptions.iter().enumerate();
    let exceptions =
        exceptions.filter_map(|(i, e)| Some((format!("prune.exceptions[{i}].recipe"), e.recipe.as_ref()?)));
    named.chain(exceptions).collect()
}

/// Checks that recipes, rates and exceptions name layers of the net, and pruned ones where required.
pub(crate) fn layer_names(
    spec: &Spec,
    path: &Path,
    graph: &Graph,
    pruned: &[String],
) -> Result<(), HarnessError> {
    let unknown = |key: &str, layer: &str, what: &str, known: Vec<&str>| {
        let hint = nearest(layer, known.iter().copied());
        let hint = hint.map_or_else(|| known.join(", "), |near| format!("did you mean {near:?}?"));
        Err(value(path, key, &format!("{layer:?} is not {what}; {hint}")))
    };
    let is_pruned = |layer: &String| pruned.contains(layer);
    let of_pruned = || pruned.iter().map(String::as_str).collect();
    if let Some(layer) = spec.prune.layer_rates.keys().find(|layer| !is_pruned(layer)) {
        return unknown("prune.layer-rates", layer, "among the pruned layers", of_pruned());
    }
    for (i, exception) in spec.prune.exceptions.iter().enumerate() {
        let key = format!("prune.exceptions[{i}].layers");
        if let Some(layer) = exception.layers.iter().find(|layer| !is_pruned(layer)) {
            return unknown(&key, layer, "among the pruned layers", of_pruned());
        }
        if exception.layers.last() == pruned.last() && exception.layers.len() == 1 {
            return Err(value(path, &key, &"the last layer's tuning is [prune.after-last]"));
        }
    }
    let tensors = graph.tensors();
    let mut with_weights: Vec<&str> = tensors.iter().filter_map(|t| t.name.strip_suffix(".weight")).collect();
    with_weights.sort_unstable();
    for (key, recipe) in all_recipes(spec) {
        for (name, layers) in [("layer-lr", &recipe.layer_lr), ("layer-decay", &recipe.layer_decay)] {
            // Keys can also name single tensors: `fc.bias`.
            let is_known = |layer: &str| {
                let is_tensor = tensors.iter().any(|tensor| tensor.trainable && tensor.name == layer);
                is_tensor || with_weights.binary_search(&layer).is_ok()
            };
            if let Some(layer) = layers.keys().find(|layer| !is_known(layer)) {
                return unknown(&format!("{key}.{name}"), layer, "a layer of the net", with_weights);
            }
        }
    }
    for layer in &spec.dense.import.fresh {
        if with_weights.binary_search(&layer.as_str()).is_err() {
            return unknown("dense.import.fresh", layer, "a layer of the net", with_weights);
        }
    }
    Ok(())
}

/// Checks that every layer can provide the evidence that each method's selector needs.
pub(crate) fn evidence(
    needs: &[Needs],
    path: &Path,
    graph: &Graph,
    layers: &[String],
) -> Result<(), HarnessError> {
    for (i, needs) in needs.iter().enumerate() {
        for layer in layers {
            thinet_sampling::check_needs(*needs, &channel_group(graph, layer)?)
                .map_err(|e| value(path, &format!("methods[{i}].selector"), &e))?;
        }
    }
    Ok(())
}

/// Whether the net has what `prune.estimate-batch-norm` estimates.
pub(crate) fn batch_norm(spec: &Spec, path: &Path, graph: &Graph) -> Result<(), HarnessError> {
    if spec.prune.estimate_batch_norm && !has_batch_norm(graph) {
        let problem = format!("{} has no batch normalisation (key net.batch-norm)", graph.name());
        return Err(value(path, "prune.estimate-batch-norm", &problem));
    }
    Ok(())
}

fn check_recipe(recipe: &Recipe, path: &Path, key: &str) -> Result<(), HarnessError> {
    let wrong = |name: &str, problem: &dyn Display| Err(value(path, &format!("{key}.{name}"), problem));
    match (recipe.epochs, recipe.steps) {
        (Some(_), Some(_)) | (None, None) => {
            return Err(value(path, key, &"exactly one of `epochs` and `steps` is needed"));
        }
        (Some(epochs), None) => counted(path, &format!("{key}.epochs"), epochs, EPOCHS)?,
        (None, Some(steps)) => counted(path, &format!("{key}.steps"), steps, STEPS)?,
    }
    counted(path, &format!("{key}.batch"), recipe.batch, BATCH)?;
    if recipe.augment.crop_padding > MOST_PADDING {
        let problem = format!("{} is more than {MOST_PADDING}", recipe.augment.crop_padding);
        return wrong("augment.crop-padding", &problem);
    }
    if !(recipe.lr > 0.0 && recipe.lr.is_finite()) {
        return wrong("lr", &format!("{} is not a positive number", recipe.lr));
    }
    if !(0.0..1.0).contains(&recipe.warm_up) {
        return wrong("warm-up", &format!("{} is outside [0, 1)", recipe.warm_up));
    }
    if !(0.0..1.0).contains(&recipe.momentum) {
        return wrong("momentum", &format!("{} is outside [0, 1)", recipe.momentum));
    }
    if recipe.nesterov && recipe.momentum == 0.0 {
        return wrong("nesterov", &"has no meaning without momentum");
    }
    for (name, number) in [
        ("weight-decay", recipe.weight_decay),
        ("bias-lr", recipe.bias_lr),
        ("bias-decay", recipe.bias_decay),
    ] {
        if !(number >= 0.0 && number.is_finite()) {
            return wrong(name, &format!("{number} is not a number of at least 0"));
        }
    }
    for (name, layers) in [("layer-lr", &recipe.layer_lr), ("layer-decay", &recipe.layer_decay)] {
        if let Some((layer, number)) = layers.iter().find(|(_, n)| !(**n >= 0.0 && n.is_finite())) {
            return wrong(name, &format!("{layer}: {number} is not a number of at least 0"));
        }
    }
    if let (Schedule::Exponential { from_epoch, .. }, Some(epochs)) = (&recipe.schedule, recipe.epochs)
        && *from_epoch >= epochs
    {
        let problem =
            format!("{from_epoch} is not among the epochs 0 to {}: the rate would never fall", epochs - 1);
        return wrong("schedule.from-epoch", &problem);
    }
    recipe.schedule.check().map_err(|e| value(path, &format!("{key}.schedule"), &e))
}

/// Checks what depends on the data.
pub(crate) fn against_data(spec: &Spec, path: &Path, data: &Split) -> Result<(), HarnessError> {
    let images = data.train.len();
    for (key, recipe) in all_recipes(spec) {
        if recipe.batch > images {
            let problem = format!("{} is more than the {images} training images", recipe.batch);
            return Err(value(path, &format!("{key}.batch"), &problem));
        }
        if recipe.augment.random_crop && !data.train.has_random_crop() {
            let problem = format!("{} has no random crop of its own; use crop-padding", data.train.name());
            return Err(value(path, &format!("{key}.augment.random-crop"), &problem));
        }
    }
    let mut per_class = vec![0_usize; data.train.classes()];
    for image in 0..images {
        per_class[data.train.label(image)] += 1;
    }
    let asked = spec.calibration.images_per_class;
    if let Some(class) = per_class.iter().position(|&n| n < asked) {
        let problem = format!("{asked} asked for, class {class} has {} training images", per_class[class]);
        return Err(value(path, "calibration.images-per-class", &problem));
    }
    Ok(())
}

/// The transform from pixels to inputs: the spec's values, else the dataset's.
pub(crate) fn transform(spec: &Spec, path: &Path, shape: [usize; 3]) -> Result<Transform, HarnessError> {
    let usual = spec.dataset.normalisation();
    let normalisation = Normalisation {
        mean: spec.input.mean.clone().unwrap_or(usual.mean),
        std: spec.input.std.clone().unwrap_or(usual.std),
        order: spec.input.order.unwrap_or(usual.order),
        range: spec.input.range.unwrap_or(usual.range),
    };
    for (key, list) in [("input.mean", &normalisation.mean), ("input.std", &normalisation.std)] {
        if list.len() != shape[0] {
            let problem = format!("{} values for images of {} channels", list.len(), shape[0]);
            return Err(value(path, key, &problem));
        }
    }
    let (pad, crop) = match spec.input.size {
        None => (0, None),
        Some(size) => placed(size, shape).map_err(|problem| value(path, "input.size", &problem))?,
    };
    let transform = Transform { pad, crop, normalisation, augment: Augment::default() };
    transform.output_shape(shape).map_err(|e| value(path, "input", &e))?;
    Ok(transform)
}

/// Padding and centre crop that turn images of `[c, h, w]` into `size`×`size`.
fn placed(size: usize, [_, height, width]: [usize; 3]) -> Result<(usize, Option<usize>), String> {
    let side = height.min(width);
    let missing = size.saturating_sub(side);
    if size == 0 || missing % 2 == 1 {
        return Err(format!("{size} cannot be reached from {height}×{width} by equal padding on both sides"));
    }
    let exact = height == width && size >= side;
    Ok((missing / 2, (!exact).then_some(size)))
}

/// Builds the dense net for these images.
pub(crate) fn build(
    spec: &Spec,
    path: &Path,
    transform: &Transform,
    classes: usize,
) -> Result<Graph, HarnessError> {
    let input = transform.output_shape(spec.dataset.shape())?;
    spec.net.build(input, classes).map_err(|e| value(path, "net", &e))
}

#[cfg(test)]
mod tests;
