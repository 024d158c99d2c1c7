//! Tests of the `latency` table.

use std::fs;

use super::*;
use crate::published::Latency;
use crate::records::{CpuIdentity, Environment, Gpu};
use crate::tables::{
    Closing, ClosingStudy, Machine, ModelTimes, StoredLatency, closing, latency_run, stored_latency, write,
};

fn environment(device: &str) -> Environment {
    Environment {
        version: "0.1.0".to_owned(),
        program_commit: None,
        program_dirty: None,
        spec_commit: None,
        spec_dirty: None,
        libtorch: "2.11.0".to_owned(),
        platform: "linux-x86_64".to_owned(),
        cpu: Some("Invented CPU".to_owned()),
        processor: None,
        cpu_capability: None,
        gpu: device.starts_with("cuda").then(Gpu::default),
        variables: std::collections::BTreeMap::new(),
        cores: 2,
        device: device.to_owned(),
        threads: 2,
        jobs: Some(1),
        host: None,
    }
}

fn cpu() -> CpuIdentity {
    CpuIdentity {
        vendor: Some("Invented".to_owned()),
        name: Some("Invented CPU".to_owned()),
        family: Some("25".to_owned()),
        model: Some("17".to_owned()),
        stepping: Some("1".to_owned()),
        instruction_set: "avx2".to_owned(),
        cores: 2,
    }
}

fn machine(cpu: CpuIdentity) -> Machine {
    Machine { cpu, libtorch: "2.11.0".to_owned(), card: None }
}

/// Invented timings: `forward`, and three times that for both, with a slow outlier in each.
fn times(model: &str, forward: f64) -> ModelTimes {
    let with_outlier = |value: f64| vec![value + 0.5, value, value * 9.0, value - 0.25, value];
    ModelTimes {
        model: model.to_owned(),
        forward_ms: with_outlier(forward),
        both_ms: with_outlier(3.0 * forward),
    }
}

fn record() -> LatencyRecord {
    let models = vec![
        times("thinet-50", 50.0),
        times("vgg16", 900.0),
        times("thinet-gap", 300.0),
        times("thinet-tiny", 45.0),
    ];
    LatencyRecord {
        environment: environment("cpu"),
        cpu: cpu(),
        tf32: false,
        batch: 4,
        warm_up: 1,
        repeats: 5,
        models,
    }
}

fn number(table: &Table, name: &str, row: usize) -> Option<f64> {
    table.frame.column(name).unwrap().f64().unwrap().get(row)
}

#[test]
fn the_markdown_is_pinned() {
    insta::assert_snapshot!(latency(&record()).unwrap().markdown());
}

#[test]
fn medians_differences_and_ratios_are_those_of_the_timings() {
    let table = latency(&record()).unwrap();
    let gap = 2;
    assert_eq!(number(&table, "forward_ms", gap), Some(300.0));
    assert_eq!(number(&table, "forward_ms_min", gap), Some(299.75));
    assert_eq!(number(&table, "forward_ms_max", gap), Some(2700.0));
    assert_eq!(number(&table, "forward_ms_mad", gap), Some(0.25));
    assert_eq!(number(&table, "forward_backward_ms", gap), Some(900.0));
    assert_eq!(number(&table, "backward_ms", gap), Some(600.0));
    assert_eq!(number(&table, "forward_times_faster", gap), Some(3.0));
    assert_eq!(number(&table, "backward_times_faster", gap), Some(3.0));
    assert_eq!(number(&table, "published_forward_times_faster", gap), Some(189.92 / 71.73));
    assert_eq!(number(&table, "published_backward_times_faster", gap), Some(407.56 / 145.51));
}

#[test]
fn models_that_were_not_timed_are_empty_and_marked() {
    let table = latency(&record()).unwrap();
    let [conv, resnet, thinet_50] = [1, 4, 6];
    assert_eq!(number(&table, "forward_ms", conv), None);
    assert_eq!(number(&table, "forward_times_faster", resnet), None);
    // Timed itself, but the dense net of its family was not.
    assert_eq!(number(&table, "forward_ms", thinet_50), Some(50.0));
    assert_eq!(number(&table, "forward_times_faster", thinet_50), None);
    assert_eq!(table.grids[0].rows[conv][1..], ["not run"; 5]);
    let ratio = table.grids[1].rows.iter().find(|row| row[0] == "ThiNet-50").unwrap();
    assert_eq!((ratio[1].as_str(), ratio[3].as_str()), ("not run", "not run"));
}

