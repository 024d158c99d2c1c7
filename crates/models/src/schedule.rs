//! Learning rate schedules.

use std::f64::consts::PI;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::ModelError;

/// Learning rate as a function of the step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Schedule {
    /// The base rate throughout.
    Constant {},
    /// Multiplied by `gamma` at each of the `at` fractions of the training, such as `[0.333, 0.667]`.
    Step {
        /// Fractions of the training in (0, 1), ascending. Required.
        at: Vec<f64>,
        /// Factor at each of them (Luo et al. 2017: 0.1), more than 0. Default: 0.1.
        #[serde(default = "tenth")]
        gamma: f64,
    },
    /// Half a cosine from the base rate to zero.
    Cosine {},
    /// Multiplied by `gamma` at the start of every epoch from `from_epoch` on: the base rate times gamma^(e + 1 − `from_epoch`) in
    /// epoch e. Epochs are passes over the training images and counted from 0.
    #[serde(rename_all = "kebab-case")]
    Exponential {
        /// Factor from each epoch to the next, more than 0. Required.
        gamma: f64,
        /// The first epoch with a smaller rate, at least 1; 1 is torch's `ExponentialLR`. Default: 1.
        #[serde(default = "second", skip_serializing_if = "is_second")]
        from_epoch: usize,
    },
}

impl Default for Schedule {
    fn default() -> Self {
        Self::Constant {}
    }
}

fn tenth() -> f64 {
    0.1
}

fn second() -> usize {
    1
}

fn is_second(epoch: &usize) -> bool {
    *epoch == second()
}

impl Schedule {
    /// Checks the settings.
    ///
    /// # Errors
    /// If a fraction is outside (0, 1), they do not ascend, `gamma` is not a positive number, or `from-epoch` is 0.
    pub fn check(&self) -> Result<(), ModelError> {
        let bad = |key, problem| Err(ModelError::BadSetting { key, problem });
        let (Self::Step { gamma, .. } | Self::Exponential { gamma, .. }) = self else { return Ok(()) };
        if !(*gamma > 0.0 && gamma.is_finite()) {
            return bad("gamma", format!("is {gamma}, it must be more than 0"));
        }
        let at = match self {
            Self::Step { at, .. } => at,
            Self::Exponential { from_epoch: 0, .. } => {
                return bad(
                    "from-epoch",
                    "is 0, but epoch 0 has the recipe's own rate; 1 is the least".into(),
                );
            }
            _ => return Ok(()),
        };
        if let Some(wrong) = at.iter().find(|f| !(**f > 0.0 && **f < 1.0)) {
            return bad("at", format!("holds {wrong}, fractions of the training lie in (0, 1)"));
        }
        if at.windows(2).any(|pair| pair[0] >= pair[1]) {
            return bad("at", "does not ascend".into());
        }
        Ok(())
    }

    /// The learning rate of step `step` (from 0) of `total`, with `epoch` steps in an epoch.
    #[must_use]
    pub fn lr(&self, base: f64, step: usize, total: usize, epoch: usize) -> f64 {
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
            Self::Exponential { gamma, from_epoch } => {
                let falls = (step / epoch.max(1) + 1).saturating_sub(*from_epoch);
                base * gamma.powi(i32::try_from(falls).unwrap_or(i32::MAX))
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
        let rates: Vec<f64> = [0, 39, 40, 79, 80, 119].iter().map(|&s| step.lr(1e-3, s, 120, 10)).collect();
        let expected = [1e-3, 1e-3, 1e-4, 1e-4, 1e-5, 1e-5];
        for (rate, expected) in rates.iter().zip(expected) {
            assert!((rate - expected).abs() < 1e-12, "{rates:?}");
        }
        assert_eq!(Schedule::Cosine {}.lr(0.1, 0, 10, 2), 0.1);
        assert!((Schedule::Cosine {}.lr(0.1, 5, 10, 2) - 0.05).abs() < 1e-15);
        assert_eq!(Schedule::Constant {}.lr(0.1, 9, 10, 2), 0.1);
    }

    #[test]
    fn wrong_settings_are_refused() {
        for (at, gamma) in [(vec![0.0], 0.1), (vec![1.0], 0.1), (vec![0.5, 0.5], 0.1), (vec![0.5], 0.0)] {
            assert!(Schedule::Step { at, gamma }.check().is_err());
        }
        assert!(Schedule::Step { at: vec![0.3, 0.6], gamma: 0.1 }.check().is_ok());
        for (gamma, from_epoch) in [(0.95, 0), (0.0, 1), (f64::NAN, 1), (f64::INFINITY, 1), (-0.5, 1)] {
            assert!(
                Schedule::Exponential { gamma, from_epoch }.check().is_err(),
                "{gamma} from {from_epoch}"
            );
        }
        assert!(Schedule::Exponential { gamma: 0.95, from_epoch: 1 }.check().is_ok());
    }

    #[test]
    fn the_first_smaller_rate_is_in_the_epoch_that_is_named() {
        let text = r#"{"kind":"exponential","gamma":0.5,"from-epoch":3}"#;
        let schedule: Schedule = serde_json::from_str(text).unwrap();
        let of_epoch = |epoch: usize| [10 * epoch, 10 * epoch + 9].map(|step| schedule.lr(8.0, step, 60, 10));
        let rates: Vec<[f64; 2]> = (0..6).map(of_epoch).collect();
        assert_eq!(rates, [[8.0; 2], [8.0; 2], [8.0; 2], [4.0; 2], [2.0; 2], [1.0; 2]]);
        assert_eq!(serde_json::to_string(&schedule).unwrap(), text);
        let short = r#"{"kind":"exponential","gamma":0.5}"#;
        let schedule: Schedule = serde_json::from_str(short).unwrap();
        assert_eq!([9, 10, 20].map(|step| schedule.lr(8.0, step, 60, 10)), [8.0, 4.0, 2.0]);
        assert_eq!(serde_json::to_string(&schedule).unwrap(), short);
    }
}
