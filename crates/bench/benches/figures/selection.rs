//! ThiNet's greedy removal of half the channels: through moments against carrying the running sum over the rows.
//!
//! The naive greedy takes minutes at this size, so its steps are sampled: every pair times one step, at a place of
//! the order that moves from pair to pair. A step is passes over columns of `x`, one for each candidate and one to
//! update the sum, whose number is known for every step; the time of the whole is the step's times the ratio of passes.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use criterion::Criterion;
use thinet_bench::{Bound, Figure, Pairs, Ratio};
use thinet_selectors::{Removal, naive, removal_order};

use crate::in_turn::{FILTERED, duration, in_turn, timed};
use crate::moments::streamed;
use crate::noise::{CHANNELS, ROWS, contributions};

const REMOVED: usize = CHANNELS / 2;
/// Steps of the naive greedy that are timed: the middles of this many equal parts of the order.
const PLACES: usize = 8;

const NAME: &str = "selection, m = 100,000, C = 512, 256 removed, moments included";
const REQUIRED: Bound = Bound::AtLeast(200.0);

pub(crate) fn figures(criterion: &mut Criterion) -> Result<Vec<Figure>> {
    let x = contributions();
    let order = through_moments(&x)?;
    let steps: Vec<Step> = (0..PLACES).map(|part| Step::of_part(&x, &order, part)).collect();
    let mut turn = steps.iter().cycle();
    let mut one_step = || -> Result<Duration> {
        let Some(step) = turn.next() else { return Ok(Duration::ZERO) };
        let start = Instant::now();
        let removal = step.run(&x);
        let time = start.elapsed();
        same(removal, order[step.place])?;
        Ok(time.mul_f64(step.share().recip()))
    };
    let mut ours = || timed(|| through_moments(&x));
    let pairs = in_turn(criterion, ["selection", "through moments"], &mut ours, &mut one_step)?;
    if pairs.is_empty() {
        return Ok(vec![Figure::not_measured(NAME, Some(REQUIRED), FILTERED)]);
    }
    Ok(vec![against_obvious(&x, &order, &pairs)?, against_memory_order(&x, &order, &pairs)?])
}

fn against_obvious(x: &[f64], order: &[Removal], pairs: &Pairs) -> Result<Figure> {
    let start = Instant::now();
    let first = naive::greedy_removal(CHANNELS, x, 1);
    let oracle = start.elapsed().as_secs_f64() / (CHANNELS + 1) as f64 * passes_in_all() as f64;
    ensure!(first.len() == 1, "the oracle removed {} channels, not 1", first.len());
    same(first[0], order[0])?;
    Ok(Figure {
        name: NAME.to_owned(),
        ours: duration(pairs.ours()),
        reference: format!("{} (derived)", duration(pairs.reference())),
        ratio: Some(pairs.ratio(Ratio::Speedup)),
        required: Some(REQUIRED),
        note: format!(
            "measured: ours in full; of the obvious greedy (a running sum over m rows) one step a pair, at {PLACES} \
             places of the order. derived: its {REMOVED} steps, by passes over columns ({} in all). The first step of \
             thinet_selectors::naive gives {} in the same way. Both choose the same channels. {}",
            passes_in_all(),
            duration(oracle),
            pairs.spread(Ratio::Speedup),
        ),
    })
}

fn against_memory_order(x: &[f64], order: &[Removal], pairs: &Pairs) -> Result<Figure> {
    let start = Instant::now();
    let plain = removal_in_memory_order(x, REMOVED);
    let seconds = start.elapsed().as_secs_f64();
    for (&plain, &ours) in plain.iter().zip(order) {
        same(plain, ours)?;
    }
    Ok(Figure {
        name: "  the same against a running sum that reads x in memory order".to_owned(),
        ours: duration(pairs.ours()),
        reference: duration(seconds),
        ratio: Some(seconds / pairs.ours()),
        required: None,
        note: "for comparison, one full run: still O(m·C) a step, with the loops exchanged so that every row is read \
               once a step, from one end to the other. All 256 steps choose the same channels as ours"
            .to_owned(),
    })
}

/// Ours: moments of all rows, then the order.
fn through_moments(x: &[f64]) -> Result<Vec<Removal>> {
    Ok(removal_order(&streamed(x)?, REMOVED))
}

/// The state of `naive::greedy_removal` before one of its steps.
struct Step {
    place: usize,
    left: Vec<usize>,
    /// Σ of the removed columns, `[m]`.
    z: Vec<f64>,
}

impl Step {
    fn of_part(x: &[f64], order: &[Removal], part: usize) -> Self {
        let place = (2 * part + 1) * REMOVED / (2 * PLACES);
        let gone: HashSet<usize> = order[..place].iter().map(|removal| removal.channel).collect();
        let left = (0..CHANNELS).filter(|channel| !gone.contains(channel)).collect();
        let sum = |row: &[f64]| order[..place].iter().map(|removal| row[removal.channel]).sum();
        Self { place, left, z: x.chunks_exact(CHANNELS).map(sum).collect() }
    }

    /// One step of `naive::greedy_removal`; the sum is written to new memory so that the step can be repeated.
    fn run(&self, x: &[f64]) -> Removal {
        let mut best = Removal { channel: self.left[0], squared_error: f64::INFINITY };
        for &channel in &self.left {
            let mut squared_error = 0.0;
            for (z, row) in self.z.iter().zip(x.chunks_exact(CHANNELS)) {
                let error = z + row[channel];
                squared_error += error * error;
            }
            if squared_error < best.squared_error {
                best = Removal { channel, squared_error };
            }
        }
        let rows = self.z.iter().zip(x.chunks_exact(CHANNELS));
        std::hint::black_box(rows.map(|(z, row)| z + row[best.channel]).collect::<Vec<f64>>());
        best
    }

    /// Its part in all passes of the greedy.
    fn share(&self) -> f64 {
        (self.left.len() + 1) as f64 / passes_in_all() as f64
    }
}

/// Passes over a column of `x` in all steps: one for each candidate, and one that updates the sum.
fn passes_in_all() -> usize {
    (0..REMOVED).map(|step| CHANNELS - step + 1).sum()
}

/// The greedy over rows with its loops exchanged: the trials of all channels advance together, row by row.
fn removal_in_memory_order(x: &[f64], count: usize) -> Vec<Removal> {
    let mut z = vec![0.0; x.len() / CHANNELS];
    let mut left = [true; CHANNELS];
    let mut order = Vec::with_capacity(count);
    for _ in 0..count {
        // Removed channels are summed along: skipping them would cost more than it saves.
        let mut errors = [0.0; CHANNELS];
        for (z, row) in z.iter().zip(x.chunks_exact(CHANNELS)) {
            for (sum, x) in errors.iter_mut().zip(row) {
                let error = z + x;
                *sum += error * error;
            }
        }
        let candidates = (0..CHANNELS).filter(|&channel| left[channel]);
        let Some(channel) = candidates.min_by(|&a, &b| errors[a].total_cmp(&errors[b])) else { break };
        left[channel] = false;
        for (z, row) in z.iter_mut().zip(x.chunks_exact(CHANNELS)) {
            *z += row[channel];
        }
        order.push(Removal { channel, squared_error: errors[channel] });
    }
    order
}

/// Fails if the results of the two computations differ.
fn same(found: Removal, expected: Removal) -> Result<()> {
    let room = 1e-9 * (ROWS * CHANNELS) as f64;
    let close = (found.squared_error - expected.squared_error).abs() <= room;
    ensure!(
        found.channel == expected.channel && close,
        "two greedy orders differ: {found:?} and {expected:?}"
    );
    Ok(())
}
