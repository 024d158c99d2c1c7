//! The estimate of a study's cost before, during and after it: from the assumed rate, then from that of stored stages.

use std::fs;

use thinet_harness::events::Silent;
use thinet_harness::store::{ManifestEntry, StageKind};
use thinet_harness::study::{Estimate, Plan, estimate, manifest};

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

    // Nothing is stored: a core is assumed to do 2·10¹⁰ multiply-adds per second.
    let Estimate { stages: all, kinds, done, is_measured, rate, seconds, .. } = estimate(&plan, 2).unwrap();
    assert_eq!((all, kinds, done, is_measured, rate), (6, [1, 2, 3], 0, false, 2.0e10));
    assert_close(seconds, (macs(&dense) + macs(&cells)) / 2.0e10 / 2.0);

    // Two of three cells are missing. The multiply-adds of calibrations are not counted, so neither is their time.
    fixture.run(&spec, "results", &Silent);
    set_seconds(&plan, dense[0], 8.0);
    set_seconds(&plan, evidence[0], 1000.0);
    set_seconds(&plan, evidence[1], 2000.0);
    set_seconds(&plan, cells[0], 2.0);
    for cell in &cells[1..] {
        fs::remove_dir_all(plan.results.join("store").join(&cell.id)).unwrap();
    }
    let found = estimate(&plan, 2).unwrap();
    assert_eq!((found.stages, found.kinds, found.done, found.is_measured), (6, [1, 2, 3], 4, true));
    assert_close(found.macs, macs(&cells[1..]));
    assert_close(found.rate, (macs(&dense) + cells[0].macs) / 10.0);
    assert_close(found.seconds, macs(&cells[1..]) / found.rate / 2.0);

    // A damaged stage is run again.
    fs::remove_file(plan.results.join("store").join(&cells[0].id).join("weights.safetensors")).unwrap();
    let found = estimate(&plan, 1).unwrap();
    assert_eq!(found.done, 3);
    assert_close(found.macs, macs(&cells));
    assert_close(found.rate, dense[0].macs / 8.0);
    assert_close(found.seconds, macs(&cells) / found.rate);
}
