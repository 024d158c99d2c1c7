//! The table `cifar10-published`: other people's prunings of CIFAR-10 nets beside ours of the same widths.
//!
//! Every published row stands beside the dense net of its own source, every row of ours beside our dense nets: no drop is taken across
//! them.

use polars::frame::DataFrame;

use super::frame::column;
use super::groups::{Group, SeedStats, groups};
use super::lines::lines;
use super::markdown::Grid;
use super::notes::test_images;
use super::summary::{shown_mean, shown_seeds};
use super::{PaperStudy, Table, TableError};
use crate::published::{Published, Rerun, RerunRow};
use crate::records::{Phase, StudyRecord};

/// The name of the table.
pub(super) const NAME: &str = "cifar10-published";

/// A published row, a method of ours at a keep rate, or both.
#[derive(Clone, Copy)]
struct Line<'a> {
    published: Option<(&'a Rerun, &'a RerunRow)>,
    ours: Option<OurRow<'a>>,
}

#[derive(Clone, Copy)]
struct OurRow<'a> {
    study: &'a StudyRecord,
    group: &'a Group<'a>,
}

impl<'a> Line<'a> {
    fn group(&self) -> Option<&'a Group<'a>> {
        Some(self.ours?.group)
    }

    fn of_published<T>(&self, value: impl Fn(&'a Rerun, &'a RerunRow) -> T) -> Option<T> {
        self.published.map(|(rerun, row)| value(rerun, row))
    }

    fn tuned(&self) -> Option<&'a SeedStats> {
        Some(self.group()?.at(Phase::AfterFineTune))
    }

    fn is_verified(&self) -> bool {
        self.of_published(Rerun::is_verified) != Some(false)
    }

    /// Formats a published value, labelled if it is unverified; `none` if nothing is published.
    fn shown_published(&self, value: impl Fn(&'a Rerun, &'a RerunRow) -> String) -> String {
        let label = if self.is_verified() { "" } else { " (unverified)" };
        self.of_published(value).map_or_else(|| "none".to_owned(), |text| format!("{text}{label}"))
    }

    /// Formats statistics of ours, or why there are none.
    fn shown(&self, of: impl Fn(&'a Group<'a>) -> &'a SeedStats) -> String {
        let Some(group) = self.group() else { return "not ours".to_owned() };
        let stats = of(group);
        shown_mean(stats, stats.n, group.missing())
    }
}

