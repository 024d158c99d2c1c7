//! Paired differences between the methods of a study over its seeds, with t-intervals and Holm's correction: which differences are
//! more than the noise of seeds.

use polars::frame::DataFrame;
use thinet_metrics::{PairedDifference, holm, sample_std};

use super::frame::column;
use super::lines::{Line, in_order, phases_shown};
use super::markdown::Grid;
use super::notes::origin;
use super::{Table, TableError};
use crate::records::{Phase, StudyRecord};

/// Level of the intervals.
const LEVEL: f64 = 0.95;
/// A corrected p-value below this shows a difference.
const BOUND: f64 = 0.05;
/// The selectors that every method is compared with; of several methods with one of them, the first.
const REFERENCES: [&str; 2] = ["thinet", "random"];

/// A method against a reference at one keep rate and phase.
struct Comparison<'a> {
    keep_rate: f64,
    phase: Phase,
    method: &'a str,
    /// The method that it is compared with.
    against: &'a str,
    /// Top-1 of the method less that of the reference, points, over the seeds that have both.
    found: Option<PairedDifference>,
    /// The p-value corrected over the methods at this keep rate and phase.
    corrected: Option<f64>,
    /// The smallest mean difference that would have been shown with this spread, points: at the level of the correction's first step.
    smallest: Option<f64>,
}

/// The verdict on a comparison.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Above,
    Below,
    NotShown,
    /// The difference is the same in all seeds, which leaves no noise to judge it by.
    NoSpread,
    /// Fewer than two seeds.
    NotTested,
}

impl Comparison<'_> {
    fn verdict(&self) -> Verdict {
        match (self.found, self.corrected) {
            (Some(found), Some(p)) if p < BOUND && found.mean > 0.0 => Verdict::Above,
            (Some(_), Some(p)) if p < BOUND => Verdict::Below,
            (Some(found), None) if found.n > 1 && found.mean != 0.0 => Verdict::NoSpread,
            (Some(found), _) if found.n > 1 => Verdict::NotShown,
            _ => Verdict::NotTested,
        }
    }

    /// For a study of so many seeds.
    fn shown(&self, seeds: usize) -> String {
        let Some(found) = self.found else { return "no pair".to_owned() };
        let interval = found.interval().map(|[low, high]| format!(" [{low:+.2}, {high:+.2}]"));
        let p =
            self.corrected.map(|p| if p < 0.001 { ", p < 0.001".to_owned() } else { format!(", p {p:.3}") });
        let n = if found.n == seeds { String::new() } else { format!(" (n = {})", found.n) };
        format!("{:+.2}{}{}{n}", found.mean, interval.unwrap_or_default(), p.unwrap_or_default())
    }
}

impl Verdict {
    fn name(self) -> &'static str {
        match self {
            Self::Above => "above",
            Self::Below => "below",
            Self::NotShown => "no difference shown",
            Self::NoSpread => "the same in all seeds",
            Self::NotTested => "not tested",
        }
    }
}

/// Whether a comparison has the two seeds that a test needs.
fn is_tested(comparison: &Comparison) -> bool {
    comparison.found.is_some_and(|found| found.n > 1)
}

fn comparisons<'a>(lines: &[Line<'a>]) -> Vec<Comparison<'a>> {
    let cells: Vec<&Line> = lines.iter().filter(|line| !line.is_dense()).collect();
    let methods = in_order(lines, |l| (l.cell.method.as_str(), l.cell.selector.as_str()));
    let mut all = Vec::new();
    for phase in phases_shown(lines).into_iter().filter(|&phase| phase != Phase::AfterCut) {
        for keep_rate in in_order(lines, |l| l.cell.keep_rate) {
            for reference in REFERENCES {
                let Some(&(against, _)) = methods.iter().find(|(_, selector)| *selector == reference) else {
                    continue;
                };
                let top1 = |method: &str, seed: u64| {
                    let is_it = |l: &&&Line| {
                        let cell = l.cell;
                        cell.method == method && cell.keep_rate == keep_rate && cell.seed == seed
                    };
                    cells.iter().find(is_it).and_then(|line| line.at(phase).top1)
                };
                let seeds = in_order(lines, |l| l.cell.seed);
                let mut family: Vec<(Comparison, Vec<f64>)> = Vec::new();
                for &(method, selector) in &methods {
                    let is_here =
                        cells.iter().any(|l| l.cell.method == method && l.cell.keep_rate == keep_rate);
                    if method == against || selector.is_empty() || !is_here {
                        continue;
                    }
                    let differences: Vec<f64> = seeds
                        .iter()
                        .filter_map(|&seed| Some(top1(method, seed)? - top1(against, seed)?))
                        .collect();
                    let found = PairedDifference::of(&differences, LEVEL);
                    let comparison = Comparison {
                        keep_rate,
                        phase,
                        method,
                        against,
                        found,
                        corrected: None,
                        smallest: None,
                    };
                    family.push((comparison, differences));
                }
                let p: Vec<Option<f64>> =
                    family.iter().map(|(c, _)| c.found.and_then(|found| found.p)).collect();
                let first_step = 1.0 - BOUND / p.iter().flatten().count().max(1) as f64;
                for ((mut comparison, differences), corrected) in family.into_iter().zip(holm(&p)) {
                    comparison.corrected = corrected;
                    comparison.smallest =
                        PairedDifference::of(&differences, first_step).and_then(|found| found.half_width);
                    all.push(comparison);
                }
            }
        }
    }
    all
}

