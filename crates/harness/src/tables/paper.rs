//! The tables that set whole experiments beside the paper's rows: `imagenet-vgg16`, `imagenet-resnet50` (Luo et al. 2017,
//! tables 1 to 3). Every row has its own dense baseline and its protocol; what was not measured says so.

use polars::frame::DataFrame;
use thinet_models::{ResNetStride, paper_models};

use super::frame::column;
use super::lines::{LEFT_OUT, Quality, test_images};
use super::markdown::{Grid, grouped};
use super::selectors::{shown, status_name};
use super::write::NOT_RUN;
use super::{Table, TableError};
use crate::outline::{FROM_SCRATCH, Outline};
use crate::published::{Accuracy, AccuracyDrop, Method, Paper, Protocol, Published};
use crate::records::{CellRecord, Size, Stage, Status, StudyRecord};

/// An experiment of a paper table: what it is, and what of it was measured.
#[derive(Clone, Copy, Debug)]
pub struct PaperStudy<'a> {
    /// Its nets and widths.
    pub outline: &'a Outline,
    /// What was measured; made by [`crate::not_run`] where nothing was.
    pub study: &'a StudyRecord,
    /// Whether anything of it is stored.
    pub is_run: bool,
}

/// A row: the dense net of an experiment, or a cell.
struct Line<'a> {
    experiment: &'a str,
    method: &'a str,
    /// The published model of these widths.
    model: Option<&'static str>,
    protocol: &'a str,
    stride: &'static str,
    keep_rate: Option<f64>,
    seed: u64,
    status: Status,
    /// Whether it has no values because nothing is pruned from the dense net of its seed.
    is_left_out: bool,
    size: Size,
    dense: Quality,
    /// The published model that the experiment's own dense net is.
    dense_model: Option<&'static str>,
    tuned: Quality,
    test_images: Option<u64>,
    published: Option<&'a Accuracy>,
    /// The dense net that the drop is taken against: of the kind that the published drop is taken against.
    baseline: Option<Baseline>,
}

/// A dense net of ours.
#[derive(Clone, Copy)]
struct Baseline {
    /// The published model it is, if it is one.
    model: Option<&'static str>,
    quality: Quality,
}

impl Line<'_> {
    /// A value for people; where there is none, why.
    fn shown(&self, value: Option<f64>) -> String {
        match value {
            None if self.is_left_out => LEFT_OUT.to_owned(),
            value => shown(value, 2, self.status),
        }
    }

    fn drop(&self, of: impl Fn(&Quality) -> Option<f64>) -> Option<f64> {
        Some(of(&self.baseline?.quality)? - of(&self.tuned)?)
    }
}

