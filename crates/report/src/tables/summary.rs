//! Means over seeds beside the paper's CUB-200 figure (Luo et al. 2017, figure 4). The figure is another dataset and another net: a
//! description, not a target.

use polars::frame::DataFrame;
use polars::prelude::Column;

use super::asked::AskedColumns;
use super::frame::column;
use super::groups::{Group, SeedStats, groups};
use super::lines::{LEFT_OUT, Line, heading, phases_in_files, phases_shown, tested, variant_column};
use super::markdown::Grid;
use super::notes::{last_word, origin, phases_note, published_notes, test_images, uncut_note, variants_note};
use super::{Table, TableError};
use crate::published::Published;
use crate::records::{Phase, StudyRecord};

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
             n = 1 there is no deviation. Drop: top-1 of a seed's own dense net less its {} top-1.",
            test_images(tested(lines)),
            last_word(lines)
        ),
        phases_note(study, lines),
    ];
    notes.extend(variants_note(study));
    notes.extend(AskedColumns::of(lines).notes());
    notes.extend(uncut_note(study));
    notes.extend(study.left_out());
    notes.extend(published_notes(&groups, published));
    Ok(Table {
        name: format!("{}-summary", study.table),
        title: format!("Means over seeds on {}, {}", study.dataset, study.net),
        frame: summary_frame(study, lines, &groups, published)?,
        grids: summary_grids(study, lines, &groups, published),
        notes,
        attachments: Vec::new(),
    })
}

