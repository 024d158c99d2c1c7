//! The published comparison of selection criteria (Luo et al. 2017, figure 4).

use serde::Deserialize;

use super::Digits;

/// A point that is in the source but cannot be right.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Suspect {
    /// Keep rate of the point.
    pub keep_rate: f64,
    /// Why it cannot be right.
    pub why: String,
}

/// One method of figure 4.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Series {
    /// The method's name in the figure.
    pub name: String,
    /// The corresponding selector.
    pub selector: String,
    /// The corresponding reconstruction.
    pub reconstruction: String,
    /// Whether the paper's figure shows it.
    pub in_paper: bool,
    /// Top-1 accuracy after fine-tuning, per cent, one per keep rate.
    pub top1: Vec<Digits>,
    /// Points that cannot be right.
    #[serde(default)]
    pub suspect: Vec<Suspect>,
}

/// One point of figure 4.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point<'a> {
    /// Top-1 accuracy, per cent.
    pub top1: &'a Digits,
    /// Why it cannot be right, if so; such a point is never ranked.
    pub suspect: Option<&'a str>,
}

/// Figure 4: selection criteria on CUB-200, VGG-16-GAP, first ten convolutions.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Figure4 {
    /// The dataset.
    pub data: String,
    /// A key of [`Published::sources`].
    pub source: String,
    /// Whether it was checked in that source.
    pub verified: bool,
    /// Keep rates, descending.
    pub keep_rates: Vec<f64>,
    /// FLOPs relative to the full net, per cent, one per keep rate.
    pub flops_percent: Vec<Digits>,
    /// The methods.
    pub series: Vec<Series>,
}

impl Figure4 {
    /// The published series of a method.
    #[must_use]
    pub fn find(&self, selector: &str, reconstruction: &str) -> Option<&Series> {
        self.series.iter().find(|s| s.selector == selector && s.reconstruction == reconstruction)
    }

    /// A series that shows the dense net at a keep rate: the first one if all have the same value, as at 1.
    #[must_use]
    pub fn series_of_dense(&self, keep_rate: f64) -> Option<&Series> {
        let first = self.series.first()?;
        let value = self.point(first, keep_rate)?.top1;
        let is_same =
            |series: &Series| self.point(series, keep_rate).is_some_and(|point| point.top1 == value);
        self.series.iter().all(is_same).then_some(first)
    }

    /// The point of a series at a keep rate, if the figure has that rate.
    #[must_use]
    pub fn point<'a>(&self, series: &'a Series, keep_rate: f64) -> Option<Point<'a>> {
        let at = self.keep_rates.iter().position(|&rate| same_rate(rate, keep_rate))?;
        let suspect = series.suspect.iter().find(|s| same_rate(s.keep_rate, keep_rate));
        Some(Point { top1: &series.top1[at], suspect: suspect.map(|s| s.why.as_str()) })
    }
}

/// Whether two keep rates are equal up to rounding.
pub(super) fn same_rate(a: f64, b: f64) -> bool {
    (a - b).abs() < 1e-9
}