/// The table of this name from its experiments, in their order.
///
/// # Errors
/// If the published numbers are inconsistent, a model cannot be built, or a value is recorded twice.
pub fn paper(name: &str, studies: &[PaperStudy<'_>]) -> Result<Table, TableError> {
    let published = Published::load()?;
    let mut lines = Vec::new();
    for (i, study) in studies.iter().enumerate() {
        let is_dense_shown = studies[..i].iter().any(|other| has_same_dense(other, study));
        let of_study = lines_of(study, &published)?;
        lines.extend(of_study.into_iter().filter(|line| line.keep_rate.is_some() || !is_dense_shown));
    }
    let baselines: Vec<Option<Baseline>> =
        lines.iter().map(|line| baseline(line, &lines, &published)).collect();
    for (line, baseline) in lines.iter_mut().zip(baselines) {
        line.baseline = baseline;
    }
    Ok(Table {
        name: name.to_owned(),
        title: format!("{name}: ours beside the published numbers"),
        frame: frame(&lines, &published)?,
        grids: vec![grid(&lines, &published)],
        notes: notes(studies, &lines, &published),
        attachments: Vec::new(),
    })
}

/// The run's id of a paper table: a hash of the runs it was made from.
#[must_use]
pub fn paper_run(studies: &[PaperStudy<'_>]) -> String {
    let runs: Vec<&str> = studies.iter().filter(|s| s.is_run).map(|s| s.study.run.as_str()).collect();
    if runs.is_empty() {
        return NOT_RUN.to_owned();
    }
    blake3::hash(runs.join("\n").as_bytes()).to_hex()[..12].to_owned()
}

/// The dense net that a row's drop is taken against.
///
/// Like is compared with like: where the published drop is against another net than the experiment's own dense one (VGG-16
/// with its fully connected layers for ThiNet-GAP), only a net of that kind under the same protocol will do.
fn baseline(line: &Line, lines: &[Line], published: &Published) -> Option<Baseline> {
    line.keep_rate?;
    let Some(model) = other_baseline(line, published) else {
        return Some(Baseline { model: line.dense_model, quality: line.dense });
    };
    let is_like = |other: &&Line| {
        let is_dense = other.keep_rate.is_none() && other.model == Some(model);
        is_dense && (other.protocol, other.stride, other.seed) == (line.protocol, line.stride, line.seed)
    };
    let like = lines.iter().find(is_like)?;
    Some(Baseline { model: like.model, quality: like.dense })
}

/// The dense model that the published drop of a row's widths is against, if the experiment's own dense net is another.
fn other_baseline<'a>(line: &Line, published: &'a Published) -> Option<&'a str> {
    let is_pruned = |row: &&Accuracy| Some(row.model.as_str()) == line.model && row.method == Method::Thinet;
    let original = published.accuracy.iter().find(is_pruned)?.baseline.as_ref()?;
    (Some(original.model.as_str()) != line.dense_model).then_some(original.model.as_str())
}

/// Whether two experiments start from the same dense nets.
fn has_same_dense(a: &PaperStudy<'_>, b: &PaperStudy<'_>) -> bool {
    if a.is_run && b.is_run {
        let ids = |s: &PaperStudy<'_>| s.study.dense.iter().map(|d| d.id.clone()).collect::<Vec<_>>();
        return ids(a) == ids(b);
    }
    let (a, b) = (&a.outline.spec, &b.outline.spec);
    (&a.dataset, &a.net, &a.dense, a.seeds) == (&b.dataset, &b.net, &b.dense, b.seeds)
}

fn lines_of<'a>(study: &PaperStudy<'a>, published: &'a Published) -> Result<Vec<Line<'a>>, TableError> {
    let PaperStudy { outline, study, .. } = *study;
    let stride = outline.spec.net.stride.unwrap_or_default();
    let models = paper_models(stride)?;
    let named = |graph: &thinet_graph::Graph| -> Result<Option<&'static str>, TableError> {
        for model in &models {
            if model.build()?.nodes() == graph.nodes() {
                return Ok(Some(model.name));
            }
        }
        Ok(None)
    };
    let protocol = outline.spec.dataset.protocol().map_or("", thinet_data::Protocol::name);
    // Nobody has published a ResNet-50 with its stride in the 3×3 convolution: no row is its like.
    let is_published = stride == ResNetStride::First1x1;
    let stride = match (outline.graph.name(), stride) {
        ("resnet50", ResNetStride::First1x1) => "1x1",
        ("resnet50", ResNetStride::Middle3x3) => "3x3",
        _ => "",
    };
    let experiment = outline.spec.name.as_str();
    let mut lines = Vec::new();
    let dense_model = named(&outline.graph)?;
    for dense in &study.dense {
        let quality = Quality::read(&dense.id, &dense.rows, Stage::Dense)?;
        lines.push(Line {
            experiment,
            method: "dense",
            model: dense_model,
            protocol,
            stride,
            keep_rate: None,
            seed: dense.seed,
            status: dense.status,
            is_left_out: false,
            size: dense.size,
            dense: quality,
            dense_model,
            tuned: quality,
            test_images: dense.test_images,
            published: dense_model
                .filter(|_| is_published)
                .and_then(|model| original(published, model, protocol)),
            baseline: None,
        });
    }
    let unfit: Vec<u64> = study.dense.iter().filter(|d| d.unfit.is_some()).map(|d| d.seed).collect();
    for (cell, place) in study.cells.iter().zip(&outline.cells) {
        let model = named(&place.graph)?;
        let dense = lines.iter().find(|line| line.keep_rate.is_none() && line.seed == cell.seed);
        let dense = dense.map_or_else(Quality::default, |line| line.dense);
        lines.push(Line {
            experiment,
            method: &cell.method,
            model,
            protocol,
            stride,
            keep_rate: Some(cell.keep_rate),
            seed: cell.seed,
            status: cell.status,
            is_left_out: cell.status == Status::NotRun && unfit.contains(&cell.seed),
            size: cell.size,
            dense,
            dense_model,
            tuned: Quality::read(&cell.id, &cell.rows, Stage::AfterFineTune)?,
            test_images: cell.test_images,
            published: model.filter(|_| is_published).and_then(|model| row_of(published, model, cell)),
            baseline: None,
        });
    }
    Ok(lines)
}

