//! Which columns of each kind of table the page shows, with headings and units.

use super::table::{Column, Kind, column, result};

/// `<table>-summary`: means over seeds.
pub(super) const MEANS: [Column<'static>; 15] = [
    column("variant", "variant", Kind::Choice),
    column("method", "method", Kind::Choice),
    column("keep_rate", "keep rate", Kind::Exact),
    column("channels_fraction", "channels kept, %", Kind::Percent),
    column("flops_target", "FLOPs target, %", Kind::Percent),
    column("flops_fraction", "FLOPs kept, %", Kind::Percent),
    column("params_fraction", "params kept, %", Kind::Percent),
    column("after_cut_top1", "cut top-1, %", Kind::Mean),
    column("after_reconstruction_top1", "refit top-1, %", Kind::Mean),
    column("after_batch_norm_estimate_top1", "BN estimated top-1, %", Kind::Mean),
    result("after_fine_tune_top1", "tuned top-1, %", Kind::Mean),
    column("top1_drop", "drop, points", Kind::Mean),
    column("done", "seeds run", Kind::Count),
    column("diverged", "seeds diverged", Kind::Count),
    column("published_top1", "published, CUB-200, %", Kind::Published),
];

/// `<table>-differences`.
pub(super) const DIFFERENCES: [Column<'static>; 11] = [
    column("variant", "variant", Kind::Choice),
    column("method", "method", Kind::Choice),
    column("against", "less", Kind::Choice),
    column("against_variant", "of variant", Kind::Choice),
    column("stage", "stage", Kind::Choice),
    column("keep_rate", "keep rate", Kind::Exact),
    column("top1_difference", "difference, points", Kind::Signed(2)),
    column("low", "95 % interval", Kind::Interval),
    column("p_holm", "p (Holm)", Kind::Number(3)),
    column("smallest_shown", "smallest shown", Kind::Number(2)),
    column("verdict", "verdict", Kind::Choice),
];

/// `<table>-tau`.
pub(super) const TAU: [Column<'static>; 6] = [
    column("variant", "variant", Kind::Choice),
    column("keep_rate", "keep rate", Kind::Exact),
    column("tau_b", "Kendall\u{2019}s tau-b", Kind::Number(2)),
    column("methods", "methods", Kind::Count),
    column("ranked", "ranked", Kind::Text),
    column("left_out", "left out", Kind::Text),
];

/// A study's main table: a row a cell.
pub(super) const CELLS: [Column<'static>; 16] = [
    column("variant", "variant", Kind::Choice),
    column("method", "method", Kind::Choice),
    column("keep_rate", "keep rate", Kind::Exact),
    column("seed", "seed", Kind::Exact),
    column("status", "status", Kind::Choice),
    column("dense_top1", "dense top-1, %", Kind::Number(2)),
    column("after_cut_top1", "cut top-1, %", Kind::Number(2)),
    column("after_reconstruction_top1", "refit top-1, %", Kind::Number(2)),
    column("after_batch_norm_estimate_top1", "BN estimated top-1, %", Kind::Number(2)),
    column("after_fine_tune_top1", "tuned top-1, %", Kind::Number(2)),
    column("after_fine_tune_top5", "tuned top-5, %", Kind::Number(2)),
    column("top1_drop", "drop, points", Kind::Number(2)),
    column("params", "params", Kind::Count),
    column("flops", "FLOPs", Kind::Count),
    column("flops_target", "FLOPs target, %", Kind::Percent),
    column("channels_fraction", "channels kept, %", Kind::Percent),
];

