//! The evidence about a layer that a selector reads: weights of filters, scales, zero counts, activation statistics,
//! contribution moments and gradient products.

use crate::{EvidenceError, EvidenceKind, Moments, Needs, SelectorError};

/// The weights of a layer's filters.
#[derive(Clone, Debug, PartialEq)]
pub struct Filters {
    /// C, the filters of the layer.
    pub channels: usize,
    /// Weights per filter: input channels times kernel height times kernel width.
    pub len: usize,
    /// Row-major `[C, len]`.
    pub values: Vec<f32>,
}

impl Filters {
    /// The weights of filter `j`.
    #[must_use]
    pub fn filter(&self, j: usize) -> &[f32] {
        &self.values[j * self.len..(j + 1) * self.len]
    }

    fn check(&self, channels: usize) -> Result<(), EvidenceError> {
        const KIND: EvidenceKind = EvidenceKind::Filters;
        check_channels(KIND, self.channels, channels)?;
        let problem = if self.values.len() != self.channels * self.len {
            format!(
                "hold {} values, {} filters of {} need {}",
                self.values.len(),
                channels,
                self.len,
                channels * self.len
            )
        } else if let Some(at) = self.values.iter().position(|w| !w.is_finite()) {
            format!("hold {} in filter {}", self.values[at], at / self.len)
        } else {
            return Ok(());
        };
        Err(EvidenceError { kind: KIND.name(), problem })
    }
}

/// |γ| of the first batch norm behind a layer: how much each channel is scaled after its normalisation.
#[derive(Clone, Debug, PartialEq)]
pub struct BatchNormScales {
    /// `[C]`, without a unit, at least 0.
    pub scales: Vec<f32>,
}

impl BatchNormScales {
    fn check(&self, channels: usize) -> Result<(), EvidenceError> {
        const KIND: EvidenceKind = EvidenceKind::BatchNormScales;
        check_channels(KIND, self.scales.len(), channels)?;
        match self.scales.iter().position(|scale| !(scale.is_finite() && *scale >= 0.0)) {
            Some(j) => {
                let problem = format!("hold {} for channel {j}", self.scales[j]);
                Err(EvidenceError { kind: KIND.name(), problem })
            }
            None => Ok(()),
        }
    }
}

/// How often each channel of a layer was exactly zero after its activation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ZeroCounts {
    /// Zeros seen in each channel, over images and positions.
    pub zeros: Vec<u64>,
    /// Values seen in each channel, the same for all.
    pub total: u64,
}

impl ZeroCounts {
    fn check(&self, channels: usize) -> Result<(), EvidenceError> {
        const KIND: EvidenceKind = EvidenceKind::Zeros;
        check_channels(KIND, self.zeros.len(), channels)?;
        let problem = if self.total == 0 {
            "saw no values".to_owned()
        } else if let Some(j) = self.zeros.iter().position(|&zeros| zeros > self.total) {
            format!("name {} zeros among the {} values of channel {j}", self.zeros[j], self.total)
        } else {
            return Ok(());
        };
        Err(EvidenceError { kind: KIND.name(), problem })
    }
}

/// Statistics of each channel of a layer after its activation, over every position of every calibration image (not over
/// sampled positions), in the units of the activation.
#[derive(Clone, Debug, PartialEq)]
pub struct ActivationStats {
    /// The mean, `[C]`.
    pub mean: Vec<f64>,
    /// The mean of the absolute values, `[C]`. After a ReLU it is the mean.
    pub mean_abs: Vec<f64>,
    /// The largest value, `[C]`.
    pub max: Vec<f64>,
    /// Values seen in each channel, the same for all.
    pub total: u64,
}

impl ActivationStats {
    fn check(&self, channels: usize) -> Result<(), EvidenceError> {
        const KIND: EvidenceKind = EvidenceKind::Activations;
        for values in [&self.mean, &self.mean_abs, &self.max] {
            check_channels(KIND, values.len(), channels)?;
        }
        let wrong = |problem| Err(EvidenceError { kind: KIND.name(), problem });
        if self.total == 0 {
            return wrong("saw no values".to_owned());
        }
        for (name, values) in
            [("mean", &self.mean), ("mean of absolute values", &self.mean_abs), ("maximum", &self.max)]
        {
            if let Some(j) = values.iter().position(|value| !value.is_finite()) {
                return wrong(format!("hold {} as {name} of channel {j}", values[j]));
            }
        }
        if let Some(j) = self.mean_abs.iter().position(|&mean| mean < 0.0) {
            return wrong(format!("hold {} as mean of absolute values of channel {j}", self.mean_abs[j]));
        }
        Ok(())
    }
}