/// The published row of a method on a model, if there is one.
fn row_of<'a>(published: &'a Published, model: &str, cell: &CellRecord) -> Option<&'a Accuracy> {
    let (method, paper) = match (cell.selector.as_str(), cell.reconstruction.as_str()) {
        ("thinet", "channel-scale") => (Method::Thinet, Paper::Iccv),
        ("thinet-omp", "channel-scale") => (Method::Thinet, Paper::Tpami),
        (FROM_SCRATCH, _) => (Method::Scratch, Paper::Iccv),
        _ => return None,
    };
    published.accuracy(model, method, paper).ok()
}

/// The published original under our protocol, else the one of the ICCV tables.
fn original<'a>(published: &'a Published, model: &str, protocol: &str) -> Option<&'a Accuracy> {
    let theirs = match protocol {
        "caffe-squash" => Protocol::Square256,
        "caffe-short" => Protocol::ShorterSide256,
        _ => Protocol::NotStated,
    };
    let mut rows =
        published.accuracy.iter().filter(|row| row.model == model && row.method == Method::Original);
    let same = rows.clone().find(|row| row.protocol == theirs);
    same.or_else(|| rows.find(|row| row.paper == Paper::Iccv))
}

fn frame(lines: &[Line], published: &Published) -> Result<DataFrame, TableError> {
    let drop = |line: &Line| line.published.and_then(|row| published.accuracy_drop(row));
    let figure = |line: &Line, of: fn(&Accuracy) -> f64| line.published.map(of);
    let columns = vec![
        column("experiment", lines, |l| l.experiment),
        column("method", lines, |l| l.method),
        column("model", lines, |l| l.model),
        column("protocol", lines, |l| l.protocol),
        column("stride", lines, |l| l.stride),
        column("keep_rate", lines, |l| l.keep_rate),
        column("seed", lines, |l| l.seed),
        column("status", lines, |l| status_name(l.status)),
        column("params", lines, |l| l.size.paper.params),
        column("flops", lines, |l| l.size.paper.flops),
        column("dense_top1", lines, |l| l.dense.top1),
        column("dense_top5", lines, |l| l.dense.top5),
        column("top1", lines, |l| l.tuned.top1),
        column("top5", lines, |l| l.tuned.top5),
        column("top1_drop", lines, |l| l.drop(|q| q.top1)),
        column("top5_drop", lines, |l| l.drop(|q| q.top5)),
        column("published_protocol", lines, |l| l.published.map(Accuracy::protocol_text)),
        column("published_top1", lines, |l| figure(l, |row| row.top1.printed.value())),
        column("published_top5", lines, |l| figure(l, |row| row.top5.printed.value())),
        column("published_top1_drop", lines, |l| drop(l).map(|d| d.top1)),
        column("published_top5_drop", lines, |l| drop(l).map(|d| d.top5)),
        column("published_verified", lines, |l| l.published.map(is_verified)),
        column("drop_baseline", lines, |l| l.baseline.and_then(|baseline| baseline.model)),
        column("test_images", lines, |l| l.test_images),
    ];
    Ok(DataFrame::new(lines.len(), columns)?)
}

