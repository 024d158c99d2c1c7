//! The estimate of a study's cost before, during and after it: from assumed rates, then from the times of stored stages.

use std::fs;

use thinet_harness::events::Silent;
use thinet_harness::inspect::status::RunStatus;
use thinet_harness::store::{ManifestEntry, StageKind};
use thinet_harness::study::{Basis, KINDS_OF_WORK, Plan, estimate, manifest};

use crate::fixture::{Fixture, SPEC, one_shot};

/// Sets the seconds of a stored stage, as a version without checksums would have recorded them.
fn set_seconds(plan: &Plan, stage: &ManifestEntry, seconds: f64) {
    let path = plan.results.join("store").join(&stage.id).join("result.json");
    let mut record: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    record.as_object_mut().unwrap().remove("checksum");
    record["seconds"] = seconds.into();
    fs::write(&path, record.to_string()).unwrap();
}

fn assert_close(found: f64, expected: f64) {
    assert!((found / expected - 1.0).abs() < 1e-9, "{found} is not {expected}");
}

#[test]
fn the_time_left_follows_the_rate_of_stored_stages() {
    let fixture = Fixture::new();
    let spec = one_shot(SPEC).replace("[0.5, 0.75]", "[0.5]");
    let plan = fixture.plan(&spec, "results").unwrap();
    let stages = manifest(&plan).stages;
    let of_kind = |kind| stages.iter().filter(|stage| stage.kind == kind).collect::<Vec<_>>();
    let (dense, evidence, cells) =
        (of_kind(StageKind::Dense), of_kind(StageKind::Evidence), of_kind(StageKind::Cell));
    // The moments, and the zero counts of APoZ.
    assert_eq!((dense.len(), evidence.len(), cells.len()), (1, 2, 3));
    let macs = |stages: &[&ManifestEntry]| stages.iter().map(|stage| stage.macs).sum::<f64>();

    // Nothing is stored: assumed rates. Every cell has the same work here.
    let before = estimate(&plan, 2).unwrap();
    assert_eq!((before.stages, before.kinds, before.done, before.is_measured), (6, [1, 2, 3], 0, false));
    assert_eq!(before.by_kind.map(|cost| (cost.missing, cost.basis)), [1, 2, 3].map(|n| (n, Basis::Assumed)));
    assert!(before.macs > macs(&dense) + macs(&cells), "calibrations are passes, too");
    assert_close(before.seconds, before.by_kind.iter().map(|cost| cost.seconds).sum::<f64>() / 2.0);
    assert!(before.by_kind.iter().all(|cost| KINDS_OF_WORK[cost.bound] != "decoding photographs"));

    // Two of three cells are missing: they take as long as the stored one.
    fixture.run(&spec, "results", &Silent);
    set_seconds(&plan, dense[0], 8.0);
    set_seconds(&plan, evidence[0], 1000.0);
    set_seconds(&plan, evidence[1], 2000.0);
    set_seconds(&plan, cells[0], 2.0);
    let remove = |cell: &ManifestEntry| {
        fs::remove_dir_all(plan.results.join("store").join(&cell.id)).unwrap();
    };
    cells[1..].iter().for_each(|cell| remove(cell));
    let found = estimate(&plan, 2).unwrap();
    assert_eq!((found.stages, found.kinds, found.done, found.is_measured), (6, [1, 2, 3], 4, true));
    assert_close(found.macs, macs(&cells[1..]));
    assert_close(found.seconds, 2.0 * 2.0 / 2.0);
    assert_close(found.rate, macs(&cells[1..]) / 4.0);
    assert_eq!((found.by_kind[2].missing, found.by_kind[2].basis), (2, Basis::Measured));
    let folder = plan.run_folder();
    let name = folder.file_name().unwrap().to_str().unwrap();
    let status = RunStatus::of(&plan.results, name).unwrap().unwrap();
    assert_close(status.seconds_left.unwrap(), estimate(&plan, 1).unwrap().seconds);

    // A damaged stage is run again. No cell is stored then, so that the dense net says how fast the machine is.
    fs::remove_file(plan.results.join("store").join(&cells[0].id).join("weights.safetensors")).unwrap();
    let found = estimate(&plan, 1).unwrap();
    assert_eq!((found.done, found.by_kind[2].basis), (3, Basis::MeasuredOnOthers));
    assert_close(found.macs, macs(&cells));
    assert_close(found.seconds, before.by_kind[2].seconds * 8.0 / before.by_kind[0].seconds);
}
