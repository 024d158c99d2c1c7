//! The loss curve of a training in progress: means over windows of equal length.

use thinet_report::records::LossCurve;

/// Number of windows of a training, or of its steps if they are fewer.
const WINDOWS: u64 = 20;

/// The curve so far, and the window in progress.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct LossWindows {
    curve: LossCurve,
    /// Sum of the losses of the window in progress.
    sum: f64,
    /// Number of losses in it.
    count: u64,
}

impl LossWindows {
    /// The curve before the first of `steps` steps.
    pub(crate) fn new(steps: u64) -> Self {
        let window = steps.div_ceil(WINDOWS).max(1);
        Self { curve: LossCurve { steps, window, losses: Vec::new() }, sum: 0.0, count: 0 }
    }

    /// Adds the loss of a step; steps are counted from 0 and added in their order. A step whose images were all left out has no loss: if it
    /// ends a window, the window ends with the next loss.
    pub(crate) fn add(&mut self, step: u64, loss: f64) {
        let LossCurve { steps, window, losses } = &mut self.curve;
        // Windows that ended without their last loss.
        while (losses.len() as u64 + 1) * *window <= step {
            let mean = if self.count > 0 { self.sum / self.count as f64 } else { loss };
            losses.push(mean);
            (self.sum, self.count) = (0.0, 0);
        }
        self.sum += loss;
        self.count += 1;
        if (step + 1).is_multiple_of(*window) || step + 1 == *steps {
            losses.push(self.sum / self.count as f64);
            (self.sum, self.count) = (0.0, 0);
        }
    }

    /// The curve without the window in progress.
    pub(crate) fn into_curve(self) -> LossCurve {
        self.curve
    }

    /// The curve for a checkpoint: sum and count of the window in progress, then the losses.
    pub(crate) fn to_numbers(&self) -> Vec<f64> {
        let mut numbers = vec![self.sum, self.count as f64];
        numbers.extend(&self.curve.losses);
        numbers
    }

    /// The curve of [`to_numbers`](Self::to_numbers); `None` if these are not the numbers of a training of `steps` steps.
    pub(crate) fn from_numbers(steps: u64, numbers: &[f64]) -> Option<Self> {
        let mut windows = Self::new(steps);
        let [sum, count, ref losses @ ..] = *numbers else { return None };
        let fits = losses.len() as u64 <= steps.div_ceil(windows.curve.window)
            && count >= 0.0
            && count <= windows.curve.window as f64;
        windows.curve.losses = losses.to_vec();
        (windows.sum, windows.count) = (sum, count as u64);
        fits.then_some(windows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn curve(steps: u64, losses: impl IntoIterator<Item = (u64, f64)>) -> LossCurve {
        let mut windows = LossWindows::new(steps);
        for (step, loss) in losses {
            windows.add(step, loss);
            // Every state survives a checkpoint.
            windows = LossWindows::from_numbers(steps, &windows.to_numbers()).unwrap();
        }
        windows.into_curve()
    }

    #[test]
    fn each_point_is_the_mean_of_its_window() {
        let found = curve(45, (0..45).map(|step| (step, step as f64)));
        assert_eq!((found.steps, found.window, found.losses.len()), (45, 3, 15));
        assert_eq!(found.losses[..2], [1.0, 4.0]);
        let found = curve(41, (0..41).map(|step| (step, step as f64)));
        let points: Vec<(u64, f64)> = found.points().collect();
        assert_eq!((points[0], points[13]), ((3, 1.0), (41, 39.5)));
    }

    #[test]
    fn a_short_training_has_a_point_a_step() {
        let found = curve(3, [(0, 3.0), (1, 2.0), (2, 1.0)]);
        assert_eq!(found.points().collect::<Vec<_>>(), [(1, 3.0), (2, 2.0), (3, 1.0)]);
    }

    #[test]
    fn a_step_without_a_loss_leaves_the_other_points_where_they_are() {
        let found =
            curve(40, (0..40).filter(|step| ![3, 20, 21].contains(step)).map(|step| (step, step as f64)));
        assert_eq!(found.losses.len(), 20);
        // The window of step 3 has one loss; that of steps 20 and 21 has none and takes the next one.
        assert_eq!(
            (found.losses[0], found.losses[1], found.losses[10], found.losses[11]),
            (0.5, 2.0, 22.0, 22.5)
        );
    }

    #[test]
    fn numbers_of_another_training_are_refused() {
        assert_eq!(LossWindows::from_numbers(40, &[0.0]), None);
        assert_eq!(LossWindows::from_numbers(40, &[0.0, 3.0]), None);
        assert_eq!(LossWindows::from_numbers(40, &[0.0; 23]), None);
        assert!(LossWindows::from_numbers(40, &[0.0; 22]).is_some());
    }
}
