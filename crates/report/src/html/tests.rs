//! Reports of the tables of invented studies.

use std::fs;
use std::path::Path;

use serde_json::Value;
use tempfile::TempDir;

use super::{PAGE, Report, RunFolder, Source, report, write};
use crate::figures::FigureError;
use crate::records::{Metric, Phase, Status, StudyRecord};
use crate::tables::sample::{study, with_variants};
use crate::tables::{self, compression, selectors};

const TABLE: &str = "selectors-invented";

fn put(folder: &Path, study: &StudyRecord) {
    for table in selectors(study).unwrap() {
        tables::write(folder, &table, &study.run).unwrap();
    }
}

/// A folder with the tables of a study.
fn folder(study: &StudyRecord) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    put(dir.path(), study);
    dir
}

fn with_runs(dir: &TempDir, runs: &[RunFolder]) -> Report {
    report(&Source { tables: dir.path(), pictures: "../figures", runs }).unwrap()
}

/// The report of tables that can all be shown.
fn whole(dir: &TempDir) -> Report {
    let report = with_runs(dir, &[]);
    assert!(report.failed.is_empty(), "{:?}", report.failed);
    report
}

fn file<'a>(report: &'a Report, name: &str) -> &'a str {
    &report.files.iter().find(|(own, _)| own == name).unwrap().1
}

fn page(report: &Report) -> &str {
    file(report, PAGE)
}

/// What the page's script draws.
fn data(report: &Report) -> Value {
    let (_, rest) = page(report).split_once("<script type=\"application/json\" id=\"data\">").unwrap();
    serde_json::from_str(rest.split_once("</script>").unwrap().0).unwrap()
}

/// The second argument of the call in a study's script.
fn cells(report: &Report, table: &str) -> Value {
    let text = file(report, &format!("cells/{table}.js"));
    let inside = text.strip_prefix("thinetCells(").unwrap().strip_suffix(");\n").unwrap();
    serde_json::from_str::<Value>(&format!("[{inside}]")).unwrap()[1].take()
}

/// Replaces a text in a file, which must hold it.
fn edit(dir: &TempDir, file: &str, old: &str, new: &str) {
    let path = dir.path().join(file);
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.contains(old), "{text}");
    fs::write(&path, text.replacen(old, new, 1)).unwrap();
}

#[test]
fn the_same_tables_give_the_same_bytes_and_old_cells_are_removed() {
    let dir = folder(&study());
    tables::write(dir.path(), &compression().unwrap(), tables::DERIVED).unwrap();
    let out = tempfile::tempdir().unwrap();
    fs::create_dir(out.path().join("cells")).unwrap();
    fs::write(out.path().join("cells/selectors-old.js"), "").unwrap();
    let files = write(out.path(), &whole(&dir)).unwrap();
    let names: Vec<_> =
        files.iter().map(|file| file.strip_prefix(out.path()).unwrap().to_str().unwrap()).collect();
    assert_eq!(names, ["index.html", "cells/selectors-invented.js"]);
    assert!(!out.path().join("cells/selectors-old.js").exists());
    let first: Vec<_> = files.iter().map(|file| fs::read(file).unwrap()).collect();
    let again = write(out.path(), &whole(&dir)).unwrap();
    assert_eq!(first, again.iter().map(|file| fs::read(file).unwrap()).collect::<Vec<_>>());
}

#[test]
fn every_part_of_a_study_is_on_the_page() {
    let dir = folder(&study());
    tables::write(dir.path(), &compression().unwrap(), tables::DERIVED).unwrap();
    let report = whole(&dir);
    let page = page(&report);
    for part in [
        "id=\"question\"",
        "id=\"set-up\"",
        "id=\"study-selectors-invented\"",
        "id=\"published\"",
        "id=\"limits\"",
        "data-explorer=\"selectors-invented\"",
        "id=\"figure-selectors-invented-differences\"",
        "id=\"selectors-invented-summary\"",
        "id=\"selectors-invented-differences\"",
        "id=\"selectors-invented-tau\"",
        "id=\"compression\"",
        "n = 2 seeds",
        "href=\"#cell/selectors-invented/cell-thinet-none-0.5-1\"",
    ] {
        assert!(page.contains(part), "{part}");
    }
    assert!(!page.contains("id=\"ablations\""));
    let addresses = page.replace("http://www.w3.org/2000/svg", "");
    assert!(!addresses.contains("http"), "nothing is taken from a network");
    let data = data(&report);
    let methods = data["methods"][TABLE].as_array().unwrap();
    assert_eq!(methods.len(), 5);
    assert_eq!((&methods[0]["colour"], &methods[0]["shape"]), (&"#0072B2".into(), &"circle".into()));
    let reconstruction = &data["figures"]["selectors-invented-reconstruction"]["spec"];
    assert_eq!(
        reconstruction["vconcat"].as_array().unwrap().len(),
        2,
        "two keep rates, no drawn legend: {reconstruction}"
    );
    let cell = &cells(&report, TABLE)["cells"]["cell-thinet-none-0.5-1"];
    assert_eq!(cell["kept"]["conv2"]["kept"], serde_json::json!([1, 2, 3, 4]));
    assert_eq!(cell["layers"][0], serde_json::json!(["conv1", 8, 4, 0.125, null]));
    assert_eq!(cell["losses"], serde_json::json!([[2, 2.0], [4, 1.0], [6, 0.75], [7, 0.625]]));
}

