//! A spec resolved without its data: the net, the layers, and the widths and sizes of every cell.
//!
//! `thinet plan` shows it for absent data, and tables take the rows that were not run from it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use thinet_data::Transform;
use thinet_graph::{Convention, Graph, channel_group, count, prunable_layers};
use thinet_report::records::{FROM_SCRATCH, Size};

use crate::error::HarnessError;
use crate::study::allocation::Scorer;
use crate::study::rates::{CellRate, cell_rates};
use crate::study::stored_run;
use crate::study::variants::{Variant, variants};
use crate::study::{MethodSpec, Options, Recipe, SelectorCommand, SelectorSpec, Spec, check};

/// A method at a keep rate with a seed, in a variant of the study.
#[derive(Clone, Debug)]
pub struct CellDesign {
    /// What it follows, shared between cells.
    pub variant: Arc<Variant>,
    /// The method, shared between cells; for the control from a random start only its label has a meaning.
    pub method: Arc<MethodSpec>,
    /// Whether this is the control that is trained from a random start at the same widths.
    pub is_from_scratch: bool,
    /// Fraction of channels kept.
    pub keep_rate: f64,
    /// The target of `prune.flops` that the keep rate meets, a fraction of the dense net's FLOPs.
    pub flops_target: Option<f64>,
    pub seed: u64,
    /// Whose scores fix the widths, with a global allocation. `keep`, `graph` and `size` are then those of the keep rate in every layer,
    /// with which costs are estimated; the true ones are known once the allocation is stored (`Plan::allocated_net`).
    pub scorer: Option<Scorer>,
    /// Channels kept per pruned layer, in pruning order.
    pub keep: Arc<[(String, usize)]>,
    /// The net of these widths.
    pub graph: Arc<Graph>,
    pub size: Size,
    /// The program that selects, if the method's selector is one; shared between cells.
    pub command: Option<Arc<SelectorCommand>>,
}

impl CellDesign {
    /// For progress and logs, such as `thinet r=0.5 seed 0`, or `short tuning: thinet r=0.5 seed 0` in a variant.
    #[must_use]
    pub fn label(&self) -> String {
        let variant = self.variant.prefix();
        format!("{variant}{} r={} seed {}", self.method.label(), self.keep_rate, self.seed)
    }
}

/// A spec that is checked against everything except its data.
#[derive(Clone, Debug)]
pub struct ResolvedStudy {
    /// The spec with the command line's overrides applied and defaults filled in, among them the list of layers to prune.
    pub spec: Spec,
    pub path: PathBuf,
    /// Table name without extension.
    pub table: String,
    /// Pixels to inputs, without augmentation.
    pub transform: Transform,
    /// The dense net.
    pub graph: Graph,
    pub size: Size,
    /// Its variants; of a study without variants the spec itself.
    pub variants: Vec<Arc<Variant>>,
    /// In order variant, method, keep rate, seed; the controls of a variant last.
    pub cells: Vec<CellDesign>,
}

impl ResolvedStudy {
    /// Reads a spec file without opening its data; `None` if the number of classes depends on the data.
    ///
    /// # Errors
    /// If the spec is invalid; the message names file, key and allowed values.
    pub fn without_data(path: &Path, options: &Options) -> Result<Option<Self>, HarnessError> {
        let (spec, variants) = Self::read(path, options)?;
        spec.dataset.classes().map(|classes| Self::new(spec, variants, path, classes)).transpose()
    }

    /// Reads a spec, applies the command line's overrides and checks its values and those of its variants.
    pub(crate) fn read(path: &Path, options: &Options) -> Result<(Spec, Vec<Variant>), HarnessError> {
        let mut spec = Spec::read(path)?;
        if let Some(seeds) = options.seeds {
            spec.seeds = seeds;
        }
        Self::checked(spec, path)
    }

    /// Checks the values of a spec and those of its variants.
    pub(crate) fn checked(spec: Spec, path: &Path) -> Result<(Spec, Vec<Variant>), HarnessError> {
        check::values(&spec, path)?;
        let variants = variants(&spec, path)?;
        Ok((spec, variants))
    }

