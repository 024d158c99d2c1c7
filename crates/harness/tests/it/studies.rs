//! Independence of a study's numbers from time, order of cells, other methods, other rates, and loader threads.

use std::fs;
use std::sync::mpsc::RecvTimeoutError;
use std::time::Duration;

use polars::prelude::{CsvReader, ParquetReader, SerReader};
use tch::Device;
use thinet_harness::events::Silent;
use thinet_harness::inspect::{VerifyOptions, verify};
use thinet_harness::run::{RunOptions, run, write_tables};
use thinet_harness::study::{Plan, gather};
use thinet_models::{load_net, save_net};
use thinet_report::records::{Metric, Phase, Status};

use crate::fixture::{Fixture, SPEC, one_shot};

#[test]
fn a_second_run_does_nothing_and_leaves_the_same_bytes() {
    let fixture = Fixture::new();
    let first = fixture.run(SPEC, "results", &Silent);
    let tables = fixture.tables("results");
    assert_eq!(first.stages_run, 7, "a dense net and six cells");
    assert!(tables.keys().any(|name| name == "small.csv"), "{:?}", tables.keys());
    let second = fixture.run(SPEC, "results", &Silent);
    assert_eq!(second.stages_run, 0);
    assert_eq!(second.study, first.study);
    assert_eq!(fixture.tables("results"), tables);
}

#[test]
fn two_labels_of_one_stage_both_get_its_rows_and_it_runs_once() {
    let fixture = Fixture::new();
    let spec = format!("{SPEC}label = \"first\"\n[[methods]]\nselector = \"random\"\nlabel = \"second\"\n");
    let options = RunOptions::default();
    // Stops a run that would otherwise wait forever.
    let (stop, (over, ended)) = (options.stop.clone(), std::sync::mpsc::channel::<()>());
    let watch = std::thread::spawn(move || {
        if ended.recv_timeout(Duration::from_secs(120)) == Err(RecvTimeoutError::Timeout) {
            stop.set();
        }
    });
    let outcome = run(&fixture.plan(&spec, "results").unwrap(), &options, &Silent);
    drop(over);
    watch.join().unwrap();
    let outcome = outcome.unwrap();
    assert_eq!(outcome.stages_run, 7, "a dense net and six cells");
    let of = |label: &str| {
        let cells = outcome.study.cells.iter().filter(|cell| cell.method == label);
        cells.map(|cell| (cell.id.clone(), cell.status, cell.rows.clone())).collect::<Vec<_>>()
    };
    assert_eq!(of("first").len(), 2);
    assert!(of("first").iter().all(|(_, status, rows)| *status == Status::Done && !rows.is_empty()));
    assert_eq!(of("first"), of("second"));
    let table = fs::read_to_string(fixture.path("results/tables/small.csv")).unwrap();
    assert_eq!(table.matches(",second,").count(), 2, "{table}");
}

#[test]
fn a_run_from_nothing_gives_the_same_bytes_again() {
    let fixture = Fixture::new();
    fixture.run(SPEC, "a", &Silent);
    fixture.run(SPEC, "b", &Silent);
    assert_eq!(fixture.tables("a"), fixture.tables("b"));
    assert_eq!(fixture.weights("a"), fixture.weights("b"));
    assert_eq!(fixture.weights("a").len(), 7);
}

#[test]
fn a_cell_depends_neither_on_other_cells_nor_on_their_order() {
    let fixture = Fixture::new();
    let whole = fixture.run(SPEC, "whole", &Silent);
    let alone = SPEC
        .replace("[0.5, 0.75]", "[0.75]")
        .replace("[[methods]]\nselector = \"thinet\"\nreconstruction = \"channel-scale\"\n", "");
    assert!(!alone.contains("thinet"));
    let reversed = SPEC.replace("[0.5, 0.75]", "[0.75, 0.5]");
    for (spec, cells) in [(alone.as_str(), 2), (reversed.as_str(), 6)] {
        let part = fixture.run(spec, &format!("part{cells}"), &Silent);
        assert_eq!(part.study.cells.len(), cells);
        for cell in &part.study.cells {
            let same = whole.study.cells.iter().find(|other| other.id == cell.id).expect("the same cell");
            assert_eq!(same, cell);
        }
    }
    // Sharing a results folder, the part finds all its cells done.
    assert_eq!(fixture.run(&alone, "whole", &Silent).stages_run, 0);
}

