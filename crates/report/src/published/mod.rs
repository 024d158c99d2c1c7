//! Published numbers for comparison (Luo et al. 2017, tables 1 and 3, figure 4; its TPAMI version and the authors' README; prunings of
//! CIFAR-10 nets by others), each with its source.

mod accuracy;
mod figure4;
mod reruns;

use std::collections::BTreeMap;

use accuracy::describe;
pub use accuracy::{Accuracy, AccuracyDrop, Latency, Method, OriginalRow, Paper, Protocol};
use figure4::same_rate;
pub use figure4::{Figure4, Point, Series, Suspect};
pub use reruns::{Rerun, RerunRow};
use serde::Deserialize;
use thiserror::Error;

/// The committed data file with the published numbers.
const FILE: &str = "data/published.toml";

/// Errors in the file of published numbers.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum PublishedError {
    /// Not TOML, or a key is missing, unknown or of another type.
    #[error("{FILE} cannot be read: {0}")]
    Toml(#[from] toml::de::Error),
    /// A value is not a number.
    #[error("{FILE}: {printed:?} of {entry:?} is not a number")]
    NotANumber {
        /// The model or series.
        entry: String,
        /// The text.
        printed: String,
    },
    /// A source is not listed under `[sources]`.
    #[error("{FILE}: source {source_name:?} of {entry:?} is not listed under [sources]")]
    UnknownSource {
        /// The model or series.
        entry: String,
        source_name: String,
    },
    /// A series of figure 4 does not fit the keep rates, or a row of a rerun its entry.
    #[error("{FILE}: {entry:?} {problem}")]
    Series {
        /// The series or entry.
        entry: String,
        problem: String,
    },
    /// A model of the tables has no published numbers.
    #[error("{FILE} has no [[compression]] entry {0:?}")]
    UnknownModel(String),
    /// A model's times are not published.
    #[error("{FILE} has no [[latency]] entry {0:?}")]
    NoLatency(String),
    /// There is no such row of accuracies.
    #[error("{FILE} has no [[accuracy]] entry {0}")]
    NoAccuracy(String),
    /// Two entries have the same key.
    #[error("{FILE} has two [[{list}]] entries {entry}")]
    Repeated {
        /// The list.
        list: &'static str,
        /// The entry.
        entry: String,
    },
    /// A row of accuracies names an invalid baseline.
    #[error("{FILE}: {key} of {entry} {problem}")]
    Baseline {
        /// The row.
        entry: String,
        /// `baseline` or `printed-baseline`.
        key: &'static str,
        problem: String,
    },
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

    /// The number. Never NaN, as [`Published::parse`] checks the digits.
    #[must_use]
    pub fn value(&self) -> f64 {
        self.0.parse().unwrap_or(f64::NAN)
    }

    /// Whether `ours`, rounded to as many decimals, has the same digits.
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
    /// Whether it was checked in that source; if not, tables label it.
    pub verified: bool,
}

/// Published size and cost of a model on ImageNet (ICCV tables 1 and 3).
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Compression {
    /// Our name of the model, as in [`thinet_nets::paper_models`].
    pub model: String,
    /// The paper's name of it.
    pub name: String,
    /// Parameters, 10⁶.
    pub params_m: Figure,
    /// FLOPs, 10⁹.
    pub flops_b: Figure,
}

/// All published numbers.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Published {
    /// Sources by short name.
    pub sources: BTreeMap<String, String>,
    /// Sizes and costs of the eight models.
    pub compression: Vec<Compression>,
    /// Accuracies of the eight models.
    pub accuracy: Vec<Accuracy>,
    /// Times of the eight models.
    pub latency: Vec<Latency>,
    /// The comparison of selection criteria.
    pub figure4: Figure4,
    /// Prunings of CIFAR-10 nets.
    pub rerun: Vec<Rerun>,
}

impl Published {
    /// The numbers that are compiled into this program.
    ///
    /// # Errors
    /// If the file of published numbers is inconsistent.
    pub fn load() -> Result<Self, PublishedError> {
        Self::parse(include_str!("../../data/published.toml"))
    }

