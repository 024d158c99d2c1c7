//! What a pruning study should report, asked by Blalock et al. 2020 ("What is the State of Neural Network Pruning?"), Wang et al. 2023
//! ("Why is the State of Neural Network Pruning so Confusing?") and PruningBench (2024), and answered from a study's records.

use polars::frame::DataFrame;

use super::frame::column;
use super::groups::Group;
use super::lines::{Line, phases_shown, status_name};
use super::markdown::{Grid, grouped};
use super::notes::{origin, test_images};
use super::{CHECKLIST, Table, TableError};
use crate::records::{FROM_SCRATCH, Phase, Status, StudyRecord};

/// Operating points that Blalock et al. 2020 ask for.
const OPERATING_POINTS: usize = 5;
/// Seeds below which a deviation says little.
const SEEDS: u64 = 3;

const STATE: &str = "Blalock et al. 2020";
const CONFUSING: &str = "Wang et al. 2023";
const BENCH: &str = "PruningBench";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Yes,
    Partly,
    No,
}

impl Answer {
    fn name(self) -> &'static str {
        match self {
            Self::Yes => "yes",
            Self::Partly => "partly",
            Self::No => "no",
        }
    }

    /// Yes if all of `of` are, no if none is.
    fn of(count: usize, of: usize) -> Self {
        match count {
            0 => Self::No,
            count if count == of => Self::Yes,
            _ => Self::Partly,
        }
    }
}

struct Item {
    question: &'static str,
    asked_by: String,
    answer: Answer,
    evidence: String,
}

fn item(question: &'static str, asked_by: &[&str], answer: Answer, evidence: impl Into<String>) -> Item {
    Item { question, asked_by: asked_by.join("; "), answer, evidence: evidence.into() }
}

/// The checklist of a study; `None` if no cell is measured.
pub(super) fn checklist(
    study: &StudyRecord,
    lines: &[Line],
    groups: &[Group],
) -> Result<Option<Table>, TableError> {
    let phase = phases_shown(lines).pop().unwrap_or(Phase::AfterFineTune);
    let facts = Facts {
        study,
        phase,
        lines: lines.iter().filter(|line| !line.is_dense()).collect(),
        measured: lines.iter().filter(|l| !l.is_dense() && l.at(phase).top1.is_some()).collect(),
        groups: groups.iter().filter(|group| !group.is_dense() && group.at(phase).n > 0).collect(),
    };
    if facts.measured.is_empty() {
        return Ok(None);
    }
    let items: Vec<Item> = [facts.what_was_measured(), facts.how_it_was_compared(), facts.what_is_missing()]
        .into_iter()
        .flatten()
        .collect();
    let mut grid = Grid::new("", &["<question", "<answer", "<evidence", "<asked by"]);
    grid.rows = items
        .iter()
        .map(|i| {
            vec![i.question.to_owned(), i.answer.name().to_owned(), i.evidence.clone(), i.asked_by.clone()]
        })
        .collect();
    let with = |answer| items.iter().filter(|item| item.answer == answer).count();
    let counts = format!(
        "{} of {} answers are yes, {} partly, {} no. Answered by the program from the stored records.",
        with(Answer::Yes),
        items.len(),
        with(Answer::Partly),
        with(Answer::No)
    );
    let columns = vec![
        column("question", &items, |i| i.question),
        column("answer", &items, |i| i.answer.name()),
        column("evidence", &items, |i| i.evidence.clone()),
        column("asked_by", &items, |i| i.asked_by.clone()),
        column("experiment", &items, |_| study.name.as_str()),
    ];
    Ok(Some(Table {
        name: format!("{}{CHECKLIST}", study.table),
        title: format!("Checklist of the study on {}, {}", study.dataset, study.net),
        frame: DataFrame::new(items.len(), columns)?,
        grids: vec![grid],
        notes: [origin(study), counts].into_iter().chain(study.left_out()).collect(),
        attachments: Vec::new(),
    }))
}

