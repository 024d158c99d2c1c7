//! The state of a run: which stages are stored, running or failed, from manifest, store and claims. Needs no data and no device.

use std::collections::BTreeSet;
use std::ops::Add;
use std::path::{Path, PathBuf};

use serde::Serialize;
use thinet_graph::Graph;
use thinet_report::records::{Status, Unfit};

use crate::error::HarnessError;
use crate::store::run_folder::run_spec;
use crate::store::{Brief, Depth, Holder, Manifest, ManifestEntry, StageId, StageKind, Store, holder, paths};
use crate::study::{Duration, Spec, ratio_of_all, ratio_of_kind, unfit};

/// The state of a stage.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum StageState {
    /// Stored.
    Done {
        /// Wall time it took.
        seconds: f64,
    },
    /// Stored; its loss became NaN or infinite.
    Diverged {
        /// Wall time it took.
        seconds: f64,
    },
    /// A process works on it.
    Running {
        /// The process, with its progress.
        holder: Holder,
    },
    /// It failed last.
    Failed { error: String },
    /// Stored but damaged; `thinet run` runs it again.
    Damaged { problem: String },
    /// Not stored yet.
    Missing,
}

/// A stage and its state.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct StageStatus {
    #[serde(flatten)]
    pub stage: ManifestEntry,
    #[serde(flatten)]
    pub state: StageState,
}

/// The state of a run.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct RunStatus {
    pub name: String,
    /// Path of the spec file as given on the command line.
    pub spec: PathBuf,
    /// The `thinet run` that works on it, if any.
    pub parent: Option<Holder>,
    pub stages: Vec<StageStatus>,
    /// Seconds left with the current number of parallel stages, at least one, by the times of the stored stages, or assumed rates
    /// while none is stored. `None` if a run of an old version has no stored stage.
    pub seconds_left: Option<f64>,
}

/// Numbers of stages by state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Tally {
    /// Stored, including diverged ones.
    pub done: usize,
    /// Diverged.
    pub diverged: usize,
    /// Running.
    pub running: usize,
    pub failed: usize,
    /// Not stored, or damaged.
    pub missing: usize,
    /// Damaged.
    pub damaged: usize,
}

impl RunStatus {
    /// The state of a run by the name of its folder; `None` if it has no manifest, as runs of old versions. Compares the checksum of
    /// each record and the sizes of its files.
    ///
    /// # Errors
    /// If the manifest cannot be read.
    pub fn of(results: &Path, name: &str) -> Result<Option<Self>, HarnessError> {
        Self::look(results, name, Depth::Sizes)
    }

    /// As [`RunStatus::of`], but also compares the checksums of all files: every stored byte of the run is read.
    ///
    /// # Errors
    /// If the manifest cannot be read.
    pub fn checked(results: &Path, name: &str) -> Result<Option<Self>, HarnessError> {
        Self::look(results, name, Depth::Checksums)
    }

    fn look(results: &Path, name: &str, depth: Depth) -> Result<Option<Self>, HarnessError> {
        let folder = paths::runs(results).join(name);
        let Some(manifest) = Manifest::read(&folder)? else { return Ok(None) };
        let store = Store::at(results);
        let mut stages = states(&store, manifest.stages, depth);
        let spec = run_spec(&folder).ok().and_then(|text| Spec::parse(&text, &folder).ok());
        let unfit = fail_unfit(&store, spec.as_ref(), &mut stages);
        Ok(Some(Self {
            name: name.to_owned(),
            spec: manifest.spec,
            parent: holder(&folder.join(paths::CLAIM)),
            seconds_left: seconds_left(&stages, &unfit),
            stages,
        }))
    }

    /// Counts the stages of one kind, or all.
    #[must_use]
    pub fn tally(&self, kind: Option<StageKind>) -> Tally {
        let mut tally = Tally::default();
        for stage in self.stages.iter().filter(|stage| kind.is_none_or(|kind| stage.stage.kind == kind)) {
            match stage.state {
                StageState::Done { .. } => tally.done += 1,
                StageState::Diverged { .. } => {
                    tally.done += 1;
                    tally.diverged += 1;
                }
                StageState::Running { .. } => tally.running += 1,
                StageState::Failed { .. } => tally.failed += 1,
                StageState::Missing => tally.missing += 1,
                StageState::Damaged { .. } => {
                    tally.missing += 1;
                    tally.damaged += 1;
                }
            }
        }
        tally
    }
}