/// Paired differences to the first ThiNet method and to random selection; `None` if the study has neither, or no pair of cells is
/// stored.
pub(super) fn differences(study: &StudyRecord, lines: &[Line]) -> Result<Option<Table>, TableError> {
    let all = comparisons(lines);
    if all.iter().all(|c| c.found.is_none()) {
        return Ok(None);
    }
    let found = |c: &Comparison, of: fn(&PairedDifference) -> Option<f64>| c.found.as_ref().and_then(of);
    let columns = vec![
        column("keep_rate", &all, |c| c.keep_rate),
        column("stage", &all, |c| c.phase.name()),
        column("method", &all, |c| c.method),
        column("against", &all, |c| c.against),
        column("n", &all, |c| c.found.map_or(0, |found| found.n as u64)),
        column("top1_difference", &all, |c| found(c, |f| Some(f.mean))),
        column("std", &all, |c| found(c, |f| f.std)),
        column("low", &all, |c| found(c, |f| f.interval().map(|[low, _]| low))),
        column("high", &all, |c| found(c, |f| f.interval().map(|[_, high]| high))),
        column("smallest_shown", &all, |c| c.smallest),
        column("p", &all, |c| found(c, |f| f.p)),
        column("p_holm", &all, |c| c.corrected),
        column("verdict", &all, |c| c.verdict().name()),
        column("experiment", &all, |_| study.name.as_str()),
    ];
    Ok(Some(Table {
        name: format!("{}-differences", study.table),
        title: format!("Differences between methods on {}, {}", study.dataset, study.net),
        frame: DataFrame::new(all.len(), columns)?,
        // With one seed there is nothing to read but the note.
        grids: if all.iter().any(is_tested) { grids(lines, &all) } else { Vec::new() },
        notes: notes(study, lines, &all),
        attachments: Vec::new(),
    }))
}

fn grids(lines: &[Line], all: &[Comparison]) -> Vec<Grid> {
    let mut grids = Vec::new();
    let seeds = in_order(lines, |l| l.cell.seed).len();
    let mut keys: Vec<(Phase, f64)> = Vec::new();
    for comparison in all {
        if !keys.contains(&(comparison.phase, comparison.keep_rate)) {
            keys.push((comparison.phase, comparison.keep_rate));
        }
    }
    for (phase, rate) in keys {
        let of_key = || all.iter().filter(|c| (c.phase, c.keep_rate) == (phase, rate));
        let mut references: Vec<&str> = Vec::new();
        for comparison in of_key() {
            if !references.contains(&comparison.against) {
                references.push(comparison.against);
            }
        }
        let methods = in_order(lines, |l| l.cell.method.as_str());
        let methods = methods.into_iter().filter(|method| of_key().any(|c| c.method == *method));
        let mut headings = vec!["<method".to_owned()];
        for reference in &references {
            headings.extend([format!("<less {reference}, points"), "<verdict".to_owned()]);
        }
        let headings: Vec<&str> = headings.iter().map(String::as_str).collect();
        let mut grid = Grid::new(format!("{}, keep rate {rate}", word(phase)), &headings);
        for method in methods {
            let mut row = vec![method.to_owned()];
            for reference in &references {
                let found = of_key().find(|c| c.method == method && c.against == *reference);
                row.extend(match found {
                    Some(found) => [found.shown(seeds), found.verdict().name().to_owned()],
                    None => [String::new(), String::new()],
                });
            }
            grid.rows.push(row);
        }
        grids.push(grid);
    }
    grids
}

