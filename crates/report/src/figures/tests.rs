//! Figures of the tables of an invented study.

use std::fs;
use std::path::Path;

use serde_json::Value;
use tempfile::TempDir;

use super::{Figure, FigureError, Figures, figures, write};
use crate::records::{CellRecord, FROM_SCRATCH, Metric, Mode, Phase, Status, StudyRecord};
use crate::tables::sample::{study, with_variants};
use crate::tables::{self, compression, selectors};

const TABLE: &str = "selectors-invented";

/// A folder with the tables of a study.
pub(super) fn folder(study: &StudyRecord) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    put(dir.path(), study);
    dir
}

fn put(folder: &Path, study: &StudyRecord) {
    for table in selectors(study).unwrap() {
        tables::write(folder, &table, &study.run).unwrap();
    }
}

pub(super) fn draw(dir: &TempDir) -> Figures {
    let drawn = figures(dir.path(), &[]).unwrap();
    assert!(drawn.failed.is_empty(), "{:?}", drawn.failed);
    drawn
}

/// The one error of drawing the tables of a folder.
pub(super) fn failure(dir: &TempDir) -> FigureError {
    let mut failed = figures(dir.path(), &[]).unwrap().failed;
    assert_eq!(failed.len(), 1, "{failed:?}");
    failed.remove(0)
}

pub(super) fn find<'a>(figures: &'a Figures, name: &str) -> &'a Figure {
    figures.drawn.iter().find(|figure| figure.name == format!("{TABLE}-{name}")).unwrap()
}

/// Replaces a text in a file, which must hold it.
fn edit(dir: &TempDir, file: &str, old: &str, new: &str) {
    let path = dir.path().join(file);
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.contains(old), "{text}");
    fs::write(&path, text.replacen(old, new, 1)).unwrap();
}

/// All rows of data in a specification that have a key.
pub(super) fn rows<'a>(spec: &'a Value, key: &str) -> Vec<&'a Value> {
    match spec {
        Value::Object(items) if items.contains_key(key) && !items[key].is_object() => vec![spec],
        Value::Object(items) => items.values().flat_map(|item| rows(item, key)).collect(),
        Value::Array(items) => items.iter().flat_map(|item| rows(item, key)).collect(),
        _ => Vec::new(),
    }
}

#[test]
fn a_specification_is_pinned() {
    let dir = folder(&study());
    let drawn = draw(&dir);
    let out = tempfile::tempdir().unwrap();
    let files = write(out.path(), &drawn).unwrap();
    let file = files.iter().find(|file| file.ends_with(format!("{TABLE}-accuracy-flops.vl.json"))).unwrap();
    insta::assert_snapshot!("accuracy_flops", fs::read_to_string(file).unwrap());
}

