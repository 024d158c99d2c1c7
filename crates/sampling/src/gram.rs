//! The streamed product G = XᵀX, in float64: memory does not grow with the number of rows.

use tch::{Device, Kind, Tensor, no_grad};
use thinet_selectors::Moments;

use crate::SamplingError;
use crate::error::OfLayer;

/// Rows buffered for one matrix product. The grouping of sums depends on this alone, never on the batch size.
const BUFFER_ROWS: usize = 1024;
/// Columns of a block of G. Only blocks on and above the diagonal are computed: about half of the work for a wide layer.
const BLOCK: usize = 64;

/// Sums XᵀX of rows `x: [C]` that come one after another, in a buffer of fixed size.
#[derive(Debug)]
pub struct GramSum {
    layer: String,
    channels: usize,
    device: Device,
    /// `[waiting, C]`.
    buffer: Vec<f64>,
    /// Rows already in `gram`.
    rows: u64,
    /// `[C, C]`; only the upper triangle is meaningful.
    gram: Tensor,
}

impl GramSum {
    /// An empty sum for rows of `channels` values, multiplied on `device`; `layer` is for messages.
    ///
    /// # Errors
    /// If the device has not enough memory.
    pub fn new(layer: &str, channels: usize, device: Device) -> Result<Self, SamplingError> {
        let size = channels as i64;
        let gram = Tensor::f_zeros([size, size], (Kind::Double, device)).of_layer(layer)?;
        let buffer = Vec::with_capacity(BUFFER_ROWS * channels);
        Ok(Self { layer: layer.to_owned(), channels, device, buffer, rows: 0, gram })
    }

    /// Adds one row.
    ///
    /// # Errors
    /// If the row is not of C values, or libtorch refuses the product.
    pub fn push(&mut self, row: &[f64]) -> Result<(), SamplingError> {
        if row.len() != self.channels {
            let problem = format!("a row of {} contributions, not {}", row.len(), self.channels);
            return Err(SamplingError::input(&self.layer, problem));
        }
        self.buffer.extend_from_slice(row);
        if self.buffer.len() == BUFFER_ROWS * self.channels { self.flush() } else { Ok(()) }
    }

    /// The moments of all rows; exactly symmetric.
    ///
    /// # Errors
    /// If there were no rows, or a sum is not finite; names the layer.
    pub fn finish(mut self) -> Result<Moments, SamplingError> {
        self.flush()?;
        let c = self.channels;
        let mut gram = vec![0.0; c * c];
        self.gram.f_copy_data(&mut gram, c * c).of_layer(&self.layer)?;
        for i in 0..c {
            for j in 0..i {
                gram[i * c + j] = gram[j * c + i];
            }
        }
        let moments = Moments::new(c, self.rows, gram);
        moments.map_err(|source| SamplingError::Evidence { layer: self.layer, source })
    }

    fn flush(&mut self) -> Result<(), SamplingError> {
        no_grad(|| self.multiply()).of_layer(&self.layer)?;
        self.rows += (self.buffer.len() / self.channels) as u64;
        self.buffer.clear();
        Ok(())
    }

    fn multiply(&mut self) -> Result<(), tch::TchError> {
        let channels = self.channels as i64;
        let rows = Tensor::f_from_slice(&self.buffer)?.f_to(self.device)?.f_reshape([-1, channels])?;
        for first in (0..self.channels).step_by(BLOCK) {
            let height = BLOCK.min(self.channels - first) as i64;
            let (first, width) = (first as i64, channels - first as i64);
            let left = rows.f_narrow(1, first, height)?.f_transpose(0, 1)?;
            let right = rows.f_narrow(1, first, width)?;
            let mut block = self.gram.f_narrow(0, first, height)?.f_narrow(1, first, width)?;
            let _ = block.f_addmm_(&left, &right)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_nets::{host, random};

    fn rows(count: usize, channels: usize) -> Vec<f64> {
        host(&random(&[count as i64, channels as i64], 1)).into_iter().map(f64::from).collect()
    }

    fn sum(rows: &[f64], channels: usize) -> GramSum {
        let mut sum = GramSum::new("conv", channels, Device::Cpu).unwrap();
        rows.chunks_exact(channels).for_each(|row| sum.push(row).unwrap());
        sum
    }

    #[test]
    fn the_sum_is_the_product_of_the_stored_rows() {
        for (count, channels) in
            [(1, 1), (7, 5), (BUFFER_ROWS, 3), (2 * BUFFER_ROWS + 5, 2), (40, 2 * BLOCK + 3)]
        {
            let rows = rows(count, channels);
            let moments = sum(&rows, channels).finish().unwrap();
            let plain = Moments::from_rows(channels, &rows).unwrap();
            assert_eq!(moments.rows(), count as u64);
            for i in 0..channels {
                for j in 0..channels {
                    let room = 1e-12 * (plain.g(i, i) * plain.g(j, j)).sqrt();
                    assert!((moments.g(i, j) - plain.g(i, j)).abs() <= room, "{i} {j}");
                    assert_eq!(moments.g(i, j).to_bits(), moments.g(j, i).to_bits());
                }
            }
        }
    }

    #[test]
    fn the_buffer_does_not_grow() {
        let rows = rows(3 * BUFFER_ROWS + 1, 2);
        let sum = sum(&rows, 2);
        assert_eq!(sum.buffer.capacity(), BUFFER_ROWS * 2);
        assert_eq!((sum.rows as usize, sum.buffer.len()), (3 * BUFFER_ROWS, 2));
    }

    #[test]
    fn no_rows_and_values_that_are_not_finite_are_refused_by_layer() {
        let message = sum(&[], 2).finish().unwrap_err().to_string();
        assert_eq!(message, "calibration of layer \"conv\": contribution moments saw no rows");
        let message = sum(&[1.0, f64::NAN], 2).finish().unwrap_err().to_string();
        assert!(
            message.starts_with("calibration of layer \"conv\": contribution moments hold NaN"),
            "{message}"
        );
        let message = sum(&[1e200, 0.0], 2).finish().unwrap_err().to_string();
        assert!(
            message.starts_with("calibration of layer \"conv\": contribution moments hold inf"),
            "{message}"
        );
        let message = sum(&[], 2).push(&[1.0]).unwrap_err().to_string();
        assert_eq!(message, "calibration of layer \"conv\": a row of 1 contributions, not 2");
    }
}
