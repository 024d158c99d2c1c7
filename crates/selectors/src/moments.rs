//! Contribution moments: the Gram matrix G = XᵀX of what each channel adds to the outputs of the next layer. Equations 6
//! and 7 of Luo et al. 2017 need X through nothing else.

use crate::{EvidenceError, EvidenceKind};

/// Second moments of the contributions `x: [m, C]` of a layer's channels to sampled outputs of the next layer.
///
/// As y = X·1 holds for every sampled output (bias taken off), Xᵀy = G·1 and yᵀy = 1ᵀG·1 need no storage of their own.
/// The matrix is square, finite and exactly symmetric.
#[derive(Clone, Debug, PartialEq)]
pub struct Moments {
    channels: usize,
    rows: u64,
    gram: Vec<f64>,
}

const KIND: &str = EvidenceKind::Moments.name();

/// Largest difference between G_ij and G_ji, relative to √(G_ii·G_jj): well above the rounding of a sum of 10⁷ products.
const ASYMMETRY: f64 = 1e-8;

impl Moments {
    /// Checks and wraps the sum of products of `rows` rows: `gram` is row-major `[C, C]`.
    ///
    /// Rounding may leave a matrix product slightly asymmetric; the mean of both halves is stored.
    ///
    /// # Errors
    /// If there are no rows or no channels, if `gram` is not C×C or not symmetric, if its diagonal is negative, if a
    /// value is not finite or so large that sums would overflow.
    pub fn new(channels: usize, rows: u64, mut gram: Vec<f64>) -> Result<Self, EvidenceError> {
        if let Some(problem) = find_problem(channels, rows, &gram) {
            return Err(EvidenceError { kind: KIND, problem });
        }
        for i in 0..channels {
            for j in 0..i {
                let mean = 0.5 * gram[i * channels + j] + 0.5 * gram[j * channels + i];
                gram[i * channels + j] = mean;
                gram[j * channels + i] = mean;
            }
        }
        Ok(Self { channels, rows, gram })
    }

    /// The plain version for tests: the moments of stored rows, `x` row-major `[m, C]`.
    ///
    /// # Errors
    /// As [`Moments::new`], and if `x` is not a whole number of rows.
    pub fn from_rows(channels: usize, x: &[f64]) -> Result<Self, EvidenceError> {
        if channels == 0 || !x.len().is_multiple_of(channels) {
            let problem = format!("cannot be made of {} values in rows of {channels}", x.len());
            return Err(EvidenceError { kind: KIND, problem });
        }
        let mut gram = vec![0.0; channels * channels];
        for row in x.chunks_exact(channels) {
            for (&left, sums) in row.iter().zip(gram.chunks_exact_mut(channels)) {
                for (sum, &right) in sums.iter_mut().zip(row) {
                    *sum += left * right;
                }
            }
        }
        Self::new(channels, (x.len() / channels) as u64, gram)
    }

    /// C, the number of channels.
    #[must_use]
    pub fn channels(&self) -> usize {
        self.channels
    }

    /// m, the rows that were summed.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// G_ij.
    #[must_use]
    pub fn g(&self, i: usize, j: usize) -> f64 {
        self.gram[i * self.channels + j]
    }

    /// Row `i` of G, which is also its column `i`.
    #[must_use]
    pub fn row(&self, i: usize) -> &[f64] {
        &self.gram[i * self.channels..(i + 1) * self.channels]
    }

    /// ‖X·u‖² = uᵀG·u; a negative value is rounding and becomes 0.
    ///
    /// # Panics
    /// If `u` is longer than C.
    #[must_use]
    pub fn squared_norm(&self, u: &[f64]) -> f64 {
        let mut total = 0.0;
        for (i, &left) in u.iter().enumerate().filter(|&(_, &left)| left != 0.0) {
            let product = self.row(i).iter().zip(u).fold(0.0, |sum, (g, right)| sum + g * right);
            total += left * product;
        }
        total.max(0.0)
    }

    /// The diagonal of G: the energy of each channel.
    #[must_use]
    pub fn diagonal(&self) -> Vec<f64> {
        (0..self.channels).map(|i| self.g(i, i)).collect()
    }

    /// b = Xᵀy = G·1.
    #[must_use]
    pub fn b(&self) -> Vec<f64> {
        self.gram.chunks_exact(self.channels).map(|row| row.iter().fold(0.0, |sum, g| sum + g)).collect()
    }

    /// c = yᵀy = 1ᵀG·1.
    #[must_use]
    pub fn c(&self) -> f64 {
        self.b().iter().fold(0.0, |sum, b| sum + b)
    }
}

