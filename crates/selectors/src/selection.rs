//! The result of a selector: the channels that stay, the order of removal, and the scores.

use thinet_graph::ChannelSet;

use crate::{Evidence, SelectorError};

/// A selector's decision for one layer.
#[derive(Clone, Debug, PartialEq)]
pub struct Selection {
    /// The channels that stay.
    pub kept: ChannelSet,
    /// The removed channels, first removed first. Each selector documents its order.
    pub removed: Vec<usize>,
    /// One finite score per channel; each selector documents its meaning.
    pub scores: Vec<f64>,
}

impl Selection {
    /// Removes the channels with the smallest scores until `keep` stay, the lowest index first among equals.
    ///
    /// # Errors
    /// As [`from_order`](Self::from_order).
    pub(crate) fn least_first(
        selector: &'static str,
        evidence: &Evidence,
        keep: usize,
        scores: Vec<f64>,
    ) -> Result<Self, SelectorError> {
        // Positive and negative zero are equal.
        let mut order: Vec<usize> = (0..scores.len()).collect();
        order.sort_by(|&a, &b| (scores[a] + 0.0).total_cmp(&(scores[b] + 0.0)));
        Self::from_order(selector, evidence, keep, order, scores)
    }

    /// Removes channels in `order` (first removed first; may go on past the last one needed) until `keep` stay.
    ///
    /// # Errors
    /// If `keep` is zero or more than the layer has, or if the order has too few or repeated
    /// channels, or there is not one finite score for each channel.
    pub fn from_order(
        selector: &'static str,
        evidence: &Evidence,
        keep: usize,
        mut order: Vec<usize>,
        scores: Vec<f64>,
    ) -> Result<Self, SelectorError> {
        let count = evidence.count_to_remove(selector, keep)?;
        let fault =
            |problem: String| SelectorError::BadOrder { selector, layer: evidence.layer.clone(), problem };

        if order.len() < count {
            return Err(fault(format!("{} channels to remove, {count} are needed", order.len())));
        }
        if scores.len() != evidence.channels || scores.iter().any(|score| !score.is_finite()) {
            return Err(fault(format!(
                "its scores are not one finite number for each of {}",
                evidence.channels
            )));
        }
        order.truncate(count);
        let mut stays = vec![true; evidence.channels];
        for &channel in &order {
            match stays.get_mut(channel) {
                Some(stay) if *stay => *stay = false,
                _ => return Err(fault(format!("channel {channel} is out of range or removed twice"))),
            }
        }
        let kept = (0..evidence.channels).filter(|&channel| stays[channel]).collect();
        let kept = ChannelSet::new(evidence.channels, kept).map_err(|error| fault(error.to_string()))?;
        Ok(Self { kept, removed: order, scores })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from_order(keep: usize, order: &[usize], scores: &[f64]) -> Result<Selection, SelectorError> {
        let evidence = Evidence::none("conv1", 4);
        Selection::from_order("first-k", &evidence, keep, order.to_vec(), scores.to_vec())
    }

    #[test]
    fn an_order_is_followed_as_far_as_needed() {
        let selection = from_order(2, &[3, 0, 2, 1], &[0.0; 4]).unwrap();
        assert_eq!(selection.removed, [3, 0]);
        assert_eq!(selection.kept.kept(), [1, 2]);
    }

    #[test]
    fn an_answer_that_is_no_order_is_a_fault_of_the_selector() {
        let problem = |order: &[usize], scores: &[f64]| from_order(2, order, scores).unwrap_err().to_string();
        let prefix = "selector \"first-k\" gave no valid order of layer \"conv1\": ";
        for (order, scores, problem_text) in [
            (&[1][..], &[0.0; 4][..], "1 channels to remove, 2 are needed"),
            (&[1, 1], &[0.0; 4], "channel 1 is out of range or removed twice"),
            (&[1, 4], &[0.0; 4], "channel 4 is out of range or removed twice"),
            (&[1, 2], &[0.0; 3], "its scores are not one finite number for each of 4"),
            (&[1, 2], &[f64::NAN; 4], "its scores are not one finite number for each of 4"),
        ] {
            assert_eq!(problem(order, scores), format!("{prefix}{problem_text}"));
        }
    }
}
