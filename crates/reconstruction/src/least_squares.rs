//! Least squares from products: symmetric systems by Cholesky, with the smallest ridge under which every pivot is sound.

/// Smallest ratio of a Cholesky pivot to its diagonal entry. Less is rounding of the sampled sums.
const SMALLEST_PIVOT: f64 = 1e-10;
const FIRST_RIDGE: f64 = 1e-9;
const LARGEST_RIDGE: f64 = 1.0;

/// A factor of a matrix of products.
pub(crate) enum Factor {
    /// The matrix is all zero: nothing was seen.
    OfZero,
    /// The rows of L, with L·Lᵀ = A + ridge·I.
    Lower(Vec<Vec<f64>>),
}

/// Factors A, given by its lower triangle, row by row. Where it is singular or nearly so, ρ·mean(diag A) is added to its diagonal, with
/// ρ = 1e-9, 1e-8, … until every pivot is sound; `None` if ρ = 1 does not suffice, so that A is no matrix of products.
pub(crate) fn factor(lower: &[Vec<f64>]) -> Option<Factor> {
    let mean =
        lower.iter().enumerate().map(|(i, row)| row[i]).fold(0.0, |sum, g| sum + g) / lower.len() as f64;
    if mean == 0.0 {
        return Some(Factor::OfZero);
    }
    let mut ridge = 0.0;
    while ridge <= LARGEST_RIDGE {
        if let Some(factor) = cholesky(lower, ridge * mean) {
            return Some(Factor::Lower(factor));
        }
        ridge = if ridge == 0.0 { FIRST_RIDGE } else { 10.0 * ridge };
    }
    None
}

/// The rows of L with L·Lᵀ = A + ridge·I, A given by its lower triangle; `None` if a pivot is not sound.
fn cholesky(lower: &[Vec<f64>], ridge: f64) -> Option<Vec<Vec<f64>>> {
    let mut factor: Vec<Vec<f64>> = Vec::with_capacity(lower.len());
    for (i, entries) in lower.iter().enumerate() {
        let mut row = Vec::with_capacity(i + 1);
        for (entry, above) in entries[..i].iter().zip(&factor) {
            let j = row.len();
            row.push((entry - dot(&row, &above[..j])) / above[j]);
        }
        let diagonal = entries[i] + ridge;
        let pivot = diagonal - dot(&row, &row);
        // NaN is not sound either; the diagonal is never negative, so a sound pivot is positive.
        let is_sound = pivot > SMALLEST_PIVOT * diagonal;
        if !is_sound {
            return None;
        }
        row.push(pivot.sqrt());
        factor.push(row);
    }
    Some(factor)
}

/// x with L·Lᵀ·x = b.
pub(crate) fn solve(factor: &[Vec<f64>], mut b: Vec<f64>) -> Vec<f64> {
    for (i, row) in factor.iter().enumerate() {
        b[i] = (b[i] - dot(&row[..i], &b[..i])) / row[i];
    }
    for (i, row) in factor.iter().enumerate().rev() {
        b[i] /= row[i];
        let x = b[i];
        for (value, l) in b[..i].iter_mut().zip(row) {
            *value -= l * x;
        }
    }
    b
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).fold(0.0, |sum, (a, b)| sum + a * b)
}
