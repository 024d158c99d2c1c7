//! One method of a study against each of the others, over seeds: is it better, worse, or is no difference shown?

use polars::frame::DataFrame;
use thinet_metrics::seeds_to_show;

use super::comparison::{BOUND, Comparison, LEVEL, PhaseCells, Verdict, is_tested, word};
use super::frame::column;
use super::lines::{Line, in_order, lines, phases_shown, variant_column};
use super::markdown::{Grid, short_count};
use super::notes::origin;
use super::{Attachment, Table, TableError};
use crate::records::{CellRecord, Phase, StudyRecord};

/// Suffix of the name of the table.
pub const VERDICT: &str = "-verdict";
/// The difference for which seeds are counted, points.
const WORTH_SHOWING: f64 = 0.5;

/// A comparison with the FLOPs that both nets have.
struct CostedComparison<'a> {
    found: Comparison<'a>,
    flops: u64,
    /// The target of FLOPs that both meet with widths of their own, of a global allocation.
    target: Option<f64>,
    /// FLOPs over those of the dense net.
    fraction: f64,
    /// Seeds that would show half a point with this spread.
    seeds: Option<usize>,
}

/// The method of this label against every other method of the study, at the same keep rate, variant and FLOPs; before tuning, after tuning, and
/// with estimated batch-norm statistics where these were measured. P-values are corrected over the other methods.
///
/// # Errors
/// If a record holds a value twice, or the table cannot be built.
pub fn verdict(study: &StudyRecord, method: &str) -> Result<Table, TableError> {
    let lines = lines(study, &study.cells)?;
    let all = judged(&lines, method);
    let found = |j: &CostedComparison, of: fn(&thinet_metrics::PairedDifference) -> Option<f64>| {
        j.found.found.as_ref().and_then(of)
    };
    let mut columns: Vec<_> =
        variant_column(study, &all, |j| j.found.variant.map(str::to_owned)).into_iter().collect();
    columns.extend([
        column("keep_rate", &all, |j| j.found.keep_rate),
        column("stage", &all, |j| j.found.phase.name()),
        column("method", &all, |j| j.found.method),
        column("against", &all, |j| j.found.against.1),
        column("flops", &all, |j| j.flops),
        column("flops_fraction", &all, |j| j.fraction),
        column("n", &all, |j| j.found.found.map_or(0, |found| found.n as u64)),
        column("top1_difference", &all, |j| found(j, |f| Some(f.mean))),
        column("std", &all, |j| found(j, |f| f.std)),
        column("low", &all, |j| found(j, |f| f.interval().map(|[low, _]| low))),
        column("high", &all, |j| found(j, |f| f.interval().map(|[_, high]| high))),
        column("p", &all, |j| found(j, |f| f.p)),
        column("p_holm", &all, |j| j.found.corrected),
        column("verdict", &all, |j| j.found.verdict().name()),
        column("seeds_for_half_a_point", &all, |j| j.seeds.map(|seeds| seeds as u64)),
        column("experiment", &all, |_| study.name.as_str()),
    ]);
    let mut table = Table {
        name: format!("{}{VERDICT}", study.table),
        title: format!("{method} against the other methods on {}, {}", study.dataset, study.net),
        frame: DataFrame::new(all.len(), columns)?,
        grids: std::iter::once(short_grid(&all)).chain(grids(&lines, &all)).collect(),
        notes: notes(study, &all),
        attachments: Vec::new(),
    };
    let rows = serde_json::to_string_pretty(&table.rows()?)?;
    table.attachments.push(Attachment { suffix: "json", text: rows + "\n" });
    Ok(table)
}