#[test]
fn nets_trained_in_bfloat16_are_said_to_be_in_the_set_up_the_study_and_its_cells() {
    let dir = folder(&study());
    assert!(!page(&whole(&dir)).contains("bfloat16"));
    let spec = "[compute]\nprecision = \"bf16\"\n";
    fs::write(dir.path().join(format!("{TABLE}.resolved.toml")), spec).unwrap();
    let report = whole(&dir);
    assert!(page(&report).contains("<td>tiny, 1×8×8, trained in bfloat16</td>"), "the table of studies");
    assert!(page(&report).contains("tiny, 1×8×8, trained in bfloat16, layer-by-layer, "), "the study");
    assert_eq!(cells(&report, TABLE)["net"], "tiny, 1×8×8, trained in bfloat16");
}

#[test]
fn means_of_the_chart_are_those_of_the_summary() {
    let dir = folder(&study());
    let data = data(&whole(&dir));
    let text = fs::read_to_string(dir.path().join("selectors-invented-summary.csv")).unwrap();
    let mut lines = text.lines().map(|line| line.split(',').collect::<Vec<_>>());
    let heading = lines.next().unwrap();
    let at = |name: &str| heading.iter().position(|column| *column == name).unwrap();
    let points = data["explorers"][TABLE]["points"].as_array().unwrap();
    let mut compared = 0;
    for line in lines.filter(|line| !line[at("selector")].is_empty()) {
        let rate: f64 = line[at("keep_rate")].parse().unwrap();
        let point =
            points.iter().find(|p| p["method"] == line[at("method")] && p["keep_rate"] == rate).unwrap();
        for phase in ["after_cut_top1", "after_reconstruction_top1", "after_fine_tune_top1"] {
            let stat = &point["values"][phase]["stat"];
            let number = |ending: &str| line[at(&format!("{phase}_{ending}"))].parse::<f64>().ok();
            assert_eq!((stat[0].as_f64(), stat[1].as_f64()), (number("mean"), number("std")), "{line:?}");
            compared += usize::from(stat[0].is_f64());
        }
    }
    assert!(compared > 10, "{compared}");
}

#[test]
fn one_changed_cell_changes_the_page_and_is_reported() {
    let mut changed = study();
    let tuned =
        |row: &&mut crate::records::Row| (row.phase, row.metric) == (Phase::AfterFineTune, Metric::Top1);
    changed.cells[0].rows.iter_mut().find(tuned).unwrap().value += 0.01;
    let (first, second) = (whole(&folder(&study())), whole(&folder(&changed)));
    assert_ne!(page(&first), page(&second));
    assert!(first.changed.is_empty());
    // The same by hand: the table no longer fits its checksum, and the page says so.
    let dir = folder(&study());
    edit(&dir, "selectors-invented-summary.csv", ",90.5,", ",90.51,");
    let third = whole(&dir);
    assert_ne!(page(&first), page(&third));
    assert_eq!(third.changed.len(), 1, "{:?}", third.changed);
    assert!(page(&third).contains("selectors-invented-summary.csv has changed since it was written"));
}

/// The invented study under another name.
fn other(dataset: &str) -> StudyRecord {
    StudyRecord {
        table: "selectors-other".to_owned(),
        name: "other".to_owned(),
        run: "4567cdef".to_owned(),
        dataset: dataset.to_owned(),
        ..study()
    }
}