/// The table from the studies that re-run published prunings, in their order.
///
/// # Errors
/// If the published numbers are inconsistent, or a value is recorded twice.
pub(super) fn reruns(studies: &[PaperStudy<'_>]) -> Result<Table, TableError> {
    let published = Published::load()?;
    let mut of_studies = Vec::new();
    for PaperStudy { study, .. } in studies {
        of_studies.push((*study, groups(&lines(study, &study.cells)?, &published)));
    }
    let mut rows = Vec::new();
    for (study, groups) in &of_studies {
        for group in groups {
            rows.extend(beside(study, group, &published));
        }
    }
    let others = published.rerun.iter().filter(|rerun| rerun.study.is_none());
    let others = others.flat_map(|rerun| rerun.rows.iter().map(move |row| (rerun, row)));
    rows.extend(others.map(|row| Line { published: Some(row), ours: None }));
    Ok(Table {
        name: NAME.to_owned(),
        title: format!("{NAME}: other people's numbers on CIFAR-10, and ours at the same widths"),
        frame: frame(&rows)?,
        grids: vec![grid(&rows)],
        notes: notes(studies, &rows, &published),
        attachments: Vec::new(),
    })
}

/// A row for each publication of this method at this rate; one without if there is none.
fn beside<'a>(study: &'a StudyRecord, group: &'a Group<'a>, published: &'a Published) -> Vec<Line<'a>> {
    let ours = Some(OurRow { study, group });
    let reruns = published.rerun.iter().filter(|rerun| rerun.study.as_deref() == Some(&study.name));
    let of_method = reruns.flat_map(|rerun| {
        let rows = rerun.rows.iter();
        let same = rows.filter(|row| row.is_of(group.selector, group.reconstruction, group.keep_rate));
        same.map(move |row| Line { published: Some((rerun, row)), ours })
    });
    let lines: Vec<Line<'_>> = of_method.collect();
    if lines.is_empty() { vec![Line { published: None, ours }] } else { lines }
}

fn frame(rows: &[Line]) -> Result<DataFrame, TableError> {
    let counts = |line: &Line| line.group()?.size.map(|size| size.paper);
    let columns = vec![
        column("experiment", rows, |l| l.ours.map(|ours| ours.study.name.as_str())),
        column("source", rows, |l| l.of_published(|rerun, _| rerun.dense.source.as_str())),
        column("published_net", rows, |l| l.of_published(|rerun, _| rerun.net.as_str())),
        column("published_method", rows, |l| l.of_published(|_, row| row.method.as_str())),
        column("published_size", rows, |l| l.of_published(|_, row| row.size.as_str())),
        column("published_dense_top1", rows, |l| l.of_published(|rerun, _| rerun.dense.printed.value())),
        column("published_top1", rows, |l| l.of_published(|_, row| row.top1.printed.value())),
        column("published_top1_std", rows, |l| {
            l.of_published(|_, row| row.std.as_ref().map(|std| std.value())).flatten()
        }),
        column("published_top1_drop", rows, |l| l.of_published(Rerun::drop)),
        column("published_verified", rows, |l| l.of_published(Rerun::is_verified)),
        column("net", rows, |l| l.ours.map(|ours| ours.study.net.as_str())),
        column("method", rows, |l| l.group().map(|group| group.method)),
        column("keep_rate", rows, |l| l.group().map(|group| group.keep_rate)),
        column("params", rows, |l| counts(l).map(|counts| counts.params)),
        column("macs", rows, |l| counts(l).map(|counts| counts.macs)),
        column("flops_fraction", rows, |l| l.group().and_then(|group| group.got.flops)),
        column("seeds", rows, |l| l.group().map(|group| group.seeds)),
        column("n", rows, |l| l.tuned().map(|stats| stats.n)),
        column("dense_top1_mean", rows, |l| l.group()?.dense.mean),
        column("dense_top1_std", rows, |l| l.group()?.dense.std),
        column("top1_mean", rows, |l| l.tuned()?.mean),
        column("top1_std", rows, |l| l.tuned()?.std),
        column("top1_drop_mean", rows, |l| l.group()?.drop.mean),
        column("top1_drop_std", rows, |l| l.group()?.drop.std),
        column("test_images", rows, |l| l.group()?.test_images),
    ];
    Ok(DataFrame::new(rows.len(), columns)?)
}

fn grid(rows: &[Line]) -> Grid {
    let headings = [
        "<source",
        "<net",
        "<method there",
        "<published size",
        "dense top-1, %",
        "pruned top-1, %",
        "drop, points",
        "<our method",
        "keep rate",
        "multiply-adds, M",
        "our dense top-1, %",
        "our pruned top-1, %",
        "our drop, points",
        "<seeds",
    ];
    let mut grid =
        Grid::new("Published, each beside the dense net of its source, and ours beside our own", &headings);
    for line in rows {
        let text = |value: Option<&str>| value.unwrap_or_default().to_owned();
        let pruned = |row: &RerunRow| {
            let spread = row.std.as_ref().map(|std| format!(" ± {}", std.printed())).unwrap_or_default();
            format!("{}{spread}", row.top1.printed.printed())
        };
        grid.rows.push(vec![
            text(line.of_published(|rerun, _| rerun.dense.source.as_str())),
            line.of_published(|rerun, _| rerun.net.clone())
                .or_else(|| line.ours.map(|ours| ours.study.net.clone()))
                .unwrap_or_default(),
            text(line.of_published(|_, row| row.method.as_str())),
            text(line.of_published(|_, row| row.size.as_str())),
            line.shown_published(|rerun, _| rerun.dense.printed.printed().to_owned()),
            line.shown_published(|_, row| pruned(row)),
            line.shown_published(|rerun, row| format!("{:.2}", rerun.drop(row))),
            text(line.group().map(|group| group.method)),
            line.group().map(|group| group.keep_rate.to_string()).unwrap_or_default(),
            line.group()
                .and_then(|group| group.size)
                .map(|size| format!("{:.2}", size.paper.macs as f64 / 1e6))
                .unwrap_or_default(),
            line.shown(|group| &group.dense),
            line.shown(|group| group.at(Phase::AfterFineTune)),
            line.shown(|group| &group.drop),
            line.group()
                .map(|group| shown_seeds(group.at(Phase::AfterFineTune).n, group))
                .unwrap_or_default(),
        ]);
    }
    grid
}

fn notes(studies: &[PaperStudy<'_>], rows: &[Line], published: &Published) -> Vec<String> {
    let measured = rows.iter().filter(|line| line.tuned().is_some_and(|stats| stats.n > 0));
    let images = test_images(measured.map(|line| line.group()?.test_images));
    let mut notes = vec![
        format!(
            "Top-1 is per cent of the {images}; ours: mean ± sample standard deviation over n seeds, after the last epoch. Drop: of \
             a publication against the dense net of the same publication, of ours against our dense net of the same seed. \
             Dense nets, recipes and ways to pick an epoch differ between sources: compare no drop across rows of different \
             dense nets."
        ),
        "not run: nothing is stored; `make reproduce-table CIFAR10=…` runs it. not ours: no study of ours has this net. none: nothing \
         is published for this method at these widths."
            .to_owned(),
        "Multiply-adds: convolutions and linear layers, of one image of 32×32.".to_owned(),
    ];
    for rerun in &published.rerun {
        let is_shown =
            rows.iter().any(|line| line.published.is_some_and(|(other, _)| std::ptr::eq(other, rerun)));
        if is_shown {
            let note = format!("Not matched, {} of {}: {}.", rerun.net, rerun.dense.source, rerun.unmatched);
            if !notes.contains(&note) {
                notes.push(note);
            }
        }
    }
    for PaperStudy { study, .. } in studies {
        notes.extend(study.left_out().into_iter().map(|line| format!("Experiment `{}`: {line}", study.name)));
    }
    let mut sources: Vec<&str> = Vec::new();
    for (rerun, _) in rows.iter().filter_map(|line| line.published) {
        if !sources.contains(&rerun.dense.source.as_str()) {
            sources.push(&rerun.dense.source);
        }
    }
    notes.extend(sources.into_iter().map(|name| format!("Source {name}: {}.", published.source(name))));
    if rows.iter().any(|line| !line.is_verified()) {
        notes.push("Unverified: recalled, no source opened.".to_owned());
    }
    notes
}