#[test]
fn every_stage_of_the_table_is_measured_and_the_cut_has_the_planned_widths() {
    let fixture = Fixture::new();
    let study = fixture.run(SPEC, "results", &Silent).study;
    assert_eq!(study.dense[0].status, Status::Done);
    for cell in &study.cells {
        assert_eq!(cell.status, Status::Done);
        for phase in [Phase::AfterCut, Phase::AfterReconstruction, Phase::AfterFineTune] {
            for metric in [Metric::Top1, Metric::Top5, Metric::Loss] {
                let found =
                    cell.rows.iter().filter(|r| r.layer.is_empty() && r.phase == phase && r.metric == metric);
                assert_eq!(found.count(), 1, "{} {phase:?} {metric:?}", cell.method);
            }
        }
        for (layer, kept) in &cell.kept {
            let expected = (kept.width() as f64 * cell.keep_rate + 1e-9).floor() as usize;
            assert_eq!(kept.len(), expected, "{layer}");
        }
        let error = |layer: &str, phase| {
            let row = cell
                .rows
                .iter()
                .find(|r| r.layer == layer && r.phase == phase && r.metric == Metric::ReconstructionError);
            row.expect("measured for every method").value
        };
        for layer in cell.kept.keys() {
            let (before, after) = (error(layer, Phase::AfterCut), error(layer, Phase::AfterReconstruction));
            assert!(after <= before + 1e-12, "{layer}: {after} > {before}");
            assert_eq!(after == before, cell.reconstruction == "none", "{layer}");
        }
    }
}

/// Ids of the stages of one-shot evidence.
fn evidence_stages(plan: &Plan) -> Vec<String> {
    plan.dense.iter().flat_map(|dense| &dense.evidence).map(|stage| stage.id.to_string()).collect()
}

#[test]
fn one_shot_mode_gathers_each_kind_of_evidence_once_for_all_cells() {
    let fixture = Fixture::new();
    let outcome = fixture.run(&one_shot(SPEC), "results", &Silent);
    assert_eq!(outcome.stages_run, 9, "a dense net, zero counts, moments, six cells");
    for cell in &outcome.study.cells {
        assert_eq!(cell.status, Status::Done);
        assert!(cell.rows.iter().any(|r| r.phase == Phase::AfterFineTune && r.metric == Metric::Top1));
    }
    let whole = evidence_stages(&fixture.plan(&one_shot(SPEC), "results").unwrap());
    let kinds: Vec<&str> = whole.iter().map(|id| id.split('-').next().unwrap()).collect();
    assert_eq!(kinds, ["zeros", "moments"]);

    // With other methods: evidence that no method needs is not gathered, and the rest keeps its id.
    let methods = one_shot(SPEC).find("[[methods]]").unwrap();
    let alone = format!("{}[[methods]]\nselector = \"random\"\n", &one_shot(SPEC)[..methods]);
    assert_eq!(evidence_stages(&fixture.plan(&alone, "alone").unwrap()), whole[1..]);
    for cell in fixture.run(&alone, "alone", &Silent).study.cells {
        assert!(outcome.study.cells.contains(&cell), "{}", cell.method);
    }
}

#[test]
fn keeping_every_channel_changes_nothing_before_tuning() {
    let fixture = Fixture::new();
    // Not the keep rate 1, at which there are no cells; but so near that no channel goes.
    let spec = SPEC.replace("[0.5, 0.75]", "[0.999999999999]");
    let study = fixture.run(&spec, "results", &Silent).study;
    let random = study.cells.iter().find(|cell| cell.selector == "random").unwrap();
    let mut spec = spec;
    let from = spec.find("[prune.after-layer]").unwrap();
    let to = spec.find("[calibration]").unwrap();
    spec.replace_range(from..to, "");
    let untuned = fixture.run(&spec, "untuned", &Silent).study;
    assert_eq!(untuned.cells.len(), 3);
    for cell in &untuned.cells {
        assert_eq!(cell.size, Some(untuned.dense[0].size));
        for (row, dense) in cell
            .rows
            .iter()
            .filter(|r| r.layer.is_empty() && r.phase == Phase::AfterCut)
            .zip(untuned.dense[0].rows.iter().filter(|r| r.metric != Metric::TrainLoss))
        {
            assert_eq!((row.metric, row.value), (dense.metric, dense.value), "{}", cell.method);
        }
    }
    assert_eq!(random.kept.values().filter(|kept| kept.is_all()).count(), 3.min(random.kept.len()));
}