#[test]
fn a_table_of_another_version_is_named_and_the_other_studies_are_shown() {
    let cases = [
        ("selectors-invented-summary.csv", "flops_fraction"),
        ("selectors-invented.csv", "cell"),
        ("selectors-invented-layers.csv", "channels"),
    ];
    for (file, column) in cases {
        let dir = folder(&study());
        put(dir.path(), &other("Invented-10"));
        let path = dir.path().join(file);
        let text = fs::read_to_string(&path).unwrap();
        let (heading, rows) = text.split_once('\n').unwrap();
        let renamed: Vec<&str> =
            heading.split(',').map(|name| if name == column { "renamed" } else { name }).collect();
        fs::write(&path, format!("{}\n{rows}", renamed.join(","))).unwrap();
        let report = with_runs(&dir, &[]);
        assert_eq!(report.failed.len(), 1, "{:?}", report.failed);
        assert!(matches!(report.failed[0], FigureError::NoColumn { .. }), "{}", report.failed[0]);
        assert_eq!(report.studies, ["selectors-other"]);
        let page = page(&report);
        assert!(page.contains("Tables that cannot be shown"));
        assert!(page.contains(&format!("{file} has no column &quot;{column}&quot;")), "{file}");
        assert!(
            page.contains("id=\"study-selectors-other\"")
                && !page.contains("id=\"study-selectors-invented\"")
        );
    }
}

#[test]
fn a_run_whose_folder_is_there_is_linked_and_one_without_it_says_so() {
    let dir = folder(&study());
    let missing = whole(&dir);
    assert!(page(&missing).contains("is not on this machine"));
    assert!(cells(&missing, TABLE)["runFolder"].is_null());
    let runs = [RunFolder { id: "0123abcd".to_owned(), link: "../runs/invented-0123abcd/".to_owned() }];
    let there = with_runs(&dir, &runs);
    assert!(page(&there).contains("href=\"../runs/invented-0123abcd/\""));
    assert!(!page(&there).contains("is not on this machine"));
    assert_eq!(cells(&there, TABLE)["runFolder"], "../runs/invented-0123abcd/");
}

#[test]
fn one_seed_has_no_interval_and_the_page_says_so() {
    let mut one = study();
    one.cells.retain(|cell| cell.seed == 0);
    one.dense.retain(|dense| dense.seed == 0);
    let report = whole(&folder(&one));
    let page = page(&report);
    assert!(page.contains("one seed, so there is no deviation and no interval"));
    assert!(page.contains("has one seed: no deviation, no interval") && page.contains("One seed: no band."));
    assert!(!page.contains(" ± 0"), "no deviation is shown");
    let points = data(&report)["explorers"][TABLE]["points"].take();
    assert!(
        points.as_array().unwrap().iter().all(|p| p["values"]
            .as_object()
            .unwrap()
            .values()
            .all(|v| v["stat"][1].is_null()))
    );
}

#[test]
fn a_seed_that_is_missing_everywhere_is_no_seed_of_the_study_and_is_named_once() {
    let mut study = study();
    for cell in study.cells.iter_mut().filter(|cell| cell.seed == 1) {
        cell.status = Status::NotRun;
        cell.rows.clear();
    }
    let report = whole(&folder(&study));
    let page = page(&report);
    assert!(page.contains("n = 1 of 2 seeds") && page.contains(">1 of 2</td>"), "{page}");
    assert!(page.contains("at least one seed was not run, at every keep rate of every method."));
    assert!(page.contains("has one seed: no deviation") && page.contains("One seed: no band."));
}

#[test]
fn a_method_that_diverged_is_named_and_has_no_point() {
    let mut study = study();
    for cell in study.cells.iter_mut().filter(|cell| cell.method == "apoz" && cell.keep_rate == 0.5) {
        cell.status = Status::Diverged;
        cell.rows.retain(|row| row.phase != Phase::AfterFineTune);
    }
    let report = whole(&folder(&study));
    let page = page(&report);
    assert!(page.contains("at least one seed diverged and has no result: apoz at 0.5."), "{page}");
    assert!(page.contains("not run: apoz at 0.25; random at 0.25."));
    assert!(page.contains("<td class=\"number\">diverged</td>"));
    let data = data(&report);
    let points = data["explorers"][TABLE]["points"].as_array().unwrap();
    let apoz = points.iter().find(|p| p["method"] == "apoz" && p["keep_rate"] == 0.5).unwrap();
    assert!(
        apoz["values"]["after_fine_tune_top1"].is_null()
            && apoz["values"]["after_cut_top1"]["stat"][0].is_f64()
    );
}

