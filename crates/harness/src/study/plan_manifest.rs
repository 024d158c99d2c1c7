//! The manifest of a plan: its stages with their labels, dependencies and costs.

use std::collections::BTreeSet;

use super::plan::Plan;
use super::work::Work;
use crate::store::{Manifest, ManifestEntry, StageKind};

/// Lists the stages of a plan in the order in which they run, each once.
#[must_use]
pub fn manifest(plan: &Plan) -> Manifest {
    let mut stages = Vec::new();
    let work = Work::of_plan(plan);
    for dense in &plan.dense {
        stages.push(ManifestEntry {
            id: dense.id.to_string(),
            label: dense.label(),
            kind: StageKind::Dense,
            needs: Vec::new(),
            macs: work.dense_macs(),
        });
    }
    for (dense, evidence) in
        plan.dense.iter().flat_map(|dense| dense.evidence.iter().map(move |e| (dense, e)))
    {
        stages.push(ManifestEntry {
            id: evidence.id.to_string(),
            label: evidence.label.clone(),
            kind: StageKind::Evidence,
            needs: vec![dense.id.to_string()],
            macs: 0.0,
        });
    }
    for cell in &plan.cells {
        let mut needs = Vec::new();
        if !cell.design.is_from_scratch {
            needs.push(plan.dense[cell.dense].id.to_string());
            needs.extend(plan.evidence_of(cell).map(|evidence| evidence.id.to_string()));
        }
        stages.push(ManifestEntry {
            id: cell.id.to_string(),
            label: cell.design.label(),
            kind: StageKind::Cell,
            needs,
            macs: work.cell_macs(&cell.design),
        });
    }
    // Two methods that differ in their label alone share a stage; both get its rows.
    let mut listed = BTreeSet::new();
    stages.retain(|stage| listed.insert(stage.id.clone()));
    Manifest {
        is_gpu: plan.device.is_gpu(),
        spec: plan.path.clone(),
        asked: plan.spec_hash.clone(),
        run: plan.run.clone(),
        stages,
    }
}
