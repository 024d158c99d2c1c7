//! Published prunings of CIFAR-10 nets: those that studies of ours re-run, and those of nets that we do not have.

use serde::Deserialize;

use super::{Digits, Figure, Published, PublishedError};

/// Prunings of one dense net in one publication. A drop is against this dense net and no other.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Rerun {
    /// The net as the publication names it.
    pub net: String,
    /// Our study that re-runs it; `None` where the net is none of ours.
    pub study: Option<String>,
    /// What the study does not match; for a net that is none of ours, why.
    pub unmatched: String,
    /// Top-1 of the dense net, per cent.
    pub dense: Figure,
    pub rows: Vec<RerunRow>,
}

/// A pruned net of a publication.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct RerunRow {
    /// The corresponding selector, or `from-scratch`.
    pub selector: String,
    /// The corresponding reconstruction.
    #[serde(default = "no_reconstruction")]
    pub reconstruction: String,
    /// The method's name there.
    pub method: String,
    /// The keep rate of our study with these widths, as it is written in the spec; `None` where the net is none of ours.
    pub keep_rate: Option<Digits>,
    /// What is published of the widths or the cost.
    pub size: String,
    /// Top-1 after tuning, per cent.
    pub top1: Figure,
    /// Standard deviation over runs, points.
    pub std: Option<Digits>,
}

fn no_reconstruction() -> String {
    "none".to_owned()
}

impl Rerun {
    /// Top-1 of the publication's dense net less that of a row of it, points.
    #[must_use]
    pub fn drop(&self, row: &RerunRow) -> f64 {
        self.dense.printed.value() - row.top1.printed.value()
    }

    /// Whether both numbers behind a drop were checked in their sources.
    #[must_use]
    pub fn is_verified(&self, row: &RerunRow) -> bool {
        self.dense.verified && row.top1.verified
    }
}

impl RerunRow {
    /// Whether this is the row of a method at a keep rate of the study that re-runs it.
    #[must_use]
    pub fn is_of(&self, selector: &str, reconstruction: &str, keep_rate: f64) -> bool {
        let rate = self.keep_rate.as_ref().map(Digits::value);
        (self.selector.as_str(), self.reconstruction.as_str(), rate)
            == (selector, reconstruction, Some(keep_rate))
    }
}

impl Published {
    pub(super) fn check_reruns(&self) -> Result<(), PublishedError> {
        for (at, rerun) in self.rerun.iter().enumerate() {
            let source = &rerun.dense.source;
            let entry =
                format!("{:?} ({source}, {})", rerun.net, rerun.study.as_deref().unwrap_or("not ours"));
            let is_same = |other: &Rerun| {
                (&other.net, &other.dense.source, &other.study) == (&rerun.net, source, &rerun.study)
            };
            if self.rerun[..at].iter().any(is_same) {
                return Err(PublishedError::Repeated { list: "rerun", entry });
            }
            for (at, row) in rerun.rows.iter().enumerate() {
                self.check_figures(&entry, [&rerun.dense, &row.top1])?;
                for digits in row.std.iter().chain(&row.keep_rate) {
                    digits.check(&entry)?;
                }
                let bad = |problem: &str| {
                    let problem = format!("has a row {:?} of {} {problem}", row.method, row.size);
                    Err(PublishedError::Series { entry: entry.clone(), problem })
                };
                if row.top1.source != *source {
                    return bad("from another source than its dense net");
                }
                if row.keep_rate.is_some() != rerun.study.is_some() {
                    return bad("whose keep rate says that the net is ours, or no keep rate though it is");
                }
                let key = |row: &RerunRow| {
                    (row.method.clone(), row.selector.clone(), row.reconstruction.clone(), row.size.clone())
                };
                if rerun.rows[..at].iter().any(|other| key(other) == key(row)) {
                    return bad("twice");
                }
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
        assert!(text.contains(from), "{from}");
        Published::parse(&text.replacen(from, to, 1)).unwrap_err().to_string()
    }

    #[test]
    fn drops_are_against_the_dense_net_of_the_same_source() {
        let published = Published::load().unwrap();
        let drops = |study: &str, selector: &str, rate: f64| -> Vec<String> {
            let ours = published.rerun.iter().filter(|rerun| rerun.study.as_deref() == Some(study));
            let rows = ours.flat_map(|rerun| rerun.rows.iter().map(move |row| (rerun, row)));
            let of_method = rows.filter(|(_, row)| row.is_of(selector, "none", rate));
            of_method
                .map(|(rerun, row)| format!("{:.2} {}", rerun.drop(row), rerun.is_verified(row)))
                .collect()
        };
        assert_eq!(drops("cifar10-resnet56-wang", "weight-sum-l1", 0.3), ["1.52 true"]);
        assert_eq!(drops("cifar10-resnet56-wang", "from-scratch", 0.1), ["5.42 true"]);
        // Two publications with dense nets of their own; the second was recalled.
        assert_eq!(drops("cifar10-vgg16-li", "weight-sum-l1", 0.5), ["-0.15 true", "0.22 false"]);
        assert_eq!(drops("cifar10-resnet56-distiller-79m", "apoz", 0.4375), ["-0.18 true"]);
        assert_eq!(drops("cifar10-resnet56-distiller-68m", "apoz", 0.3125), ["0.26 true"]);
        assert_eq!(drops("cifar10-resnet56-distiller-68m", "apoz", 0.5), [] as [&str; 0]);
    }

    #[test]
    fn the_nets_that_are_none_of_ours_have_no_keep_rate() {
        let published = Published::load().unwrap();
        let others: Vec<&Rerun> = published.rerun.iter().filter(|rerun| rerun.study.is_none()).collect();
        assert_eq!(others.len(), 2);
        assert!(others.iter().all(|rerun| rerun.rows.iter().all(|row| row.keep_rate.is_none())));
        assert!(others.iter().all(|rerun| !rerun.unmatched.is_empty()));
    }

    #[test]
    fn inconsistent_entries_are_refused() {
        assert!(broken("printed = \"93.79\"", "printed = \"93,79\"").contains("\"93,79\" of"));
        assert!(broken("std = \"0.06\"", "std = \"±0.06\"").contains("\"±0.06\" of"));
        let mixed = "top1 = { printed = \"93.51\", source = \"wang2023\"";
        assert!(
            broken(mixed, &mixed.replace("wang2023", "li2017"))
                .contains("from another source than its dense net")
        );
        let twice = "keep-rate = \"0.5\", size = \"0.5 of the filters off, 1.99x\"";
        let first = "keep-rate = \"0.7\", size = \"0.3 of the filters off, 1.45x\"";
        assert!(broken(twice, first).contains("twice"));
        assert!(broken("study = \"cifar10-resnet56-wang\"\n", "").contains("though it is"));
        let net = "net = \"ResNet-56, pre-activation\"";
        assert!(broken(net, "net = \"VGG-19 variant\"").contains("two [[rerun]] entries"));
        assert!(broken("source = \"zhuang2018\"", "source = \"memory\"").contains("\"memory\""));
    }
}