fn judged<'a>(lines: &[Line<'a>], method: &str) -> Vec<CostedComparison<'a>> {
    let cells: Vec<&Line> = lines.iter().filter(|line| !line.is_dense()).collect();
    let methods = in_order(lines, |l| l.cell.method.as_str());
    let Some(&method) = methods.iter().find(|name| **name == method) else { return Vec::new() };
    let (variants, rates) =
        (in_order(lines, |l| l.cell.variant.as_deref()), in_order(lines, |l| l.cell.keep_rate));
    let mut all = Vec::new();
    // A cut that is not refitted yet is no net that anybody would use.
    for phase in phases_shown(lines).into_iter().filter(|&phase| phase != Phase::AfterCut) {
        for &keep_rate in &rates {
            let here = PhaseCells { cells: &cells, keep_rate, phase };
            for &variant in &variants {
                let Some(own) = here.at((variant, method)).next() else { continue };
                let (Some(size), Some(fraction)) = (own.cell.size, own.flops_fraction()) else { continue };
                let has_its_cost = |other: &&&str| {
                    here.at((variant, **other)).next().is_some_and(|line| is_of_cost(own.cell, line.cell))
                };
                let others = methods.iter().filter(has_its_cost).map(|other| (variant, *other));
                for found in here.family(others, (variant, method)) {
                    // Without a spread there is nothing to count from.
                    let std =
                        found.found.filter(|found| found.half_width.is_some()).and_then(|found| found.std);
                    let seeds = std.and_then(|std| seeds_to_show(std, WORTH_SHOWING, LEVEL));
                    all.push(CostedComparison {
                        found: found.turned(),
                        flops: size.paper.flops,
                        target: own.cell.flops_target.filter(|_| own.cell.is_allocated()),
                        fraction,
                        seeds,
                    });
                }
            }
        }
    }
    all
}

/// Whether two cells cost the same: the same FLOPs, or with a global allocation the same target of FLOPs.
fn is_of_cost(own: &CellRecord, other: &CellRecord) -> bool {
    if own.is_allocated() || other.is_allocated() {
        return own.flops_target.is_some() && own.flops_target == other.flops_target;
    }
    own.size.map(|size| size.paper.flops) == other.size.map(|size| size.paper.flops)
}

/// A row for each other method, and a column for each phase: at which keep rates the method is above or below.
fn short_grid(all: &[CostedComparison]) -> Grid {
    let phases = distinct(all, |j| j.found.phase);
    let mut headings = vec!["<against".to_owned()];
    headings.extend(phases.iter().map(|&phase| format!("<{}", when(phase))));
    let headings: Vec<&str> = headings.iter().map(String::as_str).collect();
    let mut grid = Grid::new("In short".to_owned(), &headings);
    for against in distinct(all, |j| j.found.against) {
        let mut row = vec![place(against)];
        for &phase in &phases {
            let here = || all.iter().filter(|j| (j.found.against, j.found.phase) == (against, phase));
            let mut parts: Vec<String> = Vec::new();
            for verdict in
                [Verdict::Above, Verdict::Below, Verdict::NotShown, Verdict::NoSpread, Verdict::NotTested]
            {
                let rates: Vec<String> = here()
                    .filter(|j| j.found.verdict() == verdict)
                    .map(|j| j.found.keep_rate.to_string())
                    .collect();
                if !rates.is_empty() {
                    parts.push(format!("{} at {}", verdict.name(), rates.join(", ")));
                }
            }
            row.push(parts.join("; "));
        }
        grid.rows.push(row);
    }
    grid
}