/// How the loss of each calibration image changes with a channel's activation, to first order: the activation times the gradient of the
/// image's own loss (cross-entropy, in nats) by it, averaged over all positions of the channel's map. The same number is the
/// derivative of the loss by the logarithm of a factor on the whole map, divided by the number of positions (Molchanov et al.
/// 2017, eq. 6 and 7).
#[derive(Clone, Debug, PartialEq)]
pub struct GradientProducts {
    /// The mean over images, `[C]`.
    pub taylor: Vec<f64>,
    /// The mean over images of the absolute value, `[C]` (eq. 8).
    pub taylor_abs: Vec<f64>,
    pub images: u64,
}

impl GradientProducts {
    fn check(&self, channels: usize) -> Result<(), EvidenceError> {
        const KIND: EvidenceKind = EvidenceKind::Gradients;
        let wrong = |problem| Err(EvidenceError { kind: KIND.name(), problem });
        if self.images == 0 {
            return wrong("saw no images".to_owned());
        }
        for (name, values, least) in
            [("mean", &self.taylor, f64::NEG_INFINITY), ("mean of absolute values", &self.taylor_abs, 0.0)]
        {
            check_channels(KIND, values.len(), channels)?;
            if let Some(j) = values.iter().position(|&value| !value.is_finite() || value < least) {
                return wrong(format!("hold {} as {name} of channel {j}", values[j]));
            }
        }
        Ok(())
    }
}

/// The evidence about one layer, of some kinds.
#[derive(Clone, Debug, PartialEq)]
pub struct Evidence {
    /// The layer's name, for messages.
    pub layer: String,
    /// C, the output channels of the layer.
    pub channels: usize,
    pub filters: Option<Filters>,
    pub batch_norm_scales: Option<BatchNormScales>,
    pub zeros: Option<ZeroCounts>,
    pub activations: Option<ActivationStats>,
    pub moments: Option<Moments>,
    pub gradients: Option<GradientProducts>,
}

impl Evidence {
    /// Empty evidence about a layer of `channels` channels.
    #[must_use]
    pub fn none(layer: &str, channels: usize) -> Self {
        Self {
            layer: layer.to_owned(),
            channels,
            filters: None,
            batch_norm_scales: None,
            zeros: None,
            activations: None,
            moments: None,
            gradients: None,
        }
    }

    /// A copy that holds the kinds in `needs` and no others.
    #[must_use]
    pub fn only(&self, needs: Needs) -> Self {
        fn cut<T: Clone>(held: Option<&T>, kind: EvidenceKind, needs: Needs) -> Option<T> {
            held.filter(|_| needs.contains(kind)).cloned()
        }
        Self {
            layer: self.layer.clone(),
            channels: self.channels,
            filters: cut(self.filters.as_ref(), EvidenceKind::Filters, needs),
            batch_norm_scales: cut(self.batch_norm_scales.as_ref(), EvidenceKind::BatchNormScales, needs),
            zeros: cut(self.zeros.as_ref(), EvidenceKind::Zeros, needs),
            activations: cut(self.activations.as_ref(), EvidenceKind::Activations, needs),
            moments: cut(self.moments.as_ref(), EvidenceKind::Moments, needs),
            gradients: cut(self.gradients.as_ref(), EvidenceKind::Gradients, needs),
        }
    }

    /// The filter weights, checked to be finite and to fit the layer.
    ///
    /// # Errors
    /// If they are missing, are not finite or do not fit; names `selector` and the layer.
    pub fn filters_for(&self, selector: &'static str) -> Result<&Filters, SelectorError> {
        let filters = self.require(self.filters.as_ref(), selector, EvidenceKind::Filters)?;
        self.checked(filters.check(self.channels), selector)?;
        Ok(filters)
    }