#[test]
fn a_backward_time_that_is_not_positive_has_no_ratio() {
    let mut noisy = record();
    noisy.models[2].both_ms = vec![1.0];
    let table = latency(&noisy).unwrap();
    assert_eq!(number(&table, "backward_ms", 2), Some(1.0 - 300.0));
    assert_eq!(number(&table, "backward_times_faster", 2), None);
    assert_eq!(table.grids[1].rows[1][3], "lost in noise");
    // Nothing is left of it, or of that of the dense net.
    for model in [1, 2] {
        let mut nothing = record();
        nothing.models[model].both_ms = nothing.models[model].forward_ms.clone();
        assert_eq!(number(&latency(&nothing).unwrap(), "backward_times_faster", 2), None);
    }
}

#[test]
fn a_ratio_is_unverified_where_either_time_is() {
    let mut published = Published::load().unwrap();
    let shown = |published: &Published| ratios(&lines(&record(), published).unwrap()).rows[1][2].clone();
    // ThiNet-GAP's own times are verified, those of VGG-16 are not.
    assert_eq!(shown(&published), "2.65 (unverified)");
    let Latency { forward_ms, backward_ms, .. } = &mut published.latency[0];
    (forward_ms.verified, backward_ms.verified) = (true, true);
    assert_eq!(shown(&published), "2.65");
    for (forward, backward) in [(true, false), (false, true)] {
        let Latency { forward_ms, backward_ms, .. } = &mut published.latency[0];
        (forward_ms.verified, backward_ms.verified) = (forward, backward);
        assert_eq!(shown(&published), "2.65 (unverified)");
    }
}

#[test]
fn the_environment_lies_beside_the_table_under_a_checksum() {
    let record = record();
    let table = latency(&record).unwrap();
    let [Attachment { suffix, text }] = &table.attachments[..] else { panic!("{:?}", table.attachments) };
    let opened = thinet_files::sealed::open(text).unwrap();
    assert!(*suffix == "env.json" && opened.len() < text.len(), "{text}");
    assert_eq!(serde_json::from_str::<Environment>(&opened).unwrap(), record.environment);
}

#[test]
fn the_closing_lines_show_the_times_before_further_tables() {
    let dir = tempfile::tempdir().unwrap();
    let record = record();
    write(dir.path(), &latency(&record).unwrap(), &record.run()).unwrap();
    let asked = Closing {
        folder: dir.path(),
        figures: dir.path(),
        report: &dir.path().join("report.html"),
        studies: &[
            ClosingStudy { name: "own", table: "own" },
            ClosingStudy { name: "second", table: "second" },
        ],
        tables: &["birds", "flowers"],
        not_run: &[],
        command: "make",
        machine: &|_| machine(cpu()),
    };
    let text = closing(&asked).unwrap();
    let names = text.lines().filter_map(|line| line.split_once(".md ")).map(|(path, _)| path);
    let names: Vec<&str> = names.map(|path| path.rsplit('/').next().unwrap()).collect();
    assert_eq!(names, ["compression", "figure4-flops", "own", "second", "latency", "birds", "flowers"]);
    assert!(
        text.contains("times of the eight models on this machine") && !text.contains("Not run"),
        "{text}"
    );
}

#[test]
fn runs_are_named_after_device_machine_batch_and_threads() {
    let run = record().run();
    assert!(run.starts_with("latency-cpu-") && run.ends_with("-b4-t2"), "{run}");
    assert!(latency_run("cuda:1", &machine(cpu()), 32, 16).starts_with("latency-cuda1-"));
    // Another generation under the same name.
    let other = CpuIdentity { model: Some("1".to_owned()), ..cpu() };
    assert_ne!(latency_run("cpu", &machine(other), 4, 2), run);
}

#[test]
fn times_of_another_machine_or_of_an_old_version_are_not_this_machines() {
    let dir = tempfile::tempdir().unwrap();
    let record = record();
    write(dir.path(), &latency(&record).unwrap(), &record.run()).unwrap();
    let stored = stored_latency(dir.path(), None).unwrap().unwrap();
    assert!(stored.is_of(&|_| machine(cpu())));
    assert!(!stored.is_of(&|_| machine(CpuIdentity { cores: 4, ..cpu() })));
    // As old versions named it: by the name of the processor.
    write(dir.path(), &latency(&record).unwrap(), "latency-cpu-2c4490-b4-t2").unwrap();
    assert!(!stored_latency(dir.path(), None).unwrap().unwrap().is_of(&|_| machine(cpu())));
    assert!(stored_latency(dir.path(), Some(&record.run())).unwrap().is_some(), "it is kept, set aside");
}