/// What the answers are taken from.
struct Facts<'a> {
    study: &'a StudyRecord,
    /// The last phase that is shown.
    phase: Phase,
    /// All cells.
    lines: Vec<&'a Line<'a>>,
    /// The cells with a value at the last phase.
    measured: Vec<&'a Line<'a>>,
    /// Methods at keep rates with a value at the last phase.
    groups: Vec<&'a Group<'a>>,
}

impl Facts<'_> {
    fn what_was_measured(&self) -> Vec<Item> {
        let study = self.study;
        let dense = self.measured[0].dense;
        let count = |has: &dyn Fn(&Line) -> bool| self.measured.iter().filter(|line| has(line)).count();
        let all = self.measured.len();
        let accuracies = |has: &dyn Fn(&Line) -> bool| Answer::of(count(has), all);
        let images = test_images(self.measured.iter().map(|line| line.cell.test_images));
        let has_images = |line: &Line| line.cell.test_images.is_some();
        vec![
            item(
                "Is the network named exactly, with its size?",
                &[STATE, CONFUSING],
                Answer::Yes,
                format!(
                    "{}: {} parameters, {} FLOPs",
                    study.net,
                    grouped(dense.size.paper.params),
                    grouped(dense.size.paper.flops)
                ),
            ),
            item(
                "Are data set, metric and test images named?",
                &[STATE],
                accuracies(&has_images),
                format!("top-1 on {}, {images}", study.dataset),
            ),
            item(
                "Are preprocessing and augmentation stated?",
                &[STATE, CONFUSING],
                Answer::Yes,
                format!("`[dataset]`, `[input]` and `augment` in `{}.resolved.toml`", study.table),
            ),
            item(
                "Are compression and speed-up both given, and defined?",
                &[STATE],
                Answer::Yes,
                format!(
                    "parameters kept {}, FLOPs kept {} (by the authors' counter: weights without biases, 2 × multiply-adds, and 2 \
                     values and 4 operations a channel of batch norm); columns `params`, `flops`, `macs`, `all_parameters`",
                    range(self.measured.iter().filter_map(|line| line.params_fraction())),
                    range(self.measured.iter().filter_map(|line| line.flops_fraction()))
                ),
            ),
            item(
                "Are top-1 and top-5 given?",
                &[STATE],
                accuracies(&|line| line.at(self.phase).top5.is_some()),
                format!(
                    "columns `{0}_top1` and `{0}_top5`, of {1} cells",
                    self.phase.name().replace('-', "_"),
                    of(count(&|line| line.at(self.phase).top5.is_some()), all)
                ),
            ),
            item(
                "Is the unpruned net's accuracy beside each pruned one's?",
                &[STATE, CONFUSING],
                accuracies(&|line| line.dense_quality.top1.is_some()),
                "columns `dense_top1` and `top1_drop`: the net of the same seed, under the same code",
            ),
        ]
    }

    fn how_it_was_compared(&self) -> Vec<Item> {
        let rates = self.rates_per_method();
        let points = rates.iter().map(Vec::len);
        let points = (points.clone().min().unwrap_or(0), points.max().unwrap_or(0));
        let seeds = self.groups.iter().map(|group| group.at(self.phase).n);
        let (least, most) = (seeds.clone().min().unwrap_or(0), seeds.max().unwrap_or(0));
        let shown_rates: Vec<String> =
            rates.iter().max_by_key(|r| r.len()).into_iter().flatten().map(f64::to_string).collect();
        let is_tuned = self.phase == Phase::AfterFineTune;
        let mut shared = "the methods of a seed prune one stored dense net".to_owned();
        shared.push_str(match (is_tuned, self.study.variants.is_empty()) {
            (true, true) => ", in the same order of layers, with the same tuning",
            (true, false) => ", in the same order of layers, with the same tuning in each variant",
            (false, _) => " and are not tuned",
        });
        vec![
            item(
                "Do all methods share code, weights, order and schedule?",
                &[CONFUSING, BENCH],
                Answer::Yes,
                format!("{shared}: `{}.resolved.toml`", self.study.table),
            ),
            item(
                "Is no step, rate or seed chosen by its test result?",
                &[CONFUSING],
                // No record says how the spec's author found the recipe.
                Answer::Partly,
                "the net of the last step is tested, with the one recipe of the spec for all methods; how that recipe was found is \
                 not recorded",
            ),
            item(
                "Are there five operating points or more?",
                &[STATE],
                match points {
                    (OPERATING_POINTS.., _) => Answer::Yes,
                    (_, 2..) => Answer::Partly,
                    _ => Answer::No,
                },
                format!("keep rates {}; {} of them for each method", shown_rates.join(", "), span(points)),
            ),
            item(
                "Are there three seeds or more?",
                &[STATE, CONFUSING],
                match (least, most) {
                    (SEEDS.., _) => Answer::Yes,
                    (_, SEEDS..) => Answer::Partly,
                    _ => Answer::No,
                },
                format!("n = {}", span((least, most))),
            ),
            item(
                "Are means, deviations and tests of differences given?",
                &[STATE],
                match (least, most) {
                    (2.., _) => Answer::Yes,
                    (_, 2..) => Answer::Partly,
                    _ => Answer::No,
                },
                match most {
                    2.. => format!(
                        "`{0}-summary`; paired intervals with Holm's correction in `{0}-differences`",
                        self.study.table
                    ),
                    _ => "one seed has no deviation".to_owned(),
                },
            ),
            self.baseline("Is random selection compared with?", &[STATE], &["random"]),
            self.baseline(
                "Is selection by magnitude compared with?",
                &[STATE, BENCH],
                &["weight-sum-l1", "weight-sum-l2"],
            ),
            self.baseline("Is the small net trained from scratch?", &[CONFUSING], &[FROM_SCRATCH]),
        ]
    }

    fn what_is_missing(&self) -> Vec<Item> {
        let done = self.lines.iter().filter(|line| line.cell.status == Status::Done).count();
        let mut evidence = format!("{} cells done", of(done, self.lines.len()));
        for status in [Status::Diverged, Status::NotRun] {
            let count = self.lines.iter().filter(|line| line.cell.status == status).count();
            if count > 0 {
                evidence.push_str(&format!(", {count} {}", status_name(status).replace('-', " ")));
            }
        }
        for sentence in self.study.left_out() {
            evidence.push_str(&format!("; {}", sentence.trim_end_matches('.')));
        }
        vec![
            item(
                "Are there three pairs of network and data set or more?",
                &[STATE],
                Answer::No,
                format!(
                    "one: {} on {}; each further pair is a study of its own",
                    self.study.net, self.study.dataset
                ),
            ),
            item(
                "Is every planned cell there, and what is excluded named?",
                &[STATE],
                Answer::of(done, self.lines.len()),
                evidence,
            ),
            item(
                "Can it be run again?",
                &[STATE, BENCH],
                Answer::Yes,
                format!(
                    "`{0}.resolved.toml`, `{0}.env.json`, seeds of every draw; kept channels in `{0}.kept.json`",
                    self.study.table
                ),
            ),
        ]
    }

    /// The keep rates with values of each method in each variant, but the control from scratch.
    fn rates_per_method(&self) -> Vec<Vec<f64>> {
        let key = |group: &Group| (group.variant.map(str::to_owned), group.method.to_owned());
        let (mut methods, mut rates) = (Vec::new(), Vec::<Vec<f64>>::new());
        for group in self.groups.iter().filter(|group| group.selector != FROM_SCRATCH) {
            match methods.iter().position(|method| *method == key(group)) {
                Some(at) => rates[at].push(group.keep_rate),
                None => {
                    methods.push(key(group));
                    rates.push(vec![group.keep_rate]);
                }
            }
        }
        rates
    }

    /// Whether a baseline has values wherever a method has.
    fn baseline(&self, question: &'static str, asked_by: &[&str], selectors: &[&str]) -> Item {
        let place = |group: &&&Group| (group.variant.map(str::to_owned), group.keep_rate);
        let mut places = Vec::new();
        for group in &self.groups {
            if !places.contains(&place(&group)) {
                places.push(place(&group));
            }
        }
        let of_baseline: Vec<&&Group> =
            self.groups.iter().filter(|g| selectors.contains(&g.selector)).collect();
        let there = places.iter().filter(|&at| of_baseline.iter().any(|group| place(group) == *at)).count();
        let mut methods: Vec<&str> = Vec::new();
        for group in &of_baseline {
            if !methods.contains(&group.method) {
                methods.push(group.method);
            }
        }
        let evidence = match there {
            0 => "no cell with values".to_owned(),
            _ => format!("{}, at {} operating points", methods.join(" and "), of(there, places.len())),
        };
        item(question, asked_by, Answer::of(there, places.len()), evidence)
    }
}

