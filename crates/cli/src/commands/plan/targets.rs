//! The targets of FLOPs of a study, each with the keep rate that meets it.

use serde::Serialize;
use thinet_harness::study::CellDesign;
use thinet_report::records::Size;

/// A target of FLOPs with what was found for it.
#[derive(PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct TargetLine {
    #[serde(skip_serializing_if = "Option::is_none")]
    variant: Option<String>,
    /// The target, as a fraction of the dense net's FLOPs.
    target: f64,
    keep_rate: f64,
    flops: u64,
    /// FLOPs at the keep rate, over those of the dense net.
    flops_fraction: f64,
}

impl TargetLine {
    pub(super) fn print(&self) {
        let variant = self.variant.as_ref().map_or_else(String::new, |name| format!("{name}: "));
        let [target, got] = [self.target, self.flops_fraction].map(|fraction| 100.0 * fraction);
        println!(
            "FLOPs       {variant}at most {target:.2} % asked: keep rate {} leaves {got:.2} %",
            self.keep_rate
        );
    }
}

/// The targets of the cells of a study whose dense net has this size, each variant's once.
pub(super) fn lines<'a>(cells: impl IntoIterator<Item = &'a CellDesign>, dense: Size) -> Vec<TargetLine> {
    let mut lines = Vec::new();
    for cell in cells {
        let Some(target) = cell.flops_target else { continue };
        let flops = cell.size.paper.flops;
        let line = TargetLine {
            variant: cell.variant.name.clone(),
            target,
            keep_rate: cell.keep_rate,
            flops,
            flops_fraction: flops as f64 / dense.paper.flops as f64,
        };
        if !lines.contains(&line) {
            lines.push(line);
        }
    }
    lines
}