    pub(crate) fn new(
        spec: Spec,
        variants: Vec<Variant>,
        path: &Path,
        classes: usize,
    ) -> Result<Self, HarnessError> {
        let transform = check::transform(&spec, path, spec.dataset.shape())?;
        let graph = check::build(&spec, path, &transform, classes)?;
        let spec = with_layers(spec, path, &graph)?;
        let (mut resolved, mut cells) = (Vec::new(), Vec::new());
        for mut variant in variants {
            variant.spec =
                with_layers(variant.spec.clone(), path, &graph).map_err(|error| variant.named(error))?;
            let variant = Arc::new(variant);
            cells.extend(cells_of(&variant, path, &graph).map_err(|error| variant.named(error))?);
            resolved.push(variant);
        }
        Ok(Self {
            table: spec.table_name().to_owned(),
            size: size_of(&graph),
            path: path.to_owned(),
            transform,
            variants: resolved,
            cells,
            graph,
            spec,
        })
    }

    /// The path of the dense net's weight file, if it starts from one.
    #[must_use]
    pub fn dense_weights(&self) -> Option<PathBuf> {
        dense_weights(&self.spec, &self.path)
    }

    /// The name of the net in tables.
    #[must_use]
    pub fn net_label(&self) -> String {
        net_label(&self.spec, &self.graph)
    }
}

/// The path of the weight file, relative to the spec's folder. Of several folders, as for a stored run, the first that has the file.
pub(crate) fn dense_weights(spec: &Spec, path: &Path) -> Option<PathBuf> {
    let weights = spec.dense.weights.as_ref()?;
    let places: Vec<PathBuf> =
        stored_run::folders(path).into_iter().map(|folder| folder.join(weights)).collect();
    places.iter().find(|place| place.is_file()).or(places.first()).cloned()
}

/// The name of a net in tables.
pub(crate) fn net_label(spec: &Spec, graph: &Graph) -> String {
    let [c, h, w] = graph.input_shape();
    format!("{} ×{}, input {c}×{h}×{w}", graph.name(), spec.net.width)
}

/// Size of a net under both conventions.
pub(crate) fn size_of(graph: &Graph) -> Size {
    Size { paper: count(graph, Convention::Paper), all_parameters: count(graph, Convention::AllParameters) }
}

/// The spec with its layers listed, checked against the net.
fn with_layers(mut spec: Spec, path: &Path, graph: &Graph) -> Result<Spec, HarnessError> {
    let layers = layers(&spec, path, graph)?;
    check::layer_names(&spec, path, graph, &layers)?;
    let needs = check::needs(&spec, path)?;
    check::evidence(&needs, path, graph, &layers)?;
    check::batch_norm(&spec, path, graph)?;
    spec.prune.layers = layers;
    Ok(spec)
}

/// The groups to prune: the listed ones, checked, or every convolution that one layer alone reads.
fn layers(spec: &Spec, path: &Path, graph: &Graph) -> Result<Vec<String>, HarnessError> {
    if spec.prune.layers.is_empty() {
        return Ok(prunable_layers(graph).into_iter().map(|layer| layer.name).collect());
    }
    for layer in &spec.prune.layers {
        channel_group(graph, layer).map_err(|e| check::value(path, "prune.layers", &e))?;
    }
    Ok(spec.prune.layers.clone())
}

fn cells_of(variant: &Arc<Variant>, path: &Path, graph: &Graph) -> Result<Vec<CellDesign>, HarnessError> {
    let spec = &variant.spec;
    let rates = cell_rates(spec, path, graph)?;
    let mut cells = Vec::new();
    for (method, is_from_scratch, scorer) in methods(spec, path)? {
        let command = scorer.command.clone().filter(|_| !is_from_scratch);
        let method = Arc::new(method);
        for CellRate { rate, flops_target, keep, graph, size } in &rates {
            let is_uncut = spec.prune.is_uncut(&spec.prune.layers, *rate);
            // Every method would keep all channels: that net is the dense one.
            if is_uncut && !is_from_scratch {
                continue;
            }
            let scorer = (spec.prune.is_global() && !is_uncut).then(|| scorer.clone());
            for seed in 0..spec.seeds {
                cells.push(CellDesign {
                    variant: variant.clone(),
                    method: method.clone(),
                    is_from_scratch,
                    keep_rate: *rate,
                    flops_target: *flops_target,
                    seed,
                    scorer: scorer.clone(),
                    keep: keep.clone(),
                    graph: graph.clone(),
                    size: *size,
                    command: command.clone(),
                });
            }
        }
    }
    Ok(cells)
}