#[test]
fn rows_of_two_data_sets_in_a_table_are_refused_and_two_tables_are_two_studies() {
    for file in ["selectors-invented-summary.csv", "selectors-invented.csv"] {
        let dir = folder(&study());
        edit(&dir, file, "Invented-10", "Other-10");
        let report = with_runs(&dir, &[]);
        assert!(
            report.failed.iter().any(|error| matches!(error, FigureError::Mixed { .. })),
            "{:?}",
            report.failed
        );
        assert!(
            report.studies.is_empty()
                && page(&report).contains("more than one dataset (Other-10 and Invented-10)")
        );
    }
    let dir = folder(&study());
    put(dir.path(), &other("Other-10"));
    let report = whole(&dir);
    let page = page(&report);
    assert!(
        page.contains("Pruned and tuned on Invented-10") && page.contains("Pruned and tuned on Other-10")
    );
    assert!(page.contains("Measured on Invented-10, Other-10"));
}

#[test]
fn markup_in_names_stays_text() {
    const NAME: &str = "</script><b id=\"x\">&'";
    let mut study = study();
    for cell in study.cells.iter_mut().filter(|cell| cell.method == "random") {
        cell.method = NAME.to_owned();
    }
    study.dataset = "</title><i>".to_owned();
    let report = whole(&folder(&study));
    let page = page(&report);
    assert!(!page.contains("<b id") && !page.contains("</title><i>"));
    assert_eq!(page.matches("</script>").count(), 3, "data, Vega, the page's own");
    assert!(page.contains("&lt;/script&gt;&lt;b id=&quot;x&quot;&gt;&amp;'"));
    let methods = data(&report)["methods"][TABLE].take();
    assert!(methods.as_array().unwrap().iter().any(|method| method["label"] == NAME), "{methods}");
    assert!(!file(&report, "cells/selectors-invented.js").contains('<'));
}

#[test]
fn a_study_that_was_not_run_stands_beside_the_published_values() {
    let mut unrun = study();
    for dense in &mut unrun.dense {
        (dense.status, dense.rows) = (Status::NotRun, Vec::new());
    }
    for cell in &mut unrun.cells {
        (cell.status, cell.rows) = (Status::NotRun, Vec::new());
    }
    let report = whole(&folder(&unrun));
    assert!(report.studies.is_empty());
    let (_, section) = page(&report).split_once("id=\"selectors-invented-summary\"").unwrap();
    assert!(section.contains("tuned top-1, %"), "ours is shown as not run");
    let row = section.split("<tr>").find(|row| row.contains("omp")).unwrap();
    assert!(row.contains(">not run<") && row.contains(">none<"), "{row}");
    let row = section.split("<tr>").find(|row| row.contains(">thinet<") && row.contains(">0.5<")).unwrap();
    assert!(row.contains(">not run<") && row.contains(">65.65<"), "{row}");
}

#[test]
fn variants_are_ablations_with_a_choice() {
    let report = whole(&folder(&with_variants()));
    let page = page(&report);
    assert!(page.contains("id=\"ablations\"") && page.contains("Ablation on Invented-10"));
    assert!(page.contains("<option value=\"at once\">at once</option>"), "{page}");
    assert!(page.contains("No study was run."));
}

#[test]
fn a_checklist_is_shown_where_there_is_one() {
    let dir = folder(&study());
    let text = "run,experiment,question,answer,evidence\n0123abcd,invented,Three seeds?,no,2 of them\n";
    fs::write(dir.path().join("selectors-invented-checklist.csv"), text).unwrap();
    let report = whole(&dir);
    let page = page(&report);
    assert!(page.contains("id=\"checklist\"") && page.contains("Three seeds?") && page.contains("2 of them"));
    // Another layout is shown as it is.
    fs::write(
        dir.path().join("selectors-invented-checklist.csv"),
        "run,item,fulfilled\n0123abcd,Seeds,partly\n",
    )
    .unwrap();
    assert!(self::page(&whole(&dir)).contains("partly"));
}

#[test]
fn a_folder_without_tables_gives_a_page_that_says_so() {
    let dir = tempfile::tempdir().unwrap();
    assert!(page(&whole(&dir)).contains("No study was run."));
}
