//! Builds the plan of a spec: defaults filled in, values checked, every stage with its id, before any work.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use thinet_data::{DataError, DatasetSpec, Split, Transform};
use thinet_graph::Graph;
use thinet_models::{Device, check_import};
use thinet_report::records::{Program, Size};
use thinet_sampling::GatheredKind;
use thinet_selectors::{EvidenceKind, Needs};

use super::allocation::{AllocatedNet, AllocationPlan};
use super::check;
use super::identity::{self, DenseFacts};
use super::options::Options;
use super::resolved::{CellDesign, ResolvedStudy, dense_weights, net_label};
use super::selector_command::SelectorCommand;
use super::selector_spec::SelectorSpec;
use super::spec::Spec;
use super::stored_run;
use super::variants::Variant;
use crate::error::HarnessError;
use crate::store::{StageId, Store, paths};

/// The dense net of one seed.
#[derive(Clone, Debug)]
pub struct DensePlan {
    pub id: StageId,
    pub seed: u64,
    /// Everything that went into the id.
    pub inputs: serde_json::Value,
    /// The stages of one-shot evidence of this dense net, for each variant in one-shot mode; variants can share a stage.
    pub evidence: Vec<EvidencePlan>,
    /// Fingerprint of the training images as selectors see them.
    pub calibration_data: String,
}

impl DensePlan {
    /// For progress and logs.
    #[must_use]
    pub fn label(&self) -> String {
        format!("dense net, seed {}", self.seed)
    }

    /// The stages of one-shot evidence of a variant.
    pub(crate) fn evidence_of<'a>(
        &'a self,
        variant: &'a Arc<Variant>,
    ) -> impl Iterator<Item = &'a EvidencePlan> {
        self.evidence.iter().filter(|stage| Arc::ptr_eq(&stage.variant, variant))
    }

    /// The parts that enter the ids of the stages that need it.
    fn facts(&self) -> DenseFacts<'_> {
        DenseFacts { id: &self.id, inputs: &self.inputs, calibration_data: &self.calibration_data }
    }
}

/// One kind of one-shot evidence of a dense net, for all pruned layers.
#[derive(Clone, Debug)]
pub struct EvidencePlan {
    pub id: StageId,
    /// The variant whose cells read it.
    pub variant: Arc<Variant>,
    pub kind: EvidenceKind,
    /// For progress and logs.
    pub label: String,
    /// Everything that went into the id.
    pub inputs: serde_json::Value,
}

/// One cell: a method at a keep rate with a seed.
#[derive(Clone, Debug)]
pub struct Cell {
    pub id: StageId,
    /// Position of its dense net in [`Plan::dense`].
    pub dense: usize,
    /// Method, keep rate, seed and widths.
    pub design: CellDesign,
    /// The kinds of evidence that it reads: those that its selector needs, and the moments. With an allocation the moments alone.
    pub needs: Needs,
    /// The stage that fixes its widths and channels, with a global allocation; shared between cells.
    pub allocation: Option<Arc<AllocationPlan>>,
}

/// A checked study. Only the run itself can still fail.
pub struct Plan {
    /// The spec with the command line's overrides applied and defaults filled in, among them the list of layers to prune.
    pub spec: Spec,
    pub path: PathBuf,
    /// The spec file that the run was started with: `path`, but for the folder of a stored run what its manifest says.
    pub started_with: PathBuf,
    /// Hash of the spec with overrides applied and defaults left out; of a stored run that of the spec that it was started with.
    pub spec_hash: String,
    /// Hash over all stages: the run's id.
    pub run: String,
    /// Table name without extension.
    pub table: String,
    pub results: PathBuf,
    /// The command that runs this study.
    pub command: String,
    pub device: Device,
    /// Build of the program.
    pub program: Program,
    pub data: Split,
    /// Pixels to inputs, without augmentation.
    pub transform: Transform,
    /// The dense net.
    pub graph: Graph,
    /// Its size.
    pub size: Size,
    /// Its variants; of a study without variants the spec itself.
    pub variants: Vec<Arc<Variant>>,
    /// One per seed, shared by all variants.
    pub dense: Vec<DensePlan>,
    /// The stages that fix widths, with a global allocation; methods with the same selector share one.
    pub allocations: Vec<Arc<AllocationPlan>>,
    /// In order variant, method, keep rate, seed.
    pub cells: Vec<Cell>,
}