fn summary_frame(
    study: &StudyRecord,
    lines: &[Line],
    groups: &[Group],
    published: &Published,
) -> Result<DataFrame, TableError> {
    let mut columns: Vec<Column> =
        variant_column(study, groups, |g| g.variant.map(str::to_owned)).into_iter().collect();
    columns.extend([
        column("method", groups, |g| g.method),
        column("selector", groups, |g| g.selector),
        column("reconstruction", groups, |g| g.reconstruction),
        column("keep_rate", groups, |g| g.keep_rate),
        column("seeds", groups, |g| g.seeds),
        column("done", groups, |g| g.done),
        column("diverged", groups, |g| g.diverged),
        column("not_run", groups, |g| g.not_run),
    ]);
    for phase in phases_in_files(lines) {
        let name = |what: &str| format!("{}_top1_{what}", phase.name().replace('-', "_"));
        columns.push(column(&name("mean"), groups, |g| g.at(phase).mean));
        columns.push(column(&name("std"), groups, |g| g.at(phase).std));
        columns.push(column(&name("n"), groups, |g| g.at(phase).n));
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
        column("mode", groups, |g| study.mode_of(g.variant).name()),
        column("params", groups, |g| g.size.map(|size| size.paper.params)),
        column("flops", groups, |g| g.size.map(|size| size.paper.flops)),
        column("params_fraction", groups, |g| g.params_fraction),
        column("flops_fraction", groups, |g| g.got.flops),
    ]);
    let asked = AskedColumns::of(lines);
    if asked.has_targets {
        columns.push(column("flops_target", groups, |g| g.got.flops_target));
    }
    if asked.is_allocated {
        columns.push(column("channels_fraction", groups, |g| g.got.channels));
    }
    columns.extend([
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

fn summary_grids(study: &StudyRecord, lines: &[Line], groups: &[Group], published: &Published) -> Vec<Grid> {
    let mut rates: Vec<f64> = Vec::new();
    for group in groups {
        if !rates.contains(&group.keep_rate) {
            rates.push(group.keep_rate);
        }
    }
    let beside = format!("paper, {}, %", published.figure4.data);
    let phases = phases_shown(lines);
    let last = phases.last().copied().unwrap_or(Phase::AfterFineTune);
    let has_variants = !study.variants.is_empty();
    let of_variant: &[&str] = if has_variants { &["<variant"] } else { &[] };
    let asked = AskedColumns::of(lines);
    let mut headings = [of_variant, &["<method"], &asked.headings()].concat();
    headings.extend(phases.iter().map(|&phase| heading(phase)));
    headings.extend(["drop, points", "<seeds", beside.as_str()]);
    let verified = published.figure4.verified;
    let mut grids = Vec::new();
    for rate in rates {
        let of_rate = || groups.iter().filter(|g| g.keep_rate == rate);
        // The same net in every variant.
        for group in of_rate().filter(|g| g.is_dense()).take(1) {
            let caption = format!("Keep rate {rate}: the dense net");
            let mut grid = Grid::new(caption, &["<net", "top-1, %", "<seeds", beside.as_str()]);
            grid.rows.push(vec![
                group.method.to_owned(),
                shown_mean(&group.dense, group.dense.n, group.missing()),
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
            // The drop is that of the tuned nets where the study has any.
            let n = group.at(group.last_of(&phases)).n;
            let mut row: Vec<String> = group.variant.map(str::to_owned).into_iter().collect();
            row.push(group.method.to_owned());
            row.extend(asked.shown(group.got));
            let of_phases = phases.iter().map(|&phase| (group.at(phase), phase));
            let with_drop = of_phases.chain([(&group.last_drop, last)]);
            row.extend(with_drop.map(|(over, phase)| shown_mean(over, n, group.missing_at(phase))));
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

/// `84.10 ± 0.31`, followed by the number of seeds if it differs from `usual`.
pub(super) fn shown_mean(over: &SeedStats, usual: u64, missing: &str) -> String {
    let Some(mean) = over.mean else { return missing.to_owned() };
    let spread = over.std.map(|std| format!(" ± {std:.2}")).unwrap_or_default();
    let n = if over.n == usual { String::new() } else { format!(" (n = {})", over.n) };
    format!("{mean:.2}{spread}{n}")
}

pub(super) fn shown_seeds(n: u64, group: &Group) -> String {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tables::lines::lines;
    use crate::tables::sample::{study, with_variants};
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
    fn means_and_deviations_are_over_the_seeds_that_reached_the_phase() {
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
    fn variants_that_are_not_tuned_say_so_beside_tuned_ones() {
        let mut study = with_variants();
        for cell in study.cells.iter_mut().filter(|cell| cell.variant.as_deref() == Some("plain")) {
            cell.tuning_steps = Some(0);
            cell.rows.retain(|row| row.phase != Phase::AfterFineTune);
        }
        let [_, summary, tau, ..] = &selectors(&study).unwrap()[..] else {
            panic!("main table, summary and tau")
        };
        let row = |variant: &str| {
            let mut rows = summary.grids[0].rows.iter();
            let row = rows.find(|row| row[0] == variant && row[1] == "thinet").unwrap();
            // After cut, reconstruction and tuning; drop; seeds.
            row[2..7].iter().map(String::as_str).collect::<Vec<_>>()
        };
        assert_eq!(row("plain"), ["38.50 ± 0.71", "43.50 ± 0.71", "not tuned", "not tuned", "n = 2"]);
        // Tuned 88.5 and 89.5625, dense 91.5 and 91.75.
        assert_eq!(row("at once"), ["38.50 ± 0.71", "43.50 ± 0.71", "89.03 ± 0.75", "2.59 ± 0.57", "n = 2"]);
        let ranks: Vec<_> = tau.grids[0].rows.iter().filter(|row| row[0] == "plain").collect();
        assert!(ranks[0][5].contains("thinet (not tuned)"), "{:?}", ranks[0]);
    }

    #[test]
    fn sizes_and_drops_accompany_the_means() {
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
    fn targets_of_flops_stand_beside_the_flops_kept_where_a_study_has_them() {
        let mut study = study();
        assert!(selectors(&study).unwrap().iter().all(|table| table.frame.column("flops_target").is_err()));
        for cell in study.cells.iter_mut().filter(|cell| cell.keep_rate == 0.5) {
            cell.flops_target = Some(0.35);
        }
        let tables = selectors(&study).unwrap();
        for table in &tables[..2] {
            // 1.6 and 0.7 of 5 million multiply-adds.
            for row in 0..table.frame.height() {
                let found = ["keep_rate", "flops_target", "flops_fraction"].map(|name| get(table, name, row));
                let expected = match found[0] {
                    Some(0.5) => [Some(0.5), Some(0.35), Some(0.32)],
                    _ => [Some(0.25), None, Some(0.14)],
                };
                assert_eq!(found, expected, "{} {row}", table.name);
            }
        }
        insta::assert_snapshot!("flops_targets_main", tables[0].markdown());
        insta::assert_snapshot!("flops_targets_summary", tables[1].markdown());
    }

    #[test]
    fn a_global_allocation_has_what_each_net_kept_beside_what_was_asked() {
        let mut study = study();
        let sizes = |params, flops| Some(crate::tables::sample::size(params, flops));
        for cell in study.cells.iter_mut().filter(|cell| cell.keep_rate == 0.5) {
            (cell.channels_fraction, cell.flops_target) = (Some(0.5), Some(0.35));
            // Seeds have other widths.
            cell.size = sizes(120_000 + 1001 * cell.seed, 1_600_000 + 100_000 * cell.seed);
        }
        // Nothing is stored yet.
        for cell in study.cells.iter_mut().filter(|cell| cell.keep_rate == 0.25 && cell.selector == "apoz") {
            cell.size = None;
        }
        let tables = selectors(&study).unwrap();
        let summary = &tables[1];
        let row = row_of(summary, "thinet + channel-scale", 0.5);
        let found =
            ["channels_fraction", "flops_target", "flops_fraction"].map(|name| get(summary, name, row));
        // 1.6 and 1.7 of 5 million multiply-adds.
        assert_eq!(found, [Some(0.5), Some(0.35), Some(0.33)]);
        let params = summary.frame.column("params").unwrap().u64().unwrap();
        assert_eq!(params.get(row), Some(120_501), "120,000 and 121,001 to the nearest whole number");
        assert_eq!(params.get(row_of(summary, "apoz", 0.25)), None);
        insta::assert_snapshot!("allocated_main", tables[0].markdown());
        insta::assert_snapshot!("allocated_summary", summary.markdown());
    }

    #[test]
    fn published_values_are_given_only_where_method_and_rate_exist() {
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
