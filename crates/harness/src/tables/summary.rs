//! Means over seeds beside the paper's CUB-200 figure, and Kendall's tau between both orders of methods (Luo et al.
//! 2017, figure 4). The figure is another dataset and another net: a description, not a target.

use polars::frame::DataFrame;
use thinet_metrics::{kendall_tau_b, mean, sample_std};

use super::frame::column;
use super::markdown::Grid;
use super::selectors::{Line, PRUNED_STAGES, in_order, origin, stages_note};
use super::{Table, TableError};
use crate::published::{Point, Published, Series};
use crate::records::{Status, StudyRecord};

/// Mean, sample standard deviation and number of the values that exist.
struct Over {
    mean: Option<f64>,
    std: Option<f64>,
    n: u64,
}

impl Over {
    fn of(values: &[f64]) -> Self {
        Self { mean: mean(values), std: sample_std(values), n: values.len() as u64 }
    }
}

/// A method at a keep rate, over its seeds.
struct Group<'a> {
    method: &'a str,
    selector: &'a str,
    reconstruction: &'a str,
    keep_rate: f64,
    seeds: u64,
    done: u64,
    diverged: u64,
    not_run: u64,
    /// Top-1, one per stage of [`PRUNED_STAGES`].
    top1: [Over; 3],
    published: Option<(&'a Series, Point<'a>)>,
}

impl Group<'_> {
    fn tuned(&self) -> &Over {
        &self.top1[2]
    }

    /// Why no value exists, for people.
    fn missing(&self) -> &'static str {
        match (self.done, self.diverged) {
            (1.., _) => "not measured",
            (0, 1..) => "diverged",
            (0, 0) => "not run",
        }
    }
}

/// Method by method, each keep rate, in the order of the study.
fn groups<'a>(lines: &[Line<'a>], published: &'a Published) -> Vec<Group<'a>> {
    let mut groups = Vec::new();
    let keys = in_order(lines, |l| (l.cell.method.as_str(), l.cell.keep_rate));
    for (method, keep_rate) in keys {
        let of_key: Vec<&Line> =
            lines.iter().filter(|l| l.cell.method == method && l.cell.keep_rate == keep_rate).collect();
        let with = |status| of_key.iter().filter(|l| l.cell.status == status).count() as u64;
        let over = |stage| {
            let values: Vec<f64> = of_key.iter().filter_map(|l| l.at(stage).top1).collect();
            Over::of(&values)
        };
        let cell = of_key[0].cell;
        let (selector, reconstruction) = (cell.selector.as_str(), cell.reconstruction.as_str());
        let series = published.figure4.find(selector, reconstruction);
        groups.push(Group {
            method,
            selector,
            reconstruction,
            keep_rate,
            seeds: of_key.len() as u64,
            done: with(Status::Done),
            diverged: with(Status::Diverged),
            not_run: with(Status::NotRun),
            top1: PRUNED_STAGES.map(over),
            published: series.and_then(|s| Some((s, published.figure4.point(s, keep_rate)?))),
        });
    }
    groups
}

/// Mean ± sample standard deviation over seeds per method and keep rate.
pub(super) fn summary(
    study: &StudyRecord,
    lines: &[Line],
    published: &Published,
) -> Result<Table, TableError> {
    let groups = groups(lines, published);
    let mut notes = vec![
        origin(study),
        "Top-1 in per cent: mean ± sample standard deviation over the n seeds that reached the stage; with n = 1 \
         there is no deviation."
            .to_owned(),
        stages_note(study),
    ];
    notes.extend(published_notes(&groups, published));
    Ok(Table {
        name: format!("{}-summary", study.table),
        title: format!("Means over seeds on {}, {}", study.dataset, study.net),
        frame: summary_frame(&groups, published)?,
        grids: summary_grids(&groups, published),
        notes,
        attachments: Vec::new(),
    })
}