    /// Parses and checks the numbers: digits are numbers, sources are listed, every series has a value per keep rate, no entry is
    /// repeated, and every drop has a baseline of its own protocol or source.
    ///
    /// # Errors
    /// If a check fails; the message names the entry.
    pub fn parse(text: &str) -> Result<Self, PublishedError> {
        let published: Self = toml::from_str(text)?;
        for Compression { model, params_m, flops_b, .. } in &published.compression {
            published.check_figures(model, [params_m, flops_b])?;
        }
        published.check_accuracy()?;
        published.check_latency()?;
        published.check_figure4()?;
        published.check_reruns()?;
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

    /// The published accuracy of a model.
    ///
    /// # Errors
    /// If there is no such row.
    pub fn accuracy(&self, model: &str, method: Method, paper: Paper) -> Result<&Accuracy, PublishedError> {
        self.find_accuracy(model, method, paper)
            .ok_or_else(|| PublishedError::NoAccuracy(describe(model, method, paper)))
    }

    /// The accuracy drop from the original of the same protocol; `None` if the row has no such baseline.
    #[must_use]
    pub fn accuracy_drop(&self, row: &Accuracy) -> Option<AccuracyDrop> {
        self.drop_from(row.baseline.as_ref()?, row)
    }

    /// The accuracy drop from the original of the same table, if that is another row than the baseline of
    /// [`Published::accuracy_drop`]: a difference across protocols, which must be labelled as such.
    #[must_use]
    pub fn printed_drop(&self, row: &Accuracy) -> Option<AccuracyDrop> {
        self.drop_from(row.printed_baseline.as_ref()?, row)
    }

    /// The published times of a model.
    ///
    /// # Errors
    /// If there are none.
    pub fn latency(&self, model: &str) -> Result<&Latency, PublishedError> {
        self.latency
            .iter()
            .find(|l| l.model == model)
            .ok_or_else(|| PublishedError::NoLatency(model.to_owned()))
    }

    /// The source with this short name; [`Published::parse`] checks that it is listed.
    #[must_use]
    pub fn source<'a>(&'a self, name: &'a str) -> &'a str {
        self.sources.get(name).map_or(name, String::as_str)
    }

    fn find_accuracy(&self, model: &str, method: Method, paper: Paper) -> Option<&Accuracy> {
        self.accuracy.iter().find(|a| a.model == model && a.method == method && a.paper == paper)
    }

    fn original(&self, row: &OriginalRow) -> Option<&Accuracy> {
        self.find_accuracy(&row.model, Method::Original, row.paper)
    }

    fn drop_from(&self, original: &OriginalRow, row: &Accuracy) -> Option<AccuracyDrop> {
        let original = self.original(original)?;
        let points = |from: &Figure, to: &Figure| from.printed.value() - to.printed.value();
        Some(AccuracyDrop {
            top1: points(&original.top1, &row.top1),
            top5: points(&original.top5, &row.top5),
            verified: original.is_verified() && row.is_verified(),
        })
    }

    fn check_figures(&self, entry: &str, figures: [&Figure; 2]) -> Result<(), PublishedError> {
        for figure in figures {
            figure.printed.check(entry)?;
            self.check_source(entry, &figure.source)?;
        }
        Ok(())
    }

    fn check_accuracy(&self) -> Result<(), PublishedError> {
        for (at, row) in self.accuracy.iter().enumerate() {
            let entry = row.describe();
            self.compression(&row.model)?;
            self.check_figures(&entry, [&row.top1, &row.top5])?;
            if self.accuracy[..at].iter().any(|earlier| earlier.describe() == entry) {
                return Err(PublishedError::Repeated { list: "accuracy", entry });
            }
            self.check_baselines(row)?;
        }
        Ok(())
    }

    fn check_baselines(&self, row: &Accuracy) -> Result<(), PublishedError> {
        let bad = |key, problem: String| PublishedError::Baseline { entry: row.describe(), key, problem };
        let named = [("baseline", &row.baseline), ("printed-baseline", &row.printed_baseline)];
        let is_original = row.method == Method::Original;
        if !is_original && named.iter().all(|(_, name)| name.is_none()) {
            return Err(bad("baseline", "is missing".to_owned()));
        }
        for (key, name) in named {
            let Some(name) = name else { continue };
            if is_original {
                return Err(bad(key, "stands at an original".to_owned()));
            }
            let Some(original) = self.original(name) else {
                let wanted = describe(&name.model, Method::Original, name.paper);
                return Err(bad(key, format!("is {wanted}, which has no entry")));
            };
            // Rows without a stated protocol are comparable only within one paper.
            let states_nothing = row.protocol == Protocol::NotStated;
            let comparable =
                original.protocol == row.protocol && (!states_nothing || original.paper == row.paper);
            if key == "baseline" && !comparable {
                return Err(bad(key, format!("is of protocol {:?}", original.protocol.name())));
            }
            if key == "printed-baseline" && original.paper != row.paper {
                return Err(bad(key, "stands in another paper".to_owned()));
            }
        }
        Ok(())
    }

    fn check_latency(&self) -> Result<(), PublishedError> {
        for (at, Latency { model, forward_ms, backward_ms }) in self.latency.iter().enumerate() {
            self.compression(model)?;
            self.check_figures(model, [forward_ms, backward_ms])?;
            if self.latency[..at].iter().any(|earlier| earlier.model == *model) {
                return Err(PublishedError::Repeated { list: "latency", entry: format!("{model:?}") });
            }
        }
        Ok(())
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
        let text = include_str!("../../data/published.toml");
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
    fn only_the_misprint_of_random_at_one_half_is_suspect() {
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

    fn row<'a>(published: &'a Published, model: &str, paper: Paper) -> &'a Accuracy {
        published.accuracy(model, Method::Thinet, paper).unwrap()
    }

    /// The drop with two decimals.
    fn shown(drop: Option<AccuracyDrop>) -> String {
        drop.map_or_else(|| "none".to_owned(), |d| format!("{:.2}/{:.2}", d.top1, d.top5))
    }

    #[test]
    fn drops_are_taken_against_the_original_of_the_same_protocol() {
        let published = Published::load().unwrap();
        let drop = |model: &str, paper| shown(published.accuracy_drop(row(&published, model, paper)));
        assert_eq!(drop("thinet-conv", Paper::Iccv), "1.70/0.48");
        assert_eq!(drop("thinet-gap", Paper::Iccv), "1.00/0.52");
        assert_eq!(drop("thinet-tiny", Paper::Iccv), "12.16/8.04");
        let resnets = ["thinet-70", "thinet-50", "thinet-30"];
        assert_eq!(resnets.map(|m| drop(m, Paper::Iccv)), ["0.84/0.47", "1.87/1.12", "4.46/2.84"]);
        assert_eq!(resnets.map(|m| drop(m, Paper::Tpami)), ["1.27/0.09", "3.27/1.21", "7.13/3.34"]);
    }

    #[test]
    fn the_papers_own_difference_across_protocols_is_kept_apart() {
        let published = Published::load().unwrap();
        let conv = row(&published, "thinet-conv", Paper::Iccv);
        assert_eq!(shown(published.printed_drop(conv)), "-1.46/-1.09");
        assert_eq!(conv.protocol_text(), "shorter side 256 (inferred)");
        assert_eq!(shown(published.printed_drop(row(&published, "thinet-gap", Paper::Iccv))), "none");
        let scratch = published.accuracy("thinet-conv", Method::Scratch, Paper::Iccv).unwrap();
        assert_eq!(
            (published.accuracy_drop(scratch), scratch.protocol_text()),
            (None, "not stated".to_owned())
        );
        let drop = published.printed_drop(scratch).unwrap();
        assert!(!drop.verified && published.printed_drop(conv).unwrap().verified);
    }

    #[test]
    fn only_the_row_trained_from_scratch_has_unverified_accuracies() {
        let published = Published::load().unwrap();
        assert_eq!(published.accuracy.len(), 14);
        let unverified: Vec<_> = published.accuracy.iter().filter(|a| !a.is_verified()).collect();
        assert_eq!(unverified.iter().map(|a| a.method).collect::<Vec<_>>(), [Method::Scratch]);
        let missing =
            published.accuracy("thinet-gap", Method::Scratch, Paper::Tpami).unwrap_err().to_string();
        assert!(missing.contains("\"thinet-gap\" (scratch, tpami)"), "{missing}");
    }

    #[test]
    fn every_model_has_times_and_only_those_of_the_released_models_are_verified() {
        let published = Published::load().unwrap();
        for model in thinet_nets::paper_models(thinet_nets::ResNetStride::First1x1).unwrap() {
            let times = published.latency(model.name).unwrap();
            let verified = matches!(model.name, "thinet-gap" | "thinet-tiny");
            assert_eq!(
                [times.forward_ms.verified, times.backward_ms.verified],
                [verified; 2],
                "{}",
                model.name
            );
        }
        assert_eq!(published.latency.len(), 8);
        assert_eq!(published.latency("thinet-tiny").unwrap().backward_ms.printed.printed(), "55.83");
        assert!(
            published.latency("alexnet").unwrap_err().to_string().contains("[[latency]] entry \"alexnet\"")
        );
    }

    #[test]
    fn inconsistent_accuracies_and_times_are_refused() {
        assert!(broken("\"88.44\"", "\"88.44%\"").contains("\"88.44%\" of \"\\\"vgg16"));
        assert!(broken("source = \"dnal\"", "source = \"dcp\"").contains("source \"dcp\""));
        let gone = "baseline = { model = \"vgg16\", paper = \"readme\" }";
        assert!(
            broken(gone, &gone.replace("readme", "tpami")).contains("(original, tpami), which has no entry")
        );
        assert!(broken(gone, &gone.replace("readme", "iccv")).contains("is of protocol \"256x256\""));
        let unlike = "baseline = { model = \"resnet50\", paper = \"iccv\" }";
        assert!(broken(unlike, &unlike.replace("iccv", "tpami")).contains("is of protocol \"not stated\""));
        assert!(broken(unlike, "").contains("baseline of \"thinet-70\" (thinet, iccv) is missing"));
        assert!(broken("paper = \"tpami\"", "paper = \"iccv\"").contains("two [[accuracy]] entries"));
        assert!(broken("protocol = \"256x256\"", "protocol = \"256\"").contains("256x256"));
        let printed = "printed-baseline = { model = \"vgg16\", paper = \"iccv\" }";
        assert!(broken(printed, &printed.replace("iccv", "readme")).contains("stands in another paper"));
        assert!(broken("\"189.92\"", "\"fast\"").contains("\"fast\" of \"vgg16\""));
        let tiny = "model = \"thinet-tiny\"\nforward";
        assert!(
            broken(tiny, &tiny.replace("tiny", "gap")).contains("two [[latency]] entries \"thinet-gap\"")
        );
        assert!(broken(tiny, &tiny.replace("tiny", "huge")).contains("thinet-huge"));
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
