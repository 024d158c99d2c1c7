//! Learning rate schedules.

use std::f64::consts::PI;

use serde::{Deserialize, Serialize};

use crate::ModelError;

/// Learning rate as a function of the step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Schedule {
    /// The base rate throughout.
    Constant {},
    /// Multiplied by `gamma` at each of the `at` fractions of the training, such as `[0.333, 0.667]`.
    Step {
        /// Fractions of the training in (0, 1), ascending.
        at: Vec<f64>,
        /// Factor at each of them (Luo et al. 2017: 0.1).
        #[serde(default = "tenth")]
        gamma: f64,
    },
    /// Half a cosine from the base rate to zero.
    Cosine {},
}

impl Default for Schedule {
    fn default() -> Self {
        Self::Constant {}
    }
}

fn tenth() -> f64 {
    0.1
}

impl Schedule {
    /// Checks the settings.
    ///
    /// # Errors
    /// If a fraction is outside (0, 1), they do not ascend, or `gamma` is not a positive number.
    pub fn check(&self) -> Result<(), ModelError> {
        let Self::Step { at, gamma } = self else { return Ok(()) };
        let bad = |key, problem| Err(ModelError::BadSetting { key, problem });
        if !(*gamma > 0.0 && gamma.is_finite()) {
            return bad("gamma", format!("is {gamma}, it must be more than 0"));
        }
        if let Some(wrong) = at.iter().find(|f| !(**f > 0.0 && **f < 1.0)) {
            return bad("at", format!("holds {wrong}, fractions of the training lie in (0, 1)"));
        }
        if at.windows(2).any(|pair| pair[0] >= pair[1]) {
            return bad("at", "does not ascend".into());
        }
        Ok(())
    }

    /// The learning rate of step `step` (from 0) of `total`.
    #[must_use]
    pub fn lr(&self, base: f64, step: usize, total: usize) -> f64 {
        match self {
            Self::Constant {} => base,
            Self::Step { at, gamma } => {
                let passed = at.iter().filter(|&&f| step >= (f * total as f64).round() as usize).count();
                base * gamma.powi(passed as i32)
            }
            Self::Cosine {} => {
                let progress = step as f64 / total.max(1) as f64;
                base * 0.5 * (1.0 + (PI * progress).cos())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_follow_their_schedule() {
        let step = Schedule::Step { at: vec![1.0 / 3.0, 2.0 / 3.0], gamma: 0.1 };
        let rates: Vec<f64> = [0, 39, 40, 79, 80, 119].iter().map(|&s| step.lr(1e-3, s, 120)).collect();
        let expected = [1e-3, 1e-3, 1e-4, 1e-4, 1e-5, 1e-5];
        for (rate, expected) in rates.iter().zip(expected) {
            assert!((rate - expected).abs() < 1e-12, "{rates:?}");
        }
        assert_eq!(Schedule::Cosine {}.lr(0.1, 0, 10), 0.1);
        assert!((Schedule::Cosine {}.lr(0.1, 5, 10) - 0.05).abs() < 1e-15);
        assert_eq!(Schedule::Constant {}.lr(0.1, 9, 10), 0.1);
    }

    #[test]
    fn wrong_settings_are_refused() {
        for (at, gamma) in [(vec![0.0], 0.1), (vec![1.0], 0.1), (vec![0.5, 0.5], 0.1), (vec![0.5], 0.0)] {
            assert!(Schedule::Step { at, gamma }.check().is_err());
        }
        assert!(Schedule::Step { at: vec![0.3, 0.6], gamma: 0.1 }.check().is_ok());
    }
}