fn summary_frame(groups: &[Group], published: &Published) -> Result<DataFrame, TableError> {
    let mut columns = vec![
        column("method", groups, |g| g.method),
        column("selector", groups, |g| g.selector),
        column("reconstruction", groups, |g| g.reconstruction),
        column("keep_rate", groups, |g| g.keep_rate),
        column("seeds", groups, |g| g.seeds),
        column("done", groups, |g| g.done),
        column("diverged", groups, |g| g.diverged),
        column("not_run", groups, |g| g.not_run),
    ];
    for (at, stage) in PRUNED_STAGES.iter().enumerate() {
        let name = |what: &str| format!("{}_top1_{what}", stage.name().replace('-', "_"));
        columns.push(column(&name("mean"), groups, |g| g.top1[at].mean));
        columns.push(column(&name("std"), groups, |g| g.top1[at].std));
        columns.push(column(&name("n"), groups, |g| g.top1[at].n));
    }
    let verified = published.figure4.verified;
    columns.extend([
        column("published_method", groups, |g| g.published.map(|(s, _)| s.name.as_str())),
        column("published_data", groups, |g| g.published.map(|_| published.figure4.data.as_str())),
        column("published_top1", groups, |g| g.published.map(|(_, p)| p.top1.value())),
        column("published_in_paper", groups, |g| g.published.map(|(s, _)| s.in_paper)),
        column("published_suspect", groups, |g| g.published.map(|(_, p)| p.suspect.is_some())),
        column("published_verified", groups, |g| g.published.map(|_| verified)),
    ]);
    Ok(DataFrame::new(groups.len(), columns)?)
}

fn summary_grids(groups: &[Group], published: &Published) -> Vec<Grid> {
    let mut rates: Vec<f64> = Vec::new();
    for group in groups {
        if !rates.contains(&group.keep_rate) {
            rates.push(group.keep_rate);
        }
    }
    let beside = format!("paper, {}, %", published.figure4.data);
    let headings = ["<method", "cut top-1, %", "refit top-1, %", "tuned top-1, %", "<seeds", beside.as_str()];
    let mut grids = Vec::new();
    for rate in rates {
        let mut grid = Grid::new(format!("Keep rate {rate}"), &headings);
        for group in groups.iter().filter(|g| g.keep_rate == rate) {
            let mut row = vec![group.method.to_owned()];
            row.extend(group.top1.iter().map(|over| shown_mean(over, group)));
            row.push(shown_seeds(group));
            row.push(shown_published(group, published.figure4.verified));
            grid.rows.push(row);
        }
        grids.push(grid);
    }
    grids
}

/// `84.10 ± 0.31`; the n of a stage that fewer or more seeds reached than the tuned one stands behind it.
fn shown_mean(over: &Over, group: &Group) -> String {
    let Some(mean) = over.mean else { return group.missing().to_owned() };
    let spread = over.std.map(|std| format!(" ± {std:.2}")).unwrap_or_default();
    let n = if over.n == group.tuned().n { String::new() } else { format!(" (n = {})", over.n) };
    format!("{mean:.2}{spread}{n}")
}

fn shown_seeds(group: &Group) -> String {
    let mut text = format!("n = {}", group.tuned().n);
    for (count, what) in [(group.diverged, "diverged"), (group.not_run, "not run")] {
        if count > 0 {
            text.push_str(&format!(", {count} {what}"));
        }
    }
    text
}

fn shown_published(group: &Group, verified: bool) -> String {
    let Some((series, point)) = group.published else { return String::new() };
    let mut text = point.top1.printed().to_owned();
    for (holds, mark) in
        [(point.suspect.is_some(), " (!)"), (!series.in_paper, " (script)"), (!verified, " (unverified)")]
    {
        if holds {
            text.push_str(mark);
        }
    }
    text
}

