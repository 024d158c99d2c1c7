//! Paired differences between the methods of a study over its seeds, with t-intervals and Holm's correction: which differences are
//! more than the noise of seeds.

use polars::frame::DataFrame;
use polars::prelude::Column;
use thinet_metrics::{PairedDifference, sample_std};

use super::comparison::{Comparison, PhaseCells, Place, is_tested, word};
use super::frame::column;
use super::lines::{Line, in_order, phases_shown, variant_column};
use super::markdown::Grid;
use super::notes::origin;
use super::{DRAWS, Table, TableError};
use crate::records::{Phase, StudyRecord};

/// The selectors that every method is compared with; of several methods with one of them, the first.
const REFERENCES: [&str; 2] = ["thinet", "random"];

fn comparisons<'a>(study: &StudyRecord, lines: &[Line<'a>]) -> Vec<Comparison<'a>> {
    let cells: Vec<&Line> = lines.iter().filter(|line| !line.is_dense()).collect();
    let variants = in_order(lines, |l| l.cell.variant.as_deref());
    let methods = in_order(lines, |l| (l.cell.method.as_str(), l.cell.selector.as_str()));
    let methods: Vec<(&str, &str)> =
        methods.into_iter().filter(|(_, selector)| !selector.is_empty()).collect();
    let rates = in_order(lines, |l| l.cell.keep_rate);
    let phases = phases_shown(lines).into_iter().filter(|&phase| phase != Phase::AfterCut);
    let mut all = Vec::new();
    for (phase, &keep_rate) in phases.flat_map(|phase| rates.iter().map(move |rate| (phase, rate))) {
        let here = PhaseCells { cells: &cells, keep_rate, phase };
        for &variant in &variants {
            for reference in REFERENCES {
                let Some(&(against, _)) = methods.iter().find(|(_, selector)| *selector == reference) else {
                    continue;
                };
                let places = methods.iter().map(|(method, _)| (variant, *method));
                all.extend(here.family(places, (variant, against)));
            }
        }
        if let [first, _, ..] = variants[..] {
            let mut compared = variants.clone();
            compared.retain(|name| !is_drawn_again(study, *name));
            for (method, _) in &methods {
                let places = compared.iter().map(|&variant| (variant, *method));
                all.extend(here.family(places, (first, method)));
            }
        }
    }
    all
}

/// Whether a variant only draws the sample of an earlier one again, which is no other treatment.
fn is_drawn_again(study: &StudyRecord, name: Option<&str>) -> bool {
    let Some(at) = study.variants.iter().position(|variant| Some(variant.name.as_str()) == name) else {
        return false;
    };
    let (own, earlier) = (&study.variants[at], &study.variants[..at]);
    earlier.iter().any(|other| other.is_drawn_from_the_sample_of(own) && other.sample.draw != own.sample.draw)
}

/// Paired differences to the first ThiNet method and to random selection, and of variants to the first one; `None` if the study has
/// none of these, or no pair of cells is stored.
pub(super) fn differences(study: &StudyRecord, lines: &[Line]) -> Result<Option<Table>, TableError> {
    let all = comparisons(study, lines);
    if all.iter().all(|c| c.found.is_none()) {
        return Ok(None);
    }
    let found = |c: &Comparison, of: fn(&PairedDifference) -> Option<f64>| c.found.as_ref().and_then(of);
    let mut columns: Vec<Column> =
        variant_column(study, &all, |c| c.variant.map(str::to_owned)).into_iter().collect();
    columns.extend([
        column("keep_rate", &all, |c| c.keep_rate),
        column("stage", &all, |c| c.phase.name()),
        column("method", &all, |c| c.method),
        column("against", &all, |c| c.against.1),
    ]);
    if !study.variants.is_empty() {
        columns.push(column("against_variant", &all, |c| c.against.0));
    }
    columns.extend([
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
    ]);
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
    let mut keys: Vec<(Phase, f64)> = Vec::new();
    for comparison in all {
        if !keys.contains(&(comparison.phase, comparison.keep_rate)) {
            keys.push((comparison.phase, comparison.keep_rate));
        }
    }
    for (phase, rate) in keys {
        let caption = format!("{}, keep rate {rate}", word(phase));
        let of_key = || all.iter().filter(|c| (c.phase, c.keep_rate) == (phase, rate));
        let (methods, variants): (Vec<&Comparison>, Vec<&Comparison>) =
            of_key().partition(|c| c.variant == c.against.0);
        grids.push(grid(caption.clone(), lines, &methods, |c| c.against.1));
        if !variants.is_empty() {
            grids.push(grid(format!("{caption}: variants"), lines, &variants, |c| {
                c.against.0.unwrap_or_default()
            }));
        }
    }
    grids
}