#[test]
fn tf32_is_reported_on_a_gpu() {
    let mut gpu = record();
    gpu.environment = environment("cuda:0");
    let table = latency(&gpu).unwrap();
    assert!(table.markdown().contains("TF32 is off for convolutions and matrix products;"));
    assert_eq!(table.frame.column("tf32").unwrap().bool().unwrap().get(0), Some(false));
}

#[test]
fn a_stored_table_is_found_in_place_and_set_aside() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(stored_latency(dir.path(), None).unwrap(), None);
    let (cpu, mut gpu) = (record(), record());
    write(dir.path(), &latency(&cpu).unwrap(), &cpu.run()).unwrap();
    let stored = stored_latency(dir.path(), Some(&cpu.run())).unwrap().unwrap();
    assert_eq!(stored.markdown, latency(&cpu).unwrap().markdown());
    assert_eq!(stored.models().unwrap(), ["vgg16", "thinet-gap", "thinet-tiny", "thinet-50"]);
    assert_eq!(stored.repeats(), Some(5));
    assert_eq!(stored.rows[2]["forward_ms"], 300.0);

    gpu.environment = environment("cuda:0");
    assert_eq!(stored_latency(dir.path(), Some(&gpu.run())).unwrap(), None);
    write(dir.path(), &latency(&gpu).unwrap(), &gpu.run()).unwrap();
    assert_eq!(stored_latency(dir.path(), None).unwrap().unwrap().run, gpu.run());
    let aside = stored_latency(dir.path(), Some(&cpu.run())).unwrap().unwrap();
    assert_eq!((aside.markdown, aside.rows), (stored.markdown, stored.rows));
}

#[test]
fn foreign_files_are_named() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("latency.csv"), "x").unwrap();
    let error = stored_latency(dir.path(), None).unwrap_err().to_string();
    assert!(error.contains("cannot read") && error.contains("latency.csv"), "{error}");
    let foreign = crate::tables::compression().unwrap();
    write(dir.path(), &foreign, "aa").unwrap();
    fs::rename(dir.path().join("compression.csv"), dir.path().join("latency.csv")).unwrap();
    let error = stored_latency(dir.path(), None).unwrap_err().to_string();
    assert!(error.contains("no `latency` table"), "{error}");
}

#[test]
fn a_byte_that_changed_in_a_stored_table_is_an_error_and_nothing_worse() {
    let dir = tempfile::tempdir().unwrap();
    let written = write(dir.path(), &latency(&record()).unwrap(), "latency-cpu-6f5931-b4-t2").unwrap();
    let stored = stored_latency(dir.path(), None).unwrap().unwrap();
    assert!(stored.is_checked);
    // The environment is no part of what is read here.
    for path in written.files.iter().filter(|path| !path.to_string_lossy().ends_with("env.json")) {
        let bytes = fs::read(path).unwrap();
        // All of a small file, a thousand places of a large one.
        for at in (0..bytes.len()).step_by(1 + bytes.len() / 1000) {
            let mut changed = bytes.clone();
            changed[at] ^= 1 << (at % 8);
            fs::write(path, &changed).unwrap();
            let error = stored_latency(dir.path(), None).unwrap_err().to_string();
            assert!(error.contains(path.file_name().unwrap().to_str().unwrap()), "byte {at}: {error}");
        }
        fs::write(path, &bytes).unwrap();
    }
    assert_eq!(stored_latency(dir.path(), None).unwrap(), Some(stored.clone()));

    // Of an old version, without checksums: values may be wrong, but nothing panics.
    fs::remove_file(dir.path().join("latency.sums.json")).unwrap();
    let old = stored_latency(dir.path(), None).unwrap();
    assert_eq!(old, Some(StoredLatency { is_checked: false, ..stored }));
    let csv = dir.path().join("latency.csv");
    let bytes = fs::read(&csv).unwrap();
    for at in (0..bytes.len()).step_by(1 + bytes.len() / 1000) {
        let mut changed = bytes.clone();
        changed[at] ^= 1 << (at % 8);
        fs::write(&csv, &changed).unwrap();
        let _ = stored_latency(dir.path(), None);
    }
}