    /// The batch-norm scales, checked to be finite, at least 0 and to fit the layer.
    ///
    /// # Errors
    /// If they are missing, are not finite, are negative or do not fit; names `selector` and the layer.
    pub fn batch_norm_scales_for(&self, selector: &'static str) -> Result<&BatchNormScales, SelectorError> {
        let held = self.batch_norm_scales.as_ref();
        let scales = self.require(held, selector, EvidenceKind::BatchNormScales)?;
        self.checked(scales.check(self.channels), selector)?;
        Ok(scales)
    }

    /// The zero counts, checked to be at most the total and to fit the layer.
    ///
    /// # Errors
    /// If they are missing, saw nothing or do not fit; names `selector` and the layer.
    pub fn zeros_for(&self, selector: &'static str) -> Result<&ZeroCounts, SelectorError> {
        let zeros = self.require(self.zeros.as_ref(), selector, EvidenceKind::Zeros)?;
        self.checked(zeros.check(self.channels), selector)?;
        Ok(zeros)
    }

    /// The activation statistics, checked to be finite and to fit the layer.
    ///
    /// # Errors
    /// If they are missing, saw nothing, are not finite or do not fit; names `selector` and the layer.
    pub fn activations_for(&self, selector: &'static str) -> Result<&ActivationStats, SelectorError> {
        let activations = self.require(self.activations.as_ref(), selector, EvidenceKind::Activations)?;
        self.checked(activations.check(self.channels), selector)?;
        Ok(activations)
    }

    /// The contribution moments (finite and symmetric by construction), checked to fit the layer.
    ///
    /// # Errors
    /// If they are missing or do not fit; names `selector` and the layer.
    pub fn moments_for(&self, selector: &'static str) -> Result<&Moments, SelectorError> {
        let moments = self.require(self.moments.as_ref(), selector, EvidenceKind::Moments)?;
        self.checked(check_channels(EvidenceKind::Moments, moments.channels(), self.channels), selector)?;
        Ok(moments)
    }

    /// The gradient products, checked to be finite and to fit the layer.
    ///
    /// # Errors
    /// If they are missing, saw nothing, are not finite or do not fit; names `selector` and the layer.
    pub fn gradients_for(&self, selector: &'static str) -> Result<&GradientProducts, SelectorError> {
        let gradients = self.require(self.gradients.as_ref(), selector, EvidenceKind::Gradients)?;
        self.checked(gradients.check(self.channels), selector)?;
        Ok(gradients)
    }

    /// How many channels are removed when `keep` stay.
    ///
    /// # Errors
    /// If `keep` is zero or more than the layer has.
    pub fn count_to_remove(&self, selector: &'static str, keep: usize) -> Result<usize, SelectorError> {
        if keep == 0 || keep > self.channels {
            let layer = self.layer.clone();
            return Err(SelectorError::Keep { selector, layer, keep, channels: self.channels });
        }
        Ok(self.channels - keep)
    }

    fn require<'a, T>(
        &self,
        held: Option<&'a T>,
        selector: &'static str,
        kind: EvidenceKind,
    ) -> Result<&'a T, SelectorError> {
        let missing = kind.name();
        held.ok_or_else(|| SelectorError::MissingEvidence { selector, layer: self.layer.clone(), missing })
    }

    fn checked(
        &self,
        outcome: Result<(), EvidenceError>,
        selector: &'static str,
    ) -> Result<(), SelectorError> {
        outcome.map_err(|source| SelectorError::BadEvidence { selector, layer: self.layer.clone(), source })
    }
}

