//! Tables that compare whole studies with the paper's rows: `imagenet-vgg16`, `imagenet-resnet50` (Luo et al. 2017, tables 1 to 3);
//! `cifar10-published` has rows of another kind (`reruns.rs`).
//! Every row has its own dense baseline and its protocol; rows that were not measured are marked.

use polars::frame::DataFrame;
use thinet_graph::Graph;
use thinet_nets::{ResNetStride, paper_models};

use super::frame::column;
use super::lines::{LEFT_OUT, Quality, shown, status_name};
use super::markdown::{Grid, grouped};
use super::notes::{sources_note, test_images};
use super::write::NOT_RUN;
use super::{Table, TableError, reruns};
use crate::published::{Accuracy, AccuracyDrop, Method, Paper, Protocol, Published};
use crate::records::{CellRecord, FROM_SCRATCH, Phase, Size, Status, StudyRecord};

/// A study of a paper table with its records.
#[derive(Clone, Debug)]
pub struct PaperStudy<'a> {
    /// The records; marked as not run where nothing was measured.
    pub study: &'a StudyRecord,
    /// Whether any of it is stored.
    pub is_run: bool,
    /// The inputs of its dense nets as text: studies with the same text have the same dense nets.
    pub dense_inputs: String,
    /// Preprocessing protocol of its images, empty for images of one size.
    pub protocol: &'a str,
    /// Position of the stride, if its net is a ResNet-50.
    pub stride: ResNetStride,
    /// Its dense net.
    pub graph: &'a Graph,
    /// The net of each cell, in the order of the study's cells.
    pub cell_graphs: Vec<&'a Graph>,
}

/// A row: the dense net of a study, or a cell.
struct Line<'a> {
    study: &'a str,
    method: &'a str,
    /// The published model of these widths.
    model: Option<&'static str>,
    protocol: &'a str,
    stride: &'static str,
    keep_rate: Option<f64>,
    seed: u64,
    status: Status,
    /// Whether it has no values because its dense net is unfit.
    is_left_out: bool,
    size: Option<Size>,
    dense: Quality,
    /// The published model that equals the study's own dense net.
    dense_model: Option<&'static str>,
    tuned: Quality,
    test_images: Option<u64>,
    published: Option<&'a Accuracy>,
    /// The dense net from which the drop is computed: of the same kind as that of the published drop.
    baseline: Option<Baseline>,
}

/// A measured dense net.
#[derive(Clone, Copy)]
struct Baseline {
    /// The published model that it equals, if any.
    model: Option<&'static str>,
    quality: Quality,
}

impl Line<'_> {
    /// Formats a value, or why there is none.
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

