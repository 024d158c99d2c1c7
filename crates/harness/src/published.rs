//! The published numbers that tables stand beside (Luo et al. 2017, tables 1 and 3, figure 4), each with its source.

use std::collections::BTreeMap;

use serde::Deserialize;
use thiserror::Error;

/// The committed data file with the published numbers.
const FILE: &str = "data/published.toml";

/// What can be wrong with the file of published numbers.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum PublishedError {
    /// It is not TOML, or a key is missing, unknown or of another type.
    #[error("{FILE} cannot be read: {0}")]
    Toml(#[from] toml::de::Error),
    /// A value is not a number.
    #[error("{FILE}: {printed:?} of {entry:?} is not a number")]
    NotANumber {
        /// The model or series.
        entry: String,
        /// What stands there.
        printed: String,
    },
    /// A source is not listed under `[sources]`.
    #[error("{FILE}: source {source_name:?} of {entry:?} is not listed under [sources]")]
    UnknownSource {
        /// The model or series.
        entry: String,
        /// The source it names.
        source_name: String,
    },
    /// A series of figure 4 does not fit the keep rates.
    #[error("{FILE}: {entry:?} {problem}")]
    Series {
        /// The series.
        entry: String,
        /// What does not fit.
        problem: String,
    },
    /// A model of the tables has no published numbers.
    #[error("{FILE} has no [[compression]] entry {0:?}")]
    UnknownModel(String),
}

/// A number with the digits that were printed.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Digits(String);

impl Digits {
    /// The digits as printed.
    #[must_use]
    pub fn printed(&self) -> &str {
        &self.0
    }

    /// The number; NaN never occurs, [`Published::parse`] has checked the digits.
    #[must_use]
    pub fn value(&self) -> f64 {
        self.0.parse().unwrap_or(f64::NAN)
    }

    /// Whether `ours`, rounded to as many decimals, shows the same digits.
    #[must_use]
    pub fn equals_at_printed_digits(&self, ours: f64) -> bool {
        let decimals = self.0.split_once('.').map_or(0, |(_, decimals)| decimals.len());
        format!("{ours:.decimals$}") == self.0
    }

    fn check(&self, entry: &str) -> Result<(), PublishedError> {
        let finite = self.0.parse::<f64>().is_ok_and(f64::is_finite);
        let digits_only = self.0.bytes().all(|b| b.is_ascii_digit() || b == b'.' || b == b'-');
        if finite && digits_only {
            return Ok(());
        }
        Err(PublishedError::NotANumber { entry: entry.to_owned(), printed: self.0.clone() })
    }
}

/// A published number with its source.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Figure {
    /// The digits.
    pub printed: Digits,
    /// A key of [`Published::sources`].
    pub source: String,
    /// Whether it was read in that source; if not, tables say so.
    pub verified: bool,
}

/// Published size and cost of a model on ImageNet (ICCV tables 1 and 3).
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Compression {
    /// Our name of the model, as in [`thinet_models::paper_models`].
    pub model: String,
    /// The paper's name of it.
    pub name: String,
    /// Parameters, 10⁶.
    pub params_m: Figure,
    /// FLOPs, 10⁹.
    pub flops_b: Figure,
}

/// A point that stands in the source but cannot be right.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Suspect {
    /// Which point.
    pub keep_rate: f64,
    /// Why it is not believed.
    pub why: String,
}

/// One method of figure 4.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Series {
    /// The method's name in the figure.
    pub name: String,
    /// Our selector for it.
    pub selector: String,
    /// Our reconstruction for it.
    pub reconstruction: String,
    /// Whether the paper's figure shows it.
    pub in_paper: bool,
    /// Top-1 accuracy after fine-tuning, per cent, one per keep rate.
    pub top1: Vec<Digits>,
    /// Points not to be believed.
    #[serde(default)]
    pub suspect: Vec<Suspect>,
}

/// One point of figure 4.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point<'a> {
    /// Top-1 accuracy, per cent.
    pub top1: &'a Digits,
    /// Why it is not to be believed; such a point is never ranked.
    pub suspect: Option<&'a str>,
}

/// Figure 4: selection criteria on CUB-200, VGG-16-GAP, first ten convolutions.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Figure4 {
    /// The data it was measured on.
    pub data: String,
    /// A key of [`Published::sources`].
    pub source: String,
    /// Whether it was read in that source.
    pub verified: bool,
    /// Keep rates, descending.
    pub keep_rates: Vec<f64>,
    /// FLOPs relative to the full net, per cent, one per keep rate.
    pub flops_percent: Vec<Digits>,
    /// The methods.
    pub series: Vec<Series>,
}

impl Figure4 {
    /// The published series of a method, by what it is made of.
    #[must_use]
    pub fn find(&self, selector: &str, reconstruction: &str) -> Option<&Series> {
        self.series.iter().find(|s| s.selector == selector && s.reconstruction == reconstruction)
    }

    /// The point of a series at a keep rate, if the figure has that rate.
    #[must_use]
    pub fn point<'a>(&self, series: &'a Series, keep_rate: f64) -> Option<Point<'a>> {
        let at = self.keep_rates.iter().position(|&rate| same_rate(rate, keep_rate))?;
        let suspect = series.suspect.iter().find(|s| same_rate(s.keep_rate, keep_rate));
        Some(Point { top1: &series.top1[at], suspect: suspect.map(|s| s.why.as_str()) })
    }
}

/// Whether two keep rates are the same but for rounding.
fn same_rate(a: f64, b: f64) -> bool {
    (a - b).abs() < 1e-9
}

/// All published numbers.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Published {
    /// Where numbers were read: short name to what it stands for.
    pub sources: BTreeMap<String, String>,
    /// Sizes and costs of the eight models.
    pub compression: Vec<Compression>,
    /// The comparison of selection criteria.
    pub figure4: Figure4,
}