#[test]
fn every_figure_of_a_study_is_drawn_with_its_caption_and_in_the_same_bytes() {
    let dir = folder(&study());
    tables::write(dir.path(), &compression().unwrap(), tables::DERIVED).unwrap();
    let (drawn, out) = (draw(&dir), tempfile::tempdir().unwrap());
    let names: Vec<&str> =
        drawn.drawn.iter().filter_map(|f| f.name.strip_prefix("selectors-invented-")).collect();
    let expected = [
        "accuracy-flops",
        "accuracy-params",
        "agreement",
        "differences",
        "losses",
        "reconstruction",
        "widths",
    ];
    assert_eq!(names, expected);
    for figure in &drawn.drawn {
        let caption = &figure.caption;
        assert!(
            caption.contains("Invented-10") && caption.contains("tiny, 1×8×8"),
            "{}: {caption}",
            figure.name
        );
        assert!(caption.contains("n = 2 seeds"), "{}: {caption}", figure.name);
        let description = figure.spec["description"].as_str().unwrap();
        assert!(description.starts_with(&figure.title) && description.ends_with(caption));
        let subtitle: Vec<&str> =
            figure.spec["title"]["subtitle"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
        assert_eq!(&subtitle.join(" "), caption, "nothing of it is cut off");
    }
    let read = |files: Vec<std::path::PathBuf>| -> Vec<Vec<u8>> {
        files.iter().map(|file| fs::read(file).unwrap()).collect()
    };
    let first = read(write(out.path(), &drawn).unwrap());
    assert_eq!(first, read(write(out.path(), &draw(&dir)).unwrap()));
}

#[test]
fn a_method_that_diverged_is_named_and_not_drawn() {
    let mut study = study();
    for cell in study.cells.iter_mut().filter(|cell| cell.method == "apoz" && cell.keep_rate == 0.5) {
        cell.status = Status::Diverged;
        cell.rows.retain(|row| row.phase != Phase::AfterFineTune);
    }
    let drawn = draw(&folder(&study));
    let figure = find(&drawn, "accuracy-flops");
    assert!(figure.caption.contains(" Diverged: apoz at 0.5."), "{}", figure.caption);
    let points = rows(&figure.spec, "top1");
    assert!(points.iter().all(|point| point["top1"].as_f64().unwrap() > 1.0), "no zero stands for no value");
    let panels = figure.spec["vconcat"][0]["concat"].as_array().unwrap();
    let has = |panel: &Value| rows(panel, "top1").iter().any(|point| point["method"] == "apoz");
    assert!(has(&panels[0]), "it was measured before tuning");
    assert!(!has(&panels[1]), "and not after");
}

#[test]
fn one_seed_has_no_band_and_no_interval_and_says_so() {
    let mut one = study();
    one.cells.retain(|cell| cell.seed == 0);
    one.dense.retain(|dense| dense.seed == 0);
    let drawn = draw(&folder(&one));
    let figure = find(&drawn, "accuracy-flops");
    assert!(figure.caption.contains("n = 1 seed: one seed, no deviation"), "{}", figure.caption);
    assert!(rows(&figure.spec, "low").is_empty());
    let figure = find(&drawn, "differences");
    assert!(
        figure.caption.contains("n = 1 seed: ") && figure.caption.contains("no intervals"),
        "{}",
        figure.caption
    );
    assert!(rows(&figure.spec, "low").iter().all(|row| row["low"].is_null() && row["shown"] == false));
    let two = draw(&folder(&study()));
    assert!(!rows(&find(&two, "accuracy-flops").spec, "low").is_empty());
}

#[test]
fn a_table_of_another_version_is_an_error_that_names_file_and_column() {
    let cases = [
        ("selectors-invented-summary.csv", "flops_fraction"),
        ("selectors-invented-summary.csv", "after_fine_tune_top1_std"),
        ("selectors-invented-differences.csv", "verdict"),
        ("selectors-invented-layers.csv", "after_cut_reconstruction_error"),
    ];
    for (file, column) in cases {
        let dir = folder(&study());
        edit(&dir, file, &format!(",{column},"), ",renamed,");
        let error = failure(&dir);
        assert!(matches!(error, FigureError::NoColumn { .. }), "{error}");
        let error = error.to_string();
        assert!(error.contains(file) && error.contains(&format!("{column:?}")), "{error}");
    }
}

#[test]
fn a_field_that_is_no_number_is_an_error_that_names_it() {
    let dir = folder(&study());
    edit(&dir, "selectors-invented-summary.csv", ",0.5,2,", ",half,2,");
    let error = failure(&dir).to_string();
    assert!(
        error.contains("selectors-invented-summary.csv, row 1: keep_rate is \"half\", not a number"),
        "{error}"
    );
}

#[test]
fn a_table_that_cannot_be_drawn_leaves_the_others() {
    let dir = folder(&study());
    put(dir.path(), &selection_alone());
    edit(&dir, "selection-invented-layers.csv", ",layer,", ",renamed,");
    let drawn = figures(dir.path(), &[]).unwrap();
    assert_eq!(drawn.failed.len(), 1);
    assert!(drawn.drawn.iter().any(|figure| figure.name == "selectors-invented-reconstruction"));
}

#[test]
fn data_sets_are_not_mixed() {
    let dir = folder(&study());
    edit(&dir, "selectors-invented-summary.csv", "Invented-10", "Other-10");
    let error = failure(&dir);
    assert!(matches!(error, FigureError::Mixed { .. }), "{error}");
    assert!(error.to_string().contains("more than one dataset (Other-10 and Invented-10)"), "{error}");
}

/// The invented study cut at once and not tuned.
fn selection_alone() -> StudyRecord {
    let mut alone = StudyRecord {
        table: "selection-invented".to_owned(),
        run: "4567cdef".to_owned(),
        mode: Mode::OneShot,
        ..study()
    };
    for cell in &mut alone.cells {
        cell.rows.retain(|row| row.phase != Phase::AfterFineTune);
    }
    alone
}

#[test]
fn the_nets_cut_at_once_stand_beside_the_tuned_ones_if_they_are_the_same_nets() {
    let dir = folder(&study());
    put(dir.path(), &selection_alone());
    let titles = |dir: &TempDir| {
        let drawn = draw(dir);
        let spec = &find(&drawn, "accuracy-flops").spec;
        let panels = spec["vconcat"][0]["concat"].as_array().unwrap();
        panels.iter().map(|panel| panel["title"]["text"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let together = titles(&dir);
    assert_eq!(together.len(), 3);
    assert!(together[0].ends_with("Cut at once, not tuned"), "{together:?}");
    let other = folder(&study());
    put(other.path(), &StudyRecord { dataset: "Other-10".to_owned(), ..selection_alone() });
    assert_eq!(titles(&other).len(), 2, "another data set");
}

#[test]
fn tables_of_two_runs_are_not_mixed() {
    for file in [
        "selectors-invented-differences.csv",
        "selectors-invented-layers.csv",
        "selectors-invented-losses.csv",
        "selectors-invented.kept.json",
    ] {
        let dir = folder(&study());
        let path = dir.path().join(file);
        fs::write(&path, fs::read_to_string(&path).unwrap().replace("0123abcd", "4567cdef")).unwrap();
        let error = failure(&dir).to_string();
        assert!(
            error.contains(&format!("{file} is of run 4567cdef")) && error.contains("0123abcd"),
            "{error}"
        );
    }
}

#[test]
fn one_changed_cell_changes_its_figures_and_is_reported() {
    let mut changed = study();
    let row = changed.cells[0]
        .rows
        .iter_mut()
        .find(|row| row.layer.is_empty() && (row.phase, row.metric) == (Phase::AfterFineTune, Metric::Top1));
    row.unwrap().value += 0.01;
    let (first, second) = (draw(&folder(&study())), draw(&folder(&changed)));
    for name in ["accuracy-flops", "accuracy-params", "differences"] {
        assert_ne!(find(&first, name).spec, find(&second, name).spec, "{name}");
    }
    changed.cells[0].loss_curve.as_mut().unwrap().losses[1] += 0.01;
    let third = draw(&folder(&changed));
    assert_ne!(find(&second, "losses").spec, find(&third, "losses").spec);
    assert!(first.changed.is_empty());
    // The same by hand: the table no longer fits its checksum.
    let dir = folder(&study());
    edit(&dir, "selectors-invented-summary.csv", ",90.5,", ",90.51,");
    let third = draw(&dir);
    assert_ne!(find(&first, "accuracy-flops").spec, find(&third, "accuracy-flops").spec);
    assert_eq!(third.changed.len(), 1, "{:?}", third.changed);
    assert!(third.changed[0].contains("selectors-invented-summary.csv has changed"), "{:?}", third.changed);
}

#[test]
fn a_missing_table_skips_its_figure_with_the_reason() {
    let dir = folder(&study());
    for gone in [
        "selectors-invented-layers.csv",
        "selectors-invented-losses.csv",
        "selectors-invented-differences.csv",
        "selectors-invented.kept.json",
    ] {
        fs::remove_file(dir.path().join(gone)).unwrap();
    }
    let drawn = draw(&dir);
    let names: Vec<&str> = drawn.drawn.iter().map(|figure| figure.name.as_str()).collect();
    assert_eq!(names, ["selectors-invented-accuracy-flops", "selectors-invented-accuracy-params"]);
    let skipped: Vec<String> = drawn.skipped.iter().map(|s| format!("{}: {}", s.name, s.why)).collect();
    for (figure, file) in [
        ("selectors-invented-reconstruction: ", "selectors-invented-layers.csv does not exist"),
        ("selectors-invented-losses: ", "selectors-invented-losses.csv does not exist"),
        ("selectors-invented-differences: ", "selectors-invented-differences.csv does not exist"),
        ("selectors-invented-widths, ", "selectors-invented.kept.json does not exist"),
        ("latency: ", "latency.csv does not exist"),
        ("the published panel: ", "cub200-selectors-summary.csv does not exist"),
    ] {
        // Without the folder: the same tables give the same report wherever they lie.
        let file = format!(": {file}");
        assert!(skipped.iter().any(|line| line.starts_with(figure) && line.ends_with(&file)), "{skipped:#?}");
    }
}

#[test]
fn studies_without_anything_to_draw_are_skipped_and_unknown_names_refused() {
    let mut study = study();
    for cell in &mut study.cells {
        (cell.status, cell.rows) = (Status::NotRun, Vec::new());
    }
    let dir = folder(&study);
    let drawn = draw(&dir);
    assert!(drawn.drawn.is_empty());
    assert!(drawn.skipped.iter().any(|s| s.name == TABLE && s.why == "not run"), "{:?}", drawn.skipped);
    let error = figures(dir.path(), &["selectors-other".to_owned()]).unwrap_err().to_string();
    assert!(
        error.contains("\"selectors-other\"") && error.contains("selectors-invented, latency"),
        "{error}"
    );
    assert!(figures(&dir.path().join("none"), &[]).unwrap().drawn.is_empty());
}

#[test]
fn variants_have_panels_and_sample_sizes_a_heat_map() {
    let mut variants = with_variants();
    let drawn = draw(&folder(&variants));
    let figure = find(&drawn, "accuracy-flops");
    let panels = figure.spec["vconcat"][0]["concat"].as_array().unwrap();
    let titles: Vec<&str> = panels.iter().map(|panel| panel["title"]["text"].as_str().unwrap()).collect();
    assert!(titles.iter().any(|title| title.contains("plain: ")), "{titles:?}");
    assert!(titles.iter().any(|title| title.contains("at once: ")), "{titles:?}");
    for name in ["agreement", "differences", "reconstruction"] {
        assert!(
            find(&drawn, name).caption.contains("variant \u{201c}plain\u{201d}"),
            "{name} shows the first one"
        );
    }
    assert!(drawn.drawn.iter().all(|figure| !figure.name.ends_with("-samples")));
    let why = format!("{TABLE}.resolved.toml does not exist");
    let skipped = drawn.skipped.iter().find(|skipped| skipped.name == format!("{TABLE}-samples")).unwrap();
    assert!(skipped.why.ends_with(&why), "{skipped:?}");

    // Names say nothing of the sample; the spec beside the table does.
    name_variants(&mut variants, ["usual", "few"]);
    let dir = folder(&variants);
    let spec = |few: &str| {
        let calibration = "[calibration]\nimages-per-class = 10\npositions-per-image = 3\n";
        let text =
            format!("{calibration}[[variants]]\nname = \"usual\"\n[[variants]]\nname = \"few\"\n{few}");
        fs::write(dir.path().join(format!("{TABLE}.resolved.toml")), text).unwrap();
        draw(&dir)
    };
    let drawn = spec("\"calibration.images-per-class\" = 1");
    let fields = rows(&find(&drawn, "samples").spec, "images");
    assert!(fields.iter().all(|field| field["positions"] == 3));
    for images in [1, 10] {
        assert!(fields.iter().any(|field| field["images"] == images), "{images}");
    }
    for other in [
        "\"prune.mode\" = \"one-shot\"",
        "\"calibration.images-per-class\" = 1\n\"prune.mode\" = \"one-shot\"",
    ] {
        assert!(spec(other).drawn.iter().all(|figure| !figure.name.ends_with("-samples")), "{other}");
    }
}

/// Renames the two variants.
pub(super) fn name_variants(study: &mut StudyRecord, names: [&str; 2]) {
    for (at, name) in names.into_iter().enumerate() {
        let old = std::mem::replace(&mut study.variants[at].name, name.to_owned());
        for cell in study.cells.iter_mut().filter(|cell| cell.variant.as_ref() == Some(&old)) {
            cell.variant = Some(name.to_owned());
        }
    }
}

/// Removes the tuning of the cells of a variant, or of all.
fn untune(study: &mut StudyRecord, variant: Option<&str>) {
    let of_variant = |cell: &&mut CellRecord| cell.variant.as_deref() == variant;
    for cell in study.cells.iter_mut().filter(of_variant).filter(|cell| cell.status != Status::NotRun) {
        (cell.status, cell.tuning_steps) = (Status::Done, Some(0));
        cell.rows.retain(|row| row.phase != Phase::AfterFineTune);
    }
}

/// The controls from a random start of a study without variants, measured after their training alone.
fn add_controls(study: &mut StudyRecord, tuned: &StudyRecord) {
    let is_thinet = |cell: &&CellRecord| cell.method == "thinet" && cell.keep_rate == 0.5;
    for mut cell in tuned.cells.iter().filter(is_thinet).cloned() {
        (cell.method, cell.selector) = ("From scratch".to_owned(), FROM_SCRATCH.to_owned());
        cell.id = format!("scratch-{}", cell.seed);
        cell.rows.retain(|row| row.phase == Phase::AfterFineTune);
        cell.kept.clear();
        study.cells.push(cell);
    }
}

fn panel_titles(figure: &Figure) -> Vec<&str> {
    let panels = figure.spec["vconcat"][0]["concat"].as_array().unwrap();
    panels.iter().map(|panel| panel["title"]["text"].as_str().unwrap()).collect()
}

#[test]
fn keep_rates_that_a_figure_leaves_out_are_named_in_its_caption() {
    // With the rates of the study itself, 0.5 and 0.25, everything is drawn.
    let mut study = study();
    for figure in draw(&folder(&study)).drawn {
        assert!(!figure.caption.contains("Not drawn"), "{}", figure.caption);
    }
    let cells = study.cells.clone();
    for rate in [0.9, 0.8, 0.7, 0.6] {
        let at_half = cells.iter().filter(|cell| cell.keep_rate == 0.5);
        study.cells.extend(at_half.cloned().map(|cell| CellRecord { keep_rate: rate, ..cell }));
    }
    let drawn = draw(&folder(&study));
    let caption = &find(&drawn, "differences").caption;
    assert!(caption.ends_with(" Not drawn: the keep rates 0.8 and 0.6."), "{caption}");
    for name in ["agreement", "reconstruction"] {
        let caption = &find(&drawn, name).caption;
        assert!(caption.contains(" Not drawn: the keep rate"), "{name}: {caption}");
    }
}

#[test]
fn an_untuned_study_with_a_control_is_compared_before_tuning() {
    let tuned = study();
    let mut study = study();
    untune(&mut study, None);
    let plain = find(&draw(&folder(&study)), "differences").caption.clone();
    add_controls(&mut study, &tuned);
    let drawn = draw(&folder(&study));
    let figure = find(&drawn, "differences");
    assert_eq!(figure.caption, plain);
    assert!(figure.caption.contains("after the reconstruction, not tuned"), "{}", figure.caption);
    assert!(figure.caption.contains("no intervals, as each is the same in all seeds"), "{}", figure.caption);
    assert!(!rows(&figure.spec, "difference").is_empty());
    let accuracy = find(&drawn, "accuracy-flops");
    let titles = panel_titles(accuracy);
    assert!(titles[0].ends_with("Layer by layer, not tuned at the end"), "{titles:?}");
    assert!(titles[1].ends_with("Control from a random start"), "{titles:?}");
    // APoZ was not run at 0.25; nothing else is missing. The control has no phase before its training.
    assert!(
        accuracy.caption.ends_with(" Not run: apoz at 0.25. Fewer seeds: random at 0.25 (n = 1)."),
        "{}",
        accuracy.caption
    );
}

#[test]
fn variants_are_shown_with_their_own_mode_and_tuning() {
    let mut variants = with_variants();
    untune(&mut variants, Some("plain"));
    let drawn = draw(&folder(&variants));
    let accuracy = find(&drawn, "accuracy-flops");
    let titles: Vec<&str> =
        panel_titles(accuracy).iter().map(|title| title.split_once('\u{2002}').unwrap().1).collect();
    assert_eq!(
        titles,
        [
            "plain: Layer by layer, not tuned at the end",
            "at once: Cut at once, before tuning",
            "at once: Cut at once, tuned"
        ]
    );
    // Of the tuned variant; the other one was never to be tuned.
    assert!(!accuracy.caption.contains("thinet"), "{}", accuracy.caption);
    let reconstruction = &find(&drawn, "reconstruction").caption;
    assert!(reconstruction.contains("layer-by-layer, variant \u{201c}plain\u{201d}"), "{reconstruction}");
    assert!(
        reconstruction.contains("at the layer's turn") && !reconstruction.contains("one-shot"),
        "{reconstruction}"
    );
    variants.variants.swap(0, 1);
    let drawn = draw(&folder(&variants));
    let reconstruction = &find(&drawn, "reconstruction").caption;
    assert!(reconstruction.contains("one-shot, variant \u{201c}at once\u{201d}"), "{reconstruction}");
    assert!(reconstruction.contains("inputs of the dense net"), "{reconstruction}");
}
