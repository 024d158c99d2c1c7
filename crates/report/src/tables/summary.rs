//! Means over seeds beside the paper's CUB-200 figure, and Kendall's tau between both orders of methods (Luo et al.
//! 2017, figure 4). The figure is another dataset and another net: a description, not a target.

use polars::frame::DataFrame;
use thinet_metrics::{kendall_tau_b, mean, sample_std};

use super::frame::column;
use super::lines::{LEFT_OUT, Line, PRUNED_PHASES, in_order, test_images, tested};
use super::markdown::Grid;
use super::selectors::{origin, sizes, stages_note, uncut_note};
use super::{Table, TableError};
use crate::published::{Point, Published, Series};
use crate::records::{Size, Status, StudyRecord};

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
    /// Of these, seeds whose dense net is unfit for pruning.
    left_out: u64,
    /// Top-1, one per phase of [`PRUNED_PHASES`].
    top1: [Over; 3],
    /// Top-1 of the dense nets of its seeds.
    dense: Over,
    /// Top-1 of a seed's dense net less its tuned top-1, points.
    drop: Over,
    size: Size,
    params_fraction: f64,
    flops_fraction: f64,
    /// The fewest test images of a seed.
    test_images: Option<u64>,
    /// The sizes in words.
    sizes: String,
    published: Option<(&'a Series, Point<'a>)>,
}

