//! Kendall's tau between our order of methods and the one of the paper's CUB-200 figure (Luo et al. 2017, figure 4), per keep rate.

use polars::frame::DataFrame;
use polars::prelude::Column;
use thinet_metrics::kendall_tau_b;

use super::frame::column;
use super::groups::{Group, groups};
use super::lines::{Line, phases_shown, variant_column};
use super::markdown::Grid;
use super::notes::{last_word, origin, published_notes};
use super::{Table, TableError};
use crate::published::Published;
use crate::records::{Phase, StudyRecord};

/// Agreement of both orders of methods at one keep rate in a variant.
struct Agreement<'a> {
    variant: Option<&'a str>,
    keep_rate: f64,
    /// Methods that both sides rank.
    methods: Vec<&'a str>,
    /// Methods with a published value that are not ranked, with the reason.
    left_out: Vec<String>,
    tau: Option<f64>,
}

/// At the last phase that is shown to people.
fn agreements<'a>(groups: &[Group<'a>], phase: Phase) -> Vec<Agreement<'a>> {
    let mut agreements: Vec<Agreement> = Vec::new();
    for group in groups.iter().filter(|group| !group.is_dense()) {
        let (variant, keep_rate) = (group.variant, group.keep_rate);
        if !agreements.iter().any(|a| (a.variant, a.keep_rate) == (variant, keep_rate)) {
            agreements.push(agreement(groups, variant, keep_rate, phase));
        }
    }
    agreements
}

fn agreement<'a>(
    groups: &[Group<'a>],
    variant: Option<&'a str>,
    keep_rate: f64,
    phase: Phase,
) -> Agreement<'a> {
    let (mut methods, mut left_out) = (Vec::new(), Vec::new());
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    let is_here = |g: &&Group| (g.variant, g.keep_rate) == (variant, keep_rate) && !g.is_dense();
    for group in groups.iter().filter(is_here) {
        let Some((_, point)) = group.published else { continue };
        match (group.at(phase).mean, point.suspect) {
            (_, Some(_)) => left_out.push(format!("{} (suspect)", group.method)),
            (None, None) => left_out.push(format!("{} ({})", group.method, group.missing_at(phase))),
            (Some(mean), None) => {
                methods.push(group.method);
                ours.push(mean);
                theirs.push(point.top1.value());
            }
        }
    }
    let tau = if methods.len() < 2 { None } else { kendall_tau_b(&ours, &theirs) };
    Agreement { variant, keep_rate, methods, left_out, tau }
}

/// Kendall's tau-b between our order of methods (mean top-1 after the last phase) and the published one, per keep rate.
pub(super) fn tau(study: &StudyRecord, lines: &[Line], published: &Published) -> Result<Table, TableError> {
    let groups = groups(lines, published);
    let phase = phases_shown(lines).pop().unwrap_or(Phase::AfterFineTune);
    let agreements = agreements(&groups, phase);
    let of_variant: &[&str] = if study.variants.is_empty() { &[] } else { &["<variant"] };
    let headings = ["keep rate", "tau-b", "methods", "<ranked", "<left out"];
    let mut grid = Grid::new("", &[of_variant, &headings].concat());
    for a in &agreements {
        let tau = match a.tau {
            Some(tau) => format!("{tau:.3}"),
            None if a.methods.len() < 2 => "too few".to_owned(),
            None => "all tied".to_owned(),
        };
        let count = a.methods.len().to_string();
        let mut row: Vec<String> = a.variant.map(str::to_owned).into_iter().collect();
        row.extend([a.keep_rate.to_string(), tau, count, a.methods.join(", "), a.left_out.join(", ")]);
        grid.rows.push(row);
    }
    let mut notes = vec![
        origin(study),
        format!(
            "Kendall's tau-b between the methods' mean {} top-1 here and their published top-1: 1 is the same order, \
             −1 the reverse. Empty in the files where fewer than two methods are common or one side is all ties.",
            last_word(lines)
        ),
    ];
    notes.extend(study.left_out());
    notes.extend(published_notes(&groups, published));
    let mut columns: Vec<Column> =
        variant_column(study, &agreements, |a| a.variant.map(str::to_owned)).into_iter().collect();
    columns.extend([
        column("keep_rate", &agreements, |a| a.keep_rate),
        column("tau_b", &agreements, |a| a.tau),
        column("methods", &agreements, |a| a.methods.len() as u64),
        column("ranked", &agreements, |a| a.methods.join("; ")),
        column("left_out", &agreements, |a| a.left_out.join("; ")),
        column("experiment", &agreements, |_| study.name.as_str()),
    ]);
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
    use crate::records::StudyRecord;
    use crate::tables::sample::{set_tuned, study};
    use crate::tables::selectors;

    #[test]
    fn the_suspect_point_is_never_ranked() {
        let table = selectors(&study()).unwrap().remove(2);
        let text = |name: &str| table.frame.column(name).unwrap().str().unwrap().get(0).unwrap().to_owned();
        assert!(!text("ranked").contains("random"), "{}", text("ranked"));
        assert!(text("left_out").contains("random (suspect)"));
        // Ours: with w 90.5 > apoz 89 > without w 88.5; published 66.90, 63.81, 65.65: one of three pairs is turned.
        let tau_b = table.frame.column("tau_b").unwrap().f64().unwrap();
        let tau = tau_b.get(0).unwrap();
        assert!((tau - 1.0 / 3.0).abs() < 1e-12, "{tau}");
        assert_eq!(tau_b.get(1), None, "the figure has no keep rate 0.25");
    }

    #[test]
    fn two_methods_are_enough_and_equal_ones_are_tied() {
        let mut study = study();
        study.cells.retain(|cell| cell.selector == "thinet" && cell.keep_rate == 0.5);
        let tau = |study: &StudyRecord| {
            let table = selectors(study).unwrap().remove(2);
            (table.frame.column("tau_b").unwrap().f64().unwrap().get(0), table.grids[0].rows[0][1].clone())
        };
        assert_eq!(tau(&study), (Some(1.0), "1.000".to_owned()));
        study.cells.iter_mut().for_each(|cell| set_tuned(cell, 90.0));
        assert_eq!(tau(&study), (None, "all tied".to_owned()));
        study.cells.retain(|cell| cell.method == "thinet");
        assert_eq!(tau(&study), (None, "too few".to_owned()));
    }
}