#[test]
fn at_a_keep_rate_of_one_the_dense_net_is_reported_once_and_nothing_is_tuned() {
    let fixture = Fixture::new();
    let without = fixture.run(&SPEC.replace("[0.5, 0.75]", "[0.5]"), "results", &Silent);
    let outcome = fixture.run(&SPEC.replace("[0.5, 0.75]", "[1.0, 0.5]"), "results", &Silent);
    assert_eq!((without.stages_run, outcome.stages_run), (4, 0), "the other cells keep their ids");
    assert_eq!(outcome.study.uncut_rates, [1.0]);
    let frame = &outcome.tables[0].frame;
    let rates: Vec<_> = frame.column("keep_rate").unwrap().f64().unwrap().iter().collect();
    assert_eq!(rates, [Some(1.0), Some(0.5), Some(0.5), Some(0.5)]);
    let text = |name: &str| frame.column(name).unwrap().str().unwrap().get(0).unwrap().to_owned();
    assert_eq!((text("method"), text("cell")), ("dense".to_owned(), outcome.study.dense[0].id.clone()));
}

#[test]
fn tables_of_another_study_are_never_replaced() {
    let fixture = Fixture::new();
    let spec = SPEC.replace("[0.5, 0.75]", "[0.5]");
    fixture.run(&spec, "results", &Silent);
    let files = |folder: &str| {
        let folder = fixture.path("results").join(folder);
        let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        files
    };
    let (tables, store) = (files("tables"), files("store"));
    assert!(tables.iter().any(|file| file.ends_with("small.seconds.csv")), "{tables:?}");
    let bytes: Vec<_> = tables.iter().map(|file| fs::read(file).unwrap()).collect();

    // Another study with the same table and other stages.
    let other = spec.replace("name = \"small\"", "name = \"other\"").replace("0.05", "0.04");
    let plan = fixture.plan(&other, "results").unwrap();
    let error = run(&plan, &RunOptions::default(), &Silent).unwrap_err();
    let message = error.to_string();
    assert!(error.is_bad_spec() && message.contains("table: "), "{message}");
    assert!(message.contains("belongs to the study \"small\"") && message.contains("\"other\""), "{message}");
    let again: Vec<_> = files("tables").iter().map(|file| fs::read(file).unwrap()).collect();
    assert_eq!(
        (files("tables"), again, files("store")),
        (tables.clone(), bytes, store),
        "nothing was touched"
    );

    // Without the key its table has its own name; and a changed spec of the same study sets the old table aside.
    let outcome = fixture.run(&other.replace("table = \"small\"\n", ""), "results", &Silent);
    assert!(outcome.written[0].files[0].ends_with("other.csv"), "{:?}", outcome.written);
    let outcome = fixture.run(&spec.replace("[0.5]", "[0.75]"), "results", &Silent);
    assert!(!outcome.written[0].set_aside.is_empty());
    assert!(tables.iter().all(|file| file.exists()));
}

#[test]
fn a_diverged_cell_differs_from_a_missing_one_in_every_file() {
    let fixture = Fixture::new();
    let spec = SPEC.replace("epochs = 2\nbatch = 16\nlr = 0.01", "epochs = 2\nbatch = 16\nlr = 1e30");
    let cells = fixture.run(&spec, "results", &Silent).study.cells;
    assert!(cells.iter().all(|cell| cell.status == Status::Diverged));
    fs::remove_dir_all(fixture.path("results/store").join(&cells[1].id)).unwrap();
    let plan = fixture.plan(&spec, "results").unwrap();
    let outcome = write_tables(&plan, gather(&plan).unwrap()).unwrap();

    let mut expected = vec![Some("diverged"); cells.len()];
    expected[1] = Some("not-run");
    let file =
        |suffix: &str| fs::File::open(fixture.path("results/tables/small").with_extension(suffix)).unwrap();
    for frame in
        [CsvReader::new(file("csv")).finish().unwrap(), ParquetReader::new(file("parquet")).finish().unwrap()]
    {
        let column = |name: &str| frame.column(name).unwrap();
        assert_eq!(column("status").str().unwrap().iter().collect::<Vec<_>>(), expected);
        // Values from before the divergence exist; later ones are empty.
        assert_eq!(column("after_cut_top1").is_null().sum(), Some(1));
        assert_eq!(column("after_fine_tune_top1").null_count(), cells.len());
    }
    let text = outcome.tables[0].markdown();
    let lines = |word: &str| text.lines().filter(|line| line.starts_with('|') && line.contains(word)).count();
    assert_eq!((lines(" diverged |"), lines(" not run |")), (cells.len() - 1, 1), "{text}");
}