/// A row for each variant and method, two columns for each reference.
fn grid<'a>(
    caption: String,
    lines: &[Line<'a>],
    comparisons: &[&Comparison<'a>],
    reference: impl Fn(&Comparison<'a>) -> &'a str,
) -> Grid {
    let seeds = in_order(lines, |l| l.cell.seed).len();
    let mut references: Vec<&str> = Vec::new();
    for comparison in comparisons {
        if !references.contains(&reference(comparison)) {
            references.push(reference(comparison));
        }
    }
    let places: Vec<Place> = in_order(lines, |l| (l.cell.variant.as_deref(), l.cell.method.as_str()));
    let has_variants = places.iter().any(|(variant, _)| variant.is_some());
    let mut headings: Vec<String> = if has_variants { vec!["<variant".to_owned()] } else { Vec::new() };
    headings.push("<method".to_owned());
    for reference in &references {
        headings.extend([format!("<less {reference}, points"), "<verdict".to_owned()]);
    }
    let headings: Vec<&str> = headings.iter().map(String::as_str).collect();
    let mut grid = Grid::new(caption, &headings);
    for (variant, method) in places {
        let of_place = || comparisons.iter().filter(|c| (c.variant, c.method) == (variant, method));
        if of_place().next().is_none() {
            continue;
        }
        let mut row: Vec<String> = variant.into_iter().chain([method]).map(str::to_owned).collect();
        for wanted in &references {
            row.extend(match of_place().find(|c| reference(c) == *wanted) {
                Some(found) => [found.shown(seeds), found.verdict().name().to_owned()],
                None => [String::new(), String::new()],
            });
        }
        grid.rows.push(row);
    }
    grid
}

fn notes(study: &StudyRecord, lines: &[Line], all: &[Comparison]) -> Vec<String> {
    let mut notes = vec![
        origin(study),
        "Mean difference of top-1 over the seeds that have both, its 95 % t-interval [low, high], and the p-value of the \
         paired t-test, corrected by Holm's method over the methods of a column, not over keep rates and columns; above, \
         below: corrected p under 0.05. Intervals are for each comparison alone, not corrected."
            .to_owned(),
    ];
    if !study.variants.is_empty() {
        notes.push(
            "Methods are compared within a variant. Variants are compared with the first one, method by method, and their p-values \
             corrected over the variants of a method."
                .to_owned(),
        );
    }
    if study.variants.iter().any(|variant| is_drawn_again(study, Some(&variant.name))) {
        notes.push(format!(
            "Variants that only draw the sample of an earlier one again are not compared with the first: {}{DRAWS} has their spread.",
            study.table
        ));
    }
    if lines.iter().any(|line| line.cell.is_allocated()) {
        notes.push(
            "With a global allocation nets of one keep rate have widths of their own and differ in FLOPs; those of one target of \
             FLOPs have no more than it. The main table has what each of them kept."
                .to_owned(),
        );
    }
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
    use crate::records::{CellRecord, DenseRecord};
    use crate::tables::comparison::{LEVEL, Verdict};
    use crate::tables::lines::{lines, with_dense_nets};
    use crate::tables::sample::{set_tuned, study, with_draws};

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
        for cell in study.cells.iter_mut().filter(|cell| cell.keep_rate == 0.5) {
            let seed = cell.seed as f64;
            match cell.method.as_str() {
                "thinet + channel-scale" => set_tuned(cell, 80.0 + seed),
                "random" => set_tuned(cell, 70.0 + 1.001 * seed),
                "thinet-omp + channel-scale" => set_tuned(cell, 80.0 - seed),
                _ => {}
            }
        }
        let all = lines(&study, &study.cells).unwrap();
        let verdict = |method: &str, against: &str| {
            let found = comparisons(&study, &all).into_iter().find(|c| {
                (c.phase, c.keep_rate, c.method) == (Phase::AfterFineTune, 0.5, method)
                    && c.against == (None, against)
            });
            found.unwrap().verdict()
        };
        assert!(verdict("random", "thinet + channel-scale") == Verdict::Below);
        assert!(verdict("thinet + channel-scale", "random") == Verdict::Above);
        assert!(verdict("thinet-omp + channel-scale", "thinet + channel-scale") == Verdict::NotShown);
        assert!(verdict("apoz", "thinet + channel-scale") == Verdict::NotTested);
    }

    #[test]
    fn the_bound_itself_shows_no_difference_and_small_p_values_are_not_printed_as_zero() {
        let with = |differences: &[f64], corrected: f64| Comparison {
            keep_rate: 0.5,
            phase: Phase::AfterFineTune,
            method: "ours",
            variant: None,
            against: (None, "theirs"),
            found: PairedDifference::of(differences, LEVEL),
            corrected: Some(corrected),
            smallest: None,
        };
        let (up, down) = ([1.0, 2.0, 3.0], [-1.0, -2.0, -3.0]);
        assert!(
            with(&up, 0.049).verdict() == Verdict::Above && with(&down, 0.049).verdict() == Verdict::Below
        );
        assert!(
            with(&up, 0.05).verdict() == Verdict::NotShown
                && with(&down, 0.05).verdict() == Verdict::NotShown
        );
        assert!(with(&up, 0.001).shown(3).ends_with("], p 0.001"), "{}", with(&up, 0.001).shown(3));
        assert!(
            with(&up, 0.0009).shown(4).ends_with("], p < 0.001 (n = 3)"),
            "{}",
            with(&up, 0.0009).shown(4)
        );
    }

    #[test]
    fn a_method_is_compared_at_its_own_keep_rates_and_the_dense_net_never() {
        let mut study = StudyRecord { uncut_rates: vec![1.0], ..study() };
        study.cells.retain(|cell| cell.method != "apoz" || cell.keep_rate == 0.5);
        let cells = with_dense_nets(&study);
        let all = lines(&study, &cells).unwrap();
        let found = comparisons(&study, &all);
        let (first, random) = ("thinet + channel-scale", "random");
        let tuned = found.iter().filter(|c| c.phase == Phase::AfterFineTune);
        let tuned: Vec<_> = tuned.map(|c| (c.keep_rate, c.against.1, c.method)).collect();
        let expected = [
            (0.5, first, "thinet"),
            (0.5, first, "thinet-omp + channel-scale"),
            (0.5, first, "apoz"),
            (0.5, first, random),
            (0.5, random, first),
            (0.5, random, "thinet"),
            (0.5, random, "thinet-omp + channel-scale"),
            (0.5, random, "apoz"),
            (0.25, first, "thinet"),
            (0.25, first, "thinet-omp + channel-scale"),
            (0.25, first, random),
            (0.25, random, first),
            (0.25, random, "thinet"),
            (0.25, random, "thinet-omp + channel-scale"),
        ];
        assert_eq!(tuned, expected);
        let grids = grids(&all, &found);
        let grid = grids.iter().find(|grid| grid.markdown().contains("Tuned, keep rate 0.25")).unwrap();
        let methods: Vec<&str> = grid.rows.iter().map(|row| row[0].as_str()).collect();
        assert_eq!(methods, [first, "thinet", "thinet-omp + channel-scale", random]);
    }

    #[test]
    fn the_noise_floor_is_the_spread_of_the_dense_nets() {
        let mut study = study();
        study.dense.push(DenseRecord { seed: 2, ..study.dense[1].clone() });
        let of_seed = study.cells.iter().filter(|cell| cell.seed == 1).cloned();
        let copies: Vec<_> = of_seed.map(|cell| CellRecord { seed: 2, ..cell }).collect();
        study.cells.extend(copies);
        let table = differences(&study, &lines(&study, &study.cells).unwrap()).unwrap().unwrap();
        // Of 91.5, 91.75 and 91.75.
        let floor = "standard deviation of 0.14 points over 3 seeds";
        assert!(table.notes.iter().any(|note| note.contains(floor)), "{:?}", table.notes);
    }

    #[test]
    fn another_draw_of_a_sample_is_not_compared_with_the_first() {
        let of_variants = |study: &StudyRecord| -> Vec<String> {
            let cells = with_dense_nets(study);
            let all = lines(study, &cells).unwrap();
            let mut names: Vec<String> = Vec::new();
            for c in comparisons(study, &all).into_iter().filter(|c| c.variant != c.against.0) {
                let name = c.variant.unwrap().to_owned();
                if !names.contains(&name) {
                    names.push(name);
                }
            }
            names
        };
        let mut study = with_draws();
        assert_eq!(of_variants(&study), ["1 image"]);
        let cells = with_dense_nets(&study);
        let table = differences(&study, &lines(&study, &cells).unwrap()).unwrap().unwrap();
        assert!(
            table.notes.iter().any(|note| note.starts_with("Variants that only draw")),
            "{:?}",
            table.notes
        );
        // A variant of another draw that differs in something else too is another treatment.
        study.variants[1].others = "prune.mode = \"layer-by-layer\"".to_owned();
        assert_eq!(of_variants(&study), ["10 images, draw 1", "1 image"]);
    }
}