impl Group<'_> {
    fn tuned(&self) -> &Over {
        &self.top1[2]
    }

    /// Whether it stands for the dense nets themselves, at a keep rate that cuts nothing.
    fn is_dense(&self) -> bool {
        self.selector.is_empty()
    }

    /// Why no value exists, for people.
    fn missing(&self) -> &'static str {
        match (self.done, self.diverged) {
            (1.., _) => "not measured",
            (0, 1..) => "diverged",
            (0, 0) if self.left_out == self.seeds => LEFT_OUT,
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
        let over = |phase| {
            let values: Vec<f64> = of_key.iter().filter_map(|l| l.at(phase).top1).collect();
            Over::of(&values)
        };
        let cell = of_key[0].cell;
        let (selector, reconstruction) = (cell.selector.as_str(), cell.reconstruction.as_str());
        let series = match of_key[0].is_dense() {
            true => published.figure4.series_of_dense(keep_rate),
            false => published.figure4.find(selector, reconstruction),
        };
        let some = |value: &dyn Fn(&Line) -> Option<f64>| {
            Over::of(&of_key.iter().filter_map(|line| value(line)).collect::<Vec<_>>())
        };
        groups.push(Group {
            method,
            selector,
            reconstruction,
            keep_rate,
            seeds: of_key.len() as u64,
            done: with(Status::Done),
            diverged: with(Status::Diverged),
            not_run: with(Status::NotRun),
            left_out: of_key.iter().filter(|line| line.is_left_out()).count() as u64,
            top1: PRUNED_PHASES.map(over),
            dense: some(&|line| line.dense_quality.top1.filter(|_| line.dense.unfit.is_none())),
            drop: some(&|line| line.drop()),
            size: cell.size,
            params_fraction: of_key[0].params_fraction(),
            flops_fraction: of_key[0].flops_fraction(),
            test_images: of_key.iter().filter_map(|line| line.cell.test_images).min(),
            sizes: sizes(&of_key),
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
        format!(
            "Top-1 in per cent of the {}: mean ± sample standard deviation over the n seeds that reached the stage; with \
             n = 1 there is no deviation. Drop: top-1 of a seed's own dense net less its tuned top-1.",
            test_images(tested(lines))
        ),
        stages_note(study),
    ];
    if !study.uncut_rates.is_empty() {
        notes.push(uncut_note(study));
    }
    notes.extend(study.left_out());
    notes.extend(published_notes(&groups, published));
    Ok(Table {
        name: format!("{}-summary", study.table),
        title: format!("Means over seeds on {}, {}", study.dataset, study.net),
        frame: summary_frame(study, &groups, published)?,
        grids: summary_grids(&groups, published),
        notes,
        attachments: Vec::new(),
    })
}

fn summary_frame(
    study: &StudyRecord,
    groups: &[Group],
    published: &Published,
) -> Result<DataFrame, TableError> {
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
    for (at, phase) in PRUNED_PHASES.iter().enumerate() {
        let name = |what: &str| format!("{}_top1_{what}", phase.name().replace('-', "_"));
        columns.push(column(&name("mean"), groups, |g| g.top1[at].mean));
        columns.push(column(&name("std"), groups, |g| g.top1[at].std));
        columns.push(column(&name("n"), groups, |g| g.top1[at].n));
    }
    let verified = published.figure4.verified;
    columns.extend([
        column("published_method", groups, |g| {
            g.published.map(|(s, _)| if g.is_dense() { g.method } else { s.name.as_str() })
        }),
        column("published_data", groups, |g| g.published.map(|_| published.figure4.data.as_str())),
        column("published_top1", groups, |g| g.published.map(|(_, p)| p.top1.value())),
        column("published_in_paper", groups, |g| g.published.map(|(s, _)| s.in_paper)),
        column("published_suspect", groups, |g| g.published.map(|(_, p)| p.suspect.is_some())),
        column("published_verified", groups, |g| g.published.map(|_| verified)),
        column("experiment", groups, |_| study.name.as_str()),
        column("dataset", groups, |_| study.dataset.as_str()),
        column("net", groups, |_| study.net.as_str()),
        column("mode", groups, |_| study.mode.as_str()),
        column("params", groups, |g| g.size.paper.params),
        column("flops", groups, |g| g.size.paper.flops),
        column("params_fraction", groups, |g| g.params_fraction),
        column("flops_fraction", groups, |g| g.flops_fraction),
        column("dense_top1_mean", groups, |g| g.dense.mean),
        column("dense_top1_std", groups, |g| g.dense.std),
        column("dense_top1_n", groups, |g| g.dense.n),
        column("top1_drop_mean", groups, |g| g.drop.mean),
        column("top1_drop_std", groups, |g| g.drop.std),
        column("top1_drop_n", groups, |g| g.drop.n),
        column("test_images", groups, |g| g.test_images),
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
    let headings = [
        "<method",
        "cut top-1, %",
        "refit top-1, %",
        "tuned top-1, %",
        "drop, points",
        "<seeds",
        beside.as_str(),
    ];
    let verified = published.figure4.verified;
    let mut grids = Vec::new();
    for rate in rates {
        let of_rate = || groups.iter().filter(|g| g.keep_rate == rate);
        for group in of_rate().filter(|g| g.is_dense()) {
            let caption = format!("Keep rate {rate}: the dense net");
            let mut grid = Grid::new(caption, &["<net", "top-1, %", "<seeds", beside.as_str()]);
            grid.rows.push(vec![
                group.method.to_owned(),
                shown_mean(&group.dense, group.dense.n, group),
                shown_seeds(group.dense.n, group),
                shown_published(group, verified),
            ]);
            grids.push(grid);
        }
        let mut sizes: Vec<&str> = Vec::new();
        for group in of_rate().filter(|g| !g.is_dense()) {
            if !sizes.contains(&group.sizes.as_str()) {
                sizes.push(&group.sizes);
            }
        }
        let mut grid = Grid::new(format!("Keep rate {rate}: {}", sizes.join("; ")), &headings);
        for group in of_rate().filter(|g| !g.is_dense()) {
            let n = group.tuned().n;
            let mut row = vec![group.method.to_owned()];
            row.extend(group.top1.iter().chain([&group.drop]).map(|over| shown_mean(over, n, group)));
            row.push(shown_seeds(n, group));
            row.push(shown_published(group, verified));
            grid.rows.push(row);
        }
        if !grid.rows.is_empty() {
            grids.push(grid);
        }
    }
    grids
}

/// `84.10 ± 0.31`; a number of seeds that is not the `usual` one stands behind it.
fn shown_mean(over: &Over, usual: u64, group: &Group) -> String {
    let Some(mean) = over.mean else { return group.missing().to_owned() };
    let spread = over.std.map(|std| format!(" ± {std:.2}")).unwrap_or_default();
    let n = if over.n == usual { String::new() } else { format!(" (n = {})", over.n) };
    format!("{mean:.2}{spread}{n}")
}

fn shown_seeds(n: u64, group: &Group) -> String {
    let mut text = format!("n = {n}");
    for (count, what) in [
        (group.diverged, "diverged"),
        (group.not_run - group.left_out, "not run"),
        (group.left_out, LEFT_OUT),
    ] {
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
    for group in groups.iter().filter(|group| !group.is_dense()) {
        if !agreements.iter().any(|a| a.keep_rate == group.keep_rate) {
            agreements.push(agreement(groups, group.keep_rate));
        }
    }
    agreements
}

fn agreement<'a>(groups: &[Group<'a>], keep_rate: f64) -> Agreement<'a> {
    let (mut methods, mut left_out) = (Vec::new(), Vec::new());
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for group in groups.iter().filter(|g| g.keep_rate == keep_rate && !g.is_dense()) {
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
    notes.extend(study.left_out());
    notes.extend(published_notes(&groups, published));
    let columns = vec![
        column("keep_rate", &agreements, |a| a.keep_rate),
        column("tau_b", &agreements, |a| a.tau),
        column("methods", &agreements, |a| a.methods.len() as u64),
        column("ranked", &agreements, |a| a.methods.join("; ")),
        column("left_out", &agreements, |a| a.left_out.join("; ")),
        column("experiment", &agreements, |_| study.name.as_str()),
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
    use crate::tables::lines::lines;
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
    fn sizes_and_drops_stand_beside_the_means() {
        let table = selectors(&study()).unwrap().remove(1);
        let row = row_of(&table, "thinet + channel-scale", 0.5);
        // Dense 91.5 and 91.75, tuned 90 and 91.
        let value = |name: &str| get(&table, name, row).unwrap();
        assert_eq!((value("dense_top1_mean"), value("top1_drop_mean")), (91.625, 1.125));
        assert!((value("top1_drop_std") - 0.75 / 2.0_f64.sqrt()).abs() < 1e-12, "1.5 and 0.75");
        assert_eq!((value("params_fraction"), value("flops_fraction")), (0.4, 0.32));
        // One seed of two reached the end: the drop is that seed's alone.
        let apoz = row_of(&table, "apoz", 0.5);
        assert_eq!(
            (get(&table, "top1_drop_mean", apoz), get(&table, "top1_drop_std", apoz)),
            (Some(2.5), None)
        );
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
        let study = study();
        let lines = lines(&study, &study.cells).unwrap();
        let groups = groups(&lines, &published);
        let is_thinet = |g: &&Group| g.method == "thinet + channel-scale" && g.keep_rate == 0.5;
        let group = groups.iter().find(is_thinet).unwrap();
        assert_eq!(shown_published(group, false), "66.90 (unverified)");
        let notes = published_notes(&groups, &published).join("\n");
        assert!(notes.contains("(unverified): recalled"), "{notes}");
    }
}
