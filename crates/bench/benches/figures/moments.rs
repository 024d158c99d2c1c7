//! The rate at which moments are summed, against a plain float64 product XᵀX of libtorch.

use anyhow::{Result, ensure};
use criterion::Criterion;
use tch::{Device, Tensor, no_grad};
use thinet_bench::{Bound, Figure, Ratio};
use thinet_sampling::GramSum;
use thinet_selectors::Moments;

use crate::in_turn::{FILTERED, duration, in_turn, timed};
use crate::noise::{CHANNELS, ROWS, contributions};

const NAME: &str = "rate of moments, m = 100,000, C = 512";
const REQUIRED: Bound = Bound::AtLeast(0.8);
/// Operations of the full product, 2·m·C².
const OPERATIONS: f64 = 2.0 * ROWS as f64 * (CHANNELS * CHANNELS) as f64;

pub(crate) fn figures(criterion: &mut Criterion) -> Result<Vec<Figure>> {
    let rows = contributions();
    let x = Tensor::f_from_slice(&rows)?.f_view([ROWS as i64, CHANNELS as i64])?;
    check(&streamed(&rows)?, &product(&x)?)?;
    let mut ours = || timed(|| streamed(&rows));
    let mut reference = || timed(|| product(&x));
    let pairs = in_turn(criterion, ["moments", "streamed"], &mut ours, &mut reference)?;
    if pairs.is_empty() {
        return Ok(vec![Figure::not_measured(NAME, Some(REQUIRED), FILTERED)]);
    }
    let rate = |seconds: f64| format!("{:.1} GFLOP/s ({})", OPERATIONS / seconds / 1e9, duration(seconds));
    Ok(vec![Figure {
        name: NAME.to_owned(),
        ours: rate(pairs.ours()),
        reference: rate(pairs.reference()),
        ratio: Some(pairs.ratio(Ratio::Speedup)),
        required: Some(REQUIRED),
        note: format!(
            "measured: ours row by row from the first to the finished moments; the reference is one libtorch product of \
             the whole matrix. Both count as 2·m·C² operations, though G is symmetric and ours leaves out blocks below \
             the diagonal. {}",
            pairs.spread(Ratio::Speedup),
        ),
    }])
}

/// Moments of all rows, added one by one.
pub(crate) fn streamed(rows: &[f64]) -> Result<Moments> {
    let mut sum = GramSum::new("bench", CHANNELS, Device::Cpu)?;
    for row in rows.chunks_exact(CHANNELS) {
        sum.push(row)?;
    }
    Ok(sum.finish()?)
}

fn product(x: &Tensor) -> Result<Tensor> {
    Ok(no_grad(|| x.f_tr()?.f_mm(x))?)
}

/// Fails if the results of the two computations differ.
fn check(moments: &Moments, gram: &Tensor) -> Result<()> {
    for [i, j] in [[0, 0], [3, 400], [511, 7]] {
        let (found, expected) = (moments.g(i, j), gram.f_double_value(&[i as i64, j as i64])?);
        ensure!((found - expected).abs() < 1e-9 * ROWS as f64, "G[{i}, {j}]: {found} and {expected}");
    }
    Ok(())
}
