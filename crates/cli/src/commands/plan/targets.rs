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
    /// `None` with a global allocation, where each net has FLOPs of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    flops: Option<u64>,
    /// FLOPs at the keep rate, over those of the dense net.
    #[serde(skip_serializing_if = "Option::is_none")]
    flops_fraction: Option<f64>,
}

impl TargetLine {
    pub(super) fn print(&self) {
        let variant = self.variant.as_ref().map_or_else(String::new, |name| format!("{name}: "));
        let (target, rate) = (100.0 * self.target, self.keep_rate);
        let met = match self.flops_fraction {
            Some(got) => format!("keep rate {rate} leaves {:.2} %", 100.0 * got),
            None => format!("widths of each net's own; in tables under keep rate {rate}"),
        };
        println!("FLOPs       {variant}at most {target:.2} % asked: {met}");
    }
}

/// The targets of the cells of a study whose dense net has this size, each variant's once.
pub(super) fn lines<'a>(cells: impl IntoIterator<Item = &'a CellDesign>, dense: Size) -> Vec<TargetLine> {
    let mut lines = Vec::new();
    for cell in cells {
        let Some(target) = cell.flops_target else { continue };
        let flops = cell.scorer.is_none().then_some(cell.size.paper.flops);
        let line = TargetLine {
            variant: cell.variant.name.clone(),
            target,
            keep_rate: cell.keep_rate,
            flops,
            flops_fraction: flops.map(|flops| flops as f64 / dense.paper.flops as f64),
        };
        if !lines.contains(&line) {
            lines.push(line);
        }
    }
    lines
}
