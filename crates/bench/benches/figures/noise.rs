//! Seeded input values. No measured time depends on them.

use anyhow::Result;
use rand::RngExt;
use tch::Tensor;
use thinet_models::MemoryFormat;
use thinet_seed::Seed;

/// m of the selection and of the moments.
pub(crate) const ROWS: usize = 100_000;
/// C of the selection and of the moments.
pub(crate) const CHANNELS: usize = 512;

/// Contributions in the layout of a calibration pass, row-major `[ROWS, CHANNELS]`, uniform in [-1, 1).
pub(crate) fn contributions() -> Vec<f64> {
    let mut rng = Seed::root(0).child("contributions").rng();
    (0..ROWS * CHANNELS).map(|_| rng.random_range(-1.0..1.0)).collect()
}

/// Images `[n, c, h, w]`, uniform in [-1, 1).
pub(crate) fn images(count: usize, shape: [usize; 3], format: MemoryFormat) -> Result<Tensor> {
    let [c, h, w] = shape.map(|size| size as i64);
    let mut rng = Seed::root(0).child("images").rng();
    let values: Vec<f32> =
        (0..count * shape.iter().product::<usize>()).map(|_| rng.random_range(-1.0..1.0)).collect();
    let images = Tensor::f_from_slice(&values)?.f_view([count as i64, c, h, w])?;
    Ok(format.apply(&images)?)
}
