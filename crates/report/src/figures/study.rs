//! A study as figures see it: its methods, keep rates and means over seeds, read from its `-summary` table.

use std::path::PathBuf;

use super::FigureError;
use super::gaps::{Point, gaps};
use super::source::{Sheet, Tables};
use super::style::{MethodStyle, of_method};
use crate::records::{FROM_SCRATCH, Phase};

/// Columns that a summary must have beside those of its phases.
const NEEDED: [&str; 20] = [
    "run",
    "method",
    "selector",
    "reconstruction",
    "keep_rate",
    "seeds",
    "done",
    "diverged",
    "experiment",
    "dataset",
    "net",
    "mode",
    "params",
    "flops",
    "params_fraction",
    "flops_fraction",
    "dense_top1_mean",
    "dense_top1_std",
    "dense_top1_n",
    "test_images",
];
/// Phases of a cut net, in their order; summaries have columns of the third only where it was measured.
pub(crate) const PHASES: [Phase; 4] =
    [Phase::AfterCut, Phase::AfterReconstruction, Phase::AfterBatchNormEstimate, Phase::AfterFineTune];
/// Keep rates that figures with a panel for each show first.
const SHOWN_RATES: [f64; 4] = [0.5, 0.3, 0.7, 0.9];
/// The column that names a variant of the study, where it has any.
pub(crate) const VARIANT: &str = "variant";

/// A method of a study.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Method {
    pub(crate) label: String,
    pub(crate) selector: String,
    pub(crate) reconstruction: String,
}

impl Method {
    pub(crate) fn style(&self) -> MethodStyle {
        of_method(&self.selector, &self.reconstruction)
    }
}

/// A mean over seeds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Stat {
    pub(crate) mean: f64,
    /// Sample standard deviation; `None` for one seed.
    pub(crate) std: Option<f64>,
    pub(crate) n: u64,
}

/// A method at a keep rate.
#[derive(Clone, Debug)]
pub(crate) struct Group {
    /// Index of its method.
    pub(crate) method: usize,
    pub(crate) keep_rate: f64,
    /// Empty in a study without variants.
    pub(crate) variant: String,
    /// Seeds whose cell is finished.
    done: u64,
    pub(crate) diverged: u64,
    pub(crate) params_fraction: f64,
    pub(crate) flops_fraction: f64,
    /// Top-1, per cent, in the phases of [`PHASES`]; `None` where nothing was measured.
    top1: [Option<Stat>; PHASES.len()],
}

impl Group {
    pub(crate) fn at(&self, phase: Phase) -> Option<Stat> {
        PHASES.iter().position(|&p| p == phase).and_then(|at| self.top1[at])
    }
}

/// A study with at least one measured cell.
pub(crate) struct Study {
    /// Its table.
    pub(crate) table: String,
    pub(crate) run: String,
    pub(crate) path: PathBuf,
    pub(crate) dataset: String,
    pub(crate) net: String,
    /// The resolved spec beside the table; `None` if there is no such file.
    pub(crate) spec: Option<toml::Table>,
    /// How the nets were cut, in the order of `variants`; one in a study without variants.
    modes: Vec<String>,
    /// The most seeds of which something was measured, at one keep rate of one method.
    pub(crate) seeds: u64,
    /// Seeds of the study.
    planned_seeds: u64,
    pub(crate) test_images: u64,
    /// In the order of the study.
    pub(crate) methods: Vec<Method>,
    /// In the order of the study, without those at which nothing is cut.
    pub(crate) keep_rates: Vec<f64>,
    /// In the order of the study; empty in a study without variants.
    pub(crate) variants: Vec<String>,
    pub(crate) groups: Vec<Group>,
    /// Top-1 of the dense nets.
    pub(crate) dense: Option<Stat>,
    pub(crate) dense_params: f64,
    pub(crate) dense_flops: f64,
}

/// Why a study has no figures.
pub(crate) enum NoStudy {
    /// There is no `<table>-summary.csv`.
    Missing,
    /// No cell was run.
    NotRun,
}