#[test]
fn tables_of_a_run_that_never_ended_name_the_machine_of_its_stages() {
    let fixture = Fixture::new();
    let plan = fixture.plan(SPEC, "results").unwrap();
    fixture.run(SPEC, "results", &Silent);
    // As a run leaves it that is killed, on a machine which is not the one that writes the tables.
    fs::remove_file(plan.run_folder().join("env.json")).unwrap();
    for cell in &plan.cells {
        let path = fixture.path("results/store").join(cell.id.as_str()).join("result.json");
        let mut record: serde_json::Value =
            serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        record.as_object_mut().unwrap().remove("checksum");
        record["environment"]["cpu"] = "a processor elsewhere".into();
        fs::write(&path, record.to_string()).unwrap();
    }
    // The first one is damaged, as its tables say.
    let first = fixture.path("results/store").join(plan.cells[0].id.as_str()).join("result.json");
    fs::write(first, "{").unwrap();
    write_tables(&plan, gather(&plan).unwrap()).unwrap();
    let text = fs::read_to_string(fixture.path("results/tables/small.env.json")).unwrap();
    let environment: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(environment["cpu"], "a processor elsewhere");
    assert!(environment["jobs"].is_null(), "{text}");
}

#[test]
fn a_file_of_weights_depends_on_its_stage_alone() {
    let fixture = Fixture::new();
    let whole = fixture.run(SPEC, "whole", &Silent).study;
    let part = SPEC.replace("[0.5, 0.75]", "[0.75]").replace("name = \"small\"", "name = \"part\"");
    let part = fixture.run(&part, "part", &Silent).study;
    assert_ne!(part.run, whole.run);
    let (whole, part) = (fixture.weights("whole"), fixture.weights("part"));
    assert_eq!(part.len(), 4, "a dense net and three cells");
    for (stage, checksum) in &part {
        assert_eq!(whole[stage], *checksum, "{stage}");
    }
}

#[test]
fn a_control_is_verified_alone_with_its_row_and_all() {
    let fixture = Fixture::new();
    let spec = SPEC.replace("[dense]\n", "[from-scratch]\nsteps = 2\nbatch = 16\nlr = 0.01\n[dense]\n");
    let study = fixture.run(&spec, "results", &Silent).study;
    let control = study.cells.iter().find(|cell| cell.id.starts_with("scratch-")).unwrap();
    let options = VerifyOptions {
        cells: vec![control.id.clone()],
        count: 0,
        with_dense: false,
        allow_commands: false,
        tolerance: None,
    };
    let verified = verify("small", None, &fixture.options("results"), &options, &Silent).unwrap();
    assert_eq!(verified.cells[0].differences, []);
    assert_eq!(verified.cells[0].same_weights, Some(true));
}

#[test]
fn verify_compares_tensors_where_old_files_hold_the_name_of_their_run() {
    let fixture = Fixture::new();
    let study = fixture.run(SPEC, "results", &Silent).study;
    let stage = fixture.path("results/store").join(&study.cells[0].id);
    let same_weights = || {
        let options = VerifyOptions {
            cells: vec![study.cells[0].id.clone()],
            count: 1,
            with_dense: false,
            allow_commands: false,
            tolerance: None,
        };
        let verified = verify("small", None, &fixture.options("results"), &options, &Silent).unwrap();
        assert_eq!(verified.cells[0].differences, []);
        verified.cells[0].same_weights
    };
    assert_eq!(same_weights(), Some(true));
    // A stored file that has changed cannot be compared.
    let file = stage.join("weights.safetensors");
    let whole = fs::read(&file).unwrap();
    let mut flipped = whole.clone();
    *flipped.last_mut().unwrap() ^= 1;
    fs::write(&file, flipped).unwrap();
    assert_eq!(same_weights(), None);
    fs::write(&file, whole).unwrap();
    // Stores the net again, with more metadata and other weights, and notes its checksum.
    let store = |change: f64| {
        let file = stage.join("weights.safetensors");
        let (mut net, mut metadata) = load_net(&file, Device::Cpu).unwrap();
        metadata.insert("run".into(), "0123456789ab".into());
        let first = net.weights.iter().next().unwrap().0.to_owned();
        let changed = net.weights.get(&first).unwrap() + change;
        net.weights.insert(first, changed);
        save_net(&file, &net, &metadata).unwrap();
        let record = stage.join("result.json");
        let mut value: serde_json::Value = serde_json::from_slice(&fs::read(&record).unwrap()).unwrap();
        // Records of old versions have neither.
        for key in ["checksum", "sizes"] {
            value.as_object_mut().unwrap().remove(key);
        }
        value["files"]["weights.safetensors"] =
            blake3::hash(&fs::read(&file).unwrap()).to_hex().as_str().into();
        fs::write(&record, serde_json::to_string(&value).unwrap()).unwrap();
    };
    store(0.0);
    assert_eq!(same_weights(), Some(true));
    store(1.0);
    assert_eq!(same_weights(), Some(false));
}