/// The states of the stages in order, read on all cores.
fn states(store: &Store, stages: Vec<ManifestEntry>, depth: Depth) -> Vec<StageStatus> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let part = stages.len().div_ceil(threads).max(1);
    let states: Vec<StageState> = std::thread::scope(|scope| {
        let look = |stages: &[ManifestEntry]| -> Vec<StageState> {
            stages.iter().map(|stage| state(store, &stage.id, depth)).collect()
        };
        let handles: Vec<_> = stages.chunks(part).map(|stages| scope.spawn(move || look(stages))).collect();
        let join = |handle: std::thread::ScopedJoinHandle<'_, _>| {
            handle.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        handles.into_iter().flat_map(join).collect()
    });
    stages.into_iter().zip(states).map(|(stage, state)| StageStatus { stage, state }).collect()
}

fn state(store: &Store, id: &str, depth: Depth) -> StageState {
    let brief = StageId::parse(id).map_or(Ok(None), |id| store.brief(&id, depth));
    let problem = match brief {
        Ok(Some(Brief { status: Status::Diverged, seconds, .. })) => return StageState::Diverged { seconds },
        Ok(Some(Brief { seconds, .. })) => return StageState::Done { seconds },
        Ok(None) => None,
        Err(HarnessError::Damaged { problem, .. }) => Some(problem),
        Err(error) => Some(error.to_string()),
    };
    if let Some(holder) = holder(&store.claim_file(id)) {
        return StageState::Running { holder };
    }
    if let Some(problem) = problem {
        return StageState::Damaged { problem };
    }
    store.failure(id).map_or(StageState::Missing, |error| StageState::Failed { error })
}

/// Marks unfit dense nets, and the missing stages that need them, as failed; returns the ids of those nets.
fn fail_unfit(store: &Store, spec: Option<&Spec>, stages: &mut [StageStatus]) -> BTreeSet<String> {
    // Without the spec, a net near chance counts as allowed.
    let allow_chance = spec.is_none_or(|spec| spec.dense.allow_chance);
    let mut unfit = BTreeSet::new();
    for StageStatus { stage, state } in stages.iter_mut().filter(|s| s.stage.kind == StageKind::Dense) {
        if !matches!(state, StageState::Done { .. } | StageState::Diverged { .. }) {
            continue;
        }
        let Some(result) = store.find(&stage.id).ok().flatten() else { continue };
        let graph = result.inputs.get("graph").cloned().map(serde_json::from_value::<Graph>);
        let Some(Ok(graph)) = graph else { continue };
        let Some(why) = unfit::of_result(&result, graph.classes(), allow_chance) else { continue };
        unfit.insert(stage.id.clone());
        // A diverged one has its own state.
        if let Unfit::NearChance { top1, chance } = why {
            let error =
                format!("{top1:.2} % top-1, chance is {chance:.2} %; the cells that need it are left out");
            *state = StageState::Failed { error };
        }
    }
    for StageStatus { stage, state } in stages {
        let needs_unfit = stage.needs.iter().any(|needed| unfit.contains(needed));
        if needs_unfit && matches!(state, StageState::Missing | StageState::Failed { .. }) {
            *state = StageState::Failed { error: "its dense net is unfit".to_owned() };
        }
    }
    unfit
}

/// Seconds left, by the arithmetic of [`estimate`](crate::study::estimate) for one process and divided by the number of running stages.
/// Stages that need an unfit dense net are not counted.
fn seconds_left(stages: &[StageStatus], unfit: &BTreeSet<String>) -> Option<f64> {
    // Manifests of old versions list multiply-adds alone: proportional to the time, but no seconds.
    let expected = |stage: &ManifestEntry| stage.expected_seconds.unwrap_or(stage.macs);
    let is_unfit = |id: &String| unfit.contains(id);
    let (mut stored, mut missing, mut running) = (Vec::new(), Vec::new(), 0);
    for StageStatus { stage, state } in stages {
        if is_unfit(&stage.id) || stage.needs.iter().any(is_unfit) {
            continue;
        }
        match state {
            StageState::Done { seconds } | StageState::Diverged { seconds } => {
                stored.push(Duration { kind: stage.kind, expected: expected(stage), took: *seconds });
            }
            StageState::Running { .. } => {
                missing.push(stage);
                running += 1;
            }
            StageState::Failed { .. } | StageState::Damaged { .. } | StageState::Missing => {
                missing.push(stage);
            }
        }
    }
    let is_known =
        ratio_of_all(&stored).is_some() || missing.iter().all(|stage| stage.expected_seconds.is_some());
    let left = |stage: &&ManifestEntry| expected(stage) * ratio_of_kind(&stored, stage.kind).0;
    is_known.then(|| missing.iter().map(left).fold(0.0, Add::add) / f64::from(running.max(1)))
}