fn is_verified(row: &Accuracy) -> bool {
    row.top1.verified && row.top5.verified
}

fn grid(lines: &[Line], published: &Published) -> Grid {
    let headings = [
        "<method",
        "<model",
        "<experiment",
        "<protocol",
        "params, M",
        "FLOPs, B",
        "top-1, %",
        "top-5, %",
        "images",
        "drop, points",
        "published top-1",
        "published top-5",
        "published drop",
        "<published protocol",
    ];
    let mut grid = Grid::new("Ours beside the published numbers", &headings);
    for line in lines {
        let rate = line.keep_rate.map_or_else(String::new, |rate| format!("r = {rate}"));
        let stride = if line.stride.is_empty() { String::new() } else { format!(", stride {}", line.stride) };
        let text = |of: fn(&Accuracy) -> &crate::published::Figure| {
            line.published.map_or_else(|| "none".to_owned(), |row| of(row).printed.printed().to_owned())
        };
        let label = if line.published.is_some_and(|row| !is_verified(row)) { " (unverified)" } else { "" };
        let drop = line.published.and_then(|row| published.accuracy_drop(row));
        grid.rows.push(vec![
            line.method.to_owned(),
            line.model.map_or(rate, str::to_owned),
            line.experiment.to_owned(),
            format!("{}{stride}", line.protocol),
            format!("{:.2}", line.size.paper.params as f64 / 1e6),
            format!("{:.2}", line.size.paper.flops as f64 / 1e9),
            line.shown(line.tuned.top1),
            line.shown(line.tuned.top5),
            line.test_images.map(grouped).unwrap_or_default(),
            match line.baseline {
                None => String::new(),
                Some(_) => line.shown(line.drop(|q| q.top1)),
            },
            format!("{}{label}", text(|row| &row.top1)),
            format!("{}{label}", text(|row| &row.top5)),
            drop.map_or_else(String::new, |AccuracyDrop { top1, .. }| format!("{top1:.2}{label}")),
            line.published.map_or_else(String::new, Accuracy::protocol_text),
        ]);
    }
    grid
}

