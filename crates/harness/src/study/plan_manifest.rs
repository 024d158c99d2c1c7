//! The manifest of a plan: its stages with their labels, dependencies and costs.

use std::collections::BTreeSet;

use thinet_selectors::Needs;

use super::cost::StageWork;
use super::estimate::assumed_seconds;
use super::plan::{Cell, Plan};
use super::work::Work;
use crate::store::{Manifest, ManifestEntry, StageKind};

/// Lists the stages of a plan in the order in which they run, each once.
#[must_use]
pub fn manifest(plan: &Plan) -> Manifest {
    let mut stages = Vec::new();
    let work = Work::of_plan(plan);
    let expected = assumed_seconds(plan);
    let cost = |work: StageWork| (work.macs(), Some(expected(&work)));
    for dense in &plan.dense {
        let (macs, expected_seconds) = cost(work.dense());
        stages.push(ManifestEntry {
            id: dense.id.to_string(),
            label: dense.label(),
            kind: StageKind::Dense,
            needs: Vec::new(),
            macs,
            expected_seconds,
        });
    }
    for (dense, evidence) in
        plan.dense.iter().flat_map(|dense| dense.evidence.iter().map(move |e| (dense, e)))
    {
        let (macs, expected_seconds) =
            cost(work.evidence(&evidence.variant.spec, Needs::only(evidence.kind)));
        stages.push(ManifestEntry {
            id: evidence.id.to_string(),
            label: evidence.label.clone(),
            kind: StageKind::Evidence,
            needs: vec![dense.id.to_string()],
            macs,
            expected_seconds,
        });
    }
    for stage in &plan.allocations {
        let (macs, expected_seconds) = cost(StageWork::default());
        let mut needs = vec![plan.dense[stage.dense].id.to_string()];
        needs.extend(plan.evidence_of_allocation(stage).map(|evidence| evidence.id.to_string()));
        stages.push(ManifestEntry {
            id: stage.id.to_string(),
            label: stage.label.clone(),
            kind: StageKind::Evidence,
            needs,
            macs,
            expected_seconds,
        });
    }
    for cell in side_by_side(plan) {
        let (macs, expected_seconds) = cost(work.cell(&cell.design));
        let mut needs = Vec::new();
        if !cell.design.is_from_scratch {
            needs.push(plan.dense[cell.dense].id.to_string());
            needs.extend(plan.evidence_of(cell).map(|evidence| evidence.id.to_string()));
        }
        needs.extend(cell.allocation.iter().map(|stage| stage.id.to_string()));
        stages.push(ManifestEntry {
            id: cell.id.to_string(),
            label: cell.design.label(),
            kind: StageKind::Cell,
            needs,
            macs,
            expected_seconds,
        });
    }
    // Two methods that differ in their label alone share a stage; both get its rows.
    let mut listed = BTreeSet::new();
    stages.retain(|stage| listed.insert(stage.id.clone()));
    Manifest { spec: plan.started_with.clone(), asked: plan.spec_hash.clone(), run: plan.run.clone(), stages }
}

/// The cells by seed, then keep rate, then method: a study that is stopped early has compared all methods as far as it went.
fn side_by_side(plan: &Plan) -> Vec<&Cell> {
    let mut rates: Vec<f64> = Vec::new();
    for cell in &plan.cells {
        if !rates.contains(&cell.design.keep_rate) {
            rates.push(cell.design.keep_rate);
        }
    }
    let rate = |cell: &Cell| rates.iter().position(|&rate| rate == cell.design.keep_rate);
    let mut cells: Vec<&Cell> = plan.cells.iter().collect();
    cells.sort_by_key(|cell| (cell.design.seed, rate(cell)));
    cells
}