fn grids(lines: &[Line], all: &[CostedComparison]) -> Vec<Grid> {
    let seeds = in_order(lines, |l| l.cell.seed).len();
    let mut grids = Vec::new();
    for (phase, variant, rate) in distinct(all, |j| (j.found.phase, j.found.variant, j.found.keep_rate)) {
        let here: Vec<&CostedComparison> = all
            .iter()
            .filter(|j| (j.found.phase, j.found.variant, j.found.keep_rate) == (phase, variant, rate))
            .collect();
        let variant = variant.map(|variant| format!(", {variant}")).unwrap_or_default();
        let flops = short_count(here[0].flops);
        let percent = 100.0 * here[0].fraction;
        let cost = match here[0].target {
            Some(target) => format!("at most {:.1} % of the dense net's FLOPs each", 100.0 * target),
            None => format!("{flops} FLOPs each, {percent:.1} % of the dense net's"),
        };
        let caption = format!("{}{variant}, keep rate {rate}: {cost}", word(phase));
        let headings = ["<against", "<difference, points", "<verdict", "seeds for half a point"];
        let mut grid = Grid::new(caption, &headings);
        for judged in here {
            let seeds_needed = judged.seeds.map_or_else(String::new, |seeds| seeds.to_string());
            let (shown, verdict) = (judged.found.shown(seeds), judged.found.verdict().name().to_owned());
            grid.rows.push(vec![judged.found.against.1.to_owned(), shown, verdict, seeds_needed]);
        }
        grids.push(grid);
    }
    grids
}

fn notes(study: &StudyRecord, all: &[CostedComparison]) -> Vec<String> {
    let is_allocated = study.cells.iter().any(CellRecord::is_allocated);
    let same = match is_allocated {
        true => {
            "Without a global allocation both nets have the same widths, so the same FLOPs and parameters. With one, nets are \
             compared that meet the same target of FLOPs (`prune.flops`), each with widths of its own; those of a keep rate differ in \
             FLOPs and are not."
        }
        false => "Both nets have the same widths, so the same FLOPs and parameters.",
    };
    let mut notes = vec![
        origin(study),
        format!(
            "Difference: mean of the method's top-1 less that of the other over the seeds that have both, its 95 % t-interval [low, \
             high], and the p-value of the paired t-test, corrected by Holm's method over the other methods at a keep rate; above, \
             below: corrected p under {BOUND}. {same}"
        ),
        format!(
            "Seeds for half a point: with the spread of these differences so many seeds would show a difference of {WORTH_SHOWING} \
             points at the level of 95 %, not corrected. An estimate from few seeds is rough."
        ),
    ];
    if all.iter().any(|j| j.found.verdict() == Verdict::NotShown) {
        notes.push(
            "No difference shown does not mean no difference: it can be smaller than the noise of the seeds."
                .to_owned(),
        );
    }
    if !all.iter().any(|j| is_tested(&j.found)) {
        notes.push("No comparison has two seeds: no difference can be shown or excluded.".to_owned());
    }
    notes.extend(study.left_out());
    notes
}

fn when(phase: Phase) -> &'static str {
    match phase {
        Phase::Dense => "dense",
        Phase::AfterCut => "cut",
        Phase::AfterReconstruction => "before tuning",
        Phase::AfterBatchNormEstimate => "batch norm estimated",
        Phase::AfterFineTune => "after tuning",
    }
}

fn place((variant, method): (Option<&str>, &str)) -> String {
    variant.map_or_else(|| method.to_owned(), |variant| format!("{method} ({variant})"))
}