/// The table of this name from its studies, in their order.
///
/// # Errors
/// If the published numbers are inconsistent, a model cannot be built, or a value is recorded twice.
pub fn paper(name: &str, studies: &[PaperStudy<'_>]) -> Result<Table, TableError> {
    if name == reruns::NAME {
        return reruns::reruns(studies);
    }
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

/// The run id of a paper table: a hash of the runs of its studies.
#[must_use]
pub fn paper_run(studies: &[PaperStudy<'_>]) -> String {
    let runs: Vec<&str> = studies.iter().filter(|s| s.is_run).map(|s| s.study.run.as_str()).collect();
    if runs.is_empty() {
        return NOT_RUN.to_owned();
    }
    blake3::hash(runs.join("\n").as_bytes()).to_hex()[..12].to_owned()
}

/// The dense net from which a row's drop is computed.
///
/// If the published drop is against another net than the study's own dense one (VGG-16 with its fully connected layers for ThiNet-GAP),
/// this must be a net of that kind under the same protocol.
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

/// The baseline model of the published drop for a row's widths, if the study's own dense net is another.
fn other_baseline<'a>(line: &Line, published: &'a Published) -> Option<&'a str> {
    let is_pruned = |row: &&Accuracy| Some(row.model.as_str()) == line.model && row.method == Method::Thinet;
    let original = published.accuracy.iter().find(is_pruned)?.baseline.as_ref()?;
    (Some(original.model.as_str()) != line.dense_model).then_some(original.model.as_str())
}

/// Whether two studies start from the same dense nets.
fn has_same_dense(a: &PaperStudy<'_>, b: &PaperStudy<'_>) -> bool {
    if a.is_run && b.is_run {
        let ids = |s: &PaperStudy<'_>| s.study.dense.iter().map(|d| d.id.clone()).collect::<Vec<_>>();
        return ids(a) == ids(b);
    }
    a.dense_inputs == b.dense_inputs
}

fn lines_of<'a>(study: &PaperStudy<'a>, published: &'a Published) -> Result<Vec<Line<'a>>, TableError> {
    let PaperStudy { study, protocol, stride, graph, ref cell_graphs, .. } = *study;
    let models = paper_models(stride)?;
    let named = |graph: &Graph| -> Result<Option<&'static str>, TableError> {
        for model in &models {
            if model.build()?.nodes() == graph.nodes() {
                return Ok(Some(model.name));
            }
        }
        Ok(None)
    };
    // No ResNet-50 with its stride in the 3×3 convolution is published.
    let is_published = stride == ResNetStride::First1x1;
    let stride = match (graph.name(), stride) {
        ("resnet50", ResNetStride::First1x1) => "1x1",
        ("resnet50", ResNetStride::Middle3x3) => "3x3",
        _ => "",
    };
    let study_name = study.name.as_str();
    let mut lines = Vec::new();
    let dense_model = named(graph)?;
    for dense in &study.dense {
        let quality = Quality::read(&dense.id, &dense.rows, Phase::Dense)?;
        lines.push(Line {
            study: study_name,
            method: "dense",
            model: dense_model,
            protocol,
            stride,
            keep_rate: None,
            seed: dense.seed,
            status: dense.status,
            is_left_out: false,
            size: Some(dense.size),
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
    for (cell, graph) in study.cells.iter().zip(cell_graphs) {
        let model = named(graph)?;
        let dense = lines.iter().find(|line| line.keep_rate.is_none() && line.seed == cell.seed);
        let dense = dense.map_or_else(Quality::default, |line| line.dense);
        lines.push(Line {
            study: study_name,
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
            tuned: Quality::read(&cell.id, &cell.rows, Phase::AfterFineTune)?,
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
        column("experiment", lines, |l| l.study),
        column("method", lines, |l| l.method),
        column("model", lines, |l| l.model),
        column("protocol", lines, |l| l.protocol),
        column("stride", lines, |l| l.stride),
        column("keep_rate", lines, |l| l.keep_rate),
        column("seed", lines, |l| l.seed),
        column("status", lines, |l| status_name(l.status)),
        column("params", lines, |l| l.size.map(|size| size.paper.params)),
        column("flops", lines, |l| l.size.map(|size| size.paper.flops)),
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
            line.study.to_owned(),
            format!("{}{stride}", line.protocol),
            line.size.map(|size| format!("{:.2}", size.paper.params as f64 / 1e6)).unwrap_or_default(),
            line.size.map(|size| format!("{:.2}", size.paper.flops as f64 / 1e9)).unwrap_or_default(),
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
    let figures = lines.iter().filter_map(|line| line.published).flat_map(|row| [&row.top1, &row.top5]);
    notes.extend(sources_note(published, figures.filter(|figure| figure.verified)));
    if lines.iter().filter_map(|line| line.published).any(|row| !is_verified(row)) {
        notes.push("Unverified: recalled from the paper, no source opened.".to_owned());
    }
    notes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dense_net_is_beside_the_original_of_its_protocol_else_of_the_iccv_tables() {
        let mut published = Published::load().unwrap();
        let top1 = |published: &Published, model: &str, protocol: &str| {
            original(published, model, protocol).map(|row| row.top1.printed.value())
        };
        assert_eq!(top1(&published, "vgg16", "caffe-short"), Some(71.5));
        assert_eq!(top1(&published, "vgg16", "torchvision"), Some(68.34));
        assert_eq!(top1(&published, "resnet50", "caffe-short"), Some(72.88));
        assert_eq!(top1(&published, "thinet-conv", "caffe-short"), None);
        // The protocol counts for more than the paper.
        published.accuracy[0].paper = Paper::Tpami;
        assert_eq!(top1(&published, "vgg16", "caffe-squash"), Some(68.34));
        assert_eq!(top1(&published, "vgg16", "torchvision"), None);
    }

    #[test]
    fn a_row_is_verified_if_both_its_figures_are() {
        let published = Published::load().unwrap();
        let row = &published.accuracy[0];
        for (top1, top5) in [(true, true), (true, false), (false, true), (false, false)] {
            let mut row = row.clone();
            (row.top1.verified, row.top5.verified) = (top1, top5);
            assert_eq!(is_verified(&row), top1 && top5, "{top1} {top5}");
        }
    }
}