fn word(phase: Phase) -> &'static str {
    match phase {
        Phase::Dense => "Dense",
        Phase::AfterCut => "Cut",
        Phase::AfterReconstruction => "Refit",
        Phase::AfterBatchNormEstimate => "BN estimated",
        Phase::AfterFineTune => "Tuned",
    }
}

fn notes(study: &StudyRecord, lines: &[Line], all: &[Comparison]) -> Vec<String> {
    let mut notes = vec![
        origin(study),
        "Mean difference of top-1 over the seeds that have both, its 95 % t-interval [low, high], and the p-value of the \
         paired t-test, corrected by Holm's method over the methods of a column, not over keep rates and columns; above, \
         below: corrected p under 0.05. Intervals are for each comparison alone, not corrected."
            .to_owned(),
    ];
    let largest = all.iter().filter_map(|c| c.smallest).max_by(f64::total_cmp);
    if let Some(largest) = largest {
        notes.push(format!(
            "No difference shown does not mean no difference: with these seeds an observed difference below `smallest_shown` (up \
             to {largest:.2} points) is not shown, and true ones somewhat larger can be missed."
        ));
    }
    if !all.iter().any(is_tested) {
        let advice = match study.dense.len() {
            0 | 1 => {
                "One seed has no noise to compare with: no difference can be shown or excluded. `--seeds 3` or more gives \
                      intervals."
            }
            _ => "No comparison has two seeds yet: no difference can be shown or excluded.",
        };
        notes.push(advice.to_owned());
    }
    let mut dense: Vec<f64> = Vec::new();
    for record in study.dense.iter().filter(|record| record.unfit.is_none()) {
        let of_seed = lines.iter().find(|line| line.dense.seed == record.seed);
        dense.extend(of_seed.and_then(|line| line.dense_quality.top1));
    }
    if let Some(std) = sample_std(&dense) {
        notes.push(format!(
            "Noise floor: the dense nets' top-1 has a standard deviation of {std:.2} points over {} seeds.",
            dense.len()
        ));
    }
    notes.extend(study.left_out());
    notes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tables::lines::lines;
    use crate::tables::sample::study;

    #[test]
    fn the_markdown_is_pinned() {
        let study = study();
        let table = differences(&study, &lines(&study, &study.cells).unwrap()).unwrap().unwrap();
        insta::assert_snapshot!("differences", table.markdown());
    }

    #[test]
    fn one_seed_says_that_it_cannot_tell() {
        let mut study = study();
        study.cells.retain(|cell| cell.seed == 0);
        study.dense.retain(|dense| dense.seed == 0);
        let table = differences(&study, &lines(&study, &study.cells).unwrap()).unwrap().unwrap();
        assert!(table.grids.is_empty() && table.markdown().contains("One seed has no noise"));
        let p = table.frame.column("p").unwrap().f64().unwrap();
        assert!(p.iter().all(|p| p.is_none()));
    }

    #[test]
    fn a_study_without_thinet_and_random_has_no_such_table() {
        let mut study = study();
        study.cells.retain(|cell| cell.selector == "apoz");
        assert!(differences(&study, &lines(&study, &study.cells).unwrap()).unwrap().is_none());
    }

    #[test]
    fn clear_differences_are_shown_and_the_others_not() {
        let mut study = study();
        let tuned = |cell: &mut crate::records::CellRecord, top1: f64| {
            for row in &mut cell.rows {
                if (row.phase, row.metric) == (Phase::AfterFineTune, crate::records::Metric::Top1) {
                    row.value = top1;
                }
            }
        };
        for cell in study.cells.iter_mut().filter(|cell| cell.keep_rate == 0.5) {
            let seed = cell.seed as f64;
            match cell.method.as_str() {
                "thinet + channel-scale" => tuned(cell, 80.0 + seed),
                "random" => tuned(cell, 70.0 + 1.001 * seed),
                "thinet-omp + channel-scale" => tuned(cell, 80.0 - seed),
                _ => {}
            }
        }
        let all = lines(&study, &study.cells).unwrap();
        let verdict = |method: &str| {
            let found = comparisons(&all).into_iter().find(|c| {
                (c.phase, c.keep_rate, c.method) == (Phase::AfterFineTune, 0.5, method)
                    && c.against == "thinet + channel-scale"
            });
            found.unwrap().verdict()
        };
        assert!(verdict("random") == Verdict::Below);
        assert!(verdict("thinet-omp + channel-scale") == Verdict::NotShown);
        assert!(verdict("apoz") == Verdict::NotTested);
    }
}