/// The values of a key in the order of their first appearance.
fn distinct<'a, 'l, K: PartialEq>(
    all: &'l [CostedComparison<'a>],
    key: impl Fn(&'l CostedComparison<'a>) -> K,
) -> Vec<K> {
    let mut keys = Vec::new();
    for judged in all {
        let key = key(judged);
        if !keys.contains(&key) {
            keys.push(key);
        }
    }
    keys
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tables::sample::{set_tuned, study};

    /// The sample with a third seed and three methods, whose tuned top-1 differ by these numbers from `thinet`'s.
    fn sample(apoz: [f64; 3], random: [f64; 3]) -> StudyRecord {
        let mut study = study();
        study.cells.retain(|cell| {
            cell.keep_rate == 0.5 && ["thinet", "apoz", "random"].contains(&cell.method.as_str())
        });
        let third: Vec<_> = study.cells.iter().filter(|cell| cell.seed == 0).cloned().collect();
        study.cells.extend(third.into_iter().map(|cell| crate::records::CellRecord { seed: 2, ..cell }));
        study.dense.push(crate::records::DenseRecord { seed: 2, ..study.dense[0].clone() });
        for cell in &mut study.cells {
            let rows = crate::tables::sample::tuned_rows(80.0 + cell.seed as f64);
            cell.rows = rows;
            cell.status = crate::records::Status::Done;
            let seed = cell.seed as usize;
            match cell.method.as_str() {
                "apoz" => set_tuned(cell, 80.0 + cell.seed as f64 + apoz[seed]),
                "random" => set_tuned(cell, 80.0 + cell.seed as f64 + random[seed]),
                _ => {}
            }
        }
        study
    }

    #[test]
    fn the_markdown_is_pinned() {
        let table = verdict(&sample([-5.0, -5.1, -5.2], [0.3, -0.4, 0.2]), "thinet").unwrap();
        insta::assert_snapshot!("verdict", table.markdown());
    }

    #[test]
    fn differences_are_those_of_the_method_less_the_others() {
        let table = verdict(&sample([-5.0, -5.1, -5.2], [0.3, -0.4, 0.2]), "thinet").unwrap();
        let rows = table.rows().unwrap();
        let of = |against: &str| {
            rows.iter().find(|row| row["against"] == against && row["stage"] == "after-fine-tune").unwrap()
        };
        assert!((of("apoz")["top1_difference"].as_f64().unwrap() - 5.1).abs() < 1e-9);
        assert_eq!(of("apoz")["verdict"], "above");
        assert!(of("apoz")["low"].as_f64().unwrap() < 5.1 && of("apoz")["high"].as_f64().unwrap() > 5.1);
        assert_eq!(of("random")["verdict"], "no difference shown");
        // The other way round the same numbers have the other sign.
        let other = verdict(&sample([-5.0, -5.1, -5.2], [0.3, -0.4, 0.2]), "apoz").unwrap().rows().unwrap();
        let other =
            other.iter().find(|row| row["against"] == "thinet" && row["stage"] == "after-fine-tune").unwrap();
        assert!((other["top1_difference"].as_f64().unwrap() + 5.1).abs() < 1e-9);
        assert_eq!(other["verdict"], "below");
    }

    #[test]
    fn nets_of_other_flops_are_not_compared() {
        let mut study = sample([1.0, 1.1, 1.2], [0.0, 0.1, 0.2]);
        for cell in study.cells.iter_mut().filter(|cell| cell.method == "apoz") {
            cell.size.as_mut().unwrap().paper.flops += 2;
        }
        let rows = verdict(&study, "thinet").unwrap().rows().unwrap();
        assert!(!rows.is_empty() && rows.iter().all(|row| row["against"] == "random"), "{rows:?}");
    }

    #[test]
    fn nets_of_a_global_allocation_are_compared_at_the_same_target_of_flops_alone() {
        let mut study = sample([1.0, 1.1, 1.2], [0.0, 0.1, 0.2]);
        for cell in &mut study.cells {
            cell.channels_fraction = Some(0.5);
        }
        assert_eq!(verdict(&study, "thinet").unwrap().rows().unwrap().len(), 0);
        for (i, cell) in study.cells.iter_mut().enumerate() {
            cell.flops_target = Some(0.5);
            cell.size.as_mut().unwrap().paper.flops += i as u64;
        }
        let table = verdict(&study, "thinet").unwrap();
        let rows = table.rows().unwrap();
        let is_against = |name: &str| rows.iter().any(|row| row["against"] == name);
        assert!(is_against("apoz") && is_against("random"), "{rows:?}");
        let text = table.markdown();
        assert!(text.contains("at most 50.0 % of the dense net's FLOPs each"), "{text}");
        assert!(text.contains("each with widths of its own"), "{text}");
    }
}