impl Plan {
    /// Reads a spec file, opens its data and checks everything. Writes nothing.
    ///
    /// # Errors
    /// If the spec is invalid (the message names file, key and allowed values), the data cannot be read or the device is missing.
    pub fn new(path: &Path, options: &Options) -> Result<Self, HarnessError> {
        Self::with(ResolvedStudy::read(path, options)?, path, options)
    }

    /// The error where a stage that must be stored is not; it names the command that runs this study.
    pub(crate) fn not_run(&self, what: &str) -> HarnessError {
        HarnessError::NotRun { what: what.to_owned(), command: self.command.clone() }
    }

    /// The plan of a spec in memory, with its own number of seeds; `path` is where it would lie.
    pub(crate) fn of_spec(spec: Spec, path: &Path, options: &Options) -> Result<Self, HarnessError> {
        Self::with(ResolvedStudy::checked(spec, path)?, path, options)
    }

    fn with(
        (spec, variants): (Spec, Vec<Variant>),
        path: &Path,
        options: &Options,
    ) -> Result<Self, HarnessError> {
        let device = options.device;
        if !options.is_elsewhere {
            device.check_available().map_err(HarnessError::Device)?;
        }
        let data = open(&spec.dataset, path, options)?;
        for variant in &variants {
            check::against_data(&variant.spec, path, &data).map_err(|error| variant.named(error))?;
        }
        Self::of(spec, variants, path, data, options)
    }

    /// The plan of a spec and its variants, which are checked, on these data.
    ///
    /// # Errors
    /// If the net cannot be built or pruned as asked, or its weight file does not fit.
    pub(crate) fn of(
        spec: Spec,
        variants: Vec<Variant>,
        path: &Path,
        data: Split,
        options: &Options,
    ) -> Result<Self, HarnessError> {
        let device = options.device;
        let stored = stored_run::manifest(path).filter(|_| options.seeds.is_none());
        let (started_with, spec_hash) = match stored {
            Some(manifest) => (manifest.spec, manifest.asked),
            None => (path.to_owned(), identity::spec_hash(&spec)?),
        };
        let resolved = ResolvedStudy::new(spec, variants, path, data.train.classes())?;
        let weights = weights_hash(&resolved)?;
        let dense: Vec<DensePlan> = (0..resolved.spec.seeds)
            .map(|seed| dense_plan(&resolved, seed, &data, device, weights.as_ref()))
            .collect::<Result<_, _>>()?;
        let mut allocations: BTreeMap<String, Arc<AllocationPlan>> = BTreeMap::new();
        let mut cells: Vec<Cell> = Vec::with_capacity(resolved.cells.len());
        for cell in &resolved.cells {
            let parent = &dense[cell.seed as usize];
            let allocation = allocation_plan(cell, parent, path)?
                .map(|stage| allocations.entry(stage.id.to_string()).or_insert(Arc::new(stage)).clone());
            cells.push(planned(cell.clone(), parent, allocation, path)?);
        }
        let in_order =
            |cell: &Cell| cell.allocation.clone().and_then(|stage| allocations.remove(stage.id.as_str()));
        let allocations = cells.iter().filter_map(in_order).collect();
        let run = identity::run(dense.iter().map(|d| &d.id).chain(cells.iter().map(|c| &c.id)));
        let ResolvedStudy { spec, path, table, transform, graph, size, variants, .. } = resolved;
        let command = options.run_command(&path);
        Ok(Self {
            table,
            path,
            started_with,
            spec_hash,
            run,
            results: options.results.clone(),
            command,
            device,
            program: options.program.clone(),
            data,
            transform,
            size,
            variants,
            dense,
            allocations,
            cells,
            graph,
            spec,
        })
    }

    /// Everything that goes into a cell's id. Computed on demand: for tens of thousands of cells it would fill the memory.
    ///
    /// # Errors
    /// If its method is not registered, which cannot happen for cells of a plan.
    pub fn cell_inputs(&self, cell: &Cell) -> Result<serde_json::Value, HarnessError> {
        let allocation = cell.allocation.as_ref().map(|stage| &stage.id);
        identity::cell_inputs(&cell.design, self.dense[cell.dense].facts(), allocation)
    }

    /// The numbers of channels of a layer that cells with the same method and seed keep.
    pub(crate) fn keep_counts(&self, design: &CellDesign, layer: &str) -> BTreeSet<usize> {
        let is_like = |other: &&Cell| {
            let other = &other.design;
            Arc::ptr_eq(&other.variant, &design.variant)
                && Arc::ptr_eq(&other.method, &design.method)
                && other.seed == design.seed
        };
        let cells = self.cells.iter().filter(is_like);
        cells
            .flat_map(|cell| cell.design.keep.iter())
            .filter(|(name, _)| name == layer)
            .map(|(_, keep)| *keep)
            .collect()
    }