pub(crate) fn check_channels(kind: EvidenceKind, found: usize, expected: usize) -> Result<(), EvidenceError> {
    if found == expected {
        return Ok(());
    }
    let problem = format!("are of {found} channels, the layer has {expected}");
    Err(EvidenceError { kind: kind.name(), problem })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_of_the_wrong_size_are_refused() {
        let filters = Some(Filters { channels: 2, len: 3, values: vec![0.0; 5] });
        let evidence = Evidence { filters, ..Evidence::none("conv1", 2) };
        assert_eq!(
            evidence.filters_for("weight-sum-l1").unwrap_err().to_string(),
            "selector \"weight-sum-l1\" cannot rank layer \"conv1\": filter weights hold 5 values, 2 filters of 3 need 6"
        );
    }

    #[test]
    fn scales_and_statistics_that_cannot_be_are_refused() {
        let scales = |scales: &[f32]| {
            let scales = Some(BatchNormScales { scales: scales.to_vec() });
            let evidence = Evidence { batch_norm_scales: scales, ..Evidence::none("conv1", 2) };
            evidence.batch_norm_scales_for("slim").map(|_| ()).map_err(|error| error.to_string())
        };
        let begin = "selector \"slim\" cannot rank layer \"conv1\": ";
        assert_eq!(scales(&[0.0, 1.5]), Ok(()));
        assert_eq!(
            scales(&[1.0]),
            Err(format!("{begin}batch-norm scales are of 1 channels, the layer has 2"))
        );
        assert_eq!(scales(&[1.0, -1.0]), Err(format!("{begin}batch-norm scales hold -1 for channel 1")));
        assert_eq!(scales(&[f32::NAN, 1.0]), Err(format!("{begin}batch-norm scales hold NaN for channel 0")));

        let stats = |mean: f64, mean_abs: f64, max: f64, total: u64| {
            let [mean, mean_abs, max] = [mean, mean_abs, max].map(|value| vec![0.5, value]);
            let activations = Some(ActivationStats { mean, mean_abs, max, total });
            let evidence = Evidence { activations, ..Evidence::none("conv1", 2) };
            evidence.activations_for("slim").map(|_| ()).map_err(|error| error.to_string())
        };
        assert_eq!(stats(-1.0, 1.0, 0.0, 4), Ok(()));
        assert_eq!(stats(0.0, 0.0, 0.0, 4), Ok(()), "a dead channel");
        for (found, problem) in [
            (stats(0.0, 0.0, 0.0, 0), "saw no values"),
            (stats(f64::NAN, 0.0, 0.0, 4), "hold NaN as mean of channel 1"),
            (stats(0.0, f64::INFINITY, 0.0, 4), "hold inf as mean of absolute values of channel 1"),
            (stats(0.0, -1.0, 0.0, 4), "hold -1 as mean of absolute values of channel 1"),
            (stats(0.0, 0.0, f64::NEG_INFINITY, 4), "hold -inf as maximum of channel 1"),
        ] {
            assert_eq!(found, Err(format!("{begin}activation statistics {problem}")));
        }
    }

    #[test]
    fn gradient_products_that_cannot_be_are_refused() {
        let found = |taylor: &[f64], taylor_abs: &[f64], images: u64| {
            let (taylor, taylor_abs) = (taylor.to_vec(), taylor_abs.to_vec());
            let gradients = Some(GradientProducts { taylor, taylor_abs, images });
            let evidence = Evidence { gradients, ..Evidence::none("conv1", 2) };
            evidence.gradients_for("slim").map(|_| ()).map_err(|error| error.to_string())
        };
        let problem = |problem: &str| {
            Err(format!("selector \"slim\" cannot rank layer \"conv1\": gradient products {problem}"))
        };
        assert_eq!(found(&[-0.5, 0.0], &[1.0, 0.0], 3), Ok(()));
        assert_eq!(found(&[-0.5, 0.0], &[1.0, 0.0], 0), problem("saw no images"));
        assert_eq!(found(&[0.5], &[1.0, 0.0], 3), problem("are of 1 channels, the layer has 2"));
        assert_eq!(found(&[0.5, 0.5], &[1.0; 3], 3), problem("are of 3 channels, the layer has 2"));
        assert_eq!(found(&[0.0, f64::NAN], &[1.0; 2], 3), problem("hold NaN as mean of channel 1"));
        let of_abs = "as mean of absolute values of channel";
        assert_eq!(found(&[0.0; 2], &[-1.0, 0.0], 3), problem(&format!("hold -1 {of_abs} 0")));
        assert_eq!(found(&[0.0; 2], &[0.0, f64::INFINITY], 3), problem(&format!("hold inf {of_abs} 1")));
    }
}