fn find_problem(channels: usize, rows: u64, gram: &[f64]) -> Option<String> {
    if rows == 0 {
        return Some("saw no rows".to_owned());
    }
    if channels == 0 || gram.len() != channels * channels {
        return Some(format!("of {channels} channels cannot have {} entries", gram.len()));
    }
    let at = |i: usize, j: usize| gram[i * channels + j];
    if let Some(bad) = gram.iter().position(|g| !g.is_finite()) {
        return Some(format!("hold {} for channels {} and {}", gram[bad], bad / channels, bad % channels));
    }
    let magnitude = gram.iter().fold(0.0, |sum, g| sum + g.abs());
    if magnitude > f64::MAX / 4.0 {
        return Some("are too large to be summed".to_owned());
    }
    if let Some(i) = (0..channels).find(|&i| at(i, i) < 0.0) {
        return Some(format!("hold the negative square {} for channel {i}", at(i, i)));
    }
    for i in 0..channels {
        for j in 0..i {
            if (at(i, j) - at(j, i)).abs() > ASYMMETRY * at(i, i).sqrt() * at(j, j).sqrt() {
                return Some(format!(
                    "are not symmetric: {} and {} for channels {i} and {j}",
                    at(i, j),
                    at(j, i)
                ));
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use nalgebra::DMatrix;
    use proptest::prelude::*;

    use super::*;

    fn problem(channels: usize, rows: u64, gram: &[f64]) -> String {
        Moments::new(channels, rows, gram.to_vec()).unwrap_err().to_string()
    }

    proptest! {
        #[test]
        fn gram_and_its_sums_equal_those_of_the_rows(
            (channels, x) in (1..8_usize, 1..20_usize).prop_flat_map(|(channels, rows)| {
                (Just(channels), prop::collection::vec(-1.0..1.0, channels * rows))
            }),
        ) {
            let moments = Moments::from_rows(channels, &x).unwrap();
            let x = DMatrix::from_row_slice(x.len() / channels, channels, &x);
            let y = x.column_sum();
            let (gram, b) = (x.transpose() * &x, x.transpose() * &y);
            let close = |a: f64, b: f64| (a - b).abs() <= 1e-12 * (x.len() * channels) as f64;
            prop_assert_eq!(moments.rows(), x.nrows() as u64);
            prop_assert!(close(moments.c(), y.norm_squared()));
            for i in 0..channels {
                prop_assert!(close(moments.b()[i], b[i]));
                prop_assert_eq!(moments.diagonal()[i], moments.row(i)[i]);
                for j in 0..channels {
                    prop_assert!(close(moments.g(i, j), gram[(i, j)]));
                }
            }
        }
    }

    #[test]
    fn the_largest_moments_are_a_quarter_of_what_a_float_can_hold() {
        let largest = f64::MAX / 4.0;
        assert!(Moments::new(1, 1, vec![largest]).is_ok());
        assert!(Moments::new(1, 1, vec![largest.next_up()]).is_err());
    }

    #[test]
    fn rounding_asymmetry_is_evened_out() {
        let moments = Moments::new(2, 5, vec![4.0, 1.0, 1.0 + 1e-9, 1.0]).unwrap();
        assert_eq!(moments.g(0, 1), moments.g(1, 0));
    }

    #[test]
    fn what_no_rows_can_give_is_refused() {
        assert_eq!(problem(1, 0, &[1.0]), "contribution moments saw no rows");
        assert_eq!(problem(2, 1, &[1.0; 3]), "contribution moments of 2 channels cannot have 3 entries");
        assert_eq!(problem(0, 1, &[]), "contribution moments of 0 channels cannot have 0 entries");
        assert_eq!(
            problem(2, 1, &[1.0, f64::NAN, f64::NAN, 1.0]),
            "contribution moments hold NaN for channels 0 and 1"
        );
        assert_eq!(
            problem(2, 1, &[1.0, 0.0, 0.0, f64::INFINITY]),
            "contribution moments hold inf for channels 1 and 1"
        );
        assert_eq!(problem(1, 1, &[f64::MAX]), "contribution moments are too large to be summed");
        assert_eq!(
            problem(2, 1, &[1.0, 0.0, 0.0, -1.0]),
            "contribution moments hold the negative square -1 for channel 1"
        );
        assert_eq!(
            problem(2, 1, &[1.0, 0.5, 0.4, 1.0]),
            "contribution moments are not symmetric: 0.4 and 0.5 for channels 1 and 0"
        );
        let error = Moments::from_rows(3, &[1.0; 4]).unwrap_err().to_string();
        assert_eq!(error, "contribution moments cannot be made of 4 values in rows of 3");
    }
}
