//! What was asked of a cell's size beside what it has, where a study has targets of FLOPs or a global allocation.

use thinet_graph::Counts;

use super::lines::Line;
use crate::records::Size;

/// The columns of what was asked and got; none in a study that lists one share of every layer.
#[derive(Clone, Copy)]
pub(super) struct AskedColumns {
    /// Whether some cell has a target of FLOPs.
    pub(super) has_targets: bool,
    /// Whether a global allocation fixes the widths of some cell.
    pub(super) is_allocated: bool,
}

/// Fractions of the dense net: of its channels in pruned layers (global allocations only), the target of FLOPs, and its FLOPs.
#[derive(Clone, Copy)]
pub(super) struct Got {
    pub(super) channels: Option<f64>,
    pub(super) flops_target: Option<f64>,
    pub(super) flops: Option<f64>,
}

impl AskedColumns {
    pub(super) fn of(lines: &[Line]) -> Self {
        Self {
            has_targets: lines.iter().any(|line| line.cell.flops_target.is_some()),
            is_allocated: lines.iter().any(|line| line.cell.is_allocated()),
        }
    }

    pub(super) fn headings(self) -> Vec<&'static str> {
        self.chosen(["channels kept, %", "FLOPs target, %", "FLOPs kept, %"])
    }

    /// The values under the headings.
    pub(super) fn shown(self, got: Got) -> Vec<String> {
        let percent = |fraction: f64| format!("{:.2}", 100.0 * fraction);
        let flops = got.flops.map_or_else(|| "not known yet".to_owned(), percent);
        let [channels, target] =
            [got.channels, got.flops_target].map(|of| of.map(percent).unwrap_or_default());
        self.chosen([channels, target, flops])
    }

    fn chosen<T>(self, [channels, target, flops]: [T; 3]) -> Vec<T> {
        let Self { has_targets, is_allocated } = self;
        let columns = [(is_allocated, channels), (has_targets, target), (has_targets || is_allocated, flops)];
        columns.into_iter().filter_map(|(is_shown, value)| is_shown.then_some(value)).collect()
    }

    /// The notes on these columns.
    pub(super) fn notes(self) -> Vec<String> {
        let targets = "FLOPs target and FLOPs kept are per cent of the dense net's; the keep rate of a target is the largest, the \
                       same for all layers without a rate of their own, at which the net has no more FLOPs than that.";
        let allocated = "Where channels kept are given, the channels of all pruned layers were ranked together (allocation = \
                         \"global\"): the keep rate is what was asked, the share of all their channels, and the widths are each \
                         method's and each seed's own, so that nets of one keep rate differ in FLOPs. Of a target of FLOPs the keep \
                         rate is only the name: the largest uniform one that meets it; the nets have the FLOPs given, no more than \
                         the target.";
        let notes = [(self.has_targets, targets), (self.is_allocated, allocated)];
        notes.into_iter().filter(|(holds, _)| *holds).map(|(_, note)| note.to_owned()).collect()
    }
}

/// The mean of some sizes, to the nearest whole number; that of equal sizes is the size itself.
pub(super) fn mean_size(sizes: &[Size]) -> Option<Size> {
    let count = sizes.len() as u64;
    if count == 0 {
        return None;
    }
    let mean = |of: &dyn Fn(&Size) -> u64| (sizes.iter().map(of).sum::<u64>() + count / 2) / count;
    let counts = |of: fn(&Size) -> &Counts| Counts {
        params: mean(&|size| of(size).params),
        macs: mean(&|size| of(size).macs),
        flops: mean(&|size| of(size).flops),
    };
    Some(Size { paper: counts(|size| &size.paper), all_parameters: counts(|size| &size.all_parameters) })
}
