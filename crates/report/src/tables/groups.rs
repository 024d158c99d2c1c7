//! The cells of a study grouped by method and keep rate, over their seeds, beside the paper's CUB-200 figure.

use thinet_metrics::{mean, sample_std};

use super::asked::{Got, mean_size};
use super::lines::{LEFT_OUT, Line, PRUNED_PHASES, in_order, phases_shown, sizes};
use crate::published::{Point, Published, Series};
use crate::records::{Phase, Size, Status};

/// Mean, sample standard deviation and number of existing values.
pub(super) struct SeedStats {
    pub(super) mean: Option<f64>,
    pub(super) std: Option<f64>,
    pub(super) n: u64,
}

impl SeedStats {
    pub(super) fn of(values: &[f64]) -> Self {
        Self { mean: mean(values), std: sample_std(values), n: values.len() as u64 }
    }
}

/// A method at a keep rate in a variant, over its seeds.
pub(super) struct Group<'a> {
    pub(super) variant: Option<&'a str>,
    pub(super) method: &'a str,
    pub(super) selector: &'a str,
    pub(super) reconstruction: &'a str,
    pub(super) keep_rate: f64,
    /// Fractions of the dense net that were asked and got; where seeds have other widths, of their mean size.
    pub(super) got: Got,
    pub(super) seeds: u64,
    pub(super) done: u64,
    pub(super) diverged: u64,
    pub(super) not_run: u64,
    /// Whether its nets are not tuned after the cuts, so that they have no tuned top-1.
    pub(super) is_untuned: bool,
    /// Seeds among these whose dense net is unfit for pruning.
    pub(super) left_out: u64,
    /// Top-1, one per phase of [`PRUNED_PHASES`].
    pub(super) top1: [SeedStats; PRUNED_PHASES.len()],
    /// Top-1 of the dense nets of its seeds.
    pub(super) dense: SeedStats,
    /// Top-1 of a seed's dense net less its tuned top-1, points.
    pub(super) drop: SeedStats,
    /// The same of the last phase that is shown to people.
    pub(super) last_drop: SeedStats,
    /// The size of its nets, the mean where seeds have other widths; `None` while no widths are known.
    pub(super) size: Option<Size>,
    pub(super) params_fraction: Option<f64>,
    /// The fewest test images of a seed.
    pub(super) test_images: Option<u64>,
    /// Description of the sizes.
    pub(super) sizes: String,
    pub(super) published: Option<(&'a Series, Point<'a>)>,
}

impl Group<'_> {
    /// Top-1 at a phase of [`PRUNED_PHASES`].
    pub(super) fn at(&self, phase: Phase) -> &SeedStats {
        PRUNED_PHASES.iter().position(|&p| p == phase).map_or(&self.dense, |at| &self.top1[at])
    }

    /// Whether it is the group of the dense nets, at a keep rate that cuts nothing.
    pub(super) fn is_dense(&self) -> bool {
        self.selector.is_empty()
    }

    /// The last of these phases that its nets have.
    pub(super) fn last_of(&self, phases: &[Phase]) -> Phase {
        let mut own =
            phases.iter().copied().filter(|&phase| !(self.is_untuned && phase == Phase::AfterFineTune));
        own.next_back().unwrap_or(Phase::AfterFineTune)
    }

    /// Text in place of a missing value of a phase.
    pub(super) fn missing_at(&self, phase: Phase) -> &'static str {
        if self.is_untuned && phase == Phase::AfterFineTune { "not tuned" } else { self.missing() }
    }

    /// Text in place of a missing value.
    pub(super) fn missing(&self) -> &'static str {
        match (self.done, self.diverged) {
            (1.., _) => "not measured",
            (0, 1..) => "diverged",
            (0, 0) if self.left_out == self.seeds => LEFT_OUT,
            (0, 0) => "not run",
        }
    }
}

/// The groups by variant, then method, then keep rate, in the order of the study.
pub(super) fn groups<'a>(lines: &[Line<'a>], published: &'a Published) -> Vec<Group<'a>> {
    let mut groups = Vec::new();
    let last = phases_shown(lines).pop().unwrap_or(Phase::AfterFineTune);
    let key = |l: &Line<'a>| (l.cell.variant.as_deref(), l.cell.method.as_str(), l.cell.keep_rate);
    for (variant, method, keep_rate) in in_order(lines, key) {
        let of_key: Vec<&Line> = lines.iter().filter(|l| key(l) == (variant, method, keep_rate)).collect();
        let with = |status| of_key.iter().filter(|l| l.cell.status == status).count() as u64;
        let over = |phase| {
            let values: Vec<f64> = of_key.iter().filter_map(|l| l.at(phase).top1).collect();
            SeedStats::of(&values)
        };
        let cell = of_key[0].cell;
        let (selector, reconstruction) = (cell.selector.as_str(), cell.reconstruction.as_str());
        let series = match of_key[0].is_dense() {
            true => published.figure4.series_of_dense(keep_rate),
            // The paper keeps one share of every layer.
            false if cell.is_allocated() => None,
            false => published.figure4.find(selector, reconstruction),
        };
        let some = |value: &dyn Fn(&Line) -> Option<f64>| {
            SeedStats::of(&of_key.iter().filter_map(|line| value(line)).collect::<Vec<_>>())
        };
        let sizes_of_seeds: Vec<Size> = of_key.iter().filter_map(|line| line.cell.size).collect();
        let (size, dense) = (mean_size(&sizes_of_seeds), of_key[0].dense.size);
        groups.push(Group {
            variant,
            method,
            selector,
            reconstruction,
            keep_rate,
            got: Got {
                channels: some(&|line| line.cell.channels_fraction).mean,
                flops_target: cell.flops_target,
                flops: size.map(|size| size.paper.flops as f64 / dense.paper.flops as f64),
            },
            seeds: of_key.len() as u64,
            done: with(Status::Done),
            diverged: with(Status::Diverged),
            not_run: with(Status::NotRun),
            is_untuned: of_key.iter().all(|line| line.cell.tuning_steps == Some(0)),
            left_out: of_key.iter().filter(|line| line.is_left_out()).count() as u64,
            top1: PRUNED_PHASES.map(over),
            dense: some(&|line| line.dense_quality.top1.filter(|_| line.dense.unfit.is_none())),
            drop: some(&|line| line.drop()),
            last_drop: some(&|line| line.drop_at(last)),
            size,
            params_fraction: size.map(|size| size.paper.params as f64 / dense.paper.params as f64),
            test_images: of_key.iter().filter_map(|line| line.cell.test_images).min(),
            sizes: sizes(&of_key),
            published: series.and_then(|s| Some((s, published.figure4.point(s, keep_rate)?))),
        });
    }
    groups
}