impl Study {
    /// Reads `<table>-summary`.
    pub(crate) fn read(tables: &mut Tables, table: &str) -> Result<Result<Self, NoStudy>, FigureError> {
        let name = format!("{table}-summary");
        let Some(sheet) = tables.sheet(&name, &NEEDED)? else { return Ok(Err(NoStudy::Missing)) };
        let phase_columns = phase_columns(&sheet)?;
        let mut study = Self {
            table: table.to_owned(),
            run: sheet.only("run")?,
            path: sheet.path.clone(),
            dataset: sheet.only("dataset")?,
            net: sheet.only("net")?,
            spec: tables.spec(table)?,
            modes: Vec::new(),
            seeds: 0,
            planned_seeds: 0,
            test_images: 0,
            methods: Vec::new(),
            keep_rates: Vec::new(),
            variants: Vec::new(),
            groups: Vec::new(),
            dense: None,
            dense_params: 0.0,
            dense_flops: 0.0,
        };
        let mut is_run = false;
        for row in sheet.rows() {
            study.planned_seeds = study.planned_seeds.max(sheet.count(row, "seeds")?);
            study.test_images = study.test_images.max(sheet.count(row, "test_images")?);
            let dense = stat(&sheet, row, "dense_top1")?;
            if dense.is_some_and(|dense| study.dense.is_none_or(|known| dense.n > known.n)) {
                study.dense = dense;
            }
            // Widths that no stored allocation fixed yet.
            if sheet.number(row, "params")?.is_none() {
                continue;
            }
            study.dense_params = sheet.required(row, "params")? / sheet.required(row, "params_fraction")?;
            study.dense_flops = sheet.required(row, "flops")? / sheet.required(row, "flops_fraction")?;
            // The row of the dense nets, at a keep rate that cuts nothing.
            if sheet.text(row, "selector").is_none() {
                continue;
            }
            is_run |= sheet.count(row, "done")? + sheet.count(row, "diverged")? > 0;
            let group = study.group(&sheet, row, &phase_columns)?;
            study.groups.push(group);
        }
        let stats = study.groups.iter().flat_map(|group| group.top1.iter().flatten());
        study.seeds = stats.map(|stat| stat.n).max().unwrap_or(study.planned_seeds);
        Ok(if is_run { Ok(study) } else { Err(NoStudy::NotRun) })
    }

    fn group(
        &mut self,
        sheet: &Sheet,
        row: usize,
        columns: &[Option<String>; PHASES.len()],
    ) -> Result<Group, FigureError> {
        let method = Method {
            label: sheet.label(row, "method"),
            selector: sheet.label(row, "selector"),
            reconstruction: sheet.label(row, "reconstruction"),
        };
        let keep_rate = sheet.required(row, "keep_rate")?;
        let variant = sheet.label(row, VARIANT);
        let mut top1 = [None; PHASES.len()];
        for (slot, column) in top1.iter_mut().zip(columns) {
            *slot = column.as_deref().map(|column| stat(sheet, row, column)).transpose()?.flatten();
        }
        if sheet.has(VARIANT) {
            index_of(&mut self.variants, variant.clone());
        }
        if self.modes.len() < self.variants.len().max(1) {
            self.modes.push(sheet.label(row, "mode"));
        }
        index_of(&mut self.keep_rates, keep_rate);
        Ok(Group {
            method: index_of(&mut self.methods, method),
            keep_rate,
            variant,
            done: sheet.count(row, "done")?,
            diverged: sheet.count(row, "diverged")?,
            params_fraction: sheet.required(row, "params_fraction")?,
            flops_fraction: sheet.required(row, "flops_fraction")?,
            top1,
        })
    }