/// The methods of a variant, each with its selector, and the controls from a random start: one, or with a global allocation one at the
/// widths of each selector.
fn methods(spec: &Spec, path: &Path) -> Result<Vec<(MethodSpec, bool, Scorer)>, HarnessError> {
    let control = |label: String| MethodSpec {
        selector: SelectorSpec::Registered(FROM_SCRATCH.to_owned()),
        reconstruction: "none".to_owned(),
        label: Some(label),
    };
    let (mut methods, mut controls): (Vec<(MethodSpec, bool, Scorer)>, Vec<_>) = (Vec::new(), Vec::new());
    for (i, method) in spec.methods.iter().enumerate() {
        let command = SelectorCommand::of(&method.selector, path)
            .map_err(|problem| check::value(path, &format!("methods[{i}].selector"), &problem))?
            .map(Arc::new);
        let scorer = Scorer { selector: method.selector.clone(), command };
        let is_known = methods.iter().any(|(.., known)| *known == scorer);
        if spec.prune.is_global() && !is_known {
            let label = format!("From scratch as {}", method.label());
            controls.push((control(label), true, scorer.clone()));
        }
        methods.push((method.clone(), false, scorer));
    }
    if !spec.prune.is_global() {
        let none = Scorer { selector: SelectorSpec::Registered(FROM_SCRATCH.to_owned()), command: None };
        controls.push((control("From scratch".to_owned()), true, none));
    }
    let controls = controls.into_iter().filter(|_| spec.from_scratch.is_some());
    Ok(methods.into_iter().chain(controls).collect())
}

/// Training batches of a cell after its first cut; for the control those of its whole training.
pub(crate) fn tuning_steps(cell: &CellDesign, images: usize) -> u64 {
    let spec = &cell.variant.spec;
    let steps = |recipe: &Recipe| recipe.total_steps(images) as u64;
    if cell.is_from_scratch {
        return spec.from_scratch.as_ref().map_or(0, steps);
    }
    let last = cell.keep.len().saturating_sub(1);
    let after = cell.keep.iter().enumerate().skip(if spec.is_one_shot() { last } else { 0 });
    after.filter_map(|(i, (layer, _))| spec.prune.recipe_after(layer, i == last)).map(steps).sum()
}

#[cfg(test)]
mod tests {
    use crate::study::spec::MINIMAL;
    use crate::study::work::tests::resolved;

    #[test]
    fn a_net_is_named_with_its_width_and_input() {
        let study = resolved(&MINIMAL.replace("\"tiny\"", "\"tiny\", width = 1.5"));
        assert_eq!(study.net_label(), "tiny ×1.5, input 1×28×28");
    }

    #[test]
    fn nothing_is_pruned_at_a_rate_of_one_and_the_control_is_trained_at_every_rate() {
        let control = "from-scratch = { epochs = 1, lr = 0.1 }\nprune.keep-rates";
        let study = resolved(&MINIMAL.replace("prune.keep-rates", control).replace("[0.5]", "[1.0, 0.5]"));
        let cells: Vec<_> = study.cells.iter().map(|cell| (cell.method.label(), cell.keep_rate)).collect();
        let expected = [("random", 0.5), ("From scratch", 1.0), ("From scratch", 0.5)];
        assert_eq!(cells, expected.map(|(method, rate)| (method.to_owned(), rate)));
        assert_eq!(study.cells[1].size, study.size);
    }
}