fn notes(studies: &[PaperStudy<'_>], lines: &[Line], published: &Published) -> Vec<String> {
    let measured = lines.iter().filter(|line| line.tuned.top1.is_some()).map(|line| line.test_images);
    let mut notes = vec![
        format!(
            "Top-1 and top-5 are per cent of the {}, one centre crop of 224×224. Drop: top-1 of the experiment's own dense \
             net under the same protocol less the row's; it is what can be compared with the published drop, as baselines \
             and protocols differ.",
            test_images(measured)
        ),
        "Published drop: against the published original of the same protocol; empty where none is published.".to_owned(),
        "Params and FLOPs follow the convention `paper`. Model: the published model with exactly these widths.".to_owned(),
        "not run: nothing is stored; `make reproduce-table IMAGENET=…` runs it.".to_owned(),
    ];
    for PaperStudy { study, .. } in studies {
        notes.extend(study.left_out().into_iter().map(|line| format!("Experiment `{}`: {line}", study.name)));
    }
    let mut others: Vec<(&str, &str)> = Vec::new();
    for line in lines.iter().filter(|line| line.keep_rate.is_some()) {
        if let (Some(model), Some(other)) = (line.model, other_baseline(line, published))
            && !others.contains(&(model, other))
        {
            others.push((model, other));
        }
    }
    for (model, other) in others {
        notes.push(format!(
            "Drop of {model}: the published one is against {other}, not against a dense net of its own kind. So is ours, \
             where {other} under the same protocol stands in this table; else it is left empty."
        ));
    }
    if lines.iter().any(|line| line.stride == "3x3") {
        notes.push("Stride 3x3: nobody has published this net, so nothing stands beside it.".to_owned());
    }
    let mut sources: Vec<&str> = Vec::new();
    for row in lines.iter().filter_map(|line| line.published) {
        for figure in [&row.top1, &row.top5] {
            let source = published.source(&figure.source);
            if figure.verified && !sources.contains(&source) {
                sources.push(source);
            }
        }
    }
    if !sources.is_empty() {
        notes.push(format!("Published numbers read in: {}.", sources.join("; ")));
    }
    if lines.iter().filter_map(|line| line.published).any(|row| !is_verified(row)) {
        notes.push("Unverified: recalled from the paper, no source opened.".to_owned());
    }
    notes
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use super::*;
    use crate::plan::Options;
    use crate::records::{Metric, Row, Unfit};
    use crate::study::not_run;

    fn outline(name: &str) -> Outline {
        let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../experiments/imagenet").join(name);
        Outline::without_data(Path::new(&file), &Options::default()).unwrap().unwrap()
    }

    fn whole_net(stage: Stage, top1: f64, top5: f64) -> Vec<Row> {
        let row = |metric, value| Row { layer: String::new(), stage, metric, value };
        vec![row(Metric::Top1, top1), row(Metric::Top5, top5), row(Metric::Loss, 1.0)]
    }

    #[test]
    fn ours_stand_beside_the_published_rows_and_the_rest_says_not_run() {
        let (conv, twins) = (outline("vgg16-conv.toml"), outline("vgg16-conv-twins.toml"));
        let (mut measured, missing) = (not_run(&conv), not_run(&twins));
        measured.run = "0123456789ab".to_owned();
        measured.dense[0].id = "dense-1".to_owned();
        measured.dense[0].status = Status::Done;
        measured.dense[0].rows = whole_net(Stage::Dense, 71.25, 90.0);
        measured.cells[0].status = Status::Done;
        measured.cells[0].rows = whole_net(Stage::AfterFineTune, 69.5, 89.25);
        let studies = [
            PaperStudy { outline: &conv, study: &measured, is_run: true },
            PaperStudy { outline: &twins, study: &missing, is_run: false },
        ];
        let table = paper("imagenet-vgg16", &studies).unwrap();
        insta::assert_snapshot!(table.markdown());
        let column = |name: &str| table.frame.column(name).unwrap().f64().unwrap().iter().collect::<Vec<_>>();
        // The dense net, ThiNet, three twins and the control; the twins' dense net is the same one.
        assert_eq!(table.frame.height(), 6);
        assert_eq!(column("top1_drop")[..3], [None, Some(1.75), None]);
        let published = column("published_top1_drop")[1].unwrap();
        assert!((published - 1.7).abs() < 1e-9, "{published}");
        assert_ne!(paper_run(&studies), NOT_RUN);
        assert_eq!(paper_run(&studies[1..]), NOT_RUN);
    }

    #[test]
    fn a_row_of_a_dense_net_that_failed_says_so() {
        let outline = outline("vgg16-conv.toml");
        let mut study = not_run(&outline);
        study.dense[0].status = Status::Done;
        study.dense[0].rows = whole_net(Stage::Dense, 0.125, 0.5);
        study.dense[0].unfit = Some(Unfit::NearChance { top1: 0.125, chance: 0.1 });
        let studies = [PaperStudy { outline: &outline, study: &study, is_run: true }];
        let table = paper("imagenet-vgg16", &studies).unwrap();
        assert_eq!(table.grids[0].rows[1][6..8], ["dense net failed"; 2]);
        let top1: Vec<_> = table.frame.column("top1").unwrap().f64().unwrap().iter().collect();
        assert_eq!(top1[1], None);
    }

    /// Studies of experiments, the given ones measured: their dense nets at 70 %, their cells at 68 %.
    fn measured(outlines: &[Outline], images: u64) -> Vec<StudyRecord> {
        let of = |outline: &Outline| {
            let mut study = not_run(outline);
            study.run = outline.spec.name.clone();
            for dense in &mut study.dense {
                (dense.id, dense.status) = (format!("dense of {}", outline.spec.name), Status::Done);
                (dense.rows, dense.test_images) = (whole_net(Stage::Dense, 70.0, 90.0), Some(images));
            }
            for cell in &mut study.cells {
                cell.status = Status::Done;
                (cell.rows, cell.test_images) = (whole_net(Stage::AfterFineTune, 68.0, 88.0), Some(images));
            }
            study
        };
        outlines.iter().map(of).collect()
    }

    fn table_of(names: &[&str], images: u64) -> Table {
        let outlines: Vec<Outline> = names.iter().map(|name| outline(name)).collect();
        let records = measured(&outlines, images);
        let studies: Vec<PaperStudy<'_>> = outlines
            .iter()
            .zip(&records)
            .map(|(outline, study)| PaperStudy { outline, study, is_run: true })
            .collect();
        paper("x", &studies).unwrap()
    }

    fn drops(table: &Table) -> Vec<(String, Option<f64>)> {
        let models = table.frame.column("model").unwrap().str().unwrap();
        let drops = table.frame.column("top1_drop").unwrap().f64().unwrap();
        models.iter().zip(drops.iter()).map(|(m, d)| (m.unwrap_or("none").to_owned(), d)).collect()
    }

    #[test]
    fn a_drop_is_never_against_another_net_than_the_published_one() {
        // The dense net of both is VGG-16-GAP; the published drops are against VGG-16.
        let alone = table_of(&["vgg16-gap.toml", "vgg16-tiny.toml"], 50_000);
        let model = |name: &str, drop| (name.to_owned(), drop);
        let expected =
            [model("none", None), model("thinet-gap", None), model("none", None), model("thinet-tiny", None)];
        assert_eq!(drops(&alone), expected);
        let text = alone.markdown();
        assert!(text.contains("Drop of thinet-gap: the published one is against vgg16,"), "{text}");

        // An own VGG-16 is there under ThiNet-Tiny's protocol, and none under ThiNet-GAP's.
        let with_vgg16 = table_of(&["vgg16-conv.toml", "vgg16-gap.toml", "vgg16-tiny.toml"], 50_000);
        let found = drops(&with_vgg16);
        assert_eq!(found[1], model("thinet-conv", Some(2.0)));
        assert_eq!((&found[3], &found[5]), (&model("thinet-gap", None), &model("thinet-tiny", Some(2.0))));
        let against = with_vgg16.frame.column("drop_baseline").unwrap().str().unwrap();
        assert_eq!([1, 3, 5].map(|row| against.get(row)), [Some("vgg16"), None, Some("vgg16")]);
    }

    #[test]
    fn nothing_published_stands_beside_a_net_that_nobody_published() {
        let table = table_of(&["resnet50-caffe.toml", "resnet50-torchvision.toml"], 50_000);
        let strides = table.frame.column("stride").unwrap().str().unwrap();
        let published = table.frame.column("published_top1").unwrap().f64().unwrap();
        for (stride, published) in strides.iter().zip(published.iter()) {
            assert_eq!(published.is_some(), stride == Some("1x1"), "{stride:?}");
        }
    }

    #[test]
    fn a_number_of_images_is_told_only_if_it_was_counted() {
        let text = |images| table_of(&["vgg16-conv.toml"], images).markdown();
        assert!(text(50_000).contains("per cent of the 50,000 test images,"));
        assert!(text(49_997).contains("per cent of the 49,997 test images,"));
        assert!(text(49_997).contains(" 49,997 |"));
        let conv = outline("vgg16-conv.toml");
        let nothing = not_run(&conv);
        let table = paper("x", &[PaperStudy { outline: &conv, study: &nothing, is_run: false }]).unwrap();
        assert!(!table.markdown().contains("50,000"));
    }
}