    /// The programs of selectors whose cells are not stored: what a run would start. Each once.
    #[must_use]
    pub fn commands_to_run(&self) -> Vec<Arc<SelectorCommand>> {
        let store = Store::at(&self.results);
        let mut commands: Vec<Arc<SelectorCommand>> = Vec::new();
        let of_cells = self.cells.iter().filter(|cell| cell.allocation.is_none());
        let of_cells = of_cells.map(|cell| (&cell.id, &cell.design.command));
        let of_allocations = self.allocations.iter().map(|stage| (&stage.id, &stage.scorer.command));
        for (id, command) in of_cells.chain(of_allocations) {
            let Some(command) = command else { continue };
            if !commands.contains(command) && !store.is_whole(id) {
                commands.push(command.clone());
            }
        }
        commands
    }

    /// The net of the widths that the allocation of a cell fixed; `None` if it is not stored, or the cell has none.
    ///
    /// # Errors
    /// If its record is damaged or does not fit the net.
    pub fn allocated_net(&self, cell: &Cell) -> Result<Option<AllocatedNet>, HarnessError> {
        let Some(stage) = &cell.allocation else { return Ok(None) };
        let result = Store::at(&self.results).result(&stage.id)?;
        result.map(|result| AllocatedNet::of(stage, &result, &self.graph)).transpose()
    }

    #[must_use]
    pub fn run_folder(&self) -> PathBuf {
        paths::runs(&self.results).join(format!("{}-{}", self.spec.name, self.run))
    }

    /// The path of the dense net's weight file, if it starts from one.
    #[must_use]
    pub fn dense_weights(&self) -> Option<PathBuf> {
        dense_weights(&self.spec, &self.path)
    }

    /// The stages of one-shot evidence that a cell reads.
    pub fn evidence_of<'a>(&'a self, cell: &'a Cell) -> impl Iterator<Item = &'a EvidencePlan> {
        let of_variant = self.dense[cell.dense].evidence_of(&cell.design.variant);
        of_variant.filter(move |stage| cell.needs.contains(stage.kind))
    }

    /// The stages of one-shot evidence that an allocation reads.
    pub(crate) fn evidence_of_allocation<'a>(
        &'a self,
        stage: &'a AllocationPlan,
    ) -> impl Iterator<Item = &'a EvidencePlan> {
        let of_variant = self.dense[stage.dense].evidence_of(&stage.design.variant);
        of_variant.filter(move |evidence| stage.needs.contains(evidence.kind))
    }

    /// The name of the net in tables.
    #[must_use]
    pub fn net_label(&self) -> String {
        net_label(&self.spec, &self.graph)
    }
}

/// Opens the data; the error for missing data names the command that fetches it. Images that `thinet data check` rejects are an
/// error.
fn open(dataset: &DatasetSpec, spec: &Path, options: &Options) -> Result<Split, HarnessError> {
    let folder = options.data_folder(dataset);
    let given = options.data.as_ref().map(|data| format!(" --data {}", data.display())).unwrap_or_default();
    let fetch = format!("thinet data fetch {}{given}", dataset.kind());
    let advice = if dataset.is_fetched() {
        format!("to get it: {fetch}")
    } else if dataset.is_own() {
        format!("{} is looked at; --data DIR names another folder", folder.display())
    } else {
        format!("`{fetch}` says how to get it; if it is elsewhere, --data DIR names the folder")
    };
    let data = thinet_data::open_with(dataset, &folder, options.prepared.as_deref());
    let data = data.map_err(|source| match source {
        DataError::Missing { .. } => HarnessError::NoData { source, advice },
        other => HarnessError::of_dataset(spec, other),
    })?;
    match thinet_data::problems(&data) {
        problems if problems.is_empty() => Ok(data),
        problems => Err(DataError::Layout { path: folder, problem: problems.join("; ") }.into()),
    }
}