impl Published {
    /// The numbers that come with this program.
    ///
    /// # Errors
    /// If the file of published numbers is inconsistent.
    pub fn load() -> Result<Self, PublishedError> {
        Self::parse(include_str!("../data/published.toml"))
    }

    /// Reads and checks the numbers: digits are numbers, sources are listed, every series has a value per keep rate.
    ///
    /// # Errors
    /// Names the entry that is wrong.
    pub fn parse(text: &str) -> Result<Self, PublishedError> {
        let published: Self = toml::from_str(text)?;
        for Compression { model, params_m, flops_b, .. } in &published.compression {
            for figure in [params_m, flops_b] {
                figure.printed.check(model)?;
                published.check_source(model, &figure.source)?;
            }
        }
        published.check_figure4()?;
        Ok(published)
    }

    /// The published numbers of a model.
    ///
    /// # Errors
    /// If there are none.
    pub fn compression(&self, model: &str) -> Result<&Compression, PublishedError> {
        self.compression
            .iter()
            .find(|c| c.model == model)
            .ok_or_else(|| PublishedError::UnknownModel(model.to_owned()))
    }

    /// What a source's short name stands for; [`Published::parse`] has checked that it is listed.
    #[must_use]
    pub fn source<'a>(&'a self, name: &'a str) -> &'a str {
        self.sources.get(name).map_or(name, String::as_str)
    }

    fn check_source(&self, entry: &str, name: &str) -> Result<(), PublishedError> {
        if self.sources.contains_key(name) {
            return Ok(());
        }
        Err(PublishedError::UnknownSource { entry: entry.to_owned(), source_name: name.to_owned() })
    }

    fn check_figure4(&self) -> Result<(), PublishedError> {
        let figure = &self.figure4;
        let rates = &figure.keep_rates;
        self.check_source("figure4", &figure.source)?;
        let one_per_rate = |entry: &str, digits: &[Digits]| {
            if digits.len() != rates.len() {
                let problem = format!("has {} values for {} keep rates", digits.len(), rates.len());
                return Err(PublishedError::Series { entry: entry.to_owned(), problem });
            }
            digits.iter().try_for_each(|d| d.check(entry))
        };
        one_per_rate("flops-percent", &figure.flops_percent)?;
        for series in &figure.series {
            one_per_rate(&series.name, &series.top1)?;
            let stray = series.suspect.iter().find(|s| !rates.iter().any(|&r| same_rate(r, s.keep_rate)));
            if let Some(stray) = stray {
                let problem =
                    format!("marks keep rate {} as suspect, which the figure lacks", stray.keep_rate);
                return Err(PublishedError::Series { entry: series.name.clone(), problem });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn broken(from: &str, to: &str) -> String {
        let text = include_str!("../data/published.toml");
        assert!(text.contains(from));
        Published::parse(&text.replacen(from, to, 1)).unwrap_err().to_string()
    }

    #[test]
    fn the_shipped_file_holds_eight_models_and_six_methods_at_ten_rates() {
        let published = Published::load().unwrap();
        assert_eq!(published.compression.len(), 8);
        assert_eq!(published.figure4.series.len(), 6);
        assert_eq!(published.figure4.keep_rates.len(), 10);
        assert_eq!(published.compression("thinet-30").unwrap().flops_b.printed.printed(), "2.20");
        assert!(published.compression("thinet-20").unwrap_err().to_string().contains("thinet-20"));
    }

    #[test]
    fn only_the_slip_of_random_at_one_half_is_suspect() {
        let figure = Published::load().unwrap().figure4;
        let random = figure.find("random", "none").unwrap();
        let point = figure.point(random, 0.5).unwrap();
        assert_eq!((point.top1.printed(), point.suspect.is_some()), ("7.96", true));
        let suspects = figure.series.iter().flat_map(|s| &s.suspect).count();
        assert_eq!(suspects, 1);
    }

    #[test]
    fn a_series_is_found_by_selector_and_reconstruction() {
        let figure = Published::load().unwrap().figure4;
        assert_eq!(figure.find("thinet", "none").unwrap().name, "ThiNet w/o w");
        assert_eq!(figure.find("thinet", "channel-scale").unwrap().name, "ThiNet");
        assert_eq!(figure.find("thinet-omp", "channel-scale"), None);
        assert_eq!(figure.find("random", "channel-scale"), None);
        let apoz = figure.find("apoz", "none").unwrap();
        assert_eq!(figure.point(apoz, 0.1 + 0.2).unwrap().top1.printed(), "51.40");
        assert_eq!(figure.point(apoz, 0.25), None);
    }

    #[test]
    fn printed_digits_decide_equality() {
        let digits = Digits("2.20".to_owned());
        assert!(digits.equals_at_printed_digits(2.195_1));
        assert!(!digits.equals_at_printed_digits(2.194_9));
        assert!(Digits("100".to_owned()).equals_at_printed_digits(99.6));
    }

    #[test]
    fn a_broken_file_is_refused_with_the_entry_named() {
        assert!(broken("\"138.34\"", "\"138,34\"").contains("\"138,34\" of \"vgg16\" is not a number"));
        assert!(broken("\"138.34\"", "\"inf\"").contains("is not a number"));
        assert!(
            broken("source = \"shrinkbench\"", "source = \"memory\"").contains("\"memory\" of \"vgg16\"")
        );
        assert!(broken(", \"82.01\"", "").contains("\"flops-percent\" has 9 values for 10 keep rates"));
        assert!(broken("{ keep-rate = 0.5,", "{ keep-rate = 0.55,").contains("suspect"));
        assert!(broken("in-paper = true", "in-papre = true").contains("in-papre"));
    }
}
