//! Sizes, durations, counts and notes in words.

use thinet_harness::inspect::status::Tally;
use thinet_harness::study::BF16_WITHOUT_KERNELS;

/// How many stages of each kind, such as `3 dense nets, 3 calibrations and 75 cells`.
pub(crate) fn stages_in_words([dense, calibrations, cells]: [usize; 3]) -> String {
    let kinds = [(dense, "dense net"), (calibrations, "calibration"), (cells, "cell")];
    let words: Vec<String> = kinds
        .into_iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, word)| format!("{count} {word}{}", if count == 1 { "" } else { "s" }))
        .collect();
    match &words[..] {
        [all @ .., last] if !all.is_empty() => format!("{} and {last}", all.join(", ")),
        words => words.concat(),
    }
}

/// What to know before training in bfloat16 on a processor without kernels for it.
pub(crate) fn bf16_is_slow() -> String {
    format!(
        "libtorch has no bfloat16 kernels for this processor: with compute.precision = \"bf16\" a training step takes about \
         {BF16_WITHOUT_KERNELS} times as long as with \"f32\"; \"f32\" gives other results"
    )
}

/// How far a run is, such as `3 of 5 stages done, 1 running, 1 missing`.
pub(crate) fn tally_in_words(tally: Tally) -> String {
    let Tally { done, diverged, running, failed, missing, damaged } = tally;
    let mut words = vec![format!("{done} of {} stages done", done + running + failed + missing)];
    for (count, word) in [
        (diverged, "diverged"),
        (running, "running"),
        (failed, "failed"),
        (missing, "missing"),
        (damaged, "of these damaged"),
    ] {
        if count > 0 {
            words.push(format!("{count} {word}"));
        }
    }
    words.join(", ")
}

/// Bytes for people: `340 B`, `12.3 MiB`.
pub(crate) fn size(bytes: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < units.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes} B") } else { format!("{value:.1} {}", units[unit]) }
}

/// Seconds for people: `40 s`, `12 min`, `3.5 h`.
pub(crate) fn duration(seconds: f64) -> String {
    if seconds < 90.0 {
        format!("{seconds:.0} s")
    } else if seconds < 5400.0 {
        format!("{:.0} min", seconds / 60.0)
    } else {
        format!("{:.1} h", seconds / 3600.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_are_counted_by_name() {
        assert_eq!(stages_in_words([3, 3, 75]), "3 dense nets, 3 calibrations and 75 cells");
        assert_eq!(stages_in_words([1, 0, 2]), "1 dense net and 2 cells");
        assert_eq!(stages_in_words([0, 0, 1]), "1 cell");
    }
}