/// Where the column of published numbers comes from, and what its marks mean if they occur.
fn published_notes(groups: &[Group], published: &Published) -> Vec<String> {
    let figure = &published.figure4;
    let shown: Vec<(&Series, Point)> = groups.iter().filter_map(|g| g.published).collect();
    if shown.is_empty() {
        return vec![format!(
            "None of these methods and keep rates is in the paper's {} figure.",
            figure.data
        )];
    }
    let mut notes = vec![format!(
        "Paper: top-1 on {}, VGG-16-GAP, first ten convolutions, after fine-tuning (ICCV 2017, figure 4), read in: \
         {}. Another dataset and another net: a description, not a target.",
        figure.data,
        published.source(&figure.source)
    )];
    for (series, point) in &shown {
        if let Some(why) = point.suspect {
            notes.push(format!("(!) {}: {why}; never ranked.", series.name));
        }
    }
    if shown.iter().any(|(series, _)| !series.in_paper) {
        notes.push("(script): in the authors' plotting script, not in the paper's figure.".to_owned());
    }
    if !figure.verified {
        notes.push("(unverified): recalled from the paper, no source opened.".to_owned());
    }
    notes
}

/// Agreement of both orders of methods at one keep rate.
struct Agreement<'a> {
    keep_rate: f64,
    /// Methods that both sides rank.
    methods: Vec<&'a str>,
    /// Methods with a published value that are not ranked, and why.
    left_out: Vec<String>,
    tau: Option<f64>,
}

fn agreements<'a>(groups: &[Group<'a>]) -> Vec<Agreement<'a>> {
    let mut agreements: Vec<Agreement> = Vec::new();
    for group in groups {
        if !agreements.iter().any(|a| a.keep_rate == group.keep_rate) {
            agreements.push(agreement(groups, group.keep_rate));
        }
    }
    agreements
}

fn agreement<'a>(groups: &[Group<'a>], keep_rate: f64) -> Agreement<'a> {
    let (mut methods, mut left_out) = (Vec::new(), Vec::new());
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for group in groups.iter().filter(|g| g.keep_rate == keep_rate) {
        let Some((_, point)) = group.published else { continue };
        match (group.tuned().mean, point.suspect) {
            (_, Some(_)) => left_out.push(format!("{} (suspect)", group.method)),
            (None, None) => left_out.push(format!("{} ({})", group.method, group.missing())),
            (Some(mean), None) => {
                methods.push(group.method);
                ours.push(mean);
                theirs.push(point.top1.value());
            }
        }
    }
    let tau = if methods.len() < 2 { None } else { kendall_tau_b(&ours, &theirs) };
    Agreement { keep_rate, methods, left_out, tau }
}

