//! The whole command line of thinet with one more selector, `driven-weights`: the norm of a filter times how active its channel is.

use std::process::ExitCode;

use thinet_cli::seed::Seed;
use thinet_cli::selectors::{Evidence, Needs, Selection, Selector, SelectorError};

struct DrivenWeights;

impl Selector for DrivenWeights {
    fn name(&self) -> &'static str {
        "driven-weights"
    }

    fn about(&self) -> &'static str {
        "removes channels with the smallest filter norm times mean absolute activation"
    }

    fn needs(&self) -> Needs {
        Needs::FILTERS | Needs::ACTIVATIONS
    }

    fn select(&self, evidence: &Evidence, keep: usize, _: Seed) -> Result<Selection, SelectorError> {
        let filters = evidence.filters_for(self.name())?;
        let activity = &evidence.activations_for(self.name())?.mean_abs;
        let norm = |j| filters.filter(j).iter().map(|&w| f64::from(w).powi(2)).sum::<f64>().sqrt();
        let scores: Vec<f64> = (0..evidence.channels).map(|j| norm(j) * activity[j]).collect();
        let mut order: Vec<usize> = (0..evidence.channels).collect();
        order.sort_by(|&a, &b| scores[a].total_cmp(&scores[b]));
        Selection::from_order(self.name(), evidence, keep, order, scores)
    }
}

fn main() -> ExitCode {
    thinet_cli::main(&[&DrivenWeights])
}