    /// `, trained in bfloat16`, to follow the net; empty for float32.
    pub(crate) fn training(&self) -> &'static str {
        let compute = self.spec.as_ref().and_then(|spec| spec.get("compute"));
        let precision = compute.and_then(|compute| compute.get("precision")).and_then(toml::Value::as_str);
        if precision == Some("bf16") { ", trained in bfloat16" } else { "" }
    }

    /// The phases in which something was measured, in their order.
    pub(crate) fn phases(&self) -> Vec<Phase> {
        let is_measured = |phase: &Phase| self.groups.iter().any(|group| group.at(*phase).is_some());
        PHASES.into_iter().filter(is_measured).collect()
    }

    /// The phases in which a pruned net was measured, the control from a random start aside.
    pub(crate) fn phases_of_cuts(&self) -> Vec<Phase> {
        let is_measured =
            |phase: &Phase| self.groups.iter().any(|group| self.is_cut(group) && group.at(*phase).is_some());
        PHASES.into_iter().filter(is_measured).collect()
    }

    /// The last of these.
    pub(crate) fn last_phase(&self) -> Option<Phase> {
        self.phases_of_cuts().pop()
    }

    /// Whether nothing was tuned after the cuts.
    pub(crate) fn is_untuned(&self) -> bool {
        !self.groups.iter().any(|group| self.is_cut(group) && group.at(Phase::AfterFineTune).is_some())
    }

    /// The same of a variant; its name is empty in a study without variants.
    pub(crate) fn is_untuned_in(&self, variant: &str) -> bool {
        let mut of_variant =
            self.groups.iter().filter(|group| group.variant == variant && self.is_cut(group));
        !of_variant.any(|group| group.at(Phase::AfterFineTune).is_some())
    }

    /// Whether it is pruned, not the control from a random start.
    pub(crate) fn is_cut(&self, group: &Group) -> bool {
        self.methods[group.method].selector != FROM_SCRATCH
    }

    /// Whether a phase belongs to a group: not the tuning where nothing is tuned, and no cut of the control. Judged by what its peers
    /// in its variant have; where none of them is finished, it may.
    fn has_phase(&self, group: &Group, phase: Phase) -> bool {
        let is_peer =
            |other: &&Group| (&other.variant, self.is_cut(other)) == (&group.variant, self.is_cut(group));
        let peers = || self.groups.iter().filter(is_peer);
        peers().any(|peer| peer.at(phase).is_some()) || peers().all(|peer| peer.done == 0)
    }

    /// How the nets of a variant were cut; its name is empty in a study without variants.
    pub(crate) fn mode_of(&self, variant: &str) -> &str {
        let at = self.variants.iter().position(|name| name == variant).unwrap_or_default();
        self.modes.get(at).map_or("", String::as_str)
    }

    /// The modes of all variants: `layer-by-layer and one-shot`.
    pub(crate) fn modes(&self) -> String {
        let mut modes: Vec<&str> = Vec::new();
        for mode in &self.modes {
            index_of(&mut modes, mode);
        }
        modes.join(" and ")
    }

    /// The variant of figures that show one; empty in a study without variants.
    pub(crate) fn first(&self) -> &str {
        self.variants.first().map_or("", String::as_str)
    }

    /// Checks that a table beside the summary was written by the same run and holds rows of one study.
    pub(crate) fn check_run(&self, sheet: &Sheet) -> Result<(), FigureError> {
        let found = sheet.only("run")?;
        if found == self.run {
            return Ok(());
        }
        Err(FigureError::OtherRun {
            path: sheet.path.clone(),
            found,
            main: self.path.clone(),
            expected: self.run.clone(),
        })
    }

    /// How the nets were cut, with the first variant's name where there are several: figures of single layers and of differences show
    /// that one.
    pub(crate) fn first_variant(&self) -> String {
        let mode = self.mode_of(self.first());
        match self.variants.first() {
            Some(first) => format!("{mode}, variant \u{201c}{first}\u{201d}"),
            None => mode.to_owned(),
        }
    }

    /// `n = 3 seeds`, and `n = 3 of 5 seeds` where two are missing everywhere.
    pub(crate) fn n(&self) -> String {
        match self.count() {
            count if count == "1" => "n = 1 seed".to_owned(),
            count => format!("n = {count} seeds"),
        }
    }

    /// `3`, and `3 of 5` where two are missing everywhere.
    pub(crate) fn count(&self) -> String {
        if self.seeds < self.planned_seeds {
            format!("{} of {}", self.seeds, self.planned_seeds)
        } else {
            self.seeds.to_string()
        }
    }

    /// The keep rates of a variant that [`some_rates`](Self::some_rates) leaves out, in words for a caption: ` Not drawn: the keep rates
    /// 0.8 and 0.6.`; empty if it leaves out none.
    pub(crate) fn rates_not_drawn(&self, variant: &str, most: usize) -> String {
        let drawn = self.some_rates(variant, most);
        let mut left = self.some_rates(variant, usize::MAX);
        left.retain(|rate| !drawn.contains(rate));
        let words: Vec<String> = left.iter().map(f64::to_string).collect();
        match &words[..] {
            [] => String::new(),
            [one] => format!(" Not drawn: the keep rate {one}."),
            [all @ .., last] => format!(" Not drawn: the keep rates {} and {last}.", all.join(", ")),
        }
    }

    /// Up to `most` keep rates of a variant, high to low: those that are nearest to the ones of [`SHOWN_RATES`], so that figures of
    /// different studies show the same where they can.
    pub(crate) fn some_rates(&self, variant: &str, most: usize) -> Vec<f64> {
        let mut left = Vec::new();
        for group in self.groups.iter().filter(|group| group.variant == variant) {
            index_of(&mut left, group.keep_rate);
        }
        left.sort_by(|a, b| b.total_cmp(a));
        if left.len() <= most {
            return left;
        }
        let mut chosen = Vec::new();
        for wanted in SHOWN_RATES.into_iter().take(most) {
            let distance = |rate: f64| (rate - wanted).abs();
            let nearest = (0..left.len()).min_by(|&a, &b| distance(left[a]).total_cmp(&distance(left[b])));
            chosen.extend(nearest.map(|at| left.remove(at)));
        }
        chosen.sort_by(|a, b| b.total_cmp(a));
        chosen
    }

    /// Whether a method was measured in a phase of a variant, at any keep rate.
    pub(crate) fn is_measured(&self, method: &Method, variant: &str, phase: Phase) -> bool {
        let mut of_variant = self.groups.iter().filter(|group| group.variant == variant);
        of_variant.any(|group| self.methods[group.method] == *method && group.at(phase).is_some())
    }

    /// The methods of which something was measured, in the order of the study.
    pub(crate) fn measured_methods(&self) -> Vec<Method> {
        let is_measured = |index: usize| {
            let mut own = self.groups.iter().filter(|group| group.method == index);
            own.any(|group| group.top1.iter().any(Option::is_some))
        };
        let all = self.methods.iter().enumerate();
        all.filter(|(index, _)| is_measured(*index)).map(|(_, method)| method.clone()).collect()
    }

    /// What a figure of this phase cannot show, in sentences; empty if it shows everything.
    pub(crate) fn gaps(&self, phase: Phase) -> String {
        let point = |group: &Group| Point {
            keep_rate: group.keep_rate,
            seeds: group.at(phase).map_or(0, |stat| stat.n),
            has_diverged: group.diverged > 0,
        };
        let points = |index: usize| {
            let own =
                self.groups.iter().filter(|group| group.method == index && self.has_phase(group, phase));
            own.map(point).collect()
        };
        let methods = self.methods.iter().enumerate();
        let methods: Vec<(&str, Vec<Point>)> =
            methods.map(|(index, method)| (method.label.as_str(), points(index))).collect();
        gaps(&methods, self.seeds)
    }
}