/// `3`, or `1 to 3`.
fn span<T: PartialEq + std::fmt::Display>((least, most): (T, T)) -> String {
    if least == most { least.to_string() } else { format!("{least} to {most}") }
}

/// `3 of 7`, or `all 7`.
fn of(count: usize, of: usize) -> String {
    if count == of { format!("all {of}") } else { format!("{count} of {of}") }
}

/// `25 %` or `12 % to 50 %`.
fn range(fractions: impl Iterator<Item = f64> + Clone) -> String {
    let percent = |fraction: f64| format!("{:.0} %", 100.0 * fraction);
    let least = percent(fractions.clone().fold(f64::INFINITY, f64::min));
    let most = percent(fractions.fold(0.0, f64::max));
    span((least, most))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::published::Published;
    use crate::records::Metric;
    use crate::tables::groups::groups;
    use crate::tables::lines::{lines, with_dense_nets};
    use crate::tables::sample::{study, with_variants};

    fn table(study: &StudyRecord) -> Option<Table> {
        let cells = with_dense_nets(study);
        let lines = lines(study, &cells).unwrap();
        let published = Published::load().unwrap();
        let groups = groups(&lines, &published);
        checklist(study, &lines, &groups).unwrap()
    }

    /// Answers and evidence by question.
    fn answers(study: &StudyRecord) -> BTreeMap<String, (String, String)> {
        let rows = table(study).unwrap().grids.remove(0).rows;
        rows.into_iter().map(|row| (row[0].clone(), (row[1].clone(), row[2].clone()))).collect()
    }

    fn answer(study: &StudyRecord, words: &str) -> (String, String) {
        let all = answers(study);
        let mut found = all.iter().filter(|(question, _)| question.contains(words));
        let (_, answer) = found.next().unwrap_or_else(|| panic!("no question about {words}"));
        assert!(found.next().is_none(), "several questions about {words}");
        answer.clone()
    }

    #[test]
    fn the_markdown_is_pinned() {
        insta::assert_snapshot!("checklist", table(&study()).unwrap().markdown());
    }

    #[test]
    fn a_baseline_counts_where_it_has_values() {
        let mut study = study();
        assert_eq!(
            answer(&study, "random"),
            ("yes".to_owned(), "random, at all 2 operating points".to_owned())
        );
        assert_eq!(answer(&study, "magnitude").0, "no");
        for cell in study.cells.iter_mut().filter(|cell| cell.selector == "random" && cell.keep_rate == 0.25)
        {
            (cell.status, cell.rows) = (Status::NotRun, Vec::new());
        }
        assert_eq!(
            answer(&study, "random"),
            ("partly".to_owned(), "random, at 1 of 2 operating points".to_owned())
        );
        study.cells.retain(|cell| cell.selector != "random");
        assert_eq!(answer(&study, "random"), ("no".to_owned(), "no cell with values".to_owned()));
    }

    #[test]
    fn a_baseline_in_one_variant_says_nothing_about_another() {
        let mut study = with_variants();
        assert_eq!(answer(&study, "random").0, "yes");
        study.cells.retain(|cell| cell.selector != "random" || cell.variant.as_deref() == Some("plain"));
        assert_eq!(
            answer(&study, "random"),
            ("partly".to_owned(), "random, at 2 of 4 operating points".to_owned())
        );
    }

    #[test]
    fn seeds_and_operating_points_are_those_with_values() {
        let mut study = study();
        assert_eq!(answer(&study, "three seeds").0, "no", "two seeds");
        assert_eq!(
            answer(&study, "five operating"),
            ("partly".to_owned(), "keep rates 0.5, 0.25; 1 to 2 of them for each method".to_owned())
        );
        study.cells.retain(|cell| cell.selector == "thinet");
        assert_eq!(answer(&study, "three seeds"), ("no".to_owned(), "n = 2".to_owned()));
        assert_eq!(answer(&study, "Are means").0, "yes");
        // A third seed of all cells.
        let mut third = study.dense[1].clone();
        third.seed = 2;
        study.dense.push(third);
        let more: Vec<_> = study.cells.iter().filter(|cell| cell.seed == 1).cloned().collect();
        study.cells.extend(more.into_iter().map(|cell| crate::records::CellRecord { seed: 2, ..cell }));
        assert_eq!(answer(&study, "three seeds"), ("yes".to_owned(), "n = 3".to_owned()));
        // More keep rates, as cells of other ids.
        let more: Vec<_> = study.cells.clone();
        for rate in [0.9, 0.8, 0.7] {
            study.cells.extend(more.iter().filter(|cell| cell.keep_rate == 0.5).cloned().map(|cell| {
                crate::records::CellRecord { keep_rate: rate, id: format!("{}-{rate}", cell.id), ..cell }
            }));
        }
        assert_eq!(answer(&study, "five operating").0, "yes");
        study.cells.retain(|cell| cell.seed == 0);
        assert_eq!(answer(&study, "Are means"), ("no".to_owned(), "one seed has no deviation".to_owned()));
    }

    #[test]
    fn what_is_missing_is_counted_and_named() {
        let mut study = study();
        let missing = answer(&study, "every planned cell");
        assert_eq!(missing, ("partly".to_owned(), "16 of 20 cells done, 1 diverged, 3 not run".to_owned()));
        study.unreadable.push("cell-1: damaged".to_owned());
        assert!(
            answer(&study, "every planned cell").1.ends_with("not run; counts as not run: cell-1: damaged")
        );
        study.unreadable.clear();
        study.cells.retain(|cell| cell.status == Status::Done);
        assert_eq!(answer(&study, "every planned cell"), ("yes".to_owned(), "all 16 cells done".to_owned()));
    }

    #[test]
    fn values_that_are_missing_are_said_to_be() {
        let mut study = study();
        assert_eq!(answer(&study, "top-5").0, "yes");
        study.cells[0].rows.retain(|row| row.metric != Metric::Top5);
        assert_eq!(answer(&study, "top-5").0, "partly");
        study.cells.iter_mut().for_each(|cell| cell.test_images = None);
        assert_eq!(answer(&study, "test images named").0, "no");
        study.dense[0].rows.clear();
        assert_eq!(answer(&study, "unpruned").0, "partly");
    }

    #[test]
    fn a_study_that_was_not_run_has_no_checklist() {
        let mut study = study();
        for cell in &mut study.cells {
            (cell.status, cell.rows) = (Status::NotRun, Vec::new());
        }
        assert!(table(&study).is_none());
    }
}