/// Hash of the dense net's weight file, if there is one. Checks that the file fits the net.
fn weights_hash(resolved: &ResolvedStudy) -> Result<Option<String>, HarnessError> {
    let ResolvedStudy { spec, path, graph, .. } = resolved;
    let Some(file) = resolved.dense_weights() else { return Ok(None) };
    let places = stored_run::folders(path);
    if places.len() > 1 && !file.is_file() {
        let places: Vec<String> = places.iter().map(|place| place.display().to_string()).collect();
        let weights = spec.dense.weights.as_deref().unwrap_or(&file);
        let problem =
            format!("{} is missing: it is neither below {}", weights.display(), places.join(" nor below "));
        return Err(check::value(path, "dense.weights", &problem));
    }
    check_import(&file, graph, &spec.dense.import).map_err(|e| check::value(path, "dense.weights", &e))?;
    let hash = thinet_files::hash_file(&file)
        .map_err(|e| check::value(path, "dense.weights", &format!("cannot read {}: {e}", file.display())))?;
    Ok(Some(hash))
}

fn dense_plan(
    resolved: &ResolvedStudy,
    seed: u64,
    data: &Split,
    device: Device,
    weights: Option<&String>,
) -> Result<DensePlan, HarnessError> {
    let inputs = identity::dense_inputs(resolved, seed, data, device, weights);
    let id = identity::dense(&inputs);
    let calibration_data = data.calibration.fingerprint().to_owned();
    let mut plan = DensePlan { id, seed, inputs, evidence: Vec::new(), calibration_data };
    for variant in resolved.variants.iter().filter(|variant| variant.spec.is_one_shot()) {
        let mut needs = Needs::NONE;
        for method in &variant.spec.methods {
            needs = needs | gathered_for(&method.selector, &resolved.path)?;
        }
        for kind in thinet_sampling::gathered(needs) {
            plan.evidence.push(evidence_plan(variant, &plan, kind));
        }
    }
    Ok(plan)
}

/// The kinds of evidence to gather for a selector: those that it needs, and the moments, from which the reconstruction error and
/// the refit are computed.
fn gathered_for(selector: &SelectorSpec, path: &Path) -> Result<Needs, HarnessError> {
    let needs = selector.needs().map_err(|e| check::value(path, "methods.selector", &e))?;
    Ok(needs | Needs::MOMENTS)
}

/// One kind of a dense net's evidence. Its id does not depend on the methods that are compared.
fn evidence_plan(variant: &Arc<Variant>, dense: &DensePlan, kind: &dyn GatheredKind) -> EvidencePlan {
    let inputs = identity::evidence_inputs(variant, dense.facts());
    let label = format!("{}calibration ({}), seed {}", variant.prefix(), kind.kind().name(), dense.seed);
    let id = identity::evidence(kind, &inputs);
    let variant = variant.clone();
    EvidencePlan { id, variant, kind: kind.kind(), label, inputs }
}

/// The stage that fixes the widths of a cell; `None` without a global allocation.
fn allocation_plan(
    cell: &CellDesign,
    parent: &DensePlan,
    path: &Path,
) -> Result<Option<AllocationPlan>, HarnessError> {
    let Some(scorer) = cell.scorer.clone() else { return Ok(None) };
    let needs = scorer.selector.needs().map_err(|e| check::value(path, "methods.selector", &e))?;
    let evidence = parent.evidence_of(&cell.variant).filter(|stage| needs.contains(stage.kind));
    let evidence: Vec<&StageId> = evidence.map(|stage| &stage.id).collect();
    let inputs = identity::allocation_inputs(cell, &scorer, parent.facts(), &evidence)?;
    let asked = match cell.flops_target {
        Some(target) => format!("FLOPs={target}"),
        None => format!("r={}", cell.keep_rate),
    };
    let (variant, selector) = (cell.variant.prefix(), scorer.selector.short_name());
    Ok(Some(AllocationPlan {
        id: identity::allocation(&inputs),
        dense: parent.seed as usize,
        design: cell.clone(),
        needs,
        label: format!("{variant}allocation by {selector} {asked} seed {}", cell.seed),
        inputs,
        scorer,
    }))
}

/// A cell with its id.
fn planned(
    cell: CellDesign,
    parent: &DensePlan,
    allocation: Option<Arc<AllocationPlan>>,
    path: &Path,
) -> Result<Cell, HarnessError> {
    let inputs = identity::cell_inputs(&cell, parent.facts(), allocation.as_ref().map(|stage| &stage.id))?;
    let (id, needs) = match cell.is_from_scratch {
        true => (identity::from_scratch(&inputs), Needs::NONE),
        false if allocation.is_some() => (identity::cell(&inputs), Needs::MOMENTS),
        false => (identity::cell(&inputs), gathered_for(&cell.method.selector, path)?),
    };
    Ok(Cell { id, dense: parent.seed as usize, design: cell, needs, allocation })
}