/// The columns of each phase's top-1, without their endings; a phase that has no columns at all was not asked for, where
/// batch-norm statistics are concerned.
fn phase_columns(sheet: &Sheet) -> Result<[Option<String>; PHASES.len()], FigureError> {
    let mut columns = [const { None }; PHASES.len()];
    for (slot, phase) in columns.iter_mut().zip(PHASES) {
        let name = format!("{}_top1", phase.name().replace('-', "_"));
        let is_optional = phase == Phase::AfterBatchNormEstimate && !sheet.has(&format!("{name}_mean"));
        if is_optional {
            continue;
        }
        for ending in ["mean", "std", "n"] {
            let column = format!("{name}_{ending}");
            if !sheet.has(&column) {
                return Err(FigureError::NoColumn { path: sheet.path.clone(), column });
            }
        }
        *slot = Some(name);
    }
    Ok(columns)
}

fn stat(sheet: &Sheet, row: usize, column: &str) -> Result<Option<Stat>, FigureError> {
    let Some(mean) = sheet.number(row, &format!("{column}_mean"))? else { return Ok(None) };
    let std = sheet.number(row, &format!("{column}_std"))?;
    Ok(Some(Stat { mean, std, n: sheet.count(row, &format!("{column}_n"))? }))
}

/// The index of a value in a list, at whose end it is put if it is new.
pub(crate) fn index_of<T: PartialEq>(list: &mut Vec<T>, value: T) -> usize {
    list.iter().position(|known| *known == value).unwrap_or_else(|| {
        list.push(value);
        list.len() - 1
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::source::SPEC;
    use super::super::tests::{draw, failure, find, folder};
    use crate::tables::sample::study;

    #[test]
    fn captions_name_the_precision_of_trainings_that_is_not_float32() {
        let dir = folder(&study());
        let spec = |text: &str| {
            fs::write(dir.path().join(format!("{}.{SPEC}", study().table)), text).unwrap();
        };
        let captions = |names: &[&str]| {
            let drawn = draw(&dir);
            names.iter().map(|name| find(&drawn, name).caption.clone()).collect::<Vec<_>>()
        };
        let names =
            ["accuracy-flops", "accuracy-params", "agreement", "differences", "losses", "reconstruction"];
        let count = |captions: &[String]| captions.iter().filter(|c| c.contains("bfloat16")).count();
        assert_eq!(count(&captions(&names)), 0, "without a spec");
        spec("[compute]\nthreads = 1\n");
        assert_eq!(count(&captions(&names)), 0, "float32");
        spec("[compute]\nprecision = \"bf16\"\n");
        let found = captions(&names);
        for (caption, count) in found.iter().zip(["10.00 M FLOPs", "300.00 k parameters"]) {
            let expected = format!("1×8×8 ({count}), trained in bfloat16, n =");
            assert!(caption.contains(&expected), "{caption}");
        }
        assert!(
            found[2..].iter().all(|c| c.contains("tiny, 1×8×8, trained in bfloat16, layer-by-layer,")),
            "{found:?}"
        );
        spec("[compute\n");
        let error = failure(&dir).to_string();
        assert!(error.contains(&format!("{}.{SPEC}", study().table)), "{error}");
    }
}