/// Kendall's tau-b between our order of methods (mean tuned top-1) and the published one, per keep rate.
pub(super) fn tau(study: &StudyRecord, lines: &[Line], published: &Published) -> Result<Table, TableError> {
    let groups = groups(lines, published);
    let agreements = agreements(&groups);
    let headings = ["keep rate", "tau-b", "methods", "<ranked", "<left out"];
    let mut grid = Grid::new("", &headings);
    for a in &agreements {
        let tau = match a.tau {
            Some(tau) => format!("{tau:.3}"),
            None if a.methods.len() < 2 => "too few".to_owned(),
            None => "all tied".to_owned(),
        };
        let count = a.methods.len().to_string();
        grid.rows.push(vec![
            a.keep_rate.to_string(),
            tau,
            count,
            a.methods.join(", "),
            a.left_out.join(", "),
        ]);
    }
    let mut notes = vec![
        origin(study),
        "Kendall's tau-b between the methods' mean tuned top-1 here and their published top-1: 1 is the same order, \
         −1 the reverse. Empty in the files where fewer than two methods are common or one side is all ties."
            .to_owned(),
    ];
    notes.extend(published_notes(&groups, published));
    let columns = vec![
        column("keep_rate", &agreements, |a| a.keep_rate),
        column("tau_b", &agreements, |a| a.tau),
        column("methods", &agreements, |a| a.methods.len() as u64),
        column("ranked", &agreements, |a| a.methods.join("; ")),
        column("left_out", &agreements, |a| a.left_out.join("; ")),
    ];
    Ok(Table {
        name: format!("{}-tau", study.table),
        title: format!(
            "Order of methods on {} against the paper's {} figure",
            study.dataset, published.figure4.data
        ),
        frame: DataFrame::new(agreements.len(), columns)?,
        grids: vec![grid],
        notes,
        attachments: Vec::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tables::sample::study;
    use crate::tables::selectors;

    fn get(table: &Table, column: &str, row: usize) -> Option<f64> {
        table.frame.column(column).unwrap().f64().unwrap().get(row)
    }

    fn row_of(table: &Table, method: &str, rate: f64) -> usize {
        let methods = table.frame.column("method").unwrap().str().unwrap();
        (0..table.frame.height())
            .find(|&r| methods.get(r) == Some(method) && get(table, "keep_rate", r) == Some(rate))
            .unwrap()
    }

    #[test]
    fn means_and_deviations_are_over_the_seeds_that_got_there() {
        let table = selectors(&study()).unwrap().remove(1);
        let n = table.frame.column("after_fine_tune_top1_n").unwrap().u64().unwrap();
        let both = row_of(&table, "thinet + channel-scale", 0.5);
        assert_eq!((get(&table, "after_fine_tune_top1_mean", both), n.get(both)), (Some(90.5), Some(2)));
        let std = get(&table, "after_fine_tune_top1_std", both).unwrap();
        assert!((std - 0.5_f64.sqrt()).abs() < 1e-12, "90 and 91: {std}");
        let single = row_of(&table, "apoz", 0.5);
        assert_eq!(n.get(single), Some(1));
        assert!(get(&table, "after_fine_tune_top1_mean", single).is_some());
        assert_eq!(get(&table, "after_fine_tune_top1_std", single), None);
        let none = row_of(&table, "apoz", 0.25);
        assert_eq!((n.get(none), get(&table, "after_fine_tune_top1_mean", none)), (Some(0), None));
    }

    #[test]
    fn published_values_stand_only_where_method_and_rate_exist() {
        let table = selectors(&study()).unwrap().remove(1);
        let published = |method, rate| get(&table, "published_top1", row_of(&table, method, rate));
        assert_eq!(published("thinet + channel-scale", 0.5), Some(66.90));
        assert_eq!(published("thinet", 0.5), Some(65.65));
        assert_eq!(published("thinet", 0.25), None);
        assert_eq!(published("thinet-omp + channel-scale", 0.5), None);
        let suspect = table.frame.column("published_suspect").unwrap().bool().unwrap();
        assert_eq!(suspect.get(row_of(&table, "random", 0.5)), Some(true));
        assert_eq!(suspect.get(row_of(&table, "thinet", 0.5)), Some(false));
    }

    #[test]
    fn the_suspect_point_is_never_ranked() {
        let table = selectors(&study()).unwrap().remove(2);
        let text = |name: &str| table.frame.column(name).unwrap().str().unwrap().get(0).unwrap().to_owned();
        assert!(!text("ranked").contains("random"), "{}", text("ranked"));
        assert!(text("left_out").contains("random (suspect)"));
        // Ours: with w 90.5 > apoz 89 > without w 88.5; published 66.90, 63.81, 65.65: one of three pairs is turned.
        let tau = get(&table, "tau_b", 0).unwrap();
        assert!((tau - 1.0 / 3.0).abs() < 1e-12, "{tau}");
        assert_eq!(get(&table, "tau_b", 1), None, "the figure has no keep rate 0.25");
    }

    #[test]
    fn unverified_figures_are_labelled() {
        let mut published = Published::load().unwrap();
        published.figure4.verified = false;
        let series = published.figure4.find("thinet", "channel-scale").unwrap();
        let point = published.figure4.point(series, 0.5);
        let group = Group {
            method: "thinet",
            selector: "thinet",
            reconstruction: "channel-scale",
            keep_rate: 0.5,
            seeds: 1,
            done: 1,
            diverged: 0,
            not_run: 0,
            top1: PRUNED_STAGES.map(|_| Over::of(&[90.0])),
            published: point.map(|p| (series, p)),
        };
        assert_eq!(shown_published(&group, published.figure4.verified), "66.90 (unverified)");
        let notes = published_notes(&[group], &published).join("\n");
        assert!(notes.contains("(unverified): recalled"), "{notes}");
    }
}