/// Tables of the paper's own scale: ours beside the published value, as top-1 and as drop.
pub(super) const BESIDE: [Column<'static>; 14] = [
    column("experiment", "study", Kind::Choice),
    column("method", "method", Kind::Choice),
    column("model", "model", Kind::Choice),
    column("protocol", "protocol", Kind::Choice),
    column("params", "params", Kind::Count),
    column("flops", "FLOPs", Kind::Count),
    result("top1", "our top-1, %", Kind::Number(2)),
    column("published_top1", "published top-1, %", Kind::Published),
    result("top1_drop", "our drop, points", Kind::Number(2)),
    column("published_top1_drop", "published drop, points", Kind::Number(2)),
    column("top5", "our top-5, %", Kind::Number(2)),
    column("published_top5", "published top-5, %", Kind::Number(2)),
    column("published_protocol", "published protocol", Kind::Text),
    column("status", "ours", Kind::Choice),
];

/// The spread over draws of a calibration sample.
pub(super) const DRAWS: [Column<'static>; 13] = [
    column("stage", "stage", Kind::Choice),
    column("images_per_class", "images of a class", Kind::Count),
    column("positions_per_image", "positions of an image", Kind::Count),
    column("others", "also", Kind::Choice),
    column("method", "method", Kind::Choice),
    column("keep_rate", "keep rate", Kind::Exact),
    column("top1_mean", "top-1, %", Kind::Number(2)),
    column("draws_std", "± draws", Kind::Number(2)),
    column("nets_std", "± nets", Kind::Number(2)),
    column("top1_min", "lowest", Kind::Number(2)),
    column("top1_max", "highest", Kind::Number(2)),
    column("widest", "widest of a net", Kind::Number(2)),
    column("draws_least", "draws", Kind::Count),
];

pub(super) const COMPRESSION: [Column<'static>; 10] = [
    column("model", "model", Kind::Choice),
    column("convention", "convention", Kind::Choice),
    column("stride", "stride", Kind::Choice),
    column("params", "params", Kind::Count),
    column("published_params_m", "published, M", Kind::Exact),
    column("flops", "FLOPs", Kind::Count),
    column("published_flops_b", "published, G", Kind::Exact),
    column("times_fewer_params", "× fewer params", Kind::Number(2)),
    column("times_fewer_flops", "× fewer FLOPs", Kind::Number(2)),
    column("equal_at_printed_digits", "equal as printed", Kind::Choice),
];

pub(super) const FIGURE4: [Column<'static>; 6] = [
    column("keep_rate", "keep rate", Kind::Exact),
    column("params", "params", Kind::Count),
    column("flops", "FLOPs", Kind::Count),
    column("flops_percent", "FLOPs kept, %", Kind::Number(2)),
    column("published_flops_percent", "published, %", Kind::Number(2)),
    column("equal_at_printed_digits", "equal as printed", Kind::Choice),
];

pub(super) const LATENCY: [Column<'static>; 12] = [
    column("model", "model", Kind::Text),
    column("device", "device", Kind::Choice),
    column("processor", "processor", Kind::Choice),
    column("threads", "threads", Kind::Count),
    column("batch", "batch", Kind::Count),
    column("forward_ms", "forward, ms", Kind::Number(1)),
    column("forward_times_faster", "× faster", Kind::Number(2)),
    column("published_forward_times_faster", "published ×", Kind::Number(2)),
    column("backward_ms", "backward, ms", Kind::Number(1)),
    column("backward_times_faster", "× faster", Kind::Number(2)),
    column("published_backward_times_faster", "published ×", Kind::Number(2)),
    column("published_forward_ms", "published forward, ms", Kind::Number(1)),
];

pub(super) const CHECKLIST: [Column<'static>; 4] = [
    column("question", "question", Kind::Text),
    column("answer", "answer", Kind::Choice),
    column("evidence", "evidence", Kind::Text),
    column("asked_by", "asked by", Kind::Choice),
];

/// Columns for a table of this name that belongs to no measured study; `None`: all of its columns.
pub(super) fn of_table(name: &str) -> Option<&'static [Column<'static>]> {
    match name {
        "compression" => Some(&COMPRESSION),
        "figure4-flops" => Some(&FIGURE4),
        "latency" => Some(&LATENCY),
        _ if name.starts_with("imagenet-") => Some(&BESIDE),
        _ if name.ends_with("-summary") => Some(&MEANS),
        _ => None,
    }
}
