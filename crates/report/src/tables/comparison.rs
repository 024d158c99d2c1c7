//! A comparison of two methods, or of two variants, over seeds: its difference, interval and verdict.

use thinet_metrics::{PairedDifference, holm};

use super::lines::Line;
use crate::records::Phase;

/// Level of the intervals.
pub(super) const LEVEL: f64 = 0.95;
/// A corrected p-value below this shows a difference.
pub(super) const BOUND: f64 = 0.05;
/// A method in a variant; a study without variants has only `None`.
pub(super) type Place<'a> = (Option<&'a str>, &'a str);

/// A method against a reference in the same variant, or a variant against the first one with the same method, at one keep rate and
/// phase.
pub(super) struct Comparison<'a> {
    pub(super) keep_rate: f64,
    pub(super) phase: Phase,
    pub(super) variant: Option<&'a str>,
    pub(super) method: &'a str,
    /// The variant and the method that it is compared with.
    pub(super) against: Place<'a>,
    /// Top-1 of the method less that of the reference, points, over the seeds that have both.
    pub(super) found: Option<PairedDifference>,
    /// The p-value corrected over the methods, or over the variants, at this keep rate and phase.
    pub(super) corrected: Option<f64>,
    /// The smallest mean difference that would have been shown with this spread, points: at the level of the correction's first step.
    pub(super) smallest: Option<f64>,
}

/// The verdict on a comparison.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Above,
    Below,
    NotShown,
    /// The difference is the same in all seeds, which leaves no noise to judge it by.
    NoSpread,
    /// Fewer than two seeds.
    NotTested,
}

impl Comparison<'_> {
    /// The same comparison seen from the other method.
    pub(super) fn turned(self) -> Self {
        let found = self.found.map(|found| PairedDifference { mean: 0.0 - found.mean, ..found });
        let (method, against) = (self.against.1, (self.variant, self.method));
        Self { method, against, found, ..self }
    }

    pub(super) fn verdict(&self) -> Verdict {
        match (self.found, self.corrected) {
            (Some(found), Some(p)) if p < BOUND && found.mean > 0.0 => Verdict::Above,
            (Some(_), Some(p)) if p < BOUND => Verdict::Below,
            (Some(found), None) if found.n > 1 && found.mean != 0.0 => Verdict::NoSpread,
            (Some(found), _) if found.n > 1 => Verdict::NotShown,
            _ => Verdict::NotTested,
        }
    }

    /// For a study of so many seeds.
    pub(super) fn shown(&self, seeds: usize) -> String {
        let Some(found) = self.found else { return "no pair".to_owned() };
        let interval = found.interval().map(|[low, high]| format!(" [{low:+.2}, {high:+.2}]"));
        let p =
            self.corrected.map(|p| if p < 0.001 { ", p < 0.001".to_owned() } else { format!(", p {p:.3}") });
        let n = if found.n == seeds { String::new() } else { format!(" (n = {})", found.n) };
        format!("{:+.2}{}{}{n}", found.mean, interval.unwrap_or_default(), p.unwrap_or_default())
    }
}

impl Verdict {
    pub(super) fn name(self) -> &'static str {
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
pub(super) fn is_tested(comparison: &Comparison) -> bool {
    comparison.found.is_some_and(|found| found.n > 1)
}

/// The cells at a keep rate, looked at in one phase.
pub(super) struct PhaseCells<'a, 'l> {
    pub(super) cells: &'l [&'l Line<'a>],
    pub(super) keep_rate: f64,
    pub(super) phase: Phase,
}

impl<'a> PhaseCells<'a, '_> {
    pub(super) fn at(&self, (variant, method): Place<'_>) -> impl Iterator<Item = &Line<'a>> {
        let is_it = move |line: &&Line| {
            let cell = line.cell;
            cell.variant.as_deref() == variant && cell.method == method && cell.keep_rate == self.keep_rate
        };
        self.cells.iter().copied().filter(is_it)
    }

    fn top1(&self, place: Place<'_>, seed: u64) -> Option<f64> {
        self.at(place).find(|line| line.cell.seed == seed).and_then(|line| line.at(self.phase).top1)
    }

    /// Compares those of the places that have cells with one of them; p-values are corrected over them.
    pub(super) fn family(
        &self,
        places: impl Iterator<Item = Place<'a>>,
        against: Place<'a>,
    ) -> Vec<Comparison<'a>> {
        let mut seeds: Vec<u64> = Vec::new();
        for line in self.cells {
            if !seeds.contains(&line.cell.seed) {
                seeds.push(line.cell.seed);
            }
        }
        let mut family: Vec<(Comparison, Vec<f64>)> = Vec::new();
        for place in places.filter(|place| *place != against && self.at(*place).next().is_some()) {
            let pairs =
                seeds.iter().filter_map(|&seed| Some(self.top1(place, seed)? - self.top1(against, seed)?));
            let differences: Vec<f64> = pairs.collect();
            let comparison = Comparison {
                keep_rate: self.keep_rate,
                phase: self.phase,
                variant: place.0,
                method: place.1,
                against,
                found: PairedDifference::of(&differences, LEVEL),
                corrected: None,
                smallest: None,
            };
            family.push((comparison, differences));
        }
        let p: Vec<Option<f64>> = family.iter().map(|(c, _)| c.found.and_then(|found| found.p)).collect();
        let first_step = 1.0 - BOUND / p.iter().flatten().count().max(1) as f64;
        let corrected = family.into_iter().zip(holm(&p)).map(|((comparison, differences), corrected)| {
            let smallest = PairedDifference::of(&differences, first_step).and_then(|found| found.half_width);
            Comparison { corrected, smallest, ..comparison }
        });
        corrected.collect()
    }
}

pub(super) fn word(phase: Phase) -> &'static str {
    match phase {
        Phase::Dense => "Dense",
        Phase::AfterCut => "Cut",
        Phase::AfterReconstruction => "Refit",
        Phase::AfterBatchNormEstimate => "BN estimated",
        Phase::AfterFineTune => "Tuned",
    }
}
